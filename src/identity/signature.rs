//! A device's signature of the time: Ed25519 over the digits of the Unix time in seconds, as HushNet's
//! API has it.
//!
//! By itself such a signature could be used again by whoever sees it, for as long as its time is near.
//! Each second of a key is accepted once. Ed25519 is checked strictly.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, VerifyingKey};

use crate::protocol::AuthError;

/// How long a look into `devices` may take, with waiting for a connection.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&STANDARD, PADDING);
const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, PADDING);
/// Digits of a timestamp, good for some thousand years.
const TIMESTAMP_DIGITS_MAX: usize = 12;

/// What a device sends: its key, the time, and the signature of the one over the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTime {
    /// The Ed25519 public key of 32 bytes, in base64.
    pub identity_key: String,
    /// 64 bytes in base64.
    pub signature: String,
    /// Unix seconds in decimal digits: the very bytes that were signed.
    pub timestamp: String,
}

/// Who has signed, not yet known to exist.
#[derive(Debug)]
pub(super) struct Signer {
    /// What `devices.identity_pubkey` may have for the key: base64 with and without padding, and as
    /// the client wrote it.
    pub(super) key_texts: [String; 3],
    used: Use,
}

/// A key, and the second that it has signed: who signs can sign a second in many ways, and still uses it
/// once.
type Use = ([u8; PUBLIC_KEY_LENGTH], u64);

/// The seconds that have been used, for as long as their times are near.
#[derive(Debug)]
pub(super) struct SignatureBook {
    window: Duration,
    signatures_max: usize,
    used: Mutex<Used>,
}

/// In two generations: the older is forgotten when none of it can be good any longer.
#[derive(Debug)]
struct Used {
    now: HashSet<Use>,
    before: HashSet<Use>,
    turned: Instant,
}

impl SignatureBook {
    pub(super) fn new(window: Duration, signatures_max: usize) -> Self {
        Self {
            window,
            signatures_max,
            used: Mutex::new(Used {
                now: HashSet::new(),
                before: HashSet::new(),
                turned: Instant::now(),
            }),
        }
    }

    /// Checks the signature and its time, but not whether it has been used.
    pub(super) fn verify(&self, signed: &SignedTime, now: SystemTime) -> Result<Signer, AuthError> {
        let key: [u8; PUBLIC_KEY_LENGTH] = decode(&signed.identity_key)?;
        let signature: [u8; SIGNATURE_LENGTH] = decode(&signed.signature)?;
        let seconds = seconds(&signed.timestamp)?;
        // A key that is no point on the curve is as malformed as one of 31 bytes.
        let verifying =
            VerifyingKey::from_bytes(&key).map_err(|_| AuthError::SignatureMalformed)?;
        verifying
            .verify_strict(
                signed.timestamp.as_bytes(),
                &Signature::from_bytes(&signature),
            )
            .map_err(|_| AuthError::SignatureInvalid)?;
        let signed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let apart = now
            .duration_since(signed_at)
            .unwrap_or_else(|ahead| ahead.duration());
        if apart > self.window {
            return Err(AuthError::SignatureStale);
        }
        Ok(Signer {
            key_texts: [
                BASE64_STANDARD.encode(key),
                BASE64_STANDARD_NO_PAD.encode(key),
                signed.identity_key.clone(),
            ],
            used: (key, seconds),
        })
    }

    /// Accepts a signature, once. A full book refuses rather than forget one that could be used again.
    pub(super) fn accept(&self, signer: &Signer) -> Result<(), AuthError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // One from the future is good for twice the window from now, and may wait for its device to be
        // looked up.
        if used.turned.elapsed() > 2 * self.window + LOOKUP_TIMEOUT {
            used.before = mem::take(&mut used.now);
            used.turned = Instant::now();
        }
        if used.before.contains(&signer.used) || used.now.contains(&signer.used) {
            return Err(AuthError::SignatureReplayed);
        }
        if used.now.len() >= self.signatures_max {
            return Err(AuthError::Unavailable);
        }
        used.now.insert(signer.used);
        Ok(())
    }
}

fn decode<const BYTES: usize>(text: &str) -> Result<[u8; BYTES], AuthError> {
    let engine = if text.contains(['-', '_']) {
        &ANY_URL_SAFE
    } else {
        &ANY_STANDARD
    };
    // Refused by its length first: nothing long is decoded.
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
    fn a_time_is_good_within_the_window_and_no_longer() {
        let book = SignatureBook::new(WINDOW, 10);
        for (signed_at, good) in [(970, true), (1_030, true), (969, false), (1_031, false)] {
            let verified = book.verify(&signed(signed_at), at(1_000));
            match verified {
                Ok(_) => assert!(good, "{signed_at}"),
                Err(error) => assert!(!good && error == AuthError::SignatureStale, "{signed_at}"),
            }
        }
    }

    #[test]
    fn each_signature_is_accepted_once() {
        let book = SignatureBook::new(WINDOW, 2);
        let signer = |time| book.verify(&signed(time), at(1_000)).unwrap();
        book.accept(&signer(1_000)).unwrap();
        assert_eq!(
            book.accept(&signer(1_000)).unwrap_err(),
            AuthError::SignatureReplayed
        );
        book.accept(&signer(1_001)).unwrap();
        // Full: a new one is refused, and none is forgotten.
        assert_eq!(
            book.accept(&signer(1_002)).unwrap_err(),
            AuthError::Unavailable
        );
        assert_eq!(
            book.accept(&signer(1_001)).unwrap_err(),
            AuthError::SignatureReplayed
        );
    }

    #[test]
    fn both_alphabets_are_read_with_and_without_padding() {
        let book = SignatureBook::new(WINDOW, 10);
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
        let read = book.verify(&url_safe, at(1_000)).unwrap();
        assert_eq!(read.key_texts[0], standard.identity_key);
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let book = SignatureBook::new(WINDOW, 10);
        let whole = signed(1_000);
        let with = |change: fn(&mut SignedTime)| {
            let mut changed = whole.clone();
            change(&mut changed);
            book.verify(&changed, at(1_000)).unwrap_err()
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
