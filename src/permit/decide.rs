//! The decision: what is final first, then what waiting cures.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::grant::Grant;
use super::ids::{EffectKey, Executor};
use super::ledger::{Held, Ledger};
use super::policy::{Basis, Policy, Priority, Quiet};
use super::quiet;
use super::refusal::{Reason, Refusal};
use super::suppression::{AddressKey, Suppressions};
use crate::consent::{Consent, Status};
use crate::domain::{Millis, SECOND_MS};

/// A permit shorter than this is of no use to anyone.
const LEFT_MIN_MS: i64 = SECOND_MS;
/// Quiet hours and caps that hand a message to and fro.
const STEPS_MAX: usize = 64;

/// Who asks, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub key: EffectKey,
    pub executor: Executor,
    /// `email`, `sms`, `push`...
    pub channel: &'a str,
    pub purpose: &'a str,
    pub priority: Priority,
    /// The message makes no sense after this.
    pub not_after: Option<Millis>,
}

/// What is known of the person.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    pub consent: &'a Consent,
    pub suppressions: &'a Suppressions,
    /// Where the message would go, on its channel.
    pub address: Option<AddressKey>,
    /// IANA name.
    pub zone: Option<&'a str>,
    pub block: Option<Block>,
}

/// What stops every message to a person, transactional ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// A login tied an earlier history to the person, and not all of it has come.
    Merging,
    /// The log was restored from a backup: what it knows of sent messages may be old.
    Restored,
    Paused,
    Erased,
}

impl Block {
    pub fn as_str(self) -> &'static str {
        match self {
            Block::Merging => "what the person did before the login is still coming in",
            Block::Restored => "restored from a backup, and no operator released sending yet",
            Block::Paused => "sending is paused",
            Block::Erased => "the person was erased",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Granted(Grant),
    Refused(Refusal),
}

/// Whether the message may go, at the subject's own time `at`. Changes nothing: a grant counts once [`Ledger::granted`] took it in.
pub fn decide(policy: &Policy, ledger: &Ledger, standing: &Standing<'_>, request: &Request<'_>, at: Millis) -> Decision {
    // Time never runs backwards for caps: what the ledger has forgotten must not be missing.
    let at = at.max(ledger.newest());
    match permit_until(policy, ledger, standing, request, at) {
        Ok(until) => Decision::Granted(Grant {
            key: request.key,
            executor: request.executor,
            channel: request.channel.to_ascii_lowercase().into(),
            purpose: request.purpose.to_ascii_lowercase().into(),
            at,
            until,
        }),
        Err(refusal) => Decision::Refused(refusal),
    }
}

fn never<T>(reason: Reason) -> Result<T, Refusal> {
    Err(Refusal { reason, retry_at: None })
}

fn permit_until(policy: &Policy, ledger: &Ledger, standing: &Standing<'_>, request: &Request<'_>, at: Millis) -> Result<Millis, Refusal> {
    let Some(purpose) = policy.purpose(request.purpose) else {
        return never(Reason::UnknownPurpose { purpose: request.purpose.into() });
    };
    if let Some(block) = standing.block {
        return never(Reason::Blocked { block });
    }
    let last = request.not_after.unwrap_or(Millis::MAX);
    if last.since_ms(at) < LEFT_MIN_MS {
        return never(Reason::TooLate);
    }
    let refuse = |reason, retry_at: Millis| {
        let in_time = retry_at < Millis::MAX && last.since_ms(retry_at) >= LEFT_MIN_MS;
        Err(Refusal { reason, retry_at: in_time.then_some(retry_at) })
    };
    let Some(address) = standing.address else { return never(Reason::NoAddress) };
    if let Some((cause, until)) = standing.suppressions.of(address, at) {
        return refuse(Reason::Suppressed { cause }, until.unwrap_or(Millis::MAX));
    }
    match ledger.held(request.key) {
        Some(Held::Sent) => return never(Reason::AlreadySent),
        Some(Held::Open { executor, until }) if executor != request.executor && at < until => return refuse(Reason::HeldByAnother, until),
        _ => {}
    }
    let latest = (at + policy.valid_ms).min(last);
    if purpose.basis == Basis::Transactional {
        return Ok(latest);
    }
    match standing.consent.status(request.purpose, request.channel) {
        Status::Denied => return never(Reason::ConsentDenied),
        Status::Unknown if purpose.basis == Basis::OptIn => return never(Reason::ConsentMissing),
        _ => {}
    }
    let limits = Limits { policy, ledger, request, zone: quiet::zone(standing.zone, &policy.zone) };
    match limits.obstacle(at) {
        Some((reason, _)) => refuse(reason, limits.free_from(at)),
        None => Ok(limits.before_quiet(at, latest)),
    }
}

/// What waiting cures: quiet hours and caps.
struct Limits<'a> {
    policy: &'a Policy,
    ledger: &'a Ledger,
    request: &'a Request<'a>,
    zone: TimeZone,
}

impl Limits<'_> {
    fn quiet_rules(&self) -> impl Iterator<Item = &Quiet> {
        self.policy.quiet.iter().filter(|rule| rule.covers(self.request.channel, self.request.purpose))
    }

    /// What stands in the way at a time, and from when on that one no longer does.
    fn obstacle(&self, at: Millis) -> Option<(Reason, Millis)> {
        if let Some(end) = quiet::end(|| self.quiet_rules(), &self.zone, at) {
            return Some((Reason::QuietHours, end));
        }
        // A permit may be used until its end, so too little time before quiet hours is quiet already.
        let soon = at + LEFT_MIN_MS;
        if let Some(begin) = quiet::begin(|| self.quiet_rules(), &self.zone, at, soon) {
            return Some((Reason::QuietHours, quiet::end(|| self.quiet_rules(), &self.zone, begin).unwrap_or(soon)));
        }
        let caps = self.policy.caps.iter().filter(|cap| cap.covers(self.request.channel, self.request.purpose));
        let full = caps.filter_map(|cap| Some((cap, self.ledger.free_from(cap, self.request, at)?)));
        let (cap, free) = full.max_by_key(|(_, free)| *free)?;
        Some((Reason::Capped { cap: cap.name.as_str().into(), priority: self.request.priority }, free))
    }

    /// The first time at which nothing stands in the way, if no other message comes between.
    fn free_from(&self, at: Millis) -> Millis {
        let mut at = at;
        for _ in 0..STEPS_MAX {
            match self.obstacle(at) {
                Some((_, free)) if free < Millis::MAX => at = free,
                Some(_) => return Millis::MAX,
                None => return at,
            }
        }
        // Still earlier than nothing: whoever asks then is told a later time.
        at
    }

    /// A permit ends where quiet hours begin.
    fn before_quiet(&self, at: Millis, latest: Millis) -> Millis {
        quiet::begin(|| self.quiet_rules(), &self.zone, at, latest + 1).map_or(latest, |begin| begin.min(latest))
    }
}
