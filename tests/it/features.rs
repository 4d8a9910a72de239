//! The table of features against what is made from it: the documentation and the `profiles` schema.

use std::fs;
use std::path::Path;

use flywheel::features::{FIELDS, FUNCTIONS, Field, Groups};
use flywheel::schema::profile::columns;

const OPEN: &str = "<!-- fields -->\n";
const CLOSE: &str = "<!-- /fields -->";

/// The tables of `docs/features.md`.
fn tables() -> String {
    let mut out = String::new();
    let mut group = Groups::NONE;
    for def in FIELDS {
        if def.group != group && !out.contains(&format!("## {}\n", def.group.title())) {
            group = def.group;
            out.push_str(&format!("\n## {}\n\n| field | type | unit | window | definition |\n|---|---|---|---|---|\n", group.title()));
            for def in FIELDS.iter().filter(|def| def.group == group) {
                let kind = format!("{}{}", def.kind.as_str(), if def.nullable { ", null" } else { "" });
                out.push_str(&format!("| `{}` | {kind} | {} | {} | {} |\n", def.name, def.unit, def.window, def.doc));
            }
        }
    }
    out.push_str("\n## Functions\n\n| function | type | unit | window | definition |\n|---|---|---|---|---|\n");
    for def in FUNCTIONS {
        out.push_str(&format!("| `{}` | {} | {} | {} | {} |\n", def.signature, def.kind.as_str(), def.unit, def.window, def.doc));
    }
    out.push('\n');
    out
}

#[test]
fn the_documentation_is_true_to_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/features.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(OPEN).expect("the document has a place for the tables");
    let (_, after) = rest.split_once(CLOSE).expect("the place has an end");
    let expected = format!("{before}{OPEN}{}{CLOSE}{after}", tables());
    if text != expected {
        fs::write(&path, expected).unwrap();
        panic!("docs/features.md was not what the code says and has been brought up to date: look at it and commit");
    }
}

#[test]
fn the_profiles_schema_has_the_tables_columns() {
    let expected: Vec<_> = FIELDS.iter().map(|def| (def.name, def.kind)).collect();
    let found: Vec<_> = columns().iter().map(|column| (column.name, column.kind)).collect();
    assert_eq!(found, expected, "schemas/profiles.avsc is to list the features in their order");
    assert!(FIELDS.iter().enumerate().all(|(row, def)| def.field as usize == row && Field::parse(def.name) == Some(def.field)));
}
