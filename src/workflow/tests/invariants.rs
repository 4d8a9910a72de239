//! What holds whatever happens, by name, over random workflows and random faults.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{Doing, EffectId, Fact, RunId, Subject, What, evolve};
use super::program::{Choices, program};
use super::world::World;
use crate::consent::Status;
use crate::domain::{HOUR_MS, Millis};
use crate::permit::AddressKey;

/// The effect that a fact is about, if it is one of a run in progress.
fn effect_of(what: &What) -> Option<EffectId> {
    match what {
        What::AttemptMinted { effect, .. }
        | What::EffectStarted { effect, .. }
        | What::PermitGranted { effect, .. }
        | What::PermitRefused { effect, .. }
        | What::EffectCompleted { effect, .. }
        | What::AttemptFailed { effect, .. }
        | What::AttemptUnknown { effect, .. }
        | What::LookedUp { effect, .. }
        | What::AttemptVoid { effect, .. }
        | What::EffectFailed { effect, .. }
        | What::EffectSettled { effect, .. } => Some(*effect),
        _ => None,
    }
}

fn no_effect_without_its_request(journal: &[Fact]) {
    let mut requested = BTreeSet::new();
    for fact in journal {
        if let What::EffectRequested { effect, .. } = fact.what {
            requested.insert(effect);
        }
        if let Some(effect) = effect_of(&fact.what) {
            assert!(requested.contains(&effect), "{fact:?}");
        }
    }
}

fn one_key_per_effect(journal: &[Fact]) {
    let (mut keys, mut completed) = (BTreeSet::new(), BTreeSet::new());
    for fact in journal {
        match &fact.what {
            What::EffectRequested { effect, .. } => assert!(keys.insert(*effect), "requested twice: {fact:?}"),
            What::EffectCompleted { effect, .. } => assert!(completed.insert(*effect), "completed twice: {fact:?}"),
            _ => {}
        }
    }
}

fn attempts_are_minted_in_order_and_never_beside_a_started_one(journal: &[Fact]) {
    let mut last: BTreeMap<EffectId, u32> = BTreeMap::new();
    let mut started: BTreeSet<EffectId> = BTreeSet::new();
    for fact in journal {
        match &fact.what {
            What::AttemptMinted { effect, attempt, .. } => {
                let before = last.insert(*effect, *attempt).unwrap_or(0);
                assert_eq!(*attempt, before + 1, "{fact:?}");
                assert!(!started.contains(effect), "minted beside a started one: {fact:?}");
            }
            What::EffectStarted { effect, .. } => assert!(started.insert(*effect), "{fact:?}"),
            other => {
                if let Some(effect) = effect_of(other).filter(|_| !matches!(other, What::PermitGranted { .. })) {
                    started.remove(&effect);
                }
            }
        }
    }
}

fn no_fact_of_a_run_after_its_terminal_one(journal: &[Fact]) {
    let mut ended: BTreeSet<RunId> = BTreeSet::new();
    for fact in journal {
        let Some(run) = fact.run else { continue };
        assert!(!ended.contains(&run), "{fact:?}");
        if matches!(fact.what, What::RunEnded { .. }) {
            ended.insert(run);
        }
    }
}

fn no_timer_early(journal: &[Fact]) {
    let mut until: BTreeMap<(RunId, u64), Millis> = BTreeMap::new();
    let mut retry: BTreeMap<EffectId, Millis> = BTreeMap::new();
    for fact in journal {
        let Some(run) = fact.run else { continue };
        match &fact.what {
            What::Delayed { visit, until: at, .. } | What::WaitBegun { visit, until: at, .. } => {
                until.insert((run, *visit), *at);
            }
            What::TimerFired { visit, .. } => assert!(until.get(&(run, *visit)).is_none_or(|at| *at <= fact.at), "{fact:?}"),
            What::AttemptFailed { effect, retry_at: Some(at), .. } | What::PermitRefused { effect, retry_at: Some(at), .. } => {
                retry.insert(*effect, *at);
            }
            // What a look-up in vain was to wait for need not be looked up any more: what was in doubt did nothing.
            What::AttemptVoid { effect, retry_at: at, .. } => {
                retry.entry(*effect).and_modify(|known| *known = (*known).min(*at));
            }
            // Whoever tries by hand waits for nothing.
            What::AttemptMinted { effect, by_hand, .. } => {
                assert!(retry.remove(effect).is_none_or(|at| at <= fact.at || *by_hand), "{fact:?}");
            }
            _ => {}
        }
    }
}

fn paused_never_sends(journal: &[Fact]) {
    let mut paused: BTreeSet<RunId> = BTreeSet::new();
    for fact in journal {
        let Some(run) = fact.run else { continue };
        match &fact.what {
            // What was in flight went out, and is told.
            What::EventEmitted { event, .. } if event.ends_with(" Sent") => {}
            What::RunPaused { .. } => {
                paused.insert(run);
            }
            What::RunResumed { .. } => {
                paused.remove(&run);
            }
            What::AttemptMinted { .. } | What::EffectStarted { .. } | What::PermitGranted { .. } | What::EventEmitted { .. } => {
                assert!(!paused.contains(&run), "{fact:?}");
            }
            _ => {}
        }
    }
}

/// With what was known at that moment: who had not said no, was reachable, and had a history that was complete.
fn no_send_without_a_permit_and_no_permit_without_leave(world: &World) {
    let mut state = Subject::default();
    let mut granted: BTreeSet<(EffectId, u32)> = BTreeSet::new();
    for fact in &world.journal {
        if let What::PermitGranted { effect, attempt, grant, to } = &fact.what {
            granted.insert((*effect, *attempt));
            let (_, _, pending) = state.effect(*effect).unwrap();
            let open = pending.open.as_ref().unwrap();
            assert!(open.started.is_some() && !open.look_up && open.permit.is_none(), "{fact:?}");
            assert_eq!(state.address(&pending.target), Some(to.as_str()));
            assert!(!state.is_merging(), "{fact:?}");
            assert!(state.suppressions.of(AddressKey::of(&pending.target, to), fact.at).is_none(), "{fact:?}");
            if pending.purpose != "transactional" {
                assert!(open.appended.unwrap() <= fact.at, "before time was there: {fact:?}");
                assert_ne!(state.consent.status(&pending.purpose, &pending.target), Status::Denied, "{fact:?}");
            }
            assert!(grant.until() > fact.at);
        }
        evolve(&mut state, fact);
    }
    for sent in &world.sent {
        assert!(granted.iter().any(|(effect, _)| *effect == sent.effect), "sent without a permit");
    }
}

fn caps_hold_across_runs(world: &World) {
    let marketing: Vec<_> = world.sent.iter().filter(|sent| sent.purpose == "marketing").collect();
    for last in &marketing {
        let within = marketing.iter().filter(|sent| sent.at <= last.at && sent.at > last.at - HOUR_MS).count();
        assert!(within <= 2, "{within} messages in the hour before {}", last.at);
    }
}

fn nothing_begins_and_no_silence_is_concluded_while_a_history_is_coming_in(journal: &[Fact]) {
    let mut state = Subject::default();
    for fact in journal {
        if state.is_merging() {
            let waited = |visit| {
                let step = fact.run.and_then(|run| state.runs.get(&run)?.steps.get(visit));
                step.is_some_and(|step| matches!(step.doing, Doing::Wait { .. }))
            };
            match &fact.what {
                What::RunStarted { .. } => panic!("{fact:?}"),
                What::TimerFired { visit, .. } => assert!(!waited(visit), "{fact:?}"),
                _ => {}
            }
        }
        evolve(&mut state, fact);
    }
}

fn time_never_runs_backwards(journal: &[Fact]) {
    for pair in journal.windows(2) {
        assert!(pair[0].at <= pair[1].at, "{pair:?}");
    }
}

fn a_journal_replays_to_its_state(journal: &[Fact], state: &Subject) {
    let mut again = Subject::default();
    let mut bytes = Vec::new();
    for fact in journal {
        bytes.clear();
        fact.encode(&mut bytes);
        let read = Fact::decode(&bytes).unwrap();
        assert_eq!(read, *fact);
        evolve(&mut again, &read);
    }
    assert!(again == *state, "replayed:\n{again:#?}\nwas:\n{state:#?}");
    bytes.clear();
    state.encode(&mut bytes);
    assert!(Subject::decode(&bytes).unwrap() == *state);
}

fn all_hold(world: &World) {
    let journal = &world.journal;
    no_effect_without_its_request(journal);
    one_key_per_effect(journal);
    attempts_are_minted_in_order_and_never_beside_a_started_one(journal);
    no_fact_of_a_run_after_its_terminal_one(journal);
    no_timer_early(journal);
    paused_never_sends(journal);
    no_send_without_a_permit_and_no_permit_without_leave(world);
    caps_hold_across_runs(world);
    nothing_begins_and_no_silence_is_concluded_while_a_history_is_coming_in(journal);
    time_never_runs_backwards(journal);
    a_journal_replays_to_its_state(journal, &world.state);
}

fn lived(definition: &[u8], faults: &[u8]) -> World {
    let mut world = World::new(&program(definition, false));
    world.start("start0");
    let mut choices = Choices::new(faults);
    for _ in 0..faults.len() / 3 {
        world.chance(&mut choices);
    }
    world
}

/// The same inputs again from one on, as they would be read from the log.
fn play(world: &mut World, inputs: &[(Millis, super::super::Input, usize)]) {
    for (at, input, _) in inputs {
        world.now = *at;
        let _ = world.input(input.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_under_faults_and_every_run_ends(
        definition in prop::collection::vec(any::<u8>(), 0..60),
        faults in prop::collection::vec(any::<u8>(), 0..240),
    ) {
        let mut world = lived(&definition, &faults);
        all_hold(&world);
        world.finish();
        all_hold(&world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_cut_after_every_prefix_reaches_the_same_end(
        definition in prop::collection::vec(any::<u8>(), 0..40),
        faults in prop::collection::vec(any::<u8>(), 0..90),
    ) {
        let mut world = lived(&definition, &faults);
        world.finish();
        for facts in 0..=world.journal.len() {
            let mut cut = world.cut(facts);
            // The first input whose facts are not all there is read again.
            let next = world.inputs.iter().rposition(|(_, _, before)| *before <= facts).unwrap_or(0);
            let first = world.inputs.iter().position(|(_, _, before)| *before >= facts).unwrap_or(world.inputs.len());
            if world.inputs.get(first).map_or(facts == world.journal.len(), |(_, _, before)| *before == facts) {
                play(&mut cut, &world.inputs[first..]);
                prop_assert!(cut.state == world.state, "cut after {} facts", facts);
                prop_assert!(cut.journal == world.journal, "cut after {} facts", facts);
            } else {
                // In the middle of a decision, which a log never shows: still nothing is lost, done twice or stuck.
                play(&mut cut, &world.inputs[next..]);
                cut.finish();
            }
            all_hold(&cut);
        }
    }
}
