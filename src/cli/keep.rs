//! Commands that look after a folder: dead letters, rebuilds, replay, doctor, backup, restore.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args;
use super::exit::Exit;
use super::output::{Rows, grouped, note, outln, print_json};
use super::query;
use super::run::reader;
use super::topic;
use super::writer::Writer;
use crate::app::admin::Incoming;
use crate::app::{Folder, read_models, rules_of};
use crate::config::Config;
use crate::domain::{Namespace, Offset, PartitionId};
use crate::env::SystemClock;
use crate::env::fs::RealFs;
use crate::log::TopicName;
use crate::log::embedded::{backup as backups, doctor as doctors};
use crate::projections;
use crate::replay::redrive::{Again, Place, Redriven, Selection, redrive};
use crate::stream;

pub async fn dead_letters(config: &Config, asked: &args::DeadLetter, json: bool) -> anyhow::Result<()> {
    match asked {
        args::DeadLetter::List { at, reason, limit } => {
            let only = reason.as_ref().map_or_else(String::new, |reason| format!("WHERE reason = {}", query::quoted(reason)));
            let sql = format!(
                "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, reason, stage, message_id, detail, \
                 topic || '/' || origin_partition || '/' || origin_offset AS position, \
                 'dead_letters/' || log_partition || '/' || log_offset AS letter \
                 FROM dead_letters {only} ORDER BY dead_letter_id DESC LIMIT {limit}"
            );
            query::rows(config, &Namespace::new(&at.namespace)?, &sql).await?.print(json);
            Ok(())
        }
        args::DeadLetter::Redrive { at, reason, message_id, place, dry_run } => {
            let namespace = Namespace::new(&at.namespace)?;
            let place = place.as_deref().map(place_of).transpose()?;
            let selection = Selection { reason: reason.clone(), message_id: message_id.clone(), place, ..Selection::default() };
            let done = tokio::task::block_in_place(|| send_again(config, &namespace, &selection, *dry_run))?;
            if json {
                print_json(&json!({"sent": done.sent, "already": done.already, "hopeless": done.hopeless, "dry_run": dry_run}));
            } else {
                let verb = if *dry_run { "would be sent" } else { "sent" };
                outln!("{} {verb} again; {} had been sent again before", done.sent, done.already);
                if done.hopeless > 0 {
                    outln!("{} cannot be sent again: what was kept of them is not a whole record", done.hopeless);
                }
            }
            Ok(())
        }
    }
}

/// `TOPIC/PARTITION/OFFSET`.
fn place_of(text: &str) -> anyhow::Result<Place> {
    let parts: Vec<&str> = text.split('/').collect();
    if let [topic @ ("dead_letters" | "intake" | "events"), partition, offset] = parts[..]
        && let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse())
    {
        let at = (PartitionId(partition), Offset(offset));
        return Ok(if topic == "dead_letters" { Place::Letter(at.0, at.1) } else { Place::Origin(topic.to_owned(), at.0, at.1) });
    }
    bail!("{text:?} is no place of a dead letter: dead_letters/0/7, intake/0/7 or events/0/7, as `flywheel dead-letter list` shows them")
}

fn send_again(config: &Config, namespace: &Namespace, selection: &Selection, dry_run: bool) -> anyhow::Result<Redriven> {
    let log = reader(config)?;
    if dry_run {
        return Ok(redrive(&*log, namespace, selection, &mut |_| Ok(()))?);
    }
    let writer = Writer::open(config, &Folder::new(&config.data.dir))?;
    let handle = tokio::runtime::Handle::current();
    let mut failure = None;
    let mut send = |record: Again| {
        let appended = topic::find(&*log, TopicName::new(namespace, record.topic.as_str()).as_str()).and_then(|topic| {
            let incoming = Incoming {
                partition: record.partition.0,
                timestamp: record.timestamp.0,
                key: record.key.to_vec(),
                value: Some(record.value.to_vec()),
                headers: topic::owned_headers(record.headers.as_headers()),
            };
            handle.block_on(writer.append(&topic, vec![incoming]))
        });
        appended.map(drop).map_err(|error| {
            failure = Some(error);
            stream::Error::Log(crate::log::Error::Closed)
        })
    };
    let done = redrive(&*log, namespace, selection, &mut send);
    match failure {
        Some(error) => Err(error),
        None => Ok(done?),
    }
}

pub async fn rebuild(config: &Config, namespace: &str, json: bool) -> anyhow::Result<()> {
    let name = Namespace::new(namespace)?;
    let log = reader(config)?;
    if stream::Topics::find(&*log, &name)?.is_none() {
        return Err(Exit::not_found(format!("there is no namespace {name}")));
    }
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records, {per_sec}").expect("the template is valid"));
    let mut progress = |progress: projections::Progress| {
        bar.set_length(progress.records + progress.left);
        bar.set_position(progress.records);
        ControlFlow::Continue(())
    };
    let dir = read_models(config)?;
    let options = projections::Options { rules: Arc::new(rules_of(&*log, &name)?), ..projections::Options::default() };
    let rebuilt = projections::rebuild(log, &dir, &name, &options, &mut progress).await?;
    bar.finish_and_clear();
    if json {
        print_json(&json!({"records": rebuilt.records, "generation": rebuilt.generation}));
    } else {
        outln!("rebuilt {namespace} from {} records; it is in force now (generation {})", grouped(rebuilt.records), rebuilt.generation);
    }
    Ok(())
}

pub fn replay(config: &Config, asked: &args::Replay, json: bool) -> anyhow::Result<()> {
    let namespace = Namespace::new(&asked.at.namespace)?;
    let log = reader(config)?;
    let digest = crate::replay::digest::digest(&*log, &namespace)?;
    let digest = digest.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    if json {
        let topics = digest.topics.iter().map(|one| json!({"topic": one.topic, "digest": one.digest, "keys": one.keys}));
        print_json(&json!({"digest": digest.digest, "topics": topics.collect::<Vec<_>>()}));
    } else {
        let mut rows = Rows::new(&["topic", "keys", "records", "digest"]);
        for one in &digest.topics {
            rows.push(vec![json!(one.topic), json!(one.keys), json!(one.records), json!(one.digest)]);
        }
        rows.print(false);
        outln!("{namespace} {}", digest.digest);
    }
    match &asked.expect {
        Some(expected) if *expected != digest.digest => Err(Exit::check_failed(format!("expected {expected}, got {}", digest.digest))),
        _ => Ok(()),
    }
}

pub fn doctor(config: &Config, asked: &args::Doctor, json: bool) -> anyhow::Result<()> {
    let folder = Folder::new(&config.data.dir);
    log_in(&folder)?;
    if asked.declare_holes {
        let declared = doctors::declare(Arc::new(RealFs), &folder.log(), Arc::new(SystemClock))?;
        match declared {
            Some(incarnation) => note!(
                "declared; the log is in incarnation {incarnation} now: `flywheel up` builds states and read models anew from what is there"
            ),
            None => note!("nothing to declare"),
        }
    }
    let report = doctors::check(&RealFs, &folder.log())?;
    let mut damage = Rows::new(&["topic", "partition", "from", "to", "declared", "what"]);
    for one in &report.damage {
        damage.push(vec![
            json!(one.topic),
            json!(one.partition.partition.0),
            json!(one.from.0),
            json!(one.to.0),
            json!(one.declared),
            json!(one.what),
        ]);
    }
    if json {
        print_json(&json!({"files": report.files, "bytes": report.bytes, "records": report.records, "sound": report.is_sound(),
                           "notes": report.notes, "damage": damage.to_json()}));
    } else {
        outln!("{} files, {} bytes, {} records read", report.files, grouped(report.bytes), grouped(report.records));
        for note in &report.notes {
            outln!("note: {note}");
        }
        if !report.damage.is_empty() {
            outln!("{}", damage.to_table());
        }
    }
    if report.is_sound() {
        return Ok(());
    }
    Err(Exit::check_failed(
        "there is damage; everything else is readable. Restore a backup, or `flywheel doctor --declare-holes` to go on without those records",
    ))
}

fn log_in(folder: &Folder) -> anyhow::Result<()> {
    if backups::holds_log(&RealFs, &folder.log())? {
        return Ok(());
    }
    let root = folder.root().display();
    Err(Exit::not_found(format!("there is no log in {root}; --data names another folder, `flywheel up` makes a log in this one")))
}

fn is_used(path: &Path) -> bool {
    path.is_file() || path.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

pub fn backup(config: &Config, to: &Path, json: bool) -> anyhow::Result<()> {
    let folder = Folder::new(&config.data.dir);
    log_in(&folder)?;
    if is_used(to) {
        bail!("{} is there already and is not empty; name a folder that does not exist yet", to.display());
    }
    let copied = backups::backup(&RealFs, &folder.log(), to)?;
    // Without it every link in what was sent would be dead in a folder restored from here.
    let has_key = Folder::copy_link_key(folder.root(), to)?;
    if json {
        print_json(&json!({"files": copied.files, "bytes": copied.bytes, "incarnation": copied.incarnation.0, "link_key": has_key}));
    } else {
        let with = if has_key { ", with the key of sent links" } else { "" };
        outln!("{} files, {} bytes in {}{with}", copied.files, grouped(copied.bytes), to.display());
    }
    Ok(())
}

pub fn restore(config: &Config, from: &Path, json: bool) -> anyhow::Result<()> {
    let folder = Folder::new(&config.data.dir);
    if !backups::holds_log(&RealFs, from)? {
        let what = if from.is_file() { "is a file" } else { "holds no copy of a log" };
        return Err(Exit::not_found(format!("{} {what}; name a folder that `flywheel backup` wrote", from.display())));
    }
    if is_used(&folder.log()) {
        bail!("{} holds a log already; name a folder to restore into that has none: --data", folder.root().display());
    }
    // First: a folder with a log in it is not restored into again.
    std::fs::create_dir_all(folder.root())?;
    Folder::copy_link_key(from, folder.root())?;
    let (copied, report) = backups::restore(&RealFs, from, &folder.log())?;
    if json {
        print_json(&json!({"files": copied.files, "bytes": copied.bytes, "sound": report.is_sound()}));
    } else {
        outln!(
            "{} files, {} bytes in {}; `flywheel up` begins a new incarnation there, in which wall time stands still until `flywheel time release`",
            copied.files,
            grouped(copied.bytes),
            folder.root().display()
        );
    }
    Ok(())
}
