//! Texts that stand where an id should be and identify nobody: what client code sends when it has none.
//!
//! Taken as an id, each would join thousands of strangers into one person and one partition. The words are those that PostHog's capture
//! refuses as distinct ids (its documentation lists them), which it met in the wild.

/// Compared without regard to case.
const WORDS: &[&str] = &[
    "0",
    "anonymous",
    "distinct_id",
    "distinctid",
    "email",
    "false",
    "guest",
    "id",
    "nan",
    "nil",
    "none",
    "not_authenticated",
    "null",
    "true",
    "undefined",
    "[object object]",
    "00000000-0000-0000-0000-000000000000",
];

const LONGEST: usize = 36;

/// Whether `text` is no identity: blank, or one of the words that stand for "none" (`undefined`, `null`, `[object Object]`, `0`, ...).
pub fn is_placeholder_id(text: &str) -> bool {
    let bare = text.trim();
    let bare = bare.strip_prefix(['"', '\'']).and_then(|rest| rest.strip_suffix(['"', '\''])).unwrap_or(bare);
    bare.is_empty() || (bare.len() <= LONGEST && WORDS.iter().any(|word| word.eq_ignore_ascii_case(bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_nobody_are_told_from_ids() {
        for none in ["", "  ", "null", "NULL", "undefined", "[object Object]", "0", "\"undefined\"", "'null'", "Anonymous", " none "] {
            assert!(is_placeholder_id(none), "{none:?}");
        }
        for id in ["1", "00", "u0", "nobody@example.com", "anonymous-7", "id-1", "nullius", "\"", "0x0"] {
            assert!(!is_placeholder_id(id), "{id:?}");
        }
        assert_eq!(WORDS.iter().map(|word| word.len()).max(), Some(LONGEST));
    }
}
