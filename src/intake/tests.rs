//! What becomes of records: refusals with their reasons, times, filters, and the ties of one key through a history.

use proptest::prelude::*;

use super::*;
use crate::domain::{DeadReason, FilterReason};

const NOW: Millis = Millis(1_795_341_600_000);

fn rules(settings: &str, clock: Clock) -> Rules {
    Rules::new(&toml::from_str(settings).unwrap(), clock).unwrap()
}

/// The event under its own key, received at [`NOW`].
fn item<'a>(key: &'a Subject, body: &'a str) -> Item<'a> {
    Item {
        key_id: key.id(),
        key_is_user: key.is_user(),
        source: "web",
        message_id: "m",
        received_at: NOW,
        sent_at: None,
        route: "",
        remote_ip: "203.0.113.9",
        user_agent: "",
        historical: false,
        body,
        batch: "",
    }
}

fn fresh(body: &str, rules: &Rules) -> (Outcome, String) {
    let key = key_of(body, "").unwrap_or(Subject::anonymous("nobody"));
    let decision = decide(&mut KeyState::default(), &item(&key, body), Seen::No, rules);
    assert_eq!(decision.outcome == Outcome::Applied, decision.detail.is_empty(), "{decision:?}");
    assert_eq!(decision.outcome == Outcome::Applied, !decision.outputs.is_empty(), "{decision:?}");
    (decision.outcome, decision.detail.into_owned())
}

#[track_caller]
fn refused(body: &str, reason: DeadReason, says: &str) {
    let (outcome, detail) = fresh(body, &rules("", Clock::Wall));
    assert_eq!(outcome, Outcome::DeadLettered(reason), "{body}: {detail}");
    assert!(detail.contains(says), "{detail:?} does not say {says:?}");
}

#[test]
fn what_cannot_be_applied_says_why_and_what_to_do() {
    use DeadReason::*;
    refused("", Malformed, "not JSON");
    refused("[1]", Malformed, "send a JSON object");
    refused(r#"{"type":"track","event":"E","userId":"u","properties":{"price":NaN}}"#, Malformed, "column");
    refused(r#"{"type":"track","event":"E","userId":"u"} x"#, Malformed, "trailing");
    refused(r#"{"type":"track","event":"E","userId":"u","properties":"a=1"}"#, Malformed, "properties is a string");
    refused(r#"{"type":"track","event":"E","userId":"u","context":[1]}"#, Malformed, "context is an array");
    refused(r#"{"type":"track","event":"E","userId":"u","timestamp":"yesterday"}"#, Malformed, "send RFC 3339");
    refused(&format!(r#"{{"type":"track","event":"E","userId":"u","x":{}{}}}"#, "[".repeat(70), "]".repeat(70)), Malformed, "flatten");
    refused(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), Malformed, "flatten");
    refused(r#"{"event":"E","userId":"u"}"#, UnknownType, "no type");
    refused(r#"{"type":"merge","userId":"u"}"#, UnknownType, "alias");
    refused(r#"{"type":"Track","event":"E","userId":"u"}"#, UnknownType, "\"Track\"");
    refused(r#"{"type":"track","event":"E"}"#, NoIdentity, "anonymousId is absent");
    refused(r#"{"type":"track","event":"E","userId":"null","anonymousId":"[object Object]"}"#, NoIdentity, "userId is \"null\"");
    refused(r#"{"type":"track","event":"E","userId":{"id":1}}"#, NoIdentity, "userId is {");
    refused(r#"{"type":"track","userId":"u","event":"  "}"#, MissingField, "\"event\"");
    refused(r#"{"type":"group","userId":"u","groupId":null}"#, MissingField, "\"groupId\"");
    refused(r#"{"type":"alias","userId":"u"}"#, MissingField, "previousId");
    refused(r#"{"type":"alias","userId":"u","previousId":"undefined"}"#, MissingField, "previousId");
    refused(r#"{"type":"alias","userId":"u","previousId":"u"}"#, IdentityLoop, "itself");
    refused(&format!(r#"{{"type":"track","event":"E","userId":"{}"}}"#, "u".repeat(513)), TooLarge, "512");
    refused(&format!(r#"{{"type":"track","userId":"u","event":"{}"}}"#, "e".repeat(513)), TooLarge, "512");
    refused(&format!(r#"{{"type":"track","userId":"u","event":"E","x":"{}"}}"#, "e".repeat(300_000)), TooLarge, "262144");
}

#[test]
fn an_event_under_another_devices_key_is_refused() {
    let key = Subject::anonymous("a-2");
    let decision = decide(
        &mut KeyState::default(),
        &item(&key, r#"{"type":"track","event":"E","anonymousId":"a-1"}"#),
        Seen::No,
        &rules("", Clock::Wall),
    );
    assert_eq!(decision.outcome, Outcome::DeadLettered(DeadReason::Undecodable));
}

#[test]
fn what_was_applied_before_is_a_duplicate_whatever_it_holds() {
    let key = Subject::user("u");
    let decision = decide(&mut KeyState::default(), &item(&key, "{"), Seen::Applied, &rules("", Clock::Wall));
    assert_eq!(decision.outcome, Outcome::Duplicate);
}

/// The event time, in milliseconds after receipt, of a track that says `times`, sent `sent` ms after receipt by the client's clock.
#[track_caller]
fn happened(times: &str, sent: Option<i64>, clock: Clock, after_receipt: i64) {
    let key = Subject::user("u");
    let body = format!(r#"{{"type":"track","event":"E","userId":"u"{times}}}"#);
    let item = Item { sent_at: sent.map(|ms| NOW + ms), ..item(&key, &body) };
    let decision = decide(&mut KeyState::default(), &item, Seen::No, &rules("", clock));
    let Some(Output::Event { event, .. }) = decision.outputs.first() else { panic!("{decision:?}") };
    assert_eq!(event.event_time.since_ms(NOW), after_receipt, "{times} {sent:?}");
}

#[test]
fn event_times_are_made_safe_on_the_wall_clock_and_left_alone_in_event_time() {
    let (minute, year) = (r#","timestamp":"2026-11-22T09:59:00Z""#, r#","timestamp":"2099-01-01T00:00:00Z""#);
    happened("", None, Clock::Wall, 0);
    happened(minute, None, Clock::Wall, -60_000);
    happened(year, None, Clock::Wall, 0);
    happened(r#","timestamp":"0001-01-01T00:00:00Z""#, None, Clock::Wall, 0);
    happened(r#","timestamp":1795341540"#, None, Clock::Wall, -60_000);
    happened(r#","timestamp":"","originalTimestamp":"2026-11-22T09:59:00.000+00:00""#, None, Clock::Wall, -60_000);
    // Within 150 s it is transit; beyond, the client's clock is wrong by that much, either way.
    happened(minute, Some(-150_000), Clock::Wall, -60_000);
    happened(minute, Some(-150_001), Clock::Wall, 0);
    happened(r#","timestamp":"2026-11-22T08:59:00Z""#, Some(-3_600_000), Clock::Wall, -60_000);
    happened(r#","timestamp":"2026-11-22T10:59:00Z""#, Some(3_600_000), Clock::Wall, -60_000);
    // A server before us has corrected it.
    happened(r#","timestamp":"2026-11-22T09:59:00Z","originalTimestamp":"2026-11-22T08:59:00Z""#, Some(-3_600_000), Clock::Wall, -60_000);
    happened(year, Some(-3_600_000), Clock::Event, Millis::parse("2099-01-01").unwrap().since_ms(NOW));
    let (outcome, detail) = fresh(r#"{"type":"track","event":"E","userId":"u"}"#, &rules("", Clock::Event));
    assert_eq!(outcome, Outcome::DeadLettered(DeadReason::MissingField), "{detail}");
}

#[track_caller]
fn filtered(settings: &str, change: impl Fn(&mut Item<'_>), more: &str, expected: Option<FilterReason>) {
    let key = Subject::user("u");
    let body = format!(r#"{{"type":"identify","userId":"u"{more}}}"#);
    let mut item = item(&key, &body);
    change(&mut item);
    let decision = decide(&mut KeyState::default(), &item, Seen::No, &rules(settings, Clock::Wall));
    assert_eq!(decision.outcome, expected.map_or(Outcome::Applied, Outcome::Filtered), "{settings} {more}: {}", decision.detail);
}

#[test]
fn bots_are_told_by_the_persons_user_agent_not_the_servers() {
    let agent = |agent: &str| format!(r#","context":{{"userAgent":"{agent}"}}"#);
    let same = |_: &mut Item<'_>| {};
    let bot = Some(FilterReason::Bot);
    filtered("", same, &agent("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"), bot);
    filtered("", same, &agent("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/141.0.0.0 Safari/537.36"), bot);
    filtered("", same, &agent("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1"), None);
    filtered("", same, &agent("Mozilla/5.0 (Linux; Android 11; CUBOT P40) Chrome/141.0 Mobile"), None);
    filtered("", |item| item.user_agent = "Mozilla/5.0 (compatible; AhrefsBot/7.0)", "", bot);
    filtered("", |item| item.user_agent = "shopbot-backend/1.0 python-requests/2.32", "", None);
    filtered("bots = { enabled = false }", same, &agent("Googlebot"), None);
    filtered("bots = { also = ['acmeprobe'] }", same, &agent("AcmeProbe/1"), bot);
    filtered("bots = { never = ['chatbot-app'] }", same, &agent("ChatBot-App/2"), None);
}

#[test]
fn own_traffic_is_told_by_network_and_mail_domain() {
    let settings = "internal = { networks = ['10.1.0.0/16', '2001:db8::/32', '192.0.2.7'], email_domains = ['@Acme.example'] }";
    let from = |ip: &'static str| move |item: &mut Item<'_>| item.remote_ip = ip;
    let same = |_: &mut Item<'_>| {};
    let internal = Some(FilterReason::Internal);
    filtered(settings, from("10.1.2.3"), "", internal);
    filtered(settings, from("::ffff:10.1.2.3"), "", internal);
    filtered(settings, from("10.2.2.3"), "", None);
    filtered(settings, from("2001:db8:1::1"), "", internal);
    filtered(settings, from("192.0.2.7"), "", internal);
    filtered(settings, from("192.0.2.8"), "", None);
    filtered(settings, from("10.1.2.3"), r#","context":{"ip":"198.51.100.1"}"#, None);
    filtered(settings, same, r#","traits":{"email":"ann@acme.example"}"#, internal);
    filtered(settings, same, r#","context":{"traits":{"email":"ann@ACME.example"}}"#, internal);
    filtered(settings, same, r#","traits":{"email":"ann@notacme.example"}"#, None);
    filtered("disabled_sources = ['web']", same, "", Some(FilterReason::SourceDisabled));
}

#[test]
fn an_employees_device_stays_internal_until_someone_else_logs_in() {
    let rules = rules("internal = { email_domains = ['acme.example'] }", Clock::Wall);
    let key = Subject::anonymous("a");
    let mut state = KeyState::default();
    let mut outcome = |body: &str| decide(&mut state, &item(&key, body), Seen::No, &rules).outcome;
    let (page, internal) = (r#"{"type":"page","anonymousId":"a"}"#, Outcome::Filtered(FilterReason::Internal));
    assert_eq!(outcome(page), Outcome::Applied);
    assert_eq!(outcome(r#"{"type":"identify","anonymousId":"a","userId":"u1","traits":{"email":"x@acme.example"}}"#), internal);
    assert_eq!(outcome(page), internal);
    assert_eq!(outcome(r#"{"type":"identify","anonymousId":"a","userId":"u2","traits":{"email":"x@else.example"}}"#), Outcome::Applied);
    assert_eq!(outcome(page), Outcome::Applied);
}

#[test]
fn a_key_may_burst_then_keep_its_rate_and_an_import_has_more_beside_it() {
    let rules = rules("flood = { events_per_second = 10, burst = 5, historical_factor = 3 }", Clock::Wall);
    let key = Subject::user("u");
    let mut state = KeyState::default();
    let mut sent = |at_ms: i64, historical: bool| {
        let item = Item { received_at: NOW + at_ms, historical, ..item(&key, r#"{"type":"page","userId":"u"}"#) };
        decide(&mut state, &item, Seen::No, &rules).outcome == Outcome::Applied
    };
    assert_eq!((0..8).filter(|_| sent(0, false)).count(), 5);
    assert_eq!((0..99).filter(|_| sent(0, true)).count(), 15, "a public write key can call anything an import");
    assert_eq!((1..=100).filter(|tenth| sent(tenth * 50, false)).count(), 50);
    assert_eq!((0..8).filter(|_| sent(60_000, false)).count(), 5);
    assert_eq!((0..99).filter(|_| sent(60_000, true)).count(), 15);
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    assert_eq!(KeyState::decode(&bytes), Ok(state), "both are remembered");
}

#[test]
fn an_import_has_no_limit_only_where_that_is_set() {
    let key = Subject::user("u");
    for (settings, clock, is_free) in [
        ("flood = { events_per_second = 1, burst = 1, historical_factor = 0 }", Clock::Wall, true),
        ("flood = { events_per_second = 0 }", Clock::Wall, true),
        ("flood = { events_per_second = 1, burst = 1 }", Clock::Event, true),
        ("flood = { events_per_second = 1, burst = 1 }", Clock::Wall, false),
    ] {
        let (rules, mut state) = (rules(settings, clock), KeyState::default());
        let body = r#"{"type":"page","userId":"u","timestamp":"2026-01-01T00:00:00Z"}"#;
        let mut sent = || decide(&mut state, &Item { historical: true, ..item(&key, body) }, Seen::No, &rules).outcome == Outcome::Applied;
        assert_eq!((0..20).all(|_| sent()), is_free, "{settings} {clock:?}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (settings, says) in [
        ("event_bytes_max = 0", "event_bytes_max"),
        ("internal = { networks = ['10.0.0.0/33'] }", "10.0.0.0/33"),
        ("internal = { networks = ['office'] }", "office"),
        ("internal = { email_domains = ['a@b.c'] }", "a@b.c"),
        ("flood = { burst = 0 }", "burst"),
        ("bots = { also = [' '] }", "empty"),
    ] {
        let error = Rules::new(&toml::from_str(settings).unwrap(), Clock::Wall).unwrap_err().to_string();
        assert!(error.contains(says), "{settings}: {error}");
    }
    assert!(toml::from_str::<Settings>("flod = 1").is_err());
}

/// One anonymous key through a history: each step's event and what it sends.
struct Key {
    state: KeyState,
    rules: Rules,
}

impl Key {
    fn new() -> Self {
        Self { state: KeyState::default(), rules: rules("", Clock::Event) }
    }

    /// Sends an event of device `a` at a time and shows the outputs in order.
    fn send(&mut self, at: i64, members: &str) -> String {
        let body = format!(r#"{{"anonymousId":"a","timestamp":{},{members}}}"#, 1_000_000_000_000 + at);
        let key = Subject::anonymous("a");
        let decision = decide(&mut self.state, &item(&key, &body), Seen::No, &self.rules);
        let shown = decision.outputs.iter().map(|output| match output {
            Output::Event { subject, event } => format!("{} to {subject}", event.kind.as_str()),
            Output::Handover { anonymous_id, user_id, .. } => format!("handover {anonymous_id} to {user_id}"),
            Output::Expect { anonymous_id, user_id, .. } => format!("{user_id} expects {anonymous_id}"),
            Output::IdentityChanged { ties, .. } => {
                format!(
                    "ties {}",
                    ties.iter().map(|(user, at)| format!("{user}@{}", at.0 - 1_000_000_000_000)).collect::<Vec<_>>().join(" ")
                )
            }
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        assert_eq!(KeyState::decode(&bytes), Ok(self.state.clone()), "the state survives its bytes");
        if shown.is_empty() { decision.outcome.reason().to_owned() } else { shown }
    }
}

const PAGE: &str = r#""type":"page""#;

fn identify(user: &str) -> String {
    format!(r#""type":"identify","userId":"{user}""#)
}

#[test]
fn a_login_hands_the_history_over_before_its_own_event() {
    let mut key = Key::new();
    assert_eq!(key.send(10, PAGE), "page to a:a");
    assert_eq!(key.send(20, &identify("u1")), "ties u1@20, handover a to u1, u1 expects a, identify to u:u1");
    assert_eq!(key.send(30, PAGE), "page to u:u1");
    assert_eq!(key.send(40, &identify("u1")), "identify to u:u1");
    assert_eq!(key.send(15, PAGE), "page to u:u1", "a late event from before the login follows the history");
}

#[test]
fn a_device_without_a_history_hands_nothing_over() {
    let mut key = Key::new();
    assert_eq!(key.send(20, &identify("u1")), "ties u1@20, identify to u:u1");
    assert_eq!(key.send(10, PAGE), "page to u:u1");
}

#[test]
fn a_shared_device_gives_its_history_to_the_first_user_once() {
    let mut key = Key::new();
    key.send(10, PAGE);
    key.send(20, &identify("u1"));
    assert_eq!(key.send(40, &identify("u2")), "ties u1@20 u2@40, identify to u:u2");
    assert_eq!(key.send(50, PAGE), "page to u:u2");
    assert_eq!(key.send(30, PAGE), "page to u:u1", "a late event goes to the tie in force at its time");
    assert_eq!(key.send(5, PAGE), "page to u:u1");
    assert_eq!(key.send(60, &identify("u1")), "ties u1@20 u2@40 u1@60, identify to u:u1");
}

#[test]
fn an_event_that_names_its_user_goes_there_and_ties_nothing() {
    let mut key = Key::new();
    assert_eq!(key.send(10, r#""type":"track","event":"E","userId":"u9""#), "track to u:u9");
    assert_eq!(key.send(20, PAGE), "page to a:a");
}

#[test]
fn an_alias_ties_and_a_user_is_never_tied_to_a_user() {
    let mut key = Key::new();
    key.send(10, PAGE);
    assert_eq!(
        key.send(20, r#""type":"alias","previousId":"a","userId":"u1""#),
        "ties u1@20, handover a to u1, u1 expects a, alias to u:u1"
    );
    // Some clients use the device's id as the user's: from then on `a` names a user.
    assert_eq!(key.send(30, &identify("a")), "ties u1@20 a@30, identify to u:a");
    assert_eq!(key.send(40, r#""type":"alias","previousId":"a","userId":"u2""#), "identity_loop");
    assert_eq!(key.send(45, PAGE), "page to u:a", "the refused alias changed nothing");
}

#[test]
fn placeholder_ids_neither_tie_nor_identify() {
    let mut key = Key::new();
    assert_eq!(key.send(10, &identify("undefined")), "identify to a:a");
    assert!(key.state.ties().is_empty());
}

#[test]
fn a_derived_id_ignores_when_it_was_sent_and_the_order_of_members() {
    let id = |body: &str| derived_message_id(body, "track");
    let first = id(r#"{"userId":"u","event":"E","sentAt":"2026-01-01T00:00:00Z"}"#);
    assert_eq!(first, id(r#"{"sentAt":"2027-01-01T00:00:00Z","event":"E","userId":"u"}"#));
    assert_ne!(first, id(r#"{"userId":"u","event":"F"}"#));
    assert_ne!(first, derived_message_id(r#"{"userId":"u","event":"E"}"#, "page"));
    assert_eq!(id("{").len(), 32);
}

proptest! {
    /// Whatever stands in a body, a record ends once and the state stays as it can be stored.
    #[test]
    fn no_body_breaks_a_decision(cuts in proptest::collection::vec((0usize..400, any::<u8>()), 0..6), end in 0usize..400) {
        let good = r#"{"type":"identify","userId":"u-1","anonymousId":"a","previousId":7,"traits":{"email":"x@y.example","n":[1,{"k":"\ud83d\ude00"}]},
            "context":{"traits":{"email":null},"userAgent":"x","ip":"::1","consent":{}},"timestamp":"2026-11-22T10:00:00.123Z","event":"E","groupId":1}"#;
        let mut bytes = good.as_bytes()[..end.min(good.len())].to_vec();
        for (at, byte) in cuts {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let body = String::from_utf8_lossy(&bytes);
        let key = key_of(&body, "").unwrap_or(Subject::anonymous("nobody"));
        let mut state = KeyState::default();
        let item = Item { batch: r#"{"context":{"traits":{"email":"b@y.example"}}}"#, ..item(&key, &body) };
        let decision = decide(&mut state, &item, Seen::No, &rules("internal = { email_domains = ['z.example'] }", Clock::Wall));
        prop_assert_eq!(decision.outcome == Outcome::Applied, !decision.outputs.is_empty());
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        prop_assert_eq!(KeyState::decode(&bytes), Ok(state));
    }
}

#[test]
fn the_documentation_names_every_reason_and_setting() {
    let text = include_str!("../../docs/intake.md");
    let reasons = FilterReason::ALL.iter().map(|it| it.as_str()).chain(DeadReason::ALL.iter().map(|it| it.as_str()));
    for reason in reasons {
        assert!(text.contains(&format!("| `{reason}` |")), "{reason}");
    }
    let toml::Value::Table(settings) = toml::Value::try_from(Settings::default()).unwrap() else { panic!("settings are a table") };
    for (name, value) in settings {
        let names = value.as_table().map_or_else(|| vec![name.clone()], |inner| inner.keys().map(|key| format!("{name}.{key}")).collect());
        for name in names {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}
