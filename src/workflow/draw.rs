//! A workflow drawn: as indented text for a terminal, and as Mermaid for a page.

use std::fmt::Write;

use super::calendar::LocalTime;
use super::definition::{Definition, Effect, EntryBy, Kind, NodeIx, Reenter, Silence, Until};
use super::vocabulary::Performer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Mermaid,
}

pub fn draw(definition: &Definition, drawing: Drawing) -> String {
    match drawing {
        Drawing::Text => text(definition),
        Drawing::Mermaid => mermaid(definition),
    }
}

fn entry(definition: &Definition) -> String {
    let by = match &definition.entry.by {
        EntryBy::Segment(segment) => format!("enters segment {segment}"),
        EntryBy::Event(event) => format!("event {event}"),
        EntryBy::Command => "command".to_owned(),
        EntryBy::Schedule { every_ms, .. } => format!("every {}", length(*every_ms)),
        EntryBy::Broadcast { segment, .. } => format!("broadcast to {segment}"),
    };
    let when = definition.entry.when.as_ref().map(|when| format!(" when {}", when.text())).unwrap_or_default();
    let key = definition.entry.key.as_ref().map(|key| format!(", one run per {}", key.text())).unwrap_or_default();
    let again = match definition.entry.reenter {
        Reenter::WhenEnded => String::new(),
        Reenter::Never => ", once".to_owned(),
        Reenter::Always => ", again and again".to_owned(),
        Reenter::After { ms } => format!(", again after {}", length(ms)),
    };
    format!("{by}{when}{key}{again}")
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn local(local: &LocalTime) -> String {
    let days: Vec<&str> = DAYS.into_iter().enumerate().filter(|(bit, _)| local.weekdays & (1 << bit) != 0).map(|(_, day)| day).collect();
    let days = if days.len() == DAYS.len() { String::new() } else { format!(" on {}", days.join(" ")) };
    format!("until {:02}:{:02} local{days}, or in {}", local.hour, local.minute, local.fallback)
}

/// What a message is written from and for.
fn message(effect: &Effect) -> String {
    let template = effect.input.iter().find(|(name, _)| name == "template").map(|(_, expr)| format!(", template {}", expr.text()));
    format!("{}{}, {}", effect.target, template.unwrap_or_default(), effect.purpose)
}

fn silence(silence: Silence) -> &'static str {
    match silence {
        Silence::Approves => "approves",
        Silence::Rejects => "rejects",
        Silence::Pauses => "pauses",
    }
}

/// The largest units that a length is a whole number of.
fn length(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0).map_or(format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn detail(kind: &Kind) -> String {
    match kind {
        Kind::Effect(effect) if effect.by == Performer::Channel => message(effect),
        Kind::Effect(effect) => effect.target.clone(),
        Kind::Delay { until: Until::For { ms }, .. } => length(*ms),
        Kind::Delay { until: Until::Local(time), .. } => local(time),
        Kind::Delay { until: Until::Date { when, offset_ms }, .. } => match offset_ms {
            0 => format!("until {}", when.text()),
            ms if *ms < 0 => format!("until {} - {}", when.text(), length(-ms)),
            ms => format!("until {} + {}", when.text(), length(*ms)),
        },
        Kind::WaitFor { timeout_ms, .. } => format!("at most {}", length(*timeout_ms)),
        Kind::Approval(approval) => {
            format!("by {} within {}, silence {}", approval.who, length(approval.deadline_ms), silence(approval.silence))
        }
        Kind::Start(start) => start.workflow.clone(),
        Kind::Emit { event, .. } => event.clone(),
        Kind::Set { vars, .. } => vars.iter().map(|(name, expr)| format!("{name} = {}", expr.text())).collect::<Vec<_>>().join(", "),
        Kind::Exit { outcome, failed } => if *failed { format!("failed {outcome}") } else { outcome.clone() }.trim().to_owned(),
        Kind::Branch { .. } | Kind::Split { .. } | Kind::Parallel { .. } | Kind::Join { .. } | Kind::Loop { .. } => String::new(),
    }
}

fn name(definition: &Definition, at: NodeIx) -> &str {
    definition.node(at).map_or("?", |node| &node.name)
}

fn text(definition: &Definition) -> String {
    let mut out = format!("{} ({})\n", definition.name, &definition.digest.to_hex()[..12]);
    let _ = writeln!(out, "  {} -> {}", entry(definition), name(definition, definition.first));
    for node in &definition.nodes {
        let detail = detail(&node.kind);
        let gap = if detail.is_empty() { "" } else { " " };
        let about = if node.about.is_empty() { String::new() } else { format!(": {}", node.about) };
        let _ = writeln!(out, "  {} [{}{gap}{detail}]{about}", node.name, node.kind.word());
        for (label, to) in node.kind.ways() {
            let label = if label.is_empty() { String::new() } else { format!("{label}: ") };
            let _ = writeln!(out, "    {label}-> {}", name(definition, to));
        }
    }
    for goal in &definition.goals {
        let to = goal.next.map_or("ends the run".to_owned(), |to| format!("-> {}", name(definition, to)));
        let _ = writeln!(out, "  goal {} [{}] {to}", goal.name, goal.event);
    }
    if let Some(to) = definition.on_failure {
        let _ = writeln!(out, "  failures -> {}", name(definition, to));
    }
    out
}

fn mermaid(definition: &Definition) -> String {
    // Mermaid takes no quotes within quotes.
    let plain = |text: &str| text.replace('"', "'");
    let mut out = "flowchart TD\n".to_owned();
    let _ = writeln!(out, "  entry_([\"{}\"]) --> {}", plain(&entry(definition)), name(definition, definition.first));
    for node in &definition.nodes {
        let label = plain(format!("{}<br/>{} {}", node.name, node.kind.word(), detail(&node.kind)).trim_end());
        let (open, close) = match node.kind {
            Kind::Branch { .. } | Kind::Split { .. } | Kind::Loop { .. } => ("{", "}"),
            Kind::Exit { .. } => ("([", "])"),
            _ => ("[", "]"),
        };
        let _ = writeln!(out, "  {}{open}\"{label}\"{close}", node.name);
    }
    for node in &definition.nodes {
        for (label, to) in node.kind.ways() {
            let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", plain(&label)) };
            let _ = writeln!(out, "  {} -->{label} {}", node.name, name(definition, to));
        }
    }
    for goal in &definition.goals {
        let to = goal.next.map_or("end_".to_owned(), |to| name(definition, to).to_owned());
        let _ = writeln!(out, "  {}([\"goal {}\"]) -.-> {to}", goal.name, plain(&goal.event));
    }
    out
}
