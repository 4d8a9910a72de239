//! A flush that is cut after any of its steps, as in a store where it is not atomic, and one whose rest comes late, from an owner who was
//! thought dead: what is said in the end, and what is stored, is what an undisturbed run says and stores.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::{DAY_MS, Millis};
use flywheel::engine;
use flywheel::state::{Error, Flush, MemoryStore, StateStore, Stored, Table, Wake};
use flywheel::stream::{NamespaceClock, Options, Setup, Spine, Stepped, activate_workflow};
use parking_lot::Mutex;

use crate::digest::{SEGMENTS, digest_of, load};
use crate::spine_world::{START, World, track};
use crate::workflow_world::{definition, journal};

/// A store whose flushes are done in steps, in the order of the port; index deletions with the flush after the one that asked for them.
#[derive(Default)]
struct Stepwise {
    store: MemoryStore,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// How many steps are done before one is not, and nothing more of that flush.
    left: Option<usize>,
    done: usize,
    cleared: HashMap<Table, Vec<Wake>>,
    /// The rest of the flush that was cut.
    rest: VecDeque<(Table, Flush)>,
}

/// A flush as many, each of one row.
fn steps(flush: Flush, cleared: Vec<Wake>) -> Vec<Flush> {
    let upto = flush.upto;
    let empty = || Flush { upto: upto.clone(), ..Flush::default() };
    let set = flush.wakes_set.into_iter().map(|wake| Flush { wakes_set: vec![wake], ..empty() });
    let states = flush.states.into_iter().map(|state| Flush { states: vec![state], ..empty() });
    let watermark = flush.watermark.into_iter().map(|watermark| Flush { watermark: Some(watermark), ..empty() });
    let cleared = cleared.into_iter().map(|wake| Flush { wakes_cleared: vec![wake], ..empty() });
    set.chain(states).chain(watermark).chain(cleared).collect()
}

impl Stepwise {
    fn cut_after(&self, steps: Option<usize>) {
        let mut inner = self.inner.lock();
        inner.left = steps;
        inner.cleared.clear();
    }

    fn done(&self) -> usize {
        self.inner.lock().done
    }

    /// The rest of what was cut arrives.
    fn land(&self) {
        let rest = std::mem::take(&mut self.inner.lock().rest);
        rest.into_iter().for_each(|(table, step)| self.store.flush(&table, step).expect("lands"));
    }
}

impl StateStore for Stepwise {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        self.store.get_many(table, keys)
    }
    fn flush(&self, table: &Table, mut flush: Flush) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let fresh: Vec<Wake> =
            std::mem::take(&mut flush.wakes_cleared).into_iter().filter(|wake| !flush.wakes_set.contains(wake)).collect();
        let mut cleared = inner.cleared.insert(table.clone(), fresh).unwrap_or_default();
        cleared.retain(|wake| !flush.wakes_set.contains(wake));
        let mut steps: VecDeque<Flush> = steps(flush, cleared).into();
        while let Some(step) = steps.pop_front() {
            if inner.left == Some(0) {
                steps.push_front(step);
                inner.rest = steps.into_iter().map(|step| (table.clone(), step)).collect();
                return Err(Error::Backend("cut".into()));
            }
            inner.left = inner.left.map(|left| left - 1);
            inner.done += 1;
            self.store.flush(table, step)?;
        }
        Ok(())
    }
    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        self.store.watermark(table)
    }
    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        self.store.due(table, until, after, limit)
    }
    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
        self.store.scan(table, after, limit)
    }
    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        // A late write finds the number that the table had.
        self.inner.lock().rest.retain(|(of, _)| of != table);
        self.store.drop_table(table)
    }
    fn tables(&self) -> Result<Vec<Table>, Error> {
        self.store.tables()
    }
}

/// Every few steps of the loops states are stored, and the steps are small.
const FLUSH_AGE_MS: i64 = 10;
const STEPS_PER_FLUSH: usize = 9;

fn options() -> Options {
    Options { linger_ms: 0, fetch_bytes_max: 300, wakes_per_commit_max: 2, flush_age_ms_max: FLUSH_AGE_MS, ..Options::default() }
}

fn open(world: &World, store: &Arc<Stepwise>, with_workflows: bool) -> Spine {
    let state = Arc::clone(store) as Arc<dyn StateStore>;
    let mut spine = Spine::open(Setup { state, ..world.setup() }).expect("opens");
    if with_workflows {
        engine::join(&mut spine, world.time, None).expect("joins");
    }
    spine
}

/// Steps the loops in turn until nothing is left to do, at most so many times; false if a flush was cut.
fn drive(world: &World, spine: &mut Spine, mut at_most: usize) -> bool {
    let mut steps = 0;
    let mut idle = 0;
    while idle < spine.workers().len() * 3 && at_most > 0 {
        for worker in spine.workers() {
            steps += 1;
            at_most = at_most.saturating_sub(1);
            if steps % STEPS_PER_FLUSH == 0 {
                world.clock.advance(FLUSH_AGE_MS);
            }
            match worker.step() {
                Ok(Stepped::Worked) => idle = 0,
                Ok(_) => idle += 1,
                Err(error) if error.to_string().contains("cut") => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
    true
}

type States = BTreeMap<(String, Bytes), Bytes>;
type Wakes = Vec<(String, Wake)>;

/// Everything that is stored, and the index.
fn stored(store: &dyn StateStore) -> (States, Wakes) {
    let (mut states, mut wakes) = (States::new(), Wakes::new());
    for table in store.tables().expect("lists") {
        let name = table.0.to_string();
        let rows = store.scan(&table, None, usize::MAX).expect("reads");
        states.extend(rows.into_iter().map(|(key, stored)| ((name.clone(), key), stored.state)));
        wakes.extend(store.due(&table, Millis::MAX, None, usize::MAX).expect("reads").into_iter().map(|wake| (name.clone(), wake)));
    }
    (states, wakes)
}

/// The same, built anew from the log.
fn rebuilt(world: &World, with_workflows: bool) -> (States, Wakes) {
    let store = Arc::new(MemoryStore::new());
    let state = Arc::clone(&store) as Arc<dyn StateStore>;
    let mut spine = Spine::open(Setup { state, ..world.setup() }).expect("opens");
    if with_workflows {
        engine::join(&mut spine, world.time, None).expect("joins");
    }
    world.drive(&mut spine);
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    stored(&*store)
}

/// Runs a world of the given load whose first flush that comes so far is cut after so many steps, its rest landing once the next owner has
/// made so many steps of the loops; `None`: never. What is said in the end, and how many steps all flushes took.
fn run(with_workflows: bool, cut: Option<usize>, lands_after: Option<usize>) -> (String, usize) {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.options = options();
    let store = Arc::new(Stepwise::default());
    let mut spine = open(&world, &store, false);
    if with_workflows {
        activate_workflow(&world.log, spine.topics(), &definition(REMINDER), Millis::MIN).expect("activates");
        engine::join(&mut spine, world.time, None).expect("joins");
        remind(&world);
    } else {
        load(&world, 2);
    }
    store.cut_after(cut);
    if !drive(&world, &mut spine, usize::MAX) {
        // It is dead, or thought so: nothing in its memory counts any more.
        drop(spine);
        store.cut_after(None);
        spine = open(&world, &store, with_workflows);
        if let Some(steps) = lands_after {
            assert!(drive(&world, &mut spine, steps));
            store.land();
        }
        assert!(drive(&world, &mut spine, usize::MAX));
    }
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    let (states, wakes) = stored(&*store);
    let (expected, wanted) = rebuilt(&world, with_workflows);
    for (key, state) in &expected {
        assert_eq!(states.get(key), Some(state), "{key:?}, cut after {cut:?} steps");
    }
    assert_eq!(states.len(), expected.len(), "cut after {cut:?} steps");
    let lost: Vec<_> = wanted.iter().filter(|wake| !wakes.contains(wake)).collect();
    assert!(lost.is_empty(), "not in the index, cut after {cut:?} steps: {lost:?}");
    (format!("{:?} {:?} {:?}", digest_of(&world), world.changes(), journal(&world)), store.done())
}

/// Cuts after every so many steps.
fn same_for_cuts(every: usize, with_workflows: bool, lands_after: Option<usize>) {
    let (expected, steps) = run(with_workflows, None, None);
    assert!(steps > 50, "{steps} steps");
    for cut in (0..steps).step_by(every) {
        let (said, _) = run(with_workflows, Some(cut), lands_after);
        assert_eq!(said, expected, "cut after {cut} of {steps} steps");
    }
}

const REMINDER: &str = r#"
[workflow]
name = "reminder"
entry = { event = "Signed Up", reenter = "always" }

[[node]]
name = "first"
kind = "delay"
wait = "2d"
next = "second"

[[node]]
name = "second"
kind = "delay"
wait = "3d"
next = "over"

[[node]]
name = "over"
kind = "exit"
"#;

/// People who sign up on each of four days, some more than once, some of whom buy while their runs wait.
fn remind(world: &World) {
    for day in 0..4_i64 {
        let at = START + day * DAY_MS;
        let mut bodies: Vec<String> =
            (0..3).map(|n| track(&format!("s{day}-{n}"), &format!("u{}", (day * 2 + n) % 5), "Signed Up", at)).collect();
        bodies.push(track(&format!("o{day}"), &format!("u{}", day % 5), "Order Completed", at + 1_000));
        world.send(&bodies);
        world.state_time(at + 2_000);
    }
    world.state_time(START + 20 * DAY_MS);
}

#[test]
fn of_profiles_a_flush_cut_after_any_step_changes_nothing() {
    same_for_cuts(1, false, None);
}

#[test]
fn of_profiles_the_rest_of_it_may_come_when_another_owns_them() {
    for steps in [0, 7] {
        same_for_cuts(3, false, Some(steps));
    }
}

#[test]
fn of_workflows_a_flush_cut_after_any_step_changes_nothing() {
    same_for_cuts(1, true, None);
}

#[test]
fn of_workflows_the_rest_of_it_may_come_when_another_owns_them() {
    same_for_cuts(5, true, Some(25));
}
