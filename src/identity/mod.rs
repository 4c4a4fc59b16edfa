//! Which user and device a client is: tokens, keys and signatures.

mod algorithm;
mod authenticator;
mod confirmations;
mod key_file;
mod lookup;
mod proof;
mod published_keys;
mod signed_time;
mod signing;
mod token;
mod used_signatures;

pub use self::authenticator::Authenticator;
pub use self::proof::{Credentials, Identity};
pub use self::signed_time::SignedTime;
pub use self::signing::{Signing, SigningError};
pub use self::token::{Bearer, Tokens};
