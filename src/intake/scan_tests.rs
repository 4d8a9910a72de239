//! What the scanner finds, and what it refuses.

use proptest::prelude::*;

use super::*;

#[test]
fn finds_each_event_and_its_ids() {
    let text = r#" {"batch" : [ {"type":"track","messageId":"m1","anonymousId":null,"userId":7,"properties":{"a":[1,{"b":"]}"}]}} ,
        {"type":"alias","previousId":"p\"q","userId":"u","sentAt":"2026-01-01T00:00:00Z"}, 5 ],
        "sentAt":"2026-01-02T00:00:00Z","writeKey":"k","context":{"ip":"1.2.3.4"},"integrations":{},"historical":true} "#;
    let batch = batch(text, 10).expect("a batch");
    assert_eq!(batch.items.len(), 3);
    assert_eq!(batch.items[0].user_id.and_then(Raw::id).as_deref(), Some("7"));
    assert_eq!(batch.items[0].anonymous_id.and_then(Raw::id), None);
    assert!(batch.items[0].body.ends_with(r#"{"b":"]}"}]}}"#));
    assert_eq!(batch.items[1].previous_id.and_then(Raw::id).as_deref(), Some("p\"q"));
    assert_eq!(batch.items[2], Item { body: "5", ..Item::default() });
    assert_eq!(batch.context, Some(Raw(r#"{"ip":"1.2.3.4"}"#)));
    assert_eq!(batch.write_key.and_then(Raw::id).as_deref(), Some("k"));
    assert!(batch.historical);
}

#[test]
fn refuses_what_has_no_structure() {
    let cases: &[(&str, Error)] = &[
        ("", Error::Empty),
        ("  ", Error::Empty),
        ("[]", Error::NotAnObject),
        ("hello", Error::NotAnObject),
        ("{}", Error::NoBatch),
        (r#"{"batch":{}}"#, Error::NoBatch),
        (r#"{"batch":[{}"#, Error::Broken { at: 12 }),
        (r#"{"batch":[{]}"#, Error::Broken { at: 11 }),
        (r#"{"batch":[]} x"#, Error::Broken { at: 13 }),
        (r#"{"batch":[],}"#, Error::Broken { at: 12 }),
        (r#"{"batch":[{"a":"unclosed]}"#, Error::Broken { at: 26 }),
        (r#"{"batch":[1,2,3,4]}"#, Error::TooMany { max: 3 }),
    ];
    for (text, error) in cases {
        assert_eq!(batch(text, 3), Err(*error), "{text}");
    }
}

#[test]
fn leaves_the_judgement_of_an_event_to_intake() {
    for event in [r#"{"a":NaN}"#, r#"{"a":-Infinity}"#, "{\"a\":\"raw\ttab\"}", r#"{"a":"\ud800"}"#, "null", r#""text""#, "[[]]"] {
        let text = format!(r#"{{"batch":[{event}]}}"#);
        assert_eq!(batch(&text, 3).expect(event).items[0].body, event);
    }
}

#[test]
fn a_tower_of_brackets_is_refused_and_not_climbed() {
    let text = format!(r#"{{"a":{}"#, "[".repeat(1_000_000));
    assert_eq!(single(&text), Err(Error::TooDeep { at: 5 + 128 }));
    let fits = format!(r#"{{"a":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    assert!(single(&fits).is_ok());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever serde_json writes, each element comes out as the bytes that went in.
    #[test]
    fn splits_any_batch_where_serde_json_does(items in prop::collection::vec(json(), 0..6), pretty: bool) {
        let value = serde_json::json!({"context": {"x": [1, "]"]}, "batch": items});
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("writes");
        let batch = batch(&text, 10).expect("a batch");
        prop_assert_eq!(batch.items.len(), items.len());
        for (found, item) in batch.items.iter().zip(&items) {
            let parsed: serde_json::Value = serde_json::from_str(found.body).expect("an element parses alone");
            prop_assert_eq!(&parsed, item);
        }
    }

    /// Arbitrary bytes never panic, and what serde_json takes as an object is taken.
    #[test]
    fn never_panics(text in ".{0,200}") {
        let found = single(&text);
        if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok() {
            prop_assert!(found.is_ok());
        }
    }
}
