//! Query strings: `application/x-www-form-urlencoded` pairs, decoded.

use std::borrow::Cow;

/// Each `name=value` of the query, in order, percent-decoded; what is not UTF-8 then is replaced, not refused.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// One percent-encoded name or value.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let text = text.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let escaped = if text[at] == b'%' { text.get(at + 1..at + 3).and_then(hex_pair) } else { None };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                at += 3;
            }
            None => {
                bytes.push(if text[at] == b'+' { b' ' } else { text[at] });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.starts_with('+') { None } else { u8::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_pairs_and_keeps_what_is_not_encoded() {
        let found: Vec<_> = pairs("a=1&b=x%20y+z&c&&d=100%&e=%e4&f=%C3%A4&g=%+1").map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(found, ["a=1", "b=x y z", "c=", "d=100%", "e=\u{fffd}", "f=\u{e4}", "g=% 1"]);
    }
}
