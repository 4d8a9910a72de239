//! Numbers come from the order of the topic, and a change that was checked on something else has no effect.

use super::*;
use crate::schema::records::{Configured, Registered};

const INT: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}"#;
const LONG: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}"#;
const MORE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":0}]}"#;
const LESS: &str = r#"{"type": "record", "name": "R", "fields": []}"#;

/// What a gateway does: check, append, fold.
fn register(subjects: &mut Subjects, tenant: &str, subject: &str, schema: &str) -> Result<u32, Refused> {
    if let Some(found) = subjects.find(tenant, subject, schema) {
        return Ok(found.id);
    }
    subjects.check(tenant, subject, schema)?;
    let revision = subjects.revision(tenant) as i64;
    assert!(subjects.apply(&SchemasRecord::Registered(Registered { tenant, subject, schema, revision })));
    Ok(subjects.find(tenant, subject, schema).expect("registered").id)
}

fn configure(subjects: &mut Subjects, subject: &str, level: &str) {
    let revision = subjects.revision("acme") as i64;
    assert!(subjects.apply(&SchemasRecord::Configured(Configured { tenant: "acme", subject, compatibility: level, revision })));
}

#[test]
fn numbers_are_dense_and_the_same_schema_has_one() {
    let mut subjects = Subjects::new("main");
    let mut register = |tenant: &str, subject: &str, schema: &str| register(&mut subjects, tenant, subject, schema).unwrap();
    assert_eq!(register("acme", "a-value", INT), 1);
    assert_eq!(register("acme", "b-value", "\"string\""), 2);
    assert_eq!(register("acme", "a-value", &INT.replace(' ', "")), 1, "blanks do not make another schema");
    let turned = r#"{"name": "R", "fields": [{"type": "int", "name": "a"}], "type": "record"}"#;
    assert_eq!(register("acme", "c-value", turned), 1, "nor does the order of members");
    assert_eq!(register("globex", "a-value", INT), 1);
    assert_eq!(register("acme", "a-value", LONG), 3);
    let versions: Vec<_> = subjects.versions("acme", "a-value").iter().map(|version| (version.version, version.id)).collect();
    assert_eq!(versions, [(1, 1), (2, 3)]);
    assert_eq!(subjects.versions_of("acme", 1).iter().map(|version| version.subject.as_str()).collect::<Vec<_>>(), ["a-value", "c-value"]);
}

#[test]
fn of_two_that_were_checked_on_the_same_only_the_first_has_an_effect() {
    let mut subjects = Subjects::new("main");
    let first = SchemasRecord::Registered(Registered { tenant: "acme", subject: "a-value", schema: INT, revision: 0 });
    let second = SchemasRecord::Registered(Registered { tenant: "acme", subject: "a-value", schema: "\"string\"", revision: 0 });
    assert!(subjects.apply(&first));
    assert!(!subjects.apply(&second), "it was checked without the first");
    let other = SchemasRecord::Registered(Registered { tenant: "globex", subject: "a-value", schema: LONG, revision: 0 });
    assert!(subjects.apply(&other), "tenants do not disturb each other");
    assert_eq!(subjects.find("globex", "a-value", LONG).unwrap().id, 2, "what had no effect has no number");
}

#[test]
fn tenants_see_their_own_and_the_products() {
    let mut subjects = Subjects::new("main");
    let id = register(&mut subjects, "acme", "a-value", INT).unwrap();
    assert_eq!(subjects.schema("acme", id).as_deref(), Some(INT));
    assert_eq!(subjects.schema("globex", id), None);
    assert_eq!((subjects.schema("acme", 0), subjects.schema("acme", 7)), (None, None));
    let shared = subjects.subjects("globex");
    assert!(shared.contains(&"flywheel.event".to_owned()) && shared.contains(&"main.events-value".to_owned()), "{shared:?}");
    let events = subjects.versions("globex", "main.events-value");
    assert_eq!((events.len(), events[0].id), (7, 1_000_003_001));
    assert!(matches!(register(&mut subjects, "acme", "main.events-value", INT), Err(Refused::BuiltIn(_))));
}

#[test]
fn the_event_to_copy_is_a_schema_that_reads_as_an_event() {
    let subjects = Subjects::new("main");
    let event = subjects.versions("acme", "flywheel.event").pop().expect("there");
    valid(&event.schema).unwrap();
    assert_eq!(event.id, 1_000_000_001);
}

#[test]
fn levels_allow_what_they_say() {
    let allowed = |level: &str, before: &[&str], schema: &str| {
        let mut subjects = Subjects::new("main");
        configure(&mut subjects, "a-value", "NONE");
        for schema in before {
            register(&mut subjects, "acme", "a-value", schema).unwrap();
        }
        configure(&mut subjects, "a-value", level);
        subjects.check("acme", "a-value", schema).is_ok()
    };
    // (level, int to long, long to int, a field more with a default, a field less)
    let cases = [
        ("NONE", [true, true, true, true]),
        ("BACKWARD", [true, false, true, true]),
        ("FORWARD", [false, true, true, false]),
        ("FULL", [false, false, true, false]),
    ];
    for (level, expect) in cases {
        let found =
            [allowed(level, &[INT], LONG), allowed(level, &[LONG], INT), allowed(level, &[INT], MORE), allowed(level, &[INT], LESS)];
        assert_eq!(found, expect, "{level}");
    }
    // Against the newest only, or against all.
    assert!(allowed("BACKWARD", &[LONG, LESS], MORE.replace("\"a\",\"type\":\"int\"", "\"a\",\"type\":\"int\",\"default\":1").as_str()));
    assert!(!allowed(
        "BACKWARD_TRANSITIVE",
        &[LONG, LESS],
        MORE.replace("\"a\",\"type\":\"int\"", "\"a\",\"type\":\"int\",\"default\":1").as_str()
    ));
}

#[test]
fn a_level_of_the_tenant_holds_where_a_subject_has_none() {
    let mut subjects = Subjects::new("main");
    assert_eq!((subjects.level("acme", "a-value"), subjects.own_level("acme", None)), (Level::Backward, None));
    configure(&mut subjects, "", "FULL");
    configure(&mut subjects, "a-value", "none");
    assert_eq!((subjects.level("acme", "a-value"), subjects.level("acme", "b-value")), (Level::None, Level::Full));
    configure(&mut subjects, "a-value", "");
    assert_eq!((subjects.level("acme", "a-value"), subjects.level("globex", "a-value")), (Level::Full, Level::Backward));
}

#[test]
fn what_is_no_schema_or_no_name_is_refused() {
    let subjects = Subjects::new("main");
    let refused = |subject: &str, schema: &str| subjects.check("acme", subject, schema).unwrap_err();
    assert!(matches!(refused("a", "{"), Refused::Invalid(_)));
    assert!(matches!(refused("a", r#"{"type": "record", "name": "R"}"#), Refused::Invalid(_)));
    assert!(matches!(refused("", INT), Refused::Name(_)));
    assert!(matches!(refused("a\n", INT), Refused::Name(_)));
}
