//! What a deployment tells the features: which events are orders, reactions, funnel steps. [`Settings`] is the plain definition that a
//! topology embeds; [`Rules`] is the same, checked and compiled for one look-up per event.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::name::EventName;
use crate::domain::{Currency, HOUR_MS, MINUTE_MS};

/// The most funnels of one definition: each costs a scan of the last 50 events where it is read.
pub const FUNNELS_MAX: usize = 16;
/// The most steps of one funnel.
pub const FUNNEL_STEPS_MAX: usize = 12;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A pause longer than this ends a session.
    pub session_gap_minutes: u32,
    pub orders: Orders,
    pub products: Products,
    /// Events that say what became of a message.
    pub engagement: Vec<ReactionEvent>,
    /// Events that happen to a person and are not their doing: counted, but no sign of life (no session, recency, last 50 events).
    /// Engagement events of the reaction `sent` are passive without being named.
    pub passive_events: Vec<String>,
    /// Events that always get a counter of their own, however many other types the person sends.
    pub declared_events: Vec<String>,
    pub funnels: Vec<Funnel>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orders {
    pub events: Vec<String>,
    pub refund_events: Vec<String>,
    /// The first of these properties that holds a number is the amount.
    pub revenue_properties: Vec<String>,
    pub currency_property: String,
    /// The currency of the monetary features; orders that name none are taken to be in it.
    pub currency: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Products {
    /// Events whose properties (and `products` array) name products and categories.
    pub events: Vec<String>,
    /// The first of these properties that is present is the product's id.
    pub id_properties: Vec<String>,
    pub category_property: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReactionEvent {
    pub event: String,
    pub channel: Channel,
    pub reaction: Reaction,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Funnel {
    pub name: String,
    /// Event names in order; a step is reached by its event after the step before it.
    pub steps: Vec<String>,
    /// From the first step to any later one at most this long.
    #[serde(default = "week_hours")]
    pub within_hours: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Email,
    Push,
    Sms,
    InApp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    Sent,
    Opened,
    Clicked,
}

fn week_hours() -> u32 {
    168
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Default for Settings {
    fn default() -> Self {
        let reactions = [
            ("Email Sent", Channel::Email, Reaction::Sent),
            ("Email Opened", Channel::Email, Reaction::Opened),
            ("Email Link Clicked", Channel::Email, Reaction::Clicked),
            ("Push Notification Sent", Channel::Push, Reaction::Sent),
            ("Push Notification Received", Channel::Push, Reaction::Opened),
            ("Push Notification Tapped", Channel::Push, Reaction::Clicked),
            ("SMS Sent", Channel::Sms, Reaction::Sent),
            ("SMS Link Clicked", Channel::Sms, Reaction::Clicked),
            ("In-App Message Sent", Channel::InApp, Reaction::Sent),
            ("In-App Message Opened", Channel::InApp, Reaction::Opened),
            ("In-App Message Clicked", Channel::InApp, Reaction::Clicked),
        ];
        let engagement = reactions.map(|(event, channel, reaction)| ReactionEvent { event: event.to_owned(), channel, reaction });
        Self {
            session_gap_minutes: 30,
            orders: Orders::default(),
            products: Products::default(),
            engagement: engagement.to_vec(),
            passive_events: owned(&["Email Delivered", "Email Bounced", "Email Marked as Spam"]),
            declared_events: Vec::new(),
            funnels: Vec::new(),
        }
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            events: owned(&["Order Completed"]),
            refund_events: owned(&["Order Refunded"]),
            revenue_properties: owned(&["revenue", "total", "value"]),
            currency_property: "currency".to_owned(),
            currency: "USD".to_owned(),
        }
    }
}

impl Default for Products {
    fn default() -> Self {
        Self {
            events: owned(&["Product Viewed", "Product Clicked", "Product Added", "Product List Viewed", "Order Completed"]),
            id_properties: owned(&["product_id", "productId", "sku"]),
            category_property: "category".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("features.{what} lists {event:?} twice")]
    Twice { what: &'static str, event: String },
    #[error("features.orders.currency {0:?} is not a code of three letters")]
    Currency(String),
    #[error("features.session_gap_minutes is {0}, must be 1 to 1440")]
    SessionGap(u32),
    #[error("funnel {name:?} has {steps} steps, must have 2 to {FUNNEL_STEPS_MAX}")]
    Steps { name: String, steps: usize },
    #[error("funnel {name:?} allows {hours} hours, must allow 1 to 8760")]
    Within { name: String, hours: u32 },
    #[error("features.funnels has {0} entries, at most {FUNNELS_MAX} are taken")]
    TooManyFunnels(usize),
}

/// What an event's name means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventRule {
    pub order: bool,
    pub refund: bool,
    pub products: bool,
    pub passive: bool,
    pub declared: bool,
    pub reaction: Option<(Channel, Reaction)>,
}

/// [`Settings`] checked and compiled.
#[derive(Debug, Clone)]
pub struct Rules {
    settings: Settings,
    by_event: FxHashMap<Box<str>, EventRule>,
    pub(crate) funnels: BTreeMap<Box<str>, FunnelRule>,
    pub(crate) currency: Currency,
    pub(crate) session_gap_ms: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct FunnelRule {
    pub(crate) steps: Vec<EventName>,
    pub(crate) within_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules::compile(Settings::default()).expect("the default settings are valid")
    }
}

impl Rules {
    pub fn compile(settings: Settings) -> Result<Rules, Error> {
        if !(1..=1440).contains(&settings.session_gap_minutes) {
            return Err(Error::SessionGap(settings.session_gap_minutes));
        }
        let currency = Currency::parse(&settings.orders.currency);
        if currency == Currency::UNKNOWN {
            return Err(Error::Currency(settings.orders.currency));
        }
        let by_event = compile_events(&settings)?;
        let funnels = compile_funnels(&settings.funnels)?;
        let session_gap_ms = i64::from(settings.session_gap_minutes) * MINUTE_MS;
        Ok(Rules { settings, by_event, funnels, currency, session_gap_ms })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn event(&self, name: &str) -> EventRule {
        self.by_event.get(name).copied().unwrap_or_default()
    }

    /// The declared funnels by name with their number of steps.
    pub fn funnels(&self) -> impl Iterator<Item = (&str, usize)> {
        self.funnels.iter().map(|(name, funnel)| (&**name, funnel.steps.len()))
    }
}

fn compile_events(settings: &Settings) -> Result<FxHashMap<Box<str>, EventRule>, Error> {
    type Mark = fn(&mut EventRule);
    let lists: [(&[String], Mark); 5] = [
        (&settings.orders.events, |rule| (rule.order, rule.declared) = (true, true)),
        (&settings.orders.refund_events, |rule| (rule.refund, rule.declared) = (true, true)),
        (&settings.products.events, |rule| rule.products = true),
        (&settings.passive_events, |rule| rule.passive = true),
        (&settings.declared_events, |rule| rule.declared = true),
    ];
    let mut by_event: FxHashMap<Box<str>, EventRule> = FxHashMap::default();
    for (names, mark) in lists {
        for name in names {
            mark(by_event.entry(name.as_str().into()).or_default());
        }
    }
    for step in settings.funnels.iter().flat_map(|funnel| &funnel.steps) {
        by_event.entry(step.as_str().into()).or_default().declared = true;
    }
    for ReactionEvent { event, channel, reaction } in &settings.engagement {
        let rule = by_event.entry(event.as_str().into()).or_default();
        if rule.reaction.replace((*channel, *reaction)).is_some() {
            return Err(Error::Twice { what: "engagement", event: event.clone() });
        }
        rule.passive |= *reaction == Reaction::Sent;
    }
    Ok(by_event)
}

fn compile_funnels(funnels: &[Funnel]) -> Result<BTreeMap<Box<str>, FunnelRule>, Error> {
    if funnels.len() > FUNNELS_MAX {
        return Err(Error::TooManyFunnels(funnels.len()));
    }
    let mut rules = BTreeMap::new();
    for funnel in funnels {
        if !(2..=FUNNEL_STEPS_MAX).contains(&funnel.steps.len()) {
            return Err(Error::Steps { name: funnel.name.clone(), steps: funnel.steps.len() });
        }
        if !(1..=8760).contains(&funnel.within_hours) {
            return Err(Error::Within { name: funnel.name.clone(), hours: funnel.within_hours });
        }
        let steps = funnel.steps.iter().map(|step| step.as_str().into()).collect();
        let rule = FunnelRule { steps, within_ms: i64::from(funnel.within_hours) * HOUR_MS };
        if rules.insert(funnel.name.as_str().into(), rule).is_some() {
            return Err(Error::Twice { what: "funnels", event: funnel.name.clone() });
        }
    }
    Ok(rules)
}
