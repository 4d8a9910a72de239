//! The Postgres of these tests: the server of `tests/it/services`, as much of it as is needed inside the library.

#[allow(dead_code, reason = "of what the integration tests share, a part is enough here")]
#[path = "../../../tests/it/services/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "of what the integration tests share, a part is enough here")]
#[path = "../../../tests/it/services/process.rs"]
mod process;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};

pub use self::postgres::Postgres as Server;
use super::block_on;

/// A database that all tests of this process share, each under a prefix of its own; none where services are to be skipped, which is said.
pub fn database() -> Option<&'static str> {
    static SHARED: OnceLock<Option<String>> = OnceLock::new();
    SHARED.get_or_init(fresh_database).as_deref()
}

/// A database of a test's own on the server that all share.
pub fn fresh_database() -> Option<String> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(Server::start).as_ref().map(Server::create_database)
}

/// A session of the first user, who may do anything.
pub struct Session(PgConnection);

impl Session {
    pub fn open(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        Self(block_on(options.connect()).unwrap())
    }

    pub fn run(&mut self, sql: &str) {
        block_on(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one text that the statement answers.
    pub fn answer(&mut self, sql: &str) -> String {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        block_on(query.fetch_one(&mut self.0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

/// A name that nothing of this process has had.
pub fn fresh_name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn own<T>(what: &str, start: impl FnOnce() -> Result<T, String>) -> Option<T> {
    if std::env::var("FLYWHEEL_TEST_SKIP_SERVICES").is_ok_and(|value| value == "1") {
        eprintln!("skipped: the read models' tests on {what}, by FLYWHEEL_TEST_SKIP_SERVICES=1");
        return None;
    }
    Some(start().unwrap_or_else(|why| panic!("{why}")))
}
