//! The counters of databases from one reading of them to the next, with their age.
//!
//! From 15 on they are read every 5 s. Up to 14 the statistics collector gives them, which makes a
//! session wait some 12 ms, and for 10 s while it stalls: there they are asked for seldom and not
//! waited for. What is held in between is of before.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::poll::Counters;

/// From 15 on they are read this often: with every fifth poll at the shipped tick. A session's own
/// come up to 10 s late (pgstat.c), no rule judges them over less than 30 s, and at every poll they
/// would be a seventh of what a poll of a small server costs.
const APART: Duration = Duration::from_millis(4_500);

/// Up to 14 they are read this often.
const DEAR_APART: Duration = Duration::from_secs(15);

/// Up to 14 they are not waited for longer: the next poll stands behind them.
const DEAR_AT_MOST: Duration = Duration::from_millis(250);

/// That a poll is to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountersAsk {
    /// How long it may wait for them, where they are dear.
    pub(super) at_most: Option<Duration>,
}

/// The counters as they were read last.
#[derive(Debug, Default)]
pub(super) struct CountersCache {
    rows: Vec<Counters>,
    read: Option<Instant>,
    tried: Option<Instant>,
    of: Option<Epoch>,
}

/// What the counters are counted from, but for a reset of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) system_identifier: Option<i64>,
    pub(super) started_at: Timestamp,
    pub(super) in_recovery: bool,
}

impl CountersCache {
    /// Whether a poll that begins now is to read them. An attempt that fails is one, too.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        timeout: Duration,
        dear: bool,
    ) -> Option<CountersAsk> {
        let apart = if dear { DEAR_APART } else { APART };
        if self.tried.is_some_and(|at| now < at + apart) {
            return None;
        }
        self.tried = Some(now);
        Some(CountersAsk { at_most: dear.then(|| DEAR_AT_MOST.min(timeout / 2)) })
    }

    /// On a new connection they are read at once: they may have been lost in a crash.
    pub(super) fn doubt(&mut self) {
        self.tried = None;
    }

    /// Takes what a poll gave, if anything; those of another epoch are forgotten.
    pub(super) fn take(&mut self, epoch: Epoch, rows: Option<Vec<Counters>>, now: Instant) {
        if self.of != Some(epoch) {
            *self = Self { tried: self.tried, of: Some(epoch), ..Self::default() };
        }
        if let Some(rows) = rows {
            (self.rows, self.read) = (rows, Some(now));
        }
    }

    /// The counters as they are known; empty while none are.
    pub(super) fn known(&self) -> &[Counters] {
        &self.rows
    }

    /// How old they are; zero while there are none.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.read.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn epoch(started_at: i64) -> Epoch {
        let started_at = Timestamp::from_second(started_at).unwrap();
        Epoch { system_identifier: Some(7), started_at, in_recovery: false }
    }

    fn row(commits: i64) -> Counters {
        Counters {
            database: 5,
            stats_reset: None,
            commits,
            rollbacks: 0,
            deadlocks: 0,
            sessions: None,
            sessions_abandoned: None,
            sessions_fatal: None,
            sessions_killed: None,
        }
    }

    #[test]
    fn they_are_asked_for_at_their_rhythm_whatever_comes_of_it() {
        let (mut cache, now) = (CountersCache::default(), clock::monotonic());
        let (timeout, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let asked = |at_most| Some(CountersAsk { at_most });
        assert_eq!(cache.ask(now, timeout, true), asked(Some(DEAR_AT_MOST)));
        assert_eq!(cache.ask(now + second * 14, timeout, true), None);
        assert_eq!(cache.ask(now + DEAR_APART, timeout, true), asked(Some(DEAR_AT_MOST)));
        cache.doubt();
        let short = Duration::from_millis(100);
        assert_eq!(cache.ask(now + DEAR_APART, short, true), asked(Some(short / 2)));

        cache.doubt();
        assert_eq!(cache.ask(now, timeout, false), asked(None));
        assert_eq!(cache.ask(now + second * 4, timeout, false), None);
        assert_eq!(cache.ask(now + second * 5, timeout, false), asked(None));
    }

    #[test]
    fn those_of_before_are_kept_with_their_age_until_the_epoch_changes() {
        let (mut cache, now) = (CountersCache::default(), clock::monotonic());
        cache.take(epoch(1), Some(vec![row(3)]), now);
        let later = now + Duration::from_secs(20);
        cache.take(epoch(1), None, later);
        assert_eq!(cache.known()[0].commits, 3);
        assert_eq!(cache.age(later), Duration::from_secs(20));
        cache.take(epoch(2), None, later);
        assert!(cache.known().is_empty());
        assert_eq!(cache.age(later), Duration::ZERO);
    }
}
