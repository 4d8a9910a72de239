//! Whose attempt is next: pure, with time passed in.
//!
//! A *lane* is a destination: a kind of performer and a target. Each has its own limits, its circuit breaker, and one queue per tenant,
//! served in turn, so that a million waiting attempts of one tenant delay another's next one by one attempt. A tenant that has as much in
//! flight as it may steps aside in every lane until something of its own ends.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::breaker::{self, Breaker, Told};
use super::bucket::Bucket;
use crate::permit::Priority;

/// Numbers that the executor gives to what it knows by name.
pub type LaneIx = u32;
pub type TenantIx = u32;

/// Limits of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Attempts in flight at once.
    pub concurrency: u32,
    /// Attempts begun a second; 0 is no limit.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 64, per_second: 0 }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub in_flight_per_tenant: u32,
    pub breaker: breaker::Settings,
}

/// A waiting attempt, as whoever queued it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub slot: u32,
    pub generation: u32,
    pub attempt: u32,
}

/// An attempt whose turn it is; it holds its place in lane and tenant until it is [released](Schedule::release).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "its place is held until it is released"]
pub struct Turn {
    pub ticket: Ticket,
    pub lane: LaneIx,
    pub tenant: TenantIx,
    /// Tries a destination that failed.
    pub tries: bool,
}

#[derive(Debug)]
pub struct Schedule {
    settings: Settings,
    lanes: Vec<Lane>,
    tenants: Vec<Tenant>,
    /// The lane after the one that was served last.
    next_lane: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    limits: Limits,
    in_flight: u32,
    bucket: Bucket,
    breaker: Breaker,
    queues: HashMap<TenantIx, Queue, FxBuildHasher>,
    /// Tenants in turn.
    ring: VecDeque<TenantIx>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Low, normal, high.
    by_priority: [VecDeque<Ticket>; 3],
}

#[derive(Debug, Default)]
struct Tenant {
    in_flight: u32,
    /// Lanes in which it stepped aside.
    aside: Vec<LaneIx>,
}

impl Queue {
    fn pop(&mut self) -> Option<Ticket> {
        self.by_priority.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.by_priority.iter().map(VecDeque::len).sum()
    }
}

impl Schedule {
    pub fn new(settings: Settings) -> Self {
        Self { settings, lanes: Vec::new(), tenants: Vec::new(), next_lane: 0, waiting: 0 }
    }

    pub fn add_lane(&mut self, limits: Limits, now: u64) -> LaneIx {
        let bucket = Bucket::new(limits.per_second, now);
        let (breaker, queues, ring) = (Breaker::default(), HashMap::default(), VecDeque::new());
        self.lanes.push(Lane { limits, in_flight: 0, bucket, breaker, queues, ring, waiting: 0 });
        (self.lanes.len() - 1) as LaneIx
    }

    fn tenant(&mut self, tenant: TenantIx) -> &mut Tenant {
        let at = tenant as usize;
        if at >= self.tenants.len() {
            self.tenants.resize_with(at + 1, Tenant::default);
        }
        &mut self.tenants[at]
    }

    /// How many wait, over all lanes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn is_broken(&self, lane: LaneIx) -> bool {
        self.lanes[lane as usize].breaker.is_open()
    }

    pub fn push(&mut self, lane: LaneIx, tenant: TenantIx, priority: Priority, ticket: Ticket) {
        self.tenant(tenant);
        let lane = &mut self.lanes[lane as usize];
        let queue = lane.queues.entry(tenant).or_insert_with(|| {
            lane.ring.push_back(tenant);
            Queue::default()
        });
        queue.by_priority[priority as usize].push_back(ticket);
        lane.waiting += 1;
        self.waiting += 1;
    }

    /// How many attempts of a lane may be in flight at once from now on.
    pub fn set_concurrency(&mut self, lane: LaneIx, concurrency: u32) {
        self.lanes[lane as usize].limits.concurrency = concurrency;
    }

    /// The next attempt that may go now. Tickets of what needs no performing any more are dropped on the way, and use up nothing.
    pub fn next(&mut self, now: u64, is_current: impl Fn(Ticket) -> bool) -> Option<Turn> {
        for _ in 0..self.lanes.len() {
            let at = self.next_lane % self.lanes.len();
            self.next_lane = at + 1;
            if let Some(turn) = self.take(at, now, &is_current) {
                return Some(turn);
            }
        }
        None
    }

    fn take(&mut self, at: usize, now: u64, is_current: &impl Fn(Ticket) -> bool) -> Option<Turn> {
        let lane = &mut self.lanes[at];
        if lane.waiting == 0 || lane.in_flight >= lane.limits.concurrency.max(1) || !lane.breaker.admits(now) || !lane.bucket.has(now) {
            return None;
        }
        while let Some(tenant) = lane.ring.pop_front() {
            let known = &mut self.tenants[tenant as usize];
            if known.in_flight >= self.settings.in_flight_per_tenant.max(1) {
                known.aside.push(at as LaneIx);
                continue;
            }
            let queue = lane.queues.get_mut(&tenant).expect("who is in the ring has a queue");
            let before = queue.len();
            let found = std::iter::from_fn(|| queue.pop()).find(|ticket| is_current(*ticket));
            let gone = before - queue.len();
            if queue.is_empty() {
                lane.queues.remove(&tenant);
            } else {
                lane.ring.push_back(tenant);
            }
            (lane.waiting, self.waiting) = (lane.waiting - gone, self.waiting - gone);
            let Some(ticket) = found else { continue };
            (lane.in_flight, known.in_flight) = (lane.in_flight + 1, known.in_flight + 1);
            lane.bucket.take();
            let tries = lane.breaker.is_open();
            lane.breaker.goes();
            return Some(Turn { ticket, lane: at as LaneIx, tenant, tries });
        }
        None
    }

    /// The attempt ended, or needs no place any more. True if its lane's breaker opened or closed.
    pub fn release(&mut self, turn: Turn, told: Told, now: u64) -> bool {
        let Turn { lane, tenant, tries, .. } = turn;
        let settings = self.settings.breaker;
        let known = self.tenant(tenant);
        known.in_flight = known.in_flight.saturating_sub(1);
        for aside in std::mem::take(&mut known.aside) {
            self.lanes[aside as usize].ring.push_back(tenant);
        }
        let lane = &mut self.lanes[lane as usize];
        lane.in_flight = lane.in_flight.saturating_sub(1);
        // Of one that never got there the breaker learns nothing, unless it waits for it.
        (told != Told::Nothing || tries) && lane.breaker.told(told, now, &settings)
    }

    /// When time alone next lets something go: a rate's next token, a breaker's next try.
    pub fn next_due(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter(|lane| lane.waiting > 0 && lane.in_flight < lane.limits.concurrency.max(1));
        lanes
            .filter_map(|lane| match lane.breaker.opens_at() {
                Some(at) => Some(at),
                None if lane.breaker.is_open() || lane.ring.is_empty() => None,
                None => Some(lane.bucket.ready_at()),
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { in_flight_per_tenant: 1_000, breaker: breaker::Settings { in_a_row: 3, percent: 60, open_ms: 100, open_ms_max: 100 } };

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot, generation: 0, attempt: 1 }
    }

    fn schedule(per_tenant: u32, lanes: &[Limits]) -> Schedule {
        let mut schedule = Schedule::new(Settings { in_flight_per_tenant: per_tenant, ..SETTINGS });
        for limits in lanes {
            schedule.add_lane(*limits, 0);
        }
        schedule
    }

    fn one_at_a_time() -> Limits {
        Limits { concurrency: 1, per_second: 0 }
    }

    #[test]
    fn a_million_of_one_tenant_delay_ten_of_another_by_one_attempt_each() {
        let mut schedule = schedule(1_000, &[one_at_a_time()]);
        (0..1_000_000).for_each(|slot| schedule.push(0, 0, Priority::Normal, ticket(slot)));
        (0..10).for_each(|slot| schedule.push(0, 1, Priority::Normal, ticket(2_000_000 + slot)));
        let mut order = Vec::new();
        for _ in 0..30 {
            let turn = schedule.next(0, |_| true).unwrap();
            order.push(turn.tenant);
            schedule.release(turn, Told::Works, 0);
        }
        assert_eq!(order[..20], [0, 1].repeat(10), "in turn");
        assert!(order[20..].iter().all(|tenant| *tenant == 0));
        assert_eq!(schedule.waiting(), 1_000_010 - 30);
    }

    #[test]
    fn who_has_as_much_in_flight_as_it_may_steps_aside_in_every_lane_and_comes_back() {
        let limits = Limits { concurrency: 100, per_second: 0 };
        let mut schedule = schedule(2, &[limits, limits]);
        (0..4).for_each(|slot| schedule.push(slot % 2, 0, Priority::Normal, ticket(slot)));
        schedule.push(0, 1, Priority::Normal, ticket(9));
        let turns: Vec<Turn> = std::iter::from_fn(|| schedule.next(0, |_| true)).collect();
        assert_eq!(turns.iter().filter(|turn| turn.tenant == 0).count(), 2);
        assert_eq!(turns.iter().filter(|turn| turn.tenant == 1).count(), 1);
        schedule.release(turns[0], Told::Works, 0);
        let back = schedule.next(0, |_| true).unwrap();
        assert_eq!(back.tenant, 0);
        assert!(schedule.next(0, |_| true).is_none());
        schedule.release(back, Told::Works, 0);
        assert!(schedule.next(0, |_| true).is_some());
    }

    #[test]
    fn a_lane_takes_no_more_than_its_concurrency_and_rate_and_says_when_it_goes_on() {
        let mut schedule = schedule(1_000, &[Limits { concurrency: 3, per_second: 2 }]);
        (0..9).for_each(|slot| schedule.push(0, 0, Priority::Normal, ticket(slot)));
        let turns: Vec<Turn> = std::iter::from_fn(|| schedule.next(0, |_| true)).collect();
        assert_eq!((turns.len(), schedule.next_due()), (2, Some(500)), "the rate");
        assert!(schedule.next(499, |_| true).is_none() && schedule.next(500, |_| true).is_some());
        assert_eq!((schedule.next(10_000, |_| true), schedule.next_due()), (None, None), "three are in flight");
    }

    #[test]
    fn higher_priorities_of_a_tenant_go_first() {
        let mut schedule = schedule(1_000, &[Limits::default()]);
        for (slot, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High), (4, Priority::Normal)] {
            schedule.push(0, 0, priority, ticket(slot));
        }
        let order: Vec<u32> = std::iter::from_fn(|| schedule.next(0, |_| true)).map(|turn| turn.ticket.slot).collect();
        assert_eq!(order, [3, 2, 4, 1]);
    }

    #[test]
    fn a_destination_that_fails_holds_up_nobody_else_and_gets_one_try_at_a_time() {
        let mut schedule = schedule(1_000, &[Limits::default(), Limits::default()]);
        for slot in 0..20 {
            schedule.push(slot % 2, 0, Priority::Normal, ticket(slot));
        }
        let mut opened = 0;
        let mut performed = [0; 2];
        for _ in 0..6 {
            let Some(turn) = schedule.next(10, |_| true) else { break };
            performed[turn.lane as usize] += 1;
            let told = if turn.lane == 0 { Told::Fails } else { Told::Works };
            opened += u32::from(schedule.release(turn, told, 10));
        }
        assert_eq!((performed, opened), ([3, 3], 1));
        assert!(std::iter::from_fn(|| schedule.next(10, |_| true)).all(|turn| turn.lane == 1));
        assert_eq!((schedule.next_due(), schedule.next(109, |_| true)), (Some(110), None));
        let probe = schedule.next(110, |_| true).unwrap();
        assert_eq!((probe.lane, schedule.next(110, |_| true)), (0, None));
        assert!(schedule.release(probe, Told::Works, 111));
        assert_eq!(std::iter::from_fn(|| schedule.next(111, |_| true)).count(), 6);
    }

    #[test]
    fn what_is_no_longer_wanted_uses_up_neither_rate_nor_place_nor_the_try_of_a_destination_that_failed() {
        let mut schedule = schedule(1_000, &[Limits { concurrency: 1, per_second: 2 }]);
        (0..1_000).for_each(|slot| schedule.push(0, 0, Priority::Normal, ticket(slot)));
        (1_000..1_002).for_each(|slot| schedule.push(0, 1, Priority::Normal, ticket(slot)));
        let is_current = |ticket: Ticket| ticket.slot >= 1_000;
        let turn = schedule.next(0, is_current).unwrap();
        assert_eq!((turn.ticket.slot, schedule.waiting()), (1_000, 1), "those that were cancelled are gone");
        (0..3).for_each(|_| assert!(!schedule.release(turn, Told::Fails, 0) || schedule.is_broken(0)));
        schedule.push(0, 2, Priority::Normal, ticket(7));
        let probe = schedule.next(100, is_current).unwrap();
        assert_eq!((probe.ticket.slot, probe.tries), (1_001, true));
        schedule.release(probe, Told::Works, 100);
        assert!(schedule.next(10_000, is_current).is_none());
        assert_eq!((schedule.waiting(), schedule.next_due()), (0, None));
    }
}
