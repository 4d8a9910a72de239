//! Query strings: `application/x-www-form-urlencoded` pairs, decoded; and what of them a route knows.

use std::borrow::Cow;

use axum::http::request::Parts;

use super::reply::Refusal;
use crate::segments::did_you_mean;

/// Each `name=value` of the query, in order, percent-decoded; what is not UTF-8 then is replaced, not refused.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// The value of a query parameter.
pub(super) fn query<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    pairs(query?).find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
}

/// What every request that reads or commands may say of whose it is.
const WHOSE: [&str; 2] = ["namespace", "tenant"];

/// Refuses a parameter that nobody reads: a misspelt filter would filter nothing, or everything.
pub(super) fn only(head: &Parts, known: &[&str]) -> Result<(), Refusal> {
    let known = || known.iter().copied().chain(WHOSE);
    for (name, _) in pairs(head.uri.query().unwrap_or_default()) {
        if !known().any(|one| one == name) {
            let near = nearest(&name, known());
            let name: String = name.chars().take(80).collect();
            let all = known().collect::<Vec<_>>().join(", ");
            return Err(Refusal::InvalidRequest(format!("there is no parameter {name:?} here; {near}there are {all}")));
        }
    }
    Ok(())
}

/// One of a fixed list of words.
pub(super) fn one_of(what: &str, text: &str, known: &[&str]) -> Result<(), Refusal> {
    if known.contains(&text) {
        return Ok(());
    }
    let near = nearest(text, known.iter().copied());
    let text: String = text.chars().take(80).collect();
    Err(Refusal::InvalidRequest(format!("there is no {what} {text:?}; {near}there are {}", known.join(", "))))
}

fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    did_you_mean(wrong, known).map_or(String::new(), |near| format!("did you mean {near}? "))
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
