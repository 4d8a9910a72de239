//! Whether bytes of an older schema stay readable with a newer one: Avro's resolution rules, and nothing less than all of them.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    #[error("the {which} schema does not parse: {detail}")]
    Unparsable { which: &'static str, detail: String },
    #[error("records of the older schema cannot be read with the newer: {0}")]
    Never(String),
    #[error("some records of the older schema cannot be read with the newer: a kind, symbol or field of it is gone or lacks a default")]
    Sometimes,
}

/// Refuses a `newer` schema with which some record written with `older` could not be read.
pub fn check(older: &str, newer: &str) -> Result<(), Incompatible> {
    let parse = |which, text| Schema::parse_str(text).map_err(|error| Incompatible::Unparsable { which, detail: error.to_string() });
    let (older, newer) = (parse("older", older)?, parse("newer", newer)?);
    match SchemaCompatibility::can_read(&older, &newer) {
        Ok(Compatibility::Full) => Ok(()),
        Ok(Compatibility::Partial) => Err(Incompatible::Sometimes),
        Err(error) => Err(Incompatible::Never(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = include_str!("../../schemas/events.avsc");

    #[track_caller]
    fn refused(change: (&str, &str)) {
        assert!(EVENTS.contains(change.0), "{} is no longer in the schema", change.0);
        let newer = EVENTS.replacen(change.0, change.1, 1);
        assert!(check(EVENTS, &newer).is_err(), "{} -> {}", change.0, change.1);
    }

    #[test]
    fn an_incompatible_change_is_refused() {
        refused((r#""name": "received_at", "type": "long""#, r#""name": "received_at", "type": "string""#));
        refused((
            r#"{"name": "source", "type": "string"},"#,
            r#"{"name": "source", "type": "string"}, {"name": "fresh", "type": "long"},"#,
        ));
        refused((r#""name": "Tick""#, r#""name": "Tock""#));
        refused((r#""name": "historical""#, r#""name": "imported""#));
    }

    #[test]
    fn a_compatible_change_is_taken() {
        let source = r#"{"name": "source", "type": "string"},"#;
        let added = format!(r#"{source} {{"name": "fresh", "type": ["null", "long"], "default": null}},"#);
        for newer in [EVENTS.to_owned(), EVENTS.replacen(source, &added, 1), EVENTS.replacen(source, "", 1)] {
            check(EVENTS, &newer).unwrap();
        }
    }
}
