//! What Plimsoll knows of itself: each part writes its own numbers here, `serve` shows them.
//!
//! Plain values behind one lock that is held for a copy and no longer. Nothing is decided here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

/// A handle on the one [`Values`] of this daemon.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Values>>);

impl Health {
    /// Everything as it stands when the daemon starts.
    pub fn starting(at: Timestamp) -> Self {
        let values = Values {
            started_at: at,
            loops: BTreeMap::new(),
            store: StoreHealth::default(),
            receivers: BTreeMap::new(),
            reload: ReloadHealth { ok: true, at, failures: 0 },
        };
        Self(Arc::new(Mutex::new(values)))
    }

    /// The values, to be changed or copied at once. A panic elsewhere leaves them readable.
    pub fn values(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that Plimsoll knows of itself.
#[derive(Clone, Debug)]
pub struct Values {
    /// When the daemon started.
    pub started_at: Timestamp,
    /// The loop of each target, by its name.
    pub loops: BTreeMap<String, LoopHealth>,
    /// Episode and outbox on disk.
    pub store: StoreHealth,
    /// Each receiver, by its name.
    pub receivers: BTreeMap<String, ReceiverHealth>,
    /// The last reload of settings.
    pub reload: ReloadHealth,
}

/// The loop of one target.
#[derive(Clone, Debug)]
pub struct LoopHealth {
    /// When it last turned.
    pub last_turn: Instant,
    /// How often it panicked and was started again.
    pub restarts: u64,
    /// It panicked three times in ten minutes: nobody watches this target well.
    pub blind: bool,
    /// Observations that a newer one replaced before the loop took them.
    pub replaced: u64,
}

/// Episode and outbox on disk.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth {
    /// Since when commits do not reach the disk; `None` while they do.
    pub volatile_since: Option<Instant>,
    /// Why they do not.
    pub problem: Option<String>,
    /// Transactions that reached the disk.
    pub commits: u64,
    /// Transactions that failed and are tried again.
    pub failures: u64,
    /// Changes that wait for the disk.
    pub waiting: usize,
    /// Changes that were dropped because too many waited.
    pub dropped: u64,
    /// Files that were set aside as damaged or too new.
    pub set_aside: u64,
}

/// One receiver.
#[derive(Clone, Debug, Default)]
pub struct ReceiverHealth {
    /// Notifications that are owed to it.
    pub owed: usize,
    /// When the oldest of them was decided.
    pub oldest_owed_at: Option<Timestamp>,
    /// Attempts, by outcome: `delivered`, `retried`, `parked`, `superseded`.
    pub attempts: BTreeMap<&'static str, u64>,
    /// Notifications that it refused for good, newest last, at most [`MAX_PARKED_SHOWN`].
    pub parked: Vec<String>,
    /// The last failure, without secrets; `None` once a delivery succeeded after it.
    pub last_error: Option<String>,
    /// Seconds from the reading that made a trigger owed to its acceptance.
    pub delivery_seconds: Histogram,
}

/// At most so many parked notifications are shown a receiver.
pub const MAX_PARKED_SHOWN: usize = 20;

/// The last reload of settings.
#[derive(Clone, Copy, Debug)]
pub struct ReloadHealth {
    /// Whether it succeeded; true before the first.
    pub ok: bool,
    /// When it was.
    pub at: Timestamp,
    /// How many failed.
    pub failures: u64,
}

/// Upper bounds in seconds of the buckets of [`Histogram`]; the last bucket has none.
pub const BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// Observations counted in buckets.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Observations up to each of [`BUCKETS`], not cumulated; above the last, in one more.
    pub counts: [u64; BUCKETS.len() + 1],
    /// The sum of all observations.
    pub sum: f64,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&mut self, seconds: f64) {
        let bucket = BUCKETS.iter().position(|b| seconds <= *b).unwrap_or(BUCKETS.len());
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum += seconds;
    }
}
