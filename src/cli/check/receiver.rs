//! What `check` says of a receiver: whether it can be reached, without a word that could page, and
//! whether the largest message that it may be sent is taken.

use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::Severity;
use plimsoll_core::judge::alert::AlertState;
use plimsoll_core::judge::bottleneck::{Bottleneck, Found, MAX_FIGURES};
use plimsoll_core::judge::incident::{
    AlertFact, Holder, IncidentState, MAX_HOLDERS, MAX_SUPERUSERS, Peak, Report, StateCount,
    dedup_key,
};
use plimsoll_core::judge::pool::PoolName;
use plimsoll_core::judge::rule::{MAX_ALERTS_OF_A_RULE, RuleName, Subject};
use plimsoll_core::judge::telling::{Notification, NotificationKind};
use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::postgres::{Limits, SessionState, Slots};
use plimsoll_core::settings::{ReceiverSettings, Settings, TargetSettings};

use super::finding::{self, Finding};
use crate::chain::chain;
use crate::clock;
use crate::notify::Receiver;
use crate::notify::http::Client;

/// The longest name that Postgres keeps, in bytes (`NAMEDATALEN` − 1).
const NAME_BYTES: usize = 63;

/// The longest name of a pool that is kept, in characters (`reading::app_pool`).
const POOL_NAME_CHARS: usize = 200;

/// A sentence about what went wrong.
const SENTENCE_CHARS: usize = 200;

/// Everything that there is to say of one receiver.
pub(super) async fn look(
    settings: &Settings,
    receiver: &ReceiverSettings,
    client: &Client,
) -> finding::Subject {
    let name = receiver.name.clone();
    match Receiver::new(receiver) {
        Ok(ready) => {
            let findings = vec![reach(&ready, client).await, payload(settings, receiver, &ready)];
            finding::Subject { name, address: ready.origin(), findings }
        }
        Err(error) => {
            let findings = vec![Finding::wrong("settings", chain(&error))];
            finding::Subject {
                name,
                address: "an address that cannot be used".to_owned(),
                findings,
            }
        }
    }
}

async fn reach(receiver: &Receiver, client: &Client) -> Finding {
    const CHECK: &str = "reach";
    match receiver.reach(client).await {
        Ok(true) => Finding::ok(CHECK, "its proxy answers; what is behind that was not tried"),
        Ok(false) if receiver.origin().starts_with("https:") => {
            Finding::ok(CHECK, "it answers and its certificate is good; nothing was sent")
        }
        Ok(false) => Finding::ok(CHECK, "it answers; nothing was sent"),
        Err(error) => {
            let said = receiver.scrub(&chain(&error));
            let is_certificate = ["certificate", "UnknownIssuer"].iter().any(|w| said.contains(w));
            let hint = if is_certificate {
                "its certificate must be of an authority that this machine trusts, valid now, and \
                 for this host"
            } else {
                "is the URL's host and port right, does a firewall or a proxy (HTTPS_PROXY, \
                 NO_PROXY) stand in the way?"
            };
            Finding::wrong(CHECK, said).hint(hint)
        }
    }
}

/// Renders the largest message of each target that it hears of.
fn payload(settings: &Settings, receiver: &ReceiverSettings, ready: &Receiver) -> Finding {
    const CHECK: &str = "payload";
    let hears = |target: &&TargetSettings| {
        receiver.targets.is_empty() || receiver.targets.contains(&target.name)
    };
    let now = clock::wall();
    let size = |target: &TargetSettings| {
        let notification = largest(settings, &receiver.name, target, now);
        (ready.payload(&notification, now).body.len(), target.name.clone())
    };
    let largest = settings.targets.iter().filter(hears).map(size).max();
    let Some((bytes, target)) = largest else {
        return Finding::warning(CHECK, "it hears of no target")
            .hint("`targets` of the receiver names only targets that are not there");
    };
    let most = ready.max_body();
    if bytes <= most {
        return Finding::ok(CHECK, format!("its largest message fits into {most} bytes"));
    }
    let text = format!(
        "a message of {target} can have {bytes} bytes, with long names everywhere; it takes {most}"
    );
    Finding::warning(CHECK, text).hint("fewer or shorter `labels` of that target make it smaller")
}

/// An incident of a target at its worst: as many alerts and holders as are ever told, and the
/// longest names that a server has.
fn largest(
    settings: &Settings,
    receiver: &str,
    target: &TargetSettings,
    at: Timestamp,
) -> Notification {
    let limits = Limits { max_connections: 262_143, superuser_reserved: 3, reserved: 3 };
    let slots = Slots::new(limits, 262_142);
    let holders: Vec<Holder> = (0..=MAX_HOLDERS).map(holder).collect();
    let key = dedup_key(settings.instance.as_deref(), &target.name);
    let report = Report {
        id: "0".repeat(16),
        dedup_key: key.clone(),
        target: target.name.clone(),
        labels: target.labels.clone(),
        link: settings.server.external_url.as_ref().map(|url| format!("{url}/{}", target.name)),
        severity: Severity::Critical,
        state: IncidentState::Open,
        opened_at: at,
        resolved_at: None,
        held: Duration::from_hours(24),
        at,
        alerts: alerts(at),
        slots: Some(slots),
        known_at: None,
        switch: None,
        failure: None,
        holders: holders.clone(),
        states: states(),
        peak: Some(Peak { at, slots, holders }),
        refused: Refusal::OF_LOGINS.map(|reason| (reason, u64::from(u32::MAX))).to_vec(),
        superusers: (0..MAX_SUPERUSERS).map(long_name).collect(),
        bottleneck: Some(Found {
            at: Bottleneck::ApplicationPool,
            figures: vec![said_of(&pool(0).name); MAX_FIGURES].join("; "),
        }),
    };
    Notification {
        id: "0".repeat(16),
        receiver: receiver.to_owned(),
        key,
        sequence: 1,
        kind: NotificationKind::Trigger,
        after_previous: Duration::ZERO,
        decided_at: at,
        report,
    }
}

/// Rules that judge roles, databases, pools and sources have many alerts, the others one.
fn alerts(at: Timestamp) -> Vec<AlertFact> {
    let subject = |rule: RuleName, nth: usize| match rule {
        RuleName::RoleLimit => Some(Subject::Role(long_name(nth))),
        RuleName::DatabaseLimit => Some(Subject::Database(long_name(nth))),
        RuleName::PoolWaiting | RuleName::PoolUtilization => Some(Subject::Pool(pool(nth))),
        RuleName::SourceUnreadable => Some(Subject::Source(format!("probe/{}", long_name(nth)))),
        RuleName::LoginsRefused => Refusal::OF_LOGINS.get(nth).copied().map(Subject::Reason),
        _ => Some(Subject::Target).filter(|_| nth == 0),
    };
    let subjects = |rule: RuleName| {
        let named = (0..MAX_ALERTS_OF_A_RULE).filter_map(|nth| subject(rule, nth));
        let named: Vec<Subject> = named.collect();
        let more = (named.len() == MAX_ALERTS_OF_A_RULE).then_some(Subject::AndMore);
        named.into_iter().chain(more).collect::<Vec<_>>()
    };
    let alert = |rule: RuleName, subject: Subject| AlertFact {
        rule,
        observed: said_of(subject.word()),
        subject,
        severity: Severity::Critical,
        state: AlertState::Firing,
        since: at,
        held: Duration::from_hours(24),
        threshold: "above 90 % for 10 s".to_owned(),
    };
    let of_rule =
        |rule: RuleName| subjects(rule).into_iter().map(move |subject| alert(rule, subject));
    RuleName::ALL.into_iter().flat_map(of_rule).collect()
}

/// As much as is said of anything: its name, figures, and what a server answered.
fn said_of(name: &str) -> String {
    format!("{name}: 99999 of 99999 connections in use (100 %); {}", "x".repeat(SENTENCE_CHARS))
}

fn pool(number: usize) -> PoolName {
    PoolName::new(format!("app_pool/{}", long_name(number)), &"x".repeat(POOL_NAME_CHARS))
}

fn holder(number: usize) -> Holder {
    Holder {
        application: long_name(number).into(),
        role: long_name(number).into(),
        database: long_name(number).into(),
        address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".into(),
        connections: 99_999,
        waiting_for_lock: 99_999,
        states: states(),
        other: number == MAX_HOLDERS,
    }
}

fn states() -> Vec<StateCount> {
    [SessionState::Active, SessionState::Idle, SessionState::IdleInTransactionAborted]
        .map(|state| StateCount { state, connections: 99_999 })
        .to_vec()
}

fn long_name(number: usize) -> String {
    format!("{number:0>NAME_BYTES$}")
}
