//! What the tenant declared: purposes and what each needs, caps, quiet hours, and how long a permit holds.
//!
//! Read with serde from the tenant's definition; [`Policy::check`] finds what no permit could make sense of. Names of purposes and channels
//! compare without case, as consent does.

use serde::{Deserialize, Deserializer};

use super::quiet;
use crate::consent::NAME_BYTES_MAX;
use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use crate::segments::duration_ms;

/// The widest window of a cap: what is older is forgotten.
pub(super) const WINDOW_MAX_MS: i64 = 35 * DAY_MS;
/// The most messages a cap may allow: as many are remembered of each purpose and channel.
pub(super) const LIMIT_MAX: usize = 100;
const VALID_MIN_MS: i64 = 5 * SECOND_MS;
const VALID_MAX_MS: i64 = 15 * MINUTE_MS;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default, rename = "purpose")]
    pub purposes: Vec<Purpose>,
    #[serde(default, rename = "cap")]
    pub caps: Vec<Cap>,
    #[serde(default, rename = "quiet")]
    pub quiet: Vec<Quiet>,
    /// The IANA zone of people who have none, or one that nobody knows.
    #[serde(default = "utc")]
    pub zone: String,
    /// How long a permit may be used after it was granted.
    #[serde(default = "a_minute", rename = "permit_valid", deserialize_with = "duration")]
    pub valid_ms: i64,
}

/// Why people are written to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    pub name: String,
    pub basis: Basis,
}

/// What a purpose needs of the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A yes.
    OptIn,
    /// The absence of a no.
    OptOut,
    /// Neither: receipts, password resets. No consent, cap or quiet hour stops it, but it counts against caps.
    Transactional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// At most `limit` messages to one person in any `window`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    pub name: String,
    #[serde(rename = "window", deserialize_with = "duration")]
    pub window_ms: i64,
    pub limit: u32,
    /// Only messages of this channel, else of every one.
    #[serde(default)]
    pub channel: Option<String>,
    /// Only messages of this purpose, else of every one.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Of `limit`, how many places messages of low priority leave free.
    #[serde(default)]
    pub kept_for_normal: u32,
    /// Of `limit`, how many places messages of low and normal priority leave free.
    #[serde(default)]
    pub kept_for_high: u32,
}

/// A time of day, where the person lives, at which nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    pub from: TimeOfDay,
    /// Earlier than `from`: on the next day. The same: a whole day.
    pub to: TimeOfDay,
    /// The days on which it begins; all if none is named.
    #[serde(default)]
    pub days: Days,
    #[serde(default)]
    pub channel: Option<String>,
    #[serde(default)]
    pub purpose: Option<String>,
}

/// Milliseconds since midnight, as the clock on the wall shows it: `21:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay(pub(super) i64);

/// Days of the week, bit 0 for Monday: `["sat", "sun"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Days(pub(super) u8);

/// Where in a policy something is: which one of its lists, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Purpose(usize),
    Cap(usize),
    Quiet(usize),
    Zone,
    Valid,
    Whole,
}

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}; {hint}")]
pub struct Problem {
    pub place: Place,
    /// Such as `cap weekly`.
    pub what: String,
    pub reason: String,
    pub hint: &'static str,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn a_minute() -> i64 {
    MINUTE_MS
}

/// A length of time in a policy: `7d`.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let text = String::deserialize(from)?;
    duration_ms(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a length of time such as 7d, 12h or 90s")))
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time of day such as 21:00");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |part: &str| part.parse::<i64>().ok().filter(|_| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()));
        match (number(hours), number(minutes)) {
            (Some(hours @ 0..24), Some(minutes @ 0..60)) => Ok(Self(hours * HOUR_MS + minutes * MINUTE_MS)),
            _ => Err(wrong()),
        }
    }
}

impl Days {
    pub(super) const ALL: Days = Days(0x7f);

    /// Day 0 is Monday.
    pub(super) fn has(self, day: i64) -> bool {
        self.0 >> day & 1 == 1
    }
}

impl Default for Days {
    fn default() -> Self {
        Self::ALL
    }
}

impl TryFrom<Vec<String>> for Days {
    type Error = String;
    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let mut days = 0;
        for name in &names {
            let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let day =
                known.iter().position(|known| *known == name).ok_or_else(|| format!("{name:?} is not one of {}", known.join(", ")))?;
            days |= 1 << day;
        }
        if days == 0 { Ok(Self::ALL) } else { Ok(Self(days)) }
    }
}

impl Cap {
    /// How many messages there may be in a window for one of this priority to be the last of them.
    pub(super) fn places(&self, priority: Priority) -> usize {
        let kept = match priority {
            Priority::Low => self.kept_for_normal.saturating_add(self.kept_for_high),
            Priority::Normal => self.kept_for_high,
            Priority::High => 0,
        };
        self.limit.saturating_sub(kept) as usize
    }

    pub(super) fn covers(&self, channel: &str, purpose: &str) -> bool {
        is(&self.channel, channel) && is(&self.purpose, purpose)
    }
}

impl Quiet {
    pub(super) fn covers(&self, channel: &str, purpose: &str) -> bool {
        is(&self.channel, channel) && is(&self.purpose, purpose)
    }
}

fn is(wanted: &Option<String>, name: &str) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
}

impl Policy {
    pub fn purpose(&self, name: &str) -> Option<&Purpose> {
        self.purposes.iter().find(|purpose| purpose.name.eq_ignore_ascii_case(name))
    }

    /// Everything wrong with it; a policy with none always answers.
    pub fn check(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut problem = |place, what: String, reason: String, hint| found.push(Problem { place, what, reason, hint });
        for (at, purpose) in self.purposes.iter().enumerate() {
            if purpose.name.is_empty() || self.purposes[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&purpose.name)) {
                problem(
                    Place::Purpose(at),
                    format!("purpose {}", purpose.name),
                    "declared twice, or without a name".into(),
                    "give each purpose one name and one basis",
                );
            }
        }
        for (at, purpose) in self.purposes.iter().enumerate().filter(|(_, purpose)| purpose.name.len() > NAME_BYTES_MAX) {
            let reason = format!("its name is {} bytes long, at most {NAME_BYTES_MAX} are kept of what people answer", purpose.name.len());
            problem(Place::Purpose(at), format!("purpose {}", purpose.name), reason, "give it a shorter name");
        }
        if jiff::tz::TimeZone::get(&self.zone).is_err() {
            problem(
                Place::Zone,
                "zone".into(),
                format!("no time zone is called {:?}", self.zone),
                "name an IANA zone, such as Europe/Berlin",
            );
        }
        if !(VALID_MIN_MS..=VALID_MAX_MS).contains(&self.valid_ms) {
            let reason = format!("{} ms is not between 5 s and 15 min", self.valid_ms);
            problem(Place::Valid, "permit_valid".into(), reason, "a minute suits most servers");
        }
        for (at, cap) in self.caps.iter().enumerate() {
            let place = Place::Cap(at);
            let what = format!("cap {}", cap.name);
            if !(1..=WINDOW_MAX_MS).contains(&cap.window_ms) {
                problem(place, what.clone(), "its window is not between 1 ms and 35 days".into(), "35 days are remembered of each person");
            }
            if cap.limit as usize > LIMIT_MAX {
                problem(place, what.clone(), format!("its limit is above {LIMIT_MAX}"), "use a shorter window with a smaller limit");
            }
            if cap.kept_for_normal.saturating_add(cap.kept_for_high) > cap.limit {
                problem(place, what.clone(), "more places are kept than there are".into(), "raise the limit or keep fewer");
            }
            self.check_purpose(place, what, &cap.purpose, &mut problem);
        }
        for (at, quiet) in self.quiet.iter().enumerate() {
            self.check_purpose(Place::Quiet(at), format!("quiet {}", at + 1), &quiet.purpose, &mut problem);
        }
        self.check_quiet(&mut problem);
        found
    }

    fn check_purpose(
        &self,
        place: Place,
        what: String,
        purpose: &Option<String>,
        problem: &mut impl FnMut(Place, String, String, &'static str),
    ) {
        if let Some(name) = purpose.as_ref().filter(|name| self.purpose(name).is_none()) {
            problem(place, what, format!("no purpose is called {name:?}"), "declare it as a [[purpose]], or correct the name");
        }
    }

    /// Of every channel and purpose that a rule names, some time of the week must be left.
    fn check_quiet(&self, problem: &mut impl FnMut(Place, String, String, &'static str)) {
        let channels = self.quiet.iter().map(|quiet| quiet.channel.as_deref().unwrap_or(""));
        for channel in channels.collect::<std::collections::BTreeSet<_>>() {
            for purpose in self.purposes.iter().filter(|purpose| purpose.basis != Basis::Transactional) {
                let rules = || self.quiet.iter().filter(|quiet| quiet.covers(channel, &purpose.name));
                if quiet::never_ends(rules) {
                    let what =
                        format!("quiet hours of purpose {} on {}", purpose.name, if channel.is_empty() { "any channel" } else { channel });
                    problem(Place::Whole, what, "they leave no time of the week".into(), "shorten one of the rules");
                }
            }
        }
    }
}
