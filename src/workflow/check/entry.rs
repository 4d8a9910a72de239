//! How runs begin: the entry table.

use toml::Spanned;

use super::super::definition::{Entry, EntryBy, Kind, Node, Reenter};
use super::super::document::EntryTable;
use super::words::Words;
use crate::domain::DAY_MS;

/// Oftener than this a schedule is a stream.
const EVERY_MS_MIN: i64 = 60_000;

pub(super) fn entry(table: &Spanned<EntryTable>, words: &mut Words<'_, '_>) -> Option<Entry> {
    let entry = table.get_ref();
    let kinds = [
        ("segment", entry.segment.is_some()),
        ("event", entry.event.is_some()),
        ("command", entry.command.is_some()),
        ("every", entry.every.is_some()),
        ("broadcast", entry.broadcast.is_some()),
    ];
    let named: Vec<&str> = kinds.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    if named.len() != 1 {
        let message = format!("an entry has one of segment, event, command, every or broadcast; this has {}", named.len());
        words.source.report(table.span(), message, Some("for example `entry = { segment = \"lapsing\" }`".to_owned()));
        return None;
    }
    let mut misplaced = |key: &str, span: Option<std::ops::Range<usize>>, fits: &[&str]| {
        if let Some(span) = span
            && !fits.contains(&named[0])
        {
            words.source.report_rule(
                span,
                format!("`{key}` is not for entry by {}", named[0]),
                Some(format!("it goes with {}", fits.join(", "))),
            );
        }
    };
    misplaced("at", entry.at.as_ref().map(Spanned::span), &["every"]);
    misplaced("weekdays", entry.weekdays.as_ref().and_then(|days| days.first()).map(Spanned::span), &["every"]);
    misplaced("zone", entry.zone.as_ref().map(Spanned::span), &["every"]);
    misplaced("throttle", entry.throttle.as_ref().map(Spanned::span), &["broadcast"]);
    misplaced("key", entry.key.as_ref().map(Spanned::span), &["event", "command"]);
    let by = by(entry, words)?;
    let when = entry.when.as_ref().and_then(|text| words.on_event(|words| words.condition(text)));
    let key = entry.key.as_ref().and_then(|text| words.on_event(|words| words.expr(text)));
    let reenter = match &entry.reenter {
        None => Reenter::WhenEnded,
        Some(text) => match text.get_ref().strip_prefix("after ") {
            Some(length) => Reenter::After { ms: words.length(&Spanned::new(text.span(), length.to_owned()))? },
            None => words.one_of(text, &[("never", Reenter::Never), ("always", Reenter::Always), ("when_ended", Reenter::WhenEnded)])?,
        },
    };
    Some(Entry { by, when, reenter, key })
}

/// The node that emits what the workflow begins with, where nothing stands between: no condition, and neither a run in all nor a length of
/// time. Where a condition does it may hold for what is emitted too, and going round through other workflows cannot be seen in one: depth
/// bounds those when they run.
pub(super) fn round(entry: &Entry, nodes: &[Node]) -> Option<usize> {
    let EntryBy::Event(begins) = &entry.by else { return None };
    let is_bounded = entry.key.is_none() && matches!(entry.reenter, Reenter::Never | Reenter::After { .. });
    if entry.when.is_some() || is_bounded {
        return None;
    }
    nodes.iter().position(|node| matches!(&node.kind, Kind::Emit { event, .. } if event == begins))
}

fn by(entry: &EntryTable, words: &mut Words<'_, '_>) -> Option<EntryBy> {
    if let Some(segment) = &entry.segment {
        return Some(EntryBy::Segment(segment.get_ref().clone()));
    }
    if let Some(event) = &entry.event {
        return Some(EntryBy::Event(event.get_ref().clone()));
    }
    if let Some(every) = &entry.every {
        let every_ms = words.length(every)?;
        if every_ms < EVERY_MS_MIN {
            words.source.report(every.span(), "a schedule runs at most once a minute", None);
            return None;
        }
        if let Some(at) = entry.at.as_ref().filter(|_| every_ms % DAY_MS != 0) {
            let hint = "with a time of day, write `1d` or `7d`".to_owned();
            words.source.report(at.span(), "a time of day goes with whole days", Some(hint));
        }
        if entry.at.is_none() {
            let days = entry.weekdays.as_ref().and_then(|days| days.first()).map(Spanned::span);
            for (key, span) in [("weekdays", days), ("zone", entry.zone.as_ref().map(Spanned::span))] {
                let Some(span) = span else { continue };
                let hint = "add `at = \"09:00\"`".to_owned();
                words.source.report_rule(span, format!("`{key}` goes with a time of day"), Some(hint));
            }
        }
        let at = match &entry.at {
            Some(at) => Some(words.local_time(at, entry.weekdays.as_deref(), entry.zone.as_ref())?),
            None => None,
        };
        return Some(EntryBy::Schedule { every_ms, at });
    }
    if let Some(segment) = &entry.broadcast {
        let throttle_ms = match &entry.throttle {
            Some(throttle) => words.length(throttle)?,
            None => 0,
        };
        return Some(EntryBy::Broadcast { segment: segment.get_ref().clone(), throttle_ms });
    }
    match &entry.command {
        Some(command) if !*command.get_ref() => {
            words.source.report(command.span(), "`command` is true, or something else is the entry", None);
            None
        }
        _ => Some(EntryBy::Command),
    }
}
