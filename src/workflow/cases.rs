//! `[[test]]` blocks of a workflow: what happens and what performers answer, over virtual time, and which lines the story then has.

use serde_json::{Map, Value as Json, json};
use toml::Spanned;

use super::definition::{Definition, Kind};
use super::document::{EffectTable, GivenTable, TestTable, Text};
use super::policy::Policy;
use super::vocabulary::Category;
use crate::consent::{self, Said, Stated};
use crate::domain::{DAY_MS, Millis};
use crate::segments::{Source, duration_ms};

/// One `[[test]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub name: String,
    pub line: usize,
    pub start: Millis,
    pub end: Millis,
    pub subject: String,
    pub zone: Option<String>,
    pub profile: Json,
    pub attributes: Vec<(String, Json)>,
    pub consent: Vec<Stated>,
    pub policy: Policy,
    pub given: Vec<Given>,
    pub answers: Vec<Answer>,
    /// Lines of the story, in their order; others may stand between.
    pub expect: Vec<Line>,
    /// Beginnings of lines that the story does not have.
    pub never: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub line: usize,
    pub at: Option<Millis>,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub at: Millis,
    pub what: GivenWhat,
    pub profile: Option<Json>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum GivenWhat {
    Segment { name: String, entered: bool },
    Event { name: String, id: Option<String>, properties: Json },
    Start { input: Json },
    Signal { name: String, payload: Json },
    Approval { node: String, approved: bool, by: String },
    Pause,
    Resume,
    Cancel,
    Retry,
    Consent { stated: Vec<Stated> },
    Suppress { channel: String },
}

/// What performers of one node's effect answer next.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub node: String,
    pub takes_ms: i64,
    pub times: u32,
    pub what: AnswerWhat,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AnswerWhat {
    Done(Json),
    Failed { category: Category, error: String },
    Lost,
}

const START: &str = "2024-01-01T00:00:00Z";

/// How long a test looks on if it does not say.
const LASTS_MS: i64 = 30 * DAY_MS;

pub(super) fn check(tables: &[Spanned<TestTable>], definition: &Definition, source: &mut Source<'_>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for table in tables {
        let name = &table.get_ref().name;
        if cases.iter().any(|case| case.name == *name.get_ref()) {
            source.report(name.span(), format!("there are two tests named {:?}", name.get_ref()), None);
        }
        cases.push(case(table.get_ref(), definition, source));
    }
    cases
}

fn case(test: &TestTable, definition: &Definition, source: &mut Source<'_>) -> Case {
    let zero = Millis::parse(START).expect("a time");
    let start = test.start.as_ref().map_or(zero, |text| instant(text, zero, source));
    let mut given: Vec<Given> = Vec::new();
    for table in &test.given {
        if let Some(read) = given_of(table, start, definition, source) {
            if given.last().is_some_and(|previous| previous.at > read.at) {
                source.report(table.span(), "this happens before the one above it", Some("write them in their order".to_owned()));
            }
            given.push(read);
        }
    }
    if test.expect.is_empty() && test.never.is_empty() {
        source.report(test.name.span(), "the test expects nothing", Some("add `expect = [\"run ended completed\"]`".to_owned()));
    }
    let last = given.last().map_or(start, |given| given.at);
    let lasts = test.lasts.as_ref().map_or(LASTS_MS, |text| instant(text, Millis(0), source).0);
    Case {
        name: test.name.get_ref().clone(),
        line: source.line(test.name.span().start),
        start,
        end: last + lasts,
        subject: test.subject.clone().unwrap_or_else(|| "ann".to_owned()),
        zone: test.zone.clone(),
        profile: to_json(&toml::Value::Table(test.profile.clone())),
        attributes: attributes(test),
        consent: stated_by(&test.consent),
        policy: policy(test, source),
        given,
        answers: test.effects.iter().filter_map(|table| answer(table, definition, source)).collect(),
        expect: test.expect.iter().map(|text| line(text, start, source)).collect(),
        never: test.never.iter().map(|text| line(text, start, source)).collect(),
    }
}

/// Everyone can be reached, unless the test says otherwise.
fn attributes(test: &TestTable) -> Vec<(String, Json)> {
    let mut known = Map::new();
    for (name, value) in [("email", "person@example.org"), ("phone", "+491700000000"), ("push_token", "token")] {
        known.insert(name.to_owned(), json!(value));
    }
    if let Some(zone) = &test.zone {
        known.insert("time_zone".to_owned(), json!(zone));
    }
    known.extend(test.attributes.iter().map(|(name, value)| (name.clone(), to_json(value))));
    known.into_iter().collect()
}

/// Answers as a consent event holds them.
fn stated_by(answers: &toml::Table) -> Vec<Stated> {
    let properties = json!({ "consent": to_json(&toml::Value::Table(answers.clone())) }).to_string();
    consent::stated(Said { kind: "track", name: "Consent Updated", properties: &properties, context: "" }).into_vec()
}

fn policy(test: &TestTable, source: &mut Source<'_>) -> Policy {
    let Some(text) = &test.policy else { return Policy::shipped() };
    Policy::parse("policy", text.get_ref()).unwrap_or_else(|problems| {
        let message = format!("the test's policy, line {}: {}", problems.0[0].line, problems.0[0].message);
        source.report(text.span(), message, problems.0[0].hint.clone());
        Policy::shipped()
    })
}

/// A time: a length after the start (`60d`, `1d 2h`), or a point in time.
fn instant(text: &Text, start: Millis, source: &mut Source<'_>) -> Millis {
    let written = text.get_ref().trim();
    let absolute = if written.len() == 10 { Millis::parse(&format!("{written}T00:00:00Z")) } else { Millis::parse(written) };
    duration_ms(written).map(|ms| start + ms).or(absolute).unwrap_or_else(|| {
        let hint = "write `3d`, `1d 2h` after the start, or `2024-03-01T12:00:00Z`".to_owned();
        source.report(text.span(), format!("{written:?} is not a time"), Some(hint));
        start
    })
}

/// `3d nudge done`: a time that may be left out, and a line of the story.
fn line(text: &Text, start: Millis, source: &Source<'_>) -> Line {
    let written = text.get_ref();
    let mut at = None;
    let mut rest = written.as_str();
    // `1d 9h nudge done`: as many words as make a time.
    let words: Vec<usize> = written.match_indices(' ').map(|(at, _)| at).collect();
    for end in words.into_iter().rev() {
        let time = duration_ms(&written[..end]).map(|ms| start + ms).or_else(|| Millis::parse(&written[..end]));
        if let Some(time) = time {
            at = Some(time);
            rest = &written[end + 1..];
            break;
        }
    }
    Line { line: source.line(text.span().start), at, text: rest.to_owned() }
}

fn given_of(table: &Spanned<GivenTable>, start: Millis, definition: &Definition, source: &mut Source<'_>) -> Option<Given> {
    let given = table.get_ref();
    let at = given.at.as_ref().map_or(start, |at| instant(at, start, source));
    let with = || to_json(&toml::Value::Table(given.with.clone()));
    let by = || given.by.clone().unwrap_or_else(|| "someone".to_owned());
    let mut approval = |node: &Text, approved: bool| {
        if !matches!(definition.find(node.get_ref()).map(|(_, node)| &node.kind), Some(Kind::Approval(_))) {
            source.report(node.span(), format!("`{}` is not an approval", node.get_ref()), None);
        }
        GivenWhat::Approval { node: node.get_ref().clone(), approved, by: by() }
    };
    let approve = given.approve.as_ref().map(|node| approval(node, true));
    let reject = given.reject.as_ref().map(|node| approval(node, false));
    let segment = |name: &Option<String>, entered| name.clone().map(|name| GivenWhat::Segment { name, entered });
    let kinds = [
        segment(&given.enters, true),
        segment(&given.leaves, false),
        given.event.clone().map(|name| GivenWhat::Event { name, id: given.id.clone(), properties: with() }),
        given.start.map(|_| GivenWhat::Start { input: with() }),
        given.signal.clone().map(|name| GivenWhat::Signal { name, payload: with() }),
        approve,
        reject,
        given.pause.map(|_| GivenWhat::Pause),
        given.resume.map(|_| GivenWhat::Resume),
        given.cancel.map(|_| GivenWhat::Cancel),
        given.retry.map(|_| GivenWhat::Retry),
        given.consent.as_ref().map(|answers| GivenWhat::Consent { stated: stated_by(answers) }),
        given.suppress.clone().map(|channel| GivenWhat::Suppress { channel }),
    ];
    let mut named = kinds.into_iter().flatten();
    let (Some(what), None) = (named.next(), named.next()) else {
        let hint =
            "one of enters, leaves, event, start, signal, approve, reject, pause, resume, cancel, retry, consent, suppress".to_owned();
        source.report(table.span(), "exactly one thing happens in each line", Some(hint));
        return None;
    };
    let profile = given.profile.as_ref().map(|profile| to_json(&toml::Value::Table(profile.clone())));
    Some(Given { at, what, profile })
}

fn answer(table: &Spanned<EffectTable>, definition: &Definition, source: &mut Source<'_>) -> Option<Answer> {
    let effect = table.get_ref();
    if !matches!(definition.find(effect.node.get_ref()).map(|(_, node)| &node.kind), Some(Kind::Effect(_))) {
        source.report(effect.node.span(), format!("`{}` is not an effect", effect.node.get_ref()), None);
        return None;
    }
    let category = match &effect.category {
        None => Category::Api,
        Some(text) => match serde_json::from_value(json!(text.get_ref())) {
            Ok(category) => category,
            Err(_) => {
                source.report(text.span(), format!("there is no category `{}`", text.get_ref()), None);
                return None;
            }
        },
    };
    let result = effect.result.as_ref().map(|result| AnswerWhat::Done(to_json(&toml::Value::Table(result.clone()))));
    let failed = effect.fails.clone().map(|error| AnswerWhat::Failed { category, error });
    let kinds = [result, failed, effect.lost.then_some(AnswerWhat::Lost)];
    let mut named = kinds.into_iter().flatten();
    let (Some(what), None) = (named.next(), named.next()) else {
        source.report(
            table.span(),
            "an answer is one of result, fails or lost",
            Some("what may not be sent follows from `consent`, `suppress` and `policy`".to_owned()),
        );
        return None;
    };
    let takes_ms = effect.takes.as_ref().map_or(0, |text| instant(text, Millis(0), source).0.max(0));
    Some(Answer { node: effect.node.get_ref().clone(), takes_ms, times: effect.times, what })
}

pub(super) fn to_json(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(value) => json!(value),
        toml::Value::Datetime(time) => json!(time.to_string()),
        toml::Value::Array(values) => values.iter().map(to_json).collect(),
        toml::Value::Table(table) => Json::Object(table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect::<Map<_, _>>()),
    }
}
