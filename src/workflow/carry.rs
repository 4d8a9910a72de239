//! What goes from an anonymous subject to the user it became: marks, arms, consent, suppressions, what was sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::packed;
use super::state::{Mark, Subject};
use crate::consent::Consent;
use crate::permit::{Ledger, Suppressions};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Carry {
    /// The anonymous id, as [`Expecting`](super::What::Expecting) names it.
    pub anonymous: String,
    #[serde(default)]
    pub marks: BTreeMap<String, Box<Mark>>,
    #[serde(default)]
    pub arms: BTreeMap<String, String>,
    #[serde(with = "packed")]
    pub consent: Consent,
    #[serde(with = "packed")]
    pub suppressions: Suppressions,
    #[serde(with = "packed")]
    pub ledger: Ledger,
}

impl Subject {
    /// What the user is to take in, once the runs of this anonymous subject have ended. It goes as [`Input::Carry`](super::Input::Carry);
    /// the fact [`MergedInto`](super::What::MergedInto) holds it.
    pub fn carry(&self, anonymous: &str) -> Carry {
        Carry {
            anonymous: anonymous.to_owned(),
            marks: self.marks.clone(),
            arms: self.arms.clone(),
            consent: self.consent.clone(),
            suppressions: self.suppressions.clone(),
            ledger: self.ledger.clone(),
        }
    }

    /// Gives away what [`carry`](Self::carry) holds: a second user of the same device gets none of it.
    pub(super) fn give_away(&mut self) {
        self.marks.clear();
        self.arms.clear();
        self.consent = Consent::default();
        self.suppressions = Suppressions::default();
        self.ledger = Ledger::default();
    }

    pub(super) fn take_in(&mut self, carry: &Carry) {
        for (key, theirs) in &carry.marks {
            match self.marks.get_mut(key) {
                None => {
                    self.marks.insert(key.clone(), theirs.clone());
                }
                Some(mine) => {
                    let runs = mine.runs.saturating_add(theirs.runs);
                    // A run of the user's own that goes on is what the mark must say.
                    if mine.ended.is_some() && theirs.started > mine.started {
                        *mine = theirs.clone();
                    }
                    mine.runs = runs;
                }
            }
        }
        self.forget_marks();
        for (split, arm) in &carry.arms {
            if self.arms.len() < super::state::ARMS_MAX || self.arms.contains_key(split) {
                self.arms.entry(split.clone()).or_insert_with(|| arm.clone());
            }
        }
        self.consent.absorb(&carry.consent);
        self.suppressions.absorb(&carry.suppressions);
        self.ledger.absorb(&carry.ledger);
        self.expecting.remove(&carry.anonymous);
        self.carried.retain(|known| *known != carry.anonymous);
        self.carried.push_back(carry.anonymous.clone());
        if self.carried.len() > super::state::CARRIED_MAX {
            self.carried.pop_front();
        }
    }
}
