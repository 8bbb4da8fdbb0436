//! The one place where clocks are read. Everything else is given the time.

use std::time::Instant;

use jiff::Timestamp;

/// The wall clock: for people, and for what must survive a restart. It may jump.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn wall() -> Timestamp {
    let now = Timestamp::now();
    // Finer than anybody reads, and than some readers of JSON take.
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// The monotonic clock: for durations. It does not survive a restart.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn monotonic() -> Instant {
    Instant::now()
}
