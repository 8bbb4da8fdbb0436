//! When the next login of a probe is due: the interval, its jitter, the backoff.

use std::time::{Duration, Instant};

/// Each interval is up to a tenth shorter or longer, so that the probes of many targets and daemons
/// do not come to stand in one beat.
const JITTER: f64 = 0.1;

/// While logins are refused an interval is at most so many times as long …
const BACKOFF_INTERVALS: u32 = 3;

/// … and not longer than this, unless it is by itself. What was refused counts for a minute after
/// it (`rules.logins_refused.keep_firing_for`): half of that, so that an alert does not come and go
/// while nothing changes, and slots that are free again are seen soon.
const BACKOFF_AT_MOST: Duration = Duration::from_secs(30);

/// The rhythm of one probe.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    interval: Duration,
    /// So many in a row were refused.
    refused: u32,
    /// By the interval alone.
    due: Instant,
    /// Not before: the backoff.
    not_before: Instant,
}

impl Rhythm {
    /// The first login is due at once.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, refused: 0, due: now, not_before: now }
    }

    /// When the next login is due.
    pub(super) fn next(&self) -> Instant {
        self.due.max(self.not_before)
    }

    /// Whether that is later than it would be if none had been refused.
    pub(super) fn backs_off(&self) -> bool {
        self.due < self.not_before
    }

    /// Notes that one begins. `random` is between 0 and 1.
    pub(super) fn note_begun(&mut self, now: Instant, random: f64) {
        self.due = now + jittered(self.interval, random);
        self.not_before = self.due;
    }

    /// Notes that it was refused.
    pub(super) fn note_refused(&mut self, now: Instant, random: f64) {
        self.refused = self.refused.saturating_add(1);
        let doubled = self.interval.saturating_mul(1 << self.refused.min(16));
        let most = BACKOFF_AT_MOST.max(self.interval);
        let pause = doubled.min(self.interval.saturating_mul(BACKOFF_INTERVALS)).min(most);
        self.not_before = now + jittered(pause, random);
    }

    /// Notes that it was not refused, however it ended otherwise.
    pub(super) fn note_not_refused(&mut self) {
        self.note_room();
    }

    /// Notes that what refused may have room again.
    pub(super) fn note_room(&mut self) {
        self.refused = 0;
        self.not_before = self.due;
    }
}

fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MIDDLE: f64 = 0.5;

    /// Seconds from each login to the next, of so many that are refused at once.
    fn pauses(interval_seconds: u64, random: f64, logins: usize) -> Vec<f64> {
        let mut now = clock::monotonic();
        let mut rhythm = Rhythm::new(Duration::from_secs(interval_seconds), now);
        let pause = |_| {
            rhythm.note_begun(now, random);
            rhythm.note_refused(now, random);
            let before = std::mem::replace(&mut now, rhythm.next());
            (now - before).as_secs_f64()
        };
        (0..logins).map(pause).collect()
    }

    #[test]
    fn a_server_that_refuses_is_asked_less_often_and_at_least_every_half_minute() {
        assert_eq!(pauses(10, MIDDLE, 5), [20.0, 30.0, 30.0, 30.0, 30.0]);
        assert_eq!(pauses(1, MIDDLE, 3), [2.0, 3.0, 3.0]);
        // One that is slower than that by itself stays as it is.
        assert_eq!(pauses(60, MIDDLE, 2), [60.0, 60.0]);
        assert_eq!(pauses(10, 0.0, 2), [18.0, 27.0]);
        let longest = pauses(10, 1.0, 40).into_iter().fold(0.0, f64::max);
        assert!((longest - 33.0).abs() < 1e-6, "{longest}");
    }

    #[test]
    fn it_comes_back_when_there_is_room() {
        let start = clock::monotonic();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut rhythm = Rhythm::new(Duration::from_secs(10), start);
        assert_eq!(rhythm.next(), start);
        rhythm.note_begun(start, MIDDLE);
        rhythm.note_refused(after(0), MIDDLE);
        assert!(rhythm.backs_off());
        assert_eq!(rhythm.next(), after(20));
        rhythm.note_room();
        assert!(!rhythm.backs_off());
        assert_eq!(rhythm.next(), after(10));
        rhythm.note_begun(after(10), MIDDLE);
        rhythm.note_not_refused();
        assert_eq!(rhythm.next(), after(20));
    }

    #[test]
    fn no_two_probes_keep_one_beat() {
        let interval = Duration::from_secs(10);
        assert_eq!(jittered(interval, 0.0), Duration::from_secs(9));
        assert_eq!(jittered(interval, 1.0), Duration::from_secs(11));
    }
}
