//! `flywheel topic`: list, tail, export, import. Reads any log through its port; import appends through a writer.
//!
//! NDJSON lines hold the record decoded (`topic`, `partition`, `offset`, `timestamp`, `key`, `record`, and `headers` where a foreign
//! producer sent some) and import to the same bytes; a name ending in `.avro` makes an Avro object container that any Avro tool reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::exit::Exit;
use super::output::Rows;
use crate::app::admin::{Incoming, IncomingHeader};
use crate::domain::{Millis, Offset, PartitionId, partition_of};
use crate::log::{Cleanup, Header, Headers, LogReader, RecordRef, Retention, TopicInfo, TopicPartition};
use crate::schema::{self, container};

/// Bytes per fetch: large enough to be quick, small enough to show progress.
const FETCH_BYTES: usize = 1024 * 1024;
/// Records per imported transaction.
const IMPORT_RECORDS: usize = 1_000;
/// How long one wait for new records lasts; an interrupt ends the process meanwhile.
const FOLLOW_WAIT: Duration = Duration::from_millis(500);

pub fn find(log: &dyn LogReader, name: &str) -> anyhow::Result<TopicInfo> {
    let topics = log.topics()?;
    let known = || topics.iter().map(|topic| topic.spec.name.to_string()).collect::<Vec<_>>().join(", ");
    topics
        .iter()
        .find(|topic| topic.spec.name.as_str() == name)
        .cloned()
        .ok_or_else(|| Exit::not_found(format!("there is no topic {name}; there are: {}", known())))
}

fn partitions(topic: &TopicInfo) -> impl Iterator<Item = TopicPartition> + use<> {
    let id = topic.id;
    (0..topic.spec.partitions).map(move |partition| TopicPartition { topic: id, partition: PartitionId(partition) })
}

pub fn list(log: &dyn LogReader) -> anyhow::Result<Rows> {
    let mut rows = Rows::new(&["topic", "partitions", "records", "start..end", "retention", "cleanup", "incarnation"]);
    for topic in log.topics()? {
        let mut records = 0;
        let mut ranges = Vec::new();
        for partition in partitions(&topic) {
            let marks = log.watermarks(partition)?;
            records += marks.end.0 - marks.start.0;
            ranges.push(format!("{}..{}", marks.start, marks.end));
        }
        let retention = match topic.spec.retention {
            Retention::Forever => "forever".to_owned(),
            Retention::Age(age) => format!("{:.1} d", age.as_secs_f64() / 86_400.0),
        };
        let cleanup = match topic.spec.cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        };
        rows.push(vec![
            json!(topic.spec.name.as_str()),
            json!(topic.spec.partitions),
            json!(records),
            json!(ranges.join(" ")),
            json!(retention),
            json!(cleanup),
            json!(topic.incarnation.0),
        ]);
    }
    Ok(rows)
}

/// One record as a line of JSON.
pub fn line(topic: &TopicInfo, partition: PartitionId, record: &RecordRef<'_>) -> anyhow::Result<Value> {
    let name = topic.spec.name.topic();
    let body = record.value.map(|value| schema::to_json(name, value)).transpose()?;
    let mut line = json!({
        "topic": topic.spec.name.as_str(), "partition": partition.0, "offset": record.offset.0,
        "timestamp": record.timestamp.0, "append_time": record.append_time.0, "record": body,
    });
    match std::str::from_utf8(record.key) {
        Ok(text) => line["key"] = json!(text),
        Err(_) => line["key_base64"] = json!(STANDARD.encode(record.key)),
    }
    if !record.headers.is_empty() {
        line["headers"] = record.headers.iter().map(header_line).collect();
    }
    Ok(line)
}

pub fn owned_headers(headers: Headers<'_>) -> Vec<IncomingHeader> {
    headers.iter().map(|header| IncomingHeader { name: header.name.to_owned(), value: header.value.map(<[u8]>::to_vec) }).collect()
}

fn header_line(header: Header<'_>) -> Value {
    match header.value.map(|value| (std::str::from_utf8(value), value)) {
        None => json!({"name": header.name, "value": null}),
        Some((Ok(text), _)) => json!({"name": header.name, "value": text}),
        Some((Err(_), bytes)) => json!({"name": header.name, "value_base64": STANDARD.encode(bytes)}),
    }
}

/// Which records `tail` shows.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// How many before the end of each partition.
    pub last: u64,
    pub follow: bool,
    /// Ticks and activations too.
    pub control: bool,
}

/// Ticks, activations, statements of time: of no person, and on a quiet server all there is.
fn is_control(topic: &TopicInfo, record: &RecordRef<'_>) -> bool {
    record.key.is_empty() && matches!(topic.spec.name.topic(), "intake" | "events" | "commands" | "journal")
}

/// Where the last `wanted.last` records that are to be shown begin.
fn tail_start(log: &dyn LogReader, topic: &TopicInfo, partition: TopicPartition, wanted: Wanted) -> anyhow::Result<Offset> {
    let marks = log.watermarks(partition)?;
    let mut back = wanted.last;
    loop {
        let from = Offset(marks.end.0.saturating_sub(back).max(marks.start.0));
        let mut shown: VecDeque<Offset> = VecDeque::new();
        let mut at = from;
        while at < marks.end && !wanted.control {
            let fetched = log.fetch(partition, at, FETCH_BYTES)?;
            for record in fetched.records().filter(|record| !is_control(topic, record)) {
                shown.push_back(record.offset);
                if shown.len() as u64 > wanted.last {
                    shown.pop_front();
                }
            }
            at = fetched.next;
        }
        if wanted.control || from == marks.start || shown.len() as u64 >= wanted.last {
            return Ok(shown.front().copied().filter(|_| wanted.last > 0).unwrap_or(if wanted.control { from } else { marks.end }));
        }
        back = back.saturating_mul(8);
    }
}

pub fn tail(log: &dyn LogReader, name: &str, wanted: Wanted, mut print: impl FnMut(&Value) -> std::io::Result<()>) -> anyhow::Result<()> {
    let topic = find(log, name)?;
    let mut positions = Vec::new();
    for partition in partitions(&topic) {
        positions.push((partition, tail_start(log, &topic, partition, wanted)?));
    }
    loop {
        for (partition, position) in &mut positions {
            loop {
                let fetched = log.fetch(*partition, *position, FETCH_BYTES)?;
                for record in fetched.records().filter(|record| wanted.control || !is_control(&topic, record)) {
                    print(&line(&topic, partition.partition, &record)?)?;
                }
                let moved = fetched.next > *position;
                *position = fetched.next;
                if !moved {
                    break;
                }
            }
        }
        if !wanted.follow {
            return Ok(());
        }
        while !log.wait(&positions, FOLLOW_WAIT)? {}
    }
}

/// Which records an export takes, by append time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub from: Option<Millis>,
    pub to: Option<Millis>,
}

/// Calls `each` for every record of the topic in the range, partition by partition.
pub fn scan(
    log: &dyn LogReader,
    topic: &TopicInfo,
    range: Range,
    mut each: impl FnMut(PartitionId, &RecordRef<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for partition in partitions(topic) {
        let marks = log.watermarks(partition)?;
        let mut position = match range.from {
            Some(time) => log.offset_at(partition, time)?.max(marks.start),
            None => marks.start,
        };
        let end = match range.to {
            Some(time) => log.offset_at(partition, time)?.min(marks.end),
            None => marks.end,
        };
        while position < end {
            let fetched = log.fetch(partition, position, FETCH_BYTES)?;
            for record in fetched.records().take_while(|record| record.offset < end) {
                each(partition.partition, &record)?;
            }
            if fetched.next <= position {
                break;
            }
            position = fetched.next;
        }
    }
    Ok(())
}

pub fn export(log: &dyn LogReader, name: &str, output: &Path, range: Range) -> anyhow::Result<u64> {
    let topic = find(log, name)?;
    let to_stdout = output == Path::new("-");
    let out: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout().lock())
    } else {
        Box::new(File::create(output).with_context(|| format!("cannot create {}", output.display()))?)
    };
    let mut out = BufWriter::new(out);
    let mut written = 0;
    if output.extension().is_some_and(|extension| extension == "avro") {
        written = container::export(topic.spec.name.topic(), &mut out, |push| {
            scan(log, &topic, range, |partition, record| {
                push(container::Entry {
                    partition: partition.0 as i32,
                    offset: record.offset.0 as i64,
                    timestamp: record.timestamp.0,
                    key: record.key.to_vec(),
                    value: record.value.map(<[u8]>::to_vec),
                })?;
                anyhow::Ok(())
            })
        })?;
    } else {
        scan(log, &topic, range, |partition, record| {
            serde_json::to_writer(&mut out, &line(&topic, partition, record)?)?;
            out.write_all(b"\n")?;
            written += 1;
            Ok(())
        })?;
    }
    out.flush()?;
    Ok(written)
}

/// Reads an exported file of either form.
pub fn read_export(topic: &str, file: &Path) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Incoming>>>> {
    let input = BufReader::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?);
    if file.extension().is_some_and(|extension| extension == "avro") {
        let entries = container::import(topic, input)?.map(|entry| {
            let entry = entry?;
            Ok(Incoming {
                partition: entry.partition as u32,
                timestamp: entry.timestamp,
                key: entry.key,
                value: entry.value,
                headers: Vec::new(),
            })
        });
        return Ok(Box::new(entries));
    }
    let topic = topic.to_owned();
    Ok(Box::new(input.lines().enumerate().map(move |(at, text)| {
        let line: Value = serde_json::from_str(&text?).with_context(|| format!("line {}", at + 1))?;
        parse_line(&topic, &line).with_context(|| format!("line {}", at + 1))
    })))
}

fn parse_line(topic: &str, line: &Value) -> anyhow::Result<Incoming> {
    let number = |name: &str| line[name].as_i64().with_context(|| format!("{name:?} is missing or no number"));
    let key = match (line["key"].as_str(), line["key_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text)?,
        (None, None) => bail!("\"key\" is missing"),
    };
    let value = match &line["record"] {
        Value::Null => None,
        record => Some(schema::from_json(topic, record)?),
    };
    Ok(Incoming { partition: number("partition")? as u32, timestamp: number("timestamp")?, key, value, headers: headers_of(line)? })
}

fn headers_of(line: &Value) -> anyhow::Result<Vec<IncomingHeader>> {
    let listed = line.get("headers").map(|listed| listed.as_array().context("\"headers\" is no array")).transpose()?;
    let header = |header: &Value| {
        let value = match (&header["value"], header["value_base64"].as_str()) {
            (Value::String(text), _) => Some(text.clone().into_bytes()),
            (_, Some(text)) => Some(STANDARD.decode(text)?),
            (Value::Null, None) => None,
            (other, None) => bail!("the value of a header is {other}, not text"),
        };
        Ok(IncomingHeader { name: header["name"].as_str().context("a header has no name")?.to_owned(), value })
    };
    listed.into_iter().flatten().map(header).collect()
}

/// Appends an exported file to a topic through `append`. Records with a key go where the key belongs; those without stay in their partition.
pub fn import(
    topic: &TopicInfo,
    file: &Path,
    mut append: impl FnMut(Vec<Incoming>) -> anyhow::Result<u64>,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<u64> {
    let count = topic.spec.partitions;
    let mut held = Vec::with_capacity(IMPORT_RECORDS);
    let mut imported = 0;
    for incoming in read_export(topic.spec.name.topic(), file)? {
        let mut incoming = incoming?;
        if !incoming.key.is_empty() {
            incoming.partition = partition_of(&incoming.key, count).0;
        }
        held.push(incoming);
        if held.len() == IMPORT_RECORDS {
            imported += append(std::mem::take(&mut held))?;
            progress(imported);
        }
    }
    imported += append(held)?;
    progress(imported);
    Ok(imported)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::app::admin;
    use crate::domain::Namespace;
    use crate::env::ManualClock;
    use crate::log::LogWriter;
    use crate::log::TopicName;
    use crate::log::TopicSpec;
    use crate::log::memory::MemoryLog;
    use crate::schema::records::{EventsRecord, Expect, IdentityRecord, Origin, Tick, Tie};

    fn log_with(topic: &str, records: &[(&[u8], Option<Vec<u8>>)]) -> MemoryLog {
        let log = MemoryLog::new(Arc::new(ManualClock::at(Millis(1_000))));
        let name = TopicName::new(&Namespace::new("main").unwrap(), topic);
        let spec = TopicSpec { name, partitions: 2, retention: Retention::Forever, cleanup: Cleanup::Delete };
        let info = log.create_topic(&spec).unwrap();
        let incoming = records.iter().map(|(key, value)| Incoming {
            partition: partition_of(key, 2).0,
            timestamp: 7,
            key: key.to_vec(),
            value: value.clone(),
            headers: Vec::new(),
        });
        append(&log, &info, incoming.collect()).unwrap();
        log
    }

    fn append(log: &MemoryLog, topic: &TopicInfo, records: Vec<Incoming>) -> anyhow::Result<u64> {
        let (transaction, count) = admin::transaction(topic, &records).map_err(anyhow::Error::msg)?;
        log.append(transaction)?.wait()?;
        Ok(count)
    }

    fn contents(log: &MemoryLog, name: &str) -> Vec<(u32, Vec<u8>, Option<Vec<u8>>)> {
        let topic = find(log, name).unwrap();
        let mut all = Vec::new();
        scan(log, &topic, Range::default(), |partition, record| {
            all.push((partition.0, record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn an_export_imports_to_the_same_bytes_in_both_forms() {
        let mut tie = Vec::new();
        schema::encode(&IdentityRecord { ties: vec![Tie { user_id: "u\"1".into(), from: 5 }] }, &mut tie).unwrap();
        let records: [(&[u8], Option<Vec<u8>>); 3] = [(b"acme\0a:1", Some(tie.clone())), (b"acme\0a:2", None), (b"acme\0a:3", Some(tie))];
        let from = log_with("identities", &records);
        let dir = tempfile::tempdir().unwrap();
        for form in ["out.ndjson", "out.avro"] {
            let file = dir.path().join(form);
            assert_eq!(export(&from, "main.identities", &file, Range::default()).unwrap(), 3);
            let to = log_with("identities", &[]);
            let topic = find(&to, "main.identities").unwrap();
            assert_eq!(import(&topic, &file, |records| append(&to, &topic, records), |_| ()).unwrap(), 3);
            assert_eq!(contents(&from, "main.identities"), contents(&to, "main.identities"), "{form}");
        }
    }

    #[test]
    fn a_foreign_record_imports_to_the_same_bytes_and_headers() {
        let log = log_with("inbox", &[]);
        let topic = find(&log, "main.inbox").unwrap();
        let header = |name: &str, value: Option<&[u8]>| IncomingHeader { name: name.into(), value: value.map(<[u8]>::to_vec) };
        let headers = vec![header("flywheel-tenant", Some(b"acme")), header("none", None), header("raw", Some(&[0xff]))];
        let foreign =
            |value: &[u8], headers| Incoming { partition: 1, timestamp: 7, key: Vec::new(), value: Some(value.to_vec()), headers };
        let sent = vec![foreign(br#"{"type": "track"}"#, headers), foreign(&[0, 0, 0, 0, 1, 0xff], Vec::new())];
        append(&log, &topic, sent.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out.ndjson");
        export(&log, "main.inbox", &file, Range::default()).unwrap();
        let read: Vec<Incoming> = read_export("inbox", &file).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, sent);
        let refused = export(&log, "main.inbox", &dir.path().join("out.avro"), Range::default()).unwrap_err();
        assert!(refused.to_string().contains("NDJSON"), "{refused}");
    }

    #[test]
    fn tail_starts_before_the_end_and_decodes() {
        let mut tick = Vec::new();
        schema::encode(&EventsRecord::Tick(Tick { feeder: 1, feeders: 4, time: 9, by_operator: false }), &mut tick).unwrap();
        let log = log_with("events", &[(b"", Some(tick.clone())), (b"", Some(tick))]);
        let lines = tailed(&log, "main.events", Wanted { last: 1, follow: false, control: true });
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0]["offset"].as_u64(), lines[0]["record"]["feeder"].as_i64()), (Some(1), Some(1)));
    }

    fn tailed(log: &dyn LogReader, name: &str, wanted: Wanted) -> Vec<Value> {
        let mut lines = Vec::new();
        tail(log, name, wanted, |line| {
            lines.push(line.clone());
            Ok(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn tail_passes_over_ticks_and_finds_what_lies_before_them() {
        let (mut tick, mut expect) = (Vec::new(), Vec::new());
        let origin = Origin { incarnation: 1, partition: 0, offset: 0 };
        let expected = Expect { anonymous_id: "a", user_id: "u", at: 5, origin, redriven_from: None };
        schema::encode(&EventsRecord::Tick(Tick { feeder: 1, feeders: 4, time: 9, by_operator: false }), &mut tick).unwrap();
        schema::encode(&EventsRecord::Expect(expected), &mut expect).unwrap();
        let mut records: Vec<(&[u8], Option<Vec<u8>>)> = vec![(b"acme\0u:1", Some(expect)); 3];
        records.extend(vec![(b"".as_slice(), Some(tick)); 100]);
        let log = log_with("events", &records);
        let offsets = |last| {
            let lines = tailed(&log, "main.events", Wanted { last, follow: false, control: false });
            lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!([offsets(0), offsets(2), offsets(10)], [vec![], vec![1, 2], vec![0, 1, 2]]);
    }

    #[test]
    fn a_topic_that_is_not_there_is_named_with_those_that_are() {
        let log = log_with("events", &[]);
        let message = find(&log, "main.evnts").unwrap_err().to_string();
        assert_eq!(message, "there is no topic main.evnts; there are: main.events");
    }
}
