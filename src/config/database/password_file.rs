//! libpq's password file: lines of `host:port:database:user:password`, of which the first that matches counts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of a password file that are read.
const BYTES_MAX: u64 = 1024 * 1024;
/// The rights of everyone but the owner.
const OTHERS: u32 = 0o077;

/// What a password is looked up for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    /// `localhost` for a socket in the usual directory.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) password: Option<String>,
    /// Why the file or a part of it is not used. Has nothing of its lines.
    pub(super) not_used: Option<String>,
}

/// Looks the password up. A file that others may read is not used, as psql does not use it. `is_named` says whether
/// someone has named the file: its absence is then worth a word.
pub(super) fn look_up(path: &Path, is_named: bool, login: Login<'_>) -> Found {
    match read(path) {
        Ok(text) => find(&text, login),
        Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound && !is_named => {
            Found::default()
        }
        Err(why) => Found {
            password: None,
            not_used: Some(why.to_string()),
        },
    }
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no plain file")]
    NoFile,
    #[error("others than its owner have rights on it ({0:o}): chmod 600 it")]
    OfOthers(u32),
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
}

fn read(path: &Path) -> Result<String, Unread> {
    // Not opened before: a named pipe would be waited for.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Unread::NoFile);
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(Unread::OfOthers(mode & 0o777));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Unread::TooLong);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find(text: &str, login: Login<'_>) -> Found {
    let port = login.port.to_string();
    let wanted = [login.host, &port, login.database, login.user];
    let mut found = Found::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields = fields(line);
        let [names @ .., password] = &fields[..] else {
            continue;
        };
        if names.len() != wanted.len() {
            let malformed = || format!("line {number} is not host:port:database:user:password");
            found.not_used.get_or_insert_with(malformed);
        } else if names
            .iter()
            .zip(wanted)
            .all(|(name, wanted)| *name == "*" || meant(name) == wanted)
        {
            found.password = Some(meant(password));
            break;
        }
    }
    found
}

/// The first five fields of a line, as they are written.
fn fields(line: &str) -> Vec<&str> {
    let mut fields = Vec::with_capacity(5);
    let (mut begin, mut is_escaped) = (0, false);
    for (at, character) in line.char_indices() {
        if character == ':' && !is_escaped && fields.len() < 5 {
            fields.push(&line[begin..at]);
            begin = at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    if fields.len() < 5 {
        fields.push(&line[begin..]);
    }
    fields
}

/// What a field means: `\` stands before a `:` or a `\`.
fn meant(field: &str) -> String {
    let mut meant = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        let escaped = (character == '\\').then(|| characters.next()).flatten();
        meant.push(escaped.unwrap_or(character));
    }
    meant
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const LOGIN: Login<'_> = Login {
        host: "db.example",
        port: 5432,
        database: "hushnet",
        user: "app",
    };

    fn found(text: &str) -> Option<String> {
        find(text, LOGIN).password
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        for (text, password) in [
            ("db.example:5432:hushnet:app:s3cret", Some("s3cret")),
            (
                "*:*:*:*:any\ndb.example:5432:hushnet:app:s3cret",
                Some("any"),
            ),
            (
                "other:5432:hushnet:app:no\n*:5432:*:app:yes\r\n",
                Some("yes"),
            ),
            ("# *:*:*:*:no\n\n*:*:*:*:yes", Some("yes")),
            ("db.example:5433:hushnet:app:no", None),
            ("db.example:5432:hushnet:other:no", None),
            ("*:*:*:app:a\\:b\\\\c", Some("a:b\\c")),
            ("*:*:*:app:a:more", Some("a")),
            ("*:*:*:app:", Some("")),
            ("\\*:*:*:app:no", None),
        ] {
            assert_eq!(found(text).as_deref(), password, "{text}");
        }
        let login = Login {
            user: "a:b",
            ..LOGIN
        };
        let escaped = find("*:*:*:a\\:b:s3cret", login);
        assert_eq!(escaped.password.as_deref(), Some("s3cret"));
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number() {
        let found = find("# a\ns3cret\ns3cret\n*:*:*:*:yes", LOGIN);
        assert_eq!(found.password.as_deref(), Some("yes"));
        let said = found.not_used.unwrap();
        assert_eq!(said, "line 2 is not host:port:database:user:password");
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        fs::write(&path, "*:*:*:*:s3cret\n").unwrap();
        for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let found = look_up(&path, true, LOGIN);
            assert_eq!(found.password.is_some(), is_used, "{mode:o}");
            assert_eq!(found.not_used.is_none(), is_used, "{mode:o}");
        }
        let absent = directory.path().join("absent");
        assert_eq!(look_up(&absent, false, LOGIN), Found::default());
        assert!(look_up(&absent, true, LOGIN).not_used.is_some());
        assert!(look_up(directory.path(), true, LOGIN).not_used.is_some());
    }
}
