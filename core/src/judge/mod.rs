//! The judge: one pure function from what was read to what it means and who hears of it.
//!
//! `run` calls [`step`] once a reading, a replay calls the same with the same readings and gets
//! the same verdicts. It reads no clock, does no I/O and cannot fail.

pub mod alert;
pub mod bottleneck;
pub mod incident;
pub mod look;
pub mod memory;
pub mod pool;
pub mod refusal;
pub mod rule;
pub mod source;
pub mod switch;
pub mod telling;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reading::Reading;
use alert::{Alert, AlertState};
use incident::{Incident, IncidentState, Report};
use look::Look;
use memory::Memory;
use pool::PoolState;
use rule::{RuleName, RuleSet, Subject};
use source::Sources;
use switch::SwitchedTo;
use telling::{Listener, Notification, NotificationKind, Telling, Told};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Advice. Never opens or holds an incident open.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody is woken.
    Critical,
}

impl Severity {
    /// The word in settings, metrics, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which target this is, to people and to receivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetIdentity {
    /// Its name in settings.
    pub name: String,
    /// The key under which receivers join messages; see [`incident::dedup_key`].
    pub dedup_key: String,
    /// What the operator wants said with every message.
    pub labels: BTreeMap<String, String>,
    /// Where a person can look: the address of our own page or API, if one was set.
    pub link: Option<String>,
}

/// Everything that the judge is told by settings, for one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Whose readings these are.
    pub target: TargetIdentity,
    /// What to look for. A rule that is `None` is turned off.
    pub set: RuleSet,
    /// Who hears of it.
    pub listeners: Vec<Listener>,
    /// The target's sources beside its server.
    pub sources: Sources,
}

/// What arrived since the step before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The reading.
    pub reading: Reading,
}

/// All that is carried from one step to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Committed with every transition.
    pub episode: Episode,
    /// Checkpointed; when it is lost, rules that need it are *learning*.
    pub memory: Memory,
}

impl State {
    /// The state of a target that nothing is known of: the state folder was empty.
    pub fn empty() -> Self {
        Self { episode: Episode::empty(), memory: Memory::default() }
    }

    /// The state after a restart: the committed episode, and the memory if it was kept.
    pub fn restored(episode: Episode, memory: Option<Memory>) -> Self {
        Self { episode, memory: memory.unwrap_or_default() }
    }
}

/// The trouble of one target and what was said of it: a few kB, committed with each transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Alerts that are not inactive, sorted by rule and subject.
    pub alerts: Vec<Alert>,
    /// The open incident.
    pub incident: Option<Incident>,
    /// What each receiver was told, by its name.
    pub told: BTreeMap<String, Told>,
    /// The newest sequence number that was given to a notification; it never goes back.
    pub sequence: u64,
    /// Time served in which all was well since an empty start; `None` once that is settled.
    pub unsettled: Option<Duration>,
}

impl Episode {
    /// Nothing known, nothing told: an incident of an earlier run may still be open at a receiver.
    pub fn empty() -> Self {
        Self {
            alerts: Vec::new(),
            incident: None,
            told: BTreeMap::new(),
            sequence: 0,
            unsettled: Some(Duration::ZERO),
        }
    }
}

/// What a step found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What changed state, in order.
    pub transitions: Vec<Transition>,
    /// What is owed to receivers from now on, in order.
    pub notifications: Vec<Notification>,
    /// How much of the episode changed, and so how soon it must be on disk.
    pub commit: Commit,
    /// Every rule that could not be judged from this reading.
    pub unknown: Vec<RuleName>,
    /// The open incident as a receiver of all its alerts would hear it.
    pub open: Option<Report>,
    /// The incident that ended in this reading, in the same way.
    pub ended: Option<Report>,
    /// Where connections run out.
    pub bottleneck: bottleneck::Found,
    /// The pools that are known.
    pub pools: Vec<PoolState>,
}

impl Verdict {
    /// That nothing was found and nothing is known: for a commit without a reading.
    pub fn of_nothing(commit: Commit) -> Self {
        let at = bottleneck::Bottleneck::Unknown;
        Self {
            transitions: Vec::new(),
            notifications: Vec::new(),
            commit,
            unknown: Vec::new(),
            open: None,
            ended: None,
            bottleneck: bottleneck::Found { at, figures: String::new() },
            pools: Vec::new(),
        }
    }
}

/// How soon an episode must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Commit {
    /// Nothing changed that a crash may not cost.
    Unchanged,
    /// Patience was served: at least every 5 s, so that a crash costs no more.
    Patience,
    /// A transition or a notification: before anything is sent.
    Transition,
}

/// One change of state, for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Transition {
    /// An alert changed its state or severity.
    Alert {
        /// The rule.
        rule: RuleName,
        /// On what.
        subject: Subject,
        /// The state after.
        state: AlertState,
        /// The severity after.
        severity: Severity,
        /// When, by the reading.
        at: Timestamp,
    },
    /// Another server answers, or the same in another part.
    Switched {
        /// What answers now.
        to: SwitchedTo,
        /// When, by the reading.
        at: Timestamp,
    },
    /// An incident opened.
    Opened {
        /// Its id.
        incident: String,
        /// Its severity.
        severity: Severity,
        /// When, by the reading.
        at: Timestamp,
    },
    /// An open incident changed its severity.
    Severity {
        /// Its id.
        incident: String,
        /// The severity after.
        severity: Severity,
        /// When, by the reading.
        at: Timestamp,
    },
    /// An incident ended.
    Resolved {
        /// Its id.
        incident: String,
        /// When, by the reading.
        at: Timestamp,
    },
}

/// A single gap between readings counts no more than this as patience served.
///
/// A machine that slept for an hour has not watched for an hour.
pub const MAX_SERVED_BY_ONE_READING: Duration = Duration::from_secs(30);

/// What a reading means, after what is known so far.
pub fn step(rules: &Rules, state: State, input: &Input) -> (State, Verdict) {
    let reading = &input.reading;
    let served = reading.elapsed.min(MAX_SERVED_BY_ONE_READING);
    let State { mut episode, memory } = state;

    let memory = memory.with_reading(reading, served);
    let look = Look::new(reading, &memory, &rules.sources);
    let alerts = alert::advance_all(rules, std::mem::take(&mut episode.alerts), &look, served);
    let bottleneck = bottleneck::find(&look);
    let pools = look.pools;
    let severity = alert::highest_firing(&alerts.open);
    let known = reading.postgres.known().is_some();
    let sequence = episode.sequence.to_string();
    let identity = [rules.target.dedup_key.as_str(), sequence.as_str()];
    let before = episode.incident.take();
    let was = before.as_ref().map(|i| i.severity);
    let incident = incident::advance(before, severity, known, served, reading.at, &identity);

    let mut transitions = alerts.transitions;
    transitions.extend(incident_transitions(was, &incident, reading.at));
    // An incident that another one follows at once had this reading no more.
    let is_followed = incident.ended.is_some() && incident.is_new;
    let of_ended = is_followed.then(|| memory.clone());
    let (mut memory, switched) = memory.advanced(reading, &incident, &bottleneck, served);
    transitions.splice(..0, switched.map(|to| Transition::Switched { to, at: reading.at }));
    if incident.open.is_some() {
        let firing = alerts.open.iter().filter(|a| a.state() == AlertState::Firing);
        memory.keep_fired(firing.map(|a| alert_fact(rules, a, AlertState::Firing)));
    }
    let step = Step {
        rules,
        reading,
        memory: &memory,
        of_ended: of_ended.as_ref().unwrap_or(&memory),
        served,
        open: incident.open.as_ref(),
        alerts: &alerts.open,
        ended: &alerts.ended,
        bottleneck: &bottleneck,
    };
    let mut notifications = step.tell_all(&mut episode);
    notifications.extend(step.settle(&mut episode, alerts.all_clear));
    let open = incident.open.as_ref().map(|i| step.public_report(i, IncidentState::Open));
    let ended = incident.ended.as_ref().map(|i| step.public_report(i, IncidentState::Resolved));

    episode.alerts = alerts.open;
    episode.incident = incident.open;
    let commit = if !transitions.is_empty() || !notifications.is_empty() {
        Commit::Transition
    } else if episode.is_quiet() {
        Commit::Unchanged
    } else {
        Commit::Patience
    };
    let verdict = Verdict {
        transitions,
        notifications,
        commit,
        unknown: alerts.unknown,
        open,
        ended,
        bottleneck,
        pools,
    };
    (State { episode, memory }, verdict)
}

impl Episode {
    /// Whether nothing is pending or firing, and nobody was told that something is.
    pub fn is_over(&self) -> bool {
        self.alerts.is_empty() && self.incident.is_none() && self.told.is_empty()
    }

    /// Whether no patience is being served that matters, so that a restart could lose none. Advice
    /// may stand for years, and is found again. What is served of an empty start delays one resolve
    /// that nobody waits for: it is on disk whenever the memory is.
    fn is_quiet(&self) -> bool {
        self.alerts.iter().all(|alert| alert.rule.is_advice()) && self.incident.is_none()
    }
}

fn incident_transitions(
    was: Option<Severity>,
    incident: &incident::Advanced,
    at: Timestamp,
) -> Vec<Transition> {
    let mut transitions = Vec::new();
    if let Some(ended) = &incident.ended {
        transitions.push(Transition::Resolved { incident: ended.id.clone(), at });
    }
    if let Some(open) = &incident.open {
        let (incident_id, severity) = (open.id.clone(), open.severity);
        if incident.is_new {
            transitions.push(Transition::Opened { incident: incident_id, severity, at });
        } else if was != Some(severity) {
            transitions.push(Transition::Severity { incident: incident_id, severity, at });
        }
    }
    transitions
}

/// What is the same for every receiver in one step.
struct Step<'a> {
    rules: &'a Rules,
    reading: &'a Reading,
    memory: &'a Memory,
    /// What is remembered of the incident that ended: of the open one if none did.
    of_ended: &'a Memory,
    served: Duration,
    open: Option<&'a Incident>,
    alerts: &'a [Alert],
    ended: &'a [Alert],
    bottleneck: &'a bottleneck::Found,
}

impl Step<'_> {
    fn tell_all(&self, episode: &mut Episode) -> Vec<Notification> {
        let mut notifications = Vec::new();
        let mut told = std::mem::take(&mut episode.told);
        for listener in &self.rules.listeners {
            let before = told.remove(&listener.name);
            let (after, tellings) = telling::tell(listener, &self.heard(), before);
            if let Some(after) = after {
                episode.told.insert(listener.name.clone(), after);
            }
            self.add(episode, listener, tellings, &mut notifications);
        }
        // Receivers that settings name no more still hear the end of what they were told.
        for (name, told) in told {
            let listener = Listener::gone(name);
            let (_, tellings) = telling::tell(&listener, &self.heard(), Some(told));
            self.add(episode, &listener, tellings, &mut notifications);
        }
        notifications
    }

    fn heard(&self) -> telling::Heard<'_> {
        telling::Heard {
            target: &self.rules.target.name,
            key: &self.rules.target.dedup_key,
            incident: self.open,
            alerts: self.alerts,
            served: self.served,
        }
    }

    fn add(
        &self,
        episode: &mut Episode,
        listener: &Listener,
        tellings: Vec<Telling>,
        notifications: &mut Vec<Notification>,
    ) {
        for telling in tellings {
            episode.sequence += 1;
            let report = self.report_to(listener, &telling);
            let sequence = episode.sequence;
            notifications.push(telling::notification(listener, &telling, sequence, report));
        }
    }

    /// After an empty start: once all was well for the longest `for`, one resolve to those who
    /// drop it if they know nothing, so that no page of an earlier life stays open for ever.
    fn settle(&self, episode: &mut Episode, all_clear: bool) -> Vec<Notification> {
        let Some(served) = episode.unsettled else { return Vec::new() };
        if !all_clear {
            let is_known = self.reading.postgres.known().is_some();
            episode.unsettled = Some(if is_known { Duration::ZERO } else { served });
            return Vec::new();
        }
        let served = served.saturating_add(self.served);
        if served < self.rules.set.longest_hold(&self.rules.sources) {
            episode.unsettled = Some(served);
            return Vec::new();
        }
        episode.unsettled = None;
        let mut notifications = Vec::new();
        let target = &self.rules.target;
        for listener in &self.rules.listeners {
            let is_told = episode.told.contains_key(&listener.name);
            if is_told || !telling::takes_unknown_resolve(listener, &target.name) {
                continue;
            }
            let at = self.reading.at;
            let telling = Telling {
                kind: NotificationKind::Resolve,
                after_previous: Duration::ZERO,
                severity: listener.min_severity,
                state: IncidentState::Resolved,
                incident: incident::short_hash(&[&target.dedup_key, &at.to_string()]),
                key: target.dedup_key.clone(),
                opened_at: at,
                held: Duration::ZERO,
            };
            self.add(episode, listener, vec![telling], &mut notifications);
        }
        notifications
    }

    fn report_to(&self, listener: &Listener, telling: &Telling) -> Report {
        let alerts = telling::alerts_of(listener, telling, self.alerts, self.ended);
        self.report(telling, &alerts)
    }

    /// The incident over all its alerts, for everyone who may see the target.
    fn public_report(&self, incident: &Incident, state: IncidentState) -> Report {
        let alerts = match state {
            IncidentState::Open => self.alerts,
            IncidentState::Resolved => self.ended,
        };
        let telling = Telling {
            kind: NotificationKind::Update,
            after_previous: Duration::ZERO,
            severity: match state {
                IncidentState::Open => incident.severity,
                IncidentState::Resolved => incident.worst,
            },
            state,
            incident: incident.id.clone(),
            key: self.rules.target.dedup_key.clone(),
            opened_at: incident.opened_at,
            held: incident.held,
        };
        let shown = |a: &Alert| match state {
            IncidentState::Open => a.state(),
            IncidentState::Resolved => AlertState::Resolved,
        };
        let alerts: Vec<_> = alerts.iter().map(|a| (a, shown(a))).collect();
        let mut report = self.report(&telling, &alerts);
        if state == IncidentState::Resolved {
            // The record of an incident names all that fired in it, not what ended last.
            let resolved = |fact: &incident::AlertFact| incident::AlertFact {
                state: AlertState::Resolved,
                ..fact.clone()
            };
            report.alerts = self.of_ended.fired.iter().map(resolved).collect();
        }
        report
    }

    fn report(&self, telling: &Telling, alerts: &[(&Alert, AlertState)]) -> Report {
        let target = &self.rules.target;
        let at = self.reading.at;
        let known = self.memory.last_known.as_ref();
        let remembered = match telling.state {
            IncidentState::Open => self.memory,
            IncidentState::Resolved => self.of_ended,
        };
        let is_now = self.reading.postgres.known().is_some();
        let mut facts: Vec<_> =
            alerts.iter().map(|(alert, state)| alert_fact(self.rules, alert, *state)).collect();
        facts.sort_by_key(|f| (f.state != AlertState::Firing, std::cmp::Reverse(f.severity)));
        Report {
            id: telling.incident.clone(),
            dedup_key: telling.key.clone(),
            target: target.name.clone(),
            labels: target.labels.clone(),
            link: target.link.clone(),
            severity: telling.severity,
            state: telling.state,
            opened_at: telling.opened_at,
            resolved_at: (telling.state == IncidentState::Resolved).then_some(at),
            held: telling.held,
            at,
            alerts: facts,
            slots: known.map(|k| k.slots),
            known_at: known.filter(|_| !is_now).map(|k| k.at),
            failure: self.reading.postgres.seen.as_ref().err().cloned(),
            holders: known.map(|k| k.holders.clone()).unwrap_or_default(),
            states: known.map(|k| k.states.clone()).unwrap_or_default(),
            peak: remembered.peak.clone(),
            refused: remembered.refused.clone(),
            superusers: known.map(|k| k.superusers.clone()).unwrap_or_default(),
            switch: remembered.switch,
            bottleneck: match telling.state {
                IncidentState::Open => Some(self.bottleneck.clone()),
                IncidentState::Resolved => remembered.bottleneck.clone(),
            },
        }
    }
}

fn alert_fact(rules: &Rules, alert: &Alert, state: AlertState) -> incident::AlertFact {
    let (severity, since) = (alert.severity(), alert.held_since());
    incident::AlertFact {
        rule: alert.rule,
        subject: alert.subject.clone(),
        severity,
        state,
        since: since.at,
        held: since.held,
        observed: alert.observed.clone(),
        threshold: rule::words::threshold(&rules.set, alert.rule, &alert.subject, severity),
    }
}
