//! Sends what is owed: drains the outbox of the store to the receivers.
//!
//! What is told to whom was decided by the judge before it was committed; here it is rendered,
//! sent, paced and tried again. A task a receiver, so that a slow one delays no other. `run` calls
//! [`run`], and again with the new receivers after a reload.

mod connector;
pub mod endpoint;
pub mod http;
pub mod outcome;
mod pace;
pub mod pagerduty;
pub mod receiver;
pub mod schedule;
mod sender;
pub mod webhook;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::health::Health;
use crate::store::Outbox;
use http::Client;
pub use receiver::{Receiver, ReceiverError, manners};
use sender::Sender;

/// A sender that panicked is started again after this long: not in a loop that burns a core.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// When and how the senders end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// They go on.
    No,
    /// The daemon ends: what is due before then is sent, then they end.
    Drain {
        /// The end of the grace.
        until: Instant,
    },
    /// Others take over: what is in flight may end until then, nothing more is sent.
    HandOver {
        /// The end of the patience.
        until: Instant,
    },
}

impl Stop {
    fn sends(self) -> bool {
        !matches!(self, Self::HandOver { .. })
    }

    fn time_left(self, now: Instant) -> Option<Duration> {
        match self {
            Self::No => None,
            Self::Drain { until } | Self::HandOver { until } => {
                Some(until.saturating_duration_since(now))
            }
        }
    }
}

/// Sends to these receivers until it is stopped. What could not be sent stays owed.
pub async fn run(
    receivers: Vec<Receiver>,
    outbox: Outbox,
    health: Health,
    client: Client,
    mut stop: watch::Receiver<Stop>,
) {
    show(&receivers, &health);
    park_what_nobody_can_send(&receivers, &outbox);
    let mut senders = JoinSet::new();
    let mut running = BTreeMap::new();
    let start = |receiver: &Receiver| {
        Sender::new(receiver.clone(), outbox.clone(), health.clone(), client.clone())
            .run(stop.clone())
    };
    for receiver in receivers {
        running.insert(senders.spawn(start(&receiver)).id(), receiver);
    }
    while let Some(ended) = senders.join_next_with_id().await {
        let Err(error) = ended else { continue };
        let Some(receiver) = running.remove(&error.id()) else { continue };
        tracing::error!(receiver = receiver.name, "its sender panicked and is started again");
        let again = start(&receiver);
        let id = senders.spawn(async {
            tokio::time::sleep(RESTART_AFTER).await;
            again.await;
        });
        running.insert(id.id(), receiver);
    }
    // Without receivers there is nothing to do, and yet no reason to end.
    drop(stop.wait_for(|stop| *stop != Stop::No).await);
}

/// Each receiver has its numbers from the start, and those that are gone have none.
fn show(receivers: &[Receiver], health: &Health) {
    let mut values = health.values();
    values.receivers.retain(|name, _| receivers.iter().any(|r| r.name == *name));
    for receiver in receivers {
        values.receivers.entry(receiver.name.clone()).or_default();
    }
}

/// What is owed to a receiver that settings no longer name can never be sent.
fn park_what_nobody_can_send(receivers: &[Receiver], outbox: &Outbox) {
    for gone in outbox.receivers() {
        if receivers.iter().any(|r| r.name == gone) {
            continue;
        }
        let owed = outbox.owed(&gone);
        tracing::warn!(receiver = gone, count = owed.len(), "parked: no receiver has this name");
        for row in owed {
            let why = "no receiver of this name is configured any more";
            outbox.parked(&row.notification.id, clock::wall(), why);
        }
    }
}
