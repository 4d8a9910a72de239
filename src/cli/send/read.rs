//! Files as events: NDJSON lines as they are, CSV rows through a mapping of columns to event fields.
//!
//! A mapping is `FIELD=COLUMN`, or `FIELD='constant'`; FIELD is a path such as `userId`, `timestamp`, `properties.total` or
//! `context.locale`. Columns that no mapping names become properties under their own names. Numbers stay as they are written.
//!
//! A row without a message id gets one here: of what it says and of how many like it came before in the same input. Two equal rows are
//! then two events, and the same file sent again is recognised row by row.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use crate::cli::args::FileFormat;
use crate::domain::{Digest, Millis};

/// An event ready to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose order must be kept.
    pub person: String,
    pub time: Option<Millis>,
    pub json: String,
}

#[derive(Debug, Clone, PartialEq)]
enum From {
    Column(String),
    Constant(String),
}

/// Which column fills which field.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping(Vec<(Vec<String>, From)>);

impl Mapping {
    pub fn parse(texts: &[String]) -> anyhow::Result<Self> {
        let mut fields = Vec::new();
        for text in texts {
            let (field, from) = text.split_once('=').with_context(|| format!("--map {text:?} wants FIELD=COLUMN"))?;
            let quoted = from.strip_prefix(['\'', '"']).and_then(|rest| rest.strip_suffix(['\'', '"']));
            let from = quoted.map_or_else(|| From::Column(from.to_owned()), |constant| From::Constant(constant.to_owned()));
            fields.push((field.split('.').map(str::to_owned).collect(), from));
        }
        Ok(Self(fields))
    }
}

pub struct Source {
    input: Box<dyn BufRead>,
    format: FileFormat,
}

impl Source {
    pub fn open(path: &Path, format: Option<FileFormat>) -> anyhow::Result<Self> {
        let mut name = path.to_string_lossy().into_owned();
        let raw: Box<dyn Read> = if name == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {name}"))?)
        };
        let input: Box<dyn Read> = match name.strip_suffix(".gz") {
            Some(stem) => {
                name = stem.to_owned();
                Box::new(GzDecoder::new(raw))
            }
            None => raw,
        };
        let format = format.unwrap_or(if name.ends_with(".csv") { FileFormat::Csv } else { FileFormat::Ndjson });
        Ok(Self { input: Box::new(BufReader::new(input)), format })
    }

    #[cfg(test)]
    fn text(text: &'static str, format: FileFormat) -> Self {
        Self { input: Box::new(text.as_bytes()), format }
    }
}

/// Every event of the source, in its order; an error names the line.
pub fn events<'m>(source: Source, mapping: &'m Mapping) -> Box<dyn Iterator<Item = anyhow::Result<Event>> + 'm> {
    let mut seen = Seen::default();
    match source.format {
        FileFormat::Ndjson => Box::new(
            source
                .input
                .lines()
                .enumerate()
                .filter(|(_, line)| line.as_ref().map_or(true, |line| !line.trim().is_empty()))
                .map(move |(at, line)| ndjson_event(&line?, &mut seen).with_context(|| format!("line {}", at + 1))),
        ),
        FileFormat::Csv => csv_events(source.input, mapping, seen),
    }
}

/// How often each row without a message id has come, by half of its hash: 20 bytes a row, whatever the row's length.
#[derive(Default)]
struct Seen(HashMap<[u8; 16], u32>);

impl Seen {
    /// The message id of the next row that says this.
    fn message_id(&mut self, event: &Value) -> String {
        let digest = Digest::of(event.to_string().as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&digest.0[..16]);
        let times = self.0.entry(half).or_default();
        *times += 1;
        format!("row-{}-{times}", &digest.to_hex()[..32])
    }
}

fn lacks_message_id(event: &Value) -> bool {
    match &event["messageId"] {
        Value::String(id) => id.is_empty(),
        Value::Number(_) => false,
        _ => true,
    }
}

fn ndjson_event(line: &str, seen: &mut Seen) -> anyhow::Result<Event> {
    let mut event: Value = serde_json::from_str(line).context("not JSON")?;
    if !event.is_object() {
        bail!("an event is a JSON object");
    }
    let mut json = line.trim().to_owned();
    let (person, time) = (person_of(&event)?, time_of(&event));
    if lacks_message_id(&event) {
        let id = seen.message_id(&event);
        if event.as_object().is_some_and(|members| members.contains_key("messageId")) {
            event["messageId"] = json!(id);
            json = event.to_string();
        } else {
            // The rest of the line goes out as it was written, numbers with all their digits.
            json.insert_str(1, &format!("\"messageId\":\"{id}\","));
        }
    }
    Ok(Event { person, time, json })
}

fn csv_events<'m>(input: Box<dyn BufRead>, mapping: &'m Mapping, mut seen: Seen) -> Box<dyn Iterator<Item = anyhow::Result<Event>> + 'm> {
    let mut reader = csv::Reader::from_reader(input);
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => return Box::new(std::iter::once(Err(error.into()))),
    };
    for (field, from) in &mapping.0 {
        if let From::Column(column) = from
            && !headers.iter().any(|header| header == column)
        {
            let known = headers.iter().collect::<Vec<_>>().join(", ");
            let message = format!("--map {}={column}: there is no such column; there are: {known}", field.join("."));
            return Box::new(std::iter::once(Err(anyhow::anyhow!(message))));
        }
    }
    Box::new(reader.into_records().enumerate().map(move |(at, record)| {
        let line = at + 2;
        csv_event(&headers, &record?, mapping, &mut seen).with_context(|| format!("line {line}"))
    }))
}

fn csv_event(headers: &csv::StringRecord, record: &csv::StringRecord, mapping: &Mapping, seen: &mut Seen) -> anyhow::Result<Event> {
    let mut event = json!({"type": "track"});
    let column = |name: &str| headers.iter().position(|header| header == name).and_then(|at| record.get(at)).unwrap_or_default();
    for (field, from) in &mapping.0 {
        let text = match from {
            From::Column(name) => column(name),
            From::Constant(text) => text,
        };
        let nested = field.len() > 1;
        put(&mut event, field, if nested { typed(text) } else { json!(text) })?;
    }
    let mapped = |name: &str| mapping.0.iter().any(|(_, from)| matches!(from, From::Column(column) if column == name));
    for (header, text) in headers.iter().zip(record) {
        if !mapped(header) {
            put(&mut event, &["properties".to_owned(), header.to_owned()], typed(text))?;
        }
    }
    if let Some(text) = event["timestamp"].as_str() {
        let time = Millis::parse(text).with_context(|| format!("timestamp {text:?} is neither RFC 3339 nor a date"))?;
        event["timestamp"] = json!(time.to_rfc3339());
    }
    let (person, time) = (person_of(&event)?, time_of(&event));
    if lacks_message_id(&event) {
        event["messageId"] = json!(seen.message_id(&event));
    }
    Ok(Event { person, time, json: event.to_string() })
}

/// A number where the text is one and prints back the same (so that `007` stays text), else a string.
fn typed(text: &str) -> Value {
    match text.parse::<serde_json::Number>() {
        Ok(number) if !(text.len() > 1 && text.starts_with('0') && !text.starts_with("0.")) => Value::Number(number),
        _ => json!(text),
    }
}

fn put(event: &mut Value, path: &[String], value: Value) -> anyhow::Result<()> {
    let (last, parents) = path.split_last().context("an empty field name")?;
    let mut at = event;
    for parent in parents {
        let object = at.as_object_mut().with_context(|| format!("{parent:?} lies within a field that is no object"))?;
        at = object.entry(parent.as_str()).or_insert_with(|| Value::Object(Map::new()));
    }
    let object = at.as_object_mut().with_context(|| format!("{last:?} lies within a field that is no object"))?;
    object.insert(last.clone(), value);
    Ok(())
}

fn person_of(event: &Value) -> anyhow::Result<String> {
    let id = ["anonymousId", "userId"].iter().find_map(|field| match &event[*field] {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    id.context("neither userId nor anonymousId: whose event is it? map a column with --map userId=COLUMN")
}

fn time_of(event: &Value) -> Option<Millis> {
    ["timestamp", "originalTimestamp"].iter().find_map(|field| Millis::parse(event[*field].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(format: FileFormat, text: &'static str, map: &[&str]) -> Result<Vec<Event>, String> {
        let mapping =
            Mapping::parse(&map.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).map_err(|error| format!("{error:#}"))?;
        events(Source::text(text, format), &mapping).collect::<Result<_, _>>().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn csv_rows_become_events_through_the_mapping() {
        let map = ["userId=customer_id", "timestamp=date", "event='Order Completed'", "properties.total=dollars"];
        let events = all(FileFormat::Csv, "customer_id,date,dollars,cds\n00001,1997-01-01,11.77,1\n", &map).unwrap();
        let mut event: Value = serde_json::from_str(&events[0].json).unwrap();
        let id = event.as_object_mut().unwrap().remove("messageId").unwrap();
        assert!(id.as_str().unwrap().starts_with("row-"), "{id}");
        let expected = json!({
            "type": "track", "event": "Order Completed", "userId": "00001", "timestamp": "1997-01-01T00:00:00.000Z",
            "properties": {"total": 11.77, "cds": 1},
        });
        assert_eq!(event, expected);
        assert_eq!((events[0].person.as_str(), events[0].time), ("00001", Millis::parse("1997-01-01")));
    }

    #[test]
    fn equal_rows_are_events_of_their_own_and_the_same_ones_each_time() {
        let ids = |format, text, map: &[&str]| -> Vec<String> {
            let id = |event: &Event| serde_json::from_str::<Value>(&event.json).unwrap()["messageId"].as_str().unwrap().to_owned();
            all(format, text, map).unwrap().iter().map(id).collect()
        };
        let csv = "who,n\nada,1\nada,1\nada,2\n";
        let of_csv = ids(FileFormat::Csv, csv, &["userId=who"]);
        assert!(of_csv[0] != of_csv[1] && of_csv[1] != of_csv[2] && of_csv[0] != of_csv[2], "{of_csv:?}");
        assert_eq!(of_csv, ids(FileFormat::Csv, csv, &["userId=who"]));
        let lines =
            "{\"userId\":\"a\"}\n{\"userId\": \"a\", \"messageId\": null}\n{\"userId\": \"a\"}\n{\"messageId\":\"own\",\"userId\":\"a\"}\n";
        let of_lines = ids(FileFormat::Ndjson, lines, &[]);
        assert!(of_lines[0].ends_with("-1") && of_lines[2].ends_with("-2"), "{of_lines:?}");
        assert_eq!(of_lines[3], "own");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases: &[(FileFormat, &'static str, &[&str], &str)] = &[
            (FileFormat::Csv, "a\n1\n", &["userId=b"], "--map userId=b: there is no such column; there are: a"),
            (FileFormat::Csv, "a\n1\n", &["userId"], "--map \"userId\" wants FIELD=COLUMN"),
            (FileFormat::Csv, "a\n1\n", &[], "line 2: neither userId nor anonymousId"),
            (FileFormat::Csv, "a,t\n1,soon\n", &["userId=a", "timestamp=t"], "line 2: timestamp \"soon\" is neither"),
            (FileFormat::Ndjson, "{\"userId\":\"1\"}\n\nnonsense\n", &[], "line 3: not JSON"),
            (FileFormat::Ndjson, "[1]\n", &[], "line 1: an event is a JSON object"),
        ];
        for (format, text, map, expected) in cases {
            let message = all(*format, text, map).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn identifiers_with_leading_zeros_stay_text() {
        for (text, value) in [("007", json!("007")), ("0", json!(0)), ("0.5", json!(0.5)), ("-3", json!(-3)), ("1e3x", json!("1e3x"))] {
            assert_eq!(typed(text), value);
        }
    }
}
