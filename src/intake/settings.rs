//! What a namespace may set about its intake, and the same compiled for use.
//!
//! Settings are data with defaults and belong to the definitions (a fold switches to others by digest); [`Rules`] is what [`super::decide`]
//! reads for every event.

use core::net::IpAddr;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::bots;
use super::filter::Network;

/// Whose time events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The present: event times are clamped to the receive time and corrected for a wrong client clock.
    #[default]
    Wall,
    /// The events' own (imports, the demonstration, backtests): times are taken as they are and must be given.
    Event,
}

/// The intake settings of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The longest event taken, in bytes of JSON; a longer one is dead-lettered. Segment takes 32 KiB, RudderStack's clients send more.
    pub event_bytes_max: usize,
    /// Sources (by name) whose events are filtered.
    pub disabled_sources: Vec<String>,
    pub bots: Bots,
    pub internal: Internal,
    pub flood: Flood,
}

/// Events that crawlers and monitors cause, told by the person's user agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bots {
    pub enabled: bool,
    /// More parts of user agents that mean a bot, without regard to case.
    pub also: Vec<String>,
    /// Parts of user agents that are never one, whatever else they hold.
    pub never: Vec<String>,
}

/// The company's own traffic. Nothing is filtered while both lists are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Internal {
    /// Networks as `10.0.0.0/8`, `2001:db8::/32` or single addresses.
    pub networks: Vec<String>,
    /// Domains of e-mail addresses in traits, as `example.com`; subdomains are separate.
    pub email_domains: Vec<String>,
}

/// How much one key (one device, or one user of a server) may send, in receive time. Event-time namespaces have no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flood {
    /// Events a second that may go on for ever; 0 is without a limit.
    pub events_per_second: u32,
    /// Events that may come at once after a quiet time.
    pub burst: u32,
    /// How many times as much of a historical import, beside what happens now; 0 is without a limit. Anyone who has a write key can say
    /// that an import is one, and write keys are public.
    pub historical_factor: u32,
}

/// The longest event taken by default. Far above any SDK's habit, far below the log's largest record.
const EVENT_BYTES_MAX: usize = 256 * 1024;
/// No burst is larger than what a year's rate would be.
const DEBT_US_MAX: i64 = 366 * 86_400 * 1_000_000;
/// The most `event_bytes_max` can be: what the gateway keeps of a body, less a margin.
const EVENT_BYTES_LIMIT: usize = 900_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            event_bytes_max: EVENT_BYTES_MAX,
            disabled_sources: Vec::new(),
            bots: Bots::default(),
            internal: Internal::default(),
            flood: Flood::default(),
        }
    }
}

impl Default for Bots {
    fn default() -> Self {
        Self { enabled: true, also: Vec::new(), never: Vec::new() }
    }
}

/// PostHog's hard limit per distinct id (300,000 a minute): only a loop gone wild reaches it, a busy server does not.
impl Default for Flood {
    fn default() -> Self {
        Self { events_per_second: 5_000, burst: 300_000, historical_factor: 10 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("intake.event_bytes_max is {0}; it must be from 1 to {EVENT_BYTES_LIMIT}")]
    EventBytesMax(usize),
    #[error("intake.flood.events_per_second is {0}; it must be at most 1000000, or 0 for no limit")]
    FloodRate(u32),
    #[error("intake.flood.burst is 0: not a single event would pass")]
    FloodBurst,
    #[error("intake.internal.networks: {0:?} is no network; write it as 10.0.0.0/8 or 2001:db8::/32")]
    Network(String),
    #[error("intake.internal.email_domains: {0:?} is no domain; write it as example.com")]
    EmailDomain(String),
    #[error("intake.bots: {0}")]
    Bots(String),
}

/// Settings made ready for use.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) clock: Clock,
    pub(super) event_bytes_max: usize,
    pub(super) disabled_sources: Vec<String>,
    pub(super) bots: Option<BotRules>,
    pub(super) networks: Vec<Network>,
    pub(super) email_domains: Vec<String>,
    pub(super) flood: Option<Allowance>,
    /// The same of historical imports.
    pub(super) historical_flood: Option<Allowance>,
}

/// Microseconds that one event costs, and the most that may be owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) cost_us: i64,
    pub(super) debt_us_max: i64,
}

#[derive(Debug, Clone)]
pub(super) struct BotRules {
    pub(super) bot: AhoCorasick,
    pub(super) never: AhoCorasick,
}

impl Rules {
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, SettingsError> {
        if settings.event_bytes_max == 0 || settings.event_bytes_max > EVENT_BYTES_LIMIT {
            return Err(SettingsError::EventBytesMax(settings.event_bytes_max));
        }
        Ok(Self {
            clock,
            event_bytes_max: settings.event_bytes_max,
            disabled_sources: settings.disabled_sources.clone(),
            bots: bot_rules(&settings.bots)?,
            networks: settings.internal.networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            email_domains: settings.internal.email_domains.iter().map(|text| domain(text)).collect::<Result<_, _>>()?,
            flood: flood(&settings.flood, clock, 1)?,
            historical_flood: flood(&settings.flood, clock, settings.flood.historical_factor)?,
        })
    }

    /// Whether records under a user's key need their [`super::KeyState`]: without a flood limit and internal domains it stays empty, and
    /// a shell can spare reading and writing it.
    pub fn user_keys_have_state(&self) -> bool {
        self.flood.is_some() || self.historical_flood.is_some() || !self.email_domains.is_empty()
    }
}

fn bot_rules(settings: &Bots) -> Result<Option<BotRules>, SettingsError> {
    if !settings.enabled {
        return Ok(None);
    }
    if settings.also.iter().chain(&settings.never).any(|part| part.trim().is_empty()) {
        return Err(SettingsError::Bots("an empty part would match every user agent".to_owned()));
    }
    let matcher = |parts: Vec<&str>| {
        let built = AhoCorasick::builder().ascii_case_insensitive(true).build(parts);
        built.map_err(|error| SettingsError::Bots(error.to_string()))
    };
    let bot = matcher(bots::PARTS.iter().copied().chain(settings.also.iter().map(String::as_str)).collect())?;
    let never = matcher(bots::NEVER.iter().copied().chain(settings.never.iter().map(String::as_str)).collect())?;
    Ok(Some(BotRules { bot, never }))
}

fn network(text: &str) -> Result<Network, SettingsError> {
    let bad = || SettingsError::Network(text.to_owned());
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| bad())?)),
        None => (text, None),
    };
    let address: IpAddr = address.trim().parse().map_err(|_| bad())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    if bits > most { Err(bad()) } else { Ok(Network::new(address, bits)) }
}

fn domain(text: &str) -> Result<String, SettingsError> {
    let bare = text.trim().trim_start_matches('@').to_ascii_lowercase();
    if bare.is_empty() || bare.contains('@') || !bare.contains('.') {
        return Err(SettingsError::EmailDomain(text.to_owned()));
    }
    Ok(bare)
}

/// `factor` times the allowance.
fn flood(settings: &Flood, clock: Clock, factor: u32) -> Result<Option<Allowance>, SettingsError> {
    if settings.events_per_second > 1_000_000 {
        return Err(SettingsError::FloodRate(settings.events_per_second));
    }
    if settings.events_per_second == 0 || factor == 0 || clock == Clock::Event {
        return Ok(None);
    }
    if settings.burst == 0 {
        return Err(SettingsError::FloodBurst);
    }
    let (rate, burst) = (i64::from(settings.events_per_second) * i64::from(factor), i64::from(settings.burst) * i64::from(factor));
    let cost_us = (1_000_000 / rate).max(1);
    Ok(Some(Allowance { cost_us, debt_us_max: cost_us.saturating_mul(burst).min(DEBT_US_MAX) }))
}
