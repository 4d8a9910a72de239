//! Reading single members out of a JSON object's text without building it: most events need two or three of their properties.
//!
//! The text was checked by intake. On anything that is not JSON the scan ends early; it never fails and never panics.

use std::borrow::Cow;

/// The members of an object's text as (key between its quotes, value's text). Empty for anything that is not an object.
pub(crate) fn members(text: &str) -> Members<'_> {
    let mut members = Members { text, at: 0 };
    members.blanks();
    members.at = if members.peek() == Some(b'{') { members.at + 1 } else { text.len() };
    members
}

/// The elements of an array's text.
pub(crate) fn elements(text: &str) -> Elements<'_> {
    let mut scan = Members { text, at: 0 };
    scan.blanks();
    scan.at = if scan.peek() == Some(b'[') { scan.at + 1 } else { text.len() };
    Elements(scan)
}

/// A string's characters, or a number's digits as they stand; `None` for anything else and for empty text.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = match raw.as_bytes() {
        [b'"', inner @ .., b'"'] => &raw[1..1 + inner.len()],
        [b'0'..=b'9' | b'-', ..] => raw,
        _ => return None,
    };
    if inner.is_empty() {
        return None;
    }
    if inner.contains('\\') {
        return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// `text` cut to at most `max` bytes at a character's edge.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

pub(crate) struct Elements<'a>(Members<'a>);

impl<'a> Members<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t' | b',') = self.peek() {
            self.at += 1;
        }
    }

    /// Past the string that begins here; returns what is between its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        loop {
            match bytes.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.at = at + 1;
        self.text.get(start..at)
    }

    /// Past the value that begins here; returns its text.
    fn value(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        match self.peek()? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => {
                let mut depth = 0usize;
                loop {
                    match *bytes.get(self.at)? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            b'}' | b']' => return None,
            _ => {
                while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
                    self.at += 1;
                }
            }
        }
        self.text.get(start..self.at)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.blanks();
        if self.peek()? != b'"' {
            return None;
        }
        let key = self.string()?;
        self.blanks();
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        self.blanks();
        Some((key, self.value()?))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.blanks();
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_members_past_nested_values_and_escapes() {
        let json = r#" { "a" : 1, "b":{"x":"}]\"","y":[1,{"z":2}]}, "c\"d" : "e\\", "n":null,"t":true } "#;
        let found: Vec<_> = members(json).collect();
        let expected = [("a", "1"), ("b", r#"{"x":"}]\"","y":[1,{"z":2}]}"#), ("c\\\"d", r#""e\\""#), ("n", "null"), ("t", "true")];
        assert_eq!(found, expected);
        assert_eq!(elements(r#"[1, "a,b", {"c":[2]} ]"#).collect::<Vec<_>>(), ["1", "\"a,b\"", r#"{"c":[2]}"#]);
    }

    #[test]
    fn text_takes_strings_and_numbers_only() {
        let cases = [
            (r#""shoe""#, Some("shoe")),
            (r#""a\u00e9\n""#, Some("a\u{e9}\n")),
            ("17.5", Some("17.5")),
            ("null", None),
            ("\"\"", None),
            ("{}", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(text(raw).as_deref(), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn broken_text_ends_the_scan_and_nothing_else(text in "[{}\\[\\]\",:\\\\ a1\u{e9}]{0,40}") {
            for (key, value) in members(&text) {
                prop_assert!(key.len() + value.len() <= text.len());
            }
            prop_assert!(elements(&text).count() <= text.len());
        }
    }
}
