//! The sending half, started, replaced at a reload and ended within the grace.

use std::time::Duration;

use plimsoll_core::settings::ReceiverSettings;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::health::Health;
use crate::notify::http::Client;
use crate::notify::{self, Receiver, ReceiverError, Stop};
use crate::store::Store;

/// At a reload what is in flight may end within this time. Not longer: nobody is sent anything
/// meanwhile, and what is cut off is sent again under the same id.
const HAND_OVER: Duration = Duration::from_secs(3);

/// A receiver cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
#[error("preparing the receiver {name}")]
pub struct ReceiversError {
    name: String,
    source: ReceiverError,
}

/// Receivers that can be sent to.
pub(super) struct Receivers(Vec<Receiver>);

impl Receivers {
    pub(super) fn prepare(settings: &[ReceiverSettings]) -> Result<Self, ReceiversError> {
        let prepare = |one: &ReceiverSettings| {
            let named = |source| ReceiversError { name: one.name.clone(), source };
            Receiver::new(one).map_err(named)
        };
        settings.iter().map(prepare).collect::<Result<_, _>>().map(Self)
    }
}

/// The senders that run.
pub(super) struct Sending {
    receivers: Vec<Receiver>,
    stop: watch::Sender<Stop>,
    tasks: JoinSet<()>,
}

impl Sending {
    pub(super) fn start(receivers: Receivers, store: &Store, health: &Health) -> Self {
        let (stop, stopped) = watch::channel(Stop::No);
        let mut tasks = JoinSet::new();
        let client = Client::from_environment();
        let receivers = receivers.0;
        let all = receivers.clone();
        tasks.spawn(notify::run(all, store.outbox(), health.clone(), client, stopped));
        Self { receivers, stop, tasks }
    }

    /// The old end what they are at, then the new ones begin: never two attempts for one key.
    ///
    /// A receiver that settings name no more goes on until the daemon ends: it is still owed the
    /// resolve of what it was told.
    pub(super) async fn replace(
        &mut self,
        mut receivers: Receivers,
        store: &Store,
        health: &Health,
    ) {
        let until = clock::monotonic() + HAND_OVER;
        self.end(Stop::HandOver { until }).await;
        let is_new = |old: &Receiver| receivers.0.iter().all(|new| new.name != old.name);
        let leaving: Vec<Receiver> = self.receivers.drain(..).filter(is_new).collect();
        receivers.0.extend(leaving);
        *self = Self::start(receivers, store, health);
    }

    /// What is due within the grace is sent; what is not stays owed.
    pub(super) async fn stop(mut self, grace: Duration) {
        self.end(Stop::Drain { until: clock::monotonic() + grace }).await;
    }

    async fn end(&mut self, how: Stop) {
        self.stop.send_replace(how);
        while self.tasks.join_next().await.is_some() {}
    }
}
