//! Reading fields: a value at a time, and when it can next differ although nothing happens.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::counts::{TypeCount, Window};
use super::fields::{FIELDS, Field, FieldId, Value};
use super::name::EventName;
use super::orders::Orders;
use super::sessions::Older;
use super::settings::{Channel, Reaction, Rules};
use super::touch::Touch;
use super::{Profile, funnel};
use crate::domain::{DAY_MS, Millis, Money};

/// Without an act for this long a person is dormant: their day counters go on when read, but wake nobody any more.
pub const DORMANT_DAYS: i64 = 730;

/// What several fields are read from, once it was asked for.
#[derive(Default)]
struct Shared {
    windows: OnceCell<[u64; 5]>,
    sessions: OnceCell<Older>,
    moments: OnceCell<Option<(f64, f64)>>,
    preferred: OnceCell<Option<(i64, i64)>>,
}

impl Profile {
    /// The field's value at `now`. Scores are `Null` here: `models::View` knows them.
    pub fn value<'a>(&'a self, field: &FieldId, now: Millis, rules: &Rules) -> Value<'a> {
        match field {
            FieldId::Named(field) => self.named(*field, now, rules, &Shared::default()),
            FieldId::EventCount { event, window } => int(self.counted(event).map_or(0, |entry| entry.count(*window, now))),
            FieldId::Funnel(name) => int(self.funnel_steps(name, now, rules)),
            FieldId::Trait(name) => self.trait_value(name),
        }
    }

    /// Events of one type in `window` at `now`, or ever.
    pub fn event_count(&self, event: &str, window: Option<Window>, now: Millis) -> u64 {
        self.counts.slot(event).map_or(0, |slot| self.counts.types[slot].count(window, now))
    }

    fn counted(&self, event: &EventName) -> Option<&TypeCount> {
        self.counts.slot_of(event).map(|slot| &self.counts.types[slot])
    }

    /// The furthest step reached in a declared funnel, 0 for none.
    pub fn funnel_steps(&self, name: &str, now: Millis, rules: &Rules) -> u64 {
        rules.funnels.get(name).map_or(0, |funnel| funnel::progress(self, funnel, now).steps as u64)
    }

    fn trait_value(&self, name: &str) -> Value<'_> {
        self.trait_text(name).map_or(Value::Null, Value::Text)
    }

    /// A trait as text: a string's characters, anything else as it stands in JSON; `None` where unknown or null.
    pub fn trait_text(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.trait_json(name)? {
            "null" => None,
            "\"\"" => Some(Cow::Borrowed("")),
            json => Some(super::json::text(json).unwrap_or(Cow::Borrowed(json))),
        }
    }

    fn window_total(&self, window: Window, now: Millis, shared: &Shared) -> Value<'_> {
        match shared.windows.get() {
            Some(totals) => int(totals[window as usize]),
            None => int(self.counts.types.iter().map(|entry| entry.within(window, now)).sum()),
        }
    }

    /// Every value of `FIELDS` in its order, reading what several fields need only once.
    pub fn row<'a>(&'a self, now: Millis, rules: &Rules) -> impl Iterator<Item = Value<'a>> {
        let mut totals = [0; 5];
        for entry in &self.counts.types {
            entry.add_windows(now, &mut totals);
        }
        let shared = Shared { windows: OnceCell::from(totals), ..Shared::default() };
        FIELDS.iter().map(move |def| self.named(def.field, now, rules, &shared))
    }

    /// Days of the last `days` with an act.
    pub(crate) fn active_days(&self, days: i32, now: Millis) -> u64 {
        self.acts.active(days, now)
    }

    /// Acts in the last `days` days.
    pub(crate) fn acts_within(&self, days: i32, now: Millis) -> u64 {
        self.acts.sum_back(days - 1, 0, now)
    }

    /// Acts in the last seven days, and in the seven before.
    pub(crate) fn acts_by_week(&self, now: Millis) -> (u64, u64) {
        (self.acts.sum_back(6, 0, now), self.acts.sum_back(13, 7, now))
    }

    pub(crate) fn reactions_and_sent(&self) -> (u64, u64) {
        self.reach.as_ref().map_or((0, 0), |reach| reach.reactions_and_sent())
    }

    pub(crate) fn orders(&self) -> Option<&Orders> {
        self.orders.as_deref()
    }

    #[rustfmt::skip]
    fn named(&self, field: Field, now: Millis, rules: &Rules, shared: &Shared) -> Value<'_> {
        let orders = self.orders();
        match field {
            Field::FirstSeen => time(self.seen.map(|seen| seen.0)),
            Field::LastSeen => time(self.seen.map(|seen| seen.1)),
            Field::LastEvent => time(self.newest),
            Field::AgeDays => days_since(self.seen.map(|seen| seen.0), now),
            Field::DaysSinceSeen => days_since(self.seen.map(|seen| seen.1), now),
            Field::Events => int(self.counts.types.iter().map(|entry| entry.total).sum()),
            Field::Events1h => self.window_total(Window::Hour, now, shared),
            Field::Events1d => self.window_total(Window::Day, now, shared),
            Field::Events7d => self.window_total(Window::Days7, now, shared),
            Field::Events30d => self.window_total(Window::Days30, now, shared),
            Field::Events90d => self.window_total(Window::Days90, now, shared),
            Field::EventTypes => int(self.counts.types.len() as u64),
            Field::ActiveDays30d => int(self.active_days(30, now)),
            Field::ActiveDays90d => int(self.active_days(90, now)),
            Field::Acts7d => int(self.acts_by_week(now).0),
            Field::ActsPrior7d => int(self.acts_by_week(now).1),
            Field::ActivityChange7d => Value::Float(change(self.acts_by_week(now))),
            Field::LastGapSeconds => seconds(self.recent.gaps().last()),
            Field::IntervalMeanSeconds => float(shared.moments.get_or_init(|| self.interval_moments()).map(|moments| moments.0)),
            Field::IntervalVariance => float(shared.moments.get_or_init(|| self.interval_moments()).map(|moments| moments.1)),
            Field::Sessions => int(self.session_sums(shared).sessions),
            Field::SessionOpen => Value::Bool(self.session_closes(rules).is_some_and(|closes| now < closes)),
            Field::SessionStarted => time(self.sessions.kept.last().map(|session| session.start)),
            Field::SessionEnded => time(self.sessions.kept.last().map(|session| session.end)),
            Field::SessionSeconds => seconds(self.sessions.kept.last().map(|session| session.length_ms())),
            Field::SessionEvents => self.sessions.kept.last().map_or(Value::Null, |session| int(u64::from(session.events))),
            Field::SessionMeanSeconds => self.per_session(shared, |sums| sums.length_ms as f64 / 1_000.0),
            Field::SessionMeanEvents => self.per_session(shared, |sums| sums.events as f64),
            Field::Bounces => int(self.session_sums(shared).bounces),
            Field::BounceRate => self.per_session(shared, |sums| sums.bounces as f64),
            Field::VisitGapMeanDays => float(self.visit_gap_mean_days()),
            Field::Orders => int(orders.map_or(0, |orders| orders.orders)),
            Field::Orders30d => int(orders.map_or(0, |orders| orders.days.sum_back(29, 0, now))),
            Field::Orders90d => int(orders.map_or(0, |orders| orders.days.sum_back(89, 0, now))),
            Field::FirstOrder => time(orders.and_then(|orders| orders.first)),
            Field::LastOrder => time(orders.and_then(|orders| orders.last)),
            Field::DaysSinceOrder => days_since(orders.and_then(|orders| orders.last), now),
            Field::Revenue => Value::Money(orders.map_or(Money::ZERO, |orders| orders.revenue(rules.currency))),
            Field::Refunds => Value::Money(orders.map_or(Money::ZERO, |orders| orders.refunds(rules.currency))),
            Field::OrderMean => money(orders.and_then(|orders| orders.order_mean(rules.currency))),
            Field::RepeatPurchases => int(orders.map_or(0, |orders| orders.repeats())),
            Field::PurchaseRecencyDays => opt_int(orders.and_then(|orders| orders.recency_days())),
            Field::PurchaseAgeDays => opt_int(orders.and_then(|orders| orders.age_days(now))),
            Field::RepeatMean => money(orders.and_then(|orders| orders.repeat_mean())),
            Field::DistinctProducts => int(self.products.count()),
            Field::DistinctCategories => int(self.categories.count()),
            Field::TimeZone => text(self.rhythm.zone()),
            Field::PreferredHour => opt_int(shared.preferred.get_or_init(|| self.preferred()).map(|preferred| preferred.0)),
            Field::PreferredWeekday => opt_int(shared.preferred.get_or_init(|| self.preferred()).map(|preferred| preferred.1)),
            Field::EmailSent => self.reached(Channel::Email, Reaction::Sent),
            Field::EmailOpened => self.reached(Channel::Email, Reaction::Opened),
            Field::EmailClicked => self.reached(Channel::Email, Reaction::Clicked),
            Field::PushSent => self.reached(Channel::Push, Reaction::Sent),
            Field::PushOpened => self.reached(Channel::Push, Reaction::Opened),
            Field::PushClicked => self.reached(Channel::Push, Reaction::Clicked),
            Field::SmsSent => self.reached(Channel::Sms, Reaction::Sent),
            Field::SmsOpened => self.reached(Channel::Sms, Reaction::Opened),
            Field::SmsClicked => self.reached(Channel::Sms, Reaction::Clicked),
            Field::InAppSent => self.reached(Channel::InApp, Reaction::Sent),
            Field::InAppOpened => self.reached(Channel::InApp, Reaction::Opened),
            Field::InAppClicked => self.reached(Channel::InApp, Reaction::Clicked),
            Field::LastReaction => time(self.reach.as_ref().and_then(|reach| reach.last_reaction)),
            Field::FirstTouchAt => time(self.touches.as_ref().map(|touches| touches.first.at)),
            Field::FirstTouchSource => self.first_touch(|touch| &touch.source),
            Field::FirstTouchMedium => self.first_touch(|touch| &touch.medium),
            Field::FirstTouchCampaign => self.first_touch(|touch| &touch.campaign),
            Field::FirstTouchContent => self.first_touch(|touch| &touch.content),
            Field::FirstTouchReferrer => self.first_touch(|touch| &touch.referrer),
            Field::LastTouchAt => time(self.touches.as_ref().map(|touches| touches.last.at)),
            Field::LastTouchSource => self.last_touch(|touch| &touch.source),
            Field::LastTouchMedium => self.last_touch(|touch| &touch.medium),
            Field::LastTouchCampaign => self.last_touch(|touch| &touch.campaign),
            Field::LastTouchContent => self.last_touch(|touch| &touch.content),
            Field::LastTouchReferrer => self.last_touch(|touch| &touch.referrer),
            Field::Engagement | Field::Intent | Field::Churn | Field::Lead | Field::LeadQualified => Value::Null,
        }
    }

    /// Mean and variance of the gaps between the last acts, in seconds; sums are exact integers.
    fn interval_moments(&self) -> Option<(f64, f64)> {
        let (mut count, mut sum, mut squares) = (0i128, 0i128, 0i128);
        for gap in self.recent.gaps() {
            let gap = i128::from(gap);
            (count, sum, squares) = (count + 1, sum + gap, squares + gap * gap);
        }
        if count == 0 {
            return None;
        }
        let n = count as f64;
        let mean = sum as f64 / n / 1e3;
        let variance = (squares * count - sum * sum) as f64 / (n * n) / 1e6;
        Some((mean, variance))
    }

    fn session_sums<'s>(&self, shared: &'s Shared) -> &'s Older {
        shared.sessions.get_or_init(|| self.sessions.sums())
    }

    fn per_session(&self, shared: &Shared, of: impl Fn(&Older) -> f64) -> Value<'_> {
        let sums = self.session_sums(shared);
        if sums.sessions == 0 { Value::Null } else { Value::Float(of(sums) / sums.sessions as f64) }
    }

    fn visit_gap_mean_days(&self) -> Option<f64> {
        let gaps = self.sessions.kept.windows(2).map(|pair| pair[1].start.since_ms(pair[0].end));
        let (count, sum) = gaps.fold((0i64, 0i64), |(count, sum), gap| (count + 1, sum + gap));
        (count > 0).then(|| sum as f64 / count as f64 / DAY_MS as f64)
    }

    /// The first moment at which an act would begin a new session.
    fn session_closes(&self, rules: &Rules) -> Option<Millis> {
        self.sessions.kept.last().map(|session| session.end + (rules.session_gap_ms + 1))
    }

    fn preferred(&self) -> Option<(i64, i64)> {
        self.rhythm.preferred(self.seen?.1)
    }

    fn reached(&self, channel: Channel, reaction: Reaction) -> Value<'_> {
        int(self.reach.as_ref().map_or(0, |reach| reach.count(channel, reaction)))
    }

    fn first_touch(&self, part: impl Fn(&Touch) -> &str) -> Value<'_> {
        text(self.touches.as_ref().map(|touches| part(&touches.first)))
    }

    fn last_touch(&self, part: impl Fn(&Touch) -> &str) -> Value<'_> {
        text(self.touches.as_ref().map(|touches| part(&touches.last)))
    }
}

/// When values change by time alone.
impl Profile {
    /// The earliest time after `after` at which the field's value can differ without new events. `None` if it never will, or only for a
    /// person who is dormant by then. Scores: see `models::View`.
    pub fn next_change(&self, field: &FieldId, after: Millis, rules: &Rules) -> Option<Millis> {
        if let Some((origin, unit)) = self.grows_from(field) {
            let next = origin + (after.since_ms(origin).max(-1).div_euclid(unit) + 1) * unit;
            return (after < self.dormant_at()?).then_some(next);
        }
        let next = match field {
            FieldId::EventCount { event, window } => self.counted(event)?.leaves((*window)?, after),
            FieldId::Funnel(name) => funnel::progress(self, rules.funnels.get(name)?, after).lapses,
            FieldId::Trait(_) => None,
            FieldId::Named(field) => self.named_next_change(*field, after, rules),
        };
        next.filter(|next| *next > after)
    }

    /// [`value`](Profile::value) and [`next_change`](Profile::next_change) at once.
    pub fn value_and_change<'a>(&'a self, field: &FieldId, now: Millis, rules: &Rules) -> (Value<'a>, Option<Millis>) {
        match field {
            FieldId::EventCount { event, window } => {
                let Some(entry) = self.counted(event) else { return (int(0), None) };
                let leaves = window.and_then(|window| entry.leaves(window, now));
                (int(entry.count(*window, now)), leaves.filter(|next| *next > now))
            }
            FieldId::Funnel(name) => {
                let Some(funnel) = rules.funnels.get(name) else { return (int(0), None) };
                let progress = funnel::progress(self, funnel, now);
                (int(progress.steps as u64), progress.lapses.filter(|next| *next > now))
            }
            _ => (self.value(field, now, rules), self.next_change(field, now, rules)),
        }
    }

    fn named_next_change(&self, field: Field, after: Millis, rules: &Rules) -> Option<Millis> {
        let all = |window: Window| self.counts.types.iter().filter_map(|entry| entry.leaves(window, after)).min();
        let acts = |days: i32| self.acts.leaves(days, after);
        let orders = |days: i32| self.orders()?.days.leaves(days, after);
        match field {
            Field::Events1h => all(Window::Hour),
            Field::Events1d => all(Window::Day),
            Field::Events7d => all(Window::Days7),
            Field::Events30d => all(Window::Days30),
            Field::Events90d => all(Window::Days90),
            Field::ActiveDays30d => acts(30),
            Field::ActiveDays90d => acts(90),
            Field::Acts7d => acts(7),
            Field::ActsPrior7d | Field::ActivityChange7d => [acts(7), acts(14)].into_iter().flatten().min(),
            Field::Orders30d => orders(30),
            Field::Orders90d => orders(90),
            Field::SessionOpen => self.session_closes(rules),
            _ => None,
        }
    }

    /// For a field that only grows with time: its value at `now` is `(now - origin) / unit` rounded down, so it reaches `n` at
    /// `origin + n * unit`. A predicate on it needs one wake-up, not one per day.
    pub fn grows_from(&self, field: &FieldId) -> Option<(Millis, i64)> {
        let FieldId::Named(field) = field else { return None };
        let origin = match field {
            Field::AgeDays => self.seen?.0,
            Field::DaysSinceSeen => self.seen?.1,
            Field::DaysSinceOrder => self.orders()?.last?,
            Field::PurchaseAgeDays => self.orders()?.first?.floor_to(DAY_MS),
            _ => return None,
        };
        Some((origin, DAY_MS))
    }

    /// From when on time alone wakes this person no more.
    pub fn dormant_at(&self) -> Option<Millis> {
        self.newest.map(|newest| newest + DORMANT_DAYS * DAY_MS)
    }
}

pub(crate) fn change((now, before): (u64, u64)) -> f64 {
    if now + before == 0 { 0.0 } else { (now as f64 - before as f64) / (now as f64 + before as f64) }
}

fn int<'a>(count: u64) -> Value<'a> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn opt_int<'a>(value: Option<i64>) -> Value<'a> {
    value.map_or(Value::Null, Value::Int)
}

fn float<'a>(value: Option<f64>) -> Value<'a> {
    value.map_or(Value::Null, Value::Float)
}

fn seconds<'a>(ms: Option<i64>) -> Value<'a> {
    float(ms.map(|ms| ms as f64 / 1_000.0))
}

fn time<'a>(value: Option<Millis>) -> Value<'a> {
    value.map_or(Value::Null, Value::Time)
}

fn money<'a>(value: Option<Money>) -> Value<'a> {
    value.map_or(Value::Null, Value::Money)
}

/// Text that is empty says nothing.
fn text(value: Option<&str>) -> Value<'_> {
    value.filter(|text| !text.is_empty()).map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text)))
}

fn days_since<'a>(origin: Option<Millis>, now: Millis) -> Value<'a> {
    opt_int(origin.map(|origin| now.since_ms(origin).max(0) / DAY_MS))
}
