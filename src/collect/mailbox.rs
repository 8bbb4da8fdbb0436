//! The mailbox of one place between a source and the loop of its target.
//!
//! A source leaves what it saw and never waits; `run` takes it when it composes a reading. A newer
//! observation replaces an older one, but things that happened are added up until they are taken,
//! so that each of them is in exactly one reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_core::reading::{Failure, Happened, Part};
use tokio::sync::Notify;

/// What is older than so many rhythms of its source says nothing of now.
const RHYTHMS_UNTIL_STALE: u32 = 3;

/// What a source leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery<T, H = ()> {
    /// When it was complete, on the monotonic clock.
    pub taken_at: Instant,
    /// What was seen, or why nothing was.
    pub outcome: Result<Arc<T>, Failure>,
    /// What happened since the delivery before.
    pub happened: H,
    /// How often the source means to leave something at present.
    pub rhythm: Duration,
}

/// A handle on the one place.
#[derive(Debug)]
pub struct Mailbox<T, H = ()>(Arc<Place<T, H>>);

#[derive(Debug)]
struct Place<T, H> {
    delivery: Mutex<Option<Delivery<T, H>>>,
    arrived: Notify,
    replaced: AtomicU64,
}

impl<T, H> Clone for Mailbox<T, H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, H> Default for Mailbox<T, H> {
    fn default() -> Self {
        Self(Arc::new(Place {
            delivery: Mutex::new(None),
            arrived: Notify::new(),
            replaced: AtomicU64::new(0),
        }))
    }
}

impl<T, H: Happened> Mailbox<T, H> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves a delivery in place of the one that nobody took.
    pub fn leave(&self, mut delivery: Delivery<T, H>) {
        let mut place = self.place();
        if let Some(untaken) = place.take() {
            self.0.replaced.fetch_add(1, Ordering::Relaxed);
            let later = std::mem::replace(&mut delivery.happened, untaken.happened);
            delivery.happened.add(later);
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
    pub fn take(&self) -> Option<Delivery<T, H>> {
        self.place().take()
    }

    /// How many deliveries were replaced before anybody took them.
    pub fn replaced(&self) -> u64 {
        self.0.replaced.load(Ordering::Relaxed)
    }

    fn place(&self) -> MutexGuard<'_, Option<Delivery<T, H>>> {
        self.0.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest that a source gave, kept by the loop that composes readings.
#[derive(Clone, Debug)]
pub struct Latest<T, H = ()>(Option<Delivery<T, H>>);

/// The parts of a reading that come from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed<T, H = ()> {
    /// The observation or failure, with its age.
    pub part: Part<T>,
    /// What happened that no reading had before.
    pub happened: H,
}

impl<T, H> Default for Latest<T, H> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T, H: Happened> Latest<T, H> {
    /// Takes what arrived and says what is known at `now`; `None` until the first delivery.
    pub fn compose(&mut self, mailbox: &Mailbox<T, H>, now: Instant) -> Option<Composed<T, H>> {
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
            happened: std::mem::take(&mut latest.happened),
        })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::reading::{Logins, Refusal, RefusedLogin};

    use super::*;
    use crate::clock;

    const RHYTHM: Duration = Duration::from_secs(1);

    fn delivery(at: Instant, seen: u32, refused: &[(Refusal, u32)]) -> Delivery<u32, Logins> {
        let counted = |&(reason, count): &(Refusal, u32)| RefusedLogin { reason, count };
        Delivery {
            taken_at: at,
            outcome: Ok(Arc::new(seen)),
            happened: Logins {
                refused: refused.iter().map(counted).collect(),
                tried: !refused.is_empty(),
            },
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
        assert!(taken.happened.tried);
        let mut refused = taken.happened.refused;
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
        assert!(first.part.fresh && first.happened.tried);
        assert_eq!(first.happened.refused.len(), 1);
        assert_eq!(first.part.age, RHYTHM / 2);
        let second = latest.compose(&mailbox, now + RHYTHM * 3).unwrap();
        assert!(!second.part.fresh && !second.happened.tried);
        assert_eq!(second.happened.refused, []);
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
