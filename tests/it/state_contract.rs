//! One suite for every state store: keyed snapshots, the ordered wake index, watermarks, whole flushes. What only a store that is shared
//! has to promise is in `state_cassandra`.

use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::{Incarnation, Millis, Offset};
use flywheel::state::{FjallOptions, FjallStore, Flush, MemoryStore, Opened, StateStore, Table, Upto, Wake};

pub fn table(name: &str) -> Table {
    Table(Arc::from(name))
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn wake(due: i64, key: &str) -> Wake {
    Wake { due: Millis(due), key: bytes(key) }
}

/// Runs `check` on each adapter, freshly made.
fn on_each(check: impl Fn(&dyn StateStore)) {
    check(&MemoryStore::new());
    let folder = tempfile::tempdir().expect("a folder");
    let store = FjallStore::open(&folder.path().join("state"), FjallOptions::default()).expect("opens");
    check(&store);
    #[cfg(feature = "cluster")]
    if let Some(store) = crate::state_cassandra::fresh() {
        check(&store);
    }
}

/// A flush of what was folded below this offset.
pub fn at(next: u64) -> Flush {
    Flush { upto: Upto::new(Incarnation(1), Offset(next)), ..Flush::default() }
}

pub fn put(next: u64, pairs: &[(&str, Option<&str>)]) -> Flush {
    Flush { states: pairs.iter().map(|(key, state)| (bytes(key), state.map(bytes))).collect(), ..at(next) }
}

/// The states of these keys.
pub fn get(store: &dyn StateStore, table: &Table, keys: &[&[u8]]) -> Vec<Option<Bytes>> {
    let found = store.get_many(table, keys).expect("reads");
    found.into_iter().map(|stored| stored.map(|stored| stored.state)).collect()
}

pub fn scan(store: &dyn StateStore, table: &Table, after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
    let page = store.scan(table, after, limit).expect("reads");
    page.into_iter().map(|(key, stored)| (key, stored.state)).collect()
}

#[test]
fn reads_back_in_the_order_asked_and_none_for_what_is_absent() {
    on_each(|store| {
        let t = table("demo.profiles.0.i1.v1");
        assert_eq!(get(store, &t, &[b"a"]), [None], "a table that was never written");
        store.flush(&t, put(1, &[("a", Some("1")), ("b", Some("2"))])).expect("flushes");
        store.flush(&t, put(2, &[("a", None), ("b", Some("3")), ("c", Some(""))])).expect("flushes");
        let read = get(store, &t, &[b"c", b"a", b"b", b"b"]);
        assert_eq!(read, [Some(bytes("")), None, Some(bytes("3")), Some(bytes("3"))]);
    });
}

#[test]
fn tables_do_not_meet() {
    on_each(|store| {
        store.flush(&table("x"), put(1, &[("a", Some("1"))])).expect("flushes");
        store.flush(&table("xy"), put(1, &[("a", Some("2"))])).expect("flushes");
        assert_eq!(get(store, &table("x"), &[b"a"]), [Some(bytes("1"))]);
        assert_eq!(store.tables().expect("lists"), [table("x"), table("xy")]);
        store.drop_table(&table("x")).expect("drops");
        assert_eq!(get(store, &table("x"), &[b"a"]), [None]);
        assert_eq!(get(store, &table("xy"), &[b"a"]), [Some(bytes("2"))]);
        assert_eq!(store.tables().expect("lists"), [table("xy")]);
    });
}

#[test]
fn wakes_come_in_order_of_time_then_key_and_pages_resume_after_a_wake() {
    on_each(|store| {
        let t = table("w");
        let set = vec![wake(20, "b"), wake(-5, "z"), wake(20, "a"), wake(10, "c"), wake(30, "a")];
        store.flush(&t, Flush { wakes_set: set, ..at(1) }).expect("flushes");
        let due = |until, after: Option<&Wake>, limit| store.due(&t, Millis(until), after, limit).expect("reads");
        assert_eq!(due(20, None, 10), [wake(-5, "z"), wake(10, "c"), wake(20, "a"), wake(20, "b")]);
        assert_eq!(due(20, None, 2), [wake(-5, "z"), wake(10, "c")]);
        assert_eq!(due(20, Some(&wake(10, "c")), 2), [wake(20, "a"), wake(20, "b")]);
        assert_eq!(due(20, Some(&wake(20, "a")), 10), [wake(20, "b")]);
        assert_eq!(due(9, Some(&wake(-5, "z")), 10), []);
    });
}

#[test]
fn a_wake_moves_in_one_flush() {
    on_each(|store| {
        let t = table("w");
        store.flush(&t, Flush { wakes_set: vec![wake(10, "a")], ..at(1) }).expect("flushes");
        let moved = Flush { wakes_set: vec![wake(99, "a")], wakes_cleared: vec![wake(10, "a")], ..at(2) };
        store.flush(&t, moved).expect("flushes");
        assert_eq!(store.due(&t, Millis::MAX, None, 10).expect("reads"), [wake(99, "a")]);
    });
}

#[test]
fn a_scan_pages_through_all_states_in_key_order() {
    on_each(|store| {
        let t = table("s");
        assert_eq!(scan(store, &t, None, 10), []);
        store.flush(&t, put(1, &[("b", Some("2")), ("a", Some("1")), ("c", Some("3"))])).expect("flushes");
        let pairs = |after: Option<&[u8]>, limit| scan(store, &t, after, limit);
        assert_eq!(pairs(None, 2), [(bytes("a"), bytes("1")), (bytes("b"), bytes("2"))]);
        assert_eq!(pairs(Some(b"b"), 2), [(bytes("c"), bytes("3"))]);
        assert_eq!(pairs(Some(b"bb"), 2), [(bytes("c"), bytes("3"))]);
    });
}

#[test]
fn a_watermark_stays_until_replaced_and_goes_with_its_table() {
    on_each(|store| {
        let t = table("m");
        assert_eq!(store.watermark(&t).expect("reads"), None);
        store.flush(&t, Flush { watermark: Some(bytes("one")), ..at(1) }).expect("flushes");
        store.flush(&t, put(2, &[("a", Some("1"))])).expect("flushes");
        assert_eq!(store.watermark(&t).expect("reads"), Some(bytes("one")));
        store.drop_table(&t).expect("drops");
        assert_eq!(store.watermark(&t).expect("reads"), None);
        store.drop_table(&t).expect("dropping what is not there is fine");
        store.flush(&t, put(1, &[("a", Some("2"))])).expect("a dropped table can begin again");
        assert_eq!(get(store, &t, &[b"a"]), [Some(bytes("2"))]);
        assert_eq!(store.due(&t, Millis::MAX, None, 10).expect("reads"), []);
    });
}

#[test]
fn the_disk_store_finds_everything_again_after_closing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    let t = table("demo.profiles.0.i1.v1");
    {
        let store = FjallStore::open(&path, FjallOptions::default()).expect("opens");
        let flush = Flush { wakes_set: vec![wake(1, "a")], watermark: Some(bytes("w")), ..put(1, &[("a", Some("1"))]) };
        store.flush(&t, flush).expect("flushes");
    }
    let store = FjallStore::open(&path, FjallOptions::default()).expect("opens again");
    assert_eq!(store.tables().expect("lists"), std::slice::from_ref(&t));
    assert_eq!(get(&store, &t, &[b"a"]), [Some(bytes("1"))]);
    assert_eq!(store.due(&t, Millis(1), None, 10).expect("reads"), [wake(1, "a")]);
    assert_eq!(store.watermark(&t).expect("reads"), Some(bytes("w")));
}

#[test]
fn a_state_folder_that_will_not_open_is_moved_aside_and_begun_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    let t = table("x");
    {
        let store = FjallStore::open(&path, FjallOptions::default()).expect("opens");
        store.flush(&t, put(1, &[("a", Some("1"))])).expect("flushes");
    }
    std::fs::write(path.join("version"), b"garbage").expect("damages it");
    let (store, opened) = FjallStore::open_or_rebuild(&path, FjallOptions::default()).expect("begins anew");
    assert!(matches!(opened, Opened::Rebuilt { .. }), "{opened:?}");
    assert_eq!(get(&store, &t, &[b"a"]), [None]);
}
