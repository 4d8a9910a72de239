//! A run's or a subject's story: the lines of its journal, read from the topic itself.
//!
//! A partition holds many subjects' facts, so a story is looked for from where its run begins; a subject's own from the partition's start.

use serde::Serialize;

use super::text;
use crate::domain::{Millis, Offset};
use crate::log::{self, LogReader, TopicPartition};
use crate::projections::Error;
use crate::schema;
use crate::schema::records::JournalRecord;
use crate::workflow::{Fact, RunId, Story, What};

/// Bytes per fetch.
const FETCH_BYTES: usize = 1 << 20;

/// One fact as a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    #[serde(serialize_with = "text")]
    pub at: Millis,
    /// The run that it is about; none for what belongs to the subject.
    pub run: Option<String>,
    pub line: String,
    /// The fact's name, such as `effect_completed`.
    pub kind: String,
    pub offset: u64,
}

/// Facts to lines; of one run only, or of all of its subject.
#[derive(Debug, Default)]
pub struct Teller {
    story: Story,
    run: Option<RunId>,
}

impl Teller {
    pub fn of(run: Option<RunId>) -> Self {
        Self { story: Story::default(), run }
    }

    /// `None` if it is about another run.
    pub fn line(&mut self, fact: &Fact, kind: &str, offset: Offset) -> Option<Line> {
        let line = self.story.line(fact);
        let about = match &fact.what {
            What::EffectSettled { run, .. } => Some(*run),
            _ => fact.run,
        };
        if self.run.is_some() && about != self.run {
            return None;
        }
        Some(Line { at: fact.at, run: about.map(|run| run.to_string()), line, kind: kind.to_owned(), offset: offset.0 })
    }
}

/// Where a story is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub from: Offset,
    /// How many lines there are, if that is known: past them nothing is read. To the partition's end otherwise.
    pub facts: Option<u64>,
}

/// The lines of `key`'s journal in a stretch, oldest first, at most `limit` after leaving out `skip`. Where the journal is damaged a line says
/// what is missing.
pub fn story(
    log: &dyn LogReader,
    journal: TopicPartition,
    key: &[u8],
    run: Option<RunId>,
    stretch: Stretch,
    (skip, limit): (u64, usize),
) -> Result<Vec<Line>, Error> {
    let marks = log.watermarks(journal)?;
    let mut next = stretch.from.max(marks.start);
    let (mut teller, mut lines, mut left) = (Teller::of(run), Vec::new(), skip);
    let mut seen = 0;
    while next < marks.end && lines.len() < limit && stretch.facts.is_none_or(|facts| seen < facts) {
        let fetched = match log.fetch(journal, next, FETCH_BYTES) {
            // As the read models do: everything else stays readable.
            Err(log::Error::Hole { from, to, .. }) if to > next => {
                if left == 0 {
                    lines.push(damaged(from.max(next), to, &lines));
                }
                next = to;
                continue;
            }
            fetched => fetched?,
        };
        for record in fetched.records().filter(|record| record.key == key) {
            let JournalRecord::Fact(fact) = schema::decode(record.value.unwrap_or_default())? else { continue };
            let kind = fact.body.split('"').nth(1).unwrap_or_default();
            let line = match Fact::from_parts(Millis(fact.at), fact.run, fact.body) {
                Ok(told) => teller.line(&told, kind, record.offset),
                // A later build's: that it is there is worth a line.
                Err(error) => Some(Line {
                    at: Millis(fact.at),
                    run: (!fact.run.is_empty()).then(|| fact.run.to_owned()),
                    line: format!("{} ({error})", kind.replace('_', " ")),
                    kind: kind.to_owned(),
                    offset: record.offset.0,
                }),
            };
            let Some(line) = line else { continue };
            seen += 1;
            if left > 0 {
                left -= 1;
            } else if lines.len() < limit {
                lines.push(line);
            }
        }
        if fetched.next <= next {
            break;
        }
        next = fetched.next;
    }
    Ok(lines)
}

fn damaged(from: Offset, to: Offset, before: &[Line]) -> Line {
    let line = format!("records {from} to {to} of the journal are damaged: what was decided there about this and others is not known");
    Line { at: before.last().map_or(Millis(0), |line| line.at), run: None, line, kind: "damaged".to_owned(), offset: from.0 }
}
