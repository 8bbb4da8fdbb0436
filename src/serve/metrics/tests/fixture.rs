//! One of everything that can be exported, at fixed times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::Severity;
use plimsoll_core::reading::postgres::{
    BackendCount, ConnectionLimit, Cost, DatabaseCounters, Group, Limits, Observation, Server,
    SessionState,
};
use plimsoll_core::reading::{Logins, Part, Reading, Refusal};
use plimsoll_core::status::{AlertStatus, IncidentStatus, Published, SlotsStatus, SourceStatus};

use super::beside;
use crate::clock;
use crate::health::{Health, Histogram, LoopHealth, ReceiverHealth, ReloadHealth, StoreHealth};
use crate::serve::metrics::{Scrape, process};
use crate::serve::server::Numbers;

/// Every state of a session.
pub(super) const STATES: [SessionState; 7] = [
    SessionState::Active,
    SessionState::Idle,
    SessionState::IdleInTransaction,
    SessionState::IdleInTransactionAborted,
    SessionState::FastpathFunctionCall,
    SessionState::Disabled,
    SessionState::Starting,
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A scrape of a daemon with one target, one receiver and one of each trouble.
pub(super) fn scrape() -> Scrape {
    let started_at = at("2024-03-15T14:00:00Z");
    let monotonic = clock::monotonic();
    let mut health = Health::starting(started_at).values().clone();
    let last_turn = monotonic.checked_sub(Duration::from_millis(250)).unwrap();
    let turned = LoopHealth { last_turn, restarts: 1, blind: false, replaced: 3 };
    health.loops = BTreeMap::from([("db".to_owned(), turned)]);
    health.store = StoreHealth {
        commits: 12,
        failures: 1,
        waiting: 2,
        set_aside: 1,
        ..StoreHealth::default()
    };
    let mut delivery_seconds = Histogram::default();
    delivery_seconds.observe(0.2);
    delivery_seconds.observe(0.3);
    delivery_seconds.observe(1000.0);
    let receiver = ReceiverHealth {
        owed: 2,
        oldest_owed_at: Some(at("2024-03-15T14:38:30Z")),
        attempts: BTreeMap::from([("delivered", 3), ("retried", 5)]),
        parked: vec!["0123456789abcdef: 400".to_owned()],
        last_error: Some("answered 503".to_owned()),
        delivery_seconds,
    };
    health.receivers = BTreeMap::from([("on-call".to_owned(), receiver)]);
    health.reload = ReloadHealth { ok: false, at: at("2024-03-15T14:30:00Z"), failures: 1 };
    Scrape {
        version: "0.1.0",
        now: at("2024-03-15T14:39:00Z"),
        monotonic,
        targets: vec![target("db", observation())],
        health,
        http: Numbers {
            open: 3,
            dropped: BTreeMap::from([("crowded", 0), ("silent", 1), ("stalled", 0)]),
            answered: BTreeMap::from([(("/metrics", 200), 41), (("unknown", 404), 1)]),
        },
        process: Some(process::Numbers {
            cpu_seconds: 1.68,
            resident_bytes: 20_000_000,
            virtual_bytes: 90_000_000,
            open_fds: 17,
            max_fds: Some(1024),
            threads: 5,
        }),
    }
}

/// What is published of a target that was read like this.
pub(super) fn target(name: &str, seen: Observation) -> Arc<Published> {
    let read_at = at("2024-03-15T14:38:59.500Z");
    let slots = seen.slots();
    let mut published = Published::before_the_first_reading(name, BTreeMap::new());
    published.status.severity = "critical".to_owned();
    published.status.read_at = Some(read_at);
    published.status.slots = Some(SlotsStatus {
        max: slots.max,
        reserved: slots.reserved,
        usable: slots.usable,
        used: slots.used,
        free: slots.free,
        utilization: slots.utilization,
    });
    let postgres = SourceStatus {
        source: "postgres".to_owned(),
        state: "ok".to_owned(),
        error: None,
        last_success_at: Some(read_at),
        age_seconds: Some(0.02),
        fallback: None,
    };
    published.status.sources = vec![postgres];
    published.status.alerts = vec![AlertStatus {
        rule: "slots".to_owned(),
        subject: String::new(),
        severity: "critical".to_owned(),
        state: "firing".to_owned(),
        since: at("2024-03-15T14:38:40Z"),
        observed: "46 of 47 usable slots in use".to_owned(),
    }];
    published.status.incident = Some(incident(name));
    published.last_success_at = Some(read_at);
    published.refused_total = BTreeMap::from([(Refusal::AllSlotsTaken, 4)]);
    published.readings_total = BTreeMap::from([("ok", 2340), ("refused", 2)]);
    published.slots_marks = BTreeMap::from([(Severity::Warning, 37.6), (Severity::Critical, 42.3)]);
    let postgres = Part {
        age: Duration::from_millis(20),
        fresh: true,
        stale_after: Duration::from_secs(3),
        seen: Ok(Arc::new(seen)),
    };
    let second = Duration::from_secs(1);
    published.reading = Some(Reading::of_postgres(read_at, second, postgres, Logins::default()));
    beside::add(&mut published, read_at);
    Arc::new(published)
}

/// The same target but for a change.
pub(super) fn changed(
    published: Arc<Published>,
    change: impl FnOnce(&mut Published),
) -> Arc<Published> {
    let mut published = Arc::unwrap_or_clone(published);
    change(&mut published);
    Arc::new(published)
}

fn incident(target: &str) -> IncidentStatus {
    IncidentStatus {
        id: "00112233445566ff".to_owned(),
        dedup_key: format!("plimsoll/test/{target}"),
        target: target.to_owned(),
        labels: BTreeMap::new(),
        severity: "critical".to_owned(),
        state: "open".to_owned(),
        opened_at: at("2024-03-15T14:38:50Z"),
        resolved_at: None,
        summary: "46 of 47 usable slots in use".to_owned(),
        details: String::new(),
        alerts: Vec::new(),
        slots: None,
        holders: Vec::new(),
        peak: None,
        causes: Vec::new(),
        deliveries: Vec::new(),
        bottleneck: None,
    }
}

/// Client backends that are alike.
pub(super) fn group(
    application: &str,
    role: &str,
    database: &str,
    state: SessionState,
    connections: u32,
) -> Group {
    Group {
        role: role.into(),
        database: database.into(),
        application: application.into(),
        address: "10.0.0.7".into(),
        state,
        connections,
        waiting_for_lock: 0,
        longest_seconds: 2.5,
    }
}

/// A payment database, nearly full.
pub(super) fn observation() -> Observation {
    let mut waiting = group("payment-api", "payment", "payment", SessionState::Active, 36);
    waiting.waiting_for_lock = 36;
    waiting.longest_seconds = 41.0;
    let mut elsewhere = waiting.clone();
    elsewhere.address = "10.0.0.8".into();
    elsewhere.connections = 3;
    elsewhere.waiting_for_lock = 3;
    let mut migrator = group("migrator", "owner", "payment", SessionState::IdleInTransaction, 1);
    migrator.address = "local".into();
    let limit = |name: &str, limit, used| ConnectionLimit { name: name.to_owned(), limit, used };
    Observation {
        server: Server {
            version_num: 150_018,
            version: "15.18 (Debian 15.18-0+deb12u1)".to_owned(),
            system_identifier: Some(7),
            started_at: at("2024-03-01T00:00:00Z"),
            in_recovery: false,
            clock: at("2024-03-15T14:38:59.480Z"),
        },
        limits: Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 },
        groups: vec![
            waiting,
            elsewhere,
            group("payment-api", "payment", "payment", SessionState::Idle, 5),
            migrator,
            group("plimsoll", "plimsoll", "postgres", SessionState::Active, 1),
        ],
        other_backends: vec![
            BackendCount { backend_type: "autovacuum launcher".to_owned(), count: 1 },
            BackendCount { backend_type: "walsender".to_owned(), count: 2 },
        ],
        sessions: Vec::new(),
        role_limits: vec![limit("payment", 60, 44)],
        database_limits: vec![limit("payment", 48, 45)],
        superusers: vec!["postgres".to_owned()],
        counters: vec![DatabaseCounters {
            database: "payment".into(),
            stats_reset: None,
            commits: 123_456_789,
            rollbacks: 42,
            deadlocks: 1,
            sessions: Some(9000),
            sessions_abandoned: Some(3),
            sessions_fatal: Some(2),
            sessions_killed: Some(1),
        }],
        counters_age: Duration::ZERO,
        fallback: None,
        logging: None,
        cost: Cost {
            poll_seconds: 0.004,
            server_seconds: 0.0025,
            processor_seconds: Some(0.003),
            budget_ratio: 0.05,
            next_after_seconds: 1.0,
        },
    }
}
