//! Files that are checked one after the other: how each is told of, and how the command ends when one has mistakes.
//!
//! What a mistake is, the caller's parser says.

use serde_json::{Value, json};

use super::exit::Exit;
use super::output::{note, outln, print_json};
use crate::segments::{Problem, Problems};

/// A text and what problems call it.
pub struct Text {
    pub file: String,
    pub text: String,
}

/// What is said of a text without mistakes: after its name to people, beside its name to machines.
pub struct Passed {
    pub line: String,
    pub json: Value,
    /// What is no mistake and yet hardly meant.
    pub warnings: Problems,
}

/// Says of each text that it is fine, or what is wrong; fails with all mistakes together if there are any.
pub fn check_each(
    texts: impl IntoIterator<Item = anyhow::Result<Text>>,
    json: bool,
    check: impl Fn(&str, &str) -> Result<Passed, Problems>,
) -> anyhow::Result<()> {
    let (mut problems, mut told) = (Vec::new(), Vec::new());
    for text in texts {
        let Text { file, text } = text?;
        let (mut said, found, warnings) = match check(&file, &text) {
            Ok(passed) => {
                let warnings = passed.warnings.0;
                if !json {
                    warnings.iter().for_each(|warning| note!("warning: {}", warning.to_string().trim_end()));
                    let warned = match warnings.len() {
                        0 => String::new(),
                        1 => ", 1 warning".to_owned(),
                        several => format!(", {several} warnings"),
                    };
                    outln!("{file}: ok: {}{warned}", passed.line);
                }
                (passed.json, Vec::new(), warnings)
            }
            Err(found) => (json!({}), found.0, Vec::new()),
        };
        said["file"] = Value::String(file);
        said["warnings"] = warnings.iter().map(problem).collect();
        said["problems"] = found.iter().map(problem).collect();
        told.push(said);
        problems.extend(found);
    }
    if json {
        print_json(&json!(told));
    }
    if problems.is_empty() { Ok(()) } else { Err(Exit::check_failed(Problems(problems).to_string())) }
}

/// A mistake for machines; whoever tells of several files says which it is in.
pub fn problem(problem: &Problem) -> Value {
    json!({"line": problem.line, "column": problem.column, "reason": problem.message, "hint": problem.hint})
}
