//! A scanner of flat JSON objects: plain strings, whole numbers, `true`, `false` and `null`, in one pass.
//!
//! It never accepts a text that `serde_json` would refuse, and never reads it differently. What it does not know
//! (escapes, nesting, a number with a fraction) ends it.

/// A UUID as PostgreSQL writes it.
const UUID_CHARS: usize = 36;

/// The string that this member of a flat object has. The object may lack its closing brace. `None` where the pass ends
/// before it.
pub(super) fn member<'a>(object: &'a str, wanted: &[u8]) -> Option<&'a str> {
    let mut rest = Rest(object.as_bytes());
    rest.expect(b'{')?;
    rest.expect(b'"')?;
    loop {
        let name = rest.name_begun()?;
        match rest.value()? {
            Value::String(text) if name == wanted => return str::from_utf8(text).ok(),
            _ if rest.next_begins()? => {}
            _ => return None,
        }
    }
}

/// A plain value.
pub(super) enum Value<'a> {
    String(&'a [u8]),
    Number(i64),
    Bool(bool),
    Null,
}

/// The rest of a JSON text, which has not been read.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn is_blank(&mut self) -> bool {
        self.skip_blanks();
        self.0.is_empty()
    }

    /// The next byte that is not white space. Triggers write at most one space before it. Anything more is skipped
    /// in a function of its own, which keeps this one short.
    pub(super) fn next(&mut self) -> Option<u8> {
        let (mut first, mut rest) = self.0.split_first()?;
        if *first == b' ' {
            (first, rest) = rest.split_first()?;
        }
        if *first <= b' ' {
            return self.next_after_blanks();
        }
        self.0 = rest;
        Some(*first)
    }

    #[cold]
    #[inline(never)]
    fn next_after_blanks(&mut self) -> Option<u8> {
        self.skip_blanks();
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// The name of a member, whose first quote has been read, and its colon. Triggers write one space on each side of
    /// the colon.
    pub(super) fn name_begun(&mut self) -> Option<&'a [u8]> {
        let name = self.string_begun()?;
        match self.0.strip_prefix(b" : ") {
            Some(rest) => self.0 = rest,
            None => self.expect(b':')?,
        }
        Some(name)
    }

    /// Whether another member follows a value; the first quote of its name is read too. `None` where neither a member
    /// nor the end follows. Triggers write one space after the comma.
    pub(super) fn next_begins(&mut self) -> Option<bool> {
        if let Some(rest) = self.0.strip_prefix(b", \"") {
            self.0 = rest;
            return Some(true);
        }
        match self.next() {
            Some(b',') => self.expect(b'"').map(|()| true),
            None if self.is_blank() => Some(false),
            _ => None,
        }
    }

    /// A string without escapes, whose first quote has been read.
    fn string_begun(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = self.0.split_at_checked(end_of_string(self.0)?)?;
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// The same for a string that is a value. Most values are UUIDs. Checking that a string of that length ends
    /// there is quicker than searching for its end.
    fn string_value_begun(&mut self) -> Option<&'a [u8]> {
        match self.0.split_first_chunk() {
            Some((text, [b'"', rest @ ..])) if is_plain(text) => {
                self.0 = rest;
                Some(text)
            }
            _ => self.string_begun(),
        }
    }

    pub(super) fn value(&mut self) -> Option<Value<'a>> {
        match self.next()? {
            b'"' => self.string_value_begun().map(Value::String),
            digit @ b'0'..=b'9' => self.number_begun(digit).map(Value::Number),
            b't' => self.word(b"rue").map(|()| Value::Bool(true)),
            b'f' => self.word(b"alse").map(|()| Value::Bool(false)),
            b'n' => self.word(b"ull").map(|()| Value::Null),
            _ => None,
        }
    }

    /// A whole number that is not negative, without a leading zero; nothing larger than an `i64`.
    fn number_begun(&mut self, digit: u8) -> Option<i64> {
        let mut number = i64::from(digit - b'0');
        while let [digit @ b'0'..=b'9', rest @ ..] = self.0 {
            if number == 0 {
                return None;
            }
            let digit = i64::from(digit - b'0');
            number = number.checked_mul(10)?.checked_add(digit)?;
            self.0 = rest;
        }
        match self.0.first() {
            Some(b'.' | b'e' | b'E') => None,
            _ => Some(number),
        }
    }
}

/// Whether the text holds no byte that ends a plain string.
fn is_plain(text: &[u8; UUID_CHARS]) -> bool {
    const LAST: usize = UUID_CHARS - size_of::<u64>();
    let special_at = |at: usize| {
        let word = text[at..].first_chunk();
        word.map_or(u64::MAX, |word| special_bytes(u64::from_le_bytes(*word)))
    };
    let words = [0, 8, 16, 24, LAST].into_iter();
    words.fold(0, |all, at| all | special_at(at)) == 0
}

/// The index of the first quote, backslash or control character.
fn end_of_string(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            let place = bytes.len() - rest.len();
            return Some(place + special.trailing_zeros() as usize / 8);
        }
        rest = after;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let place = rest.iter().position(special)?;
    Some(bytes.len() - rest.len() + place)
}

/// Eight bytes at a time: the high bit of the first byte that ends a plain string, and perhaps of some after it.
fn special_bytes(word: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let of = |byte: u8| EACH * u64::from(byte);
    // A byte below the bound borrows, which sets its high bit. A byte whose high bit was set is not special.
    // With the bit 0x02 changed, control characters stay below 0x20, and of all others only the quote becomes 0x20.
    let control_or_quote = (word ^ of(0x02)).wrapping_sub(of(0x21));
    let backslash = (word ^ of(b'\\')).wrapping_sub(of(1));
    (control_or_quote | backslash) & !word & of(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_the_first_byte_that_is_special() {
        for byte in 0..=255_u8 {
            let special = matches!(byte, b'"' | b'\\' | 0..=0x1f);
            // Three words, and a rest that is shorter than a word.
            for place in 0..29 {
                let mut bytes = [b'x'; 29];
                bytes[place..].fill(byte);
                let end = special.then_some(place);
                assert_eq!(end_of_string(&bytes), end, "{byte} at {place}");
                assert_eq!(end_of_string(&bytes[..place]), None);
            }
        }
    }

    #[test]
    fn two_special_bytes_a_word_apart_do_not_hide_each_other() {
        for place in 0..UUID_CHARS - size_of::<u64>() {
            let mut text = [b'x'; UUID_CHARS];
            text[place] = b'\\';
            text[place + size_of::<u64>()] = b'\\';
            assert!(!is_plain(&text), "{place}");
        }
    }
}
