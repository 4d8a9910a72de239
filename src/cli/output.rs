//! How commands print: tables for people, JSON or CSV for machines, plots where one would look rather than read.
//!
//! Results go to standard output, everything said along the way to standard error, so that a pipe gets only results.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process;

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use serde_json::Value;

/// Prints to standard output, as `print!` does, but a reader that goes away (`| head`) ends the command with 0: it has what it wanted.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::print(format_args!($($text)*)) };
}

/// The same with a line's end.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// Says something along the way, on standard error. That nobody listens there is no reason to stop.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::output::say(format_args!($($text)*)) };
}

pub(crate) use {note, out, outln};

/// What `out!` and `outln!` stand for.
pub fn print(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => process::exit(0),
        Err(error) => {
            say(format_args!("error: cannot write to standard output: {error}"));
            process::exit(1);
        }
    }
}

/// What `note!` stands for.
pub fn say(text: fmt::Arguments<'_>) {
    // There is nobody left to tell that nobody could be told.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Columns and rows of any result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    pub fn push(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len(), "a row has a value for each column");
        self.rows.push(row);
    }

    /// A table for people; numbers to the right.
    pub fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(&self.columns);
        table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
        if std::io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for row in &self.rows {
            table.add_row(row.iter().map(text));
        }
        for at in 0..self.columns.len() {
            let numeric = self.rows.iter().all(|row| row[at].is_number() || row[at].is_null());
            if numeric && let Some(column) = table.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    pub fn to_csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.columns)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(text))?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    /// An array of objects, keys in column order.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect());
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// Prints as JSON if asked, else as a table.
    pub fn print(&self, json: bool) {
        if json { print_json(&self.to_json()) } else { outln!("{}", self.to_table()) }
    }
}

pub fn print_json(value: &Value) {
    outln!("{}", serde_json::to_string_pretty(value).expect("JSON values always print"));
}

/// Text of a JSON value without quotes around strings; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A line per point of a series with a bar, for histories of a few dozen points.
pub fn bars(points: &[(String, f64)], width: usize) -> String {
    let most = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let label_width = points.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (label, value) in points {
        let eighths = if most > 0.0 { (value / most * width as f64 * 8.0).round() as usize } else { 0 };
        let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = format!("{}{partial}", "█".repeat(eighths / 8));
        out.push_str(&format!("{label:<label_width$} {bar:<width$} {}\n", grouped(value.max(0.0) as u64)));
    }
    out
}

/// A series as one character a point, scaled to its largest.
pub fn spark(values: &[f64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let step = |value: &f64| if most > 0.0 { STEPS[(value / most * 7.0).round() as usize] } else { STEPS[0] };
    values.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_rows_print_as_csv_and_json() {
        let mut rows = Rows::new(&["user", "orders"]);
        rows.push(vec![json!("00001"), json!(1)]);
        rows.push(vec![json!("a,b"), Value::Null]);
        assert_eq!(rows.to_csv().unwrap(), "user,orders\n00001,1\n\"a,b\",\n");
        assert_eq!(rows.to_json(), json!([{"user": "00001", "orders": 1}, {"user": "a,b", "orders": null}]));
    }

    #[test]
    fn bars_scale_to_the_longest() {
        let drawn = bars(&[("1997-01".into(), 10.0), ("1997-02".into(), 1234.0)], 8);
        assert_eq!(drawn, "1997-01 ▏        10\n1997-02 ████████ 1,234\n");
    }

    #[test]
    fn a_spark_line_reaches_from_nothing_to_its_largest() {
        assert_eq!(spark(&[0.0, 1.0, 7.0]), "▁▂█");
        assert_eq!(spark(&[0.0, 0.0]), "▁▁");
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
