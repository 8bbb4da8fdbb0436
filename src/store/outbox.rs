//! What is still owed to receivers, in memory. `notify` drains it; the writer follows on disk.
//!
//! A notification appears here once its commit is on disk, or once the store is volatile: never
//! before. What became of it is applied here at once and reaches the disk when it can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::telling::{Notification, NotificationKind};
use tokio::sync::watch;

use super::DeliveryState;
use super::Handle;
use super::shared::Shared;
use super::waiting::Mark;

/// At most so many notifications are owed in memory, of some kB each. `notify` joins what is
/// unsent, so that two or three a receiver and target are usual, and this is room for hundreds of
/// targets: the bound is for a sender that does not come round. Beyond it the oldest update goes
/// first, then the oldest of all, each superseded and counted.
pub const MAX_OWED: usize = 5_000;

/// An error is kept so long and no longer, in characters: enough for a status line and a sentence.
pub const MAX_ERROR_CHARS: usize = 300;

/// When a key was last accepted is remembered this long. The longest wait that hangs on it is a
/// minute ([`plimsoll_core::judge::telling::RISE_REPEAT_AFTER`]).
pub(super) const ACCEPTED_KEPT: Duration = Duration::from_hours(1);

/// A notification that is still owed.
#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    /// What is owed.
    pub notification: Arc<Notification>,
    /// How often sending it was tried and failed.
    pub attempts: u32,
    /// Not before this, after a failure; wall time, kept over restarts.
    pub next_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the receiver last accepted something under this key, in the last hour.
    pub previous_accepted_at: Option<Timestamp>,
}

/// The outbox of one store: a cheap handle.
#[derive(Clone, Debug)]
pub struct Outbox(pub(super) Arc<Handle>);

impl Outbox {
    /// What is owed to this receiver, sorted by key and sequence; at most [`MAX_OWED`].
    pub fn owed(&self, receiver: &str) -> Vec<Owed> {
        self.shared().with_owed(|rows| rows.owed(receiver))
    }

    /// Everybody to whom something is owed, receivers that settings no longer name included.
    pub fn receivers(&self) -> BTreeSet<String> {
        self.shared().with_owed(Rows::receivers)
    }

    /// Changes its value whenever anything here changes. Each caller has its own, so that none
    /// misses a change that came while it was busy.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared().outbox_changed()
    }

    /// The receiver accepted it.
    pub fn delivered(&self, id: &str, at: Timestamp) {
        self.shared().finish(id, at, DeliveryState::Delivered, None);
    }

    /// The receiver refused it for good: it is kept and shown, and never sent again.
    pub fn parked(&self, id: &str, at: Timestamp, error: &str) {
        self.shared().finish(id, at, DeliveryState::Parked, Some(error));
    }

    /// Newer ones say all that these did: they are not sent.
    pub fn superseded(&self, ids: &[String], at: Timestamp) {
        for id in ids {
            self.shared().finish(id, at, DeliveryState::Superseded, None);
        }
    }

    /// It could not be sent, and is tried again at `next_at`.
    pub fn retry(&self, id: &str, attempts: u32, next_at: Timestamp, error: &str) {
        self.shared().retry(id, attempts, next_at, error);
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

/// The rows behind an [`Outbox`].
#[derive(Debug, Default)]
pub(super) struct Rows {
    owed: BTreeMap<Place, Row>,
    places: BTreeMap<String, Place>,
    accepted: BTreeMap<(String, String), Accepted>,
}

/// Where a row stands: a receiver's rows lie together, each key's in sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    receiver: String,
    key: String,
    sequence: u64,
    id: String,
}

/// One owed notification.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) notification: Arc<Notification>,
    pub(super) attempts: u32,
    pub(super) next_at: Option<Timestamp>,
    pub(super) last_error: Option<String>,
}

/// The newest notification of a receiver and key that was accepted, and when.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) receiver: String,
    pub(super) key: String,
    pub(super) sequence: u64,
    pub(super) at: Timestamp,
}

impl Rows {
    /// The rows that were on disk.
    pub(super) fn restored(owed: Vec<Row>, accepted: Vec<Accepted>) -> Self {
        let mut rows = Self::default();
        for row in owed {
            rows.put(row);
        }
        for one in accepted {
            rows.accepted.insert((one.receiver.clone(), one.key.clone()), one);
        }
        rows
    }

    /// Adds one that is newly owed, unless it is here; gives back what had to go for want of room.
    pub(super) fn insert(&mut self, notification: Arc<Notification>) -> Option<Row> {
        if self.places.contains_key(&notification.id) {
            return None;
        }
        self.put(Row { notification, attempts: 0, next_at: None, last_error: None });
        if self.owed.len() > MAX_OWED { self.make_room() } else { None }
    }

    fn put(&mut self, row: Row) {
        let place = Place {
            receiver: row.notification.receiver.clone(),
            key: row.notification.key.clone(),
            sequence: row.notification.sequence,
            id: row.notification.id.clone(),
        };
        self.places.insert(place.id.clone(), place.clone());
        self.owed.insert(place, row);
    }

    fn make_room(&mut self) -> Option<Row> {
        let oldest = |updates_only: bool| {
            let rows = self.owed.values().map(|row| &row.notification);
            rows.filter(|n| !updates_only || n.kind == NotificationKind::Update)
                .min_by_key(|n| (n.decided_at, n.sequence))
                .map(|n| n.id.clone())
        };
        let id = oldest(true).or_else(|| oldest(false))?;
        self.remove(&id)
    }

    /// Takes one out, whatever became of it.
    pub(super) fn remove(&mut self, id: &str) -> Option<Row> {
        let place = self.places.remove(id)?;
        self.owed.remove(&place)
    }

    /// The row of this id, to be changed.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Row> {
        self.owed.get_mut(self.places.get(id)?)
    }

    /// Remembers that this was accepted, and forgets what is too old to matter.
    pub(super) fn accepted(&mut self, notification: &Notification, at: Timestamp) {
        let Notification { receiver, key, sequence, .. } = notification;
        self.accepted.retain(|_, one| at.duration_since(one.at).unsigned_abs() < ACCEPTED_KEPT);
        let newest = self.accepted.get(&(receiver.clone(), key.clone()));
        if newest.is_none_or(|one| one.sequence <= *sequence) {
            let one =
                Accepted { receiver: receiver.clone(), key: key.clone(), sequence: *sequence, at };
            self.accepted.insert((receiver.clone(), key.clone()), one);
        }
    }

    /// Every row.
    pub(super) fn all(&self) -> impl Iterator<Item = &Row> {
        self.owed.values()
    }

    fn owed(&self, receiver: &str) -> Vec<Owed> {
        let from = Place {
            receiver: receiver.to_owned(),
            key: String::new(),
            sequence: 0,
            id: String::new(),
        };
        let rows = self.owed.range(from..).take_while(|(place, _)| place.receiver == receiver);
        rows.map(|(place, row)| Owed {
            notification: Arc::clone(&row.notification),
            attempts: row.attempts,
            next_at: row.next_at,
            last_error: row.last_error.clone(),
            previous_accepted_at: self
                .accepted
                .get(&(place.receiver.clone(), place.key.clone()))
                .map(|one| one.at),
        })
        .collect()
    }

    fn receivers(&self) -> BTreeSet<String> {
        self.owed.keys().map(|place| place.receiver.clone()).collect()
    }
}

impl Row {
    /// The columns of this row that change, for the disk.
    pub(super) fn mark(
        &self,
        state: DeliveryState,
        finished_at: Option<Timestamp>,
        error: Option<String>,
    ) -> Mark {
        let tried = matches!(state, DeliveryState::Delivered | DeliveryState::Parked);
        let attempts = self.attempts.saturating_add(u32::from(tried));
        let next_at = if state == DeliveryState::Owed { self.next_at } else { None };
        Mark { state, attempts, next_at, finished_at, error }
    }
}

/// An error, cut to what is kept of it.
pub(super) fn cut(error: &str) -> String {
    error.chars().take(MAX_ERROR_CHARS).collect()
}
