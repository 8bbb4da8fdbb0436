//! The mailbox of one place between a source and the loop of its target.
//!
//! A source leaves what it saw and never waits; `run` takes it when it composes a reading. A newer
//! observation replaces an older one, but things that happened are added up until they are taken,
//! so that each of them is in exactly one reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_core::reading::{Failure, Part, RefusedLogin};
use tokio::sync::Notify;

/// What is older than so many rhythms of its source says nothing of now.
const RHYTHMS_UNTIL_STALE: u32 = 3;

/// What a source leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery<T> {
    /// When it was complete, on the monotonic clock.
    pub taken_at: Instant,
    /// What was seen, or why nothing was.
    pub outcome: Result<Arc<T>, Failure>,
    /// Our own logins that were refused since the delivery before: at most one entry a reason.
    pub refused_logins: Vec<RefusedLogin>,
    /// Whether a login of ours was answered, with yes or no, since the delivery before.
    pub logins_tried: bool,
    /// How often the source means to leave something at present.
    pub rhythm: Duration,
}

/// A handle on the one place.
#[derive(Clone, Debug)]
pub struct Mailbox<T>(Arc<Place<T>>);

#[derive(Debug)]
struct Place<T> {
    delivery: Mutex<Option<Delivery<T>>>,
    arrived: Notify,
    replaced: AtomicU64,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Arc::new(Place {
            delivery: Mutex::new(None),
            arrived: Notify::new(),
            replaced: AtomicU64::new(0),
        }))
    }
}

impl<T> Mailbox<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves a delivery in place of the one that nobody took.
    pub fn leave(&self, mut delivery: Delivery<T>) {
        let mut place = self.place();
        if let Some(untaken) = place.take() {
            self.0.replaced.fetch_add(1, Ordering::Relaxed);
            delivery.logins_tried |= untaken.logins_tried;
            for refused in untaken.refused_logins {
                add_refused(&mut delivery.refused_logins, refused);
            }
        }
        *place = Some(delivery);
        drop(place);
        self.0.arrived.notify_one();
    }

    /// Returns when something lies there that was not taken. For one reader.
    pub async fn arrived(&self) {
        while self.place().is_none() {
            self.0.arrived.notified().await;
        }
    }

    /// Takes what lies there.
    pub fn take(&self) -> Option<Delivery<T>> {
        self.place().take()
    }

    /// How many deliveries were replaced before anybody took them.
    pub fn replaced(&self) -> u64 {
        self.0.replaced.load(Ordering::Relaxed)
    }

    fn place(&self) -> MutexGuard<'_, Option<Delivery<T>>> {
        self.0.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts refused logins by their reason.
pub fn add_refused(all: &mut Vec<RefusedLogin>, one: RefusedLogin) {
    match all.iter_mut().find(|known| known.reason == one.reason) {
        Some(known) => known.count = known.count.saturating_add(one.count),
        None => all.push(one),
    }
}

/// The newest that a source gave, kept by the loop that composes readings.
#[derive(Clone, Debug)]
pub struct Latest<T>(Option<Delivery<T>>);

/// The parts of a reading that come from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed<T> {
    /// The observation or failure, with its age.
    pub part: Part<T>,
    /// Refused logins that no reading had before.
    pub refused_logins: Vec<RefusedLogin>,
    /// Whether a login was answered since the reading before.
    pub logins_tried: bool,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Latest<T> {
    /// Takes what arrived and says what is known at `now`; `None` until the first delivery.
    pub fn compose(&mut self, mailbox: &Mailbox<T>, now: Instant) -> Option<Composed<T>> {
        let arrived = mailbox.take();
        let fresh = arrived.is_some();
        if let Some(delivery) = arrived {
            self.0 = Some(delivery);
        }
        let latest = self.0.as_mut()?;
        Some(Composed {
            part: Part {
                age: now.saturating_duration_since(latest.taken_at),
                fresh,
                stale_after: latest.rhythm.saturating_mul(RHYTHMS_UNTIL_STALE),
                seen: latest.outcome.clone(),
            },
            refused_logins: std::mem::take(&mut latest.refused_logins),
            logins_tried: std::mem::take(&mut latest.logins_tried),
        })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::reading::Refusal;

    use super::*;
    use crate::clock;

    const RHYTHM: Duration = Duration::from_secs(1);

    fn delivery(at: Instant, seen: u32, refused: &[(Refusal, u32)]) -> Delivery<u32> {
        Delivery {
            taken_at: at,
            outcome: Ok(Arc::new(seen)),
            refused_logins: refused
                .iter()
                .map(|&(reason, count)| RefusedLogin { reason, count })
                .collect(),
            logins_tried: !refused.is_empty(),
            rhythm: RHYTHM,
        }
    }

    #[test]
    fn a_newer_gauge_replaces_an_older_one_and_refusals_add_up() {
        let (mailbox, now) = (Mailbox::new(), clock::monotonic());
        mailbox.leave(delivery(now, 1, &[(Refusal::AllSlotsTaken, 1)]));
        mailbox.leave(delivery(now, 2, &[(Refusal::RoleLimit, 1), (Refusal::AllSlotsTaken, 2)]));
        mailbox.leave(delivery(now, 3, &[]));
        let taken = mailbox.take().unwrap();
        assert_eq!(taken.outcome, Ok(Arc::new(3)));
        assert!(taken.logins_tried);
        let mut refused = taken.refused_logins;
        refused.sort_by_key(|r| r.reason);
        let counts: Vec<_> = refused.iter().map(|r| (r.reason, r.count)).collect();
        assert_eq!(counts, [(Refusal::AllSlotsTaken, 3), (Refusal::RoleLimit, 1)]);
        assert_eq!(mailbox.take(), None);
        assert_eq!(mailbox.replaced(), 2);
    }

    #[test]
    fn what_happened_is_in_one_reading_and_the_gauge_ages() {
        let (mailbox, mut latest) = (Mailbox::new(), Latest::default());
        let now = clock::monotonic();
        assert_eq!(latest.compose(&mailbox, now), None);
        mailbox.leave(delivery(now, 7, &[(Refusal::AllSlotsTaken, 1)]));
        let first = latest.compose(&mailbox, now + RHYTHM / 2).unwrap();
        assert!(first.part.fresh && first.logins_tried);
        assert_eq!(first.refused_logins.len(), 1);
        assert_eq!(first.part.age, RHYTHM / 2);
        let second = latest.compose(&mailbox, now + RHYTHM * 3).unwrap();
        assert!(!second.part.fresh && !second.logins_tried);
        assert_eq!(second.refused_logins, []);
        assert_eq!(second.part.known(), Some(&7));
        let third = latest.compose(&mailbox, now + RHYTHM * 3 + RHYTHM / 2).unwrap();
        assert_eq!(third.part.known(), None);
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_what_arrives_and_by_what_lay_there() {
        let (mailbox, now) = (Mailbox::new(), clock::monotonic());
        mailbox.leave(delivery(now, 1, &[]));
        mailbox.arrived().await;
        mailbox.take().unwrap();
        let (woken, ()) = tokio::join!(
            async {
                mailbox.arrived().await;
                mailbox.take()
            },
            async { mailbox.leave(delivery(now, 2, &[])) },
        );
        assert_eq!(woken.unwrap().outcome, Ok(Arc::new(2)));
    }
}
