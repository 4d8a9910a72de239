//! Reading single values of a definition: names of nodes, lengths of time, expressions, words of a fixed list.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::super::calendar::{ALL_DAYS, LocalTime, is_zone, time_of_day, weekday_bit};
use super::super::definition::{Definition, Inputs, Kind, NodeIx, Until};
use super::super::document::Text;
use super::super::expression::{Condition, Expr, Names};
use crate::segments::{Source, did_you_mean, duration_ms};

/// The longest length of time taken: ten years. What is meant longer is meant never.
const LENGTH_MS_MAX: i64 = 3_653 * crate::domain::DAY_MS;

pub(super) struct Words<'w, 's> {
    pub(super) names: Names,
    pub(super) index: BTreeMap<String, NodeIx>,
    pub(super) source: &'w mut Source<'s>,
}

impl Words<'_, '_> {
    /// The node of that name.
    pub(super) fn target(&mut self, name: &str, span: Range<usize>) -> Option<NodeIx> {
        if let Some(at) = self.index.get(name) {
            return Some(*at);
        }
        let hint = did_you_mean(name, self.index.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        self.source.report(span, format!("there is no node `{name}` to go to"), hint);
        None
    }

    pub(super) fn to(&mut self, name: Option<&Text>) -> Option<NodeIx> {
        name.and_then(|name| self.target(name.get_ref(), name.span()))
    }

    /// A length of time that is not negative.
    pub(super) fn length(&mut self, text: &Text) -> Option<i64> {
        match duration_ms(text.get_ref()) {
            Some(ms) if (0..=LENGTH_MS_MAX).contains(&ms) => Some(ms),
            Some(_) => {
                self.source.report(text.span(), format!("{:?} is not between 0 and ten years", text.get_ref()), None);
                None
            }
            None => {
                let hint = "write `30s`, `15m`, `12h`, `3d` or `1h 30m`".to_owned();
                self.source.report(text.span(), format!("{:?} is not a length of time", text.get_ref()), Some(hint));
                None
            }
        }
    }

    /// A length of time that may be negative.
    pub(super) fn offset(&mut self, text: &Text) -> Option<i64> {
        let ms = duration_ms(text.get_ref()).filter(|ms| ms.abs() <= LENGTH_MS_MAX);
        if ms.is_none() {
            let hint = "write `-7d` or `12h`".to_owned();
            self.source.report(text.span(), format!("{:?} is not a length of time", text.get_ref()), Some(hint));
        }
        ms
    }

    pub(super) fn condition(&mut self, text: &Text) -> Option<Condition> {
        match Condition::compile(text.get_ref(), &self.names) {
            Ok(condition) => Some(condition),
            Err(error) => {
                self.source.report_expression(text.span(), text.get_ref(), &error);
                None
            }
        }
    }

    /// Checks a condition that an incoming event is held against.
    pub(super) fn on_event<T>(&mut self, check: impl FnOnce(&mut Self) -> T) -> T {
        self.names.event = true;
        let checked = check(self);
        self.names.event = false;
        checked
    }

    pub(super) fn expr(&mut self, text: &Text) -> Option<Expr> {
        self.value(text, "a text has quotes of its own within an expression")
    }

    /// An expression; `slip` is said where it looks like a text that somebody meant as it is.
    fn value(&mut self, text: &Text, slip: &str) -> Option<Expr> {
        match Expr::compile(text.get_ref(), &self.names) {
            Ok(expr) => Some(expr),
            Err(mut error) => {
                // The commonest slip: what is written in quotes is an expression, and a text within it has quotes of its own.
                if is_plain_words(text.get_ref()) {
                    error.hint = Some(format!("{slip}: \"'{}'\"", text.get_ref()));
                }
                self.source.report_expression(text.span(), text.get_ref(), &error);
                None
            }
        }
    }

    pub(super) fn inputs(&mut self, table: Option<&Spanned<BTreeMap<String, Text>>>) -> Inputs {
        let mut inputs = Vec::new();
        for (name, text) in table.map(Spanned::get_ref).into_iter().flatten() {
            let value = match name.as_str() {
                "template" => self.value(text, "the name of a template is a text, which has quotes of its own within an expression"),
                _ => self.expr(text),
            };
            if let Some(expr) = value {
                inputs.push((name.clone(), expr));
            }
        }
        inputs
    }

    /// One of a fixed list of words.
    pub(super) fn one_of<T: Copy>(&mut self, text: &Text, known: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = known.iter().find(|(word, _)| word == text.get_ref()) {
            return Some(*value);
        }
        let words = known.iter().map(|(word, _)| *word);
        let hint = match did_you_mean(text.get_ref(), words.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", words.collect::<Vec<_>>().join(", ")),
        };
        self.source.report(text.span(), format!("unknown value `{}`", text.get_ref()), Some(hint));
        None
    }

    /// A time of day with its days and its fallback zone.
    pub(super) fn local_time(&mut self, at: &Text, weekdays: Option<&[Text]>, zone: Option<&Text>) -> Option<LocalTime> {
        let Some((hour, minute)) = time_of_day(at.get_ref()) else {
            self.source.report(at.span(), format!("{:?} is not a time of day", at.get_ref()), Some("write `09:00`".to_owned()));
            return None;
        };
        let mut days = 0;
        for day in weekdays.unwrap_or_default() {
            match weekday_bit(day.get_ref()) {
                Some(bit) => days |= bit,
                None => {
                    let hint = "write `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`".to_owned();
                    self.source.report(day.span(), format!("{:?} is not a day of the week", day.get_ref()), Some(hint));
                }
            }
        }
        let fallback = match zone {
            None => {
                let hint = "add `zone = \"Europe/Berlin\"`: it is used where a person's own zone is not known".to_owned();
                self.source.report(at.span(), "a local time needs a zone to fall back to", Some(hint));
                return None;
            }
            Some(zone) if !is_zone(zone.get_ref()) => {
                let hint = "zones are named as `Europe/Berlin` or `UTC`".to_owned();
                self.source.report(zone.span(), format!("there is no time zone {:?}", zone.get_ref()), Some(hint));
                return None;
            }
            Some(zone) => zone.get_ref().clone(),
        };
        Some(LocalTime { hour, minute, weekdays: if days == 0 { ALL_DAYS } else { days }, fallback })
    }
}

/// Whether it looks like a text that somebody meant as it is.
fn is_plain_words(text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ',' | '!' | '?' | '\'' | '%' | ':' | ';' | '&' | '$' | '€');
    text.starts_with(char::is_alphanumeric)
        && text.split(' ').all(|word| !word.is_empty() && word.trim_end_matches('.').chars().all(is_word))
}

/// Everything of the profile that a workflow's expressions read, each once, sorted.
pub(super) fn profile(definition: &Definition) -> Vec<String> {
    let mut names = Vec::new();
    let mut conditions: Vec<&Condition> = definition.entry.when.iter().collect();
    let mut exprs: Vec<&Expr> = definition.entry.key.iter().collect();
    conditions.extend(definition.goals.iter().filter_map(|goal| goal.when.as_ref()));
    for node in &definition.nodes {
        match &node.kind {
            Kind::Effect(effect) => exprs.extend(effect.input.iter().map(|(_, expr)| expr)),
            Kind::Delay { until: Until::Date { when, .. }, .. } => exprs.push(when),
            Kind::WaitFor { any, .. } => conditions.extend(any.iter().filter_map(|awaited| awaited.when.as_ref())),
            Kind::Branch { cases, .. } => conditions.extend(cases.iter().map(|(when, _)| when)),
            Kind::Approval(approval) => exprs.extend(approval.shows.iter().map(|(_, expr)| expr)),
            Kind::Loop { when, .. } => conditions.extend(when),
            Kind::Start(start) => exprs.extend(start.input.iter().map(|(_, expr)| expr).chain([&start.subject])),
            Kind::Emit { properties: inputs, .. } | Kind::Set { vars: inputs, .. } => exprs.extend(inputs.iter().map(|(_, expr)| expr)),
            Kind::Delay { .. } | Kind::Split { .. } | Kind::Parallel { .. } | Kind::Join { .. } | Kind::Exit { .. } => {}
        }
    }
    names.extend(conditions.into_iter().flat_map(Condition::profile));
    names.extend(exprs.into_iter().flat_map(Expr::profile));
    names.sort();
    names.dedup();
    names
}
