//! What is decided for an address: who holds it, and when what failed there is too much. Being suppressed is decided as for a person.

use super::super::address::{HeldBy, SOFT_BOUNCES, SOFT_SUPPRESSED_MS};
use super::super::fact::What;
use super::super::input::Input;
use super::Turn;
use crate::domain::Millis;
use crate::permit::{AddressKey, Cause};

impl Turn<'_, '_> {
    /// One that is known already is told again of an address that nothing may be sent to: it may have forgotten.
    pub(super) fn register(&mut self, address: AddressKey, channel: &str, holder: &str) {
        let is_known = self.held_by().is_some_and(|held_by| held_by.has(holder));
        if !is_known || self.state.suppressions.of(address, self.at).is_some() {
            self.note(What::Registered { address, channel: channel.to_owned(), holder: holder.to_owned() });
        }
    }

    pub(super) fn unregister(&mut self, address: AddressKey, channel: &str, holder: &str) {
        if self.held_by().is_some_and(|held_by| held_by.has(holder)) {
            self.note(What::Unregistered { address, channel: channel.to_owned(), holder: holder.to_owned() });
        }
    }

    /// A report of the same message delivered twice counts once.
    pub(super) fn soft_bounce(&mut self, address: AddressKey, channel: &str, message: &str, said: Millis) {
        let is_known = self.held_by().is_some_and(|held_by| held_by.soft.iter().any(|(known, _)| known == message));
        if is_known {
            return;
        }
        self.note(What::SoftBounced { address, channel: channel.to_owned(), message: message.to_owned(), said });
        if self.held_by().is_some_and(|held_by| held_by.failed_lately(said) >= SOFT_BOUNCES) {
            let (reason, until) = (Cause::SoftBounces, Some(said + SOFT_SUPPRESSED_MS));
            let by = format!("message {message}");
            self.suppression(&Input::Suppress { address, channel: channel.to_owned(), reason, at: said, until, by });
        }
    }

    fn held_by(&self) -> Option<&HeldBy> {
        self.state.held_by.as_deref()
    }
}
