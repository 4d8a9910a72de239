//! Redis, one server.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::own;
use super::process::{Process, Spec, ask, fresh_password, fresh_port};

/// A running server.
pub struct Redis {
    process: Process,
    address: Ipv4Addr,
    port: u16,
    password: String,
}

impl Redis {
    /// Starts a server of the test's own and waits until it answers. `None` if services are to be skipped.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of this machine: that of a [`super::Network`].
    #[track_caller]
    pub fn start_at(address: Ipv4Addr) -> Option<Self> {
        own("Redis", || Self::try_start(address))
    }

    pub(super) fn try_start(address: Ipv4Addr) -> Result<Self, String> {
        let (port, password) = (fresh_port(), fresh_password());
        let mut settings = vec![("REDIS_PORT", port.to_string()), ("REDIS_PASSWORD", password.clone())];
        settings.push(("SERVICE_ADDRESS", address.to_string()));
        let spec = Spec { name: "redis".into(), script: "redis.sh", settings, ends_on: libc::SIGTERM, dies_on: libc::SIGKILL };
        let redis = Self { process: Process::new(spec), address, port, password };
        redis.try_run()?;
        Ok(redis)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://default:PASSWORD@ADDRESS:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://default:{}@{}:{}/", self.password, self.address, self.port)
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

    fn try_run(&self) -> Result<(), String> {
        self.process.spawn();
        let client = redis::Client::open(self.url()).expect("a url");
        self.process.wait_until_ready(|| {
            ask(async {
                let asking = async {
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    redis::cmd("PING").query_async::<()>(&mut connection).await
                };
                let answer = tokio::time::timeout(Duration::from_secs(5), asking).await;
                answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
            })
        })
    }
}
