//! How logins went that were made as an application makes them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Failure, Happened};

/// How the probe stands. There is none before the first login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The newest login that was decided, or that has no answer in time. One that is answered late
    /// is decided then.
    pub newest: Attempt,
    /// Why no other is made at present.
    pub held: Option<Held>,
}

/// Why no login is made although one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// An earlier one was not answered, or what answered it has not closed the connection: the
    /// backend behind it may live.
    EarlierOneLives,
    /// The last was refused for want of a connection: the next comes later.
    BacksOff,
    /// Fewer slots are free than are to be left untouched.
    FewSlotsFree,
}

/// One login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began, by our wall clock.
    pub at: Timestamp,
    /// That it got in and had an answer, or why not. A login that has no answer in time is
    /// [`super::FailureKind::TooSlow`].
    pub outcome: Result<(), Failure>,
    /// How long its steps took, as far as it came.
    pub steps: Steps,
}

/// The steps of a login; `None` for those that it did not come to, or that there were none of.
/// Where a login takes several attempts (the hosts of an address, with TLS and without), they are
/// those of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The name's lookup and the connection, those of addresses that did not answer included.
    pub connect: Option<Duration>,
    /// The question for TLS and its handshake.
    pub tls: Option<Duration>,
    /// From there until it was let in: the start of a backend, the password, the database. Behind
    /// a pooler, what that does of it.
    pub authentication: Option<Duration>,
    /// `SELECT 1`.
    pub first_answer: Option<Duration>,
}

/// The logins that were decided since the reading before, in order; at most
/// [`MAX_ATTEMPTS`] of them.
///
/// One that has no answer in time is in here when that is said, as too slow, and once more when it
/// is decided: two that have the same `at` are one login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempts(pub Vec<Attempt>);

/// A probe makes one every ten seconds; readings come every second.
pub const MAX_ATTEMPTS: usize = 32;

impl Happened for Attempts {
    fn add(&mut self, later: Self) {
        self.0.extend(later.0);
        let excess = self.0.len().saturating_sub(MAX_ATTEMPTS);
        self.0.drain(..excess);
    }
}
