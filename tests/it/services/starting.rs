//! The services themselves: each answers its own client, keeps what it acknowledged through its own death, refuses a wrong password, stands
//! still while paused, and is gone with the tests.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};
use sqlx::{Connection, PgConnection, Row};

use super::{Cassandra, CassandraOptions, Kafka, KafkaOptions, Postgres, Redis, ask, fresh_name, wait_until};

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "0");
    config
}

async fn create_topic(config: &ClientConfig, topic: &str) {
    let admin: AdminClient<_> = config.create().expect("an admin client");
    let made = admin.create_topics(&[NewTopic::new(topic, 1, TopicReplication::Fixed(-1))], &AdminOptions::new()).await;
    made.expect("an answer")[0].as_ref().expect("the topic is made");
}

/// Hands over what became of each record.
struct Told(mpsc::Sender<KafkaResult<()>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let _ = self.0.send(result.as_ref().map(drop).map_err(|(error, _)| error.clone()));
    }
}

/// One record to partition 0, with its acknowledgement.
fn produce(config: &ClientConfig, topic: &str, value: &str) {
    let (told, answers) = mpsc::channel();
    let mut config = config.clone();
    config.set("acks", "all").set("message.timeout.ms", "30000");
    let producer: BaseProducer<Told> = config.create_with_context(Told(told)).expect("a producer");
    producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload(value)).map_err(|(error, _)| error).expect("queued");
    producer.flush(Duration::from_secs(30)).expect("flushed");
    answers.recv().expect("an answer").expect("acknowledged");
}

/// The first values of partition 0, which must come within half a minute.
fn consume(config: &ClientConfig, topic: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = config.clone().set("group.id", "reader").create().expect("a consumer");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&from).expect("assigned");
    let next = || {
        let record = consumer.poll(Duration::from_secs(30)).expect("a record").expect("no error");
        String::from_utf8(record.payload().expect("a value").to_vec()).expect("text")
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[tokio::test]
async fn the_kafka_of_all_tests_takes_and_gives_records() {
    let Some(kafka) = super::kafka() else { return };
    let (config, topic) = (client(&kafka.bootstrap()), fresh_name("records"));
    create_topic(&config, &topic).await;
    produce(&config, &topic, "one");
    assert_eq!(consume(&config, &topic, 1), ["one"]);
}

#[tokio::test]
async fn three_brokers_keep_what_they_acknowledged_when_their_controller_is_killed() {
    let Some(kafka) = Kafka::start(KafkaOptions::three()) else { return };
    let config = client(&kafka.bootstrap());
    create_topic(&config, "records").await;
    produce(&config, "records", "before");
    let controller = kafka.controller().expect("one is active");
    kafka.kill_broker(controller);
    assert!(!kafka.is_running(controller));
    produce(&config, "records", "without it");
    wait_until("another controller", || kafka.controller().is_some_and(|node| node != controller));
    kafka.start_broker(controller);
    kafka.wait_until_in_sync();
    kafka.pause_broker(controller);
    produce(&config, "records", "past a paused one");
    kafka.resume_broker(controller);
    kafka.wait_until_in_sync();
    kafka.stop_broker(controller % 3 + 1);
    produce(&config, "records", "after");
    assert_eq!(consume(&config, "records", 4), ["before", "without it", "past a paused one", "after"]);
}

#[tokio::test]
async fn a_broker_that_wants_tls_and_a_password_takes_the_right_one_only() {
    let Some(kafka) = Kafka::start(KafkaOptions { secure: true, ..KafkaOptions::default() }) else { return };
    let secure = kafka.secure();
    let mut config = client(&secure.bootstrap);
    config.set("security.protocol", "SASL_SSL").set("sasl.mechanism", "SCRAM-SHA-512");
    config.set("ssl.ca.location", secure.ca.display().to_string()).set("sasl.username", &secure.user);
    let ask = |config: &ClientConfig| {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.fetch_metadata(None, Duration::from_secs(5)).map(|metadata| metadata.brokers().len())
    };
    assert_eq!(ask(config.clone().set("sasl.password", &secure.password)), Ok(1));
    assert!(ask(config.clone().set("sasl.password", "guessed")).is_err());
    assert!(ask(&client(&secure.bootstrap)).is_err(), "in the clear");
}

#[tokio::test]
async fn a_paused_broker_answers_nobody_until_it_goes_on() {
    let Some(kafka) = Kafka::start(KafkaOptions::default()) else { return };
    let consumer: BaseConsumer = client(&kafka.bootstrap()).create().expect("a consumer");
    kafka.pause();
    assert!(consumer.fetch_metadata(None, Duration::from_millis(300)).is_err());
    kafka.resume();
    consumer.fetch_metadata(None, Duration::from_secs(10)).expect("an answer");
}

#[tokio::test]
async fn cassandra_keeps_what_it_answered_for_when_it_is_killed() {
    let Some(cassandra) = Cassandra::start(CassandraOptions::default()) else { return };
    let session = cassandra.session().await.expect("a session");
    let run = async |text: &str| session.query_unpaged(text, ()).await.expect(text);
    run("CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").await;
    run("CREATE TABLE k.t (key text PRIMARY KEY, value text)").await;
    run("INSERT INTO k.t (key, value) VALUES ('a', 'newer') USING TIMESTAMP 2").await;
    run("INSERT INTO k.t (key, value) VALUES ('a', 'older') USING TIMESTAMP 1").await;
    drop(session);
    cassandra.kill();
    assert!(cassandra.session().await.is_err());
    cassandra.restart();
    let session = cassandra.session().await.expect("a session");
    let ask = async || session.query_unpaged("SELECT value FROM k.t WHERE key = 'a'", ()).await;
    let rows = ask().await.expect("rows").into_rows_result().expect("rows");
    assert_eq!(rows.first_row::<(String,)>().expect("one row").0, "newer");
    cassandra.pause();
    assert!(tokio::time::timeout(Duration::from_millis(300), ask()).await.is_err(), "nobody answers");
    cassandra.resume();
    ask().await.expect("rows");
    cassandra.stop();
    assert!(ask().await.is_err());
}

#[tokio::test]
async fn a_cassandra_with_passwords_refuses_a_wrong_one() {
    let Some(cassandra) = Cassandra::start(CassandraOptions { passwords: true }) else { return };
    cassandra.session().await.expect("the right one");
    let wrong = scylla::client::session_builder::SessionBuilder::new().known_node(cassandra.node());
    assert!(wrong.clone().user(Cassandra::USER, "guessed").build().await.is_err());
    assert!(wrong.build().await.is_err(), "none");
}

#[tokio::test]
async fn postgres_keeps_what_it_committed_when_it_is_killed() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.create_database();
    let mut connection = PgConnection::connect(&url).await.expect("a session");
    sqlx::query("CREATE TABLE t AS SELECT 7 AS n").execute(&mut connection).await.expect("made");
    postgres.pause();
    let asked = tokio::time::timeout(Duration::from_millis(300), sqlx::query("SELECT n FROM t").fetch_one(&mut connection));
    assert!(asked.await.is_err(), "nobody answers");
    postgres.resume();
    PgConnection::connect(&url).await.expect("a session");
    postgres.stop();
    postgres.restart();
    PgConnection::connect(&url).await.expect("a session");
    postgres.kill();
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart();
    let mut connection = PgConnection::connect(&url).await.expect("a session");
    assert_eq!(sqlx::query("SELECT n FROM t").fetch_one(&mut connection).await.expect("a row").get::<i32, _>(0), 7);
    let guessed = url.replace(postgres.password(), "guessed");
    assert!(PgConnection::connect(&guessed).await.is_err());
}

#[tokio::test]
async fn redis_keeps_what_it_answered_for_when_it_is_killed() {
    let Some(redis) = Redis::start() else { return };
    let client = redis::Client::open(redis.url()).expect("a url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a session");
    redis::cmd("SET").arg("a").arg("1").query_async::<()>(&mut connection).await.expect("set");
    redis.pause();
    let asked = redis::cmd("GET").arg("a").query_async::<String>(&mut connection).await;
    assert!(asked.expect_err("nobody answers").is_timeout());
    redis.resume();
    redis::cmd("GET").arg("a").query_async::<String>(&mut connection).await.expect("a value");
    redis.stop();
    redis.restart();
    redis.kill();
    redis.restart();
    let mut connection = client.get_multiplexed_async_connection().await.expect("a session");
    assert_eq!(redis::cmd("GET").arg("a").query_async::<String>(&mut connection).await.expect("a value"), "1");
    let guessed = redis::Client::open(format!("redis://default:guessed@127.0.0.1:{}/", redis.port())).expect("a url");
    assert!(guessed.get_multiplexed_async_connection().await.is_err());
}

#[test]
fn a_service_ends_with_the_test_that_panics() {
    let Some(redis) = Redis::start() else { return };
    let (pid, dir) = redis.place();
    let test = std::panic::catch_unwind(move || {
        let _redis = redis;
        panic!("as a failing test does");
    });
    assert!(test.is_err() && !is_alive(pid) && !dir.exists());
}

/// Set for the process that is to be killed: where it says what it started.
const VICTIM: &str = "FLYWHEEL_TEST_VICTIM";

#[test]
fn nothing_is_left_of_the_services_when_the_tests_are_killed() {
    let (Some(kafka), Some(cassandra)) = (super::kafka(), super::cassandra()) else { return };
    let (Some(postgres), Some(redis)) = (super::postgres(), super::redis()) else { return };
    if let Ok(told) = std::env::var(VICTIM) {
        let places = [kafka.place(1), cassandra.place(), postgres.place(), redis.place()];
        let lines = places.map(|(pid, dir)| format!("{pid} {}\n", dir.display()));
        std::fs::write(format!("{told}.part"), lines.concat()).expect("written");
        std::fs::rename(format!("{told}.part"), told).expect("renamed");
        loop {
            std::thread::park();
        }
    }
    let told = tempfile::tempdir().expect("a folder");
    let told = told.path().join("places");
    let name = std::thread::current().name().expect("a test has a name").to_owned();
    let mut tests = Command::new(std::env::current_exe().expect("this binary"));
    tests.args(["--exact", &name]).env(VICTIM, &told).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tests = tests.spawn().expect("it starts");
    wait_until("the services run", || told.exists());
    let text = std::fs::read_to_string(&told).expect("what it started");
    let started: Vec<(u32, &Path)> = text
        .lines()
        .map(|line| line.split_once(' ').expect("two"))
        .map(|(pid, dir)| (pid.parse().expect("a pid"), Path::new(dir)))
        .collect();
    assert!(started.len() == 4 && started.iter().all(|(pid, dir)| is_alive(*pid) && dir.exists()));
    tests.kill().expect("it is ours");
    tests.wait().expect("it ends");
    wait_until("they are gone", || started.iter().all(|(pid, dir)| !is_alive(*pid) && !dir.exists() && !parent_exists(dir)));
}

fn parent_exists(dir: &Path) -> bool {
    dir.parent().expect("a parent").exists()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn clients_are_asked_with_and_without_a_runtime() {
    let inside = tokio::runtime::Runtime::new().expect("a runtime");
    assert_eq!(inside.block_on(async { ask(async { 1 }) }), ask(async { 1 }));
}
