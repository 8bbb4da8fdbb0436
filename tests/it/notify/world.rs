//! A store, senders and what they are given: what every test of sending begins with.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use plimsoll::clock;
use plimsoll::health::{Health, ReceiverHealth};
use plimsoll::notify::http::Client;
use plimsoll::notify::{Receiver, Stop, run};
use plimsoll::store::{Change, Owed, Store};
use plimsoll_core::judge::alert::AlertState;
use plimsoll_core::judge::bottleneck::{Bottleneck, Found};
use plimsoll_core::judge::incident::{AlertFact, Holder, IncidentState, Report, StateCount};
use plimsoll_core::judge::rule::{RuleName, Subject};
use plimsoll_core::judge::telling::{Notification, NotificationKind};
use plimsoll_core::judge::{Episode, Severity};
use plimsoll_core::reading::postgres::{Limits, SessionState, Slots};
use plimsoll_core::settings::{ReceiverKind, ReceiverSettings, Secret};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Ten times and more what anything here takes.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

/// The senders of a daemon and its store.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) health: Health,
    folder: TempDir,
    stop: watch::Sender<Stop>,
    senders: JoinSet<()>,
}

impl World {
    /// With an empty store and without proxies.
    pub(super) fn start(receivers: &[ReceiverSettings]) -> Self {
        Self::start_with(receivers, client(Matcher::builder().build()))
    }

    pub(super) fn start_with(receivers: &[ReceiverSettings], client: Client) -> Self {
        Self::start_in(TempDir::new().unwrap(), receivers, client)
    }

    fn start_in(folder: TempDir, receivers: &[ReceiverSettings], client: Client) -> Self {
        let health = Health::starting(clock::wall());
        let store = open(folder.path(), &health);
        let (stop, stopped) = watch::channel(Stop::No);
        let receivers = receivers.iter().map(|r| Receiver::new(r).unwrap()).collect();
        let mut senders = JoinSet::new();
        senders.spawn(run(receivers, store.outbox(), health.clone(), client, stopped));
        Self { store, health, folder, stop, senders }
    }

    /// The same store, opened again by another daemon.
    pub(super) async fn restart(self, receivers: &[ReceiverSettings]) -> Self {
        let folder = self.end(Stop::HandOver { until: clock::monotonic() }).await;
        Self::start_in(folder, receivers, client(Matcher::builder().build()))
    }

    /// Ends the senders, then the store; gives back its folder.
    pub(super) async fn end(mut self, stop: Stop) -> TempDir {
        self.stop.send_replace(stop);
        within(self.senders.join_next()).await.unwrap().unwrap();
        self.store.close(DEADLINE).await;
        self.folder
    }

    /// Owes these, as after a verdict.
    pub(super) async fn owe(&self, notifications: Vec<Notification>) {
        let change = Change {
            target: "payment-db-primary".to_owned(),
            at: clock::wall(),
            episode: Episode::empty(),
            memory: None,
            transitions: Vec::new(),
            notifications,
            reports: Vec::new(),
        };
        within(self.store.commit(change)).await;
    }

    /// Waits until what is owed to a receiver is as it should be.
    pub(super) async fn until(&self, receiver: &str, done: impl Fn(&[Owed]) -> bool) {
        let outbox = self.store.outbox();
        let mut changed = outbox.changed();
        within(async {
            while !done(&outbox.owed(receiver)) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }

    /// Waits until nothing is owed to a receiver.
    pub(super) async fn until_sent(&self, receiver: &str) {
        self.until(receiver, <[Owed]>::is_empty).await;
    }

    /// Waits until an attempt failed, and says how.
    pub(super) async fn first_failure(&self, receiver: &str) -> Owed {
        self.until(receiver, |owed| owed.iter().any(|row| row.attempts > 0)).await;
        let owed = self.store.outbox().owed(receiver);
        owed.into_iter().find(|row| row.attempts > 0).unwrap()
    }

    pub(super) fn health_of(&self, receiver: &str) -> ReceiverHealth {
        self.health.values().receivers[receiver].clone()
    }

    /// How many attempts had this outcome.
    pub(super) fn count(&self, receiver: &str, outcome: &str) -> u64 {
        self.health_of(receiver).attempts.get(outcome).copied().unwrap_or(0)
    }
}

/// The store of a folder; another one may still be letting go of it.
fn open(folder: &Path, health: &Health) -> Store {
    let opened = Store::open(folder, clock::wall(), health.clone()).unwrap();
    assert_eq!(opened.problem, None);
    opened.store
}

/// What this gives, unless it takes for ever.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes for ever")
}

/// A client that trusts nobody and uses these proxies.
pub(super) fn client(proxies: Matcher) -> Client {
    Client::new(rustls::RootCertStore::empty(), proxies)
}

fn settings(name: &str, kind: ReceiverKind) -> ReceiverSettings {
    ReceiverSettings {
        name: name.to_owned(),
        kind,
        min_severity: Severity::Warning,
        send_resolved: true,
        rules: Vec::new(),
        targets: Vec::new(),
        repeat_interval: Duration::from_mins(15),
        repeat_interval_warning: Duration::from_hours(4),
        timeout: DEADLINE * 2,
    }
}

pub(super) fn webhook(name: &str, url: &str) -> ReceiverSettings {
    let kind = ReceiverKind::Webhook { url: Secret::new(url), signing_secrets: Vec::new() };
    settings(name, kind)
}

pub(super) const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn pagerduty(name: &str, base_url: &str) -> ReceiverSettings {
    let routing_key = Secret::new(ROUTING_KEY);
    settings(name, ReceiverKind::Pagerduty { routing_key, base_url: base_url.to_owned() })
}

/// A notification of the incident of post-mortem 042, decided now.
pub(super) fn notification(
    receiver: &str,
    key: &str,
    sequence: u64,
    kind: NotificationKind,
) -> Notification {
    let mut report = report(key);
    report.at = clock::wall();
    if kind == NotificationKind::Resolve {
        report.state = IncidentState::Resolved;
        report.resolved_at = Some(report.at);
        report.alerts[0].state = AlertState::Resolved;
    }
    Notification {
        id: format!("{receiver}_{}_{sequence}", key.replace('/', "_")),
        receiver: receiver.to_owned(),
        key: key.to_owned(),
        sequence,
        kind,
        after_previous: Duration::ZERO,
        decided_at: report.at,
        report,
    }
}

/// The facts of that incident.
pub(super) fn report(key: &str) -> Report {
    let at: Timestamp = "2024-03-15T14:39:12Z".parse().unwrap();
    let limits = Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 };
    let states = vec![
        StateCount { state: SessionState::Active, connections: 36 },
        StateCount { state: SessionState::Idle, connections: 3 },
    ];
    Report {
        id: "3f1c0a9d2b7e4856".to_owned(),
        dedup_key: key.to_owned(),
        target: "payment-db-primary".to_owned(),
        labels: [("service".to_owned(), "payment".to_owned())].into(),
        link: Some("https://plimsoll.example/targets/payment-db-primary".to_owned()),
        severity: Severity::Critical,
        state: IncidentState::Open,
        opened_at: at - Duration::from_secs(12),
        resolved_at: None,
        held: Duration::from_secs(12),
        at,
        alerts: vec![AlertFact {
            rule: RuleName::SlotsFull,
            subject: Subject::Target,
            severity: Severity::Critical,
            state: AlertState::Firing,
            since: at - Duration::from_secs(12),
            held: Duration::from_secs(12),
            observed: "47 of 47 usable slots in use (100 %)".to_owned(),
            threshold: "no slot is free".to_owned(),
        }],
        slots: Some(Slots::new(limits, 47)),
        known_at: None,
        failure: None,
        holders: vec![Holder {
            application: "payment-api".into(),
            role: "payment".into(),
            database: "payment".into(),
            address: "10.0.0.7".into(),
            connections: 39,
            waiting_for_lock: 36,
            states: states.clone(),
            other: false,
        }],
        states,
        peak: None,
        refused: Vec::new(),
        superusers: vec!["postgres".to_owned()],
        switch: None,
        bottleneck: Some(Found {
            at: Bottleneck::ServerSlots,
            figures: "47 of 47 usable slots in use (100 %)".to_owned(),
        }),
    }
}
