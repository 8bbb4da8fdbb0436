//! What everyone may see of a target: the JSON of the API and of the webhook receiver.
//!
//! Others rely on these shapes: fields are added, never renamed. They are not the inner types, and
//! each is made from one of those by a function here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::judge::alert::{Alert, AlertState};
use crate::judge::incident::{AlertFact, Holder, IncidentState, Report};
use crate::judge::rule::{RuleSet, words};
use crate::judge::switch::Switch;
use crate::judge::{Rules, Severity, State, Verdict};
use crate::message;
use crate::reading::postgres::{Group, Observation, Server, Slots};
use crate::reading::{Reading, Refusal};

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
    /// `postgres`.
    pub source: String,
    /// `ok`, or the kind of failure: `refused`, `stopped`, `blocked`…
    pub state: String,
    /// What is wrong, in a sentence.
    pub error: Option<String>,
    /// When it was last read well.
    pub last_success_at: Option<Timestamp>,
    /// Why our ordinary login was refused, while readings come over a replication connection in
    /// its place: `all_slots_taken`, `role_limit`…
    #[serde(default)]
    pub fallback: Option<String>,
}

/// A holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HolderStatus {
    /// `application_name`, or `other` for all that are not named.
    pub application: String,
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// The client's address, or `local`.
    pub address: String,
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
            application: holder.application.clone(),
            role: holder.role.clone(),
            database: holder.database.clone(),
            address: holder.address.clone(),
            state: holder.states.first().map_or("", |s| s.state.word()).to_owned(),
            connections: holder.connections,
            waiting_for_lock: holder.waiting_for_lock,
        }
    }

    fn from_group(group: &Group) -> Self {
        Self {
            application: group.application.clone(),
            role: group.role.clone(),
            database: group.database.clone(),
            address: group.address.clone(),
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
            application: "other".to_owned(),
            role: String::new(),
            database: String::new(),
            address: String::new(),
            state: String::new(),
            connections: sum(|h| h.connections),
            waiting_for_lock: sum(|h| h.waiting_for_lock),
        });
    }
    holders
}

/// What `run` publishes of a target after each reading, and `serve` reads.
#[derive(Clone, Debug)]
pub struct Published {
    /// The public form.
    pub status: TargetStatus,
    /// The reading behind it; `None` before the first.
    pub reading: Option<Reading>,
    /// The last reading in which the server itself could be read, with its time.
    pub last_success_at: Option<Timestamp>,
    /// Refused logins since the start, by reason.
    pub refused_total: BTreeMap<Refusal, u64>,
    /// Readings since the start, by whether the server could be read: `ok` or the failure's word.
    pub readings_total: BTreeMap<&'static str, u64>,
    /// The slots in use above which the rule `slots` is crossed, by severity; without those that
    /// are turned off, and empty while slots are unknown.
    pub slots_marks: BTreeMap<Severity, f64>,
}

impl Published {
    /// A target of which nothing was read yet.
    pub fn before_the_first_reading(name: &str, labels: BTreeMap<String, String>) -> Self {
        let status = TargetStatus {
            name: name.to_owned(),
            severity: "unknown".to_owned(),
            labels,
            server: None,
            slots: None,
            read_at: None,
            sources: Vec::new(),
            holders: Vec::new(),
            alerts: Vec::new(),
            incident: None,
        };
        Self {
            status,
            reading: None,
            last_success_at: None,
            refused_total: BTreeMap::new(),
            readings_total: BTreeMap::new(),
            slots_marks: BTreeMap::new(),
        }
    }
}

impl Published {
    /// The public form after a reading, following on what was published before.
    pub fn after(&self, reading: Reading, rules: &Rules, state: &State, verdict: &Verdict) -> Self {
        let target = &rules.target;
        let mut readings_total = self.readings_total.clone();
        let mut refused_total = self.refused_total.clone();
        let outcome = match &reading.postgres.seen {
            _ if reading.postgres.is_stale() => "stale",
            Ok(_) => "ok",
            Err(failure) => failure.kind.word(),
        };
        let count = readings_total.entry(outcome).or_default();
        *count = count.saturating_add(1);
        for login in &reading.logins.refused {
            let count = refused_total.entry(login.reason).or_default();
            *count = count.saturating_add(login.count.into());
        }
        let known = reading.postgres.known();
        let is_success = reading.postgres.fresh && known.is_some();
        let last_success_at = if is_success { Some(reading.at) } else { self.last_success_at };
        let status = TargetStatus {
            name: target.name.clone(),
            severity: severity(state, known.is_some()).to_owned(),
            labels: target.labels.clone(),
            server: known.map(|seen| ServerStatus::from_server(&seen.server, state.memory.switch)),
            slots: known.map(|seen| SlotsStatus::from_slots(seen.slots())),
            read_at: Some(reading.at),
            sources: vec![source(&reading, outcome, last_success_at)],
            holders: known.map(holders).unwrap_or_default(),
            alerts: state.episode.alerts.iter().map(AlertStatus::from_alert).collect(),
            incident: verdict.open.as_ref().map(IncidentStatus::from_report),
        };
        let slots_marks =
            known.map(|seen| slots_marks(&rules.set, seen.slots().usable)).unwrap_or_default();
        Self {
            status,
            reading: Some(reading),
            last_success_at,
            refused_total,
            readings_total,
            slots_marks,
        }
    }
}

fn slots_marks(set: &RuleSet, usable: u32) -> BTreeMap<Severity, f64> {
    let Some(levels) = set.slots else { return BTreeMap::new() };
    let marked = [(Severity::Warning, levels.warning), (Severity::Critical, levels.critical)];
    let marks = marked.into_iter().filter_map(|(severity, level)| Some((severity, level?)));
    marks.map(|(severity, level)| (severity, level.threshold.mark(usable))).collect()
}

/// The highest severity of what fires; `unknown` if nothing does and the server is not readable.
fn severity(state: &State, known: bool) -> &'static str {
    let firing = state.episode.alerts.iter().filter(|a| a.state() == AlertState::Firing);
    match firing.map(Alert::severity).max() {
        Some(severity) => severity.word(),
        None if known => "ok",
        None => "unknown",
    }
}

fn source(reading: &Reading, outcome: &str, last_success_at: Option<Timestamp>) -> SourceStatus {
    let error = match &reading.postgres.seen {
        Err(failure) => Some(failure.text.clone()),
        Ok(_) if outcome == "stale" => {
            Some(format!("no answer for {}", words::spell(reading.postgres.age)))
        }
        Ok(_) => None,
    };
    let (source, state) = ("postgres".to_owned(), outcome.to_owned());
    let refused = reading.postgres.known().and_then(|seen| seen.fallback);
    let fallback = refused.map(|reason| reason.word().to_owned());
    SourceStatus { source, state, error, last_success_at, fallback }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::rule::{Level, Levels, Threshold};

    #[track_caller]
    fn check(warning: Option<Threshold>, critical: Option<Threshold>, marks: &[(Severity, f64)]) {
        let level = |threshold: Threshold| {
            let zero = Duration::ZERO;
            Level { threshold, hold: zero, keep_firing_for: zero }
        };
        let levels = Levels { warning: warning.map(level), critical: critical.map(level) };
        let set = RuleSet { slots: Some(levels), ..RuleSet::off() };
        assert_eq!(slots_marks(&set, 50), marks.iter().copied().collect());
    }

    #[test]
    fn a_mark_is_where_the_rule_is_crossed() {
        let ratio = Some(Threshold::Ratio { above: 0.75, clear_below: 0.7 });
        let used = Some(Threshold::Used { above: 32, clear_below: 28 });
        check(ratio, used, &[(Severity::Warning, 37.5), (Severity::Critical, 32.0)]);
        check(None, ratio, &[(Severity::Critical, 37.5)]);
        check(None, None, &[]);
        assert!(slots_marks(&RuleSet::off(), 50).is_empty());
    }
}
