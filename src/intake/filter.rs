//! Valid events that are left out on purpose: of disabled sources, bots, the company itself, and keys that flood.

use core::net::{IpAddr, Ipv6Addr};

use super::Item;
use super::settings::{Allowance, Rules};
use super::state::KeyState;
use crate::domain::{FilterReason, Millis};

/// A range of addresses. IPv4 lies within IPv6 as its mapped range, so that one comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    pub(super) fn new(address: IpAddr, bits: u8) -> Self {
        let bits = u32::from(bits) + if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        Self { address: number(address) & mask, mask }
    }

    fn holds(self, address: u128) -> bool {
        address & self.mask == self.address
    }
}

fn number(address: IpAddr) -> u128 {
    let wide: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    wide.to_bits()
}

/// What the filters saw in one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Looked {
    is_bot: bool,
    own_network: bool,
    /// Whether the e-mail address is of an own domain; `None` without an address.
    own_email: Option<bool>,
}

/// Looks at the context's user agent and address and the traits' e-mail address.
pub(super) fn look(item: &Item<'_>, user_agent: Option<&str>, ip: Option<&str>, email: Option<&str>, rules: &Rules) -> Looked {
    let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain.trim());
    let own_domain = |domain: &str| rules.email_domains.iter().any(|own| own.eq_ignore_ascii_case(domain));
    Looked {
        is_bot: is_bot(item, user_agent, rules),
        own_network: is_own_network(ip.unwrap_or(item.remote_ip), rules),
        own_email: if rules.email_domains.is_empty() { None } else { domain.map(own_domain) },
    }
}

/// Why this event is left out, if it is. Updates what the key's state remembers of it.
pub(super) fn reason(state: &mut KeyState, item: &Item<'_>, looked: Looked, rules: &Rules) -> Option<FilterReason> {
    if looked.is_bot {
        return Some(FilterReason::Bot);
    }
    // An employee's other events carry no address: what the last one said holds for the key.
    state.internal = !rules.email_domains.is_empty() && looked.own_email.unwrap_or(state.internal);
    if state.internal || looked.own_network {
        return Some(FilterReason::Internal);
    }
    if floods(state, item, rules) {
        return Some(FilterReason::Flood);
    }
    None
}

/// By the person's user agent. The request's own counts only if it is a browser's (or a crawler's that says so): a server-side SDK speaks
/// for people and brings their user agent in the context.
fn is_bot(item: &Item<'_>, user_agent: Option<&str>, rules: &Rules) -> bool {
    let Some(bots) = &rules.bots else { return false };
    let of_request = Some(item.user_agent).filter(|agent| agent.starts_with("Mozilla/"));
    let Some(agent) = user_agent.or(of_request) else { return false };
    bots.bot.is_match(agent) && !bots.never.is_match(agent)
}

fn is_own_network(address: &str, rules: &Rules) -> bool {
    if rules.networks.is_empty() {
        return false;
    }
    let address = address.parse::<IpAddr>().map(number);
    address.is_ok_and(|address| rules.networks.iter().any(|network| network.holds(address)))
}

/// A token bucket kept as the moment at which all its tokens will be back (the generic cell rate algorithm): one number per key.
fn floods(state: &mut KeyState, item: &Item<'_>, rules: &Rules) -> bool {
    // A bucket each, so that a person's history does not use up what happens to them now.
    let (allowance, full_at_us) = match item.historical {
        false => (rules.flood, &mut state.full_at_us),
        true => (rules.historical_flood, &mut state.historical_full_at_us),
    };
    let Some(Allowance { cost_us, debt_us_max }) = allowance else { return false };
    let now_us = micros(item.received_at);
    let fuller_at_us = (*full_at_us).max(now_us) + cost_us;
    if fuller_at_us - now_us > debt_us_max {
        return true;
    }
    *full_at_us = fuller_at_us;
    false
}

fn micros(time: Millis) -> i64 {
    // Keeps sums of two times and a debt in range.
    time.0.saturating_mul(1_000).clamp(i64::MIN / 4, i64::MAX / 4)
}
