//! Expressions against a fixture: outcomes, refusals, flips, and agreement with the `cel` crate's interpreter.

use std::sync::Arc;

use proptest::prelude::*;

use super::compile;
use super::fixture::{Fixture, Id, Person, Trait};
use super::predicate::Predicate;
use crate::domain::{DAY_MS, HOUR_MS, Millis};

const NOW: Millis = Millis(1_700_000_000_000);

fn predicate(text: &str) -> Predicate<Id> {
    compile(text, &Fixture).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn buyer() -> Person {
    Person {
        ints: [("orders", 3)].into(),
        floats: [("revenue", 120.3)].into(),
        texts: [("country", "Österreich".to_owned())].into(),
        bools: [("known_buyer", true)].into(),
        last_event_at: Some(NOW - 10 * DAY_MS),
        last_order_at: None,
        counted: vec![NOW - 20 * DAY_MS, NOW - 5 * DAY_MS, NOW - HOUR_MS],
        traits: [
            ("plan".to_owned(), Trait::Text("pro".to_owned())),
            ("seats".to_owned(), Trait::Float(12.0)),
            ("vip".to_owned(), Trait::Bool(true)),
        ]
        .into(),
    }
}

#[test]
fn expressions_hold_fail_or_stay_unknown() {
    let cases = [
        ("true", Some(true)),
        ("orders >= 3 && revenue > 120", Some(true)),
        ("revenue == 120.3", Some(true)),
        ("orders > 2.5", Some(true)),
        ("orders == 3.0", Some(true)),
        ("revenue / double(orders) > 40.0", Some(true)),
        ("orders % 2 == 1 ? known_buyer : false", Some(true)),
        ("orders in [1, 2, 3]", Some(true)),
        ("revenue in [1.5, 120.3]", Some(true)),
        ("country in [\"Suisse\", \"Österreich\"]", Some(true)),
        ("!(country in [\"Suisse\"])", Some(true)),
        ("size(country) == 10 && country.size() == 10", Some(true)),
        ("country.startsWith(\"Öst\") && country.contains(\"rr\") && !country.endsWith(\"x\")", Some(true)),
        ("profile.orders == 3", Some(true)),
        ("days_since_last_event == 10", Some(true)),
        ("now - last_event_at >= duration(\"10d\")", Some(true)),
        ("last_event_at > timestamp(\"2023-01-01\")", Some(true)),
        ("last_event_at + duration(\"10d\") == now", Some(true)),
        ("count(\"Order Completed\", \"30d\") == 3", Some(true)),
        ("count(\"Order Completed\", \"7d\") == 2", Some(true)),
        ("traits.plan == \"pro\" && traits.seats > 10 && traits[\"vip\"]", Some(true)),
        ("traits.plan in [\"pro\", \"team\"] && traits.seats in [12]", Some(true)),
        ("has(traits.plan) && !has(traits.nothing)", Some(true)),
        ("has(profile.last_event_at) && !has(profile.last_order_at)", Some(true)),
        // What is absent makes a comparison unknown, which only a deciding side hides.
        ("traits.seats == \"twelve\"", None),
        ("now - last_order_at > duration(\"1d\")", None),
        ("!(last_order_at > timestamp(\"2023-01-01\"))", None),
        ("last_order_at == now && orders == 0", Some(false)),
        ("last_order_at == now || orders == 3", Some(true)),
        ("last_order_at == now && orders == 3", None),
        ("orders / 0 == 1", None),
        ("orders * 9223372036854775807 > 0", None),
        ("-orders < 0 && -revenue < 0.0 && 1 - -1 == 2", Some(true)),
        ("known_buyer == (orders > 0)", Some(true)),
    ];
    for (text, outcome) in cases {
        assert_eq!(predicate(text).try_evaluate(&buyer(), NOW), outcome, "{text}");
        assert_eq!(predicate(text).evaluate(&buyer(), NOW), outcome == Some(true), "{text}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_a_hint() {
    let cases = [
        ("ordres > 1", "1:1 unknown field `ordres` (hint: did you mean `orders`?)"),
        (
            "orders > 1 &&\n  weather == 2",
            "2:3 unknown field `weather` (hint: docs/features.md lists all fields; a trait of your own is `traits.name`)",
        ),
        ("orders", "1:1 a condition is needed here, this is an int (hint: compare it: `.. > 0`)"),
        ("country > 3", "1:9 cannot compare string with int (hint: leave out the quotes around the number)"),
        ("country == \"Österreich\" && revnue > 1.0", "1:28 unknown field `revnue` (hint: did you mean `revenue`?)"),
        ("last_event_at > \"2023\"", "1:15 cannot compare timestamp with string (hint: write the time as `timestamp(\"2024-03-01\")`)"),
        ("now - last_event_at > 60", "1:21 cannot compare duration with int (hint: write the length of time as `duration(\"60d\")`)"),
        ("last_event_at > duration(\"60d\")", "1:15 cannot compare timestamp with duration (hint: how long ago it was is `now - field`)"),
        ("now - last_event_at > duration(\"60\")", "1:32 \"60\" is not a length of time (hint: write `60d`, `12h`, `1h30m` or `45s`)"),
        (
            "revenue * 2 > 1.0",
            "1:9 arithmetic takes two ints or two doubles, not one of each (hint: write a literal as `2.0`, or convert a field with `double(..)`)",
        ),
        (
            "[1, 2].exists(x, x > orders)",
            "1:14 comprehensions (all, exists, exists_one, map, filter) are not taken: maps have no order to run through (hint: compare fields one by one with `&&` and `||`, or use `x in [..]`)",
        ),
        (
            "country.matches(\"a+\")",
            "1:16 regular expressions are not taken: their time has no bound (hint: use `contains`, `startsWith` or `endsWith`)",
        ),
        ("cuont(\"x\", \"30d\") > 1", "1:6 unknown function `cuont` (hint: did you mean `count(..)`?)"),
        ("count(\"x\") > 1", "1:6 `count` takes an event's name and a window"),
        ("count(country, \"30d\") > 1", "1:6 `count` takes text literals only, so that what it reads is known before it runs"),
        ("count > 1", "1:1 unknown field `count` (hint: `count` is a function: write `count(..)`)"),
        (
            "orders.total > 1",
            "1:7 `.total` does not exist: fields have no parts (hint: write the field's name alone, or `traits.name` for a trait of your own)",
        ),
        ("orders == null", "1:11 null is not taken (hint: ask with `has(profile.field)` or `has(traits.name)`)"),
        ("orders = 3", "1:8 not a CEL expression: token recognition error at: '= ' (hint: CEL compares with `==`)"),
        ("orders > 1 and revenue > 1", "1:12 not a CEL expression: mismatched input 'and' (hint: CEL writes `&&`, `||` and `!`)"),
        (
            "has(orders)",
            "1:5 not a CEL expression: invalid argument to has() macro (hint: write `has(profile.last_order_at)` or `has(traits.plan)`)",
        ),
        ("traits.a == traits.b", "1:10 two traits: their types are not known (hint: compare each with a literal or a field)"),
        ("", "1:1 the expression is empty (hint: `true` is everyone)"),
    ];
    for (text, expected) in cases {
        let error = compile(text, &Fixture).expect_err(text);
        let (line, column) = error.line_column(text);
        assert_eq!(format!("{line}:{column} {error}"), expected, "{text}");
    }
}

#[test]
fn an_expression_knows_the_groups_it_depends_on() {
    let cases = [("true", 0), ("orders > 1", 1), ("orders > 1 && traits.plan == \"pro\"", 33), ("now > timestamp(\"2024-01-01\")", 0)];
    for (text, groups) in cases {
        assert_eq!(predicate(text).depends_on(), groups, "{text}");
    }
}

#[test]
fn a_flip_is_found_where_it_is_and_nobody_is_woken_in_vain() {
    let last = NOW - 10 * DAY_MS;
    let cases = [
        ("days_since_last_event >= 60", Some(last + 60 * DAY_MS)),
        ("days_since_last_event >= 60.0", Some(last + 60 * DAY_MS)),
        ("60 <= days_since_last_event", Some(last + 60 * DAY_MS)),
        ("days_since_last_event > 60", Some(last + 61 * DAY_MS)),
        ("days_since_last_event < 60", Some(last + 60 * DAY_MS)),
        ("days_since_last_event == 60", Some(last + 60 * DAY_MS)),
        ("days_since_last_event == 10", Some(last + 11 * DAY_MS)),
        ("days_since_last_event != 60", Some(last + 60 * DAY_MS)),
        ("days_since_last_event >= 5", None),
        ("days_since_last_event < 5", None),
        ("now - last_event_at >= duration(\"60d\")", Some(last + 60 * DAY_MS)),
        ("now - last_event_at > duration(\"60d\")", Some(last + 60 * DAY_MS + 1)),
        ("last_event_at + duration(\"60d\") <= now", Some(last + 60 * DAY_MS)),
        ("last_event_at < now - duration(\"60d\")", Some(last + 60 * DAY_MS + 1)),
        ("now - last_order_at >= duration(\"60d\")", None),
        ("now >= timestamp(\"2030-01-01\")", Some(Millis::parse("2030-01-01T00:00:00Z").unwrap())),
        ("now - last_event_at > now - timestamp(\"2020-01-01\")", None),
        // Hidden behind a side that stays as it is.
        ("orders > 5 && days_since_last_event >= 60", None),
        ("orders > 1 && days_since_last_event >= 60", Some(last + 60 * DAY_MS)),
        ("orders > 1 || days_since_last_event >= 60", None),
        ("!(orders > 5 || days_since_last_event >= 60)", Some(last + 60 * DAY_MS)),
        // Windows only fall.
        ("count(\"x\", \"30d\") >= 4", None),
        ("count(\"x\", \"30d\") < 4", None),
        ("count(\"x\", \"30d\") >= 3", Some((NOW + 10 * DAY_MS).floor_to(HOUR_MS) + HOUR_MS)),
        ("count(\"x\", \"30d\") >= 2", Some((NOW + 25 * DAY_MS).floor_to(HOUR_MS) + HOUR_MS)),
        ("count(\"x\", \"30d\") == 0", Some((NOW + 30 * DAY_MS - HOUR_MS).floor_to(HOUR_MS) + HOUR_MS)),
        ("revenue_30d > 20.0", Some((NOW + 10 * DAY_MS).floor_to(HOUR_MS) + HOUR_MS)),
        ("revenue_30d > 50.0", None),
        // So does silence rise, searched in leaps.
        ("silence >= 0.6", Some(last + 60 * DAY_MS)),
        ("0.6 > silence", Some(last + 60 * DAY_MS)),
        ("silence == 0.55", Some(last + 55 * DAY_MS)),
        ("silence >= 0.05", None),
        ("silence > 1.0", None),
        ("orders > 5 && silence >= 0.6", None),
        // Scores are asked about again at each change, not looked ahead with.
        ("churn > 0.5", Some(last + 11 * DAY_MS)),
        ("orders > 1", None),
        ("traits.plan == \"pro\"", None),
    ];
    for (text, flip) in cases {
        assert_eq!(predicate(text).next_flip(&buyer(), NOW), flip, "{text}");
    }
}

/// Expressions over the fixture's names, well typed by construction, with absent values, overflow and division by zero on purpose.
mod arbitrary {
    use super::*;

    pub(super) fn int(depth: u32) -> BoxedStrategy<String> {
        let leaf = prop_oneof![
            (-5i64..100).prop_map(|value| value.to_string()),
            Just("orders".to_owned()),
            Just("days_since_last_event".to_owned()),
            Just("count(\"x\", \"30d\")".to_owned()),
            Just("count(\"x\", \"7d\")".to_owned()),
            Just("9223372036854775807".to_owned()),
        ];
        if depth == 0 {
            return leaf.boxed();
        }
        let operator = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")];
        prop_oneof![
            4 => leaf,
            2 => (int(depth - 1), operator, int(depth - 1)).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            1 => int(depth - 1).prop_map(|inner| format!("-({inner})")),
            1 => (condition(depth - 1), int(depth - 1), int(depth - 1)).prop_map(|(c, l, r)| format!("({c} ? {l} : {r})")),
            1 => text().prop_map(|inner| format!("size({inner})")),
            1 => float(depth - 1).prop_map(|inner| format!("int({inner})")),
        ]
        .boxed()
    }

    fn float(depth: u32) -> BoxedStrategy<String> {
        let leaf = prop_oneof![
            (-50i32..1300).prop_map(|tenths| format!("{:.1}", f64::from(tenths) / 10.0)),
            Just("revenue".to_owned()),
            Just("revenue_30d".to_owned()),
            Just("silence".to_owned()),
        ];
        if depth == 0 {
            return leaf.boxed();
        }
        let operator = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/")];
        prop_oneof![
            4 => leaf,
            2 => (float(depth - 1), operator, float(depth - 1)).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            1 => int(depth - 1).prop_map(|inner| format!("double({inner})")),
        ]
        .boxed()
    }

    fn text() -> BoxedStrategy<String> {
        prop_oneof![Just("country".to_owned()), Just("\"at\"".to_owned()), Just("\"Österreich\"".to_owned()), Just("\"\"".to_owned())]
            .boxed()
    }

    fn moment() -> BoxedStrategy<String> {
        prop_oneof![
            Just("now".to_owned()),
            Just("last_event_at".to_owned()),
            Just("last_order_at".to_owned()),
            (1i64..60).prop_map(|days| format!("(now - duration(\"{days}d\"))")),
            (1i64..60).prop_map(|days| format!("(last_event_at + duration(\"{days}d\"))")),
        ]
        .boxed()
    }

    pub(super) fn condition(depth: u32) -> BoxedStrategy<String> {
        let comparison = prop_oneof![Just("<"), Just("<="), Just(">"), Just(">="), Just("=="), Just("!=")];
        let depth_below = depth.saturating_sub(1);
        let leaf = prop_oneof![
            3 => (int(depth_below), comparison.clone(), int(depth_below)).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            2 => (float(depth_below), comparison.clone(), float(depth_below)).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            1 => (int(depth_below), comparison.clone(), float(depth_below)).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            1 => (text(), comparison.clone(), text()).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            2 => (moment(), comparison, moment()).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            1 => (text(), text()).prop_map(|(l, r)| format!("{l}.contains({r})")),
            1 => int(depth_below).prop_map(|inner| format!("({inner} in [0, 1, 3, 10])")),
            1 => text().prop_map(|inner| format!("({inner} in [\"at\", \"de\", \"Österreich\"])")),
            1 => Just("known_buyer".to_owned()),
            1 => Just("has(profile.country)".to_owned()),
            1 => Just("true".to_owned()),
        ];
        if depth == 0 {
            return leaf.boxed();
        }
        prop_oneof![
            2 => leaf,
            2 => (condition(depth - 1), condition(depth - 1)).prop_map(|(l, r)| format!("({l} && {r})")),
            2 => (condition(depth - 1), condition(depth - 1)).prop_map(|(l, r)| format!("({l} || {r})")),
            1 => condition(depth - 1).prop_map(|inner| format!("!({inner})")),
            1 => (condition(depth - 1), condition(depth - 1), condition(depth - 1)).prop_map(|(c, l, r)| format!("({c} ? {l} : {r})")),
        ]
        .boxed()
    }

    pub(super) fn person() -> impl Strategy<Value = Person> {
        let country = prop_oneof![Just("at".to_owned()), Just("Österreich".to_owned())];
        let ago = || 0i64..80 * 24;
        (
            proptest::option::of(0i64..12),
            proptest::option::of((0i32..1300).prop_map(|tenths| f64::from(tenths) / 10.0)),
            proptest::option::of(country),
            proptest::option::of(any::<bool>()),
            proptest::option::of(ago()),
            proptest::option::of(ago()),
            proptest::collection::vec(0i64..30 * 24, 0..6),
        )
            .prop_map(|(orders, revenue, country, known_buyer, last_event, last_order, counted)| Person {
                ints: orders.map(|value| ("orders", value)).into_iter().collect(),
                floats: revenue.map(|value| ("revenue", value)).into_iter().collect(),
                texts: country.map(|value| ("country", value)).into_iter().collect(),
                bools: known_buyer.map(|value| ("known_buyer", value)).into_iter().collect(),
                last_event_at: last_event.map(|hours| NOW - hours * HOUR_MS - 1),
                last_order_at: last_order.map(|hours| NOW - hours * HOUR_MS),
                counted: counted.into_iter().map(|hours| NOW - hours * HOUR_MS).collect(),
                traits: Default::default(),
            })
    }
}

/// The `cel` crate's answer, absent fields being undeclared; times are milliseconds to it.
fn reference(text: &str, person: &Person, now: Millis) -> Option<bool> {
    use super::catalog::{Lookup, Value};
    let mut context = cel::Context::default();
    let mut present = std::collections::HashMap::<String, cel::Value>::new();
    for (name, ..) in super::fixture::FIELDS {
        let value = match person.value(&Id::Named(name), now) {
            Value::Absent => continue,
            Value::Bool(value) => cel::Value::Bool(value),
            Value::Int(value) => cel::Value::Int(value),
            Value::Float(value) => cel::Value::Float(value),
            Value::Text(value) => cel::Value::String(Arc::new(value.into_owned())),
            Value::Time(time) => cel::Value::Int(time.0),
        };
        context.add_variable_from_value(name, value.clone());
        present.insert(name.to_owned(), value);
    }
    context.add_variable_from_value("now", now.0);
    context.add_variable_from_value("profile", present);
    context.add_function("duration", |text: Arc<String>| super::duration_ms(&text).unwrap()).unwrap();
    let counted = person.clone();
    let count = move |event: Arc<String>, window: Arc<String>| {
        let days = window.trim_end_matches('d').parse().unwrap();
        match counted.value(&Id::Count(event.to_string(), days), now) {
            Value::Int(value) => value,
            other => panic!("a count is an int, not {other:?}"),
        }
    };
    context.add_function("count", count).unwrap();
    let program = cel::Program::compile(text).unwrap();
    match program.execute(&context) {
        Ok(cel::Value::Bool(value)) => Some(value),
        Ok(other) => panic!("{text} gave {other:?}"),
        Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_cel_crate_agrees_on_any_expression_and_person(text in arbitrary::condition(3), person in arbitrary::person()) {
        prop_assert_eq!(predicate(&text).try_evaluate(&person, NOW), reference(&text, &person, NOW), "{}", text);
    }

    #[test]
    fn a_flip_is_never_missed(text in arbitrary::condition(2), person in arbitrary::person()) {
        let predicate = predicate(&text);
        let before = predicate.evaluate(&person, NOW);
        let end = NOW + 100 * DAY_MS;
        let asked = predicate.next_flip(&person, NOW);
        for horizon in [NOW + 1, NOW + crate::domain::HOUR_MS, NOW + 3 * crate::domain::DAY_MS, NOW + 90 * crate::domain::DAY_MS] {
            let by = predicate.next_flip_by(&person, NOW, horizon);
            prop_assert_eq!(by, asked.filter(|at| *at <= horizon), "a horizon changes nothing before it");
        }
        let (now, quiet) = predicate.evaluate_until(&person, NOW);
        prop_assert!(now == before && quiet > NOW && asked.is_none_or(|at| at >= quiet), "{} flips at {:?}, quiet until {}", text, asked, quiet);
        prop_assert!(asked.is_none_or(|at| at > NOW));
        // Everything in the fixture moves on hours or on the last event's own millisecond of a day.
        let quiet_until = asked.unwrap_or(end).min(end);
        let mut at = NOW;
        while at < quiet_until {
            prop_assert_eq!(predicate.evaluate(&person, at), before, "{} flips at {} and the wake is {:?}", text, at, asked);
            at = at.floor_to(HOUR_MS) + HOUR_MS;
        }
        prop_assert_eq!(predicate.evaluate(&person, quiet_until - 1), before, "{} flips before {:?}", text, asked);
    }
}
