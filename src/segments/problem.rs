//! What is wrong with a definition in TOML (a topology, a workflow), where in its file, and what to write instead.

use std::fmt;
use std::ops::Range;

use super::error::did_you_mean;

/// One thing wrong, shown with the line it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; columns count characters.
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
    /// The line of the file and how many of its characters are meant.
    excerpt: String,
    width: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if !self.excerpt.trim().is_empty() {
            let number = self.line.to_string();
            let indent: String = self.excerpt.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "{number} | {}", self.excerpt)?;
            writeln!(f, "{} | {indent}{}", " ".repeat(number.len()), "^".repeat(self.width.max(1)))?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything wrong with one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "{problem}"))
    }
}

/// A file being checked: its name, its text, and what was found so far.
pub struct Source<'s> {
    pub file: &'s str,
    pub text: &'s str,
    found: Vec<(usize, Problem)>,
    is_stored: bool,
}

impl<'s> Source<'s> {
    pub fn new(file: &'s str, text: &'s str) -> Self {
        Self { file, text, found: Vec::new(), is_stored: false }
    }

    /// A text that was checked when it was stored, by a build that may have had fewer rules.
    pub fn stored(file: &'s str, text: &'s str) -> Self {
        Self { is_stored: true, ..Self::new(file, text) }
    }

    /// Notes that a rule is broken which changes nothing of what the text means: of what was stored it is not asked any more.
    pub fn report_rule(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        if !self.is_stored {
            self.report(span, message, hint);
        }
    }

    /// The line, from 1, that the byte at `start` is in.
    pub fn line(&self, start: usize) -> usize {
        self.text[..start.min(self.text.len())].matches('\n').count() + 1
    }

    /// Notes a problem with the bytes of `span`.
    pub fn report(&mut self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        let start = span.start.min(self.text.len());
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let excerpt = self.text[line_start..].lines().next().unwrap_or("");
        let line_end = line_start + excerpt.len();
        let width = self.text.get(start..span.end.clamp(start, line_end.max(start))).map_or(1, |meant| meant.chars().count());
        let problem = Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            hint,
            excerpt: excerpt.to_owned(),
            width,
        };
        self.found.push((start, problem));
    }

    /// Whether nothing was reported so far.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes a problem with an expression that stands as the TOML string at `span`.
    pub fn report_expression(&mut self, span: Range<usize>, expression: &str, error: &super::error::Error) {
        let message = error.message.clone();
        let within = match self.inside_string(&span, expression) {
            Some(start) => start + error.start..start + error.end,
            None => span,
        };
        self.report(within, message, error.hint.clone());
    }

    /// Notes what the TOML reader refused.
    pub fn report_toml(&mut self, error: &toml::de::Error) {
        let message = error.message().trim().replace('\n', ", ");
        let span = error.span().unwrap_or(0..0);
        let is_number = ["invalid type: integer", "invalid type: float", "invalid type: boolean"].iter().any(|it| message.starts_with(it));
        if is_number && message.contains("expected a string") {
            let written = self.text.get(span.clone()).unwrap_or("..").trim();
            let hint = format!("a value here is an expression, and stands in quotes: `\"{written}\"`");
            return self.report(span, message, Some(hint));
        }
        let Some((wrong, known)) = unknown_name(&message) else { return self.report(span, message, None) };
        let what = if message.starts_with("unknown variant") { "unknown value" } else { "unknown field" };
        let hint = match did_you_mean(wrong, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "this table has no fields".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        self.report(span, format!("{what} `{wrong}`"), Some(hint));
    }

    /// Where the value of a TOML string begins in the file; `None` if escapes keep it from standing there as it is.
    fn inside_string(&self, span: &Range<usize>, value: &str) -> Option<usize> {
        let raw = self.text.get(span.clone())?;
        let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
        let newline = match &raw.as_bytes()[quotes..] {
            _ if quotes == 1 => 0,
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        raw.get(quotes + newline..)?.starts_with(value).then_some(span.start + quotes + newline)
    }

    /// `value`, or everything that was found, in the order of the file.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.found()),
        }
    }

    /// Everything that was found, in the order of the file.
    pub fn found(mut self) -> Problems {
        self.found.sort_by_key(|(start, _)| *start);
        Problems(self.found.into_iter().map(|(_, problem)| problem).collect())
    }
}

/// Takes serde's "unknown field `a`, expected one of `b`, `c`" apart.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (wrong, rest) = rest.split_once('`')?;
    Some((wrong, rest.split('`').skip(1).step_by(2).collect()))
}
