//! The executor without its threads: facts and results in, attempts to perform and commands out, with time passed in.
//!
//! An attempt takes its [turn](super::schedule), is started on record where it has to be, waits there for its go-ahead, is performed, and
//! its result is handed in. What the journal takes back meanwhile gives its place up; what is with a performer is reported however late.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use super::breaker::Told as Health;
use super::call::{Call, Leave, Needs, Request};
use super::lane::{Granted, Lane, begin_by, valid_ms};
use super::notices::{self, Notice};
use super::outcome::{bounded, health, not_begun};
use super::pending::{Change, Pending, Slot, Standing};
use super::schedule::{self, LaneIx, Limits, Schedule, Ticket, Turn};
use super::told::{self, Told};
use crate::domain::{Millis, SubjectKey};
use crate::permit::{Executor, Grant};
use crate::workflow::{CodecError, Input, Outcome, Performer, RunId};

/// How long an attempt that was asked for keeps its place without an answer. Time is told every ten seconds where somebody waits for it.
const ASKED_MS_MAX: u64 = 45_000;

/// The limits of a destination.
pub type LimitsOf = Box<dyn Fn(Performer, &str) -> Limits + Send>;

/// A command for the subject's fold.
#[derive(Debug)]
pub struct Command {
    pub partition: u32,
    pub subject: SubjectKey,
    pub input: Input,
}

/// An attempt for its performer; it comes back to [`Board::finished`].
#[derive(Debug)]
pub struct Job {
    pub call: Call,
    pub leave: Option<Leave>,
    pub held: Held,
}

/// What a job occupies.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    ticket: Ticket,
    lane: LaneIx,
    partition: u32,
    turn: Option<Turn>,
    begun: u64,
    is_message: bool,
}

pub struct Board {
    me: Executor,
    pub pending: Pending,
    schedule: Schedule,
    limits: LimitsOf,
    lanes: Vec<Lane>,
    turns: HashMap<Slot, (Ticket, Turn), FxBuildHasher>,
    /// Those that were asked for, in order, and when: answers may wait for others that have no place yet.
    asked: VecDeque<(u64, Ticket)>,
    /// Until it begins, facts are only taken in: some of what they ask for was done before the last stop.
    has_begun: bool,
    commands: Vec<Command>,
    ready: VecDeque<Job>,
    changes: Vec<Change>,
    orphans: Vec<Slot>,
    /// What was given up before it begins is not old news.
    tells: bool,
    /// Lanes whose breaker opened or closed since someone asked.
    switched: Vec<LaneIx>,
}

impl Board {
    pub fn new(me: Executor, settings: schedule::Settings, limits: LimitsOf) -> Self {
        Self {
            me,
            pending: Pending::new(me),
            schedule: Schedule::new(settings),
            limits,
            lanes: Vec::new(),
            turns: HashMap::default(),
            asked: VecDeque::new(),
            has_begun: false,
            commands: Vec::new(),
            ready: VecDeque::new(),
            changes: Vec::new(),
            orphans: Vec::new(),
            tells: false,
            switched: Vec::new(),
        }
    }

    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Takes in a fact about a run. Its subject's key is made only for facts that concern performing.
    pub fn fact<E>(
        &mut self,
        partition: u32,
        key: impl FnOnce() -> Result<SubjectKey, E>,
        at: Millis,
        run: &str,
        body: &str,
        now: u64,
    ) -> Result<Result<(), CodecError>, E> {
        let told = match told::read(body) {
            Ok(Some(told)) => told,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let Some(run) = RunId::parse(run) else { return Ok(Ok(())) };
        self.told(partition, &key()?, at, run, told, now);
        Ok(Ok(()))
    }

    fn told(&mut self, partition: u32, key: &SubjectKey, at: Millis, run: RunId, told: Told<'_>, now: u64) {
        if let Told::Notified { effect, node, category, severity, text } = told {
            if self.has_begun || self.tells {
                let (subject, node, text) = (notices::subject(key), node.into_owned(), text.into_owned());
                self.pending.notices.add(partition, Notice { subject, run, effect, node, category, severity, text, at, count: 1 });
            }
            return;
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.pending.apply(key, partition, at, run, told, &mut changes);
        if self.has_begun {
            changes.drain(..).for_each(|change| self.changed(change, now));
        }
        changes.clear();
        self.changes = changes;
    }

    /// An earlier instance stored what it had told, so whatever comes after that is news. Otherwise the whole journal is read for the first
    /// time, and what is in it was told by others, or long ago.
    pub fn tells_what_was_missed(&mut self) {
        self.tells = true;
    }

    /// From now on it performs: everything is known that was decided before this instance came. `all_may_be_done`: the folder is a copy,
    /// and what it does not know to be done may have been done where it was copied from.
    pub fn begin(&mut self, all_may_be_done: bool, now: u64) {
        self.has_begun = true;
        let open = self.pending.slots().filter_map(|(slot, entry)| Some((slot, entry.open?)));
        for (slot, open) in open.collect::<Vec<_>>() {
            match open.standing {
                Standing::Orphaned { .. } => self.orphans.push(slot),
                _ if all_may_be_done && !open.look_up => {
                    self.pending.orphan(slot);
                    self.orphans.push(slot);
                }
                _ => self.changed(Change::Opened(slot), now),
            }
        }
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn changed(&mut self, change: Change, now: u64) {
        match change {
            Change::Opened(slot) => self.queue(slot, now),
            Change::Withdrawn { slot, open } => {
                if open.standing != Standing::Performed
                    && let Some((ticket, turn)) = self.turns.remove(&slot)
                {
                    debug_assert_eq!(ticket.attempt, open.attempt);
                    self.release(turn, Health::Nothing, now);
                }
            }
            Change::Started(slot) => {
                if self.pending.get(slot).and_then(|entry| entry.needs()) == Some(Needs::Start) {
                    self.perform(slot, None, now);
                }
            }
            Change::Granted { slot, grant, to } => self.granted(slot, grant, to, now),
            Change::Unused { effect, attempt, partition, request } => {
                let Some(request) = request else { return };
                let input = Input::EffectFinished { effect, attempt, outcome: not_begun("it was taken back before its turn came") };
                self.commands.push(Command { partition, subject: request.subject.clone(), input });
            }
            Change::Orphaned(slot) => {
                // Whoever this instance is, it had asked too, and was too late.
                if let Some((_, turn)) = self.turns.remove(&slot) {
                    self.release(turn, Health::Nothing, now);
                }
                self.orphans.push(slot);
            }
        }
    }

    /// Attempts that an earlier instance had started; hand each to [`orphan`](Board::orphan) once its request is in memory.
    pub fn take_orphans(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.orphans)
    }

    /// Says of such an attempt what can be said.
    pub fn orphan(&mut self, slot: Slot) {
        let Some(entry) = self.pending.get(slot) else { return };
        let is_message = entry.needs() == Some(Needs::Permit);
        match entry.open.map(|open| open.standing) {
            // Without its permit nothing was sent, and the one who could have is gone.
            Some(Standing::Orphaned { permitted: false }) if is_message => {
                self.report(slot, not_begun("the executor stopped before it had leave to send"));
            }
            Some(Standing::Orphaned { .. }) => {
                let error = "the executor stopped after it had begun".to_owned();
                self.report(slot, Outcome::Unknown { error });
            }
            _ => {}
        }
    }

    fn lane(&mut self, lane: LaneIx, now: u64) {
        while self.lanes.len() <= lane as usize {
            let (by, target) = self.pending.lanes.name(self.lanes.len() as u32);
            let limits = (self.limits)(*by, target);
            let lane = Lane::new(limits.concurrency, *by == Performer::Channel);
            self.schedule.add_lane(Limits { concurrency: lane.places(), ..limits }, now);
            self.lanes.push(lane);
        }
    }

    fn queue(&mut self, slot: Slot, now: u64) {
        let Some(entry) = self.pending.get(slot) else { return };
        let Some(open) = entry.open.filter(|open| open.standing == Standing::Waiting && !entry.paused) else { return };
        let ticket = Ticket { slot, generation: entry.generation, attempt: open.attempt };
        let (lane, tenant, priority) = (entry.lane, entry.tenant, entry.priority);
        self.lane(lane, now);
        self.schedule.push(lane, tenant, priority, ticket);
    }

    /// The next attempts whose turn it is, up to `most`; hand each to [`go`](Board::go) once its request is in memory.
    pub fn turns(&mut self, most: usize, now: u64) -> Vec<Turn> {
        self.give_back_late(now);
        let mut turns = Vec::new();
        while self.has_begun && turns.len() < most {
            let (pending, taken) = (&self.pending, &self.turns);
            let is_current = |ticket: Ticket| !taken.contains_key(&ticket.slot) && is_current(pending, ticket);
            let Some(turn) = self.schedule.next(now, is_current) else { break };
            self.turns.insert(turn.ticket.slot, (turn.ticket, turn));
            turns.push(turn);
        }
        turns
    }

    /// An attempt whose turn it is: performed at once, or started on record first. False if its request is not in memory.
    pub fn go(&mut self, turn: Turn, now: u64, appended: Millis) -> bool {
        let slot = turn.ticket.slot;
        if !self.turns.get(&slot).is_some_and(|(ticket, _)| *ticket == turn.ticket) {
            return true;
        }
        let me = self.me.to_string();
        let Some(entry) = self.pending.get_mut(slot) else { return true };
        let Some(request) = entry.request.clone() else { return false };
        let (needs, partition) = (entry.needs(), entry.partition);
        let Some(open) = entry.open.as_mut() else { return true };
        if needs == Some(Needs::Nothing) {
            self.perform(slot, None, now);
            return true;
        }
        open.standing = Standing::Asked;
        open.asked_at.get_or_insert(now);
        self.asked.push_back((now, turn.ticket));
        let input = started(&request, open.attempt, me, appended);
        self.commands.push(Command { partition, subject: request.subject.clone(), input });
        true
    }

    /// Gives up a turn whose request could not be read.
    pub fn unreadable(&mut self, turn: Turn, error: &str, now: u64) {
        if let Some((_, turn)) = self.turns.remove(&turn.ticket.slot) {
            self.release(turn, Health::Nothing, now);
            tracing::error!(error, "an effect's request could not be read; it is performed after a restart");
        }
    }

    fn granted(&mut self, slot: Slot, grant: Box<Grant>, to: String, now: u64) {
        let Some(entry) = self.pending.get(slot) else { return };
        let Some(open) = entry.open.filter(|open| open.standing == Standing::Granted) else { return };
        let (lane, generation) = (entry.lane, entry.generation);
        self.lane(lane, now);
        // Counted from asking, which came before granting. A start nobody remembers asking for has no permit to use.
        let begin_by = open.asked_at.map_or(0, |asked| begin_by(asked, valid_ms(&grant)));
        self.lanes[lane as usize].push(Granted { slot, generation, attempt: open.attempt, grant, to, begin_by });
        if self.schedule.is_broken(lane) && !self.turns.get(&slot).is_some_and(|(_, turn)| turn.tries) {
            self.give_back(lane, now);
        }
        self.give_back_late(now);
        self.send_granted(lane, now);
    }

    /// What is granted, has not been taken back, and has not been begun.
    fn is_granted(&self, granted: &Granted) -> bool {
        let entry = self.pending.get(granted.slot).filter(|entry| entry.generation == granted.generation);
        entry.and_then(|entry| entry.open).is_some_and(|open| open.attempt == granted.attempt && open.standing == Standing::Granted)
    }

    fn send_granted(&mut self, lane: LaneIx, now: u64) {
        while let Some(granted) = self.lanes.get_mut(lane as usize).and_then(Lane::next) {
            if !self.is_granted(&granted) {
                continue;
            }
            let Granted { slot, grant, to, .. } = granted;
            let asked = self.pending.get(slot).and_then(|entry| entry.open?.asked_at);
            let elapsed = asked.map_or(Duration::MAX, |asked| Duration::from_millis(now.saturating_sub(asked)));
            match grant.redeem(self.me, elapsed) {
                Ok(permit) => self.perform(slot, Some(Leave { permit, to }), now),
                Err(unusable) => self.not_begun(slot, &unusable.to_string(), now),
            }
        }
    }

    /// Gives permits back whose messages' turn will not come in time, before they run out; and places of those that got no answer in that
    /// time, which in event time may have to wait for another of their subject.
    fn give_back_late(&mut self, now: u64) {
        while let Some((asked, Ticket { slot, generation, attempt })) = self.asked.front().copied() {
            let entry = self.pending.get(slot).filter(|entry| entry.generation == generation);
            let waits = entry
                .and_then(|entry| entry.open)
                .is_some_and(|open| open.attempt == attempt && matches!(open.standing, Standing::Asked | Standing::Started));
            if waits && now < asked.saturating_add(ASKED_MS_MAX) {
                break;
            }
            self.asked.pop_front();
            if waits {
                self.not_begun(slot, "there was no answer to its start for a while", now);
            }
        }
        for lane in 0..self.lanes.len() {
            for granted in self.lanes[lane].take_late(now) {
                if self.is_granted(&granted) {
                    self.not_begun(granted.slot, "its permit was about to run out before its turn came", now);
                }
            }
        }
    }

    /// Nothing goes to a destination that fails: what could go waits for another turn.
    fn give_back(&mut self, lane: LaneIx, now: u64) {
        let tries = |board: &Self, slot: Slot| board.turns.get(&slot).is_some_and(|(_, turn)| turn.tries);
        for granted in self.lanes[lane as usize].take_all() {
            match self.is_granted(&granted) {
                true if tries(self, granted.slot) => self.lanes[lane as usize].push(granted),
                true => self.not_begun(granted.slot, "its destination fails, and nothing is sent there for a while", now),
                false => {}
            }
        }
    }

    /// Nothing is begun any more: what was only asked for is given back, so that nobody has to wonder what became of it.
    pub fn give_all_back(&mut self, now: u64) {
        let is_idle = |standing| matches!(standing, Standing::Asked | Standing::Started | Standing::Granted);
        let idle = self.pending.slots().filter(|(_, entry)| entry.open.is_some_and(|open| is_idle(open.standing)));
        for slot in idle.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.not_begun(slot, "the executor stopped before its turn came", now);
        }
    }

    fn not_begun(&mut self, slot: Slot, why: &str, now: u64) {
        self.report(slot, not_begun(why));
        if let Some((_, turn)) = self.turns.remove(&slot) {
            // Not through `release`, which would send what is next.
            let _ = self.schedule.release(turn, Health::Nothing, now);
        }
    }

    fn perform(&mut self, slot: Slot, leave: Option<Leave>, now: u64) {
        let Some(entry) = self.pending.get_mut(slot) else { return };
        let (Some(request), Some(open)) = (entry.request.clone(), entry.open.as_mut()) else { return };
        if open.standing == Standing::Performed {
            return;
        }
        let timeout = Duration::from_millis(request.timeout_ms.max(1).unsigned_abs());
        // What was started on record, and needs no permit, is given up by its subject's fold in that time from then: whoever took longer
        // could do so beside the next attempt, and whoever has little of it left is not begun at all.
        let waited = open.asked_at.filter(|_| leave.is_none()).map(|asked| Duration::from_millis(now.saturating_sub(asked)));
        let deadline = timeout.saturating_sub(waited.unwrap_or_default());
        if deadline < timeout / 2 {
            return self.not_begun(slot, "its time was nearly over before its turn came", now);
        }
        open.standing = Standing::Performed;
        let call = Call { attempt: open.attempt, look_up: open.look_up, deadline, request };
        let ticket = Ticket { slot, generation: entry.generation, attempt: open.attempt };
        let (lane, partition) = (entry.lane, entry.partition);
        let turn = self.turns.remove(&slot).map(|(_, turn)| turn);
        self.lane(lane, now);
        self.lanes[lane as usize].performing += 1;
        let held = Held { ticket, lane, partition, turn, begun: now, is_message: leave.is_some() };
        self.ready.push_back(Job { call, leave, held });
    }

    /// What is to be handed to performers now.
    pub fn take_ready(&mut self) -> VecDeque<Job> {
        std::mem::take(&mut self.ready)
    }

    /// What became of a job: handed in, whether or not anybody still waits for it.
    pub fn finished(&mut self, held: Held, request: &Request, outcome: Outcome, now: u64) {
        let outcome = bounded(outcome);
        let health = health(&outcome);
        let (effect, attempt) = (request.effect, held.ticket.attempt);
        let input = Input::EffectFinished { effect, attempt, outcome };
        self.commands.push(Command { partition: held.partition, subject: request.subject.clone(), input });
        if let Some(lane) = self.lanes.get_mut(held.lane as usize) {
            lane.performing = lane.performing.saturating_sub(1);
            if held.is_message {
                lane.took(now.saturating_sub(held.begun));
                self.schedule.set_concurrency(held.lane, lane.places());
            }
        }
        match held.turn {
            Some(turn) => self.release(turn, health, now),
            None => self.send_granted(held.lane, now),
        }
    }

    fn release(&mut self, turn: Turn, health: Health, now: u64) {
        if self.schedule.release(turn, health, now) {
            self.switched.push(turn.lane);
            if self.schedule.is_broken(turn.lane) {
                self.give_back(turn.lane, now);
            }
        }
        self.send_granted(turn.lane, now);
    }

    /// Destinations that were cut off or taken up again since this was last asked, and whether they are cut off.
    pub fn take_switched(&mut self) -> Vec<(String, bool)> {
        let lanes = std::mem::take(&mut self.switched);
        let say = |lane: LaneIx| {
            let (by, target) = self.pending.lanes.name(lane);
            (format!("{} {target}", by.as_str()), self.schedule.is_broken(lane))
        };
        lanes.into_iter().map(say).collect()
    }

    /// Hands in what is known of an attempt that nobody performs.
    fn report(&mut self, slot: Slot, outcome: Outcome) {
        let Some(entry) = self.pending.get_mut(slot) else { return };
        let (Some(open), Some(request)) = (entry.open.as_mut(), &entry.request) else { return };
        open.standing = Standing::Performed;
        let input = Input::EffectFinished { effect: entry.effect, attempt: open.attempt, outcome };
        self.commands.push(Command { partition: entry.partition, subject: request.subject.clone(), input });
    }

    /// When time alone next lets something go.
    pub fn next_due(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter_map(Lane::next_late);
        let asked = self.asked.front().map(|(asked, _)| asked.saturating_add(ASKED_MS_MAX));
        self.schedule.next_due().into_iter().chain(asked).chain(lanes).chain(self.pending.notices.next_due()).min()
    }

    pub fn waiting(&self) -> usize {
        self.schedule.waiting()
    }

    /// Attempts with their performers, by destination.
    pub fn performing(&self) -> BTreeMap<String, u32> {
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| lane.performing > 0);
        lanes.map(|(at, lane)| (self.pending.lanes.name(at as u32).1.to_string(), lane.performing)).collect()
    }
}

fn is_current(pending: &Pending, ticket: Ticket) -> bool {
    pending.get(ticket.slot).is_some_and(|entry| {
        let is_open = |open: super::pending::Open| open.attempt == ticket.attempt && open.standing == Standing::Waiting;
        entry.generation == ticket.generation && !entry.paused && entry.open.is_some_and(is_open)
    })
}

fn started(request: &Arc<Request>, attempt: u32, executor: String, appended: Millis) -> Input {
    Input::EffectStarted { effect: request.effect, attempt, executor, appended }
}
