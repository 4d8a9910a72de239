//! Apache Cassandra, one node. It speaks Scylla's protocol and stands in for it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use super::own;
use super::process::{Process, Spec, ask, fresh_port};

#[derive(Default)]
pub struct CassandraOptions {
    /// Clients must log in, as [`Cassandra::USER`] with [`Cassandra::PASSWORD`].
    pub passwords: bool,
}

/// A running node.
pub struct Cassandra {
    process: Process,
    address: Ipv4Addr,
    port: u16,
    passwords: bool,
}

impl Cassandra {
    /// Of a node with passwords.
    pub const USER: &str = "cassandra";
    pub const PASSWORD: &str = "cassandra";

    /// Starts a node of the test's own and waits until it answers a query. `None` if services are to be skipped.
    #[track_caller]
    pub fn start(options: CassandraOptions) -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, options)
    }

    /// The same at another address of this machine: that of a [`super::Network`].
    #[track_caller]
    pub fn start_at(address: Ipv4Addr, options: CassandraOptions) -> Option<Self> {
        own("Cassandra", || Self::try_start(address, options))
    }

    pub(super) fn try_start(address: Ipv4Addr, options: CassandraOptions) -> Result<Self, String> {
        let port = fresh_port();
        let settings = vec![
            ("SERVICE_ADDRESS", address.to_string()),
            ("CASSANDRA_PORT", port.to_string()),
            ("CASSANDRA_STORAGE_PORT", fresh_port().to_string()),
            ("CASSANDRA_PASSWORDS", if options.passwords { "yes" } else { "no" }.into()),
        ];
        let spec = Spec { name: "cassandra".into(), script: "cassandra.sh", settings, ends_on: libc::SIGTERM, dies_on: libc::SIGKILL };
        let cassandra = Self { process: Process::new(spec), address, port, passwords: options.passwords };
        cassandra.try_run()?;
        Ok(cassandra)
    }

    /// `ADDRESS:PORT`.
    pub fn node(&self) -> String {
        format!("{}:{}", self.address, self.port)
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

    /// kill -9.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// In order.
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

    /// A session of the driver, logged in where that is needed.
    pub async fn session(&self) -> Result<Session, String> {
        let mut builder = SessionBuilder::new().known_node(self.node()).connection_timeout(Duration::from_secs(5));
        if self.passwords {
            builder = builder.user(Self::USER, Self::PASSWORD);
        }
        builder.build().await.map_err(|error| error.to_string())
    }

    fn try_run(&self) -> Result<(), String> {
        self.process.spawn();
        self.process.wait_until_ready(|| {
            ask(async {
                // The driver would try for a while; a closed port needs no driver.
                tokio::net::TcpStream::connect(self.node()).await.map_err(|error| error.to_string())?;
                let session = self.session().await?;
                session.query_unpaged("SELECT release_version FROM system.local", ()).await.map_err(|error| error.to_string())?;
                Ok(())
            })
        })
    }
}
