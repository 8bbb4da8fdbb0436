//! What everyone may see of a target: the JSON of the API and of the webhook receiver.
//!
//! Others rely on these shapes: fields are added, never renamed. They are not the inner types, and
//! each is made from one of those by a function here.

mod beside;
mod log;
mod pooler;
mod published;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::judge::alert::Alert;
use crate::judge::incident::{AlertFact, Holder, IncidentState, Report};
use crate::judge::switch::Switch;
use crate::message;
use crate::reading::postgres::{Group, Observation, Server, Slots};
pub use beside::{BottleneckStatus, MAX_POOLS_SHOWN, PoolStatus, ProbeStatus, outcome};
pub use log::{
    DeadlockParty, DeadlockStatus, LogLineStatus, LogSeen, LogStatus, MAX_DEADLOCKS_SHOWN,
    MAX_LINES_SHOWN,
};
pub use pooler::{MAX_BACKENDS_SHOWN, MAX_CLIENTS_SHOWN, PoolerClients, PoolerStatus};
pub use published::Published;

/// A target, as `/api/v1/targets/{name}` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// `ok`, `info`, `warning`, `critical` or `unknown`.
    pub severity: String,
    /// From settings.
    pub labels: BTreeMap<String, String>,
    /// The server that answers; absent while that is unknown.
    #[serde(default)]
    pub server: Option<ServerStatus>,
    /// The slots; absent while they are unknown.
    pub slots: Option<SlotsStatus>,
    /// When the newest reading was composed.
    pub read_at: Option<Timestamp>,
    /// Every source and how it stands.
    pub sources: Vec<SourceStatus>,
    /// All holders of the newest good reading, the largest first, at most [`MAX_HOLDERS_SHOWN`].
    pub holders: Vec<HolderStatus>,
    /// Where connections run out; absent before the first reading.
    #[serde(default)]
    pub bottleneck: Option<BottleneckStatus>,
    /// The pools of poolers and applications that are known, at most [`MAX_POOLS_SHOWN`].
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
    /// The newest login of each probe that can be heard.
    #[serde(default)]
    pub probes: Vec<ProbeStatus>,
    /// The poolers that can be read.
    #[serde(default)]
    pub poolers: Vec<PoolerStatus>,
    /// What the server's log said; absent where none is followed.
    #[serde(default)]
    pub log: Option<LogStatus>,
    /// Alerts that are pending or firing.
    pub alerts: Vec<AlertStatus>,
    /// The open incident.
    pub incident: Option<IncidentStatus>,
}

/// At most so many holders are shown; the rest are one `other`, so that the sum is exact.
pub const MAX_HOLDERS_SHOWN: usize = 100;

/// The server that answers at the target's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// `server_version`.
    pub version: String,
    /// `primary` or `standby`.
    pub role: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it began to answer in another's place, or in another part: within the last hour, or
    /// shortly before an incident that is open.
    pub switched_at: Option<Timestamp>,
    /// What changed then, e.g. `now on the standby`.
    pub switched: Option<String>,
}

/// The slots.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotsStatus {
    /// `max_connections`.
    pub max: u32,
    /// Reserved ones.
    pub reserved: u32,
    /// `max` − `reserved`.
    pub usable: u32,
    /// Client backends.
    pub used: u32,
    /// `usable` − `used`; may be negative.
    pub free: i64,
    /// `used` ÷ `usable`.
    pub utilization: f64,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `postgres`, `log`, `probe/NAME`, `pooler/NAME` or `app_pool/APPLICATION`.
    pub source: String,
    /// `ok`, `stale`, `unread` before it left anything, or the kind of failure: `refused`,
    /// `stopped`, `blocked`…
    pub state: String,
    /// What is wrong, in a sentence.
    pub error: Option<String>,
    /// When it was last read well.
    pub last_success_at: Option<Timestamp>,
    /// Time since it left what it left last, when the newest reading was composed.
    #[serde(default)]
    pub age_seconds: Option<f64>,
    /// Why our ordinary login was refused, while readings come over a replication connection in
    /// its place: `all_slots_taken`, `role_limit`…
    #[serde(default)]
    pub fallback: Option<String>,
}

/// A holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// `application_name`, or `other` for all that are not named.
    pub application: Arc<str>,
    /// The role.
    pub role: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// The client's address, or `local`.
    pub address: Arc<str>,
    /// The server's word for its state.
    pub state: String,
    /// How many.
    pub connections: u32,
    /// How many of them wait for a heavyweight lock.
    pub waiting_for_lock: u32,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// The rule.
    pub rule: String,
    /// On what; empty for the target as a whole.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `pending`, `firing` or `resolved`.
    pub state: String,
    /// When the condition was first seen.
    pub since: Timestamp,
    /// What was measured.
    pub observed: String,
}

/// An incident, in the API and in the webhook's `incident`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentStatus {
    /// Its id.
    pub id: String,
    /// The dedup key.
    pub dedup_key: String,
    /// The target's name.
    pub target: String,
    /// The target's labels.
    pub labels: BTreeMap<String, String>,
    /// `warning` or `critical`.
    pub severity: String,
    /// `open` or `resolved`.
    pub state: String,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// One line that stands alone.
    pub summary: String,
    /// Everything else that a person wants at 03:00, as text.
    pub details: String,
    /// Its alerts.
    pub alerts: Vec<AlertStatus>,
    /// The slots, as last known.
    pub slots: Option<SlotsStatus>,
    /// The largest holders.
    pub holders: Vec<HolderStatus>,
    /// How it was when most slots were in use, since it opened.
    pub peak: Option<PeakStatus>,
    /// Causes; empty while none is known.
    pub causes: Vec<CauseStatus>,
    /// What became of its notifications; absent where that is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<DeliveryStatus>,
    /// Where connections run out; once it is over, where they last did.
    #[serde(default)]
    pub bottleneck: Option<BottleneckStatus>,
}

/// How it was when most slots were in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeakStatus {
    /// When.
    pub at: Timestamp,
    /// The slots.
    pub slots: SlotsStatus,
    /// The largest holders.
    pub holders: Vec<HolderStatus>,
}

/// A notification and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// Its id: `webhook-id` at a webhook receiver.
    pub id: String,
    /// To whom.
    pub receiver: String,
    /// `trigger`, `update` or `resolve`.
    pub event: String,
    /// `owed`, `delivered`, `parked` (refused for good) or `superseded` (a newer one says it all).
    pub state: String,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// The reading that made it owed.
    pub decided_at: Timestamp,
    /// When that was settled.
    pub finished_at: Option<Timestamp>,
    /// Why it was not delivered, or not yet.
    pub error: Option<String>,
}

/// A cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseStatus {
    /// Its name.
    pub cause: String,
    /// `observed` or `suspected`.
    pub certainty: String,
    /// In one sentence.
    pub summary: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// What to do.
    pub steps: Vec<String>,
}

impl IncidentStatus {
    /// The public form of a report.
    pub fn from_report(report: &Report) -> Self {
        Self {
            id: report.id.clone(),
            dedup_key: report.dedup_key.clone(),
            target: report.target.clone(),
            labels: report.labels.clone(),
            severity: report.severity.word().to_owned(),
            state: match report.state {
                IncidentState::Open => "open".to_owned(),
                IncidentState::Resolved => "resolved".to_owned(),
            },
            opened_at: report.opened_at,
            resolved_at: report.resolved_at,
            summary: message::summary(report),
            details: message::details(report),
            alerts: report.alerts.iter().map(AlertStatus::from_fact).collect(),
            slots: report.slots.map(SlotsStatus::from_slots),
            holders: report.holders.iter().map(HolderStatus::from_holder).collect(),
            peak: report.peak.as_ref().map(|peak| PeakStatus {
                at: peak.at,
                slots: SlotsStatus::from_slots(peak.slots),
                holders: peak.holders.iter().map(HolderStatus::from_holder).collect(),
            }),
            causes: Vec::new(),
            deliveries: Vec::new(),
            bottleneck: report.bottleneck.as_ref().map(BottleneckStatus::from_found),
        }
    }
}

impl IncidentStatus {
    /// The same for a message that is sent now: one that comes late says so.
    pub fn sent_at(report: &Report, now: Timestamp) -> Self {
        let mut incident = Self::from_report(report);
        incident.summary.push_str(&message::lateness(report, now));
        incident
    }
}

impl ServerStatus {
    fn from_server(server: &Server, switch: Option<Switch>) -> Self {
        Self {
            version: server.version.clone(),
            role: if server.in_recovery { "standby" } else { "primary" }.to_owned(),
            started_at: server.started_at,
            switched_at: switch.map(|switch| switch.at),
            switched: switch.map(|switch| switch.to.words().to_owned()),
        }
    }
}

impl SlotsStatus {
    /// The public form of the slots.
    pub fn from_slots(slots: Slots) -> Self {
        let Slots { max, reserved, usable, used, free, utilization } = slots;
        Self { max, reserved, usable, used, free, utilization }
    }
}

impl AlertStatus {
    fn from_fact(fact: &AlertFact) -> Self {
        Self {
            rule: fact.rule.word().to_owned(),
            subject: fact.subject.word().to_owned(),
            severity: fact.severity.word().to_owned(),
            state: fact.state.word().to_owned(),
            since: fact.since,
            observed: fact.observed.clone(),
        }
    }

    fn from_alert(alert: &Alert) -> Self {
        Self {
            rule: alert.rule.word().to_owned(),
            subject: alert.subject.word().to_owned(),
            severity: alert.severity().word().to_owned(),
            state: alert.state().word().to_owned(),
            since: alert.held_since().at,
            observed: alert.observed.clone(),
        }
    }
}

impl HolderStatus {
    /// A holder over all its states; `state` is what most of its connections do.
    fn from_holder(holder: &Holder) -> Self {
        Self {
            application: Arc::clone(&holder.application),
            role: Arc::clone(&holder.role),
            database: Arc::clone(&holder.database),
            address: Arc::clone(&holder.address),
            state: holder.states.first().map_or("", |s| s.state.word()).to_owned(),
            connections: holder.connections,
            waiting_for_lock: holder.waiting_for_lock,
        }
    }

    fn from_group(group: &Group) -> Self {
        Self {
            application: Arc::clone(&group.application),
            role: Arc::clone(&group.role),
            database: Arc::clone(&group.database),
            address: Arc::clone(&group.address),
            state: group.state.word().to_owned(),
            connections: group.connections,
            waiting_for_lock: group.waiting_for_lock,
        }
    }
}

/// The groups as holders, the largest first, at most [`MAX_HOLDERS_SHOWN`], then one `other`.
fn holders(seen: &Observation) -> Vec<HolderStatus> {
    let mut holders: Vec<_> = seen.groups.iter().map(HolderStatus::from_group).collect();
    holders.sort_by_key(|h| std::cmp::Reverse(h.connections));
    if MAX_HOLDERS_SHOWN < holders.len() {
        let rest = holders.split_off(MAX_HOLDERS_SHOWN);
        let sum = |of: fn(&HolderStatus) -> u32| rest.iter().map(of).fold(0, u32::saturating_add);
        holders.push(HolderStatus {
            application: "other".into(),
            role: Arc::default(),
            database: Arc::default(),
            address: Arc::default(),
            state: String::new(),
            connections: sum(|h| h.connections),
            waiting_for_lock: sum(|h| h.waiting_for_lock),
        });
    }
    holders
}
