//! The PostgreSQL channels that events are notified on.

/// The channels of HushNet's own triggers.
pub const HUSHNET_CHANNELS: [&str; 4] = [
    "messages_channel",
    "sessions_channel",
    "devices_channel",
    "pending_sessions_channel",
];
/// The channel of every other source of the log.
const OF_SOURCES: &str = "realtime_events";
/// The channel of deleted devices and users.
const OF_REVOCATIONS: &str = "realtime_revocations";
/// The longest name of a channel, in bytes: PostgreSQL takes less than 64.
pub const CHANNEL_BYTES_MAX: usize = 63;
/// Channels that a server listens to at most.
pub const CHANNELS_MAX: usize = 64;

/// A channel that events are notified on, as its number in [`Channels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channel(u8);

/// The channels that a server listens to for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels(Vec<Box<str>>);

impl Default for Channels {
    /// HushNet's, and the log's own.
    fn default() -> Self {
        Self::with([])
    }
}

impl Channels {
    /// HushNet's, the log's own, and these.
    #[must_use]
    pub fn with<'a>(others: impl IntoIterator<Item = &'a str>) -> Self {
        let own = HUSHNET_CHANNELS
            .into_iter()
            .chain([OF_SOURCES, OF_REVOCATIONS]);
        let mut names: Vec<Box<str>> = own.map(Box::from).collect();
        for name in others {
            if names.len() < CHANNELS_MAX && !names.iter().any(|known| **known == *name) {
                names.push(name.into());
            }
        }
        Self(names)
    }

    /// The channel of that name, if it is one of these.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Channel> {
        let number = self.0.iter().position(|known| **known == *name)?;
        u8::try_from(number).ok().map(Channel)
    }

    /// The name of one of these channels.
    #[must_use]
    pub fn name(&self, channel: Channel) -> &str {
        self.0.get(channel.number()).map_or("", |name| name)
    }

    /// The names, by their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl Channel {
    /// HushNet's channel of messages, which every server listens to.
    pub const MESSAGES: Self = Self(0);

    /// The number, less than [`CHANNELS_MAX`].
    #[must_use]
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// Whether the service itself notifies on a channel of that name.
#[must_use]
pub fn is_own_channel(name: &str) -> bool {
    name.starts_with("realtime_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_found_by_its_name() {
        let channels = Channels::with(["orders", "devices_channel"]);
        assert_eq!(channels.names().count(), HUSHNET_CHANNELS.len() + 3);
        for name in channels.names() {
            assert_eq!(channels.name(channels.find(name).unwrap()), name);
        }
        assert_eq!(channels.find("messages_channel"), Some(Channel::MESSAGES));
        assert_eq!(channels.find("realtime_control"), None);
        assert_eq!(Channels::default().find("orders"), None);
    }

    #[test]
    fn no_more_channels_than_the_bound_are_kept() {
        let names: Vec<_> = (0..2 * CHANNELS_MAX).map(|n| n.to_string()).collect();
        let channels = Channels::with(names.iter().map(String::as_str));
        assert_eq!(channels.names().count(), CHANNELS_MAX);
    }
}
