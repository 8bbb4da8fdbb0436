//! What waits for the disk: a pure queue with bounds. The writer takes a copy of it as one
//! transaction and, when that is on disk, what was in the copy is forgotten here.
//!
//! So nothing is lost when a transaction fails or the writer dies, and while the disk is away a
//! newer episode of a target replaces the older one. The rows behind an `Arc` are shared with the
//! outbox: a copy is cheap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use plimsoll_core::judge::incident::Report;
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::telling::Notification;
use plimsoll_core::judge::{Episode, Transition};

use super::outbox::MAX_OWED;
use super::{Change, DeliveryState};

/// At most so many transitions wait: hours of a flapping fleet, some megabytes. The oldest are
/// dropped and counted; they are for the record only.
pub const MAX_WAITING_TRANSITIONS: usize = 10_000;

/// At most so many incidents wait. The one that changed longest ago is dropped and counted; its
/// facts are in the notifications too.
pub const MAX_WAITING_REPORTS: usize = 1_000;

/// At most so many notifications wait: twice what can be owed, so that those go first that are
/// delivered already, or superseded.
pub const MAX_WAITING_NOTIFICATIONS: usize = 2 * MAX_OWED;

/// Numbers the changes of a run; what waits is written up to a ticket.
pub(super) type Ticket = u64;

/// Something that waits, the ticket under which it came, and when that was by the reading.
#[derive(Clone, Debug)]
pub(super) struct Waiting<T> {
    pub(super) ticket: Ticket,
    pub(super) at: Timestamp,
    pub(super) value: T,
}

/// A transition and its place among those of one reading.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) target: Arc<str>,
    pub(super) ordinal: usize,
    pub(super) transition: Transition,
}

/// What became of a notification: all the columns of its row that change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) state: DeliveryState,
    pub(super) attempts: u32,
    pub(super) next_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) error: Option<String>,
}

/// Everything that waits for the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// The newest ticket that was given.
    pub(super) ticket: Ticket,
    pub(super) episodes: BTreeMap<Arc<str>, Waiting<Arc<Episode>>>,
    pub(super) memories: BTreeMap<Arc<str>, Waiting<Arc<Memory>>>,
    pub(super) transitions: VecDeque<Waiting<Arc<Step>>>,
    pub(super) reports: BTreeMap<String, Waiting<Arc<Report>>>,
    pub(super) notifications: VecDeque<Waiting<Arc<Notification>>>,
    pub(super) marks: BTreeMap<String, Waiting<Mark>>,
    /// How many entries were dropped for want of room, since the start.
    pub(super) dropped: u64,
}

impl Queue {
    /// Queues one change, whose notifications are shared with the outbox.
    pub(super) fn change(&mut self, change: Parts) -> Ticket {
        self.ticket += 1;
        let (ticket, at, target) = (self.ticket, change.at, change.target);
        if let Some(memory) = change.memory {
            self.memories.insert(Arc::clone(&target), Waiting { ticket, at, value: memory });
        }
        for (ordinal, transition) in change.transitions.into_iter().enumerate() {
            let step = Step { target: Arc::clone(&target), ordinal, transition };
            self.transitions.push_back(Waiting { ticket, at, value: Arc::new(step) });
        }
        self.episodes.insert(target, Waiting { ticket, at, value: change.episode });
        for report in change.reports {
            let waiting = Waiting { ticket, at, value: Arc::new(report) };
            self.reports.insert(waiting.value.id.clone(), waiting);
        }
        let notifications = change.notifications.into_iter();
        self.notifications.extend(notifications.map(|value| Waiting { ticket, at, value }));
        self.keep_within_bounds();
        ticket
    }

    /// Queues what became of a notification; it replaces what was known before.
    pub(super) fn mark(&mut self, id: String, at: Timestamp, mark: Mark) {
        self.ticket += 1;
        self.marks.insert(id, Waiting { ticket: self.ticket, at, value: mark });
    }

    /// Forgets what is on disk.
    pub(super) fn written(&mut self, up_to: Ticket) {
        self.episodes.retain(|_, w| w.ticket > up_to);
        self.memories.retain(|_, w| w.ticket > up_to);
        self.transitions.retain(|w| w.ticket > up_to);
        self.reports.retain(|_, w| w.ticket > up_to);
        self.notifications.retain(|w| w.ticket > up_to);
        self.marks.retain(|_, w| w.ticket > up_to);
    }

    /// How many rows wait.
    pub(super) fn len(&self) -> usize {
        self.episodes.len()
            + self.memories.len()
            + self.transitions.len()
            + self.reports.len()
            + self.notifications.len()
            + self.marks.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest time that came with anything that waits.
    pub(super) fn newest_at(&self) -> Option<Timestamp> {
        let episodes = self.episodes.values().map(|w| w.at);
        episodes.chain(self.marks.values().map(|w| w.at)).max()
    }

    fn keep_within_bounds(&mut self) {
        while self.transitions.len() > MAX_WAITING_TRANSITIONS {
            self.transitions.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        while self.reports.len() > MAX_WAITING_REPORTS {
            let oldest = self.reports.iter().min_by_key(|(_, w)| w.ticket);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { break };
            self.reports.remove(&id);
            self.dropped = self.dropped.saturating_add(1);
        }
        while self.notifications.len() > MAX_WAITING_NOTIFICATIONS {
            let finished =
                |id: &str| self.marks.get(id).is_some_and(|w| w.value.state != DeliveryState::Owed);
            let place = self.notifications.iter().position(|w| finished(&w.value.id)).unwrap_or(0);
            if let Some(gone) = self.notifications.remove(place) {
                self.marks.remove(&gone.value.id);
            }
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

/// A [`Change`] with what is shared put behind an `Arc`.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) target: Arc<str>,
    pub(super) at: Timestamp,
    pub(super) episode: Arc<Episode>,
    pub(super) memory: Option<Arc<Memory>>,
    pub(super) transitions: Vec<Transition>,
    pub(super) notifications: Vec<Arc<Notification>>,
    pub(super) reports: Vec<Report>,
}

impl From<Change> for Parts {
    fn from(change: Change) -> Self {
        Self {
            target: change.target.into(),
            at: change.at,
            episode: Arc::new(change.episode),
            memory: change.memory.map(Arc::new),
            transitions: change.transitions,
            notifications: change.notifications.into_iter().map(Arc::new).collect(),
            reports: change.reports,
        }
    }
}
