//! A device's signature of the time: Ed25519 over the digits of the Unix time in seconds, as HushNet's
//! API has it. Ed25519 is checked strictly. Pure.
//!
//! Whoever sees such a signature could use it again for as long as its time is near:
//! [`super::used_signatures`] accepts each signed second of a key once.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, VerifyingKey};

use crate::protocol::AuthError;

const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&STANDARD, PADDING);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, PADDING);
/// Digits of a timestamp, enough for some thousand years.
const TIMESTAMP_DIGITS_MAX: usize = 12;

/// What a device sends: its key, the time, and the key's signature of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTime {
    /// The Ed25519 public key of 32 bytes, in base64.
    pub identity_key: String,
    /// 64 bytes in base64.
    pub signature: String,
    /// Unix seconds in decimal digits: the very bytes that were signed.
    pub timestamp: String,
}

/// A key and the second that it has signed. A second can be signed in many ways, so the signature's
/// own bytes do not identify its use.
pub(super) type SignedSecond = ([u8; PUBLIC_KEY_LENGTH], u64);

/// The signer of a verified signature. Whether the device exists is not known yet.
#[derive(Debug)]
pub(super) struct Signer {
    /// What `devices.identity_pubkey` may hold for the key: base64 with and without padding, and as the
    /// client wrote it.
    pub(super) key_texts: [String; 3],
    pub(super) second: SignedSecond,
}

impl SignedTime {
    /// Checks the signature, and that its time is at most `window` from `now`; not whether it has been
    /// used before.
    pub(super) fn verify(&self, window: Duration, now: SystemTime) -> Result<Signer, AuthError> {
        let key: [u8; PUBLIC_KEY_LENGTH] = decode(&self.identity_key)?;
        let signature: [u8; SIGNATURE_LENGTH] = decode(&self.signature)?;
        let seconds = seconds(&self.timestamp)?;
        // 32 bytes that are no point on the curve are as malformed as 31 bytes.
        let verifying =
            VerifyingKey::from_bytes(&key).map_err(|_| AuthError::SignatureMalformed)?;
        verifying
            .verify_strict(
                self.timestamp.as_bytes(),
                &Signature::from_bytes(&signature),
            )
            .map_err(|_| AuthError::SignatureInvalid)?;
        let signed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let apart = now
            .duration_since(signed_at)
            .unwrap_or_else(|ahead| ahead.duration());
        if apart > window {
            return Err(AuthError::SignatureStale);
        }
        Ok(Signer {
            key_texts: [
                BASE64_STANDARD.encode(key),
                BASE64_STANDARD_NO_PAD.encode(key),
                self.identity_key.clone(),
            ],
            second: (key, seconds),
        })
    }
}

fn decode<const BYTES: usize>(text: &str) -> Result<[u8; BYTES], AuthError> {
    let engine = if text.contains(['-', '_']) {
        &ANY_URL_SAFE
    } else {
        &ANY_STANDARD
    };
    // Its length is checked first, so that nothing long is decoded.
    if text.len() > BYTES.div_ceil(3) * 4 {
        return Err(AuthError::SignatureMalformed);
    }
    engine
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(AuthError::SignatureMalformed)
}

fn seconds(timestamp: &str) -> Result<u64, AuthError> {
    let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || timestamp.len() > TIMESTAMP_DIGITS_MAX {
        return Err(AuthError::SignatureMalformed);
    }
    timestamp.parse().map_err(|_| AuthError::SignatureMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    const WINDOW: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signed(seconds: u64) -> SignedTime {
        let key = SigningKey::from_bytes(&[7; 32]);
        let timestamp = seconds.to_string();
        SignedTime {
            identity_key: BASE64_STANDARD.encode(key.verifying_key().as_bytes()),
            signature: BASE64_STANDARD.encode(key.sign(timestamp.as_bytes()).to_bytes()),
            timestamp,
        }
    }

    #[test]
    fn a_time_is_accepted_within_the_window_only() {
        for (signed_at, good) in [(970, true), (1_030, true), (969, false), (1_031, false)] {
            let verified = signed(signed_at).verify(WINDOW, at(1_000));
            match verified {
                Ok(_) => assert!(good, "{signed_at}"),
                Err(error) => assert!(!good && error == AuthError::SignatureStale, "{signed_at}"),
            }
        }
    }

    #[test]
    fn both_alphabets_are_read_with_and_without_padding() {
        let standard = signed(1_000);
        let url_safe = SignedTime {
            identity_key: standard.identity_key.replace('+', "-").replace('/', "_"),
            signature: standard
                .signature
                .replace('+', "-")
                .replace('/', "_")
                .trim_end_matches('=')
                .to_owned(),
            ..standard.clone()
        };
        let read = url_safe.verify(WINDOW, at(1_000)).unwrap();
        assert_eq!(read.key_texts[0], standard.identity_key);
    }

    #[test]
    fn malformed_and_forged_signatures_are_refused() {
        let whole = signed(1_000);
        let with = |change: fn(&mut SignedTime)| {
            let mut changed = whole.clone();
            change(&mut changed);
            changed.verify(WINDOW, at(1_000)).unwrap_err()
        };
        for change in [
            (|s| s.identity_key.clear()) as fn(&mut SignedTime),
            |s| {
                // No point of the curve has this for its y.
                let mut no_point = [0; 32];
                no_point[0] = 2;
                s.identity_key = BASE64_STANDARD.encode(no_point);
            },
            |s| s.signature.truncate(40),
            |s| s.signature = "A".repeat(1 << 20),
            |s| s.timestamp = "-1000".to_owned(),
            |s| s.timestamp = "1e3".to_owned(),
            |s| s.timestamp.clear(),
            |s| s.timestamp = "9".repeat(40),
        ] {
            assert_eq!(with(change), AuthError::SignatureMalformed);
        }
        // Another second, another key, a key of small order.
        for change in [
            (|s| s.timestamp = "1001".to_owned()) as fn(&mut SignedTime),
            |s| {
                let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
                s.identity_key = BASE64_STANDARD.encode(other.as_bytes());
            },
            |s| {
                let mut identity = [0; 32];
                identity[0] = 1;
                s.identity_key = BASE64_STANDARD.encode(identity);
                let mut forged = [0; 64];
                forged[0] = 1;
                s.signature = BASE64_STANDARD.encode(forged);
            },
        ] {
            assert_eq!(with(change), AuthError::SignatureInvalid);
        }
    }
}
