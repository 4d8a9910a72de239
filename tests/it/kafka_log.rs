//! What the log on Kafka promises beyond the suite of all logs (`log_contract`): groups whose members come, go and die, topics that others
//! made, time by the broker's clock, and what is said where a cluster cannot be used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flywheel::domain::{Millis, Namespace, Offset, PartitionId};
use flywheel::env::{Clock, SystemClock};
use flywheel::log::kafka::Options;
use flywheel::log::{
    Advice, BatchBuilder, Change, Cleanup, Committed, Error, Group, KafkaLog, LogReader, LogWriter, Membership, Ownership, Retention,
    TopicName, TopicPartition, TopicSpec, Transaction,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::services::{self, Kafka, KafkaOptions};

/// How long anything here may take that should take a moment.
const SOON: Duration = Duration::from_secs(60);

/// A prefix of the test's own on a cluster of one broker.
pub fn options(kafka: &Kafka) -> Options {
    Options {
        brokers: kafka.bootstrap(),
        prefix: format!("{}.", services::fresh_name("t")),
        replication_factor: 1,
        min_insync_replicas: 1,
        session_timeout: Duration::from_secs(6),
        ..Options::default()
    }
}

fn named(options: &Options, instance: &str) -> Arc<KafkaLog> {
    KafkaLog::open(Options { instance: instance.into(), ..options.clone() }).unwrap()
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    let name = TopicName::new(&Namespace::new("test").unwrap(), name);
    TopicSpec { name, partitions, retention: Retention::Forever, cleanup: Cleanup::Delete }
}

fn topic(log: &KafkaLog, name: &str, partitions: u32) -> Vec<TopicPartition> {
    let topic = log.create_topic(&spec(name, partitions)).unwrap().id;
    (0..partitions).map(|partition| TopicPartition { topic, partition: PartitionId(partition) }).collect()
}

fn group() -> Group {
    Group("test.fold".into())
}

fn batch(words: &[&str]) -> flywheel::log::RecordBatch {
    let mut batch = BatchBuilder::new();
    words.iter().for_each(|word| batch.push(word.as_bytes(), Some(b"1"), Millis(7)));
    batch.build()
}

fn append(log: &KafkaLog, partition: TopicPartition, words: &[&str]) -> flywheel::log::Appended {
    log.append(Transaction { batches: vec![(partition, batch(words))], commits: Vec::new() }).unwrap().wait().unwrap()
}

fn commit(log: &KafkaLog, owner: &Ownership, offset: u64, to: TopicPartition, word: &str) -> Result<(), Error> {
    let committed = Committed { offset: Offset(offset), metadata: bytes::Bytes::from(vec![7; 20]) };
    log.append(Transaction { batches: vec![(to, batch(&[word]))], commits: vec![(owner.clone(), committed)] })?.wait().map(drop)
}

/// As a loop does it: what is refused for now is handed in again.
fn until_decided(mut attempt: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let deadline = Instant::now() + SOON;
    loop {
        match attempt() {
            Err(error) if error.advice() == Advice::Retry && Instant::now() < deadline => {}
            decided => return decided,
        }
    }
}

/// Keys of the partition's records.
fn keys(log: &KafkaLog, partition: TopicPartition) -> Vec<String> {
    let marks = log.watermarks(partition).unwrap();
    let (mut at, mut keys) = (marks.start, Vec::new());
    while at < marks.end {
        let fetched = log.fetch(partition, at, 1 << 20).unwrap();
        keys.extend(fetched.records().map(|record| String::from_utf8_lossy(record.key).into_owned()));
        assert!(fetched.next > at);
        at = fetched.next;
    }
    keys
}

#[test]
fn offsets_of_transactions_have_gaps_and_reading_arrives_at_the_end_all_the_same() {
    let Some(kafka) = services::kafka() else { return };
    let log = named(&options(kafka), "one");
    let (input, output) = (topic(&log, "in", 1)[0], topic(&log, "out", 1)[0]);
    let owner = log.acquire(&group(), input).unwrap();
    for offset in 1..=5 {
        commit(&log, &owner, offset, output, &format!("r{offset}")).unwrap();
    }
    assert_eq!(keys(&log, output), ["r1", "r2", "r3", "r4", "r5"]);
    let end = log.watermarks(output).unwrap().end;
    assert!(end >= Offset(9), "a transaction ends with a mark: {end}");
    let fetched = log.fetch(output, end, 100).unwrap();
    assert!(fetched.is_empty() && fetched.next == end);
    assert!(!log.wait(&[(output, end)], Duration::ZERO).unwrap());
}

#[test]
fn many_loops_commit_together_and_each_hears_of_its_own() {
    let Some(kafka) = services::kafka() else { return };
    let log = named(&options(kafka), "one");
    let (input, output) = (topic(&log, "in", 8), topic(&log, "out", 8));
    let owners: Vec<Ownership> = input.iter().map(|partition| log.acquire(&group(), *partition).unwrap()).collect();
    std::thread::scope(|scope| {
        for (at, owner) in owners.iter().enumerate() {
            let (log, output) = (&log, output[at]);
            scope.spawn(move || (1..=20).for_each(|offset| commit(log, owner, offset, output, &offset.to_string()).unwrap()));
        }
    });
    for at in 0..8 {
        assert_eq!(keys(&log, output[at]), (1..=20).map(|offset| offset.to_string()).collect::<Vec<_>>());
        assert_eq!(log.committed(&group(), input[at]).unwrap().unwrap().offset, Offset(20));
    }
}

#[test]
fn an_owner_that_another_process_took_over_from_writes_nothing_more() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let (before, after) = (named(&options, "before"), named(&options, "after"));
    let (input, output) = (topic(&before, "in", 2), topic(&before, "out", 1)[0]);
    let (stale, other) = (before.acquire(&group(), input[0]).unwrap(), before.acquire(&group(), input[1]).unwrap());
    commit(&before, &stale, 1, output, "before").unwrap();
    let owner = after.acquire(&group(), input[0]).unwrap();
    assert!(owner.epoch > stale.epoch);
    let refused = until_decided(|| commit(&before, &stale, 2, output, "stale")).unwrap_err();
    assert!(matches!(refused, Error::Fenced(partition) if partition == input[0]), "{refused}");
    commit(&after, &owner, 2, output, "after").unwrap();
    // What was not taken over it keeps: its producer begins anew, and the commit is handed in again.
    until_decided(|| commit(&before, &other, 1, output, "other")).unwrap();
    assert_eq!(keys(&after, output), ["before", "after", "other"]);
    assert_eq!(after.committed(&group(), input[0]).unwrap().unwrap().offset, Offset(2));
}

#[test]
fn an_open_transaction_of_a_dead_owner_is_ended_by_its_successor() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let dead = named(&options, "dead");
    let (input, output) = (topic(&dead, "in", 1)[0], topic(&dead, "out", 1)[0]);
    let owner = dead.acquire(&group(), input).unwrap();
    commit(&dead, &owner, 1, output, "done").unwrap();
    dead.close();
    // Under its own name and half-way through the next transaction it stops for ever: records written, the offset with them, no commit.
    let zombie: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", format!("{}flywheel.dead", options.prefix))
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    zombie.init_transactions(SOON).unwrap();
    zombie.begin_transaction().unwrap();
    let out = format!("{}test.out", options.prefix);
    zombie.send(BaseRecord::to(&out).partition(0).key("half").payload("1")).unwrap();
    zombie.flush(SOON).unwrap();
    let successor = named(&options, "successor");
    let begun = Instant::now();
    let owner = successor.acquire(&group(), input).unwrap();
    commit(&successor, &owner, 2, output, "next").unwrap();
    assert_eq!(keys(&successor, output), ["done", "next"], "after {:?}", begun.elapsed());
    assert!(zombie.commit_transaction(SOON).is_err(), "and it cannot commit what it had");
    assert_eq!(keys(&successor, output), ["done", "next"]);
}

/// A member of the group and what it has.
struct Fold {
    log: Arc<KafkaLog>,
    member: Option<Box<dyn Membership>>,
    has: Vec<TopicPartition>,
}

impl Fold {
    fn new(log: Arc<KafkaLog>, input: TopicPartition) -> Self {
        let member = log.join(&group(), input.topic).unwrap();
        Self { log, member: Some(member), has: Vec::new() }
    }

    fn poll(&mut self) {
        let member = self.member.as_mut().unwrap();
        for change in member.poll(Duration::from_millis(20)).unwrap() {
            match change {
                Change::Assigned(more) => self.has.extend(more),
                Change::Revoked(fewer) => {
                    self.has.retain(|partition| !fewer.contains(partition));
                    member.release(&fewer).unwrap();
                }
                Change::Lost(fewer) => self.has.retain(|partition| !fewer.contains(partition)),
            }
        }
        self.has.sort_by_key(|partition| partition.partition);
    }

    fn leave(&mut self) {
        let member = self.member.take().unwrap();
        member.leave(&std::mem::take(&mut self.has)).unwrap();
    }
}

/// Polls all of them until it holds.
fn until(folds: &mut [&mut Fold], what: &str, holds: impl Fn(&[&mut Fold]) -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds(folds) {
        assert!(Instant::now() < deadline, "{what}: {:?}", folds.iter().map(|fold| &fold.has).collect::<Vec<_>>());
        folds.iter_mut().for_each(|fold| fold.poll());
    }
}

#[test]
fn members_share_the_partitions_and_hand_over_what_they_had() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let log = named(&options, "one");
    let (input, output) = (topic(&log, "in", 4), topic(&log, "out", 1)[0]);
    let mut one = Fold::new(Arc::clone(&log), input[0]);
    until(&mut [&mut one], "the only member has all", |folds| folds[0].has == input);
    let owners: Vec<Ownership> = input.iter().map(|partition| log.acquire(&group(), *partition).unwrap()).collect();
    for (at, owner) in owners.iter().enumerate() {
        commit(&log, owner, 1, output, &format!("one-{at}")).unwrap();
    }
    let mut two = Fold::new(named(&options, "two"), input[0]);
    until(&mut [&mut one, &mut two], "two share them", |folds| folds.iter().all(|fold| fold.has.len() == 2));
    let moved = two.has.clone();
    for partition in &moved {
        let stale = &owners[partition.partition.0 as usize];
        let refused = commit(&log, stale, 9, output, "stale").unwrap_err();
        assert!(matches!(refused, Error::Fenced(_)), "{refused}");
        let owner = two.log.acquire(&group(), *partition).unwrap();
        commit(&two.log, &owner, 2, output, "two").unwrap();
    }
    // Those that stayed were never interrupted: their owners commit on.
    let deadline = Instant::now() + SOON;
    for partition in one.has.clone() {
        while let Err(error) = commit(&log, &owners[partition.partition.0 as usize], 2, output, "stayed") {
            assert!(error.advice() == Advice::Retry && Instant::now() < deadline, "{error}");
            one.poll();
        }
    }
    let begun = Instant::now();
    let leaver = std::thread::spawn(move || {
        two.leave();
        two
    });
    until(&mut [&mut one], "who stays has all again", |folds| folds[0].has == input);
    let took = begun.elapsed();
    drop(leaver.join().unwrap());
    println!("{{\"name\": \"kafka.leave\", \"seconds\": {:.2}}}", took.as_secs_f64());
    assert_eq!(keys(&log, output).iter().filter(|key| *key == "stale").count(), 0);
}

#[test]
fn an_offset_that_the_broker_has_forgotten_is_still_known() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let log = named(&options, "one");
    let (input, output) = (topic(&log, "in", 1)[0], topic(&log, "out", 1)[0]);
    let owner = log.acquire(&group(), input).unwrap();
    commit(&log, &owner, 41, output, "a").unwrap();
    commit(&log, &owner, 42, output, "b").unwrap();
    log.close();
    // As after `offsets.retention.minutes` without a member.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = format!("{}{}", options.prefix, group().0);
    let deleted = runtime.block_on(admin(kafka).delete_groups(&[name.as_str()], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let log = named(&options, "two");
    let committed = log.committed(&group(), input).unwrap().unwrap();
    assert_eq!((committed.offset, committed.metadata.len()), (Offset(42), 20));
    let owner = log.acquire(&group(), input).unwrap();
    commit(&log, &owner, 43, output, "c").unwrap();
    assert_eq!(log.committed(&group(), input).unwrap().unwrap().offset, Offset(43));
}

#[test]
fn metadata_of_any_length_that_the_port_takes_is_found_by_every_process() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let log = named(&options, "one");
    let input = topic(&log, "in", 1)[0];
    let owner = log.acquire(&group(), input).unwrap();
    for length in [0, 1, 3000, flywheel::log::COMMIT_METADATA_BYTES_MAX] {
        let metadata = bytes::Bytes::from((0..length).map(|at| at as u8).collect::<Vec<_>>());
        let committed = Committed { offset: Offset(length as u64), metadata };
        log.append(Transaction { batches: Vec::new(), commits: vec![(owner.clone(), committed.clone())] }).unwrap().wait().unwrap();
        assert_eq!(named(&options, "two").committed(&group(), input).unwrap(), Some(committed));
    }
}

#[test]
fn what_foreign_producers_write_is_read_with_its_headers() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let log = named(&options, "one");
    let inbox = topic(&log, "inbox", 1)[0];
    let before = SystemClock.now();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let name = format!("{}test.inbox", options.prefix);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "flywheel-tenant", value: Some("acme") })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header::<&str> { key: "none", value: None });
    producer.send(BaseRecord::<[u8], str>::to(&name).payload("hello").headers(headers).timestamp(1)).unwrap();
    producer.send(BaseRecord::<str, [u8]>::to(&name).key("gone")).unwrap();
    producer.flush(SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while log.watermarks(inbox).unwrap().end < Offset(2) {
        assert!(Instant::now() < deadline);
    }
    let fetched = log.fetch(inbox, Offset(0), 1 << 20).unwrap();
    let records: Vec<_> = fetched.records().collect();
    assert_eq!((records[0].key, records[0].value), (&b""[..], Some(&b"hello"[..])));
    let header = |name: &str| records[0].headers.last(name);
    assert_eq!(header("flywheel-tenant"), Some(Some(&b"acme"[..])));
    assert_eq!((header("empty"), header("none"), header("other")), (Some(Some(&b""[..])), Some(None), None));
    assert_eq!((records[1].key, records[1].value), (&b"gone"[..], None));
    assert!(records[0].append_time >= before - 5_000, "the broker's time, whatever the producer said: {:?}", records[0].append_time);
    assert_eq!(records[0].timestamp, records[0].append_time, "a producer of its own states no time of ours");
}

#[test]
fn records_keep_their_headers_and_their_own_timestamp() {
    let Some(kafka) = services::kafka() else { return };
    let log = named(&options(kafka), "one");
    let partition = topic(&log, "in", 1)[0];
    let mut headers = flywheel::log::HeaderList::default();
    headers.push("a", Some(b"1")).unwrap();
    headers.push("b", None).unwrap();
    let mut batch = BatchBuilder::new();
    batch.push_headed(b"k", Some(b"v"), Millis(-5), headers.as_headers());
    batch.push(b"l", Some(b"v"), Millis(6));
    log.append(Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() }).unwrap().wait().unwrap();
    let fetched = log.fetch(partition, Offset(0), 1 << 20).unwrap();
    let read: Vec<_> = fetched.records().map(|record| (record.timestamp, record.headers.iter().count())).collect();
    assert_eq!(read, [(Millis(-5), 2), (Millis(6), 0)]);
}

#[test]
fn old_records_go_once_every_group_and_pin_has_passed_them() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let log = named(&options, "one");
    let short = TopicSpec { retention: Retention::Age(Duration::from_secs(60)), ..spec("short", 1) };
    let id = log.create_topic(&short).unwrap().id;
    let partition = TopicPartition { topic: id, partition: PartitionId(0) };
    let kept = topic(&log, "kept", 1)[0];
    append(&log, kept, &["a"]);
    let last = append(&log, partition, &["a", "b", "c", "d"]);
    let (slow, fast) = (Group("test.slow".into()), Group("test.fast".into()));
    let (slow_owner, fast_owner) = (log.acquire(&slow, partition).unwrap(), log.acquire(&fast, partition).unwrap());
    commit(&log, &fast_owner, 4, kept, "out").unwrap();
    log.pin("backup", partition, Some(Offset(1))).unwrap();
    let start = || log.watermarks(partition).unwrap().start;
    assert_eq!((log.clean(last.append_time + 30_000).unwrap(), start()), (0, Offset(0)), "not old yet");
    let later = last.append_time + 120_000;
    assert_eq!((log.clean(later).unwrap(), start()), (0, Offset(0)), "a group that owns it has everything to read");
    commit(&log, &slow_owner, 3, kept, "out").unwrap();
    assert_eq!((log.clean(later).unwrap(), start()), (1, Offset(1)), "the pin is lower than the groups");
    assert!(matches!(log.fetch(partition, Offset(0), 100), Err(Error::OffsetOutOfRange { start: Offset(1), .. })));
    let other = named(&options, "two");
    other.pin("backup", partition, None).unwrap();
    other.clean(later).unwrap();
    assert_eq!(start(), Offset(3), "what another process knows is the same");
    assert_eq!(log.watermarks(kept).unwrap().start, Offset(0), "for ever is for ever");
    assert!(matches!(log.fetch(partition, Offset(9), 100), Err(Error::OffsetOutOfRange { end: Offset(4), .. })));
}

#[test]
fn a_time_is_found_by_the_brokers_clock() {
    let Some(kafka) = services::kafka() else { return };
    let log = named(&options(kafka), "one");
    let partition = topic(&log, "in", 1)[0];
    assert_eq!(log.offset_at(partition, Millis(0)).unwrap(), Offset(0), "the end of an empty partition");
    let first = append(&log, partition, &["a", "b"]);
    let mut second = append(&log, partition, &["c"]);
    while second.append_time == first.append_time {
        second = append(&log, partition, &["c"]);
    }
    let at = |time: Millis| log.offset_at(partition, time).unwrap();
    assert_eq!((at(first.append_time), at(second.append_time)), (Offset(0), second.first_offsets[0]));
    assert_eq!(at(second.append_time + 1), log.watermarks(partition).unwrap().end);
    let fetched = log.fetch(partition, second.first_offsets[0], 1).unwrap();
    assert_eq!(fetched.records().next().unwrap().append_time, second.append_time);
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap()
}

#[test]
fn a_topic_that_would_lose_records_is_refused_with_what_is_wrong() {
    let Some(kafka) = services::kafka() else { return };
    let options = options(kafka);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let make = |name: &str, partitions: i32, settings: &[(&str, &str)]| {
        let name = format!("{}test.{name}", options.prefix);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = runtime.block_on(admin(kafka).create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    };
    let good = [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")];
    let log = named(&options, "one");
    type Case<'a> = (&'a str, i32, Vec<(&'a str, &'a str)>, &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        ("few", 2, good.to_vec(), &["partitions 2", "partitions 3"]),
        ("forgetful", 3, vec![good[0]], &["retention.ms 604800000", "retention.ms -1"]),
        ("compacted", 3, [&good[..], &[("cleanup.policy", "compact")]].concat(), &["cleanup.policy compact", "cleanup.policy delete"]),
        ("untimed", 3, vec![good[1]], &["message.timestamp.type CreateTime", "message.timestamp.type LogAppendTime"]),
        ("small", 3, [&good[..], &[("max.message.bytes", "10000")]].concat(), &["max.message.bytes 10000", "max.message.bytes 1048000"]),
    ];
    for (name, partitions, settings, said) in cases {
        make(name, partitions, &settings);
        let refused = log.create_topic(&spec(name, 3)).unwrap_err();
        assert_eq!(refused.advice(), Advice::Reject, "{refused}");
        let text = refused.to_string();
        assert!(said.iter().all(|words| text.contains(words)) && text.contains(name), "{text}");
    }
    make("agreed", 3, &good);
    log.create_topic(&spec("agreed", 3)).unwrap();
    let careful = KafkaLog::open(Options { create_topics: false, instance: "two".into(), ..options.clone() }).unwrap();
    let refused = careful.create_topic(&spec("missing", 3)).unwrap_err().to_string();
    assert!(refused.contains("kafka.create_topics") && refused.contains("test.missing"), "{refused}");
    let greedy = KafkaLog::open(Options { replication_factor: 3, instance: "three".into(), ..options.clone() }).unwrap();
    let refused = greedy.create_topic(&spec("copies", 3)).unwrap_err().to_string();
    assert!(refused.contains("kafka.replication_factor"), "{refused}");
}

#[test]
fn a_cluster_that_cannot_be_reached_is_named_with_the_setting_and_soon() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // The listener is gone by now. One that accepts and never answers is as bad.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (brokers, why) in [(nobody, "refused"), (silent.local_addr().unwrap().to_string(), ""), ("no.such.host.invalid:1".into(), "")] {
        let begun = Instant::now();
        let Err(error) = KafkaLog::open(Options { brokers: brokers.clone(), ..Options::default() }) else { panic!("{brokers} answers") };
        let text = error.to_string();
        assert!(text.contains("kafka.brokers") && text.contains(&brokers) && text.contains(why), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_broker_that_wants_tls_and_a_password_gets_them() {
    let Some(kafka) = Kafka::start(KafkaOptions { secure: true, ..KafkaOptions::default() }) else { return };
    let secure = kafka.secure();
    let client = |password: &str, ca: &str| {
        [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", &secure.user),
            ("sasl.password", password),
            ("ssl.ca.location", ca),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    };
    let ca = secure.ca.display().to_string();
    let with = |client| Options { brokers: secure.bootstrap.clone(), client, ..options(&kafka) };
    let log = KafkaLog::open(with(client(&secure.password, &ca))).unwrap();
    let (input, output) = (topic(&log, "in", 1)[0], topic(&log, "out", 1)[0]);
    let owner = log.acquire(&group(), input).unwrap();
    commit(&log, &owner, 1, output, "sealed").unwrap();
    assert_eq!(keys(&log, output), ["sealed"]);
    let refusal = |client| KafkaLog::open(with(client)).err().expect("it is refused").to_string();
    let wrong = refusal(client("hunter2", &ca));
    assert!(wrong.contains("kafka.client") && wrong.contains("sasl.password") && !wrong.contains("hunter2"), "{wrong}");
    let distrusted = refusal(client(&secure.password, "/etc/ssl/certs/ca-certificates.crt"));
    assert!(distrusted.contains("kafka.client") && distrusted.contains("TLS"), "{distrusted}");
    let missing = refusal(client(&secure.password, "/no/such/file.pem"));
    assert!(missing.contains("kafka.client"), "{missing}");
}
