//! Draws a topology: as text for a terminal, or as Mermaid for documents.

use std::fmt::Write;

use super::Topology;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    Text,
    Mermaid,
}

pub(super) fn draw(topology: &Topology, drawing: Drawing) -> String {
    match drawing {
        Drawing::Text => text(topology),
        Drawing::Mermaid => mermaid(topology),
    }
}

fn text(topology: &Topology) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes what is written");
    line(format!("topology {} ({})", topology.name, &topology.digest.to_hex()[..12]));
    for about in topology.about.lines() {
        line(format!("  {about}"));
    }
    for processor in &topology.processors {
        line(String::new());
        let width = processor.reads.iter().map(String::len).max().unwrap_or(0);
        let name = format!("[{}]", processor.name);
        for row in 0..processor.reads.len().max(processor.writes.len()).max(1) {
            let read = processor.reads.get(row).map_or("", String::as_str);
            let middle = if row == 0 { name.clone() } else { " ".repeat(name.len()) };
            let (into, out_of) = (if read.is_empty() { "    " } else { "--> " }, if row < processor.writes.len() { " --> " } else { "" });
            let written = processor.writes.get(row).map_or("", String::as_str);
            line(format!("  {read:width$} {into}{middle}{out_of}{written}").trim_end().to_owned());
        }
    }
    if !topology.segments.is_empty() {
        line(String::new());
        line("segments".to_owned());
        let width = topology.segments.iter().map(|segment| segment.name.len()).max().unwrap_or(0);
        for segment in topology.segments.iter() {
            line(format!("  {:width$}  {}", segment.name, segment.canonical_when()));
            if !segment.about.is_empty() {
                line(format!("  {:width$}  {}", "", segment.about));
            }
        }
    }
    out
}

fn mermaid(topology: &Topology) -> String {
    let mut out = String::from("flowchart LR\n");
    let mut line = |text: String| writeln!(out, "    {text}").expect("a string takes what is written");
    let mut topics: Vec<&str> = Vec::new();
    for processor in &topology.processors {
        for topic in processor.reads.iter().chain(&processor.writes) {
            if !topics.contains(&topic.as_str()) {
                topics.push(topic);
            }
        }
    }
    for topic in &topics {
        line(format!("topic_{topic}[({topic})]"));
    }
    for processor in &topology.processors {
        let id = processor.name.replace('-', "_");
        line(format!("{id}[{}]", processor.name));
        for topic in &processor.reads {
            line(format!("topic_{topic} --> {id}"));
        }
        for topic in &processor.writes {
            line(format!("{id} --> topic_{topic}"));
        }
    }
    for segment in topology.segments.iter() {
        // Mermaid reads quotes as the label's end and takes entities for them.
        let when = segment.canonical_when().replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
        let id = segment.name.replace('-', "_");
        line(format!("segment_{id}([\"{}: {when}\"])", segment.name));
        line(format!("topic_segment_changes -.- segment_{id}"));
    }
    out
}
