//! Who a client is: tokens, keys and signatures.

mod authenticator;
mod jwks;
mod proof;
mod signature;
mod token;

pub use self::authenticator::Authenticator;
pub use self::proof::{Credentials, Identity};
pub use self::signature::SignedTime;
pub use self::token::{Signing, SigningError, Tokens};
