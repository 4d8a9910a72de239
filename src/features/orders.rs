//! Purchases: exact sums by currency, and the days of purchase that BG/NBD and Gamma-Gamma are fitted on.
//!
//! Purchases of one person on one UTC day are one transaction. The newest [`ORDER_DAYS_MAX`] days are kept one by one, older ones as a
//! count; an order on a day older than those counts as money, and as no new day. All amounts are integers.

use super::codec::{Error, Reader, put_i64, put_u64};
use super::days::{Days, day_of};
use crate::domain::{Currency, Millis, Money};

/// Enough for every day of the longest window.
pub const ORDER_DAYS_MAX: usize = 96;
/// Further currencies are summed under the code for "none".
pub const CURRENCIES_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrencySum {
    pub currency: Currency,
    pub orders: u64,
    pub revenue: Money,
    pub refunds: Money,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Orders {
    /// Sorted by currency.
    pub(crate) sums: Vec<CurrencySum>,
    pub(crate) orders: u64,
    pub(crate) first: Option<Millis>,
    pub(crate) last: Option<Millis>,
    /// Orders per day.
    pub(crate) days: Days,
    older_days: u64,
    /// Revenue in the home currency, in all and on the first day.
    revenue: i64,
    first_day_revenue: i64,
}

impl Orders {
    pub(crate) fn add(&mut self, time: Millis, amount: Money, currency: Currency, home: Currency) {
        let value = if currency == home { amount.0 } else { 0 };
        let day = day_of(time);
        match self.first.map(day_of) {
            Some(first) if first == day => self.first_day_revenue = self.first_day_revenue.saturating_add(value),
            Some(first) if first < day => {}
            _ => self.first_day_revenue = value,
        }
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        self.orders += 1;
        self.revenue = self.revenue.saturating_add(value);
        let sum = self.sum(currency);
        sum.orders += 1;
        sum.revenue = sum.revenue.saturating_add(amount);
        self.add_day(day);
    }

    pub(crate) fn refund(&mut self, amount: Money, currency: Currency) {
        let sum = self.sum(currency);
        sum.refunds = sum.refunds.saturating_add(amount);
    }

    fn sum(&mut self, currency: Currency) -> &mut CurrencySum {
        let find = |sums: &[CurrencySum], code: Currency| sums.binary_search_by_key(&code, |sum| sum.currency);
        let currency = match find(&self.sums, currency) {
            Err(_) if self.sums.len() >= CURRENCIES_MAX => Currency::UNKNOWN,
            _ => currency,
        };
        let at = match find(&self.sums, currency) {
            Ok(at) => at,
            Err(at) => {
                self.sums.insert(at, CurrencySum { currency, orders: 0, revenue: Money::ZERO, refunds: Money::ZERO });
                at
            }
        };
        &mut self.sums[at]
    }

    fn add_day(&mut self, day: i32) {
        let is_older = self.older_days > 0 && self.days.list.first().is_none_or(|first| day < first.0);
        if !is_older {
            self.days.add(day, 1);
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.days.list.len().saturating_sub(ORDER_DAYS_MAX);
        self.older_days += excess as u64;
        self.days.list.drain(..excess);
    }

    pub(crate) fn absorb(&mut self, other: &Orders) {
        for theirs in &other.sums {
            let mine = self.sum(theirs.currency);
            mine.orders = mine.orders.saturating_add(theirs.orders);
            mine.revenue = mine.revenue.saturating_add(theirs.revenue);
            mine.refunds = mine.refunds.saturating_add(theirs.refunds);
        }
        match (self.first.map(day_of), other.first.map(day_of)) {
            (Some(mine), Some(theirs)) if mine == theirs => {
                self.first_day_revenue = self.first_day_revenue.saturating_add(other.first_day_revenue);
            }
            (Some(mine), Some(theirs)) if mine < theirs => {}
            (_, None) => {}
            _ => self.first_day_revenue = other.first_day_revenue,
        }
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        self.orders = self.orders.saturating_add(other.orders);
        self.revenue = self.revenue.saturating_add(other.revenue);
        self.older_days = self.older_days.saturating_add(other.older_days);
        self.days.absorb(&other.days);
        self.trim();
    }

    /// x: days with an order after the first such day.
    pub(crate) fn repeats(&self) -> u64 {
        (self.older_days + self.days.list.len() as u64).saturating_sub(1)
    }

    /// t_x: days from the first order's day to the last order's.
    pub(crate) fn recency_days(&self) -> Option<i64> {
        Some(i64::from(day_of(self.last?)) - i64::from(day_of(self.first?)))
    }

    /// T: days from the first order's day to `now`'s.
    pub(crate) fn age_days(&self, now: Millis) -> Option<i64> {
        Some((i64::from(day_of(now)) - i64::from(day_of(self.first?))).max(0))
    }

    /// Mean value of the repeat transactions; `None` without any.
    pub(crate) fn repeat_mean(&self) -> Option<Money> {
        mean(self.revenue.saturating_sub(self.first_day_revenue), self.repeats())
    }

    pub(crate) fn order_mean(&self, home: Currency) -> Option<Money> {
        let sum = self.sums.iter().find(|sum| sum.currency == home)?;
        mean(sum.revenue.0, sum.orders)
    }

    pub(crate) fn revenue(&self, home: Currency) -> Money {
        self.sums.iter().find(|sum| sum.currency == home).map_or(Money::ZERO, |sum| sum.revenue)
    }

    pub(crate) fn refunds(&self, home: Currency) -> Money {
        self.sums.iter().find(|sum| sum.currency == home).map_or(Money::ZERO, |sum| sum.refunds)
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        put_u64(out, self.sums.len() as u64);
        for sum in &self.sums {
            out.extend_from_slice(&sum.currency.bytes());
            put_u64(out, sum.orders);
            put_i64(out, sum.revenue.0);
            put_i64(out, sum.refunds.0);
        }
        put_u64(out, self.orders);
        let (Some(first), Some(last)) = (self.first, self.last) else { return };
        put_u64(out, newest.since_ms(last) as u64);
        put_u64(out, last.since_ms(first) as u64);
        put_i64(out, self.revenue);
        put_i64(out, self.first_day_revenue);
        put_u64(out, self.older_days);
        self.days.encode(day_of(last), out);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Orders, Error> {
        let mut orders = Orders::default();
        for _ in 0..reader.len(CURRENCIES_MAX + 1)? {
            let code = std::str::from_utf8(reader.bytes(3)?).unwrap_or_default();
            let currency = Currency::parse(code);
            let sum = CurrencySum { currency, orders: reader.total()?, revenue: Money(reader.i64()?), refunds: Money(reader.i64()?) };
            if orders.sums.last().is_some_and(|last| last.currency >= currency) || currency.as_str() != code {
                return reader.broken("currencies out of order");
            }
            orders.sums.push(sum);
        }
        orders.orders = reader.total()?;
        if orders.orders == 0 {
            return Ok(orders);
        }
        let last = reader.time_before(newest)?;
        orders.last = Some(last);
        orders.first = Some(reader.time_before(last)?);
        orders.revenue = reader.i64()?;
        orders.first_day_revenue = reader.i64()?;
        orders.older_days = reader.total()?;
        orders.days = Days::decode(reader, day_of(last), ORDER_DAYS_MAX)?;
        if orders.days.list.is_empty() {
            return reader.broken("orders on no day");
        }
        Ok(orders)
    }
}

/// Rounded half away from zero.
fn mean(sum: i64, count: u64) -> Option<Money> {
    if count == 0 {
        return None;
    }
    let (sum, count) = (i128::from(sum), i128::from(count));
    let half = if sum < 0 { -count / 2 } else { count / 2 };
    i64::try_from((sum + half) / count).ok().map(Money)
}
