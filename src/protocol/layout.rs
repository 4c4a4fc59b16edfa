//! How the JSON of a source's events is written: literals, and between them what each event has of its own.

use std::fmt::Write;

use uuid::Uuid;

use super::UserKey;

/// The longest JSON of an id and of a user's id.
const ID_BYTES: usize = 20;
const USER_BYTES: usize = 38;

/// What was done to a row. Clients get its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It is new.
    Insert,
    /// It was changed.
    Update,
    /// It is gone.
    Delete,
}

impl Op {
    /// The operation that the log writes as this letter. The database's own `realtime.compose` reads the letters in
    /// the same way.
    #[must_use]
    pub fn of_letter(letter: Option<u8>) -> Self {
        match letter {
            Some(b'i' | b'I') => Self::Insert,
            Some(b'u' | b'U') => Self::Update,
            _ => Self::Delete,
        }
    }

    fn json(self) -> &'static str {
        match self {
            Self::Insert => "\"insert\"",
            Self::Update => "\"update\"",
            Self::Delete => "\"delete\"",
        }
    }
}

/// What stands between two literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// The user, from the key of a uuid.
    User,
    /// The user, from the key of a bigint.
    Bigint,
    Op,
    Id,
    /// The field of this number, from 1 on.
    Field(usize),
}

impl Value {
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "user" => Some(Self::User),
            "bigint" => Some(Self::Bigint),
            "op" => Some(Self::Op),
            "id" => Some(Self::Id),
            number => {
                let number = number.parse().ok().filter(|number| *number > 0);
                number.map(Self::Field)
            }
        }
    }

    /// The length of its JSON; none of a field, whatever its value.
    fn bytes(self, (id, user, op): (i64, UserKey, Op)) -> usize {
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        let number_bytes = |number: i64| usize::from(number < 0) + digits(number.unsigned_abs());
        match self {
            Self::User => USER_BYTES,
            Self::Bigint => number_bytes(user.bigint()) + 2,
            Self::Op => op.json().len(),
            Self::Id => number_bytes(id),
            Self::Field(_) => 0,
        }
    }
}

/// Why the layout of a source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotALayout {
    /// A value of a name that this release does not know.
    #[error("a value is named {0:?}, which is not user, bigint, op, id, or the number of a field")]
    Value(String),
    /// It does not begin and end with a literal.
    #[error("it does not begin and end with a literal")]
    Ends,
    /// The literals make no object.
    #[error("it does not end with a closing brace")]
    Brace,
}

/// How the JSON of a source's events is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Each literal, and the value after it.
    pieces: Box<[(Box<str>, Value)]>,
    /// The literal after the last value, without the object's closing brace.
    end: Box<str>,
    /// Of all literals.
    literal_bytes: usize,
    /// Of all that is no field, at most.
    fixed_bytes_max: usize,
    /// The highest number of a field.
    fields: usize,
    /// How the JSON of an event that is too long is written.
    truncated: Option<Box<Self>>,
    /// How an update is written, and a deletion, where that is another way.
    updated: Option<Box<Self>>,
    deleted: Option<Box<Self>>,
}

impl Layout {
    /// The layout that a source has been registered with: literal, value, literal and so on, literal.
    ///
    /// # Errors
    /// [`NotALayout`] says what is wrong with it.
    pub fn parse(pieces: &[String]) -> Result<Self, NotALayout> {
        let [pairs @ .., end] = pieces else {
            return Err(NotALayout::Ends);
        };
        let (pairs, []) = pairs.as_chunks::<2>() else {
            return Err(NotALayout::Ends);
        };
        let end = end.strip_suffix('}').ok_or(NotALayout::Brace)?;
        let pieces = pairs.iter().map(|[literal, name]| {
            let value = Value::of_name(name).ok_or_else(|| NotALayout::Value(name.clone()))?;
            Ok((literal.as_str().into(), value))
        });
        let pieces: Box<[(Box<str>, Value)]> = pieces.collect::<Result<_, _>>()?;
        let field = |(_, value): &(_, Value)| match value {
            Value::Field(number) => *number,
            Value::User | Value::Bigint | Value::Op | Value::Id => 0,
        };
        let literal_bytes = pieces.iter().map(|(literal, _)| literal.len()).sum();
        let value_bytes_max = |(_, value): &(_, Value)| match value {
            Value::User | Value::Bigint => USER_BYTES,
            Value::Op | Value::Id => ID_BYTES,
            Value::Field(_) => 0,
        };
        let others: usize = pieces.iter().map(value_bytes_max).sum();
        Ok(Self {
            fixed_bytes_max: literal_bytes + end.len() + 1 + others,
            literal_bytes,
            fields: pieces.iter().map(field).max().unwrap_or(0),
            pieces,
            end: end.into(),
            truncated: None,
            updated: None,
            deleted: None,
        })
    }

    /// The same with the layout of events that are too long.
    #[must_use]
    pub fn with_truncated(self, truncated: Self) -> Self {
        Self {
            truncated: Some(Box::new(truncated)),
            ..self
        }
    }

    /// The same with the layouts of updates and of deletions, where these have their own.
    #[must_use]
    pub fn with_operations(self, updated: Option<Self>, deleted: Option<Self>) -> Self {
        Self {
            updated: updated.map(Box::new),
            deleted: deleted.map(Box::new),
            ..self
        }
    }

    /// How the JSON of an event of this operation is written.
    #[must_use]
    #[inline]
    pub fn of(&self, op: Op) -> &Self {
        let own = match op {
            Op::Insert => &None,
            Op::Update => &self.updated,
            Op::Delete => &self.deleted,
        };
        own.as_deref().unwrap_or(self)
    }

    /// How the JSON of an event that is too long is written: with its key, and without its other fields.
    #[must_use]
    pub fn truncated(&self) -> Option<&Self> {
        self.truncated.as_deref()
    }

    /// The numbers of its fields.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let values = self.pieces.iter().map(|(_, value)| value);
        values.filter_map(|value| match value {
            Value::Field(number) => Some(*number),
            Value::User | Value::Bigint | Value::Op | Value::Id => None,
        })
    }

    /// The number of the field that is the user's id, where ids are text.
    #[must_use]
    pub fn user_field(&self) -> Option<usize> {
        let user = |(literal, value): &(Box<str>, Value)| match value {
            Value::Field(number) if literal.ends_with(r#""user_id" : "#) => Some(*number),
            _ => None,
        };
        self.pieces.iter().find_map(user)
    }

    /// The JSON of the user's id, where ids are text, in an event that this layout has written with all other fields null.
    #[must_use]
    pub fn user_json<'a>(&self, json: &'a str, event: (i64, UserKey, Op)) -> Option<&'a str> {
        let user = self.user_field()?;
        let place = |(_, value): &(Box<str>, Value)| *value == Value::Field(user);
        let place = self.pieces.iter().position(place)?;
        let before = self.pieces[..=place].iter().map(|(literal, value)| {
            let is_before = *value != Value::Field(user);
            literal.len() + if is_before { value.bytes(event) } else { 0 }
        });
        let before = before.sum::<usize>();
        let others = self.numbers().filter(|number| *number != user).count();
        // Without the closing brace, if it has none.
        let length = self.bytes(event, others * "null".len()) - 1;
        let json = json.strip_suffix('}').unwrap_or(json);
        json.get(before..before + json.len().checked_sub(length)?)
    }

    /// The length of an event's JSON without its fields, at most.
    #[must_use]
    pub fn fixed_bytes_max(&self) -> usize {
        self.fixed_bytes_max
    }

    /// The length of an event's JSON, if each field stands in it once and all are `field_bytes` long.
    #[must_use]
    pub fn bytes(&self, event: (i64, UserKey, Op), field_bytes: usize) -> usize {
        let values = self.pieces.iter().map(|(_, value)| value.bytes(event));
        self.literal_bytes + self.end.len() + 1 + values.sum::<usize>() + field_bytes
    }

    /// How many fields an event of this layout has.
    #[must_use]
    pub fn fields(&self) -> usize {
        self.fields
    }

    /// Writes an event's JSON, without its closing brace, in the place of what is in `text`. `field` has the JSON of
    /// the field of a number; `None` is null. `field_bytes` is about the length of all.
    pub fn compose<'a>(
        &self,
        text: &mut String,
        (id, user, op): (i64, UserKey, Op),
        field_bytes: usize,
        field: impl Fn(usize) -> Option<&'a str>,
    ) {
        text.clear();
        text.reserve(self.fixed_bytes_max + field_bytes);
        for (literal, value) in &self.pieces {
            text.push_str(literal);
            match value {
                Value::User => {
                    text.push('"');
                    let mut buffer = Uuid::encode_buffer();
                    text.push_str(user.uuid().as_hyphenated().encode_lower(&mut buffer));
                    text.push('"');
                }
                Value::Op => text.push_str(op.json()),
                // Writing into a String does not fail.
                Value::Bigint => drop(write!(text, "\"{}\"", user.bigint())),
                Value::Id => drop(write!(text, "{id}")),
                Value::Field(number) => text.push_str(field(*number).unwrap_or("null")),
            }
        }
        text.push_str(&self.end);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use serde_json::{Value as Json, json};

    use super::*;

    const USER: Uuid = Uuid::from_u128(0xa1b2_c3d4_e5f6_7890_abcd_ef12_3456_7890);

    /// The number of the user whose key has the same last bytes.
    const USER_NUMBER: &str = "-6066930261531658096";

    fn layout(pieces: &[&str]) -> Result<Layout, NotALayout> {
        let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        Layout::parse(&pieces)
    }

    fn composed(layout: &Layout, op: Op, fields: &[Option<&str>]) -> String {
        let mut text = "what was there before".to_owned();
        layout.compose(&mut text, (70, USER.into(), op), 0, |number| {
            fields[number - 1]
        });
        text
    }

    #[test]
    fn an_event_is_written_as_its_layout_says() {
        let message = [
            r#"{"type" : "message", "chat_id" : "#,
            "1",
            r#", "user_id" : "#,
            "user",
            r#", "id" : "#,
            "id",
            "}",
        ];
        let message = layout(&message).unwrap();
        assert_eq!(message.fields(), 1);
        for (chat, json) in [(Some(r#""c""#), r#""c""#), (None, "null")] {
            let text = composed(&message, Op::Insert, &[chat]);
            let user = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
            let expected = format!(
                r#"{{"type" : "message", "chat_id" : {json}, "user_id" : "{user}", "id" : 70"#
            );
            assert_eq!(text, expected);
        }
        let op = layout(&[r#"{"op":"#, "op", ",", "}"]);
        assert_eq!(op, Err(NotALayout::Ends));
        let op = layout(&[r#"{"op":"#, "op", "}"]).unwrap();
        for (letter, name) in [
            (Some(b'i'), "insert"),
            (Some(b'u'), "update"),
            (None, "delete"),
        ] {
            let text = composed(&op, Op::of_letter(letter), &[]);
            assert_eq!(text, format!(r#"{{"op":"{name}""#));
        }
    }

    #[test]
    fn a_user_of_text_is_found_in_what_has_no_other_field() {
        let pieces = [
            r#"{"type" : "order", "op" : "#,
            "op",
            r#", "user_id" : "#,
            "1",
            r#", "key" : {"a":"#,
            "2",
            r#","b":"#,
            "3",
            r#"}, "id" : "#,
            "id",
            "}",
        ];
        let order = layout(&pieces).unwrap();
        for user in [r#""a""#, r#""é\"},{\"""#, "null"] {
            for op in [Op::Insert, Op::Delete] {
                let text = composed(&order, op, &[Some(user), None, None]);
                let event = (70, USER.into(), op);
                for json in [text.clone(), text + "}"] {
                    assert_eq!(order.user_json(&json, event), Some(user));
                }
            }
        }
        let bare = composed(&order, Op::Insert, &[None, None, None]);
        let longer = (7_000_000_000, USER.into(), Op::Insert);
        assert_eq!(order.user_json(&bare[..9], longer), None);
        let uuids = layout(&["{", "user", "}"]).unwrap();
        let event = (70, USER.into(), Op::Insert);
        assert_eq!(uuids.user_json(&bare, event), None);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        assert_eq!(layout(&[]), Err(NotALayout::Ends));
        assert_eq!(layout(&["{", "id"]), Err(NotALayout::Ends));
        assert_eq!(layout(&["{", "id", "} "]), Err(NotALayout::Brace));
        for name in ["", "0", "-1", "xid", "1.5", "99999999999999999999"] {
            let error = layout(&["{", name, "}"]);
            assert_eq!(error, Err(NotALayout::Value(name.to_owned())));
        }
        assert!(layout(&["{}"]).is_ok());
    }

    /// A value of JSON, and its text.
    fn any_json(random: &mut StdRng) -> (Json, String) {
        let text: String = (0..random.random_range(0..8))
            .map(|_| random.random::<char>())
            .collect();
        let value = match random.random_range(0..5) {
            0 => json!(text),
            1 => json!(random.random::<i64>()),
            2 => json!([random.random::<bool>(), text]),
            3 => json!({ text: random.random::<u32>() }),
            _ => Json::Null,
        };
        let text = value.to_string();
        (value, text)
    }

    /// An object of any members in any order is written as it would be by a library.
    #[test]
    fn whatever_the_members_the_object_is_the_same() {
        let mut random = StdRng::seed_from_u64(9);
        for _ in 0..2_000 {
            let op = Op::of_letter([Some(b'i'), Some(b'u'), Some(b'd')][random.random_range(0..3)]);
            let (values, texts): (Vec<_>, Vec<_>) = (0..random.random_range(0..6))
                .map(|_| any_json(&mut random))
                .unzip();
            let (mut pieces, mut expected) = (Vec::new(), serde_json::Map::new());
            for member in 0..random.random_range(0..9) {
                let (name, value) = match random.random_range(0..6) {
                    0 => ("user".to_owned(), json!(USER)),
                    3 => ("bigint".to_owned(), json!(USER_NUMBER)),
                    1 => ("op".to_owned(), serde_json::from_str(op.json()).unwrap()),
                    2 => ("id".to_owned(), json!(70)),
                    _ if values.is_empty() => continue,
                    _ => {
                        let number = random.random_range(0..values.len());
                        ((number + 1).to_string(), values[number].clone())
                    }
                };
                let key = format!("{member}{}", random.random::<char>());
                let first = if pieces.is_empty() { "{" } else { "," };
                pieces.push(format!("{first}{}:", json!(key)));
                pieces.push(name);
                expected.insert(key, value);
            }
            pieces.push(if pieces.is_empty() { "{}" } else { "}" }.to_owned());
            let layout = Layout::parse(&pieces).unwrap();
            assert!(layout.fields() <= values.len());
            // Null is no text.
            let fields: Vec<_> = texts
                .iter()
                .map(|text| Some(text.as_str()).filter(|text| *text != "null"))
                .collect();
            let text = format!("{}}}", composed(&layout, op, &fields));
            let numbers = layout.numbers().collect::<Vec<_>>();
            let bytes = |number: &usize| fields[number - 1].map_or(4, str::len);
            let bytes = numbers.iter().map(bytes).sum();
            assert_eq!(layout.bytes((70, USER.into(), op), bytes), text.len());
            assert!(layout.fixed_bytes_max() + bytes >= text.len());
            assert_eq!(
                serde_json::from_str::<Json>(&text).unwrap(),
                Json::Object(expected),
                "{text}"
            );
        }
    }
}
