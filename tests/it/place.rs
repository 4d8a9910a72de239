//! A folder of a test's own: a configuration, the data that a process keeps under it, whatever files its commands read, and the commands.
//!
//! Starting and calling the binary is `running`'s; here is where, and how long what it does later is waited for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::running::{Server, flywheel, output_of, query_one, stderr_of};

/// Longer than anything takes that a test waits for, on any machine that runs tests.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// With a configuration that says nothing.
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        place.configure("");
        place
    }

    pub fn configure(&self, config: &str) {
        std::fs::write(self.config(), config).expect("the folder is writable");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("flywheel.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file; its path as commands take it.
    pub fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("the folder is writable");
        self.path(name).to_str().expect("a path of text").to_owned()
    }

    pub fn start(&self) -> Server {
        Server::start(&self.data(), &self.config())
    }

    /// What a command left with, and said.
    pub fn run(&self, args: &[&str]) -> (i32, String) {
        self.run_on(&self.data(), args)
    }

    /// The same on another folder of data than the place's own.
    pub fn run_on(&self, data: &Path, args: &[&str]) -> (i32, String) {
        let output = flywheel(data, &self.config(), args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("no signal"), text)
    }

    /// What a command printed that must succeed.
    pub fn done(&self, args: &[&str]) -> String {
        output_of(&self.data(), &self.config(), args)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.done(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed {text:?}: {error}"))
    }

    /// The first value of the first row.
    pub fn query_one(&self, sql: &str) -> Value {
        query_one(&self.data(), &self.config(), "main", sql)
    }

    /// What the server has logged.
    pub fn said(&self) -> String {
        stderr_of(&self.data())
    }

    /// Sends lines of NDJSON to the server and waits until they are in the read models.
    pub fn send(&self, lines: &str) {
        self.done(&["send", &self.file("events.ndjson", lines)]);
        self.done(&["wait"]);
    }

    /// Says something about a person, and waits until it is known.
    pub fn identify(&self, user: &str, traits: &Value) {
        self.send(&json!({ "type": "identify", "userId": user, "traits": traits }).to_string());
    }
}

/// Looks again and again until there is what is waited for; what there was instead is said when it takes too long.
#[track_caller]
pub fn until<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(begun.elapsed() < PATIENCE, "waited in vain: {instead}"),
        }
        std::thread::yield_now();
    }
}
