//! What the plug-in `pgoutput` writes, in version 1 of its protocol: whole transactions, in the order of commits.

use bytes::{Buf, Bytes};

use crate::error::Error;

/// The most columns that a relation or a row may have: PostgreSQL's own bound.
const COLUMNS_MAX: u16 = 1_664;

/// One message of the plug-in.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A transaction begins.
    Begin {
        /// Where its commit is in the write-ahead log.
        commit: u64,
    },
    /// A transaction ends.
    Commit {
        /// The position behind its commit.
        end: u64,
    },
    /// A table, before its first row and after each change of it.
    Relation(Relation),
    /// A row was inserted.
    Insert {
        /// The table's number.
        relation: u32,
        /// The values, in the order of the table's columns.
        values: Vec<Value>,
    },
    /// Something else, which a publication of inserts does not have.
    Other,
}

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its number.
    pub id: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The names of its columns.
    pub columns: Vec<String>,
}

/// A value of a row.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// None.
    Null,
    /// It was not sent.
    Absent,
    /// As text.
    Text(Bytes),
    /// In the binary form of its type.
    Binary(Bytes),
}

impl Change {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a message that is cut.
    pub fn parse(mut message: Bytes) -> Result<Self, Error> {
        let message = &mut message;
        match take_u8(message)? {
            b'B' => Ok(Self::Begin {
                commit: take_u64(message)?,
            }),
            b'C' => {
                let (_flags, _commit) = (take_u8(message)?, take_u64(message)?);
                let end = take_u64(message)?;
                Ok(Self::Commit { end })
            }
            b'R' => Relation::parse(message).map(Self::Relation),
            b'I' => {
                let relation = take_u32(message)?;
                if take_u8(message)? != b'N' {
                    return Err(Error::Protocol("an insert without a row"));
                }
                let count = columns(message)?;
                let values = (0..count).map(|_| Value::parse(message));
                let values = values.collect::<Result<_, _>>()?;
                Ok(Self::Insert { relation, values })
            }
            _ => Ok(Self::Other),
        }
    }
}

impl Relation {
    fn parse(message: &mut Bytes) -> Result<Self, Error> {
        let id = take_u32(message)?;
        let (schema, name) = (take_text(message)?, take_text(message)?);
        let _replica_identity = take_u8(message)?;
        let mut columns_named = Vec::new();
        for _ in 0..columns(message)? {
            let _flags = take_u8(message)?;
            columns_named.push(take_text(message)?);
            let (_type, _modifier) = (take_u32(message)?, take_u32(message)?);
        }
        Ok(Self {
            id,
            schema,
            name,
            columns: columns_named,
        })
    }
}

impl Value {
    fn parse(message: &mut Bytes) -> Result<Self, Error> {
        let form = take_u8(message)?;
        match form {
            b'n' => return Ok(Self::Null),
            b'u' => return Ok(Self::Absent),
            b't' | b'b' => {}
            _ => return Err(Error::Protocol("a value of a form that is not known")),
        }
        let length = take_u32(message)? as usize;
        if message.len() < length {
            return Err(CUT);
        }
        let value = message.split_to(length);
        Ok(if form == b't' {
            Self::Text(value)
        } else {
            Self::Binary(value)
        })
    }
}

const CUT: Error = Error::Protocol("a message that is cut");

fn columns(message: &mut Bytes) -> Result<u16, Error> {
    let count = message.try_get_u16().map_err(|_| CUT)?;
    if count > COLUMNS_MAX {
        return Err(Error::Protocol("more columns than a table has"));
    }
    Ok(count)
}

fn take_text(message: &mut Bytes) -> Result<String, Error> {
    let end = message.iter().position(|byte| *byte == 0).ok_or(CUT)?;
    let text = message.split_to(end);
    message.advance(1);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn take_u8(message: &mut Bytes) -> Result<u8, Error> {
    message.try_get_u8().map_err(|_| CUT)
}

fn take_u32(message: &mut Bytes) -> Result<u32, Error> {
    message.try_get_u32().map_err(|_| CUT)
}

pub(crate) fn take_u64(message: &mut Bytes) -> Result<u64, Error> {
    message.try_get_u64().map_err(|_| CUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table `s.t` with the columns `a` and `b`, as PostgreSQL writes it.
    fn relation() -> Vec<u8> {
        let mut message = vec![b'R'];
        message.extend(7_u32.to_be_bytes());
        message.extend(b"s\0t\0d");
        message.extend(2_u16.to_be_bytes());
        for name in ["a", "b"] {
            message.push(0);
            message.extend(name.as_bytes());
            message.push(0);
            message.extend(25_u32.to_be_bytes());
            message.extend(u32::MAX.to_be_bytes());
        }
        message
    }

    fn insert() -> Vec<u8> {
        let mut message = vec![b'I'];
        message.extend(7_u32.to_be_bytes());
        message.push(b'N');
        message.extend(4_u16.to_be_bytes());
        message.extend(b"nu");
        for (form, value) in [(b't', "text"), (b'b', "bin")] {
            message.push(form);
            message.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            message.extend(value.as_bytes());
        }
        message
    }

    #[test]
    fn a_table_and_a_row_of_it_are_read() {
        let parsed = Change::parse(relation().into()).unwrap();
        let columns = vec!["a".to_owned(), "b".to_owned()];
        let (schema, name) = ("s".to_owned(), "t".to_owned());
        let expected = Relation {
            id: 7,
            schema,
            name,
            columns,
        };
        assert_eq!(parsed, Change::Relation(expected));
        let parsed = Change::parse(insert().into()).unwrap();
        let values = vec![
            Value::Null,
            Value::Absent,
            Value::Text("text".into()),
            Value::Binary("bin".into()),
        ];
        assert_eq!(
            parsed,
            Change::Insert {
                relation: 7,
                values
            }
        );
    }

    #[test]
    fn a_transaction_says_where_its_commit_is() {
        let mut begin = vec![b'B'];
        begin.extend(9_u64.to_be_bytes());
        begin.extend([0; 12]);
        assert_eq!(
            Change::parse(begin.into()).unwrap(),
            Change::Begin { commit: 9 }
        );
        let mut commit = vec![b'C', 0];
        commit.extend(9_u64.to_be_bytes());
        commit.extend(11_u64.to_be_bytes());
        commit.extend([0; 8]);
        assert_eq!(
            Change::parse(commit.into()).unwrap(),
            Change::Commit { end: 11 }
        );
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_an_error() {
        for message in [relation(), insert()] {
            for length in 0..message.len() {
                let cut = Bytes::copy_from_slice(&message[..length]);
                assert!(Change::parse(cut).is_err(), "{length}");
            }
        }
    }
}
