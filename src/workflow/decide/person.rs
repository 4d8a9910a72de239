//! What is known of the person, whatever runs there are: attributes, consent, suppressed addresses, and what a login brings together.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::super::address::{ADDRESSES, address_key};
use super::super::carry::Carry;
use super::super::context::Clock;
use super::super::fact::{Fact, What};
use super::super::input::Input;
use super::super::state::{EXPECT_MS_MAX, Pending};
use super::Turn;
use crate::consent::Stated;
use crate::domain::Millis;

impl Turn<'_, '_> {
    /// Notes a fact that belongs to the subject.
    pub(super) fn note(&mut self, what: What) {
        let fact = Fact { at: self.at, run: None, what };
        super::evolve(self.state, &fact);
        self.facts.push(fact);
    }

    pub(super) fn attribute(&mut self, name: &str, value: &Json) {
        let before = self.state.attributes.get(name);
        if before != Some(value) {
            let was = before.filter(|_| ADDRESSES.iter().any(|(attribute, _)| *attribute == name)).cloned();
            self.note(What::AttributeSet { name: name.to_owned(), value: value.clone(), was });
            if name == "time_zone" {
                self.ask_anew();
            }
        }
    }

    /// What waits because quiet hours refused it a permit waits for those of another place now.
    fn ask_anew(&mut self) {
        for id in self.run_ids() {
            let Some(run) = self.state.runs.get(&id).filter(|run| run.paused.is_none()) else { continue };
            let waits = |pending: &&Pending| {
                let refused = pending.is_message() && pending.last_category.is_none() && !pending.looking;
                refused && pending.attempts > 0 && pending.open.is_none() && pending.stuck.is_none() && pending.retry_at.is_some()
            };
            let waiting: Vec<_> = run.effects().filter(waits).cloned().collect();
            waiting.iter().for_each(|pending| self.refuse_anew(id, pending));
        }
    }

    pub(super) fn consent(&mut self, cause: &str, said: Millis, stated: &[Stated]) {
        let mut after = self.state.consent.clone();
        let changes = stated.iter().filter(|answer| after.set(&answer.purpose, &answer.channel, answer.granted, said));
        let stated: Vec<Stated> = changes.cloned().collect();
        if stated.is_empty() {
            return;
        }
        let denies = stated.iter().any(|answer| !answer.granted);
        self.note(What::ConsentStated { cause: cause.to_owned(), said, stated });
        if denies {
            self.stop_forbidden();
        }
    }

    /// A word about an address: to itself, or to a person who has it. One that reaches somebody who has another by now says nothing.
    pub(super) fn suppression(&mut self, input: &Input) {
        let (Input::Suppress { address, .. } | Input::Unsuppress { address, .. }) = input else { return };
        let has_it = |(name, value): (&String, &Json)| address_key(name, value) == Some(*address);
        if !self.context.is_address() && !self.state.attributes.iter().any(has_it) {
            return;
        }
        match input.clone() {
            Input::Suppress { address, channel, reason, at: said, until, by } => {
                let mut after = self.state.suppressions.clone();
                after.suppress(address, reason, said, until);
                if after != self.state.suppressions {
                    self.note(What::Suppressed { address, channel, reason, said, until, by });
                    self.stop_forbidden();
                }
            }
            Input::Unsuppress { address, channel, at: said, by } => {
                let mut after = self.state.suppressions.clone();
                after.lift(address, said);
                if after != self.state.suppressions {
                    self.note(What::Unsuppressed { address, channel, said, by });
                }
            }
            _ => {}
        }
    }

    pub(super) fn expect(&mut self, anonymous: &str, absorb: bool) {
        // What came before it was said to come is not waited for, and neither is what is said of it again.
        let has_come = self.state.carried.iter().any(|known| known == anonymous);
        let is_carry_news = !has_come && !self.state.expecting.contains_key(anonymous);
        let is_absorb_news = absorb && !self.state.absorbing.contains_key(anonymous);
        if is_carry_news || is_absorb_news {
            self.note(What::Expecting { anonymous: anonymous.to_owned(), absorb });
        }
    }

    pub(super) fn absorbed(&mut self, anonymous: &str) {
        if self.state.absorbing.contains_key(anonymous) {
            self.note(What::Absorbed { anonymous: anonymous.to_owned() });
        }
    }

    /// Under the wall's clock a login's history is not waited for without end.
    pub(super) fn expect_no_longer(&mut self) {
        if self.context.clock == Clock::Event {
            return;
        }
        let expected = self.state.expecting.iter().chain(&self.state.absorbing);
        let late = expected.filter(|(_, since)| **since + EXPECT_MS_MAX <= self.heard());
        for anonymous in late.map(|(anonymous, _)| anonymous.clone()).collect::<BTreeSet<_>>() {
            self.note(What::ExpectationEnded { anonymous });
        }
    }

    pub(super) fn carry(&mut self, carry: &Carry) {
        self.note(What::Carried { carry: Box::new(carry.clone()) });
        self.stop_forbidden();
    }

    /// The anonymous side: every run ends, and what it leaves goes to the user.
    pub(super) fn merged(&mut self, user: &str) {
        for id in self.run_ids() {
            // The run is there: nothing else ends runs in between.
            let _ = self.stop(id, super::super::vocabulary::Ending::Merged, "identity", "the subject became a known user");
        }
        let carry = Box::new(self.state.carry(self.context.id()));
        self.note(What::MergedInto { user: user.to_owned(), carry });
    }
}
