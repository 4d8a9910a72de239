//! From an event's fields and JSON to the typed signals that accumulators understand.
//!
//! Only what some feature needs is read: properties of orders and product events, the campaign, referrer and time zone of the context,
//! and traits. Everything kept is cut to its bound here.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::json;
use super::settings::{EventRule, Rules};
use crate::domain::{Currency, Millis, Money};

/// The longest event name kept; a longer one counts under its first bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 48;
/// The longest campaign field, referrer or time zone kept.
pub const TOUCH_BYTES_MAX: usize = 48;
/// Products read from one event's `products` array.
const PRODUCTS_PER_EVENT_MAX: usize = 100;
/// Times outside years 1 to 9999 are taken as their edge, so that no arithmetic on them overflows.
const TIME_MIN_MS: i64 = -62_135_596_800_000;
const TIME_MAX_MS: i64 = 253_402_300_799_999;

/// An event as the fold has it: borrowed fields, JSON objects as text (empty where there are none).
#[derive(Debug, Clone, Copy, Default)]
pub struct RawEvent<'a> {
    /// track, identify, page, screen, group, alias.
    pub kind: &'a str,
    pub name: &'a str,
    pub event_time: i64,
    /// `properties` of track, page, screen; `traits` of identify and group.
    pub properties: &'a str,
    pub context: &'a str,
}

/// What one event says, ready to be folded.
#[derive(Debug, Clone, Default)]
pub struct Observation<'a> {
    pub time: Millis,
    /// The type it is counted under: a track's name, else the kind.
    pub event: &'a str,
    pub rule: EventRule,
    /// Whether the person did it (track, page, screen that are not passive).
    pub active: bool,
    /// The amount of an order or refund, 0 where the event has none.
    pub amount: Money,
    /// The amount's currency; the home currency where the event has none.
    pub currency: Option<Currency>,
    pub products: SmallVec<[u32; 2]>,
    pub categories: SmallVec<[u32; 2]>,
    pub touch: Option<TouchSignal<'a>>,
    pub time_zone: Option<Cow<'a, str>>,
    /// (name, JSON text) of an identify's or group's traits; a group's names carry the prefix `group.`.
    pub traits: Vec<(Cow<'a, str>, &'a str)>,
}

/// Where a visit came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TouchSignal<'a> {
    pub source: Cow<'a, str>,
    pub medium: Cow<'a, str>,
    pub campaign: Cow<'a, str>,
    pub content: Cow<'a, str>,
    /// The referring host.
    pub referrer: Cow<'a, str>,
}

/// The time as it is folded: within years 1 to 9999.
pub fn clamp_time(ms: i64) -> Millis {
    Millis(ms.clamp(TIME_MIN_MS, TIME_MAX_MS))
}

/// Reads what the features need out of `event`.
pub fn extract<'a>(event: &RawEvent<'a>, rules: &Rules) -> Observation<'a> {
    let is_track = event.kind == "track" && !event.name.is_empty();
    let name = json::cut(if is_track { event.name } else { event.kind }, EVENT_NAME_BYTES_MAX);
    let rule = rules.event(name);
    let acts = matches!(event.kind, "track" | "page" | "screen");
    let mut seen =
        Observation { time: clamp_time(event.event_time), event: name, rule, active: acts && !rule.passive, ..Default::default() };
    if rule.order || rule.refund {
        amount_into(&mut seen, event.properties, rules);
    }
    if rule.products {
        products_into(&mut seen, event.properties, rules);
    }
    if matches!(event.kind, "identify" | "group") {
        traits_into(&mut seen, event);
    }
    context_into(&mut seen, event.context);
    seen
}

fn amount_into(seen: &mut Observation<'_>, properties: &str, rules: &Rules) {
    let orders = &rules.settings().orders;
    let mut best: Option<(usize, Money)> = None;
    let mut currency = rules.currency;
    for (key, raw) in json::members(properties) {
        if key == orders.currency_property {
            if let Some(code) = json::text(raw) {
                currency = Currency::parse(&code);
            }
        } else if let Some(rank) = orders.revenue_properties.iter().position(|name| name == key) {
            let parsed = json::text(raw).and_then(|digits| Money::parse(&digits).ok());
            if let Some(amount) = parsed
                && best.is_none_or(|(other, _)| rank < other)
            {
                best = Some((rank, amount));
            }
        }
    }
    seen.amount = best.map(|(_, amount)| amount).unwrap_or_default();
    seen.currency = Some(currency);
}

fn products_into(seen: &mut Observation<'_>, properties: &str, rules: &Rules) {
    product_into(seen, properties, rules);
    let array = json::members(properties).find(|(key, _)| *key == "products");
    if let Some((_, array)) = array {
        for product in json::elements(array).take(PRODUCTS_PER_EVENT_MAX) {
            product_into(seen, product, rules);
        }
    }
}

fn product_into(seen: &mut Observation<'_>, object: &str, rules: &Rules) {
    let products = &rules.settings().products;
    let mut best: Option<(usize, u32)> = None;
    for (key, raw) in json::members(object) {
        if key == products.category_property {
            seen.categories.extend(json::text(raw).map(|text| hash(&text)));
        } else if let Some(rank) = products.id_properties.iter().position(|name| name == key)
            && best.is_none_or(|(other, _)| rank < other)
            && let Some(text) = json::text(raw)
        {
            best = Some((rank, hash(&text)));
        }
    }
    seen.products.extend(best.map(|(_, product)| product));
}

/// 32 bits tell a person's products apart (two of a thousand collide once in 8,600 people) and feed the sketch beyond.
fn hash(text: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

fn traits_into<'a>(seen: &mut Observation<'a>, event: &RawEvent<'a>) {
    for (key, raw) in json::members(event.properties) {
        if matches!(key, "timezone" | "timeZone" | "time_zone") {
            seen.time_zone = json::text(raw);
        }
        // Python's json writes every name beyond ASCII in escapes: `größe` must be one trait, whoever sent it.
        let key = if key.contains('\\') {
            json::text(&format!("\"{key}\"")).map(|text| text.into_owned().into())
        } else {
            Some(Cow::Borrowed(key))
        };
        let Some(key) = key else { continue };
        let name = if event.kind == "group" { Cow::Owned(format!("group.{key}")) } else { key };
        seen.traits.push((name, raw));
    }
}

fn context_into<'a>(seen: &mut Observation<'a>, context: &'a str) {
    // Most contexts hold a library and a locale: three searches cost less than a scan of every member.
    let wanted = context.contains("\"campaign\"") || context.contains("\"referrer\"") || context.contains("\"timezone\"");
    if !wanted {
        return;
    }
    let mut touch = TouchSignal::default();
    for (key, raw) in json::members(context) {
        match key {
            "timezone" => seen.time_zone = json::text(raw).or(seen.time_zone.take()),
            "campaign" => campaign_into(&mut touch, raw),
            "page" => referrer_into(&mut touch, raw),
            _ => {}
        }
    }
    if touch != TouchSignal::default() && seen.active {
        seen.touch = Some(touch);
    }
}

fn campaign_into<'a>(touch: &mut TouchSignal<'a>, campaign: &'a str) {
    for (key, raw) in json::members(campaign) {
        let field = match key {
            "source" => &mut touch.source,
            "medium" => &mut touch.medium,
            "name" => &mut touch.campaign,
            "content" => &mut touch.content,
            _ => continue,
        };
        *field = bounded(json::text(raw).unwrap_or_default());
    }
}

/// The host of `page.referrer`, unless it is the page's own.
fn referrer_into<'a>(touch: &mut TouchSignal<'a>, page: &'a str) {
    let (mut referrer, mut own) = (Cow::Borrowed(""), Cow::Borrowed(""));
    for (key, raw) in json::members(page) {
        match key {
            "referrer" => referrer = json::text(raw).unwrap_or_default(),
            "url" => own = json::text(raw).unwrap_or_default(),
            _ => {}
        }
    }
    if host(&referrer) != host(&own) {
        touch.referrer = match referrer {
            Cow::Borrowed(text) => bounded(Cow::Borrowed(host(text))),
            Cow::Owned(text) => bounded(Cow::Owned(host(&text).to_owned())),
        };
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn bounded(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(json::cut(text, TOUCH_BYTES_MAX)),
        Cow::Owned(text) => Cow::Owned(json::cut(&text, TOUCH_BYTES_MAX).to_owned()),
    }
}
