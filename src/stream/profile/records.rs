//! What each record about a person does: events, and the steps by which an anonymous profile becomes part of a user's.
//!
//! Handing over: the anonymous key gets `Handover` and sends all it has as `Absorb`, then forwards what still comes. The user's key gets
//! `Expect` before any event routed there, keeps events back until the absorb came, merges it and applies them in their order. So the
//! user's history is the same whichever partition is faster.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::interest::Reach;
use super::past::Past;
use super::person::{Heir, Person, Waiting, decode_history, encode_history};
use super::segments::Cause;
use super::{Applied, CONTROL, ProfileFold};
use crate::consent::{Consent, Said, stated};
use crate::domain::{DAY_MS, DeadReason, KeyParts, Millis, Outcome, Subject, SubjectKey};
use crate::features::{Groups, Profile, RawEvent, extract};
use crate::schema;
use crate::schema::records::{Absorb, CorrectionsRecord, EventBody, EventsRecord, Expect, Handover, SessionsJoined};
use crate::stream::cache::Slot;
use crate::stream::definitions::NamespaceClock;
use crate::stream::fold::Fault;
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};
use crate::workflow::{CAMPAIGN, EMITTED, Input};

/// The kind of event that brings traits.
const IDENTIFY: &str = "identify";

impl ProfileFold {
    /// `value` is the record's own bytes, in case they have to be kept back.
    pub(super) fn record(&mut self, slot: Slot, record: EventsRecord<'_>, value: &[u8], out: &mut Outputs) -> Result<Applied, Error> {
        match record {
            // A campaign is nobody: what its runs emit is told to whoever waits for it, and makes no profile that counts as a person's.
            EventsRecord::Event(event) if is_of_campaign(&event) => {
                self.tell_event(slot, &event, Millis(event.event_time), false, out)?;
                Ok(Applied::Done(Outcome::Applied))
            }
            EventsRecord::Event(event) => {
                if !self.cache.get(slot).heirs.is_empty() {
                    self.forward(slot, &event, out)?;
                } else if !self.hold(slot, value, out)? {
                    self.event(slot, &event, out)?;
                }
                Ok(Applied::Done(Outcome::Applied))
            }
            EventsRecord::Handover(handover) => {
                self.hand_over(slot, &handover, out)?;
                Ok(CONTROL)
            }
            EventsRecord::Expect(expect) => {
                self.expect(slot, &expect, out)?;
                Ok(CONTROL)
            }
            EventsRecord::Absorb(absorb) => self.absorb(slot, &absorb, out),
            EventsRecord::Ask(ask) => {
                self.answer(slot, &ask, out)?;
                Ok(CONTROL)
            }
            EventsRecord::Tick(_) | EventsRecord::Activated(_) | EventsRecord::Broadcast(_) => Ok(CONTROL),
        }
    }

    fn event(&mut self, slot: Slot, event: &EventBody<'_>, out: &mut Outputs) -> Result<(), Error> {
        let time = Millis(event.event_time);
        if self.clock == NamespaceClock::Event {
            self.wake_up_to(slot, time, out)?;
        }
        let reach = if event.kind == IDENTIFY { self.reach(slot) } else { Reach::default() };
        let rules = &self.deployed.topology.rules;
        let person = self.cache.get_mut(slot);
        let seen = extract(&raw(event), rules);
        // Browsers say it with every event: compared only then, told only when it is another.
        let zone = seen.time_zone.is_some().then(|| person.profile.time_zone().map(Box::<str>::from));
        let touched = person.profile.observe(&seen, rules);
        let says_consent = person.consent.observe(said(event), time);
        // On live traffic, news of yesterday must not start anything today; what it makes true of the person is true as of today.
        let is_late = self.clock == NamespaceClock::Wall && event.received_at.saturating_sub(event.event_time) > DAY_MS;
        if is_late && self.memo.time() > Millis::MIN {
            person.profile.wake(self.memo.time());
        }
        let now = person.profile.now().unwrap_or(time);
        if says_consent {
            self.tell_consent(slot, event.message_id, time, now, stated(said(event)).into_vec(), out)?;
        }
        if event.kind == IDENTIFY {
            self.tell_reach(slot, &reach, now, out)?;
        }
        if let Some(before) = zone {
            self.tell_zone(slot, before.as_deref(), now, out)?;
        }
        self.tell_event(slot, event, now, is_late, out)?;
        self.remember(slot, event);
        let groups = if is_late { Groups::ALL } else { touched.groups };
        self.decide(slot, now, groups, Cause { message_id: event.message_id, is_late, depth: event.depth }, out)?;
        if let Some(joined) = touched.joined.filter(|_| self.deployed.says_corrections) {
            let joined = SessionsJoined {
                first_start: joined.first_start.0,
                second_start: joined.second_start.0,
                at: event.event_time,
                cause: event.message_id,
            };
            out.push_to(Topic::Corrections, self.partition, self.cache.key(slot), now, &CorrectionsRecord::SessionsJoined(joined))?;
        }
        self.changed(slot);
        Ok(())
    }

    /// Of an anonymous person: what the runs of the user they may become will want to hear.
    fn remember(&mut self, slot: Slot, event: &EventBody<'_>) {
        if self.interest(slot).of_run(event.name) && is_anonymous(self.cache.key(slot)) {
            self.cache.get_mut(slot).past.get_or_insert_default().add(event);
        }
    }

    /// The person is another than before: to be stored, to be written, and to be asked again when to wake them.
    pub(super) fn changed(&mut self, slot: Slot) {
        self.cache.get_mut(slot).is_wake_stale = true;
        self.mark_touched(slot);
    }

    /// Keeps the record back if the person waits for an absorb; false if it is to be applied now.
    fn hold(&mut self, slot: Slot, value: &[u8], out: &mut Outputs) -> Result<bool, Error> {
        let Some(waiting) = &mut self.cache.get_mut(slot).waiting else { return Ok(false) };
        if waiting.is_full() {
            self.go_on_without(slot, out)?;
            return Ok(false);
        }
        waiting.held.push(value.into());
        self.mark_dirty(slot);
        Ok(true)
    }

    /// Applies what was kept back, in order, and then whatever fell due meanwhile.
    fn release(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let Some(waiting) = self.cache.get_mut(slot).waiting.take() else { return Ok(()) };
        for value in &waiting.held {
            if let EventsRecord::Event(event) = schema::decode(value)? {
                self.event(slot, &event, out)?;
            }
        }
        self.cache.get_mut(slot).is_wake_stale = true;
        self.mark_dirty(slot);
        self.run_missed(slot, out)
    }

    /// Runs what fell due while the person waited.
    fn run_missed(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let time = self.memo.time();
        match self.clock {
            NamespaceClock::Event => self.wake_up_to(slot, time, out)?,
            NamespaceClock::Wall => {
                if self.wake_by(slot, time).is_some() {
                    self.wake(slot, time, out)?;
                }
            }
        }
        Ok(())
    }

    /// Waits no longer for an absorb; it is merged if it comes. An event that fails here is left out and said, since the record at hand is
    /// another one: as a dead letter that one would fail again, and nobody would ever go on.
    pub(super) fn go_on_without(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let Some(waiting) = self.cache.get_mut(slot).waiting.take() else { return Ok(()) };
        let partition = self.partition.0;
        tracing::warn!(
            partition,
            held = waiting.held.len(),
            "a person no longer waits for what an anonymous profile had; it is merged if it comes"
        );
        for value in &waiting.held {
            let (before, place) = (self.cache.get(slot).clone(), out.checkpoint());
            let event = || match schema::decode(value)? {
                EventsRecord::Event(event) => self.event(slot, &event, out),
                _ => Ok(()),
            };
            match catch_unwind(AssertUnwindSafe(event)) {
                Ok(Err(error)) if !matches!(error, Error::Record(_) | Error::Schema(_)) => return Err(error),
                Ok(Ok(())) => continue,
                _ => {}
            }
            out.rewind(&place);
            let person = self.cache.get_mut(slot);
            let (is_dirty, is_touched) = (person.is_dirty, person.is_touched);
            *person = Person { is_dirty, is_touched, ..before };
            tracing::error!(partition, "an event that was kept back cannot be applied and is left out of its person's profile");
            crate::stream::metrics::panicked(&self.topics.namespace, "held");
        }
        self.cache.get_mut(slot).is_wake_stale = true;
        self.mark_dirty(slot);
        self.contained(slot, out, |fold, out| fold.run_missed(slot, out))
    }

    /// The record is a dead letter now: whoever would wait for what it was to bring about waits no longer.
    pub(super) fn go_on_after(&mut self, slot: Slot, record: &EventsRecord<'_>, out: &mut Outputs) -> Result<(), Error> {
        match record {
            // An answer with nothing in it. All of it goes with the handover, once that is sent again.
            EventsRecord::Handover(handover) => self.send_absorb(slot, handover.user_id, Millis(handover.at), &History::default(), out),
            EventsRecord::Absorb(absorb) => {
                self.tell_absorbed(slot, absorb, out)?;
                if self.no_longer_expects(slot, absorb.anonymous_id) { self.go_on_without(slot, out) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// The user's runs have heard what there is to hear of this anonymous person.
    fn tell_absorbed(&self, slot: Slot, absorb: &Absorb<'_>, out: &mut Outputs) -> Result<(), Error> {
        if !self.memo.has_runs() {
            return Ok(());
        }
        self.tell_identity(slot, &Input::Absorbed { anonymous: absorb.anonymous_id.to_owned() }, Millis(absorb.at), out)
    }

    /// True if that was the last one expected.
    fn no_longer_expects(&mut self, slot: Slot, anonymous_id: &str) -> bool {
        let Some(waiting) = &mut self.cache.get_mut(slot).waiting else { return false };
        if let Some(at) = waiting.expected.iter().position(|id| **id == *anonymous_id) {
            waiting.expected.remove(at);
        }
        let is_last = waiting.expected.is_empty();
        self.mark_dirty(slot);
        is_last
    }

    /// What came for an anonymous id after its profile had gone: a profile of that one event goes after it.
    fn forward(&mut self, slot: Slot, event: &EventBody<'_>, out: &mut Outputs) -> Result<(), Error> {
        let rules = &self.deployed.topology.rules;
        let mut history = History::default();
        let _ = history.profile.observe(&extract(&raw(event), rules), rules);
        let time = Millis(event.event_time);
        history.consent.observe(said(event), time);
        if self.interest(slot).of_run(event.name) {
            history.past.add(event);
        }
        let Some(heir) = self.cache.get(slot).heir_at(time) else { return Ok(()) };
        let user_id = heir.user_id.clone();
        self.mark_dirty(slot);
        self.send_absorb(slot, &user_id, time, &history, out)
    }

    fn hand_over(&mut self, slot: Slot, handover: &Handover<'_>, out: &mut Outputs) -> Result<(), Error> {
        let at = Millis(handover.at);
        if self.clock == NamespaceClock::Event {
            self.wake_up_to(slot, at, out)?;
        }
        let person = self.cache.get_mut(slot);
        // A device that a second person logs into has nothing more to hand over, but that person waits for an answer too.
        let history = History {
            profile: std::mem::take(&mut person.profile),
            consent: std::mem::take(&mut person.consent),
            past: person.past.take().map(|past| *past).unwrap_or_default(),
        };
        person.heirs.push(Heir { user_id: handover.user_id.into(), from: at });
        person.heirs.sort_by_key(|heir| heir.from);
        (person.wake, person.is_wake_stale) = (None, false);
        self.send_absorb(slot, handover.user_id, at, &history, out)?;
        self.leave_all(slot, at, out)?;
        if self.memo.has_runs() {
            self.tell_identity(slot, &Input::Merged { user: handover.user_id.to_owned() }, at, out)?;
        }
        self.mark_dirty(slot);
        let key = self.cache.key(slot);
        if !history.profile.is_empty() {
            out.push_removal(Topic::Profiles, self.partition, key, at);
        }
        Ok(())
    }

    fn send_absorb(&mut self, slot: Slot, user_id: &str, at: Millis, history: &History, out: &mut Outputs) -> Result<(), Error> {
        let fault = |detail: String| Error::Record(Fault::new(DeadReason::Undecodable, detail));
        let key = SubjectKey::from_bytes(self.cache.key(slot).clone()).map_err(|error| fault(error.to_string()))?;
        let subject = key.subject();
        self.scratch.clear();
        encode_history(&history.profile, &history.consent, &mut self.scratch);
        let mut past = Vec::new();
        if history.past.iter().next().is_some() {
            history.past.encode(&mut past);
        }
        let (anonymous_id, fold_version, state) = (subject.id(), super::FOLD_VERSION as i32, &self.scratch[..]);
        let absorb = Absorb { anonymous_id, user_id, at: at.0, fold_version, state, redriven_from: None, past: &past };
        let user_key = Subject::user(user_id).key(&key.tenant());
        out.push(Topic::Events, user_key.as_bytes(), at, &EventsRecord::Absorb(absorb))
    }

    fn expect(&mut self, slot: Slot, expect: &Expect<'_>, out: &mut Outputs) -> Result<(), Error> {
        if self.clock == NamespaceClock::Event {
            self.wake_up_to(slot, Millis(expect.at), out)?;
        }
        // What a copy was to keep back has been applied since, and the absorb may have come.
        if expect.redriven_from.is_some() {
            return Ok(());
        }
        let since = self.memo.time().max(Millis(expect.at));
        let person = self.cache.get_mut(slot);
        let waiting = person.waiting.get_or_insert_with(|| Box::new(Waiting::default()));
        waiting.expected.push(expect.anonymous_id.into());
        waiting.since = waiting.since.max(Some(since));
        person.is_wake_stale = true;
        self.mark_dirty(slot);
        if self.memo.has_runs() {
            let expect_both = Input::Expect { anonymous: expect.anonymous_id.to_owned(), absorb: true };
            self.tell_identity(slot, &expect_both, Millis(expect.at), out)?;
        }
        Ok(())
    }

    fn absorb(&mut self, slot: Slot, absorb: &Absorb<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let past = Past::decode(absorb.past).ok_or_else(|| "the events part is cut".to_owned());
        let history = decode_history(absorb.state).and_then(|history| Ok((history, past?)));
        let is_last = self.no_longer_expects(slot, absorb.anonymous_id);
        let reach = self.reach(slot);
        let zone = self.cache.get(slot).profile.time_zone().map(Box::<str>::from);
        let person = self.cache.get_mut(slot);
        let answer = match history {
            Err(detail) => Applied::Rejected(Fault::new(DeadReason::Undecodable, detail)),
            Ok(((profile, consent), past)) => {
                let touched = person.profile.absorb(&profile, &self.deployed.topology.rules);
                let says_consent = person.consent.absorb(&consent);
                let now = person.profile.now().unwrap_or(Millis(absorb.at));
                if says_consent {
                    for (stated, at) in consent.answers() {
                        self.tell_consent(slot, absorb.anonymous_id, at, now, vec![stated], out)?;
                    }
                }
                self.tell_reach(slot, &reach, now, out)?;
                self.tell_zone(slot, zone.as_deref(), now, out)?;
                self.tell_past(slot, &past, now, out)?;
                self.tell_absorbed(slot, absorb, out)?;
                if touched.groups != Groups::NONE {
                    self.decide(slot, now, touched.groups, Cause::default(), out)?;
                    self.changed(slot);
                }
                CONTROL
            }
        };
        self.mark_dirty(slot);
        if is_last {
            self.release(slot, out)?;
        }
        Ok(answer)
    }
}

/// What goes from an anonymous person to the user they became.
#[derive(Default)]
struct History {
    profile: Profile,
    consent: Consent,
    past: Past,
}

fn is_anonymous(key: &[u8]) -> bool {
    SubjectKey::parts(key).is_some_and(|KeyParts { subject, .. }| subject.starts_with("a:"))
}

fn is_of_campaign(event: &EventBody<'_>) -> bool {
    event.source == EMITTED && event.user_id.starts_with(CAMPAIGN)
}

fn raw<'a>(event: &EventBody<'a>) -> RawEvent<'a> {
    RawEvent { kind: event.kind, name: event.name, event_time: event.event_time, properties: event.properties, context: event.context }
}

fn said<'a>(event: &EventBody<'a>) -> Said<'a> {
    Said { kind: event.kind, name: event.name, properties: event.properties, context: event.context }
}
