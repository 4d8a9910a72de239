//! `[[test]]` blocks: records over virtual time, and what must have become of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use toml::Spanned;

use super::document::{ExpectTable, GivenTable, TestTable};
use super::fields::{Field, Fields};
use crate::domain::{Millis, Subject};
use crate::segments::Source;
use crate::segments::{Predicate, compile, duration_ms};

/// One `[[test]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub name: String,
    pub line: usize,
    /// What the times in the block count from.
    pub start: Millis,
    /// In order of arrival.
    pub given: Vec<Given>,
    pub expect: Vec<Expect>,
}

/// A record that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub received_at: Millis,
    /// The event's JSON as a client would send it.
    pub body: String,
}

/// What must hold at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    pub line: usize,
    pub at: Millis,
    pub outcomes: BTreeMap<String, u64>,
    pub members: BTreeMap<String, Vec<Subject>>,
    pub changes: Option<Vec<ExpectedChange>>,
    pub profiles: Vec<(Subject, Vec<Condition>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedChange {
    pub at: Millis,
    pub subject: Subject,
    pub segment: String,
    pub entered: bool,
}

/// A condition on a profile, as written and compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub line: usize,
    pub text: String,
    pub predicate: Predicate<Field>,
}

/// Where a test's clock starts if it does not say.
const START: &str = "2024-01-01";

const OUTCOMES: [&str; 5] = ["applied", "duplicate", "filtered", "dead_lettered", "control"];

/// What a test may refer to.
pub(super) struct Known<'k> {
    pub(super) segments: &'k [String],
    pub(super) fields: &'k Fields,
}

/// Checks the tests' tables; problems go to `source`.
pub(super) fn check(tables: &[Spanned<TestTable>], known: &Known<'_>, source: &mut Source<'_>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for table in tables {
        let name = &table.get_ref().name;
        if cases.iter().any(|case| case.name == *name.get_ref()) {
            source.report(name.span(), format!("there are two tests named {:?}", name.get_ref()), None);
        }
        cases.push(case(table, known, source));
    }
    cases
}

fn case(table: &Spanned<TestTable>, known: &Known<'_>, source: &mut Source<'_>) -> Case {
    let test = table.get_ref();
    let start = match &test.start {
        None => Millis::parse(&format!("{START}T00:00:00Z")).expect("a date"),
        Some(text) => instant(text, Millis(0), source),
    };
    let mut given: Vec<Given> = Vec::new();
    for (at, record) in test.given.iter().enumerate() {
        let previous = given.last().map_or(start, |record| record.received_at);
        let record_read = record_of(record, at, start, source);
        if record_read.received_at < previous {
            let hint = "write records in the order in which they arrive; `received` says that one arrived late".to_owned();
            source.report(record.span(), "this record arrives before the one above it", Some(hint));
        }
        given.push(record_read);
    }
    let end = given.last().map_or(start, |record| record.received_at);
    if test.expect.is_empty() {
        source.report(test.name.span(), "the test expects nothing", Some("add an `[[test.expect]]` block".to_owned()));
    }
    let mut expect: Vec<Expect> = Vec::new();
    for table in &test.expect {
        expect.push(expectation(table, start, end, known, source));
    }
    Case { name: test.name.get_ref().clone(), line: source.line(test.name.span().start), start, given, expect }
}

/// A time: a length after the start (`60d`, `1d 2h`), or a point in time.
fn instant(text: &Spanned<String>, start: Millis, source: &mut Source<'_>) -> Millis {
    let written = text.get_ref().trim();
    let absolute = if written.len() == 10 { Millis::parse(&format!("{written}T00:00:00Z")) } else { Millis::parse(written) };
    let found = duration_ms(written).map(|ms| start + ms).or(absolute);
    found.unwrap_or_else(|| {
        let hint = "write `60d`, `1d 2h` after the start, or `2024-03-01T12:00:00Z`".to_owned();
        source.report(text.span(), format!("{written:?} is not a time"), Some(hint));
        start
    })
}

fn record_of(spanned: &Spanned<GivenTable>, number: usize, start: Millis, source: &mut Source<'_>) -> Given {
    let table = spanned.get_ref();
    let at = table.at.as_ref().map_or(start, |at| instant(at, start, source));
    let received_at = table.received.as_ref().map_or(at, |received| instant(received, start, source));
    if let Some(body) = &table.body {
        return Given { received_at, body: body.clone() };
    }
    let mut body = Map::new();
    let kinds = [
        ("track", table.track.as_deref().map(|name| ("event", json!(name)))),
        ("page", table.page.as_deref().map(|name| ("name", json!(name)))),
        ("screen", table.screen.as_deref().map(|name| ("name", json!(name)))),
        ("identify", table.identify.as_ref().map(|traits| ("traits", to_json(traits)))),
        ("group", table.group.as_deref().map(|id| ("groupId", json!(id)))),
        ("alias", table.alias.as_deref().map(|id| ("previousId", json!(id)))),
    ];
    let named: Vec<&str> = kinds.iter().filter(|(_, value)| value.is_some()).map(|(kind, _)| *kind).collect();
    if named.len() != 1 {
        let message = format!("a record has one of track, page, screen, identify, group, alias or body; this has {}", named.len());
        source.report(spanned.span(), message, Some("for example `{ at = \"1d\", user = \"ann\", track = \"Signed Up\" }`".to_owned()));
    }
    for (kind, value) in kinds {
        if let Some((key, value)) = value {
            body.insert("type".to_owned(), json!(kind));
            body.insert(key.to_owned(), value);
        }
    }
    let texts = [("userId", &table.user), ("anonymousId", &table.anonymous)];
    for (key, value) in texts {
        if let Some(value) = value {
            body.insert(key.to_owned(), json!(value));
        }
    }
    let message_id = table.id.clone().unwrap_or_else(|| format!("given-{number}"));
    body.insert("messageId".to_owned(), json!(message_id));
    if let Some(timestamp) = at.to_rfc3339() {
        body.insert("timestamp".to_owned(), json!(timestamp));
    }
    for (key, value) in [("properties", &table.properties), ("traits", &table.traits), ("context", &table.context)] {
        if let Some(value) = value {
            body.insert(key.to_owned(), to_json(value));
        }
    }
    Given { received_at, body: Value::Object(body).to_string() }
}

fn to_json(table: &toml::Table) -> Value {
    fn convert(value: &toml::Value) -> Value {
        match value {
            toml::Value::String(text) => json!(text),
            toml::Value::Integer(number) => json!(number),
            toml::Value::Float(number) => json!(number),
            toml::Value::Boolean(value) => json!(value),
            toml::Value::Datetime(time) => json!(time.to_string()),
            toml::Value::Array(values) => values.iter().map(convert).collect(),
            toml::Value::Table(table) => to_json(table),
        }
    }
    Value::Object(table.iter().map(|(key, value)| (key.clone(), convert(value))).collect())
}

fn expectation(spanned: &Spanned<ExpectTable>, start: Millis, end: Millis, known: &Known<'_>, source: &mut Source<'_>) -> Expect {
    let table = spanned.get_ref();
    let at = table.at.as_ref().map_or(end, |at| instant(at, start, source));
    let mut outcomes = BTreeMap::new();
    for (name, count) in &table.outcomes {
        let reasons = crate::domain::FilterReason::ALL.iter().map(|reason| reason.as_str());
        let reasons: Vec<&str> = reasons.chain(crate::domain::DeadReason::ALL.iter().map(|reason| reason.as_str())).collect();
        if !OUTCOMES.iter().chain(&reasons).any(|outcome| outcome == name.get_ref()) {
            let hint = format!("outcomes are {}; reasons are {}", OUTCOMES.join(", "), reasons.join(", "));
            source.report(name.span(), format!("there is no outcome `{}`", name.get_ref()), Some(hint));
        }
        outcomes.insert(name.get_ref().clone(), *count);
    }
    let mut members = BTreeMap::new();
    for (segment, people) in &table.members {
        check_segment(segment.get_ref(), segment.span(), known, source);
        let mut people: Vec<Subject> = people.iter().map(|person| subject(person)).collect();
        people.sort();
        members.insert(segment.get_ref().clone(), people);
    }
    let changes = table.changes.as_ref().map(|changes| {
        let changes = changes.iter().filter_map(|change| expected_change(change, start, known, source));
        changes.collect()
    });
    let mut profiles = Vec::new();
    for (person, conditions) in &table.profiles {
        let conditions = conditions.iter().filter_map(|condition| condition_of(condition, known, source)).collect();
        profiles.push((subject(person.get_ref()), conditions));
    }
    Expect { line: source.line(spanned.span().start), at, outcomes, members, changes, profiles }
}

/// `ann` and `u:ann` are the user, `a:d1` is the device.
fn subject(text: &str) -> Subject {
    match text.split_once(':') {
        Some(("a", id)) => Subject::anonymous(id),
        Some(("u", id)) => Subject::user(id),
        _ => Subject::user(text),
    }
}

fn check_segment(name: &str, span: std::ops::Range<usize>, known: &Known<'_>, source: &mut Source<'_>) {
    if !known.segments.iter().any(|segment| segment == name) {
        let near = crate::segments::did_you_mean(name, known.segments.iter().map(String::as_str));
        source.report(span, format!("there is no segment `{name}`"), near.map(|near| format!("did you mean `{near}`?")));
    }
}

fn expected_change(text: &Spanned<String>, start: Millis, known: &Known<'_>, source: &mut Source<'_>) -> Option<ExpectedChange> {
    let words: Vec<&str> = text.get_ref().split_whitespace().collect();
    let hint = || Some("write `60d ann enters lapsing` or `1d 2h ann leaves new`".to_owned());
    let [time @ .., person, verb, segment] = words.as_slice() else {
        source.report(text.span(), "a change is a time, a person, `enters` or `leaves`, and a segment", hint());
        return None;
    };
    let entered = match *verb {
        "enters" => true,
        "leaves" => false,
        other => {
            source.report(text.span(), format!("`{other}` is neither `enters` nor `leaves`"), hint());
            return None;
        }
    };
    check_segment(segment, text.span(), known, source);
    let at = instant(&Spanned::new(text.span(), time.join(" ")), start, source);
    Some(ExpectedChange { at, subject: subject(person), segment: (*segment).to_owned(), entered })
}

fn condition_of(text: &Spanned<String>, known: &Known<'_>, source: &mut Source<'_>) -> Option<Condition> {
    match compile(text.get_ref(), known.fields) {
        Ok(predicate) => Some(Condition { line: source.line(text.span().start), text: text.get_ref().clone(), predicate }),
        Err(error) => {
            source.report_expression(text.span(), text.get_ref(), &error);
            None
        }
    }
}
