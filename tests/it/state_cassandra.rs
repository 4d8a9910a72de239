//! What a state store that is shared by many processes promises beside the common suite: who wins between two owners, what a flush that was
//! cut leaves behind, large tables, a server that stands still or dies, and refusals that say what to change.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flywheel::domain::{Incarnation, Millis, Offset};
use flywheel::state::{CassandraOptions, CassandraStore, Error, Flush, StateStore, Table, Upto, Wake};

use crate::services::{self, Cassandra, ask, fresh_name, wait_until};
use crate::state_contract::{at, bytes, get, put, scan, table, wake};

fn options(cassandra: &Cassandra) -> CassandraOptions {
    let nodes = vec![cassandra.node()];
    CassandraOptions { nodes, keyspace: fresh_name("state"), replication_factor: 1, ..CassandraOptions::default() }
}

fn open(options: &CassandraOptions) -> CassandraStore {
    // Keyspaces made side by side take a server that is being tested on all sides minutes.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    CassandraStore::open(options).expect("opens")
}

/// As the partition loops do: what the server has no room for is tried again.
fn flush(store: &CassandraStore, table: &Table, flush: impl Fn() -> Flush) {
    wait_until("the server takes it", || match store.flush(table, flush()) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.may_pass(), "{error}");
            false
        }
    });
}

/// A store of a test's own on the Cassandra of all tests.
pub fn fresh() -> Option<CassandraStore> {
    Some(open(&options(services::cassandra()?)))
}

/// Two processes on one keyspace.
fn two_owners() -> Option<(CassandraStore, CassandraStore)> {
    let options = options(services::cassandra()?);
    Some((open(&options), open(&options)))
}

#[track_caller]
fn refusal(options: &CassandraOptions) -> String {
    let begun = Instant::now();
    let error = CassandraStore::open(options).err().expect("refused");
    assert!(begun.elapsed() < Duration::from_secs(10), "{error} after {:?}", begun.elapsed());
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_stale_owners_late_flush_changes_nothing_that_is_newer() {
    let Some((stale, owner)) = two_owners() else { return };
    let t = table("demo.profiles.0.i1");
    let first = Flush { wakes_set: vec![wake(10, "a")], watermark: Some(bytes("at 5")), ..put(5, &[("a", Some("5")), ("b", Some("5"))]) };
    stale.flush(&t, first).expect("flushes");
    assert_eq!(owner.watermark(&t).expect("takes over"), Some(bytes("at 5")));
    let newer = Flush {
        wakes_set: vec![wake(30, "a")],
        wakes_cleared: vec![wake(10, "a")],
        watermark: Some(bytes("at 9")),
        ..put(9, &[("a", Some("9")), ("c", None)])
    };
    owner.flush(&t, newer).expect("flushes");
    owner.flush(&t, Flush { watermark: Some(bytes("at 10")), ..at(10) }).expect("flushes");
    let late = Flush {
        wakes_set: vec![wake(20, "a")],
        wakes_cleared: vec![wake(10, "a"), wake(30, "a")],
        watermark: Some(bytes("at 7")),
        ..put(7, &[("a", Some("7")), ("b", Some("7")), ("c", Some("7"))])
    };
    stale.flush(&t, late).expect("is taken, and loses");
    assert_eq!(get(&owner, &t, &[b"a", b"b", b"c"]), [Some(bytes("9")), Some(bytes("7")), None], "b it alone has folded that far");
    assert_eq!(owner.watermark(&t).expect("reads"), Some(bytes("at 10")));
    // Its deletions would come with its next flush, which it never gets to; what it put there is a hint that nobody follows.
    assert_eq!(owner.due(&t, Millis::MAX, None, 10).expect("reads"), [wake(20, "a"), wake(30, "a")]);
}

#[test]
fn of_two_writes_of_one_position_the_later_within_the_record_stays() {
    let Some((store, other)) = two_owners() else { return };
    let t = table("t");
    let within = |step: &'static [u8], state: &str| {
        let upto = Upto { incarnation: Incarnation(1), next: Offset(5), within: Bytes::from_static(step) };
        Flush { upto, watermark: Some(bytes(state)), ..put(5, &[("a", Some(state))]) }
    };
    store.flush(&t, within(b"\x01b", "early but great")).expect("flushes");
    store.flush(&t, within(b"\x01c", "a later one")).expect("flushes");
    other.flush(&t, within(b"\x01b", "z greatest of all")).expect("flushes");
    assert_eq!(get(&other, &t, &[b"a"]), [Some(bytes("a later one"))]);
    // Between flushes of one place nothing was folded, as of pending effects: the last one stays.
    store.flush(&t, within(b"\x01c", "Later still")).expect("flushes");
    assert_eq!(get(&store, &t, &[b"a"]), [Some(bytes("Later still"))]);
    assert_eq!(other.watermark(&t).expect("reads"), Some(bytes("Later still")));
    let stored = store.get_many(&t, &[b"a"]).expect("reads").pop().flatten().expect("is there");
    assert_eq!(stored.upto, Upto { incarnation: Incarnation(1), next: Offset(5), within: Bytes::from_static(b"\x01c") });
}

#[test]
fn a_later_incarnation_wins_and_one_beyond_the_servers_clock_is_refused() {
    let Some(store) = fresh() else { return };
    let t = table("t");
    let of =
        |incarnation, next, state: &str| Flush { upto: Upto::new(Incarnation(incarnation), Offset(next)), ..put(0, &[("a", Some(state))]) };
    store.flush(&t, of(2, 0, "two")).expect("flushes");
    store.flush(&t, of(1, u64::MAX >> 22, "one")).expect("flushes");
    assert_eq!(get(&store, &t, &[b"a"]), [Some(bytes("two"))]);
    let error = store.flush(&t, of(1_000, 0, "in the future")).expect_err("refused");
    assert!(!error.may_pass() && error.to_string().contains("1000"), "{error}");
}

#[test]
fn index_entries_go_with_the_flush_after_the_one_that_gave_them_up() {
    let Some((owner, other)) = two_owners() else { return };
    let t = table("t");
    owner.flush(&t, Flush { wakes_set: vec![wake(10, "a")], ..at(1) }).expect("flushes");
    owner.flush(&t, Flush { wakes_set: vec![wake(20, "a")], wakes_cleared: vec![wake(10, "a")], ..at(2) }).expect("flushes");
    let due = |store: &CassandraStore| store.due(&t, Millis::MAX, None, 10).expect("reads");
    assert_eq!(due(&owner), [wake(20, "a")], "its owner sees them gone at once");
    assert_eq!(due(&other), [wake(10, "a"), wake(20, "a")], "who is not as far yet still finds them");
    owner.flush(&t, at(3)).expect("flushes");
    assert_eq!(due(&other), [wake(20, "a")]);
    // Wanted again before it was deleted.
    owner.flush(&t, Flush { wakes_cleared: vec![wake(20, "a")], ..at(4) }).expect("flushes");
    owner.flush(&t, Flush { wakes_set: vec![wake(20, "a")], ..at(5) }).expect("flushes");
    owner.flush(&t, at(6)).expect("flushes");
    assert_eq!(due(&other), [wake(20, "a")]);
}

#[test]
fn a_table_that_was_dropped_takes_no_late_write() {
    let Some((stale, owner)) = two_owners() else { return };
    let t = table("t");
    stale
        .flush(&t, Flush { watermark: Some(bytes("w")), wakes_set: vec![wake(1, "a")], ..put(9, &[("a", Some("old"))]) })
        .expect("flushes");
    owner.drop_table(&t).expect("drops");
    owner.flush(&t, put(1, &[("b", Some("new"))])).expect("begins anew");
    stale.flush(&t, put(10, &[("a", Some("late"))])).expect("goes nowhere");
    assert_eq!(scan(&owner, &t, None, 10), [(bytes("b"), bytes("new"))]);
    assert_eq!(owner.watermark(&t).expect("reads"), None);
    assert_eq!(owner.due(&t, Millis::MAX, None, 10).expect("reads"), []);
    // Taken over again, it is the table that is there now.
    stale.watermark(&t).expect("reads");
    assert_eq!(scan(&stale, &t, None, 10), [(bytes("b"), bytes("new"))]);
}

#[test]
fn a_hundred_thousand_states_come_back_in_key_order_page_by_page() {
    let Some(store) = fresh() else { return };
    let t = table("many");
    let key = |n: u32| Bytes::from(format!("acme\0u:{n:06}"));
    let state = Bytes::from(vec![7_u8; 300]);
    let begun = Instant::now();
    for part in 0..10_u32 {
        let states = || (part * 10_000..(part + 1) * 10_000).map(|n| (key(n), Some(state.clone()))).collect();
        flush(&store, &t, || Flush { states: states(), ..at(u64::from(part) + 1) });
    }
    let flushed = begun.elapsed();
    let begun = Instant::now();
    let mut after: Option<Bytes> = None;
    let mut met = 0_u32;
    loop {
        let page = store.scan(&t, after.as_deref(), 3_000).expect("reads");
        for (found, stored) in &page {
            assert_eq!((found, &stored.state), (&key(met), &state));
            assert_eq!(stored.upto.next, Offset(u64::from(met / 10_000) + 1));
            met += 1;
        }
        match page.last() {
            Some((last, _)) if page.len() == 3_000 => after = Some(last.clone()),
            _ => break,
        }
    }
    assert_eq!(met, 100_000);
    let scanned = begun.elapsed();
    let begun = Instant::now();
    for part in 0..10_u32 {
        let keys: Vec<Bytes> = (0..10_000).map(|n| key(n * 10 + part)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        assert!(store.get_many(&t, &keys).expect("reads").iter().all(Option::is_some));
    }
    let read = begun.elapsed();
    println!("100,000 states of 300 bytes: flushed in {flushed:?}, scanned in {scanned:?}, read by key in {read:?}");
}

#[test]
fn a_million_wake_ups_of_one_minute_come_and_go_and_the_next_are_found_at_once() {
    let Some(store) = fresh() else { return };
    let t = table("timers");
    let nine = 1_700_000_100_000_i64;
    let of = |n: u32| Wake { due: Millis(nine + i64::from(n % 60_000)), key: Bytes::from(format!("acme\0u:{n:07}")) };
    let mut next = 0;
    let mut wakes = |set: Vec<Wake>, cleared: Vec<Wake>| {
        next += 1;
        flush(&store, &t, || Flush { wakes_set: set.clone(), wakes_cleared: cleared.clone(), ..at(next) });
    };
    let begun = Instant::now();
    for part in 0..20 {
        wakes((part * 50_000..(part + 1) * 50_000).map(of).collect(), vec![]);
    }
    wakes(vec![wake(nine + 3_600_000, "later")], vec![]);
    let set = begun.elapsed();
    let until = Millis(nine + 60_000);
    let begun = Instant::now();
    let (mut after, mut met) = (None::<Wake>, 0);
    let mut woken = Vec::new();
    loop {
        let page = store.due(&t, until, after.as_ref(), 1_000).expect("reads");
        assert!(page.is_sorted() && page.first().is_none_or(|first| Some(first) > after.as_ref()));
        met += page.len();
        let is_last = page.len() < 1_000;
        after = page.last().cloned().or(after);
        woken.extend(page);
        if woken.len() >= 50_000 || is_last {
            wakes(vec![], std::mem::take(&mut woken));
        }
        if is_last {
            break;
        }
    }
    assert_eq!(met, 1_000_000);
    let cleared = begun.elapsed();
    wakes(vec![], vec![]);
    let begun = Instant::now();
    assert_eq!(store.due(&t, until, None, 1_000).expect("reads"), []);
    let first = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(store.due(&t, until, None, 1_000).expect("reads"), []);
    assert_eq!(store.due(&t, Millis::MAX, None, 1).expect("reads"), [wake(nine + 3_600_000, "later")]);
    println!("a million wake-ups: set in {set:?}, read and cleared in {cleared:?}; then due: {first:?}, once more {:?}", begun.elapsed());
}

#[test]
fn a_server_that_stands_still_or_dies_is_waited_for_and_loses_nothing_it_took() {
    let Some(cassandra) = Cassandra::start(services::CassandraOptions::default()) else { return };
    let store = open(&CassandraOptions { request_timeout_ms: 500, ..options(&cassandra) });
    let t = table("t");
    store.flush(&t, Flush { watermark: Some(bytes("1")), ..put(1, &[("a", Some("1"))]) }).expect("flushes");
    cassandra.pause();
    let passes = |error: Error| assert!(error.may_pass(), "{error:?}");
    passes(store.flush(&t, put(2, &[("a", Some("2"))])).expect_err("nobody answers"));
    passes(store.get_many(&t, &[b"a"]).expect_err("nobody answers"));
    cassandra.resume();
    wait_until("it goes on", || store.flush(&t, put(2, &[("a", Some("2"))])).is_ok());
    assert_eq!(get(&store, &t, &[b"a"]), [Some(bytes("2"))]);
    cassandra.kill();
    passes(store.flush(&t, put(3, &[("a", Some("3"))])).expect_err("nobody is there"));
    passes(store.watermark(&t).expect_err("nobody is there"));
    cassandra.restart();
    wait_until("it is back", || store.watermark(&t).is_ok());
    // Its log of commits is synced every ten seconds at most, so its newest may be gone with it where the machine goes too; not here.
    assert_eq!(store.watermark(&t).expect("reads"), Some(bytes("1")));
    wait_until("it takes writes", || store.flush(&t, put(3, &[("a", Some("3"))])).is_ok());
    assert_eq!(get(&store, &t, &[b"a"]), [Some(bytes("3"))]);
}

#[test]
fn what_keeps_it_from_opening_is_named_with_the_key_to_change() {
    let Some(cassandra) = services::cassandra() else { return };
    let right = options(cassandra);
    let closed = CassandraOptions { nodes: vec!["127.0.0.1:9".into()], ..right.clone() };
    assert!(refusal(&closed).starts_with("cassandra.nodes"), "{}", refusal(&closed));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = CassandraOptions { nodes: vec![silent.local_addr().expect("bound").to_string()], ..right.clone() };
    assert!(refusal(&silent).starts_with("cassandra.nodes"), "{}", refusal(&silent));
    for (keyspace, why) in [("", "48"), ("Prod; DROP", "48")] {
        let refusal = refusal(&CassandraOptions { keyspace: keyspace.into(), ..right.clone() });
        assert!(refusal.starts_with("cassandra.keyspace") && refusal.contains(why), "{refusal}");
    }
    let refused = refusal(&CassandraOptions { create_keyspace: false, ..right.clone() });
    assert!(refused.starts_with("cassandra.keyspace") && refused.contains("cassandra.create_keyspace"), "{refused}");
    let refused = refusal(&CassandraOptions { tls_ca: "Cargo.toml".into(), ..right.clone() });
    assert!(refused.starts_with("cassandra.tls_ca"), "{refused}");
    let refused = refusal(&CassandraOptions { datacenter: "elsewhere".into(), ..right.clone() });
    assert!(refused.starts_with("cassandra."), "{refused}");
}

#[test]
fn a_keyspace_of_another_version_or_of_something_else_is_left_alone() {
    let Some(cassandra) = services::cassandra() else { return };
    let options = options(cassandra);
    drop(open(&options));
    let run = |text: String| {
        ask(async {
            let session = cassandra.session().await.expect("a session");
            session.query_unpaged(text, ()).await.expect("runs");
        });
    };
    run(format!("UPDATE {}.meta SET value = '99' WHERE name = 'version'", options.keyspace));
    let refused = refusal(&options);
    assert!(refused.starts_with("cassandra.keyspace") && refused.contains("99"), "{refused}");
    let other = CassandraOptions { keyspace: fresh_name("other"), ..options };
    let strategy = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    run(format!("CREATE KEYSPACE {} WITH replication = {strategy}", other.keyspace));
    run(format!("CREATE TABLE {}.states (id int PRIMARY KEY)", other.keyspace));
    assert!(refusal(&other).contains("something else"), "{}", refusal(&other));
}

#[test]
fn a_wrong_password_is_named_as_such_and_never_shown() {
    let Some(cassandra) = Cassandra::start(services::CassandraOptions { passwords: true }) else { return };
    let user = Cassandra::USER.to_owned();
    let wrong = CassandraOptions { user: user.clone(), password: "gue55ed".into(), ..options(&cassandra) };
    let refused = refusal(&wrong);
    assert!(refused.starts_with("cassandra.user") && !refused.contains("gue55ed"), "{refused}");
    let none = refusal(&options(&cassandra));
    assert!(none.starts_with("cassandra.user"), "{none}");
    open(&CassandraOptions { password: Cassandra::PASSWORD.into(), ..wrong });
}

#[test]
fn a_drop_that_was_cut_is_finished_at_the_next_start() {
    let Some(cassandra) = services::cassandra() else { return };
    let options = options(cassandra);
    let store = open(&options);
    let t: Table = table("t");
    store.flush(&t, put(1, &[("a", Some("1"))])).expect("flushes");
    ask(async {
        let session = cassandra.session().await.expect("a session");
        let keyspace = &options.keyspace;
        let found = session.query_unpaged(format!("SELECT id FROM {keyspace}.tables"), ()).await.expect("rows").into_rows_result();
        let (id,) = found.expect("rows").first_row::<(i64,)>().expect("one");
        session.query_unpaged(format!("INSERT INTO {keyspace}.dropped (scope, id) VALUES (0, {id})"), ()).await.expect("runs");
        session.query_unpaged(format!("DELETE FROM {keyspace}.tables WHERE scope = 0 AND name = 't'"), ()).await.expect("runs");
    });
    drop(open(&options));
    let left = ask(async {
        let session = cassandra.session().await.expect("a session");
        let rows = session.query_unpaged(format!("SELECT key FROM {}.states", options.keyspace), ()).await.expect("rows");
        rows.into_rows_result().expect("rows").rows_num()
    });
    assert_eq!(left, 0);
}
