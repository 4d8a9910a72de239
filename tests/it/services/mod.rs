//! Real services for tests, without Docker: Kafka, Cassandra, PostgreSQL and Redis as processes of the test's own, on free loopback ports
//! and in temporary folders, through the scripts of `scripts/services/`, which know how each is configured.
//!
//! [`kafka`], [`cassandra`], [`postgres`] and [`redis`] give one instance that every test of this binary shares, since a start costs
//! seconds: a test keeps to names of its own ([`fresh_name`]). A test that pauses, kills or fills a service starts one for itself
//! ([`Kafka::start`] and the others), which ends with the value. All of them end with this process, however it ends.
//!
//! A machine that cannot run them fails the tests and says what is missing. With `FLYWHEEL_TEST_SKIP_SERVICES=1` there are none: every way
//! to get one gives `None`, and says which test was skipped.

mod process;

mod kafka;

mod cassandra;
mod postgres;
mod redis;

mod network;

mod starting;
mod weathering;

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub use cassandra::{Cassandra, CassandraOptions};
pub use kafka::{Kafka, KafkaOptions};
pub use network::Network;
pub use postgres::Postgres;
pub use process::{ask, wait_until};
pub use redis::Redis;

/// The Kafka of all tests: one broker.
pub fn kafka() -> Option<&'static Kafka> {
    static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
    shared("Kafka", &SHARED, || Kafka::try_start(KafkaOptions::default()))
}

/// The Cassandra of all tests, without passwords.
pub fn cassandra() -> Option<&'static Cassandra> {
    static SHARED: OnceLock<Result<Cassandra, String>> = OnceLock::new();
    shared("Cassandra", &SHARED, || Cassandra::try_start(Ipv4Addr::LOCALHOST, CassandraOptions::default()))
}

/// The PostgreSQL of all tests: [`Postgres::create_database`] gives a database of the test's own.
pub fn postgres() -> Option<&'static Postgres> {
    static SHARED: OnceLock<Result<Postgres, String>> = OnceLock::new();
    shared("PostgreSQL", &SHARED, || Postgres::try_start(Ipv4Addr::LOCALHOST))
}

/// The Redis of all tests: its keys are everybody's, so begin them with a [`fresh_name`].
pub fn redis() -> Option<&'static Redis> {
    static SHARED: OnceLock<Result<Redis, String>> = OnceLock::new();
    shared("Redis", &SHARED, || Redis::try_start(Ipv4Addr::LOCALHOST))
}

/// A name that no other test, of this or of an earlier run, has used: letters, digits and underscores, as a keyspace or a topic may be called.
pub fn fresh_name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The instance of all tests. That it did not start is told to each test that needs it, not tried again by each.
#[track_caller]
fn shared<T>(what: &str, shared: &'static OnceLock<Result<T, String>>, start: impl FnOnce() -> Result<T, String>) -> Option<&'static T> {
    if is_skipped(what) {
        return None;
    }
    match shared.get_or_init(start) {
        Ok(service) => Some(service),
        Err(why) => panic!("{why}"),
    }
}

/// An instance of a test's own.
#[track_caller]
fn own<T>(what: &str, start: impl FnOnce() -> Result<T, String>) -> Option<T> {
    if is_skipped(what) {
        return None;
    }
    match start() {
        Ok(service) => Some(service),
        Err(why) => panic!("{why}"),
    }
}

fn is_skipped(what: &str) -> bool {
    let told = std::env::var("FLYWHEEL_TEST_SKIP_SERVICES").is_ok_and(|value| value == "1");
    if told {
        let thread = std::thread::current();
        // Past the harness, which shows what is printed only of tests that fail.
        let _ =
            writeln!(std::io::stderr(), "skipped: {} needs {what}, and FLYWHEEL_TEST_SKIP_SERVICES=1", thread.name().unwrap_or("a test"));
    }
    told
}
