//! Why a client is refused: its identity is not proven, or it has met a limit.

use std::time::Duration;

use enum_map::Enum;
use strum::IntoStaticStr;

use super::CloseCode;
use super::error_body::{ErrorBody, RETRY_AFTER};

/// A connection or request that met a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit.
    pub limit: Limit,
    /// The time after which the client may try again.
    pub retry_after: Duration,
}

/// A limit on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
pub enum Limit {
    /// `connections_per_address_max`
    #[strum(serialize = "address_limit")]
    AddressOpen,
    /// `connections_per_user_max`
    #[strum(serialize = "user_limit")]
    UserOpen,
    /// `connections_per_second`
    #[strum(serialize = "rate_limit")]
    Rate,
    /// `connections_per_second_per_address`
    #[strum(serialize = "address_rate_limit")]
    AddressRate,
    /// `connections_per_second_per_user`
    #[strum(serialize = "user_rate_limit")]
    UserRate,
}

impl Refusal {
    /// What the client is sent.
    #[must_use]
    pub fn error_body(&self) -> ErrorBody<'static> {
        let Self { limit, retry_after } = self;
        ErrorBody::new(limit.code(), limit.message(), Some(*retry_after))
    }
}

impl Limit {
    /// The `code` of the answer, and the value of the label `reason` in the metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// What the client's developer needs to know.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::AddressOpen => "your address has all the connections that it may have",
            Self::UserOpen => "this user has all the connections that one may have",
            Self::Rate => "too many connect at once; come again a little later",
            Self::AddressRate => "your address connects too often; come again a little later",
            Self::UserRate => "this user connects too often; come again a little later",
        }
    }
}

/// Why a proof of identity is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum AuthError {
    /// No proof, or none of a kind that is taken.
    CredentialsMissing,
    /// No token at all, or one without the claims that are needed.
    TokenMalformed,
    /// `sub` is no id of the database's type of users.
    TokenSubject,
    /// Signed with another algorithm than the configured one, or with none.
    TokenAlgorithm,
    /// Signed with a key that is not published.
    TokenKeyUnknown,
    /// Not signed with the key.
    TokenSignature,
    /// `exp` is past.
    TokenExpired,
    /// `nbf` is to come.
    TokenNotYetValid,
    /// `aud` is for another service.
    TokenAudience,
    /// `iss` is another issuer.
    TokenIssuer,
    /// Not a key, a signature and a time.
    SignatureMalformed,
    /// The time was not signed with the key.
    SignatureInvalid,
    /// The time is too far from ours.
    SignatureStale,
    /// The signature has been used.
    SignatureReplayed,
    /// The database's users are of a type that no device's signature proves.
    SignatureUsers,
    /// There is no such device.
    DeviceUnknown,
    /// There is no such user.
    UserUnknown,
    /// Several users' devices have this key.
    DeviceAmbiguous,
    /// The proof is of another user than the one asked for.
    OtherUser,
    /// The proof is of another device than the one asked for.
    OtherDevice,
    /// The identity cannot be looked up now.
    #[strum(serialize = "identity_unavailable")]
    Unavailable,
}

impl AuthError {
    /// The `code` of the answer, and the value of the label `reason` in the metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// What the client's developer needs to know.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::CredentialsMissing => {
                "prove who you are, in a way that this server takes: a token as Authorization: \
                 Bearer, or X-Identity-Key, X-Signature and X-Timestamp"
            }
            Self::TokenMalformed => {
                "the token must be a JSON Web Token with exp and, as sub, the user's id in a string; a \
                 device_id must be a UUID"
            }
            Self::TokenSubject => {
                "the token's sub is no id of this database's type of users: uuid, bigint in decimal digits, or text of 1 to \
                 255 bytes"
            }
            Self::TokenAlgorithm => "the token is signed with an algorithm that is not accepted",
            Self::TokenKeyUnknown => "the token's kid names no published key",
            Self::TokenSignature => "the token's signature is not of the key that is accepted",
            Self::TokenExpired => "the token has expired",
            Self::TokenNotYetValid => "the token is not valid yet",
            Self::TokenAudience => "the token's aud does not name this service",
            Self::TokenIssuer => "the token's iss is not the one that is accepted",
            Self::SignatureMalformed => {
                "identity key and signature must be 32 and 64 bytes in base64, the timestamp Unix \
                 seconds in digits"
            }
            Self::SignatureInvalid => "the signature is not the identity key's over the timestamp",
            Self::SignatureStale => "the timestamp is too far from this server's time",
            Self::SignatureReplayed => "this signature has been used; sign another second",
            Self::SignatureUsers => {
                "a device's signature proves a user whose id is a uuid, and the users of this database are others: send a \
                 token"
            }
            Self::DeviceUnknown => "there is no such device",
            Self::UserUnknown => "there is no such user",
            Self::DeviceAmbiguous => "several users have a device with this key: give user_id",
            Self::OtherUser => "what was proven is the identity of another user",
            Self::OtherDevice => "what was proven is the identity of another device",
            Self::Unavailable => "who you are cannot be found out now; ask again",
        }
    }

    /// Until the same proof may be accepted; `None` where waiting does not help.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        (self == Self::Unavailable).then_some(RETRY_AFTER)
    }

    /// What the client is sent.
    #[must_use]
    pub fn error_body(self) -> ErrorBody<'static> {
        ErrorBody::new(self.code(), self.message(), self.retry_after())
    }

    /// The code that closes a WebSocket for this reason.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::TokenExpired => CloseCode::TokenExpired,
            Self::DeviceUnknown | Self::UserUnknown => CloseCode::Revoked,
            Self::Unavailable => CloseCode::TryAgainLater,
            _ => CloseCode::Unauthenticated,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::protocol::Label;

    #[test]
    fn the_documentation_lists_every_code() {
        let authentication = include_str!("../../docs/authentication.md");
        for error in AuthError::all() {
            let code = format!("`{}`", error.code());
            assert!(
                authentication.contains(&code),
                "docs/authentication.md lacks {code}"
            );
        }
    }

    #[test]
    fn each_refusal_has_a_message_of_its_own() {
        let limits = Limit::all().map(Limit::message);
        let messages: Vec<_> = limits
            .chain(AuthError::all().map(AuthError::message))
            .collect();
        let distinct: HashSet<_> = messages.iter().collect();
        assert_eq!(distinct.len(), messages.len());
        assert!(messages.iter().all(|message| message.contains(' ')));
    }

    #[test]
    fn an_identity_that_is_refused_closes_with_the_code_of_its_reason() {
        for (error, code) in [
            (AuthError::TokenExpired, CloseCode::TokenExpired),
            (AuthError::DeviceUnknown, CloseCode::Revoked),
            (AuthError::UserUnknown, CloseCode::Revoked),
            (AuthError::Unavailable, CloseCode::TryAgainLater),
            (AuthError::TokenSignature, CloseCode::Unauthenticated),
        ] {
            assert_eq!(error.close_code(), code, "{error:?}");
        }
    }

    #[test]
    fn the_answer_to_a_client_over_its_limit_names_the_limit() {
        let codes: Vec<_> = Limit::all().map(Limit::code).collect();
        assert_eq!(
            codes,
            [
                "address_limit",
                "user_limit",
                "rate_limit",
                "address_rate_limit",
                "user_rate_limit"
            ]
        );
    }
}
