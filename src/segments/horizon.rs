//! When a predicate can flip although nothing happens: the wake-up that a person's key asks for.
//!
//! Every node answers with its value now and a time before which that value cannot change. A false side of `&&` hides the other
//! sides' changes, so that a person without orders is not woken for how long the last one is ago. Comparisons of a counting field
//! ("days since") or of `now` with something still are solved instead of stepped through, so that sixty days of silence are one wake.

use std::cmp::Ordering;

use super::catalog::{Clock, Lookup, Value};
use super::operands::{Arithmetic, Comparison, FloatNode, IntNode, Scope, Slot, TextNode};
use super::predicate::{BoolNode, Predicate, compare_floats};
use crate::domain::{DAY_MS, Millis};

/// How many possible changes are looked at before one of them is given as the wake although the outcome there may be the same:
/// windows fall out bin by bin, and 16 evaluations cost less than one wake.
const LOOKAHEAD_MAX: usize = 16;

/// How far ahead a flip is searched for: beyond four years the next change is given instead.
const SEARCH_MS_MAX: i64 = 1_461 * DAY_MS;

const NEVER: Millis = Millis::MAX;

impl<F> Predicate<F> {
    /// The earliest time after `now` at which the outcome can differ from now's if nothing happens to the person, never later than
    /// it does; `None` when it never will. A wake at that time evaluates again and asks again.
    pub fn next_flip(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> Option<Millis> {
        self.next_flip_by(lookup, now, NEVER)
    }

    /// [`next_flip`](Predicate::next_flip) if it is at or before `horizon`. Between two events of a person that lie close together it nearly
    /// never is, and saying so takes no search.
    pub fn next_flip_by(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis, horizon: Millis) -> Option<Millis> {
        let (outcome, mut until) = self.scope(lookup, now, horizon).bool_until(&self.root);
        let is_member = outcome == Some(true);
        let lookahead = if self.is_dear() { 0 } else { LOOKAHEAD_MAX };
        for _ in 0..lookahead {
            if until == NEVER || until > horizon {
                return None;
            }
            let (later, next) = self.scope(lookup, until, horizon).bool_until(&self.root);
            if (later == Some(true)) != is_member {
                return Some(until);
            }
            assert!(next > until, "a field's next change must lie after the time it is asked for");
            until = next;
        }
        (until != NEVER && until <= horizon).then_some(until)
    }

    fn scope<'a, L: Lookup<F> + ?Sized>(&'a self, lookup: &'a L, now: Millis, horizon: Millis) -> Scope<'a, F, L> {
        Scope { fields: &self.fields, lookup, now, horizon }
    }
}

/// A number now, and how it moves.
#[derive(Debug, Clone, Copy)]
struct Moving<T> {
    value: Option<T>,
    motion: Motion,
    /// Nothing but `motion` changes it before this.
    until: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Motion {
    Still,
    /// Grows by this much with every millisecond.
    Slope(i64),
    /// Grows by one at `first` and then every `every_ms`.
    Steps {
        first: Millis,
        every_ms: i64,
    },
    /// Only rises or only falls, at `next` at the earliest.
    OneWay {
        rises: bool,
        next: Millis,
    },
}

impl<T> Moving<T> {
    fn still(value: Option<T>, until: Millis) -> Self {
        Self { value, motion: Motion::Still, until }
    }

    /// The same number for users that cannot reason about its motion: its first change is a change.
    fn until_any_change(&self, now: Millis) -> Millis {
        let moved = match self.motion {
            Motion::Still | Motion::Slope(0) => NEVER,
            Motion::Slope(_) => now + 1,
            Motion::Steps { first, .. } => first,
            Motion::OneWay { next, .. } => next,
        };
        moved.min(self.until)
    }
}

impl<'a, F, L: Lookup<F> + ?Sized> Scope<'a, F, L> {
    pub(super) fn bool_until(&self, node: &BoolNode) -> (Option<bool>, Millis) {
        let until = match node {
            BoolNode::Const(_) => NEVER,
            BoolNode::Field(slot) | BoolNode::Known(slot) => self.next_change(*slot),
            BoolNode::Not(inner) => {
                let (value, until) = self.bool_until(inner);
                return (value.map(|value| !value), until);
            }
            BoolNode::And(parts) => return self.parts_until(parts, false),
            BoolNode::Or(parts) => return self.parts_until(parts, true),
            BoolNode::If(parts) => {
                let (condition, until) = self.bool_until(&parts.0);
                let chosen = match condition {
                    Some(true) => &parts.1,
                    Some(false) => &parts.2,
                    None => return (None, until),
                };
                let (value, chosen_until) = self.bool_until(chosen);
                return (value, until.min(chosen_until));
            }
            BoolNode::Same(_, sides) => self.bool_until(&sides.0).1.min(self.bool_until(&sides.1).1),
            BoolNode::Ints(comparison, sides) => {
                let (left, right) = (self.int_moving(&sides.0), self.int_moving(&sides.1));
                let outcome = left.value.zip(right.value).map(|(left, right)| comparison.holds(left.cmp(&right)));
                return (outcome, self.ints_until(node, *comparison, left, right));
            }
            BoolNode::Floats(comparison, sides) => {
                let (left, right) = (self.float_moving(&sides.0), self.float_moving(&sides.1));
                let outcome = left.value.zip(right.value).and_then(|(left, right)| compare_floats(*comparison, left, right));
                return (outcome, self.floats_until(node, *comparison, left, right));
            }
            BoolNode::Texts(_, sides) | BoolNode::Text(_, sides) => self.text_until(&sides.0).min(self.text_until(&sides.1)),
            BoolNode::OneOfInts(parts) => {
                let number = self.int_moving(&parts.0);
                let outcome = number.value.map(|number| parts.1.binary_search(&number).is_ok());
                return (outcome, number.until_any_change(self.now));
            }
            BoolNode::OneOfTexts(parts) => self.text_until(&parts.0),
        };
        (self.bool(node), until)
    }

    /// For `&&` the deciding value is false: as long as one side stays false the outcome does.
    fn parts_until(&self, parts: &[BoolNode], deciding: bool) -> (Option<bool>, Millis) {
        let (mut decided_until, mut any_until, mut known) = (None, NEVER, true);
        for part in parts {
            let (value, until) = self.bool_until(part);
            if value == Some(deciding) {
                if until == NEVER {
                    return (Some(deciding), NEVER);
                }
                decided_until = decided_until.max(Some(until));
            }
            any_until = any_until.min(until);
            known &= value.is_some();
        }
        match decided_until {
            Some(until) => (Some(deciding), until),
            None => (known.then_some(!deciding), any_until),
        }
    }

    fn next_change(&self, slot: Slot) -> Millis {
        let field = &self.fields[usize::from(slot)];
        match field.clock {
            Clock::Still => NEVER,
            _ => self.lookup.next_change(&field.id, self.now).unwrap_or(NEVER),
        }
    }

    /// The field's value, and when it next changes.
    fn field_now(&self, slot: Slot) -> (Value<'a>, Millis) {
        let field = &self.fields[usize::from(slot)];
        match field.clock {
            Clock::Still => (self.lookup.value(&field.id, self.now), NEVER),
            _ => {
                let (value, next) = self.lookup.value_and_change(&field.id, self.now);
                (value, next.unwrap_or(NEVER))
            }
        }
    }

    /// How the field moves, given its next change.
    fn field_motion(&self, slot: Slot, next: Millis) -> (Motion, Millis) {
        match self.fields[usize::from(slot)].clock {
            _ if next == NEVER => (Motion::Still, NEVER),
            Clock::Counts { every_ms } => (Motion::Steps { first: next, every_ms }, NEVER),
            Clock::Falls => (Motion::OneWay { rises: false, next }, NEVER),
            Clock::Rises => (Motion::OneWay { rises: true, next }, NEVER),
            Clock::Still | Clock::Moves | Clock::Dear => (Motion::Still, next),
        }
    }

    fn int_moving(&self, node: &IntNode) -> Moving<i64> {
        if let IntNode::Field(slot) = node {
            let (value, next) = self.field_now(*slot);
            let (motion, until) = self.field_motion(*slot, next);
            return match value {
                Value::Int(value) => Moving { value: Some(value), motion, until },
                Value::Time(time) => Moving { value: Some(time.0), motion, until },
                // What is absent does not count; when it appears, that is a change like any other.
                _ => Moving::still(None, next),
            };
        }
        let value = self.int(node);
        match node {
            IntNode::Const(_) | IntNode::Field(_) => Moving::still(value, NEVER),
            IntNode::Now => Moving { value, motion: Motion::Slope(1), until: NEVER },
            IntNode::Negate(inner) => {
                let inner = self.int_moving(inner);
                match inner.motion {
                    Motion::Slope(slope) => Moving { value, motion: Motion::Slope(-slope), until: inner.until },
                    _ => Moving::still(value, inner.until_any_change(self.now)),
                }
            }
            IntNode::Arithmetic(operator, sides) => {
                let (left, right) = (self.int_moving(&sides.0), self.int_moving(&sides.1));
                if value.is_none() {
                    return Moving::still(None, unknown_until(&left, &right, self.now));
                }
                match (operator, left.slope(), right.slope()) {
                    (Arithmetic::Add, Some(l), Some(r)) => {
                        Moving { value, motion: Motion::Slope(l + r), until: left.until.min(right.until) }
                    }
                    (Arithmetic::Subtract, Some(l), Some(r)) => {
                        Moving { value, motion: Motion::Slope(l - r), until: left.until.min(right.until) }
                    }
                    _ => Moving::still(value, left.until_any_change(self.now).min(right.until_any_change(self.now))),
                }
            }
            IntNode::Size(text) => Moving::still(value, self.text_until(text)),
            IntNode::Truncate(inner) => Moving::still(value, self.float_moving(inner).until_any_change(self.now)),
            IntNode::If(parts) => {
                let (condition, until) = self.bool_until(&parts.0);
                let Some(condition) = condition else { return Moving::still(None, until) };
                let chosen = self.int_moving(if condition { &parts.1 } else { &parts.2 });
                Moving { until: chosen.until.min(until), ..chosen }
            }
        }
    }

    fn float_moving(&self, node: &FloatNode) -> Moving<f64> {
        if let FloatNode::Field(slot) = node {
            let (value, next) = self.field_now(*slot);
            let value = match value {
                Value::Float(value) => Some(value),
                Value::Int(value) => Some(value as f64),
                _ => None,
            };
            return match (value, self.field_motion(*slot, next)) {
                (Some(_), (motion @ Motion::OneWay { .. }, until)) => Moving { value, motion, until },
                _ => Moving::still(value, next),
            };
        }
        let value = self.float(node);
        let until = match node {
            FloatNode::Const(_) | FloatNode::Field(_) => NEVER,
            FloatNode::Negate(inner) => self.float_moving(inner).until_any_change(self.now),
            FloatNode::Arithmetic(_, sides) => {
                self.float_moving(&sides.0).until_any_change(self.now).min(self.float_moving(&sides.1).until_any_change(self.now))
            }
            FloatNode::OfInt(inner) => self.int_moving(inner).until_any_change(self.now),
            FloatNode::If(parts) => {
                let (condition, until) = self.bool_until(&parts.0);
                let Some(condition) = condition else { return Moving::still(None, until) };
                let chosen = self.float_moving(if condition { &parts.1 } else { &parts.2 });
                return Moving { until: chosen.until.min(until), ..chosen };
            }
        };
        Moving::still(value, until)
    }

    fn text_until(&self, node: &TextNode) -> Millis {
        match node {
            TextNode::Const(_) => NEVER,
            TextNode::Field(slot) => self.next_change(*slot),
            TextNode::If(parts) => self.bool_until(&parts.0).1.min(self.text_until(&parts.1)).min(self.text_until(&parts.2)),
            // The type pass keeps these out of conditions; asking again soon is right in any case.
            TextNode::Join(_) | TextNode::OfInt(_) | TextNode::OfFloat(_) => self.now,
        }
    }

    fn ints_until(&self, node: &BoolNode, comparison: Comparison, left: Moving<i64>, right: Moving<i64>) -> Millis {
        let others = left.until.min(right.until);
        let (Some(l), Some(r)) = (left.value, right.value) else {
            return unknown_until(&left, &right, self.now);
        };
        let apart = i128::from(l) - i128::from(r);
        let crossing = match (left.motion, right.motion) {
            (Motion::Steps { first, every_ms }, Motion::Still) => {
                steps_to_flip(comparison, apart, 1).map(|steps| after_steps(first, every_ms, steps))
            }
            (Motion::Still, Motion::Steps { first, every_ms }) => {
                steps_to_flip(comparison, apart, -1).map(|steps| after_steps(first, every_ms, steps))
            }
            (Motion::OneWay { rises, next }, Motion::Still) => {
                can_flip(comparison, l.cmp(&r), rises).then(|| self.search(node, next)).flatten()
            }
            (Motion::Still, Motion::OneWay { rises, next }) => {
                can_flip(comparison, l.cmp(&r), !rises).then(|| self.search(node, next)).flatten()
            }
            _ => match (left.slope(), right.slope()) {
                (Some(l), Some(r)) => steps_to_flip(comparison, apart, l - r).map(|ms| after_steps(self.now + 1, 1, ms)),
                _ => Some(left.until_any_change(self.now).min(right.until_any_change(self.now))),
            },
        };
        crossing.unwrap_or(NEVER).min(others)
    }

    fn floats_until(&self, node: &BoolNode, comparison: Comparison, left: Moving<f64>, right: Moving<f64>) -> Millis {
        if left.value.is_none() || right.value.is_none() {
            return unknown_until(&left, &right, self.now);
        }
        let others = left.until.min(right.until);
        let (rises, next) = match (left.motion, right.motion) {
            (Motion::OneWay { rises, next }, Motion::Still) => (rises, next),
            (Motion::Still, Motion::OneWay { rises, next }) => (!rises, next),
            _ => return left.until_any_change(self.now).min(right.until_any_change(self.now)),
        };
        match left.value.partial_cmp(&right.value) {
            Some(order) if can_flip(comparison, order, rises) => self.search(node, next).unwrap_or(NEVER).min(others),
            Some(_) => others,
            None => next.min(others),
        }
    }

    /// When a comparison of which one side only rises or only falls flips: leaps ahead until it has, then halves the way back.
    fn search(&self, node: &BoolNode, next: Millis) -> Option<Millis> {
        if next > self.horizon {
            return Some(next);
        }
        let before = self.side_of(node);
        let flipped = |at: Millis| Scope { now: at, ..*self }.side_of(node) != before;
        let next_after = |at: Millis| Scope { now: at, ..*self }.leaf_change(node);
        if flipped(next) {
            return Some(next);
        }
        let (mut before_flip, mut leap) = (next, DAY_MS);
        let mut after_flip = loop {
            let change = next_after(before_flip)?;
            if change > self.horizon {
                return Some(change);
            }
            let ahead = change.max(before_flip + leap);
            if flipped(ahead) {
                break ahead;
            }
            if ahead.since_ms(self.now) > SEARCH_MS_MAX {
                return next_after(ahead);
            }
            (before_flip, leap) = (ahead, leap * 2);
        };
        loop {
            let change = next_after(before_flip)?;
            if change >= after_flip || flipped(change) {
                return Some(change.min(after_flip));
            }
            let middle = change + after_flip.since_ms(change) / 2;
            if flipped(middle) {
                after_flip = middle;
            } else {
                before_flip = middle;
            }
        }
    }

    /// What a search waits to see another value of. Equality comes and goes while one side passes the other, so for it that is their
    /// order, which changes no later and, once changed, stays changed.
    fn side_of(&self, node: &BoolNode) -> Option<Ordering> {
        let by_order = |comparison: Comparison, order: Ordering| match comparison {
            Comparison::Equal | Comparison::NotEqual => order,
            _ => comparison.holds(order).cmp(&false),
        };
        match node {
            BoolNode::Ints(comparison, sides) => Some(by_order(*comparison, self.int(&sides.0)?.cmp(&self.int(&sides.1)?))),
            BoolNode::Floats(comparison, sides) => Some(by_order(*comparison, self.float(&sides.0)?.partial_cmp(&self.float(&sides.1)?)?)),
            _ => None,
        }
    }

    /// The next change of the one moving field of a comparison that [`Scope::search`] is in.
    fn leaf_change(&self, node: &BoolNode) -> Option<Millis> {
        let until = match node {
            BoolNode::Ints(_, sides) => {
                self.int_moving(&sides.0).until_any_change(self.now).min(self.int_moving(&sides.1).until_any_change(self.now))
            }
            BoolNode::Floats(_, sides) => {
                self.float_moving(&sides.0).until_any_change(self.now).min(self.float_moving(&sides.1).until_any_change(self.now))
            }
            _ => NEVER,
        };
        (until != NEVER).then_some(until)
    }
}

impl<T> Moving<T> {
    fn slope(&self) -> Option<i64> {
        match self.motion {
            Motion::Still => Some(0),
            Motion::Slope(slope) => Some(slope),
            Motion::Steps { .. } | Motion::OneWay { .. } => None,
        }
    }
}

/// How long what is made of both sides stays unknown: as long as one of the sides does.
fn unknown_until<T>(left: &Moving<T>, right: &Moving<T>, now: Millis) -> Millis {
    match (&left.value, &right.value) {
        (None, None) => left.until.max(right.until),
        (None, Some(_)) => left.until,
        (Some(_), None) => right.until,
        // Both are known and yet what is made of them is not: overflow or a division by zero.
        (Some(_), Some(_)) => left.until_any_change(now).min(right.until_any_change(now)),
    }
}

fn after_steps(first: Millis, every_ms: i64, steps: i128) -> Millis {
    let at = i128::from(first.0) + (steps - 1) * i128::from(every_ms);
    Millis(i64::try_from(at).unwrap_or(i64::MAX))
}

/// The smallest n >= 1 for which `apart + n * step` compares with zero otherwise than `apart` does.
fn steps_to_flip(comparison: Comparison, apart: i128, step: i64) -> Option<i128> {
    let step = i128::from(step);
    if step == 0 {
        return None;
    }
    let now = comparison.holds(apart.cmp(&0));
    // Sign changes happen on reaching zero and on leaving it; only these two places can differ from their predecessors.
    let distance = if step > 0 { -apart } else { apart };
    let width = step.abs();
    let reaches = distance.div_euclid(width) + i128::from(distance.rem_euclid(width) != 0);
    let passes = distance.div_euclid(width) + 1;
    [reaches, passes].into_iter().find(|n| *n >= 1 && comparison.holds((apart + n * step).cmp(&0)) != now)
}

/// Whether a comparison can flip when its left side can only rise (or only fall) against its right side.
fn can_flip(comparison: Comparison, order: Ordering, rises: bool) -> bool {
    let ahead =
        if rises { [Ordering::Less, Ordering::Equal, Ordering::Greater] } else { [Ordering::Greater, Ordering::Equal, Ordering::Less] };
    let reached = ahead.into_iter().skip_while(|step| *step != order);
    reached.skip(1).any(|later| comparison.holds(later) != comparison.holds(order))
}
