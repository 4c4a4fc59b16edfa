//! The start of a session: who it is, and the proof.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::connection::{Connection, Frame};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Begins a session for replication, and proves who it is.
pub(crate) async fn log_in(connection: &mut Connection, endpoint: &Endpoint) -> Result<(), Error> {
    let parameters = [
        ("user", endpoint.user.as_str()),
        ("database", &endpoint.database),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", &endpoint.application_name),
        ("options", &endpoint.options),
    ];
    let parameters = parameters
        .into_iter()
        .filter(|(_, value)| !value.is_empty());
    frontend::startup_message(parameters, &mut connection.outgoing)?;
    connection.send().await?;
    loop {
        match connection.receive().await? {
            Frame::Message(Message::AuthenticationCleartextPassword) => {
                let password = endpoint.password.as_bytes();
                frontend::password_message(password, &mut connection.outgoing)?;
                connection.send().await?;
            }
            Frame::Message(Message::AuthenticationMd5Password(body)) => {
                let (user, password) = (endpoint.user.as_bytes(), endpoint.password.as_bytes());
                let proof = md5_hash(user, password, body.salt());
                frontend::password_message(proof.as_bytes(), &mut connection.outgoing)?;
                connection.send().await?;
            }
            Frame::Message(Message::AuthenticationSasl(body)) => {
                scram(connection, &body, &endpoint.password).await?;
            }
            Frame::Message(Message::ErrorResponse(body)) => {
                return Err(Error::server(body.fields()));
            }
            Frame::Message(Message::ReadyForQuery(_)) => return Ok(()),
            Frame::Message(
                Message::AuthenticationOk
                | Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::NoticeResponse(_),
            ) => {}
            _ => {
                return Err(Error::Login(
                    "the server asks for a proof that is not known".to_owned(),
                ));
            }
        }
    }
}

/// SCRAM without channel binding, as the service's other connections do it.
async fn scram(
    connection: &mut Connection,
    offered: &AuthenticationSaslBody,
    password: &str,
) -> Result<(), Error> {
    let mut mechanisms = offered.mechanisms();
    if !mechanisms.any(|mechanism| Ok(mechanism == SCRAM_SHA_256))? {
        return Err(Error::Login(
            "the server does not offer SCRAM-SHA-256".to_owned(),
        ));
    }
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut connection.outgoing)?;
    connection.send().await?;
    loop {
        match connection.receive().await? {
            Frame::Message(Message::AuthenticationSaslContinue(body)) => {
                scram.update(body.data()).map_err(|error| proof(&error))?;
                frontend::sasl_response(scram.message(), &mut connection.outgoing)?;
                connection.send().await?;
            }
            Frame::Message(Message::AuthenticationSaslFinal(body)) => {
                return scram.finish(body.data()).map_err(|error| proof(&error));
            }
            Frame::Message(Message::ErrorResponse(body)) => {
                return Err(Error::server(body.fields()));
            }
            _ => return Err(Error::Protocol("no answer to SCRAM")),
        }
    }
}

fn proof(error: &std::io::Error) -> Error {
    Error::Login(error.to_string())
}
