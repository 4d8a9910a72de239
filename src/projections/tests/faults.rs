//! A Postgres that is not there, is not ours, pauses, dies, or loses an answer: what is said, and that nothing is lost or doubled.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::services::{self, Server};
use super::*;

const EVENTS: usize = 4_000;

fn options(url: &str) -> PostgresOptions {
    PostgresOptions {
        url: url.to_owned(),
        prefix: format!("{}_", services::fresh_name("f")),
        timeout_ms: 2_000,
        ..PostgresOptions::default()
    }
}

fn world(options: &PostgresOptions) -> World {
    World::of(Place::postgres(options).unwrap(), tempfile::tempdir().unwrap())
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::yield_now();
    }
}

fn append_events(world: &World, count: usize) {
    for number in 0..count {
        world.event(number as u32 % 2, &format!("u:{}", number % 97), "Page", DAY * (number as i64 % 100), "");
    }
}

/// Every event is a row once, and counts once.
#[track_caller]
fn all_are_there(world: &World, count: usize) {
    let sql = "SELECT (SELECT count(*) FROM events), (SELECT count(DISTINCT (log_partition, log_offset)) FROM events), \
               (SELECT sum(events) FROM daily_totals), (SELECT sum(applied) FROM processing_status WHERE topic = 'events')";
    assert_eq!(world.sql(sql), [format!("{count}|{count}|{count}|{count}")]);
}

#[test]
fn what_cannot_be_reached_or_is_not_a_postgres_is_named_in_time_and_without_the_password() {
    let Some(url) = services::database() else { return };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent_at, other_at) = (silent.local_addr().unwrap(), other.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").and_then(|()| stream.shutdown(Shutdown::Write));
        }
    });
    let (base, _) = url.rsplit_once('/').unwrap();
    let (_, host) = base.split_once('@').unwrap();
    let cases = [
        (format!("postgres://flywheel:hunter2@{nobody}/x"), "cannot be reached", true),
        (format!("postgres://flywheel:hunter2@{silent_at}/x"), "no answer within 2000 ms", true),
        (format!("postgres://flywheel:hunter2@{other_at}/x"), &*other_at.to_string(), false),
        (format!("postgres://postgres:hunter2@{host}/postgres"), "does not let user \"postgres\" in", false),
        (format!("{base}/not_there"), "there is no database \"not_there\"", false),
    ];
    for (url, expected, may_heal) in cases {
        let begun = Instant::now();
        let error = block_on(Place::postgres(&options(&url)).unwrap().check()).unwrap_err();
        let said = error.to_string();
        assert!(begun.elapsed() < Duration::from_secs(10), "{said}");
        assert!(said.starts_with("postgres.url: ") && said.contains(expected) && !said.contains("hunter2"), "{said}");
        assert!(!may_heal || matches!(error, Error::Unreachable { .. }), "{said}");
    }
    drop(silent);
}

#[test]
fn a_schema_of_somebody_elses_is_refused_and_left_alone() {
    let Some(url) = services::database() else { return };
    let options = options(url);
    let theirs = format!("{}shop", options.prefix);
    services::Session::open(url)
        .run(&format!("CREATE SCHEMA {theirs}; CREATE TABLE {theirs}.orders (id int); INSERT INTO {theirs}.orders VALUES (1)"));
    let world = world(&options);
    world.event(0, "u:ann", "Page", 1, "");
    let handle = world.start();
    let refused = |health: Health| matches!(health, Health::Retrying(why) if why.starts_with("postgres.prefix: ") && why.contains(&theirs));
    until("the projector says why", || refused(handle.health()));
    handle.stop();
    assert_eq!(services::Session::open(url).answer(&format!("SELECT count(*)::text FROM {theirs}.orders")), "1");
    let asked = block_on(query(&world.place, &world.namespace, "SELECT 1 FROM events", Limits::default()));
    assert!(matches!(asked, Err(Error::Setting { key: "postgres.prefix", .. })), "{asked:?}");
}

#[test]
fn a_namespace_without_a_read_model_says_so() {
    let Some(url) = services::database() else { return };
    let world = world(&options(url));
    let asked = block_on(query(&world.place, &world.namespace, "SELECT 1 FROM events", Limits::default()));
    assert!(matches!(asked, Err(Error::Missing(_))), "{asked:?}");
    let acme = TenantId::new("acme").unwrap();
    let read = block_on(world.reader().is_visible(&acme, "m"));
    assert!(matches!(read, Err(Error::Missing(_))), "{read:?}");
    assert_eq!(block_on(namespaces(&world.place)).unwrap(), []);
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    assert_eq!(block_on(namespaces(&world.place)).unwrap(), std::slice::from_ref(&world.namespace));
}

#[test]
fn a_server_that_pauses_and_one_that_dies_lose_and_double_nothing() {
    let Some(server) = Server::start() else { return };
    let world = world(&options(&server.create_database()));
    append_events(&world, EVENTS / 4);
    let handle = world.start();
    world.wait(&handle);
    let is_retrying = || matches!(handle.health(), Health::Retrying(_));
    server.pause();
    append_events(&world, EVENTS / 4);
    until("health says that it waits", is_retrying);
    let acme = TenantId::new("acme").unwrap();
    let (begun, read) = (Instant::now(), block_on(world.reader().is_visible(&acme, "Page")));
    assert!(read.is_err() && begun.elapsed() < Duration::from_secs(10), "a reader does not wait for ever: {read:?}");
    server.resume();
    world.wait(&handle);
    assert_eq!(handle.health(), Health::Running);
    all_are_there(&world, EVENTS / 2);
    server.kill();
    append_events(&world, EVENTS / 4);
    until("health names the setting", || matches!(handle.health(), Health::Retrying(why) if why.starts_with("postgres.url: ")));
    server.restart();
    append_events(&world, EVENTS / 4);
    world.wait(&handle);
    handle.stop();
    all_are_there(&world, EVENTS);
    assert!(block_on(world.reader().is_visible(&acme, "Page")).unwrap());
}

#[test]
fn transactions_that_are_cut_off_lose_and_double_nothing() {
    let Some(url) = services::fresh_database() else { return };
    let world = world(&options(&url));
    let handle = world.start();
    let mut server = services::Session::open(&url);
    // Whoever has written and not committed.
    let cut = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
               WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    let (mut cuts, mut events) = (0, 0);
    while cuts < 20 {
        // Always something to write, and no more than that: looking for a transaction is quicker than making one.
        let applied: u64 = [0, 1].map(|partition| handle.applied_through("events", PartitionId(partition)).0).iter().sum();
        if events as u64 - applied < 1_000 {
            append_events(&world, 50);
            events += 50;
        }
        cuts += server.answer(cut).parse::<usize>().unwrap();
    }
    world.wait(&handle);
    handle.stop();
    all_are_there(&world, events);
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_in_the_positions() {
    let Some(url) = services::database() else { return };
    let (proxy, lost) = Proxy::before(url);
    let (_, database) = url.rsplit_once('/').unwrap();
    let (login, _) = url.rsplit_once('@').unwrap();
    let world = world(&options(&format!("{login}@{proxy}/{database}")));
    let handle = world.start();
    for _ in 0..10 {
        lost.store(1, Ordering::SeqCst);
        append_events(&world, EVENTS / 10);
        until("an answer to COMMIT is lost", || lost.load(Ordering::SeqCst) == 0);
    }
    world.wait(&handle);
    handle.stop();
    all_are_there(&world, EVENTS);
}

#[test]
fn rebuilds_are_swapped_in_under_queries_that_never_fail_or_see_half() {
    let Some(url) = services::database() else { return };
    let options = PostgresOptions { timeout_ms: 60_000, ..options(url) };
    let world = world(&options);
    append_events(&world, EVENTS);
    world.project();
    let (is_over, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let acme = TenantId::new("acme").unwrap();
    std::thread::scope(|scope| {
        // One that reads for as long as everything takes holds up nothing.
        let sql = "SELECT count(*) FROM events e, LATERAL (SELECT pg_sleep(0.002) WHERE e.event_id > 0) s";
        scope.spawn(|| assert_eq!(world.sql(sql), [EVENTS.to_string()]));
        for _ in 0..2 {
            scope.spawn(|| {
                while is_over.load(Ordering::SeqCst) == 0 {
                    assert_eq!(world.sql("SELECT count(*), count(DISTINCT user_id) FROM events"), [format!("{EVENTS}|97")]);
                    assert_eq!(block_on(world.reader().reconciliation(&acme)).unwrap().events, EVENTS as i64);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for generation in 2..=4 {
            let before = asked.load(Ordering::SeqCst);
            let rebuilt = block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |_| {
                ControlFlow::Continue(())
            }));
            assert_eq!(rebuilt.unwrap(), Rebuilt { generation, records: EVENTS as u64 });
            until("somebody asked the new one", || asked.load(Ordering::SeqCst) > before + 2);
        }
        is_over.store(1, Ordering::SeqCst);
    });
    block_on(world.generations().remove_others()).unwrap();
    let schemas = format!(
        "SELECT string_agg(substr(nspname, {}), ' ' ORDER BY nspname) FROM pg_namespace WHERE starts_with(nspname, '{}')",
        options.prefix.len() + 1,
        options.prefix
    );
    assert_eq!(services::Session::open(url).answer(&schemas), "shop shop$g4", "nothing of the others is left");
}

#[test]
fn of_two_rebuilds_one_is_refused() {
    let Some(url) = services::database() else { return };
    let world = world(&options(url));
    world.project();
    let lock = block_on(world.generations().lock()).unwrap();
    let second =
        block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |_| ControlFlow::Continue(())));
    assert!(matches!(second, Err(Error::RebuildRuns(_))), "{second:?}");
    drop(lock);
    until("the lock has gone with its session", || {
        block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |_| ControlFlow::Continue(())))
            .is_ok()
    });
}

#[test]
fn events_lie_by_months_and_old_months_go_while_everything_else_stays() {
    let Some(url) = services::database() else { return };
    let mut options = options(url);
    let world = world(&options);
    let at = |text: &str| Millis::parse(&format!("{text}T12:00:00Z")).unwrap().0;
    let now = world.clock.now().0;
    assert_eq!(Millis(now).to_rfc3339().unwrap()[..7], *"2023-11");
    for day in ["2023-07-01", "2023-08-31", "2023-10-01", "2023-11-14"] {
        world.event(0, "u:ann", day, at(day), "");
    }
    world.project();
    world.event(0, "u:ann", "1999-01-01", at("1999-01-01"), "");
    world.project();
    let tables = format!("\"{}shop$g1\"", options.prefix);
    let parts = || {
        let sql = format!(
            "SELECT string_agg(substr(c.relname, 8), ' ' ORDER BY c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = '{tables}.events'::regclass"
        );
        services::Session::open(url).answer(&sql)
    };
    assert_eq!(parts(), "2023_07 2023_08 2023_10 2023_11 later older");
    let plan = world.sql(&format!("EXPLAIN SELECT * FROM events WHERE timestamp >= {}", at("2023-11-01"))).join("\n");
    assert!(plan.contains("events_2023_11") && !plan.contains("events_2023_10"), "{plan}");
    options.events_keep_days = 60;
    let kept = World { place: Place::postgres(&options).unwrap(), ..world };
    let handle = kept.start();
    // Of one whose row is gone the copy is none either, and one that comes late counts and has no row.
    let copy =
        EventBody { redriven_from: Some(Origin { incarnation: 1, partition: 0, offset: 0 }), ..event("2023-07-01", at("2023-07-01"), "") };
    kept.append("events", 0, "u:ann", &EventsRecord::Event(copy));
    kept.event(0, "u:ann", "late", at("2023-01-01"), "");
    kept.wait(&handle);
    until("what is over is gone", || parts() == "2023_10 2023_11 later older");
    until("and what lay before the first month", || kept.sql("SELECT event_name FROM events ORDER BY 1") == ["2023-10-01", "2023-11-14"]);
    handle.stop();
    assert_eq!(kept.sql("SELECT count(*), sum(events) FROM daily_totals"), ["6|6"], "days count what the log has");
    block_on(rebuild(
        kept.log.clone(),
        &kept.place,
        &kept.namespace,
        &Options { clock: Arc::new(kept.clock.clone()), ..Options::default() },
        &mut |_| ControlFlow::Continue(()),
    ))
    .unwrap();
    assert_eq!(kept.sql("SELECT event_name FROM events ORDER BY 1"), ["2023-10-01", "2023-11-14"]);
    assert_eq!(kept.sql("SELECT count(*), sum(events) FROM daily_totals"), ["6|6"]);
}

/// Stands before a server and, when told to, swallows the answer to a COMMIT and hangs up.
struct Proxy;

impl Proxy {
    /// Its address, and what tells it to: 1, which becomes 0 once it is done.
    fn before(url: &str) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
        let (_, rest) = url.split_once('@').unwrap();
        let server = rest.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, lost) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let told = Arc::clone(&lost);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let is_commit = Arc::new(AtomicUsize::new(0));
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let seen = Arc::clone(&is_commit);
                std::thread::spawn(move || {
                    pass(from, to, |bytes| {
                        if bytes.windows(6).any(|word| word == b"COMMIT") {
                            seen.store(1, Ordering::SeqCst);
                        }
                        true
                    })
                });
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    pass(upstream, client, |_| {
                        let is_lost = is_commit.swap(0, Ordering::SeqCst) == 1 && told.swap(0, Ordering::SeqCst) == 1;
                        !is_lost
                    })
                });
            }
        });
        (address, lost)
    }
}

/// Passes bytes on until either side ends or `may_pass` says no.
fn pass(mut from: TcpStream, mut to: TcpStream, may_pass: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !may_pass(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
