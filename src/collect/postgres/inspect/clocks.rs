//! The server's clock beside ours. What difference matters is judged in `cli::check`.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::{Client, Error};

use crate::clock;

/// Our own clock is read in milliseconds.
const OUR_GRAIN: Duration = Duration::from_millis(1);

/// The server's clock and ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Seconds by which the server's is ahead; negative if ours is.
    pub ahead_seconds: f64,
    /// It is that, give or take half of the round trip.
    pub error_seconds: f64,
}

impl Clock {
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        // Prepared before, so that one round trip is all that lies between.
        let asking = client.prepare("SELECT clock_timestamp() AS clock").await?;
        let (asked_at, began) = (clock::wall(), clock::monotonic());
        let row = client.query_one(&asking, &[]).await?;
        let round_trip = clock::monotonic().saturating_duration_since(began);
        Ok(Self::of(asked_at, row.try_get("clock")?, round_trip))
    }

    /// We asked at `asked_at` by our clock, and heard `theirs` when the round trip was over: the
    /// server read its clock in the middle of it, as far as anybody can tell.
    fn of(asked_at: Timestamp, theirs: Timestamp, round_trip: Duration) -> Self {
        let half = round_trip.as_secs_f64() / 2.0;
        Self {
            ahead_seconds: theirs.duration_since(asked_at).as_secs_f64() - half,
            error_seconds: half + OUR_GRAIN.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_by_what_the_round_trip_does_not_explain() {
        // By how many milliseconds theirs is later than the question, the round trip, and then:
        // ahead, give or take.
        let cases = [
            (0, 0, 0.0, 0.001),
            (5_000, 0, 5.0, 0.001),
            (-5_000, 0, -5.0, 0.001),
            // Read in the middle of a slow round trip by clocks that agree.
            (200, 400, 0.0, 0.201),
            (5_200, 400, 5.0, 0.201),
            (-4_800, 400, -5.0, 0.201),
            (0, 3_000, -1.5, 1.501),
        ];
        let asked_at = Timestamp::from_second(1_800_000_000).unwrap();
        for (later, round_trip, ahead, error) in cases {
            let theirs = asked_at + jiff::SignedDuration::from_millis(later);
            let seen = Clock::of(asked_at, theirs, Duration::from_millis(round_trip));
            let is_near = |seen: f64, expected: f64| (seen - expected).abs() < 1e-9;
            assert!(is_near(seen.ahead_seconds, ahead), "{later} {round_trip}: {seen:?}");
            assert!(is_near(seen.error_seconds, error), "{later} {round_trip}: {seen:?}");
        }
    }
}
