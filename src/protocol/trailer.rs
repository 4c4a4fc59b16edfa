//! What the service alone reads at the end of an event's JSON object. Pure.

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{UserKey, Xid};

/// What the service alone reads, at the end of an event's JSON object: whether its transaction commits without waiting
/// for the disk; and in a notification, the user's key where the user's id is no uuid, and last the transaction's number.
/// The log has key and number in columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trailer<'a> {
    /// The object before it, without its closing brace.
    pub(super) open_text: &'a str,
    pub(super) xid: Option<Xid>,
    pub(super) user: Option<UserKey>,
    pub(super) asynchronous: bool,
}

impl<'a> Trailer<'a> {
    const USER_KEY: &'static [u8; 16] = br#", "user_key" : ""#;
    const XID: &'static [u8; 10] = br#", "xid" : "#;
    const ASYNCHRONOUS: &'static [u8; 23] = br#", "asynchronous" : true"#;
    /// As many decimal digits as every `u64` can hold.
    const DIGITS_MAX: usize = 19;

    /// `None` for a text that does not end as an object does. Arrays of a known length are compared without a call.
    #[inline]
    pub(super) fn cut_from(payload: &'a str) -> Option<Self> {
        let mut open_text = payload.strip_suffix('}')?;
        let (digits, number) = number_at_end(open_text.as_bytes(), Self::DIGITS_MAX);
        let before = open_text.len() - digits;
        let mut xid = None;
        if digits > 0
            && open_text.as_bytes()[..before].last_chunk() == Some(Self::XID)
            && open_text.as_bytes()[before] != b'0'
        {
            xid = Xid::new(number);
            open_text = &open_text[..before - Self::XID.len()];
        }
        // Where the user's id is a uuid, the event's own id is the last.
        let mut user = None;
        if open_text.as_bytes().last() == Some(&b'"') {
            (open_text, user) = Self::cut_user(open_text);
        }
        let asynchronous = open_text.as_bytes().last_chunk() == Some(Self::ASYNCHRONOUS);
        if asynchronous {
            open_text = &open_text[..open_text.len() - Self::ASYNCHRONOUS.len()];
        }
        Some(Self {
            open_text,
            xid,
            user,
            asynchronous,
        })
    }

    #[inline(never)]
    fn cut_user(open_text: &'a str) -> (&'a str, Option<UserKey>) {
        let cut = || {
            let rest = open_text.as_bytes().strip_suffix(b"\"")?;
            let (rest, key) = rest.split_last_chunk::<{ Hyphenated::LENGTH }>()?;
            let rest = rest.strip_suffix(Self::USER_KEY)?;
            let key = Uuid::try_parse_ascii(key).ok()?;
            Some((&open_text[..rest.len()], Some(key.into())))
        };
        cut().unwrap_or((open_text, None))
    }

    pub(super) fn is_empty(self) -> bool {
        self.xid.is_none() && self.user.is_none() && !self.asynchronous
    }
}

/// The decimal digits at the end of a text, at most so many, and their value.
#[inline]
fn number_at_end(text: &[u8], digits_max: usize) -> (usize, u64) {
    let (mut digits, mut number, mut scale) = (0, 0, 1);
    for digit in text.iter().rev().take(digits_max) {
        if !digit.is_ascii_digit() {
            break;
        }
        number += u64::from(digit - b'0') * scale;
        scale *= 10;
        digits += 1;
    }
    (digits, number)
}
