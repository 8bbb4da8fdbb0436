//! The incident: one episode of trouble on a target, and the facts that a message tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use super::Severity;
use super::alert::AlertState;
use super::bottleneck;
use super::rule::{RuleName, Subject};
use super::switch::Switch;
use crate::reading::postgres::{Group, SessionState, Slots};
use crate::reading::{Failure, Refusal};

/// At most so many holders are named in a message; the rest are one `other` whose sum is exact.
pub const MAX_HOLDERS: usize = 10;

/// At most so many of the alerts that fired in an incident are kept for its record.
pub const MAX_FIRED_KEPT: usize = 64;

/// At most so many superusers are named.
pub const MAX_SUPERUSERS: usize = 10;

/// An incident that stayed so long below critical is over for the people on it: the next critical
/// is a new one, with its own id.
pub const NEW_INCIDENT_AFTER: Duration = Duration::from_mins(15);

/// An open incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id: 16 hexadecimal digits, the same in every replay.
    pub id: String,
    /// The highest severity of its firing alerts.
    pub severity: Severity,
    /// The highest severity that it ever had.
    pub worst: Severity,
    /// The reading in which it opened.
    pub opened_at: Timestamp,
    /// Time served since then.
    pub held: Duration,
    /// Time served below critical, once it was critical or opened below.
    pub below_critical: Duration,
}

/// Whether an incident goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Some alert of warning or above fires.
    Open,
    /// None does any more.
    Resolved,
}

/// The facts of an incident at one instant: what the outbox keeps and every message is made of.
///
/// Stored as JSON with a version. Fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The incident's id.
    pub id: String,
    /// The key under which receivers join messages.
    pub dedup_key: String,
    /// The target's name.
    pub target: String,
    /// The target's labels.
    pub labels: BTreeMap<String, String>,
    /// Where a person can look.
    pub link: Option<String>,
    /// The severity, over the alerts below.
    pub severity: Severity,
    /// Open or resolved.
    pub state: IncidentState,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// Time served since it opened.
    pub held: Duration,
    /// The reading that this tells of.
    pub at: Timestamp,
    /// Its alerts, as far as the receiver hears them; firing ones first.
    pub alerts: Vec<AlertFact>,
    /// The slots, from the last reading that knew them.
    pub slots: Option<Slots>,
    /// When `slots`, `holders` and `states` were read, if that was before `at`.
    pub known_at: Option<Timestamp>,
    /// Why this reading does not know them.
    pub failure: Option<Failure>,
    /// The largest holders, then one `other`; the sum is `slots.used`.
    pub holders: Vec<Holder>,
    /// Connections by state.
    pub states: Vec<StateCount>,
    /// How it was when most slots were in use, since the incident opened.
    pub peak: Option<Peak>,
    /// Logins refused since the incident opened.
    pub refused: Vec<(Refusal, u64)>,
    /// Who may use the reserved slots that are left.
    pub superusers: Vec<String>,
    /// When another server began to answer, if that may have to do with it.
    #[serde(default)]
    pub switch: Option<Switch>,
    /// Where connections run out; once it is over, where they last did.
    #[serde(default)]
    pub bottleneck: Option<bottleneck::Found>,
}

/// How it was when most slots were in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The reading.
    pub at: Timestamp,
    /// The slots.
    pub slots: Slots,
    /// The largest holders, as in a [`Report`].
    pub holders: Vec<Holder>,
}

/// An alert in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertFact {
    /// The rule.
    pub rule: RuleName,
    /// On what.
    pub subject: Subject,
    /// How bad.
    pub severity: Severity,
    /// Firing, or resolved at the end.
    pub state: AlertState,
    /// The reading in which the condition was first seen.
    pub since: Timestamp,
    /// Time served since then.
    pub held: Duration,
    /// What was measured, in words that stand alone.
    pub observed: String,
    /// The threshold that it crossed and its patience, in words, e.g. `above 90 % for 10 s`.
    pub threshold: String,
}

/// Who holds slots: client backends with one application, role, database and address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// `application_name`; empty where the client gave none.
    pub application: Arc<str>,
    /// The role; empty in `other`.
    pub role: Arc<str>,
    /// The database; empty in `other`.
    pub database: Arc<str>,
    /// The address; empty in `other`, `several` where the application has more than one.
    pub address: Arc<str>,
    /// How many connections.
    pub connections: u32,
    /// How many of them wait for a lock.
    pub waiting_for_lock: u32,
    /// Connections by state, the most first.
    pub states: Vec<StateCount>,
    /// True for the one that stands for all that are not named.
    pub other: bool,
}

/// Connections in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCount {
    /// The state.
    pub state: SessionState,
    /// How many.
    pub connections: u32,
}

/// The longest key that every receiver takes (PagerDuty: 255).
pub const MAX_KEY_CHARS: usize = 255;

/// The key under which receivers join the messages of a target: `plimsoll/<instance>/<target>`.
///
/// It does not depend on rules, thresholds, severities or runs, so that none of them can orphan an
/// open page. Without an instance it is `default`. A key that is too long is hashed.
pub fn dedup_key(instance: Option<&str>, target: &str) -> String {
    let key = format!("plimsoll/{}/{target}", instance.unwrap_or("default"));
    if key.chars().count() <= MAX_KEY_CHARS {
        key
    } else {
        format!("plimsoll/sha256:{}", hash(&[&key]))
    }
}

/// The first 16 hexadecimal digits are enough of an id; a key takes them all.
pub(super) fn short_hash(parts: &[&str]) -> String {
    let mut digits = hash(parts);
    digits.truncate(16);
    digits
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length before it, so that no two lists of parts read alike.
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|d| char::from(b"0123456789abcdef"[usize::from(d)]));
    hasher.finalize().iter().flat_map(digits).collect()
}

/// What became of the incident in a reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Advanced {
    /// The one that ended.
    pub(super) ended: Option<Incident>,
    /// The one that is open after.
    pub(super) open: Option<Incident>,
    /// Whether the open one opened in this reading.
    pub(super) is_new: bool,
}

/// The incident after a reading: `severity` is the highest of the alerts that fire, `known`
/// whether the reading tells enough to say that it was below critical all the time.
pub(super) fn advance(
    before: Option<Incident>,
    severity: Option<Severity>,
    known: bool,
    served: Duration,
    at: Timestamp,
    identity: &[&str],
) -> Advanced {
    let opened = |severity| {
        let id = short_hash(&[identity, &[&at.to_string()]].concat());
        let (held, below_critical) = (Duration::ZERO, Duration::ZERO);
        Incident { id, severity, worst: severity, opened_at: at, held, below_critical }
    };
    match (before, severity) {
        (None, None) => Advanced::default(),
        (None, Some(severity)) => {
            Advanced { ended: None, open: Some(opened(severity)), is_new: true }
        }
        (Some(before), None) => Advanced { ended: Some(before), open: None, is_new: false },
        (Some(before), Some(severity)) => {
            let again = severity == Severity::Critical && before.severity < Severity::Critical;
            if again && NEW_INCIDENT_AFTER <= before.below_critical {
                let open = Some(opened(severity));
                return Advanced { ended: Some(before), open, is_new: true };
            }
            let below = match (severity, known) {
                (Severity::Critical, _) => Duration::ZERO,
                (_, true) => before.below_critical.saturating_add(served),
                (_, false) => before.below_critical,
            };
            let held = before.held.saturating_add(served);
            let worst = before.worst.max(severity);
            let open = Incident { severity, worst, held, below_critical: below, ..before };
            Advanced { ended: None, open: Some(open), is_new: false }
        }
    }
}

/// The largest holders of the groups, at most [`MAX_HOLDERS`], then one `other`. Exact in sum.
///
/// A holder is an application with its role and database; addresses are joined, since a
/// deployment has many.
pub fn holders(groups: &[Group]) -> Vec<Holder> {
    let several: Arc<str> = "several".into();
    let mut by_owner: BTreeMap<(&str, &str, &str), Holder> = BTreeMap::new();
    for group in groups {
        let owner = (&*group.application, &*group.role, &*group.database);
        let holder = by_owner.entry(owner).or_insert_with(|| Holder {
            application: Arc::clone(&group.application),
            role: Arc::clone(&group.role),
            database: Arc::clone(&group.database),
            address: Arc::clone(&group.address),
            connections: 0,
            waiting_for_lock: 0,
            states: Vec::new(),
            other: false,
        });
        if holder.address != group.address {
            holder.address = Arc::clone(&several);
        }
        holder.add(group);
    }
    let mut holders: Vec<Holder> = by_owner.into_values().collect();
    holders.sort_by_key(|h| std::cmp::Reverse(h.connections));
    if MAX_HOLDERS < holders.len() {
        let rest = holders.split_off(MAX_HOLDERS);
        holders.push(other(&rest));
    }
    for holder in &mut holders {
        holder.states.sort_by_key(|h| std::cmp::Reverse(h.connections));
    }
    holders
}

/// All client backends by state, the most first.
pub fn states(groups: &[Group]) -> Vec<StateCount> {
    let mut states = Vec::new();
    for group in groups {
        count(&mut states, group.state, group.connections);
    }
    states.sort_by_key(|h| std::cmp::Reverse(h.connections));
    states
}

impl Holder {
    fn add(&mut self, group: &Group) {
        self.connections = self.connections.saturating_add(group.connections);
        self.waiting_for_lock = self.waiting_for_lock.saturating_add(group.waiting_for_lock);
        count(&mut self.states, group.state, group.connections);
    }
}

fn other(rest: &[Holder]) -> Holder {
    let mut other = Holder {
        application: "other".into(),
        role: Arc::default(),
        database: Arc::default(),
        address: Arc::default(),
        connections: 0,
        waiting_for_lock: 0,
        states: Vec::new(),
        other: true,
    };
    for holder in rest {
        other.connections = other.connections.saturating_add(holder.connections);
        other.waiting_for_lock = other.waiting_for_lock.saturating_add(holder.waiting_for_lock);
        for state in &holder.states {
            count(&mut other.states, state.state, state.connections);
        }
    }
    other
}

fn count(states: &mut Vec<StateCount>, state: SessionState, connections: u32) {
    match states.iter_mut().find(|s| s.state == state) {
        Some(known) => known.connections = known.connections.saturating_add(connections),
        None => states.push(StateCount { state, connections }),
    }
}
