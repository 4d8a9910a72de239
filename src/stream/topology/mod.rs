//! Topologies: which processors there are, what features, scores and segments mean here, and tests that say what all of it does.
//!
//! Owns the file's form, its checks and its digests. A topology that parses is valid as a whole: every expression is typed, every
//! topic is filled, no record runs in circles. Running one belongs to the partition loops beside this module.

mod cases;
mod document;
mod draw;
mod fields;
mod graph;
mod load;
mod run;
mod settings;

use std::collections::BTreeMap;

pub use crate::segments::{Problem, Problems};
pub use cases::{Case, Condition, Expect, ExpectedChange, Given};
pub use draw::Drawing;
pub use fields::{Field, Fields, Person};
pub use graph::{Kind, Processor};
pub use load::{Error, SHIPPED, check, load, shipped, show, test};
pub use run::{Change, Report, Run, Seen, Verdict, run};

use self::document::{Document, Header, SegmentTable};
use self::settings::Settings;
use crate::domain::Digest;
use crate::segments::Source;
use crate::segments::{Segment, SegmentSet};
use crate::{features, intake, models};

/// A checked topology.
#[derive(Debug, Clone)]
pub struct Topology {
    pub name: String,
    /// What it is for, for people.
    pub about: String,
    pub processors: Vec<Processor>,
    pub intake: intake::Settings,
    /// As written, and compiled.
    pub features: features::Settings,
    pub rules: features::Rules,
    /// As written, and compiled.
    pub scores: models::Settings,
    pub models: models::Models,
    pub segments: SegmentSet<Field>,
    pub tests: Vec<Case>,
    /// The text that [`Topology::digest`] is of: the same topology without comments, layout and tests, every default written out.
    /// It parses to the same topology, so `definitions` keeps it.
    pub canonical: String,
    pub digest: Digest,
    /// The digest of each part (`processors`, `intake`, `features`, `scores`, `segments`), to tell what a change touches.
    pub parts: BTreeMap<&'static str, Digest>,
}

impl Topology {
    /// Whether the profile fold writes `corrections`.
    pub fn wants_corrections(&self) -> bool {
        graph::wants_corrections(&self.processors)
    }

    /// Reads and checks a topology; `file` is what problems call it.
    pub fn parse(file: &str, text: &str) -> Result<Topology, Problems> {
        let mut source = Source::new(file, text);
        let topology = match toml::from_str::<Document>(text) {
            Ok(document) => Some(assemble(document, &mut source)),
            Err(error) => {
                source.report_toml(&error);
                None
            }
        };
        source.finish(topology)
    }
}

fn assemble(document: Document, source: &mut Source<'_>) -> Topology {
    let name = &document.topology.name;
    if crate::domain::Namespace::new(name.get_ref()).is_err() {
        source.report(name.span(), format!("{:?} is not a name: a-z, 0-9, `_` and `-`", name.get_ref()), None);
    }
    let processors = graph::check(name.span(), &document.processors, source);
    let settings = settings::check(document.intake.as_ref(), document.features.as_ref(), document.scores.as_ref(), source);
    let fields = Fields::new(&settings.rules);
    let segments = check_segments(&document.segments, &fields, source);
    let names: Vec<String> = document.segments.iter().map(|segment| segment.name.get_ref().clone()).collect();
    let tests = cases::check(&document.tests, &cases::Known { segments: &names, fields: &fields }, source);
    let mut parts = BTreeMap::new();
    parts.insert("processors", digest_of(&document.processors));
    parts.insert("intake", digest_of(&settings.intake));
    parts.insert("features", digest_of(&settings.features));
    parts.insert("scores", digest_of(&settings.scores));
    parts.insert("segments", segments.digest());
    let canonical = canonical(&document, &settings, &segments);
    Topology {
        name: document.topology.name.get_ref().clone(),
        about: document.topology.about,
        processors,
        intake: settings.intake,
        features: settings.features,
        rules: settings.rules,
        scores: settings.scores,
        models: settings.models,
        segments,
        tests,
        digest: Digest::of(canonical.as_bytes()),
        canonical,
        parts,
    }
}

fn digest_of(part: &impl serde::Serialize) -> Digest {
    Digest::of(serde_json::to_string(part).expect("settings are plain data").as_bytes())
}

fn check_segments(tables: &[SegmentTable], fields: &Fields, source: &mut Source<'_>) -> SegmentSet<Field> {
    let mut segments: Vec<Segment<Field>> = Vec::new();
    for table in tables {
        let (name, when) = (table.name.get_ref(), table.when.get_ref());
        if crate::domain::Namespace::new(name).is_err() {
            let hint = "names are a-z, 0-9, `_` and `-`: they become columns and metric labels".to_owned();
            source.report(table.name.span(), format!("{name:?} is not a segment's name"), Some(hint));
        }
        if segments.iter().any(|other| *other.name == **name) {
            source.report(table.name.span(), format!("there are two segments named `{name}`"), None);
            continue;
        }
        match Segment::compile(name, &table.about, when, fields) {
            Ok(segment) => segments.push(segment),
            Err(error) => {
                let is_segment = tables.iter().any(|other| error.message == format!("unknown field `{}`", other.name.get_ref()));
                let error = match is_segment {
                    true => {
                        crate::segments::Error { hint: Some("a segment cannot name another: repeat its condition".to_owned()), ..error }
                    }
                    false => error,
                };
                source.report_expression(table.when.span(), when, &error);
            }
        }
    }
    SegmentSet::new(segments)
}

fn canonical(document: &Document, settings: &Settings, segments: &SegmentSet<Field>) -> String {
    let unplaced = |text: &str| toml::Spanned::new(0..0, text.to_owned());
    let segments = segments.iter().map(|segment| SegmentTable {
        name: unplaced(&segment.name),
        about: String::new(),
        when: unplaced(&segment.canonical_when()),
    });
    let plain = Document {
        topology: Header { name: document.topology.name.clone(), about: String::new() },
        processors: document.processors.clone(),
        intake: Some(toml::Spanned::new(0..0, settings.intake.clone())),
        features: Some(toml::Spanned::new(0..0, settings.features.clone())),
        scores: Some(toml::Spanned::new(0..0, settings.scores.clone())),
        segments: segments.collect(),
        tests: Vec::new(),
    };
    toml::to_string(&plain).expect("a topology is plain data")
}
