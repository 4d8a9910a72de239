//! The network between clients and services: slow, lossy or cut for those inside, and as ever for those outside.

use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Cassandra, CassandraOptions, Kafka, KafkaOptions, Network, Postgres, Redis, ask};

async fn connected(redis: &Redis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("a url");
    client.get_multiplexed_async_connection().await.expect("a session")
}

#[test]
fn a_connection_outlives_a_cut_that_only_its_deadline_notices() {
    let Some(network) = Network::open() else { return };
    let Some(redis) = Redis::start_at(network.address()) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let ping = async |connection: &mut redis::aio::MultiplexedConnection| redis::cmd("PING").query_async::<()>(connection).await;
    // A socket stays in the network that it was opened in.
    let mut inside = network.within(|| runtime.block_on(connected(&redis)));
    let mut outside = runtime.block_on(connected(&redis));
    inside.set_response_timeout(Duration::from_millis(300));
    runtime.block_on(async {
        ping(&mut inside).await.expect("an answer");
        network.cut();
        assert!(ping(&mut inside).await.expect_err("cut").is_timeout());
        ping(&mut outside).await.expect("who is outside notices nothing");
        network.heal();
        inside.set_response_timeout(Duration::from_secs(30));
        ping(&mut inside).await.expect("the kernel sends again what was lost");
    });
}

#[test]
fn a_slow_network_takes_its_time_each_way() {
    let Some(network) = Network::open() else { return };
    let Some(redis) = Redis::start_at(network.address()) else { return };
    let round = async || {
        let mut connection = connected(&redis).await;
        network.delay(Duration::from_millis(100));
        let began = Instant::now();
        redis::cmd("PING").query_async::<()>(&mut connection).await.expect("an answer");
        began.elapsed()
    };
    let took = network.within(|| ask(round()));
    assert!(took >= Duration::from_millis(200), "{took:?}");
}

#[test]
fn a_lossy_network_delivers_everything_in_the_end() {
    let Some(network) = Network::open() else { return };
    let Some(redis) = Redis::start_at(network.address()) else { return };
    let count = async || {
        let mut connection = connected(&redis).await;
        connection.set_response_timeout(Duration::from_secs(30));
        network.lose(10);
        for _ in 0..50 {
            redis::cmd("INCR").arg("n").query_async::<()>(&mut connection).await.expect("an answer");
        }
        redis::cmd("GET").arg("n").query_async::<u32>(&mut connection).await.expect("an answer")
    };
    assert_eq!(network.within(|| ask(count())), 50);
}

#[test]
fn every_service_is_reached_from_inside_and_by_programs() {
    let Some(network) = Network::open() else { return };
    let address = network.address();
    let Some(kafka) = Kafka::start(KafkaOptions { address, ..KafkaOptions::default() }) else { return };
    let Some(cassandra) = Cassandra::start_at(address, CassandraOptions::default()) else { return };
    let Some(postgres) = Postgres::start_at(address) else { return };
    network.within(|| {
        let mut config = rdkafka::ClientConfig::new();
        let consumer: BaseConsumer = config.set("bootstrap.servers", kafka.bootstrap()).create().expect("a consumer");
        consumer.fetch_metadata(None, Duration::from_secs(10)).expect("an answer");
        ask(cassandra.session()).expect("a session");
        postgres.create_database();
    });
    let mut program = Command::new("ip");
    let seen = network.enter(program.args(["-brief", "addr"])).output().expect("ip runs");
    let seen = String::from_utf8(seen.stdout).expect("text");
    assert!(!seen.contains(&address.to_string()) && seen.contains("flywheel0"), "{seen}");
}
