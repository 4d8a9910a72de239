//! What must hold for a profile as a whole: order does not matter, merging commutes with folding, bytes come back, values change
//! only when promised, and the bounds hold.

use proptest::prelude::*;

use super::*;
use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS};

const START: i64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
struct Owned {
    kind: &'static str,
    name: String,
    time: i64,
    properties: String,
    context: String,
}

impl Owned {
    fn raw(&self) -> RawEvent<'_> {
        RawEvent { kind: self.kind, name: &self.name, event_time: self.time, properties: &self.properties, context: &self.context }
    }
}

fn rules() -> Rules {
    let toml = r#"
        [[funnels]]
        name = "checkout"
        steps = ["Product Viewed", "Product Added", "Order Completed"]
        within_hours = 48
    "#;
    Rules::compile(toml::from_str(toml).unwrap()).unwrap()
}

fn fold(events: &[Owned], rules: &Rules) -> Profile {
    let mut profile = Profile::default();
    for event in events {
        let _ = profile.observe(&extract(&event.raw(), rules), rules);
    }
    profile
}

fn bytes(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    profile.encode(&mut out);
    out
}

fn event(span_ms: i64) -> impl Strategy<Value = Owned> {
    let time = prop_oneof![0..span_ms, (0..span_ms / (20 * MINUTE_MS) + 1).prop_map(|n| n * 20 * MINUTE_MS)];
    (time, 0..12u8, 0..6u32, 0..400u32).prop_map(|(time, what, which, number)| {
        let product = format!(r#"{{"product_id":"p{number}","category":"c{which}","sku":7}}"#);
        let (kind, name, properties, context) = match what {
            0 | 1 => (
                "track",
                "Order Completed",
                format!(r#"{{"total":{number}.25,"currency":"{}","products":[{product}]}}"#, ["USD", "EUR"][which as usize % 2]),
                "",
            ),
            2 | 3 => ("track", "Product Viewed", product, ""),
            4 => ("track", "Product Added", product, r#"{"timezone":"Asia/Kolkata","library":{"name":"x"}}"#),
            5 => ("identify", "", format!(r#"{{"plan":"{which}","timezone":"Europe/Berlin","n":{number}}}"#), ""),
            6 => ("group", "", format!(r#"{{"industry":"i{which}"}}"#), ""),
            7 => ("page", "Home", String::new(), r#"{"campaign":{"source":"news","name":"may"},"page":{"url":"https://a.b/"}}"#),
            8 => ("page", "Home", String::new(), r#"{"page":{"referrer":"https://search.example/?q=1","url":"https://a.b/"}}"#),
            9 => ("track", "Email Opened", String::new(), ""),
            10 => ("track", "Email Sent", String::new(), ""),
            _ => ("track", ["A", "B", "C", "D", "E", "F"][which as usize], String::new(), ""),
        };
        Owned { kind, name: name.to_owned(), time: START + time, properties, context: context.to_owned() }
    })
}

fn events(span_ms: i64, count: usize) -> impl Strategy<Value = Vec<Owned>> {
    prop::collection::vec(event(span_ms), 0..count)
}

fn span() -> impl Strategy<Value = i64> {
    prop_oneof![Just(3 * HOUR_MS), Just(3 * DAY_MS), Just(40 * DAY_MS), Just(200 * DAY_MS)]
}

/// Everything but the sessions, which are sums only beyond 32.
fn but_sessions(mut profile: Profile) -> Vec<u8> {
    profile.sessions = Default::default();
    bytes(&profile)
}

fn by_time(mut events: Vec<Owned>) -> Vec<Owned> {
    events.sort_by_key(|event| event.time);
    events
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(events in span().prop_flat_map(|span| events(span, 32)).prop_shuffle()) {
        let rules = rules();
        prop_assert_eq!(bytes(&fold(&events, &rules)), bytes(&fold(&by_time(events), &rules)));
    }

    #[test]
    fn merging_commutes_with_folding((a, b) in span().prop_flat_map(|span| (events(span, 16), events(span, 16)))) {
        let rules = rules();
        let mut merged = fold(&a, &rules);
        let _ = merged.absorb(&fold(&b, &rules), &rules);
        let mut other_way = fold(&b, &rules);
        let _ = other_way.absorb(&fold(&a, &rules), &rules);
        let folded = fold(&by_time([a, b].concat()), &rules);
        prop_assert_eq!(bytes(&merged), bytes(&folded));
        prop_assert_eq!(bytes(&other_way), bytes(&folded));
    }

    #[test]
    fn merging_long_histories_commutes_but_for_old_sessions((a, b) in span().prop_flat_map(|span| (events(span, 150), events(span, 150)))) {
        let rules = rules();
        // Days of purchase beyond 96 are a count, like old sessions: fewer orders here.
        let thin = |events: Vec<Owned>| -> Vec<Owned> {
            let mut orders = 0;
            let mut keep = |event: &Owned| { orders += usize::from(event.name == "Order Completed"); event.name != "Order Completed" || orders <= 32 };
            events.into_iter().filter(|event| keep(event)).collect()
        };
        let (a, b) = (by_time(thin(a)), by_time(thin(b)));
        let mut merged = fold(&a, &rules);
        let _ = merged.absorb(&fold(&b, &rules), &rules);
        prop_assert_eq!(but_sessions(merged), but_sessions(fold(&by_time([a, b].concat()), &rules)));
    }

    #[test]
    fn bytes_come_back_and_are_canonical(events in span().prop_flat_map(|span| events(span, 200)), woken in prop::option::of(0..DAY_MS)) {
        let rules = rules();
        let mut profile = fold(&events, &rules);
        if let Some(woken) = woken {
            profile.wake(Millis(START + woken));
        }
        let first = bytes(&profile);
        let back = Profile::decode(&first).unwrap();
        prop_assert_eq!(&back, &profile);
        prop_assert_eq!(bytes(&back), first);
    }

    #[test]
    fn broken_bytes_are_an_error_or_a_profile_that_works(events in events(DAY_MS, 40), at in 0usize..2000, with: u8, cut in 0usize..4000) {
        let rules = rules();
        let mut broken = bytes(&fold(&events, &rules));
        let at = at % broken.len();
        broken[at] = with;
        broken.truncate(cut.max(1));
        if let Ok(mut profile) = Profile::decode(&broken) {
            let again = bytes(&profile);
            prop_assert_eq!(bytes(&Profile::decode(&again).unwrap()), again);
            for def in FIELDS {
                let _ = profile.value(&FieldId::Named(def.field), Millis(START), &rules);
                let _ = profile.next_change(&FieldId::Named(def.field), Millis(START), &rules);
            }
            let other = fold(&events, &rules);
            let _ = profile.absorb(&other, &rules);
            let _ = profile.observe(&extract(&RawEvent { kind: "track", name: "A", event_time: START, ..Default::default() }, &rules), &rules);
        }
    }

    #[test]
    fn values_change_by_time_only_when_promised(events in span().prop_flat_map(|span| events(span, 60)), ahead in prop_oneof![0..DAY_MS, 0..100 * DAY_MS]) {
        let rules = rules();
        let profile = fold(&events, &rules);
        let Some(newest) = profile.now() else { return Ok(()) };
        let now = newest + ahead;
        let counts = Window::ALL.map(|window| FieldId::EventCount { event: "Product Viewed".into(), window: Some(window) });
        let named = FIELDS.iter().map(|def| FieldId::Named(def.field));
        for field in named.chain(counts).chain([FieldId::Funnel("checkout".into())]) {
            let value = profile.value(&field, now, &rules);
            let next = profile.next_change(&field, now, &rules);
            let until = next.unwrap_or(now + 400 * DAY_MS);
            prop_assert!(until > now);
            for part in [1, 300, 700, 999, 1000] {
                let at = now + (until.since_ms(now) - 1) * part / 1000;
                prop_assert_eq!(&profile.value(&field, at, &rules), &value, "{:?} from {} at {}", field, now, at);
            }
            if let Some((origin, unit)) = profile.grows_from(&field) {
                prop_assert_eq!(value, Value::Int(now.since_ms(origin) / unit));
            }
        }
    }

    #[test]
    fn windows_hold_what_the_definition_says(events in span().prop_flat_map(|span| events(span, 100)), ahead in 0..3 * DAY_MS) {
        let rules = rules();
        let profile = fold(&events, &rules);
        let Some(newest) = profile.now() else { return Ok(()) };
        let now = newest + ahead;
        for window in Window::ALL {
            let (width, bins) = window.bins();
            let first = now.0.div_euclid(width) - bins;
            let expected = events.iter().filter(|event| event.name == "Product Viewed" && event.time.div_euclid(width) > first).count();
            prop_assert_eq!(profile.event_count("Product Viewed", Some(window), now), expected as u64, "{:?}", window);
        }
    }
}

#[test]
fn a_late_event_that_joins_two_sessions_is_reported() {
    let rules = rules();
    let at = |minutes: i64| Owned {
        kind: "track",
        name: "A".into(),
        time: START + minutes * MINUTE_MS,
        properties: String::new(),
        context: String::new(),
    };
    let mut profile = fold(&[at(0), at(40)], &rules);
    assert_eq!(profile.sessions().len(), 2);
    let touched = profile.observe(&extract(&at(20).raw(), &rules), &rules);
    let joined = Joined { first_start: Millis(START), second_start: Millis(START + 40 * MINUTE_MS) };
    assert_eq!((touched.late, touched.joined), (true, Some(joined)));
    assert_eq!(profile.sessions(), [Session { start: Millis(START), end: Millis(START + 40 * MINUTE_MS), events: 3 }]);
}

#[test]
fn the_funnel_follows_the_last_acts() {
    let rules = rules();
    let steps = |names: &[(&str, i64)], now_hours: i64| {
        let events: Vec<Owned> = names
            .iter()
            .map(|(name, hours)| Owned {
                kind: "track",
                name: (*name).into(),
                time: START + hours * HOUR_MS,
                properties: String::new(),
                context: String::new(),
            })
            .collect();
        fold(&events, &rules).funnel_steps("checkout", Millis(START + now_hours * HOUR_MS), &rules)
    };
    let (view, add, buy) = ("Product Viewed", "Product Added", "Order Completed");
    assert_eq!(steps(&[(add, 0), (buy, 1)], 1), 0, "steps count in order only");
    assert_eq!(steps(&[(view, 0), (add, 1), (view, 2)], 2), 2, "looking further does not lose the basket");
    assert_eq!(steps(&[(view, 0), (add, 1)], 48), 2);
    assert_eq!(steps(&[(view, 0), (add, 1)], 49), 0, "the time is up");
    assert_eq!(steps(&[(view, 0), (add, 1), (buy, 2)], 3), 3);
    assert_eq!(steps(&[(view, 0), (add, 1), (buy, 2), (view, 3)], 3), 1, "a new round");
    assert_eq!(steps(&[(view, 0), (add, 49)], 49), 0, "the first step is too old");
}

#[test]
fn the_preferred_hour_is_local() {
    let rules = rules();
    // 2023-11-14 22:13 UTC, a Tuesday: Wednesday 03:43 in Kolkata.
    let at = |context: &str| {
        let event = Owned { kind: "track", name: "A".into(), time: START, properties: String::new(), context: context.into() };
        let profile = fold(&[event], &rules);
        let value = |field| match profile.value(&FieldId::Named(field), Millis(START), &rules) {
            Value::Int(value) => value,
            other => panic!("{other:?}"),
        };
        (value(Field::PreferredHour), value(Field::PreferredWeekday))
    };
    assert_eq!(at(""), (22, 2));
    assert_eq!(at(r#"{"timezone":"Asia/Kolkata"}"#), (4, 3));
    assert_eq!(at(r#"{"timezone":"Mars/Olympus"}"#), (22, 2));
}

#[test]
fn the_fullest_profile_keeps_within_its_bytes() {
    let rules = rules();
    let mut profile = Profile::default();
    let mut most = 0;
    let names: Vec<String> = (0..60).map(|n| format!("An event with a long name, number {n:<30}")).collect();
    let long = "x".repeat(60);
    for step in 0..60_000i64 {
        let time = START + step * 7 * MINUTE_MS / 2;
        let name = if step % 61 == 0 { "Order Completed" } else { &names[(step * 7919 % 60) as usize] };
        let properties = format!(
            r#"{{"product_id":"p{step}","category":"c{step}","total":123456.789123,"currency":"{}"}}"#,
            ["USD", "EUR", "GBP", "JPY", "CHF", "SEK", "NOK", "DKK", "PLN", "CZK"][(step % 10) as usize]
        );
        let context = format!(
            r#"{{"timezone":"America/Argentina/ComodRivadavia","campaign":{{"source":"{step}{long}","medium":"{long}","name":"{long}","content":"{long}"}},"page":{{"referrer":"https://{step}{long}/"}}}}"#
        );
        let raw = RawEvent { kind: "track", name, event_time: time, properties: &properties, context: &context };
        let _ = profile.observe(&extract(&raw, &rules), &rules);
        let traits = format!(r#"{{"trait {step}":"{long}"}}"#);
        let identify = RawEvent { kind: "identify", name: "", event_time: time, properties: &traits, context: "" };
        let _ = profile.observe(&extract(&identify, &rules), &rules);
        let reaction = RawEvent { kind: "track", name: "Email Opened", event_time: time, ..RawEvent::default() };
        let _ = profile.observe(&extract(&reaction, &rules), &rules);
        if step % 500 == 0 {
            most = most.max(bytes(&profile).len());
        }
    }
    assert!(most <= PROFILE_BYTES_MAX, "{most} bytes");
    assert!(most > PROFILE_BYTES_MAX / 2, "{most} bytes: the test no longer fills a profile");
    assert!(profile.event_types().count() <= TYPES_MAX + 1);
    assert!(profile.event_count("Order Completed", None, Millis(START)) > 900, "declared events keep a counter of their own");
}

#[test]
fn a_trait_whose_name_came_in_escapes_is_the_same_trait() {
    let rules = rules();
    let identify = |name: &str, time: i64| Owned {
        kind: "identify",
        name: String::new(),
        time: START + time,
        properties: format!(r#"{{"{name}":{time}}}"#),
        context: String::new(),
    };
    let profile = fold(&[identify("größe", 1), identify(r"gr\u00f6\u00dfe", 2)], &rules);
    assert_eq!(profile.traits().collect::<Vec<_>>(), [("größe", "2")]);
}
