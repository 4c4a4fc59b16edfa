//! The settings of limits: how much clients may use.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::bounds::within;

/// How much clients may use; `limits/`, `edge/` and `connection/` act on it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Open WebSockets. One more is answered with 503
    #[arg(long, env = "HUSHNET_CONNECTIONS_MAX", value_name = "CONNECTIONS",
          default_value_t = 100_000, value_parser = within(1..=10_000_000))]
    pub connections_max: u32,

    /// Open WebSockets of one IPv4 address or IPv6 /64. One more is answered with 429
    #[arg(long, env = "HUSHNET_CONNECTIONS_PER_ADDRESS_MAX", value_name = "CONNECTIONS",
          default_value_t = 2_000, value_parser = within(1..=10_000_000))]
    pub connections_per_address_max: u32,

    /// Open WebSockets of one user. One more is answered with 429
    #[arg(long, env = "HUSHNET_CONNECTIONS_PER_USER_MAX", value_name = "CONNECTIONS",
          default_value_t = 100, value_parser = within(1..=10_000_000))]
    pub connections_per_user_max: u32,

    /// New WebSockets in a second, and at once. More are answered with 429
    #[arg(long, env = "HUSHNET_CONNECTIONS_PER_SECOND", value_name = "CONNECTIONS",
          default_value_t = 20_000, value_parser = within(1..=10_000_000))]
    pub connections_per_second: u32,

    /// The same of one IPv4 address or IPv6 /64
    #[arg(long, env = "HUSHNET_CONNECTIONS_PER_SECOND_PER_ADDRESS", value_name = "CONNECTIONS",
          default_value_t = 200, value_parser = within(1..=10_000_000))]
    pub connections_per_second_per_address: u32,

    /// The same of one user
    #[arg(long, env = "HUSHNET_CONNECTIONS_PER_SECOND_PER_USER", value_name = "CONNECTIONS",
          default_value_t = 100, value_parser = within(1..=10_000_000))]
    pub connections_per_second_per_user: u32,

    /// Reads of state in a second, and at once, from one IPv4 address or IPv6 /64. More are answered with
    /// 429
    #[arg(long, env = "HUSHNET_REQUESTS_PER_SECOND_PER_ADDRESS", value_name = "REQUESTS",
          default_value_t = 200, value_parser = within(1..=10_000_000))]
    pub requests_per_second_per_address: u32,

    /// Networks, with commas between, whose connections are not limited by address: this machine, and
    /// proxies that do not name their client
    #[arg(
        long,
        env = "HUSHNET_UNLIMITED_ADDRESSES",
        value_name = "NETWORKS",
        default_value = "127.0.0.0/8,::1/128"
    )]
    pub unlimited_addresses: Networks,

    /// Networks, with commas between, of the proxies whose `X-Forwarded-For` or `Forwarded` is believed
    #[arg(
        long,
        env = "HUSHNET_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        default_value = ""
    )]
    pub trusted_proxies: Networks,

    /// Time for a client to send the head of its HTTP request
    #[arg(long, env = "HUSHNET_REQUEST_HEAD_TIMEOUT_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=600_000))]
    pub request_head_timeout_ms: u32,

    /// Largest frame and message that a client may send
    #[arg(long, env = "HUSHNET_FRAME_BYTES_MAX", value_name = "BYTES",
          default_value_t = 65_536, value_parser = within(125..=16_777_216))]
    pub frame_bytes_max: u32,

    /// Bytes that wait for one socket. More events wait elsewhere, and after `write_timeout_ms` the
    /// client is closed with 4008
    #[arg(long, env = "HUSHNET_WRITE_BUFFER_BYTES_MAX", value_name = "BYTES",
          default_value_t = 65_536, value_parser = within(1_024..=16_777_216))]
    pub write_buffer_bytes_max: u32,

    /// Frames that a client may send in a second, and at once; fragments count. Then it is closed with
    /// 4029
    #[arg(long, env = "HUSHNET_CLIENT_FRAMES_PER_SECOND", value_name = "FRAMES",
          default_value_t = 50, value_parser = within(1..=100_000))]
    pub client_frames_per_second: u32,

    /// Pages of missed events that are read from the log in a second, and at once. More wait
    #[arg(long, env = "HUSHNET_REPLAY_PAGES_PER_SECOND", value_name = "PAGES",
          default_value_t = 2_000, value_parser = within(1..=1_000_000))]
    pub replay_pages_per_second: u32,
}

/// IP networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = String;

    /// An address by itself is a network of one.
    fn from_str(text: &str) -> Result<Self, String> {
        let network = |part: &str| {
            let network = part.parse::<IpNet>();
            network
                .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("{part} is not a network as in 10.0.0.0/8 or 2001:db8::/32"))
        };
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{network}")?;
        }
        Ok(())
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
