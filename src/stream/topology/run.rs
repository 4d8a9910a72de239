//! Runs `[[test]]` blocks and says what differs, clearly.
//!
//! Whatever can run a topology over records comes in as [`Run`]; the comparison is here.

use std::collections::BTreeMap;
use std::fmt;

use super::Topology;
use super::cases::{Case, Condition, Expect, ExpectedChange, Given};
use super::fields::Field;
use crate::domain::{Millis, Subject};
use crate::segments::{Lookup, Predicate, Value};

/// What became of the records.
pub struct Seen {
    /// How many ended how: the outcomes' names and, beside them, the reasons'.
    pub outcomes: BTreeMap<String, u64>,
    /// In order of time, then as each person's fold decided them.
    pub changes: Vec<Change>,
    /// Each person's values.
    pub profiles: BTreeMap<Subject, Box<dyn Lookup<Field>>>,
}

/// Someone entered or left a segment.
pub type Change = ExpectedChange;

/// Runs a topology from nothing over records, in an event-time namespace, until `until`; every wake due by then has run.
pub trait Run {
    fn run(&self, topology: &Topology, given: &[Given], until: Millis) -> Result<Seen, String>;
}

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub test: String,
    pub line: usize,
    /// What differs, one message each; empty if the test passed.
    pub failures: Vec<String>,
}

/// How all tests of a topology went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub topology: String,
    pub file: String,
    pub verdicts: Vec<Verdict>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.failures.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.verdicts {
            let word = if verdict.failures.is_empty() { "ok  " } else { "FAIL" };
            writeln!(f, "{word} {}:{} {}", self.file, verdict.line, verdict.test)?;
            for failure in &verdict.failures {
                for line in failure.lines() {
                    writeln!(f, "     {line}")?;
                }
            }
        }
        let failed = self.verdicts.iter().filter(|verdict| !verdict.failures.is_empty()).count();
        writeln!(f, "{}: {} tests, {} failed", self.topology, self.verdicts.len(), failed)
    }
}

/// Runs every test of `topology`.
pub fn run(topology: &Topology, file: &str, runner: &dyn Run) -> Report {
    let verdicts =
        topology.tests.iter().map(|case| Verdict { test: case.name.clone(), line: case.line, failures: failures(topology, case, runner) });
    Report { topology: topology.name.clone(), file: file.to_owned(), verdicts: verdicts.collect() }
}

/// Each expectation is about the world as of its own time, so each gets a run that ends there.
fn failures(topology: &Topology, case: &Case, runner: &dyn Run) -> Vec<String> {
    let mut failures = Vec::new();
    for expect in &case.expect {
        let arrived = case.given.iter().take_while(|given| given.received_at <= expect.at).count();
        match runner.run(topology, &case.given[..arrived], expect.at) {
            Ok(seen) => compare(topology, case, expect, &seen, &mut failures),
            Err(error) => failures.push(format!("line {}: the run failed: {error}", expect.line)),
        }
    }
    failures
}

fn compare(topology: &Topology, case: &Case, expect: &Expect, seen: &Seen, failures: &mut Vec<String>) {
    let line = expect.line;
    let since = Since(case.start);
    for (outcome, wanted) in &expect.outcomes {
        let got = seen.outcomes.get(outcome).copied().unwrap_or(0);
        if got != *wanted {
            let all: Vec<String> = seen.outcomes.iter().map(|(name, count)| format!("{name} {count}")).collect();
            failures.push(format!("line {line}: {outcome}: expected {wanted}, got {got} (all outcomes: {})", all.join(", ")));
        }
    }
    for (segment, wanted) in &expect.members {
        let Some(segment) = topology.segments.get(segment) else { continue };
        let is_member = |profile: &dyn Lookup<Field>| segment.evaluate(profile, expect.at);
        let got: Vec<&Subject> = seen.profiles.iter().filter(|(_, profile)| is_member(profile.as_ref())).map(|(who, _)| who).collect();
        let unexpected = got.iter().filter(|who| !wanted.contains(who)).map(|who| format!("+ {} is in it", name(who)));
        let missing = wanted.iter().filter(|who| !got.contains(who));
        let missing = missing.map(|who| match seen.profiles.get(who) {
            Some(profile) => format!("- {} is not: {}", name(who), why(&segment.predicate, profile.as_ref(), expect.at)),
            None => format!("- {} is not: no such person", name(who)),
        });
        let lines: Vec<String> = missing.chain(unexpected).collect();
        if !lines.is_empty() {
            let when = segment.canonical_when();
            failures.push(format!("line {line}: members of {} ({when}) at {}:\n{}", segment.name, since.show(expect.at), lines.join("\n")));
        }
    }
    if let Some(wanted) = &expect.changes {
        compare_changes(line, wanted, seen, &since, failures);
    }
    for (who, conditions) in &expect.profiles {
        let Some(profile) = seen.profiles.get(who) else {
            failures.push(format!("line {line}: there is no profile of {}", name(who)));
            continue;
        };
        for condition in conditions {
            check_condition(who, condition, profile.as_ref(), expect.at, failures);
        }
    }
}

/// Changes are compared as whole lists, but only those of the segments that the expectation names.
fn compare_changes(line: usize, wanted: &[ExpectedChange], seen: &Seen, since: &Since, failures: &mut Vec<String>) {
    let named = |change: &&Change| wanted.iter().any(|wanted| wanted.segment == change.segment);
    let mut got: Vec<&Change> = seen.changes.iter().filter(named).collect();
    let mut wanted: Vec<&Change> = wanted.iter().collect();
    got.sort();
    wanted.sort();
    let missing = wanted.iter().filter(|change| !got.contains(change)).map(|change| (change.at, format!("- {}", since.change(change))));
    let extra = got.iter().filter(|change| !wanted.contains(change)).map(|change| (change.at, format!("+ {}", since.change(change))));
    let mut lines: Vec<(Millis, String)> = missing.chain(extra).collect();
    lines.sort();
    if !lines.is_empty() {
        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        failures.push(format!("line {line}: segment changes (- expected, + got):\n{}", lines.join("\n")));
    }
}

fn check_condition(who: &Subject, condition: &Condition, profile: &dyn Lookup<Field>, at: Millis, failures: &mut Vec<String>) {
    let outcome = condition.predicate.try_evaluate(profile, at);
    if outcome != Some(true) {
        let word = if outcome.is_none() { "unknown" } else { "false" };
        let values = why(&condition.predicate, profile, at);
        failures.push(format!("line {}: {}: {} is {word}: {values}", condition.line, name(who), condition.text));
    }
}

/// The value of every field that a condition names, each once.
fn why(predicate: &Predicate<Field>, profile: &dyn Lookup<Field>, at: Millis) -> String {
    let mut values: Vec<(String, String)> = Vec::new();
    for field in predicate.fields() {
        let value = match profile.value(&field.id, at) {
            Value::Absent => "unknown".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::Time(time) => time.to_string(),
        };
        let name = field.id.to_string();
        // `has(traits.x)` reads a trait as each type that it could be of.
        match values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if known == "unknown" => *known = value,
            Some(_) => {}
            None => values.push((name, value)),
        }
    }
    let values: Vec<String> = values.into_iter().map(|(name, value)| format!("{name} is {value}")).collect();
    if values.is_empty() { "it names no field".to_owned() } else { values.join(", ") }
}

fn name(who: &Subject) -> String {
    match who {
        Subject::User(id) => id.to_string(),
        Subject::Anonymous(_) | Subject::Address(_) => who.to_string(),
    }
}

/// Writes times the way tests do: as lengths after their start.
struct Since(Millis);

impl Since {
    fn show(&self, at: Millis) -> String {
        let mut left = at.since_ms(self.0);
        let sign = if left < 0 { "-" } else { "" };
        left = left.abs();
        let mut parts = Vec::new();
        for (unit, ms) in [("d", crate::domain::DAY_MS), ("h", crate::domain::HOUR_MS), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if left >= ms {
                parts.push(format!("{}{unit}", left / ms));
                left %= ms;
            }
        }
        if parts.is_empty() { "0d".to_owned() } else { format!("{sign}{}", parts.join(" ")) }
    }

    fn change(&self, change: &Change) -> String {
        let verb = if change.entered { "enters" } else { "leaves" };
        format!("{} {} {verb} {}", self.show(change.at), name(&change.subject), change.segment)
    }
}
