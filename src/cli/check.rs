//! Files that are checked one after the other: how each is told of, and how the command ends when one has mistakes.
//!
//! What a mistake is, the caller's parser says.

use serde_json::{Value, json};

use super::exit::Exit;
use super::output::{outln, print_json};
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
        let (mut said, found) = match check(&file, &text) {
            Ok(passed) => {
                if !json {
                    outln!("{file}: ok: {}", passed.line);
                }
                (passed.json, Vec::new())
            }
            Err(found) => (json!({}), found.0),
        };
        said["file"] = Value::String(file);
        said["problems"] = found.iter().map(problem).collect();
        told.push(said);
        problems.extend(found);
    }
    if json {
        print_json(&json!(told));
    }
    if problems.is_empty() { Ok(()) } else { Err(Exit::check_failed(Problems(problems).to_string())) }
}

fn problem(problem: &Problem) -> Value {
    json!({"line": problem.line, "column": problem.column, "reason": problem.message, "hint": problem.hint})
}
