//! How logins went that were made as an application makes them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Failure, Happened};

/// How the probe stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The newest login that was decided, or that has no answer in time.
    pub newest: Attempt,
    /// Why no other is made at present.
    pub held: Option<Held>,
}

/// Why no login is made although one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// An earlier one was not answered: the backend behind it may live.
    EarlierOneLives,
    /// The server was full: the next comes later.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The name's lookup and the connection.
    pub connect: Option<Duration>,
    /// The handshake of TLS.
    pub tls: Option<Duration>,
    /// From there until the server let it in.
    pub authentication: Option<Duration>,
    /// `SELECT 1`.
    pub first_answer: Option<Duration>,
}

/// The logins that were decided since the reading before, in order; at most
/// [`MAX_ATTEMPTS`] of them.
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
