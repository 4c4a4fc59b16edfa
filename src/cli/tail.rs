//! `tail`: a terminal client that prints a user's events.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use hushnet_realtime::output;
use hushnet_realtime::protocol::{CloseCode, NotKinds, Secret, WantedKinds};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error, Message};
use warp::http::Uri;

use super::exit::Misuse;
use super::user::user_id;

/// The default of the setting `listen`.
pub(super) const DEFAULT_URL: &str = "ws://127.0.0.1:8080";
/// The variable with a client's token. It begins like the service's settings, but is none.
pub(super) const TOKEN_VARIABLE: &str = "HUSHNET_TOKEN";
/// The close code that answers a client's own close frame.
const NORMAL: u16 = 1000;
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service, as ws://host:port
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL, value_parser = service_url)]
    url: String,
    /// The user whose events are printed; with a token, the token's user
    #[arg(long, value_name = "ID", value_parser = user_id, allow_hyphen_values = true,
          required_unless_present = "token")]
    user: Option<String>,
    /// The kinds of events that are printed, with commas between
    #[arg(long, value_name = "KINDS", default_value = WantedKinds::ALL, value_parser = kinds)]
    kinds: String,
    /// Proves the user's identity, where the service asks for it
    #[arg(
        long,
        env = TOKEN_VARIABLE,
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<Secret>,
}

/// What `--url` takes.
fn service_url(text: &str) -> Result<String, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme_str() == Some("ws") && url.host().is_some() && url.query().is_none() {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("it takes ws://host:port".to_owned())
}

/// What `--kinds` takes, as it stands in a query.
fn kinds(text: &str) -> Result<String, NotKinds> {
    text.parse::<WantedKinds>()?;
    Ok(utf8_percent_encode(text, NON_ALPHANUMERIC).to_string())
}

/// Why a connection was lost. Another try may succeed.
struct Lost(String);

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        url,
        user,
        kinds,
        token,
    } = arguments;
    // Not where the flag is read: the error would repeat it.
    if url.contains('@') {
        let text = "--url takes no user and password; --token proves who you are";
        return Err(Misuse(text.to_owned()).into());
    }
    let address = match user {
        Some(user) => {
            let user = utf8_percent_encode(&user, NON_ALPHANUMERIC);
            format!("{url}/ws?kinds={kinds}&user_id={user}")
        }
        None => format!("{url}/ws?kinds={kinds}"),
    };
    let mut request = address.as_str().into_client_request()?;
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    tokio::select! {
        failed = follow(&request) => failed,
        () = output::output_closed() => Ok(()),
    }
}

/// Prints the events, over one connection after another. Fails where another try would fail as well.
async fn follow(request: &Request) -> anyhow::Result<()> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let mut connected = false;
        let Lost(reason) = print_events(request, &mut connected).await?;
        if connected {
            backoff = BACKOFF_FIRST;
        }
        let pause = backoff.mul_f64(rand::random_range(0.0..1.0));
        output::complain(format_args!(
            "disconnected: {reason}; connecting again in {} ms",
            pause.as_millis()
        ));
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Prints the events until the connection ends.
async fn print_events(request: &Request, connected: &mut bool) -> anyhow::Result<Lost> {
    let mut socket = match connect_async(request.clone()).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(response)) if !response.status().is_server_error() => {
            let body = response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            anyhow::bail!("the service refused: {} {body}", response.status());
        }
        Err(error) => return Ok(Lost(error.to_string())),
    };
    *connected = true;
    output::complain(format_args!("connected to {}", request.uri()));
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => output::print_line(text)?,
            Some(Ok(Message::Close(Some(close)))) => {
                let code = u16::from(close.code);
                if code == NORMAL
                    || CloseCode::from_code(code).is_some_and(|code| !code.reconnect())
                {
                    anyhow::bail!("the service closed the connection: {close}");
                }
                return Ok(Lost(format!("closed with {close}")));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok(Lost(error.to_string())),
            None => return Ok(Lost("the connection ended".to_owned())),
        }
    }
}
