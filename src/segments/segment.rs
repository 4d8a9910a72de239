//! A named predicate with its digest, and the set of them that a topology declares.

use std::sync::Arc;

use super::catalog::{Catalog, Lookup};
use super::check::compile;
use super::error::Error;
use super::predicate::Predicate;
use crate::domain::{Digest, Millis};

/// A segment: everyone for whom `when` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment<F> {
    pub name: Arc<str>,
    /// What it means, for people.
    pub about: String,
    /// The expression as written.
    pub when: String,
    /// Of the name and the expression without its layout: a comment or a line break changes nobody's membership.
    pub digest: Digest,
    pub predicate: Predicate<F>,
}

impl<F: Clone + PartialEq> Segment<F> {
    pub fn compile(name: &str, about: &str, when: &str, catalog: &impl Catalog<Id = F>) -> Result<Self, Error> {
        let predicate = compile(when, catalog)?;
        let digest = Digest::of(canonical(name, when).as_bytes());
        Ok(Self { name: Arc::from(name), about: about.to_owned(), when: when.to_owned(), digest, predicate })
    }
}

impl<F> Segment<F> {
    pub fn evaluate(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> bool {
        self.predicate.evaluate(lookup, now)
    }

    pub fn evaluate_until(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> (bool, Millis) {
        self.predicate.evaluate_until(lookup, now)
    }

    pub fn next_flip(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> Option<Millis> {
        self.predicate.next_flip(lookup, now)
    }

    pub fn next_flip_by(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis, horizon: Millis) -> Option<Millis> {
        self.predicate.next_flip_by(lookup, now, horizon)
    }

    pub fn depends_on(&self) -> u64 {
        self.predicate.depends_on()
    }

    /// Whether it can flip while nothing happens.
    pub fn moves(&self) -> bool {
        self.predicate.moves()
    }

    /// The expression without its layout and comments: what the digest sees of it.
    pub fn canonical_when(&self) -> String {
        without_layout(&self.when)
    }
}

/// The text that the digest is of: a JSON array, so that no name can run into an expression.
fn canonical(name: &str, when: &str) -> String {
    serde_json::to_string(&["segment", name, &without_layout(when)]).expect("strings are JSON")
}

/// The expression with white space and comments outside of text literals reduced to single spaces.
fn without_layout(when: &str) -> String {
    let mut out = String::with_capacity(when.len());
    let mut quote: Option<char> = None;
    let mut chars = when.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) => {
                out.push(c);
                if c == '\\' {
                    out.extend(chars.next());
                } else if c == open {
                    quote = None;
                }
            }
            None if c == '/' && chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|next| *next != '\n') {
                    chars.next();
                }
            }
            None if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            None => {
                if c == '"' || c == '\'' {
                    quote = Some(c);
                }
                out.push(c);
            }
        }
    }
    out.trim_end().to_owned()
}

/// The segments in force, in order of their names: the order of changes that one event causes.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentSet<F> {
    segments: Vec<Segment<F>>,
    digest: Digest,
}

impl<F> Default for SegmentSet<F> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<F> SegmentSet<F> {
    /// Of segments whose names differ; the topology's checks see to that.
    pub fn new(mut segments: Vec<Segment<F>>) -> Self {
        segments.sort_by(|a, b| a.name.cmp(&b.name));
        let mut canonical = Vec::new();
        for segment in &segments {
            canonical.extend_from_slice(&segment.digest.0);
        }
        Self { digest: Digest::of(&canonical), segments }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Segment<F>> {
        self.segments.iter()
    }

    pub fn as_slice(&self) -> &[Segment<F>] {
        &self.segments
    }

    pub fn get(&self, name: &str) -> Option<&Segment<F>> {
        self.segments.binary_search_by(|segment| (*segment.name).cmp(name)).ok().map(|at| &self.segments[at])
    }

    pub fn len(&self) -> usize {
        self.segments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The groups that any of them depends on.
    pub fn depends_on(&self) -> u64 {
        self.segments.iter().fold(0, |groups, segment| groups | segment.depends_on())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_comments_do_not_count_but_text_does() {
        let same = ["a > 1 && b == \"x  y\"", "a > 1\n  && // both\n b == \"x  y\" "];
        assert_eq!(without_layout(same[0]), without_layout(same[1]));
        assert_ne!(without_layout("b == \"x  y\""), without_layout("b == \"x y\""));
        assert_eq!(without_layout(r#"b == "\"//" "#), r#"b == "\"//""#);
    }
}
