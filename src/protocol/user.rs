//! Users: the type of their ids, and the key that a user is known by behind the edge. Pure.
//!
//! A database has users of one type. The key has 16 bytes whatever the type is; the database makes it in the same way
//! (`realtime.user_key()`). An id is never cut or folded: what is no id of the type is refused.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The longest id of a user, in bytes of UTF-8.
pub const USER_BYTES_MAX: usize = 255;

/// What a user is known by to the hub, the replay buffer, the log and the limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey(Uuid);

impl UserKey {
    /// The key as the database has it. Of a user whose id is a uuid, that id.
    #[must_use]
    #[inline]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The number of a user whose id is a bigint.
    #[must_use]
    pub(super) fn bigint(self) -> i64 {
        let (_, number) = self.0.as_u64_pair();
        number.cast_signed()
    }

    fn of_bigint(number: i64) -> Self {
        Self(Uuid::from_u64_pair(0, number.cast_unsigned()))
    }

    fn of_text(text: &str) -> Self {
        let hash = Sha256::digest(text.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self(Uuid::from_bytes(key))
    }
}

impl From<Uuid> for UserKey {
    #[inline]
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of a database's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserType {
    /// A uuid, in any spelling that the library reads.
    #[default]
    Uuid,
    /// Decimal digits, with a minus before a number below zero. One spelling only.
    Bigint,
    /// 1 to [`USER_BYTES_MAX`] bytes of any script. Equal is what has the same bytes.
    Text,
}

/// A text that is no id of a user. Says which type is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.expected())]
pub struct NotAUser(pub UserType);

impl UserType {
    /// The key of the user with this id.
    ///
    /// # Errors
    /// [`NotAUser`] for a text that is no id of this type.
    pub fn parse(self, id: &str) -> Result<UserKey, NotAUser> {
        let key = match self {
            Self::Uuid => Uuid::try_parse(id).ok().map(UserKey),
            // The library takes a plus and leading zeros too.
            Self::Bigint => id
                .parse()
                .ok()
                .filter(|number: &i64| number.to_string() == id)
                .map(UserKey::of_bigint),
            Self::Text => is_text(id).then(|| UserKey::of_text(id)),
        };
        key.ok_or(NotAUser(self))
    }

    /// What an id of this type looks like, for whoever sent another.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Uuid => "user_id must be a UUID, as in a1b2c3d4-e5f6-7890-abcd-ef1234567890",
            Self::Bigint => {
                "user_id must be a bigint in decimal digits, as in 42, without leading zeros"
            }
            Self::Text => "user_id must be text of 1 to 255 bytes of UTF-8, without NUL",
        }
    }

    /// The type's name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Bigint => "bigint",
            Self::Text => "text",
        }
    }
}

impl FromStr for UserType {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut all = [Self::Uuid, Self::Bigint, Self::Text].into_iter();
        all.find(|of| of.name() == name).ok_or(())
    }
}

/// Whether a user of some type may have this id. An id of the other types is one of text too.
#[must_use]
pub fn is_text(id: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&id.len()) && !id.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: UserType, id: &str) -> Option<String> {
        of.parse(id).ok().map(|key| key.to_string())
    }

    #[test]
    fn a_uuid_is_its_own_key_in_each_of_its_spellings() {
        let id = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
        for spelling in [
            id.to_owned(),
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
        ] {
            assert_eq!(key(UserType::Uuid, &spelling).as_deref(), Some(id));
        }
        for wrong in ["", "42", "alice", &id[1..], &format!("{id} ")] {
            assert_eq!(UserType::Uuid.parse(wrong), Err(NotAUser(UserType::Uuid)));
        }
    }

    #[test]
    fn a_bigint_has_one_spelling_and_its_bytes_are_the_end_of_the_key() {
        for (id, expected) in [
            ("0", "00000000-0000-0000-0000-000000000000"),
            ("42", "00000000-0000-0000-0000-00000000002a"),
            ("-1", "00000000-0000-0000-ffff-ffffffffffff"),
            (
                "9223372036854775807",
                "00000000-0000-0000-7fff-ffffffffffff",
            ),
            (
                "-9223372036854775808",
                "00000000-0000-0000-8000-000000000000",
            ),
        ] {
            assert_eq!(key(UserType::Bigint, id).as_deref(), Some(expected));
            let number = UserType::Bigint.parse(id).unwrap().bigint();
            assert_eq!(number.to_string(), id);
        }
        for wrong in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "٤٢",
            "4_2",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            let refused = UserType::Bigint.parse(wrong);
            assert_eq!(refused, Err(NotAUser(UserType::Bigint)), "{wrong}");
        }
    }

    #[test]
    fn text_is_hashed_as_it_is() {
        // SHA-256 of "alice", cut.
        let alice = key(UserType::Text, "alice");
        assert_eq!(
            alice.as_deref(),
            Some("2bd806c9-7f0e-00af-1a1f-c3328fa763a9")
        );
        let composed = key(UserType::Text, "Zo\u{eb}");
        let mut others: Vec<_> = ["Zoe\u{308}", "zo\u{eb}", "Zo\u{eb} ", "Zoe"]
            .map(|id| key(UserType::Text, id))
            .to_vec();
        others.push(alice);
        assert!(composed.is_some() && others.iter().all(|other| *other != composed));
        let longest = "é".repeat(127) + "x";
        assert_eq!(longest.len(), USER_BYTES_MAX);
        assert!(key(UserType::Text, &longest).is_some());
        for wrong in ["", "a\0b", &(longest + "x")] {
            assert_eq!(UserType::Text.parse(wrong), Err(NotAUser(UserType::Text)));
        }
    }

    #[test]
    fn a_type_is_read_by_its_name_in_the_database() {
        for of in [UserType::Uuid, UserType::Bigint, UserType::Text] {
            assert_eq!(of.name().parse(), Ok(of));
            assert_eq!(NotAUser(of).to_string(), of.expected());
        }
        assert!("citext".parse::<UserType>().is_err());
    }
}
