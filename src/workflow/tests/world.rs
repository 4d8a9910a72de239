//! A world of chance around the core: performers that answer late, twice, in another order or never; people who press buttons, and say
//! yes and no; time that passes. Keeps every input with its time, so that the same can be played again to a state that was cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::super::{
    Category, Clock, Context, Definition, EffectId, Fact, Input, Library, Outcome, Performer, Policy, Provenance, Rejection, RunId,
    Subject, What, drive, evolve,
};
use super::program::Choices;
use crate::consent::Stated;
use crate::domain::Millis;
use crate::permit::{AddressKey, Cause};

pub(super) const SUBJECT: &str = "t\0u:ann";
pub(super) const EXECUTOR: &str = "0000000000000000000000000000000e";

/// Caps so tight that random lives meet them, and a night.
pub(super) const POLICY: &str = "\
[[purpose]]\nname = \"marketing\"\nbasis = \"opt_out\"\n[[purpose]]\nname = \"product\"\nbasis = \"opt_in\"\n\
[[purpose]]\nname = \"transactional\"\nbasis = \"transactional\"\n\
[[cap]]\nname = \"hourly\"\nwindow = \"1h\"\nlimit = 2\nkept_for_high = 1\npurpose = \"marketing\"\n\
[[quiet]]\nfrom = \"02:00\"\nto = \"03:00\"\npurpose = \"marketing\"\n";

/// An attempt that was minted and may answer, perhaps more than once.
#[derive(Debug, Clone, Copy)]
struct Out {
    effect: EffectId,
    attempt: u32,
    look_up: bool,
    is_message: bool,
}

/// A message that left.
pub(super) struct Sent {
    pub(super) at: Millis,
    pub(super) effect: EffectId,
    pub(super) purpose: String,
    attempt: u32,
}

pub(super) struct World {
    pub(super) library: Library,
    pub(super) policy: Policy,
    pub(super) state: Subject,
    pub(super) journal: Vec<Fact>,
    /// (time, input, length of the journal before it).
    pub(super) inputs: Vec<(Millis, Input, usize)>,
    pub(super) now: Millis,
    out: Vec<Out>,
    /// Until when each attempt may send.
    permits: BTreeMap<(EffectId, u32), Millis>,
    messages: BTreeMap<EffectId, String>,
    pub(super) sent: Vec<Sent>,
    count: u32,
}

impl World {
    pub(super) fn new(text: &str) -> Self {
        let definition = Definition::parse("random.toml", text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        let mut library = Library::default();
        library.activate(Arc::new(definition));
        let mut world = Self::of(library, Subject::default(), Vec::new(), Millis(1_700_000_000_000));
        for (name, value) in [("email", "ann@example.org"), ("phone", "+4917")] {
            let _ = world.input(Input::Attribute { name: name.to_owned(), value: json!(value) });
        }
        world
    }

    fn of(library: Library, state: Subject, journal: Vec<Fact>, now: Millis) -> Self {
        let policy = Policy::parse("policy", POLICY).unwrap_or_else(|problems| panic!("{problems}"));
        let (inputs, out, permits, messages, sent) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { library, policy, state, journal, inputs, now, out, permits, messages, sent, count: 0 }
    }

    pub(super) fn input(&mut self, input: Input) -> Result<(), Rejection> {
        self.inputs.push((self.now, input.clone(), self.journal.len()));
        let before = self.state.clone();
        let context = Context {
            subject: SUBJECT,
            library: &self.library,
            policy: &self.policy,
            clock: Clock::Wall,
            is_held: false,
            heard: Millis::MAX,
        };
        let driven = drive(&mut self.state, context, &input, self.now);
        if let Some(rejection) = driven.rejected {
            assert!(self.state == before && driven.facts.is_empty(), "a rejection changes nothing: {input:?}");
            return Err(rejection);
        }
        for fact in &driven.facts {
            self.see(fact);
        }
        self.journal.extend(driven.facts);
        Ok(())
    }

    fn see(&mut self, fact: &Fact) {
        match &fact.what {
            What::EffectRequested { effect, by: Performer::Channel, purpose, .. } => {
                self.messages.insert(*effect, purpose.clone());
            }
            What::AttemptMinted { effect, attempt, look_up, .. } => {
                let (effect, attempt, look_up) = (*effect, *attempt, *look_up);
                self.out.push(Out { effect, attempt, look_up, is_message: self.messages.contains_key(&effect) });
            }
            What::PermitGranted { effect, attempt, grant, .. } => {
                self.permits.insert((*effect, *attempt), grant.until());
            }
            _ => {}
        }
    }

    pub(super) fn start(&mut self, cause: &str) {
        let input = Input::Start {
            workflow: "random".to_owned(),
            cause: cause.to_owned(),
            entry: json!({}),
            profile: json!({}),
            depth: 0,
            parent: None,
        };
        let _ = self.input(input);
    }

    fn run(&self, which: u8) -> RunId {
        let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
        if runs.is_empty() { RunId(1) } else { runs[usize::from(which) % runs.len()] }
    }

    /// Lets something happen.
    pub(super) fn chance(&mut self, choices: &mut Choices<'_>) {
        let which = choices.below(255);
        let run = self.run(which);
        let by = "kim".to_owned();
        self.count += 1;
        let cause = format!("c{}", if which.is_multiple_of(4) { self.count / 2 } else { self.count });
        let input = match choices.below(22) {
            0..=6 => return self.answer(which, choices),
            7..=9 => return self.pass(choices),
            10 => Input::Signal { run, cause, name: "s".to_owned(), payload: json!({ "n": which }) },
            11 => Input::Event { cause, name: "E".to_owned(), properties: json!({}), profile: json!({}), late: which > 128, depth: 0 },
            12 => match self.state.runs.get(&run).and_then(|run| run.steps.values().next().map(|step| step.node.clone())) {
                Some(node) => Input::Approval {
                    run,
                    node,
                    approved: which > 100,
                    by,
                    comment: String::new(),
                    visit: None,
                    provenance: Provenance::default(),
                },
                None => Input::Due,
            },
            13 => Input::Pause { run, by, reason: "chance".to_owned() },
            14 => Input::Resume { run, by },
            15 => Input::Retry { run, by },
            16 => return self.start(&format!("start{}", which % 3)),
            17 if which > 200 => Input::Cancel { run, by, reason: String::new() },
            17 if which > 190 => {
                Input::Event { cause, name: "Goal".to_owned(), properties: json!({}), profile: json!({}), late: false, depth: 0 }
            }
            18 => match self.out.get(usize::from(which) % self.out.len().max(1)) {
                Some(out) => Input::Resolve { effect: out.effect, done: (which > 99).then(|| json!({})), by },
                None => Input::Due,
            },
            19 => self.word(which, cause),
            20 => self.login(which),
            _ => Input::Due,
        };
        let _ = self.input(input);
    }

    /// The person says yes or no, or an address comes and goes.
    fn word(&self, which: u8, cause: String) -> Input {
        let (address, channel, at) = (AddressKey::of("email", "ann@example.org"), "email".to_owned(), self.now);
        match which % 5 {
            0 => Input::Suppress { address, channel, reason: Cause::SoftBounces, at, until: Some(at + 3_600_000), by: String::new() },
            1 => Input::Unsuppress { address, channel, at: at + 1, by: String::new() },
            _ => {
                let purpose = ["marketing", "product"][usize::from(which % 2)].to_owned();
                let stated = vec![Stated { purpose, channel: String::new(), granted: which > 80 }];
                Input::Consent { cause, at, stated }
            }
        }
    }

    fn login(&self, which: u8) -> Input {
        let anonymous = format!("a{}", which % 4);
        if which > 120 { Input::Carry(Box::new(Subject::default().carry(&anonymous))) } else { Input::Expect { anonymous, absorb: false } }
    }

    /// An attempt begins, sends, ends, or is heard of again.
    fn answer(&mut self, which: u8, choices: &mut Choices<'_>) {
        if self.out.is_empty() {
            return;
        }
        let at = usize::from(which) % self.out.len();
        let out = self.out[at];
        let (effect, attempt) = (out.effect, out.attempt);
        let failed =
            || Outcome::Failed { category: Category::Integration, error: "503".to_owned(), permanent: which > 220, retry_after_ms: None };
        let outcome = match choices.below(8) {
            0 | 1 => {
                // The command may be appended before time has come so far.
                let appended = self.now + i64::from(which % 3) * 5_000;
                let _ = self.input(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended });
                return;
            }
            2 if out.is_message => return self.send(out),
            2 | 3 => failed(),
            4 => Outcome::Unknown { error: "connection lost".to_owned() },
            5 if out.look_up => Outcome::NotDone,
            5 if which.is_multiple_of(2) => Outcome::NotBegun { why: "its turn did not come".to_owned() },
            _ => Outcome::Done { result: json!({ "ok": true }) },
        };
        let was_sent = self.sent.iter().any(|sent| sent.effect == effect && (out.look_up || sent.attempt == attempt));
        // Whoever performs messages tells the truth about them.
        let outcome = match outcome {
            Outcome::Done { .. } | Outcome::Unknown { .. } if out.is_message && !was_sent => {
                if out.look_up {
                    Outcome::NotDone
                } else {
                    failed()
                }
            }
            Outcome::Failed { .. } | Outcome::NotDone | Outcome::NotBegun { .. } if out.is_message && was_sent => {
                Outcome::Done { result: json!({}) }
            }
            other => other,
        };
        // Whoever has said that nothing was sent sends nothing any more.
        match outcome {
            Outcome::Failed { .. } | Outcome::NotBegun { .. } => drop(self.permits.remove(&(effect, attempt))),
            Outcome::NotDone => self.permits.retain(|(of, _), _| *of != effect),
            _ => {}
        }
        if which.is_multiple_of(3) {
            self.out.remove(at);
        }
        let _ = self.input(Input::EffectFinished { effect, attempt, outcome });
    }

    /// Sends on a permit that has not run out, by the attempt that is the newest.
    fn send(&mut self, out: Out) {
        let newest = self.out.iter().filter(|other| other.effect == out.effect).map(|other| other.attempt).max();
        let may = self.permits.get(&(out.effect, out.attempt)).is_some_and(|until| self.now < *until);
        if may && newest == Some(out.attempt) && !self.sent.iter().any(|sent| sent.effect == out.effect) {
            let purpose = self.messages[&out.effect].clone();
            self.sent.push(Sent { at: self.now, effect: out.effect, purpose, attempt: out.attempt });
        }
    }

    /// Time passes to the next timer, or some of the way.
    fn pass(&mut self, choices: &mut Choices<'_>) {
        let short = i64::from(choices.below(120)) * 1_000;
        self.now = match self.state.next_wake(Clock::Wall) {
            Some(wake) if short > 30_000 => self.now.max(wake),
            Some(wake) => (self.now + short).min(wake.max(self.now)),
            None => self.now + short,
        };
        let _ = self.input(Input::Due);
        assert!(self.state.next_wake(Clock::Wall).is_none_or(|wake| wake > self.now), "none lost: a timer that is due was heard");
    }

    /// Everything is answered, resumed and waited for until no run is left.
    pub(super) fn finish(&mut self) {
        let expecting: Vec<String> = self.state.expecting.keys().cloned().collect();
        for anonymous in expecting {
            let _ = self.input(Input::Carry(Box::new(Subject::default().carry(&anonymous))));
        }
        for _ in 0..600 {
            if self.state.runs.is_empty() && self.state.held.is_empty() {
                return;
            }
            let before = self.journal.len();
            for (_, effect, attempt) in self.state.to_perform() {
                let _ = self.input(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.now });
                if self.may_finish(effect) {
                    let _ = self.input(Input::EffectFinished { effect, attempt, outcome: Outcome::Done { result: json!({}) } });
                }
            }
            let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
            for run in runs {
                // What waits for its next try may wait: else time would never go on.
                if self.state.runs.get(&run).is_some_and(|run| run.effects().any(|pending| pending.stuck.is_some())) {
                    let _ = self.input(Input::Retry { run, by: "end".to_owned() });
                }
                let _ = self.input(Input::Resume { run, by: "end".to_owned() });
                let approvals = self.state.runs.get(&run).map(|run| run.steps.values().map(|step| step.node.clone()).collect::<Vec<_>>());
                for node in approvals.unwrap_or_default() {
                    let _ = self.input(Input::Approval {
                        run,
                        node,
                        approved: true,
                        by: "end".to_owned(),
                        comment: String::new(),
                        visit: None,
                        provenance: Provenance::default(),
                    });
                }
            }
            // What was just minted is performed before its time is up; a permit may wait for time.
            if self.journal.len() == before {
                self.now = self.state.next_wake(Clock::Wall).map_or(self.now, |wake| wake.max(self.now));
                let _ = self.input(Input::Due);
            }
        }
        let last: Vec<_> = self.journal.iter().rev().take(12).rev().collect();
        panic!("stuck: {:#?}\nafter {last:#?}", self.state.runs.values().map(|run| (&run.steps, &run.paused)).collect::<Vec<_>>());
    }

    /// A message only with its permit, and then it is sent at once.
    fn may_finish(&mut self, effect: EffectId) -> bool {
        let Some((_, _, pending)) = self.state.effect(effect) else { return false };
        let Some(open) = &pending.open else { return false };
        if pending.by != Performer::Channel || open.look_up {
            return true;
        }
        let (permitted, attempt, purpose) = (open.permit.is_some(), open.attempt, pending.purpose.clone());
        if permitted && !self.sent.iter().any(|sent| sent.effect == effect) {
            self.sent.push(Sent { at: self.now, effect, purpose, attempt });
        }
        permitted
    }

    /// The state that the first `facts` of the journal leave, with the rest of the world as it is.
    pub(super) fn cut(&self, facts: usize) -> World {
        let mut state = Subject::default();
        self.journal[..facts].iter().for_each(|fact| evolve(&mut state, fact));
        let now = self.journal[..facts].last().map_or(self.now, |fact| fact.at);
        World::of(self.library.clone(), state, self.journal[..facts].to_vec(), now)
    }
}
