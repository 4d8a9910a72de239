//! PostgreSQL, one server.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::own;
use super::process::{Process, Spec, ask, fresh_password, fresh_port};

/// A running server.
pub struct Postgres {
    process: Process,
    address: Ipv4Addr,
    port: u16,
    password: String,
}

impl Postgres {
    /// Starts a server of the test's own and waits until it answers a query. `None` if services are to be skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of this machine: that of a [`super::Network`].
    #[track_caller]
    pub fn start_at(address: Ipv4Addr) -> Option<Self> {
        own("PostgreSQL", || Self::try_start(address))
    }

    pub(super) fn try_start(address: Ipv4Addr) -> Result<Self, String> {
        let (port, password) = (fresh_port(), fresh_password());
        let mut settings = vec![("POSTGRES_PORT", port.to_string()), ("POSTGRES_PASSWORD", password.clone())];
        settings.push(("SERVICE_ADDRESS", address.to_string()));
        // "At once" is SIGQUIT: after a SIGKILL its shared memory would stay.
        let spec = Spec { name: "postgres".into(), script: "postgres.sh", settings, ends_on: libc::SIGINT, dies_on: libc::SIGQUIT };
        let postgres = Self { process: Process::new(spec), address, port, password };
        postgres.try_run()?;
        Ok(postgres)
    }

    /// Of the first user, who may do anything.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// `postgres://USER:PASSWORD@ADDRESS:PORT/DATABASE` of the first user.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@{}:{}/{database}", self.password, self.address, self.port)
    }

    /// A new, empty database, and its url for the first user.
    #[track_caller]
    pub fn create_database(&self) -> String {
        let name = super::fresh_name("test");
        let made = ask(async {
            let mut connection = self.connect().await?;
            connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.map_err(|error| error.to_string())?;
            connection.close().await.map_err(|error| error.to_string())
        });
        made.unwrap_or_else(|error| panic!("CREATE DATABASE {name}: {error}"));
        self.url(&name)
    }

    /// Its process and folder, for tests of its end.
    pub fn place(&self) -> (u32, PathBuf) {
        (self.process.pid(), self.process.dir().to_owned())
    }

    /// SIGSTOP: its connections stay open and nobody answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    /// kill -9 of the server and its backends.
    pub fn kill(&self) {
        self.process.kill();
        self.drop_shared_memory();
    }

    /// In order; sessions are ended.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Starts it again on the same port and data; ends it first if it runs.
    #[track_caller]
    pub fn restart(&self) {
        self.process.stop();
        if let Err(why) = self.try_run() {
            panic!("{why}");
        }
    }

    async fn connect(&self) -> Result<PgConnection, String> {
        let options: PgConnectOptions = self.url("postgres").parse().map_err(|error: sqlx::Error| error.to_string())?;
        let connecting = tokio::time::timeout(Duration::from_secs(5), options.connect());
        connecting.await.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    }

    fn try_run(&self) -> Result<(), String> {
        self.process.spawn();
        self.process.wait_until_ready(|| {
            ask(async {
                let mut connection = self.connect().await?;
                connection.execute("SELECT 1").await.map_err(|error| error.to_string())?;
                connection.close().await.map_err(|error| error.to_string())
            })
        })
    }

    /// A few bytes that mark the folder as in use and that a killed server leaves; its next start would remove them, if there is one.
    fn drop_shared_memory(&self) {
        let text = std::fs::read_to_string(self.process.dir().join("data/postmaster.pid")).unwrap_or_default();
        let id = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)?.parse::<i32>().ok());
        if let Some(id) = id {
            // SAFETY: shmctl(2) with IPC_RMID reads no memory of ours; the segment is that of the server that was just killed.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}
