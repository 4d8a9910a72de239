//! The board alone.

use serde_json::{Value as Json, json};

use super::words::{AD, AGENT, Effect, MAIL, ended, paused, resumed};
use crate::domain::Millis;
use crate::engine::effects::board::{Board, Job};
use crate::engine::effects::breaker;
use crate::engine::effects::pending::Stored;
use crate::engine::effects::schedule::{Limits, Settings};
use crate::permit::Executor;
use crate::workflow::{Category, Input, Outcome};

pub(super) const ME: Executor = Executor([7; 16]);

pub(super) struct World {
    pub board: Board,
    pub now: u64,
    /// Ids of what was handed to performers, in order: (effect, attempt).
    pub jobs: Vec<Job>,
    pub commands: Vec<Input>,
}

pub(super) fn world() -> World {
    world_with(Limits { concurrency: 4, per_second: 0 })
}

pub(super) fn world_with(limits: Limits) -> World {
    let mut world = world_before(limits);
    world.board.begin(false, 0);
    world
}

pub(super) fn world_before(limits: Limits) -> World {
    let breaker = breaker::Settings { in_a_row: 3, open_ms: 1_000, ..breaker::Settings::default() };
    let board = Board::new(ME, Settings { in_flight_per_tenant: 100, breaker }, Box::new(move |_, _| limits));
    World { board, now: 0, jobs: Vec::new(), commands: Vec::new() }
}

impl World {
    pub fn fact(&mut self, effect: Effect, what: Json) -> &mut Self {
        let key = || Ok::<_, ()>(effect.key());
        self.board.fact(0, key, Millis(1), &effect.run(), &what.to_string(), self.now).unwrap().unwrap();
        self.go()
    }

    pub fn minted(&mut self, effect: Effect) -> &mut Self {
        self.fact(effect, effect.requested());
        self.fact(effect, effect.minted(1))
    }

    pub fn go(&mut self) -> &mut Self {
        for slot in self.board.take_orphans() {
            self.board.orphan(slot);
        }
        for turn in self.board.turns(1_000_000, self.now) {
            assert!(self.board.go(turn, self.now, Millis(0)));
        }
        self.jobs.extend(self.board.take_ready());
        self.commands.extend(self.board.take_commands().into_iter().map(|command| command.input));
        self
    }

    /// The oldest job ends so.
    pub fn answer(&mut self, outcome: Outcome) -> &mut Self {
        let job = self.jobs.remove(0);
        self.board.finished(job.held, &job.call.request, outcome, self.now);
        self.go()
    }

    pub fn performing(&self) -> Vec<(u128, u32)> {
        self.jobs.iter().map(|job| (job.call.request.effect.0, job.call.attempt)).collect()
    }

    /// What was handed in since this was last asked, in short.
    pub fn said(&mut self) -> Vec<String> {
        let short = |input: Input| match input {
            Input::EffectStarted { effect, attempt, .. } => format!("start {} {attempt}", effect.0),
            Input::EffectFinished { effect, attempt, outcome } => {
                let outcome = match outcome {
                    Outcome::Done { .. } => "done",
                    Outcome::NotDone => "not done",
                    Outcome::NotBegun { .. } => "not begun",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Unknown { .. } => "unknown",
                    Outcome::AddressRefused { .. } => "address refused",
                };
                format!("{outcome} {} {attempt}", effect.0)
            }
            other => format!("{other:?}"),
        };
        self.commands.drain(..).map(short).collect()
    }
}

pub(super) fn done() -> Outcome {
    Outcome::Done { result: json!({ "ok": true }) }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed { category: Category::Integration, error: "no".into(), permanent: false, retry_after_ms: None }
}

#[test]
fn an_attempt_whose_key_the_other_side_honours_is_performed_at_once() {
    let mut world = world();
    world.minted(AGENT);
    assert_eq!((world.performing(), world.said()), (vec![(1, 1)], vec![]));
    assert_eq!(world.jobs[0].call.request.key().to_string(), AGENT.id().to_string(), "one key for every attempt");
    assert_eq!(world.answer(done()).said(), ["done 1 1"]);
    world.fact(AGENT, AGENT.completed(1));
    assert!(world.board.pending.is_empty());
}

#[test]
fn what_is_irrevocable_waits_until_its_start_is_on_record() {
    let mut world = world();
    world.minted(AD);
    assert_eq!((world.performing(), world.said()), (vec![], vec!["start 3 1".to_owned()]));
    world.fact(AD, AD.started(1, &ME.to_string()));
    assert_eq!(world.performing(), [(3, 1)]);
    world.fact(AD, AD.started(1, &ME.to_string()));
    assert_eq!(world.performing(), [(3, 1)], "once");
}

#[test]
fn a_message_goes_with_its_permit_and_not_with_its_start_alone() {
    let mut world = world();
    world.minted(MAIL).fact(MAIL, MAIL.started(1, &ME.to_string()));
    assert!(world.performing().is_empty());
    world.fact(MAIL, MAIL.granted(1, &ME.to_string()));
    let leave = world.jobs[0].leave.as_ref().unwrap();
    assert_eq!((leave.to.as_str(), leave.permit.key().to_string()), ("ada@example.com", MAIL.id().to_string()));
}

#[test]
fn a_permit_of_another_instance_or_one_that_ran_out_is_not_used() {
    let mut world = world();
    world.minted(MAIL).fact(MAIL, MAIL.started(1, &ME.to_string())).said();
    world.fact(MAIL, MAIL.granted(1, &Executor([8; 16]).to_string()));
    assert!(world.performing().is_empty());
    // It was asked for at 0 and is good for a minute from when it was granted, which was later.
    world.now = 60_000;
    world.fact(MAIL, MAIL.granted(1, &ME.to_string()));
    assert_eq!((world.performing(), world.said()), (vec![], vec!["not begun 2 1".to_owned()]));
}

#[test]
fn what_is_on_record_as_started_has_its_time_from_then_and_is_not_begun_after_it() {
    let mut world = world();
    world.minted(AD).now = 20_000;
    world.fact(AD, AD.started(1, &ME.to_string()));
    assert_eq!(world.jobs[0].call.deadline.as_millis(), 40_000, "of a minute");
    world.answer(done()).said();
    world.minted(AD.of(4)).now = 80_000;
    world.fact(AD.of(4), AD.of(4).started(1, &ME.to_string()));
    assert_eq!((world.performing(), world.said()), (vec![], vec!["start 4 1".to_owned(), "not begun 4 1".into()]));
}

#[test]
fn a_refused_permit_ends_the_attempt_and_for_good_the_effect() {
    let mut world = world();
    world.minted(MAIL).fact(MAIL, MAIL.started(1, &ME.to_string())).fact(MAIL, MAIL.refused(1, Some(9))).said();
    world.fact(MAIL, MAIL.granted(1, &ME.to_string()));
    assert!(world.performing().is_empty());
    world.fact(MAIL, MAIL.minted(2));
    assert_eq!(world.said(), ["start 2 2"]);
    world.fact(MAIL, MAIL.started(2, &ME.to_string())).fact(MAIL, MAIL.refused(2, None));
    assert!(world.board.pending.is_empty());
}

#[test]
fn a_look_up_needs_no_leave() {
    let mut world = world();
    world.fact(MAIL, MAIL.requested()).fact(MAIL, MAIL.looks_up(2));
    assert!(world.jobs[0].call.look_up && world.jobs[0].leave.is_none());
    assert_eq!(world.answer(Outcome::NotDone).said(), ["not done 2 2"]);
}

#[test]
fn what_an_earlier_instance_had_begun_is_not_begun_again() {
    let gone = Executor([8; 16]).to_string();
    let mut world = world_before(Limits::default());
    for effect in [AD, MAIL, MAIL.of(5)] {
        world.minted(effect).fact(effect, effect.started(1, &gone));
    }
    world.fact(MAIL, MAIL.granted(1, &gone)).minted(AGENT);
    assert!(world.jobs.is_empty() && world.commands.is_empty(), "not before all is known");
    world.board.begin(false, 0);
    world.go();
    let mut said = world.said();
    said.sort();
    assert_eq!(said, ["not begun 5 1", "unknown 2 1", "unknown 3 1"], "without leave nothing was sent; the rest nobody knows");
    assert_eq!(world.performing(), [(1, 1)], "what honours its key is done again");
}

#[test]
fn in_a_copied_folder_whatever_is_open_may_have_been_done() {
    let mut world = world_before(Limits::default());
    world.minted(AGENT).minted(AD).minted(MAIL);
    world.board.begin(true, 0);
    let mut said = world.go().said();
    said.sort();
    assert_eq!((said, world.jobs.len()), (vec!["unknown 1 1".to_owned(), "unknown 2 1".into(), "unknown 3 1".into()], 0));
}

#[test]
fn a_late_result_is_still_told() {
    let mut world = world();
    world.minted(AGENT).fact(AGENT, AGENT.failed(1)).fact(AGENT, AGENT.minted(2));
    assert_eq!(world.performing(), [(1, 1), (1, 2)], "the second attempt does not wait for the first");
    assert_eq!(world.answer(done()).said(), ["done 1 1"]);
    world.fact(AGENT, AGENT.completed(1));
    assert_eq!(world.answer(done()).said(), ["done 1 2"], "and settles with the subject");
    world.minted(AGENT.of(9)).fact(AGENT.of(9), ended());
    assert_eq!(world.answer(done()).said(), ["done 9 1"]);
}

#[test]
fn what_is_taken_back_while_it_waits_is_not_performed_and_holds_no_place() {
    let mut world = world_with(Limits { concurrency: 1, per_second: 0 });
    for number in 1..=4 {
        world.minted(AGENT.of(number));
    }
    world.fact(AGENT.of(2), AGENT.of(2).cancelled()).fact(AGENT.of(3), ended());
    assert_eq!(world.performing(), [(1, 1)]);
    world.answer(done());
    assert_eq!(world.performing(), [(4, 1)]);
    world.answer(done());
    // Asked for and cancelled before the answer: its place is free again.
    let ads: Vec<Effect> = (10..14).map(|number| AD.of(number)).collect();
    for ad in &ads {
        world.minted(*ad);
    }
    for ad in &ads {
        world.fact(*ad, ad.cancelled());
    }
    world.said();
    world.minted(AGENT.of(20));
    assert_eq!(world.performing(), [(20, 1)]);
}

#[test]
fn a_paused_run_performs_nothing_new_and_goes_on_where_it_was() {
    let mut world = world_with(Limits { concurrency: 1, per_second: 0 });
    world.minted(AGENT.of(1)).minted(AGENT.of(2)).fact(AGENT.of(2), paused());
    world.answer(done());
    assert!(world.performing().is_empty());
    world.fact(AGENT.of(2), resumed());
    assert_eq!(world.performing(), [(2, 1)]);
    world.answer(done()).said();
    // The fold refuses a start that comes while the run is paused: it is asked for again.
    world.minted(AD).fact(AD, paused()).fact(AD, resumed());
    assert_eq!(world.said(), ["start 3 1", "start 3 1"]);
    world.fact(AD, AD.started(1, &ME.to_string()));
    assert_eq!(world.performing(), [(3, 1)]);
}

#[test]
fn more_permits_than_can_be_sent_at_once_wait_their_turn() {
    let mut world = world_with(Limits { concurrency: 2, per_second: 0 });
    let mails: Vec<Effect> = (1..=5).map(|number| MAIL.of(number)).collect();
    for mail in &mails {
        world.minted(*mail).fact(*mail, mail.started(1, &ME.to_string())).fact(*mail, mail.granted(1, &ME.to_string()));
    }
    assert_eq!(world.performing(), [(1, 1), (2, 1)]);
    world.answer(done());
    assert_eq!(world.performing(), [(2, 1), (3, 1)]);
}

#[test]
fn a_destination_that_fails_is_left_alone_and_what_waits_for_it_is_no_attempt() {
    let mut world = world();
    for number in 1..=3 {
        world.minted(AGENT.of(number));
    }
    for _ in 0..3 {
        world.answer(failed());
    }
    assert_eq!(world.said().len(), 3);
    world.minted(AGENT.of(4)).minted(AGENT.of(5));
    assert!(world.performing().is_empty() && world.said().is_empty());
    assert_eq!(world.board.take_switched(), [("agent echo".to_owned(), true)]);
    world.now = 1_000;
    assert_eq!(world.go().performing(), [(4, 1)], "one tries");
    world.answer(done());
    assert_eq!(world.performing(), [(5, 1)]);
}

#[test]
fn a_result_larger_than_a_record_says_so() {
    let mut world = world();
    world.minted(AGENT).answer(Outcome::Done { result: json!("x".repeat(600_000)) });
    let Input::EffectFinished { outcome: Outcome::Done { result }, .. } = &world.commands[0] else { panic!("done") };
    assert_eq!(result["error"], "the result is 600002 bytes long, at most 524288 are taken");
}

#[test]
fn a_great_many_pending_of_one_tenant_do_not_starve_ten_of_another_and_fit_in_memory() {
    const MANY: u128 = 100_000;
    let mut world = world_before(Limits { concurrency: 1, per_second: 0 });
    let (key, minted) = (AGENT.key(), 400);
    for number in 0..MANY {
        let effect = AGENT.of(100 + number);
        for what in [effect.requested(), effect.minted(1)] {
            let body = what.to_string();
            world.board.fact(0, || Ok::<_, ()>(key.clone()), Millis(1), &effect.run(), &body, 0).unwrap().unwrap();
        }
        // As a flush does: their requests are on disk.
        let slot = number as u32;
        world.board.pending.get_mut(slot).unwrap().stored = Stored { status: true, request: true };
        if number >= minted {
            world.board.pending.unload(slot);
        }
    }
    assert!(world.board.pending.request_bytes() < 1 << 20);
    world.board.begin(false, 0);
    world.go();
    for number in 0..10 {
        world.minted(AGENT.of(50_000_000 + number).tenant("beta"));
    }
    let mut beta = 0;
    for _ in 0..20 {
        beta += u32::from(world.jobs[0].call.request.subject.tenant_str() == "beta");
        world.answer(done());
    }
    assert!(beta >= 9, "{beta} of ten after twenty results");
    assert_eq!(world.board.pending.len() as u128, MANY + 10);
}
