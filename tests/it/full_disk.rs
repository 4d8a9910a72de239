//! A full disk: states that cannot be stored or read wait, nothing that was folded is lost, the server stays up, answers 429 and goes on
//! once there is space.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flywheel::domain::{DAY_MS, Millis};
use flywheel::state::{Error, Flush, MemoryStore, StateStore, Stored, Table, Wake};
use flywheel::stream::{NamespaceClock, Spine, Topic};
use serde_json::json;

use crate::running::{Server, flywheel, output_of, query_one, stderr_of};
use crate::spine_world::{START, World, identify, track};

/// A store on a disk that is full for as many calls as it is told.
#[derive(Default)]
struct Full {
    store: Arc<MemoryStore>,
    flushes: AtomicUsize,
    reads: AtomicUsize,
}

fn refuse(left: &AtomicUsize) -> Result<(), Error> {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    taken.map_or(Ok(()), |_| Err(Error::NoSpace))
}

impl StateStore for Full {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        refuse(&self.reads)?;
        self.store.get_many(table, keys)
    }
    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error> {
        refuse(&self.flushes)?;
        self.store.flush(table, flush)
    }
    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        refuse(&self.reads)?;
        self.store.watermark(table)
    }
    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        refuse(&self.reads)?;
        self.store.due(table, until, after, limit)
    }
    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
        refuse(&self.reads)?;
        self.store.scan(table, after, limit)
    }
    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        refuse(&self.flushes)?;
        self.store.drop_table(table)
    }
    fn tables(&self) -> Result<Vec<Table>, Error> {
        self.store.tables()
    }
}

const BUYERS: &str = r#"
[[segment]]
name = "buyer"
when = "orders >= 1"
[[segment]]
name = "active"
when = "days_since_seen < 1"
"#;

fn world() -> World {
    let mut world = World::new(NamespaceClock::Event, BUYERS);
    world.options.retry_pause_ms = 1;
    world.options.flush_age_ms_max = 0;
    world
}

fn open(world: &World, full: &Arc<Full>) -> Spine {
    let state = Arc::clone(full) as Arc<dyn StateStore>;
    Spine::open(flywheel::stream::Setup { state, ..world.setup() }).expect("opens")
}

fn day(number: i64) -> Vec<String> {
    let at = START + number * DAY_MS;
    let of = |who: &str| track(&format!("m{number}{who}"), who, "Order Completed", at);
    let mut bodies: Vec<String> = ["u1", "u2", "u3", "a:d1", "a:d2"].map(of).into();
    bodies.push(identify(&format!("i{number}"), "d1", "u4", at + 1));
    bodies
}

/// Three days of events, `disturb` called before each but the first, which brings the settings into force; what is stored once all is done, and what was said.
fn three_days(full: &Arc<Full>, disturb: impl Fn(&Full)) -> (Vec<String>, Vec<String>) {
    let world = world();
    let mut spine = open(&world, full);
    for number in 0..3 {
        if number > 0 {
            disturb(full);
        }
        world.send(&day(number));
        world.state_time(START + number * DAY_MS + 2);
        world.drive(&mut spine);
    }
    full.flushes.store(0, Ordering::SeqCst);
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    let stored = stored(&full.store);
    // Sent once more, all of them are known.
    for number in 0..3 {
        world.send(&day(number));
    }
    world.drive(&mut spine);
    (stored, world.changes())
}

fn stored(store: &MemoryStore) -> Vec<String> {
    let of = |table: &Table| {
        let states: Vec<_> =
            store.scan(table, None, usize::MAX).expect("reads").into_iter().map(|(key, stored)| (key, stored.state)).collect();
        let wakes = store.due(table, Millis::MAX, None, usize::MAX).expect("reads");
        format!("{} {:?} {states:?} {wakes:?}", table.0, store.watermark(table).expect("reads"))
    };
    store.tables().expect("lists").iter().map(of).collect()
}

#[test]
fn states_that_are_not_taken_are_kept_and_stored_later() {
    let quiet = three_days(&Arc::default(), |_| {});
    for refusals in [1, 2, 3, 5, 11] {
        let disturbed = three_days(&Arc::default(), |full| full.flushes.store(refusals, Ordering::SeqCst));
        assert_eq!(disturbed, quiet, "{refusals} refusals");
    }
}

#[test]
fn new_settings_need_no_room_in_the_state_store_and_what_was_decided_by_them_is_known_again() {
    let world = world();
    let full = Arc::new(Full { store: Arc::clone(&world.state), ..Full::default() });
    let spine = open(&world, &full);
    full.flushes.store(usize::MAX, Ordering::SeqCst);
    world.send(&day(0));
    let handle = spine.run();
    world.wait_until_done(&handle);
    handle.stop().expect("stops");
    assert!(world.state.tables().expect("lists").is_empty(), "nothing was taken");
    full.flushes.store(0, Ordering::SeqCst);
    let events = world.records(Topic::Events).len();
    assert!(events > 0 && !world.records(Topic::Outcomes).is_empty());
    world.send(&day(0));
    world.run();
    assert_eq!(world.records(Topic::Events).len(), events, "all of them duplicates");
}

#[test]
fn states_that_cannot_be_read_are_read_later() {
    let quiet = three_days(&Arc::default(), |_| {});
    for refusals in [1, 2, 3, 5, 11] {
        // Who waited comes later, and so lies elsewhere in `events`: what is stored holds other positions.
        let (_, said) = three_days(&Arc::default(), |full| full.reads.store(refusals, Ordering::SeqCst));
        assert_eq!(said, quiet.1, "{refusals} refusals");
    }
}

#[test]
fn a_stop_on_a_full_disk_leaves_the_rest_to_the_next_start() {
    let world = world();
    let full = Arc::new(Full { store: Arc::clone(&world.state), ..Full::default() });
    let mut spine = open(&world, &full);
    world.send(&day(0));
    world.drive(&mut spine);
    full.flushes.store(usize::MAX, Ordering::SeqCst);
    world.send(&day(1));
    world.drive(&mut spine);
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    let said = world.changes();
    world.run();
    world.send(&day(1));
    world.run();
    assert_eq!(world.changes(), said);
}

/// A file system of a few megabytes, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.ballast()).expect("opens");
        while std::io::Write::write(&mut file, &[7; 4096]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A failing test's server may not have let go of it yet.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Client {
    http: reqwest::Client,
    url: String,
    sent: u64,
    acknowledged: u64,
}

impl Client {
    async fn send(&mut self) -> u16 {
        let padding = "x".repeat(8_000);
        let person = self.sent % 50;
        let body = json!({"event": "Order Completed", "userId": format!("u{person}"), "messageId": format!("m{}", self.sent),
            "properties": {"total": 1, "padding": padding}});
        self.sent += 1;
        let answer = self.http.post(format!("{}/v1/track", self.url)).basic_auth("full-key", Some("")).json(&body).send().await;
        let status = answer.expect("the server answers").status().as_u16();
        self.acknowledged += u64::from(status == 200);
        status
    }

    async fn reads(&self) -> u16 {
        let target = format!("{}/api/v1/users/u1/profile", self.url);
        self.http.get(target).bearer_auth("full-api-key").send().await.expect("the server answers").status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stays_up_on_a_full_disk_and_goes_on_with_space() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let Some(small) = Small::mount(&root.path().join("small")) else {
        println!("skipped: no file system of a test's own may be mounted here");
        return;
    };
    let config = root.path().join("flywheel.toml");
    let text = r#"
        log.wal_bytes = 1048576
        stream.flush_age_ms_max = 20
        [[namespaces]]
        name = "full"
        clock = "wall"
        [[sources]]
        name = "test"
        write_key = "full-key"
        tenant = "acme"
        namespace = "full"
        [[api_keys]]
        api_key = "full-api-key"
        tenant = "acme"
        namespace = "full"
    "#;
    std::fs::write(&config, text).expect("the config is written");
    // What it logs goes to a file on the same disk.
    let dir = small.0.join("data");
    let server = Server::start(&dir, &config);
    let mut client = Client { http: reqwest::Client::new(), url: server.url.clone(), sent: 0, acknowledged: 0 };
    for _ in 0..100 {
        assert_eq!(client.send().await, 200);
    }
    output_of(&dir, &config, &["wait", "--namespace", "full"]);
    assert_eq!(client.reads().await, 200);
    small.fill();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut refused = 0;
    while refused < 200 {
        let status = client.send().await;
        assert!(matches!(status, 200 | 429), "{status}: {}", stderr_of(&dir));
        assert_eq!(client.reads().await, 200);
        // What was freed by a roll or a merge is taken too.
        small.fill();
        refused += u32::from(status == 429);
        assert!(Instant::now() < deadline, "only {refused} refusals: {}", stderr_of(&dir));
    }
    let asked = flywheel(&dir, &config, &["ready"]);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.code() == Some(4) && said.contains("log: "), "{said}");
    std::fs::remove_file(small.ballast()).expect("removes");
    while client.send().await != 200 {
        assert!(Instant::now() < deadline, "it does not go on: {}", stderr_of(&dir));
    }
    output_of(&dir, &config, &["wait", "--namespace", "full"]);
    assert_eq!(query_one(&dir, &config, "full", "SELECT count(*) FROM events"), json!(client.acknowledged));
    assert_eq!(query_one(&dir, &config, "full", "SELECT sum(orders) FROM profiles"), json!(client.acknowledged));
    server.stop();
}
