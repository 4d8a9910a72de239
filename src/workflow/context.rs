//! Under which definitions, policy and clock something is decided.

use super::library::Library;
use super::policy::Policy;
use crate::domain::Millis;

/// What time is to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// Decisions are at partition time; what is due fires when time is heard.
    #[default]
    Wall,
    /// The data's own time: everything of a subject happens in the order of its times, whenever it is heard of.
    Event,
}

/// Who is deciding about whom.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The subject as run ids and splits know it: its key as text (`domain::SubjectKey::as_str`), tenant, a NUL, `u:ID`,
    /// `a:ID` or `@:HASH`.
    pub subject: &'c str,
    pub library: &'c Library,
    pub policy: &'c Policy,
    pub clock: Clock,
    /// The folder is a copy of another, and no operator has let time pass in it: nothing is permitted that would not wait for time.
    pub is_held: bool,
    /// Under the wall's clock: everything that was done up to here has come. What is decided may be stamped later than this, for nothing
    /// that begins now is to be shorter than it says; silence is concluded, and sending permitted, no later than this.
    pub heard: Millis,
}

impl<'c> Context<'c> {
    /// Whose subject it is.
    pub fn tenant(&self) -> &'c str {
        self.subject.split_once('\0').map_or("", |(tenant, _)| tenant)
    }

    /// The id without tenant and kind.
    pub fn id(&self) -> &'c str {
        let own = self.subject.rsplit_once('\0').map_or(self.subject, |(_, own)| own);
        own.strip_prefix("u:").or_else(|| own.strip_prefix("a:")).unwrap_or(own)
    }

    /// Whether it is an address, and not a person or a campaign.
    pub fn is_address(&self) -> bool {
        self.subject.split_once('\0').is_some_and(|(_, own)| own.starts_with("@:"))
    }
}
