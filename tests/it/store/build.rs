//! Values as the judge would make them, made by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll::store::Change;
use plimsoll_core::judge::incident::{Incident, IncidentState, Report};
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::telling::{Notification, NotificationKind, Told};
use plimsoll_core::judge::{Episode, Severity, Transition};
use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::postgres::{Limits, Slots};

/// So many seconds after the test's beginning of time.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// The episode of a target that was told something `n` times.
pub(super) fn episode(n: u64) -> Episode {
    Episode {
        alerts: Vec::new(),
        incident: Some(Incident {
            id: "a1b2c3d4e5f60718".to_owned(),
            severity: Severity::Critical,
            worst: Severity::Critical,
            opened_at: at(0),
            held: Duration::from_secs(n),
            below_critical: Duration::ZERO,
        }),
        told: BTreeMap::from([(
            "on-call".to_owned(),
            Told {
                incident: "a1b2c3d4e5f60718".to_owned(),
                key: "plimsoll/test/db".to_owned(),
                opened_at: at(0),
                held: Duration::from_secs(n),
                severity: Severity::Critical,
                since: Duration::ZERO,
            },
        )]),
        sequence: n,
        unsettled: None,
    }
}

pub(super) fn memory(refused: u64) -> Memory {
    let refused = vec![(Refusal::AllSlotsTaken, refused)];
    Memory { refused, ..Memory::default() }
}

pub(super) fn report(incident: &str, target: &str, state: IncidentState, n: u64) -> Report {
    let limits = Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 };
    let now = at(i64::try_from(n).unwrap());
    Report {
        id: incident.to_owned(),
        dedup_key: format!("plimsoll/test/{target}"),
        target: target.to_owned(),
        labels: BTreeMap::new(),
        link: None,
        severity: Severity::Critical,
        state,
        opened_at: at(0),
        resolved_at: (state == IncidentState::Resolved).then_some(now),
        held: Duration::from_secs(n),
        at: now,
        alerts: Vec::new(),
        slots: Some(Slots::new(limits, 48)),
        known_at: None,
        failure: None,
        holders: Vec::new(),
        states: Vec::new(),
        peak: None,
        refused: vec![(Refusal::ReservedForSuperusers, n)],
        superusers: vec!["postgres".to_owned()],
        switch: None,
        bottleneck: None,
    }
}

/// Notification `n` of a target to a receiver: a trigger, then updates.
pub(super) fn notification(target: &str, receiver: &str, n: u64) -> Notification {
    let kind = if n == 1 { NotificationKind::Trigger } else { NotificationKind::Update };
    let incident = format!("incident-of-{target}");
    Notification {
        id: format!("{target}-{receiver}-{n:04}"),
        receiver: receiver.to_owned(),
        key: format!("plimsoll/test/{target}"),
        sequence: n,
        kind,
        after_previous: Duration::ZERO,
        decided_at: at(i64::try_from(n).unwrap()),
        report: report(&incident, target, IncidentState::Open, n),
    }
}

/// Change `n` of a target, which nobody hears of.
pub(super) fn quiet(target: &str, n: u64) -> Change {
    Change {
        target: target.to_owned(),
        at: at(i64::try_from(n).unwrap()),
        episode: episode(n),
        memory: None,
        transitions: Vec::new(),
        notifications: Vec::new(),
        reports: Vec::new(),
    }
}

/// Change `n` of a target, with a transition and a notification to each receiver.
pub(super) fn told(target: &str, n: u64, receivers: &[&str]) -> Change {
    let severity = Transition::Severity {
        incident: format!("incident-of-{target}"),
        severity: Severity::Critical,
        at: at(i64::try_from(n).unwrap()),
    };
    let notifications = receivers.iter().map(|name| notification(target, name, n)).collect();
    let incident = format!("incident-of-{target}");
    Change {
        transitions: vec![severity],
        notifications,
        reports: vec![report(&incident, target, IncidentState::Open, n)],
        ..quiet(target, n)
    }
}
