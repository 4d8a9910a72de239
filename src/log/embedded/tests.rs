//! The log on a real folder: what it promises to callers, and what a torn or damaged write-ahead file leaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::domain::Namespace;
use crate::env::ManualClock;
use crate::env::fs::RealFs;
use crate::log::{BatchBuilder, Cleanup, Retention, TopicName};

struct Folder {
    dir: tempfile::TempDir,
    clock: ManualClock,
}

impl Folder {
    fn new() -> Folder {
        Folder { dir: tempfile::tempdir().unwrap(), clock: ManualClock::at(Millis(1_000)) }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn open_with(&self, options: Options) -> Result<Arc<EmbeddedLog>, Error> {
        EmbeddedLog::open(Arc::new(RealFs), self.path(), options, Arc::new(self.clock.clone()))
    }

    fn open(&self) -> Arc<EmbeddedLog> {
        self.open_with(Options::small()).unwrap()
    }

    fn wal_files(&self) -> Vec<PathBuf> {
        let is_wal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
        RealFs.list(self.path()).unwrap().into_iter().filter(is_wal).collect()
    }
}

fn spec(topic: &str, partitions: u32) -> TopicSpec {
    let name = TopicName::new(&Namespace::new("demo").unwrap(), topic);
    TopicSpec { name, partitions, retention: Retention::Forever, cleanup: Cleanup::Delete }
}

fn partitions_of(log: &EmbeddedLog, topic: &str, partitions: u32) -> Vec<TopicPartition> {
    let id = log.create_topic(&spec(topic, partitions)).unwrap().id;
    (0..partitions).map(|partition| TopicPartition { topic: id, partition: PartitionId(partition) }).collect()
}

fn batch(values: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(b"key", Some(value.as_bytes()), Millis(7));
    }
    builder.build()
}

fn append(log: &EmbeddedLog, partition: TopicPartition, values: &[&str]) -> Result<Appended, Error> {
    log.append(Transaction { batches: vec![(partition, batch(values))], commits: vec![] })?.wait()
}

fn read(log: &dyn LogReader, partition: TopicPartition, from: u64) -> Vec<(u64, String)> {
    let mut records = Vec::new();
    let mut at = Offset(from);
    loop {
        let fetched = log.fetch(partition, at, 100).unwrap();
        if fetched.next == at {
            return records;
        }
        let values =
            fetched.records().map(|record| (record.offset.0, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
        records.extend(values);
        at = fetched.next;
    }
}

fn numbered(values: &[&str]) -> Vec<(u64, String)> {
    values.iter().enumerate().map(|(offset, value)| (offset as u64, (*value).to_owned())).collect()
}

#[test]
fn records_and_progress_survive_a_restart() {
    let folder = Folder::new();
    let log = folder.open();
    let partitions = partitions_of(&log, "events", 2);
    let group = Group("profiles".into());
    let owner = log.acquire(&group, partitions[0]).unwrap();
    let committed = Committed { offset: Offset(1), metadata: Bytes::from_static(b"cursor") };
    let transaction = Transaction {
        batches: vec![(partitions[1], batch(&["x"])), (partitions[0], batch(&["a", "b"])), (partitions[1], batch(&["y"]))],
        commits: vec![(owner.clone(), committed.clone())],
    };
    let appended = log.append(transaction).unwrap().wait().unwrap();
    assert_eq!(appended.first_offsets, [Offset(0), Offset(0), Offset(1)]);
    assert_eq!(append(&log, partitions[0], &["c"]).unwrap().first_offsets, [Offset(2)]);
    drop(log);
    let log = folder.open();
    assert_eq!(read(&*log, partitions[0], 0), numbered(&["a", "b", "c"]));
    assert_eq!(read(&*log, partitions[1], 0), numbered(&["x", "y"]));
    assert_eq!(log.committed(&group, partitions[0]).unwrap(), Some(committed.clone()));
    let next_owner = log.acquire(&group, partitions[0]).unwrap();
    assert!(next_owner.epoch > owner.epoch);
    let stale = Transaction { batches: vec![], commits: vec![(owner, committed)] };
    assert!(matches!(log.append(stale), Err(Error::Fenced(_))));
    assert_eq!(log.topics().unwrap()[0].incarnation, Incarnation(1));
}

#[test]
fn a_second_writer_is_refused_with_the_holders_name() {
    let folder = Folder::new();
    let first = folder.open_with(Options { holder: "process 7".into(), ..Options::small() }).unwrap();
    assert!(matches!(folder.open_with(Options::small()), Err(Error::Locked { holder, .. }) if holder == "process 7"));
    drop(first);
    folder.open();
}

#[test]
fn a_folder_without_its_mark_begins_a_new_incarnation() {
    let folder = Folder::new();
    drop(folder.open());
    std::fs::remove_file(folder.path().join("INSTANCE")).unwrap();
    assert_eq!(folder.open().incarnation(), Incarnation(2));
    assert_eq!(folder.open().incarnation(), Incarnation(2), "the copy is marked now");
}

#[test]
fn a_last_frame_torn_at_any_byte_is_cut_and_the_rest_is_kept() {
    let folder = Folder::new();
    let log = folder.open_with(Options { driver: Driver::Caller { group: 1 }, ..Options::small() }).unwrap();
    let partition = partitions_of(&log, "events", 1)[0];
    append(&log, partition, &["kept"]).unwrap();
    let file = folder.wal_files().pop().unwrap();
    append(&log, partition, &["torn"]).unwrap();
    drop(log);
    let after = std::fs::read(&file).unwrap();
    let first = format::FrameHead::decode(&after[format::FRAMES_AT as usize..]).unwrap();
    let begin = format::FRAMES_AT as usize + first.frame_len as usize;
    let end = after.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in begin..end {
        let copy = Folder::new();
        for path in RealFs.list(folder.path()).unwrap() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let mut torn = after.clone();
        torn[cut..].fill(0);
        // The note of an orderly stop would say that the frame was synced.
        torn[format::NOTE_AT as usize..][..format::NOTE_BYTES].fill(0);
        std::fs::write(copy.path().join(file.file_name().unwrap()), &torn).unwrap();
        let log = copy.open();
        let mut expect = vec!["kept"];
        if torn[begin..] == after[begin..] {
            expect.push("torn");
        }
        assert_eq!(read(&*log, partition, 0), numbered(&expect), "cut at {cut}");
        append(&log, partition, &["next"]).unwrap();
        expect.push("next");
        drop(log);
        assert_eq!(read(&*copy.open(), partition, 0), numbered(&expect), "cut at {cut}");
    }
}

#[test]
fn full_files_become_segments_and_nothing_changes_for_readers() {
    let folder = Folder::new();
    for driver in [Driver::Threads, Driver::Caller { group: 1 }] {
        let log = folder.open_with(Options { driver, ..Options::small() }).unwrap();
        let partitions = partitions_of(&log, "events", 2);
        let begin = log.watermarks(partitions[0]).unwrap().end.0;
        let value = "x".repeat(300);
        for nth in 0..400 {
            folder.clock.advance(1);
            append(&log, partitions[0], &[&format!("{nth} {value}"), "small"]).unwrap();
            append(&log, partitions[1], &["other"]).unwrap();
        }
        log.roll().unwrap();
        let segments = || RealFs.list(folder.path()).unwrap().iter().filter(|path| path.extension().unwrap_or_default() == "seg").count();
        assert!(segments() >= 2, "{:?}", RealFs.list(folder.path()));
        let expect: Vec<(u64, String)> =
            (0..800).map(|at| (begin + at, if at % 2 == 0 { format!("{} {value}", at / 2) } else { "small".into() })).collect();
        assert_eq!(read(&*log, partitions[0], begin), expect);
        assert_eq!(read(&*log, partitions[0], begin + 333), expect[333..]);
        drop(log);
        let log = folder.open();
        assert_eq!(read(&*log, partitions[0], begin), expect);
        let newest = log.fetch(partitions[0], Offset(begin + 799), 1).unwrap().records().next().unwrap().append_time;
        assert_eq!(log.offset_at(partitions[0], newest).unwrap(), Offset(begin + 798));
        assert_eq!(log.offset_at(partitions[0], newest - 399).unwrap(), Offset(begin));
        assert_eq!(log.offset_at(partitions[0], newest + 1).unwrap(), Offset(begin + 800));
    }
}

#[test]
fn segments_that_could_not_be_published_go_once_a_manifest_without_them_is() {
    let folder = Folder::new();
    let log = folder.open_with(Options { driver: Driver::Caller { group: 1 }, ..Options::small() }).unwrap();
    let partition = partitions_of(&log, "events", 1)[0];
    append(&log, partition, &["a", "b"]).unwrap();
    let in_the_way = folder.path().join("MANIFEST.new");
    std::fs::create_dir(&in_the_way).unwrap();
    for _ in 0..3 {
        assert!(log.roll().is_err());
    }
    std::fs::remove_dir(&in_the_way).unwrap();
    log.roll().unwrap();
    let segments = RealFs.list(folder.path()).unwrap().iter().filter(|path| path.extension().unwrap_or_default() == "seg").count();
    assert_eq!((segments, read(&*log, partition, 0)), (1, numbered(&["a", "b"])));
}

#[test]
fn pins_of_many_partitions_are_one_manifest_and_none_where_they_do_not_move() {
    let folder = Folder::new();
    let log = folder.open_with(Options { driver: Driver::Caller { group: 1 }, ..Options::small() }).unwrap();
    let partitions = partitions_of(&log, "events", 4);
    append(&log, partitions[0], &["a"]).unwrap();
    let generation = || manifest::Manifest::read(&RealFs, folder.path()).unwrap().unwrap().generation;
    let before = generation();
    let mut offsets: Vec<_> = partitions.iter().map(|partition| (*partition, Offset(0))).collect();
    log.pin_all("sql", &offsets).unwrap();
    assert_eq!(generation(), before + 1);
    log.pin_all("sql", &offsets).unwrap();
    assert_eq!(generation(), before + 1, "nothing moved");
    offsets[0].1 = Offset(1);
    log.pin_all("sql", &offsets).unwrap();
    let pins = manifest::Manifest::read(&RealFs, folder.path()).unwrap().unwrap().pins;
    assert_eq!((generation(), pins.len()), (before + 2, 4));
    assert_eq!(pins.iter().map(|pin| pin.offset).sum::<u64>(), 1);
}

#[test]
fn old_segments_go_but_nothing_that_is_still_needed() {
    let folder = Folder::new();
    let log = folder.open();
    let spec = TopicSpec { retention: Retention::Age(Duration::from_secs(60)), ..spec("intake", 1) };
    let partition = TopicPartition { topic: log.create_topic(&spec).unwrap().id, partition: PartitionId(0) };
    let owner = log.acquire(&Group("intake".into()), partition).unwrap();
    for value in ["a", "b", "c"] {
        append(&log, partition, &[value]).unwrap();
        log.roll().unwrap();
        folder.clock.advance(10_000);
    }
    let now = Millis(1_000_000);
    assert_eq!(log.clean(now).unwrap(), 0, "the group has read nothing");
    let commit = |offset| {
        let committed = Committed { offset: Offset(offset), metadata: Bytes::new() };
        log.append(Transaction { batches: vec![], commits: vec![(owner.clone(), committed)] }).unwrap().wait().unwrap();
    };
    commit(2);
    log.pin("backtest", partition, Some(Offset(1))).unwrap();
    assert!(log.clean(now).unwrap() > 0);
    assert_eq!(log.watermarks(partition).unwrap(), Watermarks { start: Offset(1), end: Offset(3) });
    drop(log);
    let log = folder.open();
    assert_eq!(log.clean(now).unwrap(), 0, "pins survive");
    log.pin("backtest", partition, None).unwrap();
    log.clean(now).unwrap();
    assert_eq!(read(&*log, partition, 2), [(2, "c".to_owned())]);
    assert!(matches!(log.fetch(partition, Offset(1), 1), Err(Error::OffsetOutOfRange { .. })));
}

#[test]
fn a_keyed_topic_keeps_the_newest_of_every_key() {
    let folder = Folder::new();
    let log = folder.open();
    let spec = TopicSpec { cleanup: Cleanup::Compact, ..spec("profiles", 1) };
    let partition = TopicPartition { topic: log.create_topic(&spec).unwrap().id, partition: PartitionId(0) };
    let put = |pairs: &[(&str, Option<&str>)]| {
        let mut builder = BatchBuilder::new();
        for (key, value) in pairs {
            builder.push(key.as_bytes(), value.map(str::as_bytes), Millis(0));
        }
        log.append(Transaction { batches: vec![(partition, builder.build())], commits: vec![] }).unwrap().wait().unwrap();
        log.roll().unwrap();
    };
    put(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    put(&[("a", Some("2")), ("b", None)]);
    log.clean(Millis(0)).unwrap();
    assert_eq!(read(&*log, partition, 0), [(2, "1".to_owned()), (3, "2".to_owned())]);
    put(&[("c", None), ("a", None)]);
    log.clean(Millis(0)).unwrap();
    assert_eq!(read(&*log, partition, 0), []);
    assert_eq!(log.watermarks(partition).unwrap(), Watermarks { start: Offset(0), end: Offset(7) });
    drop(log);
    let log = folder.open();
    append(&log, partition, &["again"]).unwrap();
    assert_eq!(read(&*log, partition, 0), [(7, "again".to_owned())]);
}

#[test]
fn small_segments_are_merged() {
    let folder = Folder::new();
    let log = folder.open();
    let partition = partitions_of(&log, "events", 1)[0];
    let values: Vec<String> = (0..20).map(|nth| format!("value {nth}")).collect();
    for value in &values {
        append(&log, partition, &[value]).unwrap();
        log.roll().unwrap();
    }
    log.clean(Millis(0)).unwrap();
    let segments = RealFs.list(folder.path()).unwrap().iter().filter(|path| path.extension().unwrap_or_default() == "seg").count();
    assert_eq!(segments, 1);
    drop(log);
    let expect: Vec<&str> = values.iter().map(String::as_str).collect();
    assert_eq!(read(&*folder.open(), partition, 0), numbered(&expect));
}

#[test]
fn an_attested_bad_frame_is_a_hole_and_everything_else_is_read() {
    let folder = Folder::new();
    let log = folder.open_with(Options { driver: Driver::Caller { group: 1 }, ..Options::small() }).unwrap();
    let partitions = partitions_of(&log, "events", 2);
    append(&log, partitions[0], &["a"]).unwrap();
    append(&log, partitions[0], &["lost", "lost too"]).unwrap();
    append(&log, partitions[1], &["other"]).unwrap();
    append(&log, partitions[0], &["b"]).unwrap();
    drop(log);
    let file = folder.wal_files().pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let second = format::FRAMES_AT as usize + format::FrameHead::decode(&bytes[format::FRAMES_AT as usize..]).unwrap().frame_len as usize;
    let head = format::FrameHead::decode(&bytes[second..]).unwrap();
    for damaged in second..second + head.frame_len as usize - 8 {
        let mut copy = bytes.clone();
        copy[damaged] ^= 0x10;
        std::fs::write(&file, copy).unwrap();
        let log = folder.open();
        assert_eq!(read_until_error(&*log, partitions[0], 0), numbered(&["a"]));
        let hole = log.fetch(partitions[0], Offset(1), 10);
        assert!(matches!(hole, Err(Error::Hole { from: Offset(1), to: Offset(3), .. })), "byte {damaged}: {hole:?}");
        assert!(hole.unwrap_err().to_string().starts_with("offsets 1..3 of demo.events/0 are damaged"), "named as people know it");
        assert_eq!(read(&*log, partitions[0], 3)[0], (3, "b".to_owned()));
        assert_eq!(read(&*log, partitions[1], 0), numbered(&["other"]));
        drop(log);
        for path in folder.wal_files().iter().filter(|path| **path != file) {
            std::fs::remove_file(path).unwrap();
        }
        std::fs::write(&file, &bytes).unwrap();
    }
}

fn read_until_error(log: &dyn LogReader, partition: TopicPartition, from: u64) -> Vec<(u64, String)> {
    let fetched = log.fetch(partition, Offset(from), usize::MAX).unwrap();
    fetched.records().map(|record| (record.offset.0, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned())).collect()
}

fn reader(folder: &Folder) -> EmbeddedReader {
    EmbeddedReader::open(Arc::new(RealFs), folder.path()).unwrap()
}

#[test]
fn a_reader_beside_the_writer_follows_what_is_synced() {
    let folder = Folder::new();
    let log = folder.open_with(Options { driver: Driver::Caller { group: 1 }, ..Options::small() }).unwrap();
    let partition = partitions_of(&log, "events", 1)[0];
    append(&log, partition, &["a"]).unwrap();
    let reader = reader(&folder);
    assert!(reader.writer().unwrap().is_some());
    assert_eq!(read(&reader, partition, 0), [], "nothing says yet that it was synced");
    append(&log, partition, &["b"]).unwrap();
    assert_eq!(read(&reader, partition, 0), numbered(&["a"]));
    let owner = log.acquire(&Group("fold".into()), partition).unwrap();
    let committed = Committed { offset: Offset(2), metadata: Bytes::from_static(b"m") };
    log.append(Transaction { batches: vec![], commits: vec![(owner, committed.clone())] }).unwrap().wait().unwrap();
    let value = "x".repeat(3000);
    for nth in 0..40 {
        append(&log, partition, &[&format!("{nth}{value}")]).unwrap();
        let end = reader.watermarks(partition).unwrap().end.0;
        assert_eq!(read(&reader, partition, 0).len() as u64, end);
        assert_eq!(end, 2 + nth, "all but the newest");
    }
    assert_eq!(reader.committed(&Group("fold".into()), partition).unwrap(), Some(committed));
    log.close();
    assert_eq!(read(&reader, partition, 0), read(&*log, partition, 0));
    assert_eq!(reader.writer().unwrap(), None);
}

#[test]
fn an_idle_writer_tells_readers_what_is_synced() {
    let folder = Folder::new();
    let log = folder.open();
    let partition = partitions_of(&log, "events", 1)[0];
    append(&log, partition, &["only"]).unwrap();
    let reader = reader(&folder);
    assert!(reader.wait(&[(partition, Offset(0))], Duration::from_secs(10)).unwrap());
    assert_eq!(read(&reader, partition, 0), numbered(&["only"]));
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    RealFs.list(folder).unwrap().into_iter().filter(is_segment).collect()
}

#[test]
fn the_doctor_names_a_damaged_block_and_a_declared_hole_is_passed_over() {
    let folder = Folder::new();
    let log = folder.open();
    let partition = partitions_of(&log, "events", 1)[0];
    let value = "x".repeat(3000);
    for nth in 0..6 {
        append(&log, partition, &[&format!("{nth}{value}{nth}")]).unwrap();
    }
    log.roll().unwrap();
    append(&log, partition, &["after"]).unwrap();
    drop(log);
    let sound = doctor::check(&RealFs, folder.path()).unwrap();
    assert!(sound.is_sound() && sound.notes.is_empty() && sound.records == 7, "{sound:?}");
    damage(&segments(folder.path())[0], 64 + 64 + 30);
    let log = folder.open();
    let hole = log.fetch(partition, Offset(0), 10);
    let Err(Error::Hole { from: Offset(0), to, .. }) = hole else { panic!("{hole:?}") };
    assert!(read(&*log, partition, to.0).len() as u64 == 7 - to.0);
    drop(log);
    let found = doctor::check(&RealFs, folder.path()).unwrap();
    assert_eq!((found.damage[0].from, found.damage[0].to, found.is_sound()), (Offset(0), to, false));
    let clock: Arc<dyn Clock> = Arc::new(folder.clock.clone());
    let declared = doctor::declare(Arc::new(RealFs), folder.path(), Arc::clone(&clock)).unwrap();
    assert_eq!(declared, Some(Incarnation(2)));
    assert!(doctor::check(&RealFs, folder.path()).unwrap().is_sound());
    let log = folder.open();
    assert_eq!(log.topics().unwrap()[0].incarnation, Incarnation(2));
    assert!(log.has_declared_holes(partition).unwrap() && reader(&folder).has_declared_holes(partition).unwrap());
    assert_eq!(read(&*log, partition, 0).first().map(|(offset, _)| *offset), Some(to.0));
    drop(log);
    assert_eq!(doctor::declare(Arc::new(RealFs), folder.path(), clock).unwrap(), None, "nothing more to declare");
}

#[test]
fn a_damaged_index_costs_nothing_and_a_missing_file_is_a_hole() {
    let folder = Folder::new();
    let log = folder.open();
    let partition = partitions_of(&log, "events", 1)[0];
    append(&log, partition, &["a", "b"]).unwrap();
    log.roll().unwrap();
    append(&log, partition, &["c"]).unwrap();
    log.roll().unwrap();
    drop(log);
    let files = segments(folder.path());
    let len = std::fs::metadata(&files[0]).unwrap().len() as usize;
    damage(&files[0], len - 1);
    assert_eq!(read(&*folder.open(), partition, 0), numbered(&["a", "b", "c"]));
    let report = doctor::check(&RealFs, folder.path()).unwrap();
    assert!(report.is_sound() && report.notes.len() == 1, "{report:?}");
    std::fs::remove_file(&files[1]).unwrap();
    let log = folder.open();
    assert!(matches!(log.fetch(partition, Offset(2), 1), Err(Error::Hole { from: Offset(2), to: Offset(3), .. })));
    drop(log);
    doctor::declare(Arc::new(RealFs), folder.path(), Arc::new(folder.clock.clone())).unwrap();
    let log = folder.open();
    append(&log, partition, &["d"]).unwrap();
    assert_eq!(read(&*log, partition, 2), [(3, "d".to_owned())]);
}

#[test]
fn a_backup_of_a_running_log_opens_as_a_new_incarnation_with_all_that_was_acknowledged() {
    let folder = Folder::new();
    let log = folder.open();
    let partition = partitions_of(&log, "events", 1)[0];
    let group = Group("fold".into());
    let owner = log.acquire(&group, partition).unwrap();
    append(&log, partition, &["a"]).unwrap();
    log.roll().unwrap();
    let committed = Committed { offset: Offset(1), metadata: Bytes::new() };
    let transaction = Transaction { batches: vec![(partition, batch(&["b"]))], commits: vec![(owner, committed.clone())] };
    log.append(transaction).unwrap().wait().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let (copy, restored) = (copies.path().join("copy"), copies.path().join("restored"));
    log.backup(&copy).unwrap();
    append(&log, partition, &["c"]).unwrap();
    assert!(log.backup(&copy).is_err(), "never over another copy");
    let (_, report) = backup::restore(&RealFs, &copy, &restored).unwrap();
    assert!(report.is_sound());
    let log = EmbeddedLog::open(Arc::new(RealFs), &restored, Options::small(), Arc::new(folder.clock.clone())).unwrap();
    assert_eq!(log.incarnation(), Incarnation(2));
    assert_eq!(read(&*log, partition, 0), numbered(&["a", "b"]));
    assert_eq!(log.committed(&group, partition).unwrap(), Some(committed));
}

#[test]
fn a_backup_is_sound_at_whatever_moment_it_is_taken() {
    let folder = Folder::new();
    let log = folder.open_with(Options::default()).unwrap();
    let partition = partitions_of(&log, "events", 1)[0];
    let copies = tempfile::tempdir().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One after another, so that the writer is idle now and then and notes how far it has synced.
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                append(&log, partition, &["a"]).unwrap();
                let end = log.watermarks(partition).unwrap().end;
                assert!(!log.wait(&[(partition, end)], std::time::Duration::from_millis(8)).unwrap(), "nobody else appends");
            }
        });
        for nth in 0..60 {
            let copy = copies.path().join(nth.to_string());
            let report = log.backup(&copy).and_then(|_| doctor::check(&RealFs, &copy));
            if !report.as_ref().is_ok_and(doctor::Report::is_sound) || nth == 59 {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                assert!(report.as_ref().is_ok_and(doctor::Report::is_sound), "{nth}: {report:?}");
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
    });
}

/// A clock that panics when told to: whoever asks it is a thread of the log.
struct Breaking {
    clock: ManualClock,
    threads: &'static str,
    is_broken: std::sync::atomic::AtomicBool,
}

impl Clock for Breaking {
    fn now(&self) -> Millis {
        let is_theirs = std::thread::current().name() == Some(self.threads);
        assert!(!(is_theirs && self.is_broken.load(std::sync::atomic::Ordering::SeqCst)), "told to");
        self.clock.now()
    }
}

#[test]
fn a_panic_of_a_thread_of_the_log_answers_everyone_who_waits_and_ends_it() {
    for threads in ["log-commit", "log-sync"] {
        let folder = Folder::new();
        let clock = Arc::new(Breaking { clock: folder.clock.clone(), threads, is_broken: false.into() });
        let log = EmbeddedLog::open(Arc::new(RealFs), folder.path(), Options::small(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let partition = partitions_of(&log, "events", 1)[0];
        append(&log, partition, &["before"]).unwrap();
        clock.is_broken.store(true, std::sync::atomic::Ordering::SeqCst);
        let hand_in = || log.append(Transaction { batches: vec![(partition, batch(&["x"]))], commits: Vec::new() });
        let tickets: Vec<_> = (0..50).map_while(|_| hand_in().ok()).collect();
        assert!(!tickets.is_empty());
        for ticket in tickets {
            assert_eq!(ticket.wait().unwrap_err().advice(), crate::log::Advice::Fatal);
        }
        let refused = loop {
            // The first tickets are answered while the thread is still being found dead.
            match hand_in().map(Ticket::wait) {
                Ok(answer) => assert!(answer.is_err()),
                Err(error) => break error,
            }
        };
        assert!(matches!(&refused, Error::Corrupt(why) if why.contains("panicked")), "{threads}: {refused}");
        assert_eq!(log.health().unwrap_err().to_string(), refused.to_string());
        log.close();
        drop(log);
        assert_eq!(read(&*folder.open(), partition, 0)[0].1, "before");
    }
}
