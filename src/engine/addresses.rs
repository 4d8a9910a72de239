//! What goes between people and the addresses they are written to: people register with their addresses, and an address tells everyone who
//! holds it what is said of it.
//!
//! All of it is decided: a command follows from a fact and from the state that the facts up to it made, and is appended with that fact. An
//! address and its holders have each their own order, so a word reaches a person a moment after the address; a message that was permitted
//! before it came is out.

use serde_json::Value as Json;

use super::fold::WorkflowFold;
use super::outward::who;
use crate::domain::{Millis, SubjectKey};
use crate::permit::{AddressKey, Cause, Said};
use crate::stream::{Error, Outputs, Slot};
use crate::workflow::{ADDRESSES, Fact, Input, Performer, Subject, What, address_channel, address_left, address_subject};

/// How many subjects a command has gone through: a person's word to an address, and the address's to people, which ends there.
const TO_ADDRESS: u8 = 1;
const TO_HOLDER: u8 = 2;

impl WorkflowFold {
    pub(super) fn pass_on(&mut self, slot: Slot, key: &SubjectKey, fact: &Fact, out: &mut Outputs) -> Result<(), Error> {
        match &fact.what {
            What::AttributeSet { name, value, was } => {
                let Some((_, channel)) = ADDRESSES.iter().find(|(attribute, _)| attribute == name) else { return Ok(()) };
                let was = was.as_ref().unwrap_or(&Json::Null);
                if let Some(address) = address_left(name, was, value) {
                    self.unregister(key, channel, address, fact.at, out)?;
                }
                // What is new to them is what they would leave by going back.
                let come = address_left(name, value, was);
                come.map_or(Ok(()), |address| self.register(key, channel, address, fact.at, out))
            }
            What::AddressRefused { effect, address, channel } => {
                let (reason, by) = (Cause::HardBounce, format!("message {effect}"));
                let (address, channel) = (*address, address_channel(channel));
                let input = Input::Suppress { address, channel, reason, at: fact.at, until: None, by };
                self.send(&address_subject(address).key(&key.tenant()), fact.at, TO_ADDRESS, &input, out)
            }
            // Whoever is about to be written to holds the address, whatever was said before addresses were told of their holders.
            What::EffectRequested { by: Performer::Channel, target, .. } => {
                let Some(address) = self.subjects.get(slot).subject.address(target).map(|address| AddressKey::of(target, address)) else {
                    return Ok(());
                };
                self.register(key, &address_channel(target), address, fact.at, out)
            }
            What::Registered { address, channel, holder } if key.is_address() => {
                let said: Vec<Said> = self.subjects.get(slot).subject.suppressions.said_of(*address).collect();
                let to = who(holder).key(&key.tenant());
                said.into_iter().try_for_each(|said| self.send(&to, fact.at, TO_HOLDER, &told(*address, channel, said), out))
            }
            What::Suppressed { address, channel, reason, said, until, by } if key.is_address() => {
                let (address, channel, by) = (*address, channel.clone(), by.clone());
                let input = Input::Suppress { address, channel, reason: *reason, at: *said, until: *until, by };
                self.tell_holders(slot, key, fact.at, &input, out)
            }
            What::Unsuppressed { address, channel, said, by } if key.is_address() => {
                let input = Input::Unsuppress { address: *address, channel: channel.clone(), at: *said, by: by.clone() };
                self.tell_holders(slot, key, fact.at, &input, out)
            }
            _ => Ok(()),
        }
    }

    /// What an anonymous subject held is the user's from now on, who registers when the profile says so.
    pub(super) fn give_addresses_up(&mut self, slot: Slot, key: &SubjectKey, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        let subject = &self.subjects.get(slot).subject;
        let held: Vec<(&str, AddressKey)> = ADDRESSES.iter().filter_map(|(_, channel)| Some((*channel, held(subject, channel)?))).collect();
        held.into_iter().try_for_each(|(channel, address)| self.unregister(key, channel, address, at, out))
    }

    fn register(&self, key: &SubjectKey, channel: &str, address: AddressKey, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        let input = Input::Register { address, channel: channel.to_owned(), holder: key.subject().to_string() };
        self.send(&address_subject(address).key(&key.tenant()), at, TO_ADDRESS, &input, out)
    }

    fn unregister(&self, key: &SubjectKey, channel: &str, address: AddressKey, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        let input = Input::Unregister { address, channel: channel.to_owned(), holder: key.subject().to_string() };
        self.send(&address_subject(address).key(&key.tenant()), at, TO_ADDRESS, &input, out)
    }

    fn tell_holders(&self, slot: Slot, key: &SubjectKey, at: Millis, input: &Input, out: &mut Outputs) -> Result<(), Error> {
        let tenant = key.tenant();
        let holders = self.subjects.get(slot).subject.held_by.iter().flat_map(|held_by| &held_by.holders);
        holders.map(|holder| who(holder).key(&tenant)).try_for_each(|to| self.send(&to, at, TO_HOLDER, input, out))
    }
}

fn held(subject: &Subject, channel: &str) -> Option<AddressKey> {
    subject.address(channel).map(|address| AddressKey::of(channel, address))
}

fn told(address: AddressKey, channel: &str, said: Said) -> Input {
    let (channel, by) = (channel.to_owned(), String::new());
    match said {
        Said::Suppressed { cause, at, until } => Input::Suppress { address, channel, reason: cause, at, until, by },
        Said::Lifted { at } => Input::Unsuppress { address, channel, at, by },
    }
}
