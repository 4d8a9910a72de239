//! The built binary as a child process: start it, learn its address, run its commands, stop it or kill it. Used by tests that need a
//! real process: crashes, SDKs, the command line.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_flywheel");

/// A running `flywheel up`; killed when dropped, so that a failing test leaves nothing behind.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Starts on a free port and returns once it listens.
    pub fn start(dir: &Path, config: &Path) -> Self {
        let mut child = command(dir, config)
            .args(["up", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::from(stderr_file(dir)))
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let url = loop {
            let Some(line) = lines.next() else { panic!("the server ended before it listened: {}", stderr_of(dir)) };
            let line = line.expect("stdout is text");
            if let Some(at) = line.find("listening on ") {
                break line[at + "listening on ".len()..].trim().to_owned();
            }
        };
        // The pipe stays open and drained, so that the server never blocks on it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().expect("the server is ours to kill");
        self.child.wait().expect("a killed child is reaped");
    }

    /// SIGTERM and a clean end.
    pub fn stop(mut self) {
        // SAFETY: kill(2) with our own child's pid, which is not yet reaped and so not reused.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        let status = self.child.wait().expect("the server ends");
        assert!(status.success(), "a clean stop exits with 0, not {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `kill` and `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr_path(dir: &Path) -> PathBuf {
    dir.with_extension("stderr")
}

fn stderr_file(dir: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().create(true).append(true).open(stderr_path(dir)).expect("beside the data folder one can write")
}

pub fn stderr_of(dir: &Path) -> String {
    std::fs::read_to_string(stderr_path(dir)).unwrap_or_default()
}

fn command(dir: &Path, config: &Path) -> Command {
    let mut command = Command::new(BINARY);
    // What this run of the tests is told is no setting of the product.
    command.env_remove("FLYWHEEL_UPDATE_DOCS").arg("--data").arg(dir).arg("--config").arg(config);
    command
}

/// Runs one command on a data folder.
pub fn flywheel(dir: &Path, config: &Path, args: &[&str]) -> Output {
    command(dir, config).args(args).output().expect("the binary runs")
}

/// Runs one command whose standard output nobody reads any more.
pub fn unread(dir: &Path, config: &Path, args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let child = command(dir, config).args(args).stdout(writer).stderr(Stdio::piped()).spawn().expect("the binary starts");
    child.wait_with_output().expect("the binary runs")
}

/// Runs one command that must succeed and returns its standard output.
pub fn output_of(dir: &Path, config: &Path, args: &[&str]) -> String {
    let output = flywheel(dir, config, args);
    assert!(output.status.success(), "flywheel {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

/// The first value of a query's first row.
pub fn query_one(dir: &Path, config: &Path, namespace: &str, sql: &str) -> serde_json::Value {
    let text = output_of(dir, config, &["query", sql, "--namespace", namespace, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("query --format json prints JSON");
    rows[0].as_object().expect("one row").values().next().expect("one column").clone()
}
