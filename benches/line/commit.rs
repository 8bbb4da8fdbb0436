//! What a commit of a transition takes: the real store, beside a bare fdatasync of 4 kB in the same
//! folder, turn by turn. And the incident that is committed, which `burst` sends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll::clock;
use plimsoll::health::Health;
use plimsoll::store::{Change, Durability, Store};
use plimsoll_core::judge::alert::AlertState;
use plimsoll_core::judge::incident::{
    AlertFact, Holder, Incident, IncidentState, Report as Facts, StateCount,
};
use plimsoll_core::judge::rule::{RuleName, Subject};
use plimsoll_core::judge::telling::{Notification, NotificationKind, Told};
use plimsoll_core::judge::{Episode, Severity, Transition};
use plimsoll_core::reading::postgres::{Limits, SessionState, Slots};

use super::parameters::Parameters;
use super::report::{Report, median, number, quantile};
use super::{Measured, machine};

const TIMES_A_SYNC: f64 = 3.0;

const BLOCK: usize = 4_096;

/// So many blocks are written over in turn.
const BLOCKS: u64 = 256;

/// Pauses in which a disk ends what it does in the background.
const PAUSE: Duration = Duration::from_millis(20);

/// The receiver to which everything is owed.
pub(super) const RECEIVER: &str = "archive";

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parameters.folder)?;
    let mut over = allocated(&folder.path().join("over"))?;
    let mut appended = File::create(folder.path().join("appended"))?;
    let health = Health::starting(clock::wall());
    let opened = Store::open(&folder.path().join("state"), clock::wall(), health)?;
    let (mut overs, mut appends, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    eprintln!("   {} commits", parameters.commits);
    for nth in 0..parameters.commits {
        overs.push(timed(|| {
            over.seek(SeekFrom::Start(u64::from(nth) % BLOCKS * BLOCK as u64))?;
            synced(&mut over)
        })?);
        tokio::time::sleep(PAUSE).await;
        appends.push(timed(|| synced(&mut appended))?);
        tokio::time::sleep(PAUSE).await;
        let change = opening("bench", nth.into(), clock::wall());
        let began = clock::monotonic();
        let durability = opened.store.commit(change).await;
        commits.push((clock::monotonic() - began).as_secs_f64() * 1_000.0);
        if durability != Durability::Durable {
            return Err("a commit did not reach the disk within its wait".into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    opened.store.close(Duration::from_secs(10)).await;

    let mut report = Report::new("commit", &[machine::plimsoll(parameters.program()?)]);
    let row = |what: &str, took: &[f64]| {
        let at = |part: f64| number(quantile(took, part), "ms");
        vec![what.to_owned(), took.len().to_string(), at(0.5), at(0.99), at(1.0)]
    };
    report.table(
        &["", "times", "median", "p99", "longest"],
        &[
            row("4 kB over a block that is there, fdatasync", &overs),
            row("4 kB at the end of a file, fdatasync", &appends),
            row("commit of a transition with its notification", &commits),
        ],
    );
    report.line(
        "a commit ÷ a bare fdatasync of 4 kB, medians",
        median(&commits) / median(&overs),
        TIMES_A_SYNC,
        "",
    );
    Ok(report)
}

/// A file whose blocks are on the disk already: to write over them is the least that a disk can
/// be asked to do.
fn allocated(path: &Path) -> Measured<File> {
    let mut file = File::options().create(true).truncate(true).write(true).open(path)?;
    for _ in 0..BLOCKS {
        file.write_all(&[1; BLOCK])?;
    }
    file.sync_all()?;
    Ok(file)
}

fn synced(file: &mut File) -> std::io::Result<()> {
    file.write_all(&[2; BLOCK])?;
    file.sync_data()
}

fn timed(work: impl FnOnce() -> std::io::Result<()>) -> Measured<f64> {
    let began = clock::monotonic();
    work()?;
    Ok((clock::monotonic() - began).as_secs_f64() * 1_000.0)
}

/// The change that opens an incident on a target, owed to [`RECEIVER`].
pub(super) fn opening(target: &str, nth: u64, now: Timestamp) -> Change {
    let report = facts(target, nth, now);
    let incident = Incident {
        id: report.id.clone(),
        severity: Severity::Critical,
        worst: Severity::Critical,
        opened_at: now,
        held: Duration::ZERO,
        below_critical: Duration::ZERO,
    };
    let told = Told {
        incident: report.id.clone(),
        key: report.dedup_key.clone(),
        opened_at: now,
        held: Duration::ZERO,
        severity: Severity::Critical,
        since: Duration::ZERO,
    };
    let severity =
        Transition::Severity { incident: report.id.clone(), severity: Severity::Critical, at: now };
    let notification = Notification {
        id: format!("{RECEIVER}-{target}-{nth}"),
        receiver: RECEIVER.to_owned(),
        key: report.dedup_key.clone(),
        sequence: nth + 1,
        kind: NotificationKind::Trigger,
        after_previous: Duration::ZERO,
        decided_at: now,
        report: report.clone(),
    };
    Change {
        target: target.to_owned(),
        at: now,
        episode: Episode {
            alerts: Vec::new(),
            incident: Some(incident),
            told: BTreeMap::from([(RECEIVER.to_owned(), told)]),
            sequence: nth + 1,
            unsettled: None,
        },
        memory: None,
        transitions: vec![severity],
        notifications: vec![notification],
        reports: vec![report],
    }
}

/// A full server with twenty holders.
fn facts(target: &str, nth: u64, now: Timestamp) -> Facts {
    let limits = Limits { max_connections: 500, superuser_reserved: 3, reserved: 0 };
    let states = vec![
        StateCount { state: SessionState::Active, connections: 20 },
        StateCount { state: SessionState::Idle, connections: 4 },
    ];
    let holder = |n: u32| Holder {
        application: format!("service-{n}").into(),
        role: "payment".into(),
        database: "payment".into(),
        address: format!("10.0.0.{n}").into(),
        connections: 24,
        waiting_for_lock: 20,
        states: states.clone(),
        other: false,
    };
    Facts {
        bottleneck: None,
        id: format!("{nth:016x}"),
        dedup_key: format!("plimsoll/bench/{target}"),
        target: target.to_owned(),
        labels: [("service".to_owned(), "payment".to_owned())].into(),
        link: None,
        severity: Severity::Critical,
        state: IncidentState::Open,
        opened_at: now,
        resolved_at: None,
        held: Duration::ZERO,
        at: now,
        alerts: vec![AlertFact {
            rule: RuleName::SlotsFull,
            subject: Subject::Target,
            severity: Severity::Critical,
            state: AlertState::Firing,
            since: now,
            held: Duration::ZERO,
            observed: "497 of 497 usable slots in use (100 %)".to_owned(),
            threshold: "none free in two readings".to_owned(),
        }],
        slots: Some(Slots::new(limits, 497)),
        known_at: None,
        failure: None,
        holders: (1..=20).map(holder).collect(),
        states: states.clone(),
        peak: None,
        refused: Vec::new(),
        superusers: vec!["postgres".to_owned()],
        switch: None,
    }
}
