//! One node: its table to what it does.

use std::collections::BTreeMap;

use toml::Spanned;

use super::super::definition::{
    Approval, Arm, Awaited, AwaitedWhat, Effect, Errors, Failing, Kind, Needs, NodeIx, OnError, Retry, Silence, Start, Until,
};
use super::super::document::{AwaitedTable, NodeTable, RetryTable, Text};
use super::super::expression::type_named;
use super::super::vocabulary::{Category, Performer, Unknown};
use super::words::Words;
use crate::domain::{HOUR_MS, SECOND_MS};
use crate::permit::Priority;
use crate::segments::Type;

/// Attempts of one effect before it is a person's matter.
const ATTEMPTS_MAX: u32 = 50;
/// Rounds of one loop.
const ROUNDS_MAX: u32 = 10_000_000;

type Ctx<'c, 'w, 's> = &'c mut Words<'w, 's>;

/// `None` if something in it was reported.
pub(super) fn kind(table: &Spanned<NodeTable>, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let node = table.get_ref();
    let next = node.next.as_ref();
    Some(match node.kind.get_ref().as_str() {
        "effect" => Kind::Effect(effect(node, words)?),
        "delay" => {
            let next = words.to(next);
            Kind::Delay { until: until(node, words)?, next: next? }
        }
        "wait_for" => wait_for(node, words)?,
        "branch" => branch(node, words)?,
        "split" => split(node, words)?,
        "parallel" => parallel(node, words)?,
        "join" => Kind::Join { needs: needs(node, words)?, next: words.to(next)? },
        "approval" => Kind::Approval(approval(node, words)?),
        "loop" => looped(node, words)?,
        "start" => Kind::Start(start(node, words)?),
        "emit" => Kind::Emit {
            event: node.event.as_ref()?.get_ref().clone(),
            properties: words.inputs(node.properties.as_ref()),
            next: words.to(next)?,
        },
        "set" => set(node, words)?,
        _ => Kind::Exit {
            outcome: node.outcome.as_ref().map(|text| text.get_ref().clone()).unwrap_or_default(),
            failed: node.failed.as_ref().is_some_and(|failed| *failed.get_ref()),
        },
    })
}

fn effect(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Effect> {
    let targets = [(Performer::Agent, &node.agent), (Performer::Channel, &node.channel), (Performer::Webhook, &node.webhook)];
    let mut named = targets.iter().filter_map(|(by, target)| target.as_ref().map(|target| (*by, target)));
    let (Some((by, target)), None) = (named.next(), named.next()) else {
        let hint = "for example `channel = \"email\"`".to_owned();
        words.source.report(node.name.span(), "an effect has one of agent, channel or webhook", Some(hint));
        return None;
    };
    let mut returns: BTreeMap<String, Type> = BTreeMap::new();
    for (name, ty) in node.returns.as_ref().map(Spanned::get_ref).into_iter().flatten() {
        match type_named(ty.get_ref()) {
            Some(ty) => {
                returns.insert(name.clone(), ty);
            }
            None => {
                let hint = "types are bool, int, double, string, timestamp".to_owned();
                words.source.report(ty.span(), format!("there is no type `{}`", ty.get_ref()), Some(hint));
            }
        }
    }
    let known = [
        ("retry", Unknown::Retry),
        ("look_up", Unknown::LookUp),
        ("assume_done", Unknown::AssumeDone),
        ("ask_a_person", Unknown::AskAPerson),
    ];
    let unknown = match &node.unknown {
        Some(text) => words.one_of(text, &known)?,
        // Mail servers honour no key: what may have been sent is looked for, or a person asked, before it is sent again.
        None if by == Performer::Channel => Unknown::LookUp,
        None => Unknown::Retry,
    };
    let timeout_ms = words.length(node.timeout.as_ref()?)?;
    if timeout_ms == 0 {
        words.source.report(node.timeout.as_ref()?.span(), "an effect needs some time", None);
    }
    let (purpose, priority, not_after_ms) = message(node, by, words)?;
    let takes_ms = match &node.takes {
        Some(takes) => words.length(takes)?,
        None => 0,
    };
    let input = words.inputs(node.input.as_ref());
    let retry = retry(node.retry.as_ref(), words);
    let errors = errors(node, words);
    let next = words.to(node.next.as_ref());
    let on_failure = words.to(node.on_failure.as_ref());
    let on_refused = words.to(node.on_refused.as_ref());
    Some(Effect {
        by,
        target: target.get_ref().clone(),
        purpose,
        priority,
        not_after_ms,
        takes_ms,
        input,
        returns,
        retry: retry?,
        errors,
        timeout_ms,
        unknown,
        next: next?,
        on_failure,
        on_refused,
    })
}

/// What a permit will be asked for: only a channel sends messages.
fn message(node: &NodeTable, by: Performer, words: Ctx<'_, '_, '_>) -> Option<(String, Priority, Option<i64>)> {
    let keys = [("purpose", &node.purpose), ("priority", &node.priority), ("not_after", &node.not_after), ("on_refused", &node.on_refused)];
    if by != Performer::Channel {
        for (key, text) in keys.iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
            let hint = "only what a channel sends needs a permit".to_owned();
            words.source.report(text.span(), format!("`{key}` is for messages by a channel, this is for the {}", by.as_str()), Some(hint));
        }
        return Some((String::new(), Priority::Normal, None));
    }
    let priority = match &node.priority {
        Some(text) => words.one_of(text, &[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)])?,
        None => Priority::Normal,
    };
    let not_after_ms = match &node.not_after {
        Some(text) => Some(words.length(text)?),
        None => None,
    };
    let purpose = node.purpose.as_ref().map_or_else(|| "marketing".to_owned(), |text| text.get_ref().clone());
    Some((purpose, priority, not_after_ms))
}

fn retry(table: Option<&Spanned<RetryTable>>, words: Ctx<'_, '_, '_>) -> Option<Retry> {
    let mut retry = Retry { attempts: 5, first_ms: 10 * SECOND_MS, most_ms: HOUR_MS, factor: 2.0 };
    let Some(table) = table else { return Some(retry) };
    let written = table.get_ref();
    retry.attempts = *written.attempts.get_ref();
    if !(1..=ATTEMPTS_MAX).contains(&retry.attempts) {
        let message = format!("attempts are 1 to {ATTEMPTS_MAX}, this says {}", retry.attempts);
        words.source.report(written.attempts.span(), message, Some("after the last the run pauses and is not lost".to_owned()));
    }
    if let Some(first) = &written.first {
        retry.first_ms = words.length(first)?;
    }
    if let Some(most) = &written.most {
        retry.most_ms = words.length(most)?;
    }
    if let Some(factor) = &written.factor {
        retry.factor = *factor.get_ref();
        if !(1.0..=100.0).contains(&retry.factor) {
            words.source.report(factor.span(), "a factor is 1 to 100", None);
        }
    }
    Some(retry)
}

const CATEGORIES: [(&str, Category); 5] = [
    ("api", Category::Api),
    ("agent", Category::Agent),
    ("integration", Category::Integration),
    ("data", Category::Data),
    ("system", Category::System),
];

fn errors(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Errors {
    let mut errors = Errors::default();
    for (category, answer) in node.on_error.as_ref().map(Spanned::get_ref).into_iter().flatten() {
        let answers = [("retry", OnError::Retry), ("fail", OnError::Fail), ("pause", OnError::Pause)];
        if let (Some(category), Some(answer)) = (words.one_of(category, &CATEGORIES), words.one_of(answer, &answers)) {
            errors.set(category, answer);
        }
    }
    if let Some(notify) = &node.notify {
        let told: Vec<Category> = notify.get_ref().iter().filter_map(|category| words.one_of(category, &CATEGORIES)).collect();
        errors.tell(&told);
    }
    errors
}

fn until(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Until> {
    let named = [node.wait.is_some(), node.until_local.is_some(), node.until_date.is_some()];
    if named.iter().filter(|there| **there).count() != 1 {
        let hint = "`wait = \"3d\"`, `until_local = \"09:00\"` or `until_date = \"traits.renewal\"`".to_owned();
        words.source.report(node.name.span(), "a delay has one of wait, until_local or until_date", Some(hint));
        return None;
    }
    let days = node.weekdays.as_ref().map(Spanned::span);
    let local = [("weekdays", days), ("zone", node.zone.as_ref().map(Spanned::span))];
    let offset = ("offset", node.offset.as_ref().map(Spanned::span));
    let (idle, with): (Vec<_>, &str) = match () {
        () if node.wait.is_some() => (local.into_iter().chain([offset]).collect(), "until_local or until_date"),
        () if node.until_local.is_some() => (vec![offset], "until_date"),
        () => (local.to_vec(), "until_local"),
    };
    for (key, span) in idle {
        let Some(span) = span else { continue };
        words.source.report_rule(span, format!("`{key}` has no meaning here"), Some(format!("it goes with {with}")));
    }
    if let Some(wait) = &node.wait {
        return Some(Until::For { ms: words.length(wait)? });
    }
    if let Some(at) = &node.until_local {
        let weekdays = node.weekdays.as_ref().map(|days| days.get_ref().as_slice());
        return Some(Until::Local(words.local_time(at, weekdays, node.zone.as_ref())?));
    }
    let text = node.until_date.as_ref()?;
    let when = words.expr(text)?;
    if when.ty().is_some_and(|ty| ty != Type::Time) {
        let found = when.ty().map_or("", Type::as_str);
        words.source.report(text.span(), format!("a date is needed here, this is a {found}"), None);
    }
    let offset_ms = match &node.offset {
        Some(offset) => words.offset(offset)?,
        None => 0,
    };
    Some(Until::Date { when, offset_ms })
}

fn wait_for(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let tables = node.any.as_ref()?;
    if tables.get_ref().is_empty() {
        words.source.report(tables.span(), "it waits for nothing", Some("use a `delay`".to_owned()));
    }
    let any: Vec<Option<Awaited>> = tables.get_ref().iter().map(|table| awaited(table, node, words)).collect();
    let timeout_ms = words.length(node.timeout.as_ref()?);
    let next = words.to(node.next.as_ref());
    let on_timeout = match &node.on_timeout {
        Some(name) => words.target(name.get_ref(), name.span()),
        None => next,
    };
    Some(Kind::WaitFor { any: any.into_iter().collect::<Option<_>>()?, timeout_ms: timeout_ms?, next: next?, on_timeout: on_timeout? })
}

fn awaited(table: &AwaitedTable, node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Awaited> {
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.get_ref().clone());
    let kinds = [
        text(&table.event).map(AwaitedWhat::Event),
        text(&table.enters).map(AwaitedWhat::Enters),
        text(&table.leaves).map(AwaitedWhat::Leaves),
        text(&table.signal).map(AwaitedWhat::Signal),
    ];
    let mut named = kinds.into_iter().flatten();
    let (Some(what), None) = (named.next(), named.next()) else {
        let span = node.any.as_ref().map_or(node.name.span(), Spanned::span);
        words.source.report(span, "each of `any` has one of event, enters, leaves or signal", None);
        return None;
    };
    let when = match &table.when {
        Some(text) => Some(words.on_event(|words| words.condition(text))?),
        None => None,
    };
    let next = match &table.next {
        Some(name) => Some(words.target(name.get_ref(), name.span())?),
        None => None,
    };
    Some(Awaited { what, when, next })
}

fn branch(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let tables = node.cases.as_ref()?;
    if tables.get_ref().is_empty() {
        words.source.report(tables.span(), "a branch without cases decides nothing", None);
    }
    let mut cases = Vec::new();
    for table in tables.get_ref() {
        let when = words.condition(&table.when);
        let next = words.target(table.next.get_ref(), table.next.span());
        cases.extend(when.zip(next));
    }
    let otherwise = words.to(node.otherwise.as_ref())?;
    Some(Kind::Branch { cases, otherwise, fresh: node.fresh.as_ref().is_some_and(|fresh| *fresh.get_ref()) })
}

fn split(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let tables = node.arms.as_ref()?;
    let mut arms: Vec<Arm> = Vec::new();
    for table in tables.get_ref() {
        let name = table.name.get_ref();
        if arms.iter().any(|arm| arm.name == *name) {
            words.source.report(table.name.span(), format!("there are two arms named `{name}`"), None);
        }
        if let Some(next) = words.target(table.next.get_ref(), table.next.span()) {
            arms.push(Arm { name: name.clone(), weight: u64::from(*table.weight.get_ref()), next });
        }
    }
    let total = arms.iter().map(|arm| arm.weight).sum();
    if total == 0 {
        words.source.report(tables.span(), "no arm has any weight", Some("add `{ name = \"a\", weight = 50, next = \"..\" }`".to_owned()));
        return None;
    }
    let salt = node.salt.as_ref().map_or_else(|| node.name.get_ref().clone(), |salt| salt.get_ref().clone());
    Some(Kind::Split { salt, arms, total })
}

fn parallel(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let tables = node.branches.as_ref()?;
    let branches: Vec<NodeIx> = tables.get_ref().iter().filter_map(|name| words.target(name.get_ref(), name.span())).collect();
    if tables.get_ref().len() < 2 {
        words.source.report(tables.span(), "a parallel has at least two branches", None);
    }
    let failing = [("pauses", Failing::Pauses), ("cancels_others", Failing::CancelsOthers), ("leaves_others", Failing::LeavesOthers)];
    let failing = match &node.failing {
        Some(text) => words.one_of(text, &failing)?,
        None => Failing::Pauses,
    };
    if failing != Failing::Pauses && node.on_failure.is_none() {
        let hint = "add `on_failure = \"node\"`".to_owned();
        words.source.report(node.name.span(), "nothing says where it leads when too few branches end well", Some(hint));
    }
    let on_failure = words.to(node.on_failure.as_ref());
    Some(Kind::Parallel { branches, join: words.to(node.join.as_ref())?, failing, on_failure })
}

fn needs(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Needs> {
    let Some(needs) = &node.needs else { return Some(Needs::All) };
    match needs.get_ref() {
        toml::Value::String(word) if word == "all" => Some(Needs::All),
        toml::Value::String(word) if word == "any" => Some(Needs::Any),
        toml::Value::Integer(count) if *count > 0 => u32::try_from(*count).ok().map(Needs::Count),
        _ => {
            let hint = "write `\"all\"`, `\"any\"` or how many branches".to_owned();
            words.source.report(needs.span(), "it does not say how many branches are needed", Some(hint));
            None
        }
    }
}

fn approval(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Approval> {
    let silence = [("approves", Silence::Approves), ("rejects", Silence::Rejects), ("pauses", Silence::Pauses)];
    let shows = words.inputs(node.shows.as_ref());
    let deadline_ms = words.length(node.deadline.as_ref()?);
    let silence = words.one_of(node.silence.as_ref()?, &silence);
    let (on_approve, on_reject) = (words.to(node.on_approve.as_ref()), words.to(node.on_reject.as_ref()));
    Some(Approval {
        who: node.who.as_ref()?.get_ref().clone(),
        shows,
        deadline_ms: deadline_ms?,
        silence: silence?,
        on_approve: on_approve?,
        on_reject: on_reject?,
    })
}

fn looped(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let most = node.most.as_ref()?;
    if !(1..=ROUNDS_MAX).contains(most.get_ref()) {
        words.source.report(most.span(), format!("a loop has 1 to {ROUNDS_MAX} rounds"), None);
    }
    let when = match &node.when {
        Some(text) => Some(words.condition(text)?),
        None => None,
    };
    let (body, next) = (words.to(node.body.as_ref()), words.to(node.next.as_ref()));
    Some(Kind::Loop { body: body?, when, most: *most.get_ref(), next: next? })
}

fn start(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Start> {
    let subject = node.subject.as_ref()?;
    let expr = words.expr(subject)?;
    if expr.ty().is_some_and(|ty| ty != Type::Text) {
        words.source.report(subject.span(), "a subject is text", Some("a literal is `'\"spring\"'`".to_owned()));
    }
    let input = words.inputs(node.input.as_ref());
    let wait_ms = match &node.timeout {
        Some(timeout) => Some(words.length(timeout)?),
        None => None,
    };
    let (next, on_failure) = (words.to(node.next.as_ref()), words.to(node.on_failure.as_ref()));
    Some(Start { workflow: node.workflow.as_ref()?.get_ref().clone(), subject: expr, input, wait_ms, next: next?, on_failure })
}

fn set(node: &NodeTable, words: Ctx<'_, '_, '_>) -> Option<Kind> {
    let mut vars = Vec::new();
    for (name, text) in node.set.as_ref()?.get_ref() {
        let Some(ty) = words.names.vars.get(name.get_ref()).copied() else {
            let hint = "declare it with its first value in `[workflow.vars]`".to_owned();
            words.source.report(name.span(), format!("there is no variable `{}`", name.get_ref()), Some(hint));
            continue;
        };
        let Some(expr) = words.expr(text) else { continue };
        match expr.ty() {
            Some(found) if found != ty => {
                let message = format!("`{}` is a {}, this is a {}", name.get_ref(), ty.as_str(), found.as_str());
                words.source.report(text.span(), message, None);
            }
            None => {
                let hint = "give it one: `string(..)`, `double(..)`, `.. == true`".to_owned();
                words.source.report(text.span(), "the type of this is not known", Some(hint));
            }
            Some(_) => vars.push((name.get_ref().clone(), expr)),
        }
    }
    Some(Kind::Set { vars, next: words.to(node.next.as_ref())? })
}
