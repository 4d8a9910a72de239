//! The one table of everything that can be known about a person: names in expressions, columns in SQL, fields of the `profiles` record and
//! the rows of `docs/features.md` all follow from [`FIELDS`].
//!
//! Names never change meaning; a field that means something else gets a new name. Scores stand here too, their values come from `models`.

use std::ops::BitOr;

use super::counts::Window;
use super::name::EventName;
pub use crate::domain::{FieldType, Value};

/// Which accumulators a field is read from. An event reports the groups it changed; what depends on none of them need not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Groups(pub u16);

impl Groups {
    pub const NONE: Groups = Groups(0);
    pub const ACTIVITY: Groups = Groups(1);
    pub const COUNTS: Groups = Groups(1 << 1);
    pub const RECENT: Groups = Groups(1 << 2);
    pub const SESSIONS: Groups = Groups(1 << 3);
    pub const ORDERS: Groups = Groups(1 << 4);
    pub const PRODUCTS: Groups = Groups(1 << 5);
    pub const RHYTHM: Groups = Groups(1 << 6);
    pub const ENGAGEMENT: Groups = Groups(1 << 7);
    pub const TOUCHES: Groups = Groups(1 << 8);
    pub const TRAITS: Groups = Groups(1 << 9);
    pub const SCORES: Groups = Groups(1 << 10);
    pub const ALL: Groups = Groups((1 << 11) - 1);

    pub fn intersects(self, other: Groups) -> bool {
        self.0 & other.0 != 0
    }

    /// The heading of a single group in the documentation.
    pub fn title(self) -> &'static str {
        match self {
            Groups::ACTIVITY => "Recency and age",
            Groups::COUNTS => "Event counts",
            Groups::RECENT => "Intervals",
            Groups::SESSIONS => "Sessions",
            Groups::ORDERS => "Orders",
            Groups::PRODUCTS => "Products",
            Groups::RHYTHM => "Time of day",
            Groups::ENGAGEMENT => "Engagement with messages",
            Groups::TOUCHES => "Touches",
            Groups::TRAITS => "Traits",
            Groups::SCORES => "Scores",
            _ => "Several",
        }
    }
}

impl BitOr for Groups {
    type Output = Groups;
    fn bitor(self, other: Groups) -> Groups {
        Groups(self.0 | other.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldDef {
    pub field: Field,
    /// The name in expressions, records and SQL.
    pub name: &'static str,
    pub kind: FieldType,
    /// Whether the value can be `Null`.
    pub nullable: bool,
    pub unit: &'static str,
    pub window: &'static str,
    pub group: Groups,
    pub doc: &'static str,
}

macro_rules! fields {
    ($($field:ident $name:literal $kind:ident $null:literal $unit:literal $window:literal $group:ident $doc:literal;)+) => {
        /// A field of the table; as a number, its row in [`FIELDS`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Field { $($field),+ }

        pub const FIELDS: &[FieldDef] = &[$(FieldDef {
            field: Field::$field, name: $name, kind: FieldType::$kind, nullable: $null,
            unit: $unit, window: $window, group: Groups::$group, doc: $doc,
        }),+];
    };
}

fields! {
    FirstSeen "first_seen" Time true "" "lifetime" ACTIVITY "First act: a track, page or screen event that is not passive.";
    LastSeen "last_seen" Time true "" "lifetime" ACTIVITY "Latest act.";
    LastEvent "last_event" Time true "" "lifetime" ACTIVITY "Latest event of any kind, passive ones included.";
    AgeDays "age_days" Int true "days" "lifetime" ACTIVITY "Whole days since first_seen.";
    DaysSinceSeen "days_since_seen" Int true "days" "lifetime" ACTIVITY "Whole days since last_seen: recency.";
    Events "events" Int false "events" "lifetime" COUNTS "Events of every type: frequency.";
    Events1h "events_1h" Int false "events" "1 h, bins of 5 min" COUNTS "Events of every type in the last hour.";
    Events1d "events_1d" Int false "events" "1 d, bins of 1 h" COUNTS "Events of every type in the last day.";
    Events7d "events_7d" Int false "events" "7 d, bins of 1 d UTC" COUNTS "Events of every type in the last 7 days.";
    Events30d "events_30d" Int false "events" "30 d, bins of 1 d UTC" COUNTS "Events of every type in the last 30 days.";
    Events90d "events_90d" Int false "events" "90 d, bins of 1 d UTC" COUNTS "Events of every type in the last 90 days.";
    EventTypes "event_types" Int false "types" "lifetime" COUNTS "Event types with a counter of their own; further types count as one.";
    ActiveDays30d "active_days_30d" Int false "days" "30 d, bins of 1 d UTC" COUNTS "Days with an act.";
    ActiveDays90d "active_days_90d" Int false "days" "90 d, bins of 1 d UTC" COUNTS "Days with an act.";
    Acts7d "acts_7d" Int false "events" "7 d, bins of 1 d UTC" COUNTS "Acts in the last 7 days.";
    ActsPrior7d "acts_prior_7d" Int false "events" "the 7 d before, bins of 1 d UTC" COUNTS "Acts in the 7 days before the last 7.";
    ActivityChange7d "activity_change_7d" Float false "-1 to 1" "14 d, bins of 1 d UTC" COUNTS "(acts_7d - acts_prior_7d) / (acts_7d + acts_prior_7d); 0 without any.";
    LastGapSeconds "last_gap_s" Float true "seconds" "last 50 acts" RECENT "Between the latest two acts.";
    IntervalMeanSeconds "interval_mean_s" Float true "seconds" "last 50 acts" RECENT "Mean time between neighbouring acts.";
    IntervalVariance "interval_variance_s2" Float true "seconds squared" "last 50 acts" RECENT "Variance of the time between neighbouring acts.";
    Sessions "sessions" Int false "sessions" "lifetime" SESSIONS "Sessions: acts with no pause longer than 30 min (session_gap_minutes).";
    SessionOpen "session_open" Bool false "" "now" SESSIONS "Whether the latest session may still go on.";
    SessionStarted "session_started" Time true "" "latest session" SESSIONS "First act of the latest session.";
    SessionEnded "session_ended" Time true "" "latest session" SESSIONS "Latest act of the latest session.";
    SessionSeconds "session_s" Float true "seconds" "latest session" SESSIONS "Length of the latest session.";
    SessionEvents "session_events" Int true "events" "latest session" SESSIONS "Acts in the latest session.";
    SessionMeanSeconds "session_mean_s" Float true "seconds" "lifetime" SESSIONS "Mean length of a session.";
    SessionMeanEvents "session_mean_events" Float true "events" "lifetime" SESSIONS "Mean acts per session.";
    Bounces "bounces" Int false "sessions" "lifetime" SESSIONS "Sessions of a single act.";
    BounceRate "bounce_rate" Float true "0 to 1" "lifetime" SESSIONS "bounces / sessions.";
    VisitGapMeanDays "visit_gap_mean_d" Float true "days" "last 32 sessions" SESSIONS "Mean time from a session's end to the next one's start.";
    Orders "orders" Int false "orders" "lifetime" ORDERS "Order events.";
    Orders30d "orders_30d" Int false "orders" "30 d, bins of 1 d UTC" ORDERS "Order events in the last 30 days.";
    Orders90d "orders_90d" Int false "orders" "90 d, bins of 1 d UTC" ORDERS "Order events in the last 90 days.";
    FirstOrder "first_order" Time true "" "lifetime" ORDERS "First order.";
    LastOrder "last_order" Time true "" "lifetime" ORDERS "Latest order.";
    DaysSinceOrder "days_since_order" Int true "days" "lifetime" ORDERS "Whole days since last_order.";
    Revenue "revenue" Money false "home currency" "lifetime" ORDERS "Sum of orders in the home currency (orders.currency).";
    Refunds "refunds" Money false "home currency" "lifetime" ORDERS "Sum of refund events in the home currency.";
    OrderMean "order_mean" Money true "home currency" "lifetime" ORDERS "Mean value of an order in the home currency.";
    RepeatPurchases "repeat_purchases" Int false "days" "lifetime" ORDERS "x of BG/NBD: UTC days with an order after the first such day.";
    PurchaseRecencyDays "purchase_recency_d" Int true "days" "lifetime" ORDERS "t_x of BG/NBD: from the first order's UTC day to the last order's (weeks = days / 7).";
    PurchaseAgeDays "purchase_age_d" Int true "days" "lifetime" ORDERS "T of BG/NBD: from the first order's UTC day to today (weeks = days / 7).";
    RepeatMean "repeat_mean" Money true "home currency" "lifetime" ORDERS "m of Gamma-Gamma: mean value of the days counted by repeat_purchases.";
    DistinctProducts "distinct_products" Int false "products" "lifetime" PRODUCTS "Different products; exact up to 32, then within about 7 %.";
    DistinctCategories "distinct_categories" Int false "categories" "lifetime" PRODUCTS "Different categories; exact up to 32, then within about 7 %.";
    TimeZone "time_zone" Text true "IANA name" "latest" RHYTHM "From context.timezone or the trait timezone.";
    PreferredHour "preferred_hour" Int true "0 to 23, local" "lifetime" RHYTHM "Hour of the day with the most acts, in the person's time zone (UTC where unknown).";
    PreferredWeekday "preferred_weekday" Int true "1 Monday to 7 Sunday, local" "lifetime" RHYTHM "Weekday with the most acts, in the person's time zone.";
    EmailSent "email_sent" Int false "messages" "lifetime" ENGAGEMENT "Mails sent.";
    EmailOpened "email_opened" Int false "openings" "lifetime" ENGAGEMENT "Openings of mails.";
    EmailClicked "email_clicked" Int false "clicks" "lifetime" ENGAGEMENT "Clicks in mails.";
    PushSent "push_sent" Int false "messages" "lifetime" ENGAGEMENT "Push notifications sent.";
    PushOpened "push_opened" Int false "openings" "lifetime" ENGAGEMENT "Push notifications seen.";
    PushClicked "push_clicked" Int false "clicks" "lifetime" ENGAGEMENT "Push notifications tapped.";
    SmsSent "sms_sent" Int false "messages" "lifetime" ENGAGEMENT "Text messages sent.";
    SmsOpened "sms_opened" Int false "openings" "lifetime" ENGAGEMENT "Text messages known to be read.";
    SmsClicked "sms_clicked" Int false "clicks" "lifetime" ENGAGEMENT "Clicks in text messages.";
    InAppSent "in_app_sent" Int false "messages" "lifetime" ENGAGEMENT "In-app messages sent.";
    InAppOpened "in_app_opened" Int false "openings" "lifetime" ENGAGEMENT "In-app messages seen.";
    InAppClicked "in_app_clicked" Int false "clicks" "lifetime" ENGAGEMENT "Clicks in in-app messages.";
    LastReaction "last_reaction" Time true "" "lifetime" ENGAGEMENT "Latest opening or click on any channel.";
    FirstTouchAt "first_touch_at" Time true "" "lifetime" TOUCHES "First act with a campaign or a foreign referrer.";
    FirstTouchSource "first_touch_source" Text true "" "lifetime" TOUCHES "utm_source of the first touch.";
    FirstTouchMedium "first_touch_medium" Text true "" "lifetime" TOUCHES "utm_medium of the first touch.";
    FirstTouchCampaign "first_touch_campaign" Text true "" "lifetime" TOUCHES "utm_campaign of the first touch.";
    FirstTouchContent "first_touch_content" Text true "" "lifetime" TOUCHES "utm_content of the first touch.";
    FirstTouchReferrer "first_touch_referrer" Text true "host" "lifetime" TOUCHES "Referring host of the first touch.";
    LastTouchAt "last_touch_at" Time true "" "lifetime" TOUCHES "Latest act with a campaign or a foreign referrer.";
    LastTouchSource "last_touch_source" Text true "" "lifetime" TOUCHES "utm_source of the latest touch.";
    LastTouchMedium "last_touch_medium" Text true "" "lifetime" TOUCHES "utm_medium of the latest touch.";
    LastTouchCampaign "last_touch_campaign" Text true "" "lifetime" TOUCHES "utm_campaign of the latest touch.";
    LastTouchContent "last_touch_content" Text true "" "lifetime" TOUCHES "utm_content of the latest touch.";
    LastTouchReferrer "last_touch_referrer" Text true "host" "lifetime" TOUCHES "Referring host of the latest touch.";
    Engagement "engagement" Float false "0 to 1" "30 d" SCORES "How much the person does with us: acts, active days, reactions to messages, trend.";
    Intent "intent" Float false "0 to 1" "last 50 acts" SCORES "How close to a purchase the last acts look.";
    Churn "churn" Float true "0 to 1" "last 32 sessions" SCORES "How unusual the present silence is for this person.";
    Lead "lead" Float false "0 to 1" "" SCORES "0.4 behaviour + 0.3 firmographic + 0.3 predictive.";
    LeadQualified "lead_qualified" Bool false "" "" SCORES "Whether lead is above 0.7.";
}

impl Field {
    pub fn def(self) -> &'static FieldDef {
        &FIELDS[self as usize]
    }

    pub fn parse(name: &str) -> Option<Field> {
        FIELDS.iter().find(|def| def.name == name).map(|def| def.field)
    }
}

/// Anything an expression can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldId {
    Named(Field),
    /// `count(event, window)`; without a window, over the person's lifetime.
    EventCount {
        event: EventName,
        window: Option<Window>,
    },
    /// `funnel(name)`: the furthest step reached, 0 for none.
    Funnel(Box<str>),
    /// `trait(name)`.
    Trait(Box<str>),
}

/// A function that expressions can call with literal texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionDef {
    pub signature: &'static str,
    pub kind: FieldType,
    pub unit: &'static str,
    pub window: &'static str,
    pub doc: &'static str,
}

pub const FUNCTIONS: &[FunctionDef] = &[
    FunctionDef {
        signature: "count(event, window)",
        kind: FieldType::Int,
        unit: "events",
        window: "1h, 1d, 7d, 30d, 90d or all",
        doc: "Events of one type: a track's name, or page, screen, identify, group, alias.",
    },
    FunctionDef {
        signature: "funnel(name)",
        kind: FieldType::Int,
        unit: "steps",
        window: "last 50 acts, within_hours of the funnel",
        doc: "The furthest step reached since the funnel was last completed, while its time lasts; all steps once completed.",
    },
    FunctionDef {
        signature: "trait(name)",
        kind: FieldType::Text,
        unit: "",
        window: "latest",
        doc: "A trait from identify, or group.NAME from group; null where unknown.",
    },
];

/// How a field's value moves while nothing happens to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Only events change it.
    Still,
    /// Grows by one per day from its own origin (`Profile::grows_from`).
    Counts,
    /// Never grows by itself: what a window still holds.
    Falls,
    /// Changes at `next_change` in a way that only reading it tells.
    Moves,
    /// The same, and reading is dear: scores.
    Dear,
}

impl Field {
    pub fn motion(self) -> Motion {
        match self {
            Field::AgeDays | Field::DaysSinceSeen | Field::DaysSinceOrder | Field::PurchaseAgeDays => Motion::Counts,
            Field::Events1h | Field::Events1d | Field::Events7d | Field::Events30d | Field::Events90d => Motion::Falls,
            Field::ActiveDays30d | Field::ActiveDays90d | Field::Acts7d | Field::Orders30d | Field::Orders90d => Motion::Falls,
            Field::ActsPrior7d | Field::ActivityChange7d | Field::SessionOpen => Motion::Moves,
            field if field.def().group == Groups::SCORES => Motion::Dear,
            _ => Motion::Still,
        }
    }
}

impl FieldId {
    pub fn motion(&self) -> Motion {
        match self {
            FieldId::Named(field) => field.motion(),
            FieldId::EventCount { window: Some(_), .. } => Motion::Falls,
            FieldId::EventCount { window: None, .. } | FieldId::Trait(_) => Motion::Still,
            FieldId::Funnel(_) => Motion::Moves,
        }
    }

    pub fn kind(&self) -> FieldType {
        match self {
            FieldId::Named(field) => field.def().kind,
            FieldId::EventCount { .. } | FieldId::Funnel(_) => FieldType::Int,
            FieldId::Trait(_) => FieldType::Text,
        }
    }

    pub fn nullable(&self) -> bool {
        match self {
            FieldId::Named(field) => field.def().nullable,
            FieldId::EventCount { .. } | FieldId::Funnel(_) => false,
            FieldId::Trait(_) => true,
        }
    }

    pub fn group(&self) -> Groups {
        match self {
            FieldId::Named(field) => field.def().group,
            FieldId::EventCount { .. } => Groups::COUNTS,
            FieldId::Funnel(_) => Groups::RECENT,
            FieldId::Trait(_) => Groups::TRAITS,
        }
    }
}
