//! The table of features against what is made from it: the documentation and the `profiles` schema. And features
//! against real files whose numbers were computed elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use flywheel::domain::{Millis, Money, Value};
use flywheel::features::{FIELDS, FUNCTIONS, Field, FieldId, Groups, Profile, RawEvent, Rules, extract};
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
    let path = Path::new("docs/features.md");
    let text = fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(OPEN).expect("the document has a place for the tables");
    let (_, after) = rest.split_once(CLOSE).expect("the place has an end");
    let expected = format!("{before}{OPEN}{}{CLOSE}{after}", tables());
    if text != expected {
        fs::write(path, expected).unwrap();
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

fn path(file: &str) -> std::path::PathBuf {
    Path::new("data").join(file)
}

fn integer(value: Value<'_>) -> i64 {
    match value {
        Value::Int(number) => number,
        Value::Money(Money(number)) => number,
        Value::Null => -1,
        other => panic!("{other:?} is no integer"),
    }
}

/// Expected: computed from the file with exact fractions and calendar dates by another program, as of 1998-06-30. Customers 14048, 07592
/// and 07983 bought on more days than are kept one by one.
#[test]
fn purchase_histories_give_the_numbers_that_bgnbd_and_gamma_gamma_need() {
    let rules = Rules::default();
    let mut customers: BTreeMap<String, Profile> = BTreeMap::new();
    let mut rows = csv::Reader::from_path(path("cdnow_master.csv")).unwrap();
    for row in rows.records() {
        let row = row.unwrap();
        let properties = format!(r#"{{"revenue":{},"currency":"USD"}}"#, &row[3]);
        let event_time = Millis::parse(&row[1]).unwrap().0;
        let event = RawEvent { kind: "track", name: "Order Completed", event_time, properties: &properties, context: "" };
        let _ = customers.entry(row[0].to_owned()).or_default().observe(&extract(&event, &rules), &rules);
    }
    let now = Millis::parse("1998-06-30").unwrap();
    let numbers = |profile: &Profile| {
        let fields =
            [Field::Orders, Field::Revenue, Field::RepeatPurchases, Field::PurchaseRecencyDays, Field::PurchaseAgeDays, Field::RepeatMean];
        fields.map(|field| integer(profile.value(&FieldId::Named(field), now, &rules)))
    };
    let some = [
        ("00001", [1, 11_770_000, 0, 0, 545, -1]),
        ("00002", [2, 89_000_000, 0, 0, 534, -1]),
        ("00003", [6, 156_460_000, 5, 511, 544, 27_140_000]),
        ("00004", [4, 100_500_000, 3, 345, 545, 23_723_333]),
        ("23570", [2, 94_080_000, 1, 1, 462, 42_960_000]),
        ("14048", [217, 8_976_330_000, 170, 496, 496, 52_773_765]),
        ("07592", [201, 13_990_930_000, 145, 516, 517, 95_984_276]),
        ("07983", [149, 6_973_070_000, 124, 507, 512, 56_038_790]),
    ];
    for (customer, expected) in some {
        assert_eq!(numbers(&customers[customer]), expected, "customer {customer}");
    }
    let mut sums = [0; 6];
    for profile in customers.values() {
        for (sum, number) in sums.iter_mut().zip(numbers(profile)) {
            *sum += number.max(0);
        }
    }
    assert_eq!(customers.len(), 23_570);
    assert_eq!(sums, [69_659, 2_500_315_630_000, 44_021, 3_178_932, 11_834_346, 414_282_384_403]);
}

/// The file carries its own session ids, made with the same rule.
#[test]
fn sessions_of_a_clickstream_are_the_files_own() {
    let rules = Rules::default();
    let file = flate2::read::GzDecoder::new(fs::File::open(path("ecommerce_clickstream.csv.gz")).unwrap());
    let mut users: BTreeMap<String, (Profile, BTreeSet<String>)> = BTreeMap::new();
    for row in csv::Reader::from_reader(file).records() {
        let row = row.unwrap();
        let event_time = Millis::parse(&row[3].replace(' ', "T")).unwrap().0;
        let event = RawEvent { kind: "track", name: &row[2], event_time, ..RawEvent::default() };
        let (profile, sessions) = users.entry(row[0].to_owned()).or_default();
        let _ = profile.observe(&extract(&event, &rules), &rules);
        sessions.insert(row[1].to_owned());
    }
    assert_eq!(users.len(), 600);
    for (user, (profile, sessions)) in &users {
        let counted = integer(profile.value(&FieldId::Named(Field::Sessions), Millis(0), &rules));
        assert_eq!(counted, sessions.len() as i64, "user {user}");
    }
}
