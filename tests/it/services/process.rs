//! What the services share: a process with its script, folder and log that can be stopped, killed, paused and started again on the same
//! port and data; and that nothing of them outlives this process.
//!
//! Three things end them. A value that is dropped ends its own process. The kernel ends all of them when the thread that started them is
//! gone (`PR_SET_PDEATHSIG`), so that one thread, which lives as long as this process, starts them all. And a shell that waits for the end
//! of this process removes the folders, what is mounted there, and whatever is left of the process groups.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From spawned to answering its client. A Cassandra beside a compiler takes a while.
const START_MAX: Duration = Duration::from_secs(120);
/// From asked to gone. Brokers hand over their partitions first.
const STOP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// How one service is run.
pub struct Spec {
    /// Names its folder and what is said about it: `kafka`.
    pub name: String,
    /// In `scripts/services/`; it gets the folder and the settings and becomes the service.
    pub script: &'static str,
    pub settings: Vec<(&'static str, String)>,
    /// The signal that asks it to end in order.
    pub ends_on: i32,
    /// The signal that ends it at once, of which nothing remains.
    pub dies_on: i32,
}

/// One service's process, running or not. Ends with the value.
pub struct Process {
    spec: Spec,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// A folder of its own, and nothing in it yet.
    pub fn new(spec: Spec) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = KEEPER.base.join(format!("{}-{}", spec.name, NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&dir).expect("the temporary folder is ours");
        Self { spec, dir, child: Mutex::new(None) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it unless it runs. It is not ready yet: see [`Process::wait_until_ready`].
    pub fn spawn(&self) {
        if self.is_running() {
            return;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("the log opens");
        let mut command = Command::new(Path::new("scripts/services").join(self.spec.script));
        command.arg(&self.dir).envs(self.spec.settings.iter().map(|(key, value)| (*key, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log).process_group(0);
        let started = KEEPER.spawn(command, self.spec.dies_on);
        let started = started.unwrap_or_else(|error| panic!("scripts/services/{}: {error}", self.spec.script));
        fs::write(self.dir.join("pid"), started.id().to_string()).expect("the pid is written");
        *self.child() = Some(started);
    }

    /// Asks until it answers. `Err` names the service and carries the last answer and the end of its log.
    pub fn wait_until_ready(&self, ask: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let ended = self.child().as_mut().expect("spawned").try_wait().expect("our child");
            if let Some(status) = ended {
                self.forget();
                return Err(format!("{} ended before it answered, with {status}:\n{}", self.spec.name, self.log_end()));
            }
            let Err(answer) = ask() else { return Ok(()) };
            if started.elapsed() > START_MAX {
                return Err(format!("{} did not answer within {START_MAX:?}: {answer}\n{}", self.spec.name, self.log_end()));
            }
            std::thread::park_timeout(POLL);
        }
    }

    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| child.try_wait().expect("our child").is_none())
    }

    /// Asks it to end in order and waits for that.
    pub fn stop(&self) {
        if let Err(error) = self.end(self.spec.ends_on, STOP_MAX) {
            panic!("{error}\n{}", self.log_end());
        }
    }

    /// SIGKILL for it and all it has started: no handler runs, nothing is flushed.
    pub fn kill(&self) {
        let Some(mut child) = self.child().take() else { return };
        let family = freeze(child.id());
        family.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
        child.wait().expect("a killed child is reaped");
        // Its children are init's by now; until they are gone they hold ports and shared memory.
        wait_until("killed processes are gone", || family.iter().all(|pid| state_of(*pid).is_none_or(|state| state == 'Z')));
        self.forget();
    }

    /// SIGSTOP for it and all it has started: connections stay open and nobody answers.
    pub fn pause(&self) {
        freeze(self.pid());
    }

    pub fn resume(&self) {
        family_of(self.pid()).into_iter().for_each(|pid| signal(pid, libc::SIGCONT));
    }

    /// Of the running process.
    pub fn pid(&self) -> u32 {
        let pid = self.child().as_ref().map(Child::id);
        pid.unwrap_or_else(|| panic!("{} does not run", self.spec.name))
    }

    /// The last lines that it wrote.
    pub fn log_end(&self) -> String {
        let text = fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&self, by: i32, within: Duration) -> Result<(), String> {
        let Some(mut child) = self.child().take() else { return Ok(()) };
        signal(child.id(), by);
        // A paused one would take it up only when it goes on.
        family_of(child.id()).into_iter().for_each(|pid| signal(pid, libc::SIGCONT));
        let asked = Instant::now();
        while child.try_wait().expect("our child").is_none() {
            if asked.elapsed() > within {
                let name = &self.spec.name;
                *self.child() = Some(child);
                return Err(format!("{name} does not end within {within:?} of signal {by}"));
            }
            std::thread::park_timeout(POLL);
        }
        self.forget();
        Ok(())
    }

    /// Its number may be another's soon.
    fn forget(&self) {
        *self.child() = None;
        let _ = fs::remove_file(self.dir.join("pid"));
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end(self.spec.dies_on, Duration::from_secs(10)).is_err() {
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A port of 127.0.0.1 that nobody listens on and that this process gives out once. From below the range that the kernel takes outgoing
/// ports from, so that it is still free when a service comes back to it.
pub fn fresh_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(64)));
    loop {
        let port = (FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A password of a service that lives as long as a test: not to be guessed by others on the machine.
pub fn fresh_password() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Runs a client's future to its end on a thread and runtime of its own, so that tests with and without a runtime can call it.
pub fn ask<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future);
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Asks again until it is so; panics after a minute.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::park_timeout(POLL);
    }
}

/// A folder beside those of the services, gone with this process: certificates, say.
pub fn fresh_dir(what: &str) -> PathBuf {
    let dir = KEEPER.base.join(super::fresh_name(what));
    fs::create_dir_all(&dir).expect("the temporary folder is ours");
    dir
}

/// Who starts every service, and whose end ends them.
struct Keeper {
    base: PathBuf,
    orders: Mutex<mpsc::Sender<Order>>,
    /// The shell that cleans up; it waits for the end of its standard input.
    _sweeper: Child,
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

static KEEPER: LazyLock<Keeper> = LazyLock::new(|| {
    let base = tempfile::Builder::new().prefix("flywheel-services-").tempdir().expect("a temporary folder").keep();
    // PostgreSQL runs as a user of its own and must reach its folder.
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let mut sweeper = Command::new("/bin/sh");
    sweeper.args(["-c", SWEEP, "sweeper"]).arg(&base).current_dir("/").process_group(0);
    let sweeper = sweeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell starts");
    let (orders, received) = mpsc::channel::<Order>();
    let keep = move || {
        for (mut command, answer) in received {
            let _ = answer.send(command.spawn());
        }
    };
    std::thread::Builder::new().name("keeper of services".into()).spawn(keep).expect("a thread starts");
    Keeper { base, orders: Mutex::new(orders), _sweeper: sweeper }
});

/// `$1` is the folder: in each folder of it `pid`, the leader of a process group. The signal that Postgres takes as "at once, and leave
/// nothing", then the one that nobody survives.
const SWEEP: &str = r#"
cat >/dev/null
left() { for file in "$1"/*/pid; do pid=$(cat "$file" 2>/dev/null) && kill -0 -- "-$pid" 2>/dev/null && echo "$pid"; done; }
for pid in $(left "$1"); do kill -QUIT "$pid"; kill -CONT -- "-$pid"; done
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -z "$(left "$1")" ] && break; sleep 0.1; done
for pid in $(left "$1"); do kill -KILL -- "-$pid"; done
while read -r _ at _; do case $at in "$1"/*) umount -l "$at" ;; esac; done </proc/mounts
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && break; sleep 0.5; done
"#;

impl Keeper {
    fn spawn(&self, mut command: Command, dies_on: i32) -> std::io::Result<Child> {
        let tests = std::process::id();
        let follow_us = move || {
            // SAFETY: prctl(2) and getppid(2) are async-signal-safe and touch no memory.
            let (set, parent) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, dies_on), libc::getppid()) };
            if set != 0 || parent as u32 != tests {
                return Err(std::io::Error::other("the tests are gone"));
            }
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec and does nothing but the two calls above.
        unsafe { command.pre_exec(follow_us) };
        let (answer, answered) = mpsc::channel();
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).expect("the keeper lives");
        answered.recv().expect("the keeper answers")
    }
}

/// Stops a process and all its descendants, so that none of them can start another, and gives them all.
fn freeze(pid: u32) -> Vec<u32> {
    signal(pid, libc::SIGSTOP);
    let is_frozen = |pid: &u32| state_of(*pid).is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'));
    wait_until("paused processes stand still", || {
        let family = family_of(pid);
        family.iter().filter(|pid| !is_frozen(pid)).for_each(|pid| signal(*pid, libc::SIGSTOP));
        family.iter().all(is_frozen)
    });
    family_of(pid)
}

fn signal(pid: u32, number: i32) {
    // SAFETY: kill(2) touches no memory. The number is that of a child that was not reaped, or of a child of it that was just listed.
    let sent = unsafe { libc::kill(pid as i32, number) };
    debug_assert!(sent == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH));
}

/// A process and whoever descends from it: PostgreSQL's backends leave its process group.
fn family_of(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some((_, parent)) = stat_of(child) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(member) = family.get(next) {
        family.extend(children.remove(member).unwrap_or_default());
        next += 1;
    }
    family
}

fn state_of(pid: u32) -> Option<char> {
    stat_of(pid).map(|(state, _)| state)
}

/// State and parent of a process; `None` of one that is gone.
fn stat_of(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
