//! Processors and the topics between them: that each kind gets and gives what it must, that every topic exists and is filled, and that
//! no record can run in circles.

use std::ops::Range;

use super::document::ProcessorTable;
use crate::segments::Source;
use crate::segments::did_you_mean;

/// A processor of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    pub name: String,
    pub kind: Kind,
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

/// What a processor does; the code behind each is part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Decodes, validates, deduplicates, resolves identity.
    Intake,
    /// Keeps features, scores and segments of every person.
    Profiles,
    /// Projects facts into the SQL read models.
    ReadModels,
}

/// The topics of a namespace and whether records come into them from outside the graph.
const TOPICS: [(&str, bool); 9] = [
    ("intake", true),
    ("identities", false),
    ("events", false),
    ("profiles", false),
    ("segment_changes", false),
    ("definitions", true),
    ("dead_letters", false),
    ("outcomes", false),
    ("corrections", false),
];

/// Facts that correct earlier ones: written only by a topology that wants them.
const CORRECTIONS: &str = "corrections";

impl Kind {
    const ALL: [Kind; 3] = [Kind::Intake, Kind::Profiles, Kind::ReadModels];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Intake => "intake",
            Kind::Profiles => "profiles",
            Kind::ReadModels => "read_models",
        }
    }

    /// What it must read and write.
    fn required(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Kind::Intake => (&["intake"], &["identities", "events", "dead_letters", "outcomes"]),
            Kind::Profiles => (&["events"], &["events", "profiles", "segment_changes", "dead_letters"]),
            Kind::ReadModels => (&["events", "profiles", "segment_changes"], &[]),
        }
    }

    /// What it may read and write beyond that.
    fn optional(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Kind::Intake => (&[], &[]),
            Kind::Profiles => (&[], &[CORRECTIONS]),
            Kind::ReadModels => (&["identities", "dead_letters", "outcomes", CORRECTIONS], &[]),
        }
    }

    /// The topic that it may write although it reads it: an anonymous profile hands itself over to its user's key. A hand-over causes
    /// none, so this circle ends after one round; no other is allowed.
    fn hands_over_through(self) -> Option<&'static str> {
        match self {
            Kind::Profiles => Some("events"),
            Kind::Intake | Kind::ReadModels => None,
        }
    }
}

/// Whether the profile fold is to say what a late event corrects.
pub(super) fn wants_corrections(processors: &[Processor]) -> bool {
    processors.iter().any(|processor| processor.kind == Kind::Profiles && processor.writes.iter().any(|topic| topic == CORRECTIONS))
}

/// Checks the processors' tables and gives the graph; problems go to `source`.
pub(super) fn check(header: Range<usize>, tables: &[toml::Spanned<ProcessorTable>], source: &mut Source<'_>) -> Vec<Processor> {
    let mut processors: Vec<Processor> = Vec::new();
    for spanned in tables {
        let table = spanned.get_ref();
        let name = table.name.get_ref();
        if processors.iter().any(|other| other.name == *name) {
            source.report(table.name.span(), format!("there are two processors named `{name}`"), None);
            continue;
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == table.kind.get_ref()) else {
            let kinds = Kind::ALL.map(Kind::as_str);
            let hint = match did_you_mean(table.kind.get_ref(), kinds) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("kinds are {}", kinds.join(", ")),
            };
            source.report(table.kind.span(), format!("unknown kind of processor `{}`", table.kind.get_ref()), Some(hint));
            continue;
        };
        check_topics(table, kind, source);
        let names = |topics: &[toml::Spanned<String>]| topics.iter().map(|topic| topic.get_ref().clone()).collect();
        processors.push(Processor { name: name.clone(), kind, reads: names(&table.reads), writes: names(&table.writes) });
    }
    for kind in [Kind::Intake, Kind::Profiles] {
        if !tables.iter().any(|table| table.get_ref().kind.get_ref() == kind.as_str()) {
            let hint = format!("copy the [[processor]] of kind \"{}\" from topologies/spine.toml", kind.as_str());
            source.report(header.clone(), format!("there is no processor of kind `{}`", kind.as_str()), Some(hint));
        }
    }
    check_writers(tables, &processors, source);
    check_loops(tables, &processors, source);
    processors
}

fn check_topics(table: &ProcessorTable, kind: Kind, source: &mut Source<'_>) {
    let (required, optional) = (kind.required(), kind.optional());
    let sides = [("read", &table.reads, required.0, optional.0), ("write", &table.writes, required.1, optional.1)];
    for (verb, topics, required, optional) in sides {
        for topic in topics {
            let name = topic.get_ref().as_str();
            if !TOPICS.iter().any(|(known, _)| *known == name) {
                let known = TOPICS.map(|(known, _)| known);
                let hint = match did_you_mean(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("topics are {}", known.join(", ")),
                };
                source.report(topic.span(), format!("there is no topic `{name}`"), Some(hint));
            } else if !required.contains(&name) && !optional.contains(&name) {
                let may: Vec<&str> = required.iter().chain(optional).copied().collect();
                let hint = if may.is_empty() { format!("it {verb}s nothing") } else { format!("it may {verb} {}", may.join(", ")) };
                source.report(topic.span(), format!("a processor of kind `{}` does not {verb} `{name}`", kind.as_str()), Some(hint));
            }
        }
        for missing in required.iter().filter(|needed| !topics.iter().any(|topic| topic.get_ref() == *needed)) {
            let message = format!("a processor of kind `{}` must {verb} `{missing}`", kind.as_str());
            source.report(table.name.span(), message, Some(format!("add \"{missing}\" to `{verb}s`")));
        }
    }
}

/// A topic that is read must be filled by someone, from outside or from the graph, and `events` by exactly one intake.
fn check_writers(tables: &[toml::Spanned<ProcessorTable>], processors: &[Processor], source: &mut Source<'_>) {
    for table in tables {
        for topic in &table.get_ref().reads {
            let name = topic.get_ref();
            let from_outside = TOPICS.iter().any(|(known, outside)| known == name && *outside);
            let known = TOPICS.iter().any(|(known, _)| known == name);
            let filled = processors.iter().any(|other| other.name != *table.get_ref().name.get_ref() && other.writes.contains(name));
            if known && !from_outside && !filled {
                let hint = "add the processor that writes it, or do not read it".to_owned();
                source.report(topic.span(), format!("no other processor writes `{name}`, so nothing would ever come"), Some(hint));
            }
        }
    }
    for kind in Kind::ALL {
        let of_kind: Vec<_> = tables.iter().filter(|table| table.get_ref().kind.get_ref() == kind.as_str()).collect();
        if let [_, second, ..] = of_kind.as_slice() {
            let message = format!("a second processor of kind `{}`: its topics would hold every fact twice", kind.as_str());
            source.report(second.get_ref().kind.span(), message, None);
        }
    }
}

/// Refuses a way from a processor through topics back to itself, except a kind's own hand-over.
fn check_loops(tables: &[toml::Spanned<ProcessorTable>], processors: &[Processor], source: &mut Source<'_>) {
    let feeds = |from: &Processor, to: &Processor| {
        let own = (from.name == to.name).then(|| from.kind.hands_over_through()).flatten();
        from.writes.iter().any(|topic| to.reads.contains(topic) && own != Some(topic.as_str()))
    };
    for start in processors {
        // The shortest way back, breadth first; graphs here have a handful of nodes.
        let mut ways: Vec<Vec<&Processor>> = vec![vec![start]];
        let mut seen: Vec<&str> = Vec::new();
        let mut circle = None;
        while circle.is_none() && !ways.is_empty() {
            let mut longer = Vec::new();
            for way in &ways {
                let last = way[way.len() - 1];
                for next in processors.iter().filter(|next| feeds(last, next)) {
                    if next.name == start.name {
                        circle.get_or_insert_with(|| way.clone());
                    } else if !seen.contains(&next.name.as_str()) {
                        seen.push(&next.name);
                        longer.push(way.iter().copied().chain([next]).collect());
                    }
                }
            }
            ways = longer;
        }
        let Some(way) = circle else { continue };
        // Each circle is reported once, at its first processor by name.
        if way.iter().any(|other| other.name < start.name) {
            continue;
        }
        let names: Vec<&str> = way.iter().map(|processor| processor.name.as_str()).chain([start.name.as_str()]).collect();
        let span =
            tables.iter().find(|table| table.get_ref().name.get_ref() == &start.name).map_or(0..0, |table| table.get_ref().name.span());
        let hint = "a record must not come back to where it was made: drop one of these reads or writes".to_owned();
        source.report(span, format!("emit loop: {}", names.join(" -> ")), Some(hint));
    }
}
