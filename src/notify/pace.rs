//! When a receiver may be called at all: not faster than its pace, and not while it asked to be
//! left alone. Times are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::receiver::Pace;

/// The pace of one receiver, over all its keys.
#[derive(Debug)]
pub(super) struct Gate {
    pace: Pace,
    /// Requests within the last span, the oldest first; never more than the pace allows.
    sent: VecDeque<Instant>,
    closed_until: Option<Instant>,
}

impl Gate {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, sent: VecDeque::new(), closed_until: None }
    }

    /// How many requests may be made now.
    pub(super) fn room(&mut self, now: Instant) -> usize {
        if self.closed_until.is_some_and(|until| now < until) {
            return 0;
        }
        while self.sent.front().is_some_and(|at| now >= *at + self.pace.per) {
            self.sent.pop_front();
        }
        self.pace.events.saturating_sub(self.sent.len())
    }

    /// How long until there is room; zero if there is.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        if self.room(now) > 0 {
            return Duration::ZERO;
        }
        let freed = self.sent.front().filter(|_| self.sent.len() >= self.pace.events);
        let freed = freed.map(|at| *at + self.pace.per);
        let opens = self.closed_until.into_iter().chain(freed).max();
        opens.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// A request is made.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent.push_back(now);
    }

    /// The receiver asked to be left alone.
    pub(super) fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |other| other.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_holds_more_than_the_pace() {
        let pace = Pace { events: 3, per: Duration::from_mins(1) };
        let mut gate = Gate::new(pace);
        let start = crate::clock::monotonic();
        let mut sent = Vec::new();
        let mut now = start;
        while sent.len() < 10 {
            now += gate.wait(now);
            assert!(gate.room(now) > 0);
            gate.sent(now);
            sent.push(now);
            now += Duration::from_secs(7);
        }
        for (first, fourth) in sent.iter().zip(&sent[3..]) {
            assert!(*fourth - *first >= pace.per);
        }
        assert_eq!(sent[3] - sent[0], pace.per);
    }

    #[test]
    fn a_receiver_that_asked_for_it_is_left_alone() {
        let mut gate = Gate::new(Pace { events: 3, per: Duration::from_mins(1) });
        let start = crate::clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        gate.sent(start);
        gate.close_until(at(30));
        gate.close_until(at(10));
        assert_eq!((gate.room(at(1)), gate.wait(at(1))), (0, Duration::from_secs(29)));
        assert_eq!((gate.room(at(30)), gate.wait(at(30))), (2, Duration::ZERO));
    }
}
