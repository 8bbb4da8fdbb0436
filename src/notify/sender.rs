//! Sends what is owed to one receiver, for as long as the daemon runs. The only place that does.
//!
//! At least once: a row leaves the outbox after its answer, never before. One request in flight a
//! key, a few keys at once, at the receiver's pace. What fails is tried again after a delay that is
//! kept in the outbox, or parked when no attempt can succeed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_core::judge::telling::{Notification, NotificationKind};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::Stop;
use super::http::Client;
use super::outcome::Outcome;
use super::pace::Gate;
use super::receiver::Receiver;
use super::schedule::{self, Row, delay, is_too_old};
use crate::chain::chain;
use crate::clock;
use crate::health::{Health, MAX_PARKED_SHOWN, ReceiverHealth};
use crate::store::{Outbox, Owed};

/// At most so many requests to one receiver at once, each of another key: one that hangs for one
/// target must not hold up the others, and a receiver must not be stormed.
const PARALLEL: usize = 4;

/// Everything that the sender of one receiver works with.
pub(super) struct Sender {
    receiver: Arc<Receiver>,
    outbox: Outbox,
    health: Health,
    client: Client,
    gate: Gate,
    attempts: JoinSet<Outcome>,
    in_flight: BTreeMap<Id, Sent>,
}

/// A notification that is being sent.
struct Sent {
    notification: Arc<Notification>,
    attempts: u32,
}

impl Sender {
    pub(super) fn new(receiver: Receiver, outbox: Outbox, health: Health, client: Client) -> Self {
        Self {
            gate: Gate::new(receiver.limits().pace),
            receiver: Arc::new(receiver),
            outbox,
            health,
            client,
            attempts: JoinSet::new(),
            in_flight: BTreeMap::new(),
        }
    }

    /// Works until it is stopped and has done what it still could. What is then in flight is given
    /// up and stays owed.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<Stop>) {
        let mut changed = self.outbox.changed();
        loop {
            // Before the outbox is read: what comes after this wakes us again.
            changed.mark_unchanged();
            let stopping = *stop.borrow_and_update();
            let wake = if stopping.sends() { self.send_what_is_due() } else { None };
            if self.is_done(stopping, wake) {
                return;
            }
            tokio::select! {
                Some(ended) = self.attempts.join_next_with_id() => self.settle(ended),
                Ok(()) = changed.changed() => {}
                () = sleep(wake) => {}
                Ok(()) = stop.changed() => {}
                () = sleep(stopping.time_left(clock::monotonic())) => return,
            }
        }
    }

    /// Whether there is nothing more to do in the time that is left.
    fn is_done(&self, stopping: Stop, wake: Option<Duration>) -> bool {
        let Some(left) = stopping.time_left(clock::monotonic()) else { return false };
        self.in_flight.is_empty() && wake.is_none_or(|wake| wake > left)
    }

    /// Sends what is due; how long until something else will be.
    fn send_what_is_due(&mut self) -> Option<Duration> {
        let (now, wall) = (clock::monotonic(), clock::wall());
        let owed = self.outbox.owed(&self.receiver.name);
        let rows: Vec<_> = owed.iter().map(row).collect();
        let busy: BTreeSet<_> =
            self.in_flight.values().map(|sent| sent.notification.key.as_str()).collect();
        let room = self.gate.room(now).min(PARALLEL - self.in_flight.len());
        let before_trigger = self.receiver.limits().before_trigger;
        let plan = schedule::plan(&rows, &busy, wall, room, before_trigger);

        // On record before anything newer goes out: an older update must not follow it after a
        // restart.
        self.supersede(&owed, &plan.supersede, wall);
        for turn in &plan.send {
            self.send(Arc::clone(&owed[turn.row].notification), turn.attempts, now);
        }
        self.show_owed(&owed, &plan.supersede);

        let closed_for = self.gate.wait(now);
        let is_waiting = owed.len() > self.in_flight.len() + plan.supersede.len();
        if is_waiting && !closed_for.is_zero() { Some(closed_for) } else { plan.wake_after }
    }

    fn send(&mut self, notification: Arc<Notification>, attempts: u32, now: Instant) {
        self.gate.sent(now);
        let (client, receiver) = (self.client.clone(), Arc::clone(&self.receiver));
        let attempt = attempt(client, receiver, Arc::clone(&notification));
        let id = self.attempts.spawn(attempt).id();
        self.in_flight.insert(id, Sent { notification, attempts });
    }

    fn supersede(&self, owed: &[Owed], places: &[usize], now: Timestamp) {
        if places.is_empty() {
            return;
        }
        let ids: Vec<_> = places.iter().map(|at| owed[*at].notification.id.clone()).collect();
        self.outbox.superseded(&ids, now);
        self.count("superseded", ids.len() as u64, |_| {});
    }

    /// Writes down what became of an attempt.
    fn settle(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let why = "the attempt panicked, which is a mistake in Plimsoll".to_owned();
                (error.id(), Outcome::Retry { after: None, why })
            }
        };
        let Some(sent) = self.in_flight.remove(&id) else { return };
        let now = clock::wall();
        match outcome {
            Outcome::Accepted => self.delivered(&sent, now),
            Outcome::Park { why } => self.park(&sent, now, &self.shown(&why)),
            Outcome::Retry { why, .. }
                if is_too_old(sent.notification.decided_at, now, sent.attempts) =>
            {
                let given_up = format!("given up after a day: {}", self.shown(&why));
                self.park(&sent, now, &given_up);
            }
            Outcome::Retry { after, why } => {
                let why = self.shown(&why);
                self.retry(&sent, now, after, &why);
            }
        }
    }

    fn delivered(&self, sent: &Sent, now: Timestamp) {
        let notification = &sent.notification;
        self.outbox.delivered(&notification.id, now);
        let seconds = now.duration_since(notification.decided_at).as_secs_f64();
        self.count("delivered", 1, |receiver| {
            receiver.last_error = None;
            if notification.kind == NotificationKind::Trigger {
                receiver.delivery_seconds.observe(seconds.max(0.0));
            }
        });
        tracing::info!(
            receiver = notification.receiver,
            key = notification.key,
            kind = notification.kind.word(),
            id = notification.id,
            failed_attempts = sent.attempts,
            seconds,
            "delivered"
        );
    }

    fn retry(&mut self, sent: &Sent, now: Timestamp, after: Option<Duration>, why: &str) {
        let notification = &sent.notification;
        let attempts = sent.attempts.saturating_add(1);
        let wait = delay(attempts, after, fastrand::f64());
        if after.is_some() {
            self.gate.close_until(clock::monotonic() + wait);
        }
        let next_at = now.checked_add(wait).unwrap_or(now);
        self.outbox.retry(&notification.id, attempts, next_at, why);
        self.count("retried", 1, |receiver| receiver.last_error = Some(why.to_owned()));
        tracing::warn!(
            receiver = notification.receiver,
            key = notification.key,
            kind = notification.kind.word(),
            id = notification.id,
            failed_attempts = attempts,
            again_in_seconds = wait.as_secs_f64(),
            error = why,
            "not delivered, to be tried again"
        );
    }

    fn park(&self, sent: &Sent, now: Timestamp, why: &str) {
        let notification = &sent.notification;
        self.outbox.parked(&notification.id, now, why);
        let line = format!(
            "{} of {}, decided at {}: {why}",
            notification.kind.word(),
            notification.key,
            notification.decided_at
        );
        self.count("parked", 1, |receiver| {
            receiver.last_error = Some(why.to_owned());
            receiver.parked.push(line);
            let surplus = receiver.parked.len().saturating_sub(MAX_PARKED_SHOWN);
            receiver.parked.drain(..surplus);
        });
        tracing::error!(
            receiver = notification.receiver,
            key = notification.key,
            kind = notification.kind.word(),
            id = notification.id,
            error = why,
            "parked: the receiver will never take it"
        );
    }

    /// Why an attempt failed, fit to be shown.
    fn shown(&self, why: &str) -> String {
        format!("{}: {}", self.receiver.origin(), self.receiver.scrub(why))
    }

    fn show_owed(&self, owed: &[Owed], superseded: &[usize]) {
        let still = |at: &usize| superseded.binary_search(at).is_err();
        let still = (0..owed.len()).filter(still).map(|at| owed[at].notification.decided_at);
        let (count, oldest) = (still.clone().count(), still.min());
        self.with_health(|receiver| {
            receiver.owed = count;
            receiver.oldest_owed_at = oldest;
        });
    }

    fn count(&self, outcome: &'static str, by: u64, also: impl FnOnce(&mut ReceiverHealth)) {
        self.with_health(|receiver| {
            let count = receiver.attempts.entry(outcome).or_default();
            *count = count.saturating_add(by);
            also(receiver);
        });
    }

    fn with_health(&self, change: impl FnOnce(&mut ReceiverHealth)) {
        let mut values = self.health.values();
        change(values.receivers.entry(self.receiver.name.clone()).or_default());
    }
}

async fn attempt(
    client: Client,
    receiver: Arc<Receiver>,
    notification: Arc<Notification>,
) -> Outcome {
    let request = receiver.payload(&notification, clock::wall());
    match client.post(request, receiver.timeout).await {
        Ok(answer) => receiver.outcome(answer, clock::wall()),
        Err(error) => Outcome::Retry { after: None, why: chain(&error) },
    }
}

fn row(owed: &Owed) -> Row<'_> {
    let notification = &owed.notification;
    Row {
        key: &notification.key,
        sequence: notification.sequence,
        kind: notification.kind,
        after_previous: notification.after_previous,
        decided_at: notification.decided_at,
        attempts: owed.attempts,
        next_at: owed.next_at,
        previous_accepted_at: owed.previous_accepted_at,
    }
}

/// Sleeps so long; for ever where there is nothing to wait for.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
