//! When the next poll and the next login are due: the tick, the budget, the backoff.

use std::time::{Duration, Instant};

/// In trouble, and above half of the slots, the budget is so many times as large.
const TROUBLE_FACTOR: f64 = 10.0;

/// Above this much of the slots in use the budget is tenfold: what comes next matters.
const BUSY: f64 = 0.5;

/// The middle one of so many polls is what a poll costs: the server's clock goes on while a backend
/// waits for a processor, and some polls read names and counters, too.
const POLLS_WEIGHED: usize = 5;

/// However dear polls are, one is made as often as this: a server that is not looked at for
/// minutes is not watched.
const REST_AT_MOST: Duration = Duration::from_secs(15);

/// At most one login a second is begun.
pub(in crate::collect) const LOGINS_APART: Duration = Duration::from_secs(1);

/// In a full server the next slot that comes free should be ours: no longer pauses than this.
const BACKOFF_AT_MOST: Duration = Duration::from_secs(5);

/// The rhythm of polls.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    tick: Duration,
    budget: f64,
    costs: [f64; POLLS_WEIGHED],
    polls: usize,
    busy: bool,
}

impl Pace {
    /// A poll each tick until one has cost something.
    pub(super) fn new(tick: Duration, budget: f64) -> Self {
        Self { tick, budget, costs: [0.0; POLLS_WEIGHED], polls: 0, busy: false }
    }

    /// Notes a poll: what it cost the server in seconds, and how much of the slots it saw in use.
    pub(super) fn note(&mut self, cost: f64, utilization: f64) {
        self.costs[self.polls % POLLS_WEIGHED] = cost;
        self.polls = self.polls.wrapping_add(1);
        self.busy = utilization > BUSY;
    }

    /// Of one server core, what may be spent at present.
    pub(super) fn budget_ratio(&self, trouble: bool) -> f64 {
        if trouble || self.busy { self.budget * TROUBLE_FACTOR } else { self.budget }
    }

    /// The time from the beginning of one poll to the next.
    pub(super) fn rest(&self, trouble: bool) -> Duration {
        let mut costs = self.costs;
        let known = &mut costs[..self.polls.min(POLLS_WEIGHED)];
        known.sort_by(f64::total_cmp);
        let cost = known.get(known.len().saturating_sub(1) / 2).unwrap_or(&0.0);
        let wanted = Duration::try_from_secs_f64(cost / self.budget_ratio(trouble));
        wanted.unwrap_or(REST_AT_MOST).min(REST_AT_MOST).max(self.tick)
    }

    /// When the next poll after one that began at `began` is due. Missed ticks are skipped.
    pub(super) fn next(&self, began: Instant, now: Instant, trouble: bool) -> Instant {
        let due = began + self.rest(trouble);
        if due >= now {
            return due;
        }
        let missed = (now - due).as_nanos() / self.tick.as_nanos().max(1) + 1;
        due + self.tick.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX))
    }
}

/// The pause before the next login, after so many that failed in a row. `random` is from 0 to 1.
pub(in crate::collect) fn backoff(failed: u32, random: f64) -> Duration {
    let doubled = LOGINS_APART.saturating_mul(1 << failed.saturating_sub(1).min(8));
    doubled.min(BACKOFF_AT_MOST).mul_f64(1.0 + random / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const TICK: Duration = Duration::from_secs(1);

    #[test]
    fn a_poll_is_due_each_tick_until_it_costs_more_than_the_budget() {
        let mut pace = Pace::new(TICK, 0.005);
        assert_eq!(pace.rest(false), TICK);
        pace.note(0.005, 0.1);
        assert_eq!(pace.rest(false), TICK);
        for _ in 0..POLLS_WEIGHED {
            pace.note(0.020, 0.1);
        }
        assert_eq!(pace.rest(false), Duration::from_secs(4));
        assert_eq!(pace.rest(true), TICK);
        assert!((pace.budget_ratio(true) - 0.05).abs() < 1e-9);
    }

    #[test]
    fn one_dear_poll_does_not_blind_us_and_no_price_does() {
        let mut pace = Pace::new(TICK, 0.005);
        pace.note(0.002, 0.1);
        pace.note(3.0, 0.1);
        assert_eq!(pace.rest(false), TICK);
        pace.note(0.003, 0.1);
        pace.note(2.0, 0.1);
        assert_eq!(pace.rest(false), TICK);
        for _ in 0..POLLS_WEIGHED {
            pace.note(3.0, 0.1);
        }
        assert_eq!(pace.rest(false), REST_AT_MOST);
    }

    #[test]
    fn above_half_of_the_slots_the_budget_is_tenfold() {
        let mut pace = Pace::new(TICK, 0.005);
        pace.note(0.030, 0.51);
        assert_eq!(pace.rest(false), TICK);
        pace.note(0.030, 0.5);
        assert_eq!(pace.rest(false), Duration::from_secs(6));
    }

    #[test]
    fn missed_ticks_are_skipped() {
        let (pace, began) = (Pace::new(TICK, 0.005), clock::monotonic());
        assert_eq!(pace.next(began, began + TICK / 2, false), began + TICK);
        assert_eq!(pace.next(began, began + TICK * 7 / 2, false), began + TICK * 4);
    }

    #[test]
    fn pauses_between_logins_grow_to_their_bound_and_never_shrink_below_a_second() {
        let pauses: Vec<_> = (1..=5).map(|failed| backoff(failed, 0.0)).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5].map(Duration::from_secs));
        assert_eq!(backoff(1_000, 0.0), BACKOFF_AT_MOST);
        assert_eq!(backoff(1, 1.0), Duration::from_millis(1_250));
    }
}
