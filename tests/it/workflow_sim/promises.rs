//! What holds of every journal, by name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flywheel::consent::Status;
use flywheel::domain::{Millis, SubjectKey};
use flywheel::permit::AddressKey;
use flywheel::workflow::{Clock, EffectId, Ending, Fact, Performer, RunId, Settled, Subject, Unknown, What, evolve};

use super::program::{CAP_LIMIT, CAP_WINDOW_MS};

type Journal = BTreeMap<Bytes, Vec<Fact>>;

/// Checks everything; a broken promise panics with its name.
pub fn all(journal: &Journal, clock: Clock) {
    for (key, facts) in journal {
        no_effect_without_its_request(facts);
        one_key_per_effect(facts);
        attempts_are_minted_in_order_and_never_beside_a_started_one(facts);
        no_fact_of_a_run_after_its_terminal_one(facts);
        no_timer_early(facts);
        paused_never_sends(facts);
        no_send_without_a_permit(facts, clock);
        caps_hold_across_runs(facts);
        nothing_is_decided_twice(facts);
        time_goes_forward(key, facts);
    }
}

/// The effect that a fact is about.
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

fn no_effect_without_its_request(facts: &[Fact]) {
    let mut requested = BTreeSet::new();
    for fact in facts {
        if let What::EffectRequested { effect, .. } = fact.what {
            requested.insert(effect);
        }
        if let Some(effect) = effect_of(&fact.what) {
            assert!(requested.contains(&effect), "no effect without its request: {fact:?}");
        }
    }
}

fn one_key_per_effect(facts: &[Fact]) {
    let mut keys = BTreeSet::new();
    for fact in facts {
        let (What::EffectRequested { effect, visit, .. }, Some(run)) = (&fact.what, fact.run) else { continue };
        assert_eq!(*effect, EffectId::of(run, *visit), "one key per effect: it follows from its run and step");
        assert!(keys.insert(*effect), "one key per effect: requested twice: {fact:?}");
    }
}

fn attempts_are_minted_in_order_and_never_beside_a_started_one(facts: &[Fact]) {
    let mut last: BTreeMap<EffectId, u32> = BTreeMap::new();
    let mut started: BTreeSet<EffectId> = BTreeSet::new();
    let mut completed: BTreeSet<EffectId> = BTreeSet::new();
    for fact in facts {
        match &fact.what {
            What::AttemptMinted { effect, attempt, .. } => {
                let before = last.insert(*effect, *attempt).unwrap_or(0);
                assert_eq!(*attempt, before + 1, "attempts in order: {fact:?}");
                assert!(!started.contains(effect), "minted beside a started one: {fact:?}");
                assert!(!completed.contains(effect), "minted after it was done: {fact:?}");
            }
            What::EffectStarted { effect, .. } => assert!(started.insert(*effect), "started twice: {fact:?}"),
            What::EffectCompleted { effect, .. } => {
                started.remove(effect);
                assert!(completed.insert(*effect), "completed twice: {fact:?}");
            }
            other => {
                if let Some(effect) = effect_of(other).filter(|_| !matches!(other, What::PermitGranted { .. })) {
                    started.remove(&effect);
                }
            }
        }
    }
}

fn no_fact_of_a_run_after_its_terminal_one(facts: &[Fact]) {
    let mut ended: BTreeSet<RunId> = BTreeSet::new();
    for fact in facts {
        let Some(run) = fact.run else { continue };
        assert!(!ended.contains(&run), "no fact of a run after its terminal one: {fact:?}");
        if matches!(fact.what, What::RunEnded { .. }) {
            ended.insert(run);
        }
    }
}

fn no_timer_early(facts: &[Fact]) {
    let mut until: BTreeMap<(RunId, u64), Millis> = BTreeMap::new();
    let mut retry: BTreeMap<EffectId, Millis> = BTreeMap::new();
    for fact in facts {
        let Some(run) = fact.run else { continue };
        match &fact.what {
            What::Delayed { visit, until: at, .. }
            | What::WaitBegun { visit, until: at, .. }
            | What::ApprovalRequested { visit, until: at, .. }
            | What::StartRequested { visit, until: Some(at), .. } => drop(until.insert((run, *visit), *at)),
            What::TimerFired { visit, .. } => {
                assert!(until.get(&(run, *visit)).is_none_or(|at| *at <= fact.at), "no timer early: {fact:?}");
            }
            What::ApprovalDecided { visit, by, .. } if by == "silence" => {
                assert!(until[&(run, *visit)] <= fact.at, "no timer early: {fact:?}");
            }
            What::AttemptFailed { effect, retry_at: Some(at), .. } | What::PermitRefused { effect, retry_at: Some(at), .. } => {
                retry.insert(*effect, *at);
            }
            What::AttemptVoid { effect, retry_at, .. } => drop(retry.insert(*effect, *retry_at)),
            What::AttemptMinted { effect, by_hand, .. } => {
                let due = retry.remove(effect);
                assert!(*by_hand || due.is_none_or(|at| at <= fact.at), "no timer early: {fact:?}");
            }
            _ => {}
        }
    }
}

fn paused_never_sends(facts: &[Fact]) {
    let mut paused: BTreeSet<RunId> = BTreeSet::new();
    for fact in facts {
        let Some(run) = fact.run else { continue };
        match &fact.what {
            // What was in flight went out, and is told.
            What::EventEmitted { event, .. } if event.ends_with(" Sent") => {}
            What::RunPaused { .. } => drop(paused.insert(run)),
            What::RunResumed { .. } => drop(paused.remove(&run)),
            What::AttemptMinted { .. }
            | What::EffectStarted { .. }
            | What::PermitGranted { .. }
            | What::EventEmitted { .. }
            | What::StartRequested { .. } => assert!(!paused.contains(&run), "paused never sends: {fact:?}"),
            _ => {}
        }
    }
}

struct Message<'f> {
    purpose: &'f str,
    started: Option<(u32, &'f str, Millis)>,
    granted: BTreeSet<u32>,
}

fn no_send_without_a_permit(facts: &[Fact], clock: Clock) {
    let mut messages: BTreeMap<EffectId, Message<'_>> = BTreeMap::new();
    // What was known of the person when a permit was decided: the facts before it, and nothing else.
    let mut subject = Subject::default();
    for fact in facts {
        match &fact.what {
            What::EffectRequested { effect, by: Performer::Channel, purpose, .. } => {
                messages.insert(*effect, Message { purpose, started: None, granted: BTreeSet::new() });
            }
            What::EffectStarted { effect, attempt, executor, appended } => {
                if let Some(message) = messages.get_mut(effect) {
                    message.started = Some((*attempt, executor, *appended));
                }
            }
            What::PermitGranted { effect, attempt, grant, to } => {
                let message = messages.get_mut(effect).expect("permits are of messages");
                let (started, executor, appended) = message.started.expect("asked for before");
                assert_eq!((started, executor.to_owned()), (*attempt, grant.executor().to_string()), "to whom asked: {fact:?}");
                assert!(message.granted.insert(*attempt), "granted twice: {fact:?}");
                assert_eq!(subject.address("email"), Some(to.as_str()), "where the person is reached: {fact:?}");
                let status = subject.consent.status(message.purpose, "email");
                match message.purpose {
                    "receipt" => {}
                    "news" => assert_eq!(status, Status::Granted, "nobody without a yes: {fact:?}"),
                    _ => assert_ne!(status, Status::Denied, "nobody who said no: {fact:?}"),
                }
                let is_in_time = message.purpose == "receipt" || clock == Clock::Event || fact.at >= appended;
                assert!(is_in_time, "decided before what was said ahead of it could be heard: {fact:?}");
                assert!(!subject.is_merging(), "not while a login's history is coming in: {fact:?}");
            }
            What::EffectCompleted { effect, assumed: false, .. } => {
                let is_permitted = messages.get(effect).is_none_or(|message| !message.granted.is_empty());
                assert!(is_permitted, "no send without a permit: {fact:?}");
            }
            _ => {}
        }
        evolve(&mut subject, fact);
    }
}

/// Counted anew, from grants and what became of them: of two grants the first may count up to its end, never before its beginning.
fn caps_hold_across_runs(facts: &[Fact]) {
    let mut sent: BTreeMap<EffectId, (Millis, BTreeSet<u32>)> = BTreeMap::new();
    let mut used: BTreeSet<EffectId> = BTreeSet::new();
    let mut transactional: BTreeSet<EffectId> = BTreeSet::new();
    for fact in facts {
        match &fact.what {
            What::EffectRequested { effect, purpose, .. } if purpose == "receipt" => drop(transactional.insert(*effect)),
            What::PermitGranted { effect, attempt, grant, .. } => {
                let since = grant.at() - CAP_WINDOW_MS;
                let others = sent
                    .iter()
                    .filter(|(other, (at, open))| *other != effect && *at > since && (used.contains(*other) || !open.is_empty()));
                let count = others.count();
                let is_free = transactional.contains(effect) || count < CAP_LIMIT;
                assert!(is_free, "caps hold across runs: {count} before {fact:?}");
                let entry = sent.entry(*effect).or_insert_with(|| (grant.at(), BTreeSet::new()));
                entry.1.insert(*attempt);
            }
            What::EffectCompleted { effect, .. } => drop(used.insert(*effect)),
            What::EffectSettled { effect, outcome: Settled::Done, .. } => drop(used.insert(*effect)),
            What::AttemptFailed { effect, attempt, timed_out: false, .. }
            | What::AttemptVoid { effect, attempt, .. }
            | What::EffectSettled { effect, attempt, outcome: Settled::NotDone, .. } => {
                if let Some((_, open)) = sent.get_mut(effect) {
                    open.remove(attempt);
                }
            }
            What::LookedUp { effect, .. } => {
                if let Some((_, open)) = sent.get_mut(effect) {
                    open.clear();
                }
            }
            // Whoever the device became has it from here on.
            What::MergedInto { .. } => sent.clear(),
            _ => {}
        }
    }
}

/// What no state would refuse to do again, if the command were read again.
fn nothing_is_decided_twice(facts: &[Fact]) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for fact in facts {
        let once = match &fact.what {
            What::RunStarted { .. } => format!("start {:?}", fact.run),
            What::RunEnded { .. } => format!("end {:?}", fact.run),
            What::WaitMatched { visit, .. } => format!("match {:?} {visit}", fact.run),
            What::TimerFired { visit, .. } => format!("fire {:?} {visit}", fact.run),
            What::EventEmitted { visit, .. } => format!("emit {:?} {visit}", fact.run),
            What::StartRequested { visit, .. } => format!("ask for {:?} {visit}", fact.run),
            What::ApprovalDecided { visit, .. } => format!("decide {:?} {visit}", fact.run),
            What::Moved { visit, .. } => format!("move {:?} {visit}", fact.run),
            What::AttributeSet { name, value, .. } if name == "number" => format!("set {value}"),
            What::EffectSettled { effect, attempt, .. } => format!("settle {effect:?} {attempt}"),
            _ => continue,
        };
        assert!(seen.insert(once.clone()), "decided twice, {once}: {fact:?}");
    }
}

fn time_goes_forward(key: &Bytes, facts: &[Fact]) {
    let mut now = Millis::MIN;
    for fact in facts {
        assert!(fact.at >= now, "time goes forward for {key:?}: {fact:?} after {now}");
        now = fact.at;
    }
}

/// Once everything has settled; says how many people know that their address is suppressed.
pub fn whoever_holds_an_address_knows_what_is_said_of_it(subjects: &BTreeMap<Bytes, Subject>, now: Millis) -> u64 {
    // By tenant and name: what a schedule starts has people of its own.
    let name = |key: &Bytes| {
        let key = SubjectKey::from_bytes(key.clone()).expect("a subject's key");
        (key.tenant_str().to_owned(), key.subject().to_string())
    };
    let by_name: BTreeMap<(String, String), &Subject> = subjects.iter().map(|(key, subject)| (name(key), subject)).collect();
    let mut told = 0;
    for ((tenant, who), person) in by_name.iter().filter(|((_, who), _)| who.starts_with("u:")) {
        let Some(address) = person.address("email").map(|address| AddressKey::of("email", address)) else { continue };
        let known = by_name.get(&(tenant.clone(), format!("@:{address}"))).unwrap_or_else(|| panic!("{who} registers with its address"));
        let is_holder = known.held_by.as_ref().is_some_and(|held_by| held_by.holders.contains(who));
        assert!(is_holder, "{who} registers with its address: {:?}", known.held_by);
        assert_eq!(person.suppressions.of(address, now), known.suppressions.of(address, now), "an address tells who holds it: {who}");
        told += u64::from(person.suppressions.of(address, now).is_some());
    }
    for ((tenant, address), subject) in by_name.iter().filter(|((_, name), _)| name.starts_with("@:")) {
        for holder in subject.held_by.iter().flat_map(|held_by| &held_by.holders).filter(|holder| holder.starts_with("u:")) {
            let person = by_name[&(tenant.clone(), holder.clone())];
            let holds = person.address("email").map(|own| format!("@:{}", AddressKey::of("email", own)));
            assert_eq!(holds.as_ref(), Some(address), "who has another address holds the old one no more: {holder}");
        }
    }
    told
}

/// Of effects that must not be done twice: what is recorded of them.
pub fn at_most_once(facts: &[Fact]) -> BTreeSet<EffectId> {
    let once = |unknown: &Unknown| matches!(unknown, Unknown::LookUp | Unknown::AssumeDone);
    let requests = facts.iter().filter_map(|fact| match &fact.what {
        What::EffectRequested { effect, unknown, .. } if once(unknown) => Some(*effect),
        _ => None,
    });
    requests.collect()
}

/// How runs ended.
pub fn endings(journal: &Journal) -> BTreeMap<&'static str, u64> {
    let mut endings: BTreeMap<&'static str, u64> = BTreeMap::new();
    for fact in journal.values().flatten() {
        if let What::RunEnded { ending, .. } = &fact.what {
            *endings.entry(Ending::as_str(*ending)).or_default() += 1;
        }
    }
    endings
}
