//! Finds the events in a body of JSON in one pass, without building anything but slices of it: for whoever appends to `intake`.
//!
//! Lenient on purpose: it checks the structure that it needs to find each event's borders and ids, and leaves the judgement of an event to
//! the fold, which dead-letters it alone. So a `NaN` from Python's `json.dumps` or a raw control character costs its own event, not the batch.
//! Iterative, with a bounded depth, so that no input can exhaust the stack.

use std::borrow::Cow;

/// The deepest nesting taken; serde_json's own bound.
const DEPTH_MAX: u32 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the body is empty")]
    Empty,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the JSON is broken at byte {at}")]
    Broken { at: usize },
    #[error("the JSON is nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep { at: usize },
    #[error("`batch` is missing or not an array")]
    NoBatch,
    #[error("the batch holds more than {max} events")]
    TooMany { max: usize },
}

/// A JSON value as it stands in the body, quotes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(pub &'a str);

impl<'a> Raw<'a> {
    /// The text of a string or the digits of a number; `None` for null, an empty string, a boolean or a container.
    pub fn id(self) -> Option<Cow<'a, str>> {
        let bytes = self.0.as_bytes();
        match bytes.first()? {
            b'"' => {
                let inner = &self.0[1..self.0.len() - 1];
                if inner.is_empty() {
                    None
                } else if inner.contains('\\') {
                    serde_json::from_str::<String>(self.0).ok().map(Cow::Owned)
                } else {
                    Some(Cow::Borrowed(inner))
                }
            }
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(self.0)),
            _ => None,
        }
    }

    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }
}

/// One event: its JSON, and what the gateway must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Item<'a> {
    pub body: &'a str,
    pub kind: Option<Raw<'a>>,
    pub message_id: Option<Raw<'a>>,
    pub anonymous_id: Option<Raw<'a>>,
    pub user_id: Option<Raw<'a>>,
    pub previous_id: Option<Raw<'a>>,
    pub sent_at: Option<Raw<'a>>,
    pub write_key: Option<Raw<'a>>,
    /// Its members' names hold escapes, which only a full parser compares rightly.
    pub has_escaped_names: bool,
}

/// A batch's events and what it says about all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch<'a> {
    pub items: Vec<Item<'a>>,
    pub sent_at: Option<Raw<'a>>,
    pub write_key: Option<Raw<'a>>,
    pub context: Option<Raw<'a>>,
    pub integrations: Option<Raw<'a>>,
    pub historical: bool,
}

/// Reads `{"batch": [...], ...}`.
pub fn batch(text: &str, items_max: usize) -> Result<Batch<'_>, Error> {
    let mut scanner = Scanner::start(text)?;
    let mut batch = Batch::default();
    let mut has_batch = false;
    scanner.open_object()?;
    let mut first = true;
    while let Some(key) = scanner.next_key(&mut first)? {
        if key == "batch" {
            has_batch = scanner.peek()? == b'[';
            if !has_batch {
                return Err(Error::NoBatch);
            }
            batch.items = scanner.items(items_max)?;
            continue;
        }
        let value = scanner.value()?;
        match key {
            "sentAt" => batch.sent_at = Some(value),
            "writeKey" => batch.write_key = Some(value),
            "context" => batch.context = Some(value),
            "integrations" => batch.integrations = Some(value),
            "historical" => batch.historical = value.0 == "true",
            _ => {}
        }
    }
    scanner.end()?;
    if has_batch { Ok(batch) } else { Err(Error::NoBatch) }
}

/// Reads one event, the body of a single-event route.
pub fn single(text: &str) -> Result<Item<'_>, Error> {
    let mut scanner = Scanner::start(text)?;
    let item = scanner.item()?;
    scanner.end()?;
    Ok(item)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    saw_escaped_name: bool,
}

impl<'a> Scanner<'a> {
    /// At the body's first byte that matters, which must open an object.
    fn start(text: &'a str) -> Result<Self, Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut scanner = Self { text, bytes: text.as_bytes(), at: 0, saw_escaped_name: false };
        scanner.skip_space();
        match scanner.bytes.get(scanner.at) {
            Some(b'{') => Ok(scanner),
            Some(_) => Err(Error::NotAnObject),
            None => Err(Error::Empty),
        }
    }

    fn broken<T>(&self) -> Result<T, Error> {
        Err(Error::Broken { at: self.at })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, Error> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.broken(),
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek()? != byte {
            return self.broken();
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but white space may follow the value.
    fn end(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { self.broken() }
    }

    fn open_object(&mut self) -> Result<(), Error> {
        self.expect(b'{')
    }

    /// The next member's key, raw and without quotes, standing before its value; `None` once the object has closed.
    fn next_key(&mut self, first: &mut bool) -> Result<Option<&'a str>, Error> {
        match self.peek()? {
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            b',' if !*first => {
                self.at += 1;
                if self.peek()? != b'"' {
                    return self.broken();
                }
            }
            b'"' if *first => {}
            _ => return self.broken(),
        }
        *first = false;
        let start = self.at + 1;
        self.saw_escaped_name |= self.skip_string()?;
        let key = &self.text[start..self.at - 1];
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// The events of the array that starts here.
    fn items(&mut self, items_max: usize) -> Result<Vec<Item<'a>>, Error> {
        let mut items = Vec::new();
        self.expect(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(items);
        }
        loop {
            if items.len() == items_max {
                return Err(Error::TooMany { max: items_max });
            }
            items.push(self.item()?);
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(items);
                }
                _ => return self.broken(),
            }
        }
    }

    /// The value that starts here as an event. What is not an object is an event without any id, for intake to refuse.
    fn item(&mut self) -> Result<Item<'a>, Error> {
        if self.peek()? != b'{' {
            let Raw(body) = self.value()?;
            return Ok(Item { body, ..Item::default() });
        }
        let start = self.at;
        let mut item = Item::default();
        self.saw_escaped_name = false;
        self.open_object()?;
        let mut first = true;
        while let Some(key) = self.next_key(&mut first)? {
            let value = self.value()?;
            match key {
                "type" => item.kind = Some(value),
                "messageId" => item.message_id = Some(value),
                "anonymousId" => item.anonymous_id = Some(value),
                "userId" => item.user_id = Some(value),
                "previousId" => item.previous_id = Some(value),
                "sentAt" => item.sent_at = Some(value),
                "writeKey" => item.write_key = Some(value),
                _ => {}
            }
        }
        item.body = &self.text[start..self.at];
        item.has_escaped_names = self.saw_escaped_name;
        Ok(item)
    }

    /// Steps over the value that starts here.
    fn value(&mut self) -> Result<Raw<'a>, Error> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.skip_string()?;
            }
            b'{' | b'[' => self.skip_container()?,
            _ => self.skip_scalar()?,
        }
        Ok(Raw(&self.text[start..self.at]))
    }

    /// A number, `true`, `false`, `null`, and the words some serialisers write beside them (`NaN`, `Infinity`).
    fn skip_scalar(&mut self) -> Result<(), Error> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at == start { self.broken() } else { Ok(()) }
    }

    /// Steps over the string whose opening quote is here, eight bytes at a time; true if it holds escapes.
    fn skip_string(&mut self) -> Result<bool, Error> {
        let mut at = self.at + 1;
        let mut has_escapes = false;
        loop {
            while let Some(word) = self.bytes.get(at..at + 8) {
                let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                let stops = bytes_equal(word, b'"') | bytes_equal(word, b'\\');
                if stops != 0 {
                    at += (stops.trailing_zeros() / 8) as usize;
                    break;
                }
                at += 8;
            }
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => {
                    self.at = self.bytes.len();
                    return self.broken();
                }
            }
        }
    }

    /// Steps over the object or array that starts here, keeping one bit per level: set for an object.
    fn skip_container(&mut self) -> Result<(), Error> {
        let mut levels: u128 = 0;
        let mut depth: u32 = 0;
        let mut expects_value = true;
        loop {
            let byte = self.peek()?;
            if expects_value {
                match byte {
                    b'{' | b'[' => {
                        if depth == DEPTH_MAX {
                            return Err(Error::TooDeep { at: self.at });
                        }
                        levels = (levels << 1) | u128::from(byte == b'{');
                        depth += 1;
                        self.at += 1;
                        let closes = if byte == b'{' { b'}' } else { b']' };
                        if self.peek()? == closes {
                            expects_value = false;
                        } else if byte == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                    b'"' => {
                        self.skip_string()?;
                    }
                    _ => self.skip_scalar()?,
                }
                expects_value = false;
                continue;
            }
            let in_object = levels & 1 == 1;
            match byte {
                b',' => {
                    self.at += 1;
                    expects_value = true;
                    if in_object {
                        self.skip_key()?;
                    }
                }
                b'}' if in_object => self.at += 1,
                b']' if !in_object => self.at += 1,
                _ => return self.broken(),
            }
            if !expects_value {
                levels >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Ok(());
                }
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Error> {
        if self.peek()? != b'"' {
            return self.broken();
        }
        self.skip_string()?;
        self.expect(b':')
    }
}

/// The high bit of every byte of `word` that equals `byte`; of the lowest such byte for certain, which is all that is used.
fn bytes_equal(word: u64, byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let difference = word ^ (ONES * u64::from(byte));
    difference.wrapping_sub(ONES) & !difference & (ONES << 7)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
