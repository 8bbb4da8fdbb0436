//! The life of an alert: inactive → pending → firing → resolved, at two levels.
//!
//! Patience is time served: each reading in which the condition was seen adds the time since the
//! one before it. A reading that does not know adds nothing and changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::look::Look;
use super::rule::{self, Condition, Finding, Findings, LevelFinding, RuleName, Subject};
use super::{Rules, Severity, Transition};

/// The state of an alert, as the field names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// The condition is seen, patience is not over.
    Pending,
    /// The condition held for as long as its patience.
    Firing,
    /// It fired, and is over. Told once, then forgotten.
    Resolved,
    /// It never fired, and is over.
    Inactive,
}

impl AlertState {
    /// The word in metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Inactive => "inactive",
        }
    }
}

/// One rule on one subject, at both its levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The rule.
    pub rule: RuleName,
    /// On what.
    pub subject: Subject,
    /// The warning level.
    pub warning: Track,
    /// The critical level.
    pub critical: Track,
    /// Since when the condition of either level is seen, for *since when* in a message.
    pub since: Since,
    /// Since when that of the critical level is.
    pub critical_since: Option<Since>,
    /// What was measured last, in words that stand alone, e.g. `48 of 47 usable slots in use`.
    pub observed: String,
}

/// A beginning, for people: patience is kept in [`Track`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The reading in which it was first seen.
    pub at: Timestamp,
    /// Time since then, unknown readings included.
    pub held: Duration,
}

impl Since {
    fn now(at: Timestamp) -> Self {
        Self { at, held: Duration::ZERO }
    }

    fn later(self, served: Duration) -> Self {
        Self { held: self.held.saturating_add(served), ..self }
    }
}

/// Where one level of an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Track {
    /// Not seen.
    Inactive,
    /// Seen, and waiting for its patience.
    Pending {
        /// Time served above the line.
        served: Duration,
        /// Readings above the line, the first included.
        readings: u32,
    },
    /// Firing.
    Firing {
        /// Time served below `clear_below`, while it is there.
        clearing: Option<Duration>,
    },
}

impl Alert {
    /// The state over both levels: the further one counts.
    pub fn state(&self) -> AlertState {
        match (self.warning, self.critical) {
            (Track::Firing { .. }, _) | (_, Track::Firing { .. }) => AlertState::Firing,
            (Track::Pending { .. }, _) | (_, Track::Pending { .. }) => AlertState::Pending,
            (Track::Inactive, Track::Inactive) => AlertState::Inactive,
        }
    }

    /// Since when the condition of the level that [`Alert::severity`] names is seen.
    pub fn held_since(&self) -> Since {
        match self.severity() {
            Severity::Critical => self.critical_since.unwrap_or(self.since),
            Severity::Warning | Severity::Info => self.since,
        }
    }

    fn later(self, served: Duration) -> Self {
        let critical_since = self.critical_since.map(|since| since.later(served));
        Self { since: self.since.later(served), critical_since, ..self }
    }

    /// The highest level in the state that [`Alert::state`] names; `info` for advice.
    pub fn severity(&self) -> Severity {
        match (self.state(), self.critical) {
            _ if self.rule.is_advice() => Severity::Info,
            (AlertState::Firing, Track::Firing { .. })
            | (AlertState::Pending, Track::Pending { .. }) => Severity::Critical,
            _ => Severity::Warning,
        }
    }
}

impl Track {
    /// The track after a reading that came `served` after the one before it.
    pub fn advanced(self, level: Option<LevelFinding>, served: Duration) -> Self {
        let Some(LevelFinding { condition, patience }) = level else { return Self::Inactive };
        let wait = |served: Duration, readings: u32| {
            if patience.hold <= served && patience.readings <= readings {
                Self::Firing { clearing: None }
            } else {
                Self::Pending { served, readings }
            }
        };
        match (self, condition) {
            (track, Condition::Unknown) => track,
            (Self::Inactive, Condition::Met) => wait(Duration::ZERO, 1),
            (Self::Pending { served: before, readings }, Condition::Met) => {
                wait(before.saturating_add(served), readings.saturating_add(1))
            }
            (Self::Inactive | Self::Pending { .. }, _) => Self::Inactive,
            (Self::Firing { .. }, Condition::Met | Condition::Between) => {
                Self::Firing { clearing: None }
            }
            (Self::Firing { clearing }, Condition::Clear) => {
                let clear = clearing.map_or(Duration::ZERO, |c| c.saturating_add(served));
                if patience.keep_firing_for <= clear {
                    Self::Inactive
                } else {
                    Self::Firing { clearing: Some(clear) }
                }
            }
        }
    }
}

/// What became of an alert in a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Advanced {
    /// The alert after; `None` once it is inactive.
    pub after: Option<Alert>,
    /// Its state and severity, if one of them changed.
    pub change: Option<(AlertState, Severity)>,
}

/// The alert on a finding's subject after a reading that came `served` after the one before.
pub fn advance(
    before: Option<Alert>,
    rule: RuleName,
    finding: Finding,
    served: Duration,
    at: Timestamp,
) -> Advanced {
    let was = before.as_ref().map(|a| (a.state(), a.severity()));
    let known = finding.is_known();
    let mut alert = match before {
        Some(alert) => alert.later(served),
        None => Alert {
            rule,
            subject: finding.subject,
            warning: Track::Inactive,
            critical: Track::Inactive,
            since: Since::now(at),
            critical_since: None,
            observed: String::new(),
        },
    };
    let patience = finding.served.unwrap_or(served);
    alert.warning = alert.warning.advanced(finding.warning, patience);
    alert.critical = alert.critical.advanced(finding.critical, patience);
    alert.critical_since = match alert.critical {
        Track::Inactive => None,
        _ => Some(alert.critical_since.unwrap_or_else(|| Since::now(at))),
    };
    if known {
        alert.observed = finding.observed;
    }
    let is = (alert.state(), alert.severity());
    if is.0 != AlertState::Inactive {
        let change = (was != Some(is)).then_some(is);
        return Advanced { after: Some(alert), change };
    }
    Advanced { after: None, change: was.map(ended) }
}

/// The last change of an alert that is no more.
pub fn ended((state, severity): (AlertState, Severity)) -> (AlertState, Severity) {
    match state {
        AlertState::Firing => (AlertState::Resolved, severity),
        _ => (AlertState::Inactive, severity),
    }
}

/// The alerts after a reading, and what changed.
pub(super) struct Alerts {
    /// Pending and firing ones, by rule and subject.
    pub(super) open: Vec<Alert>,
    /// Those that fired before this reading and do not any more.
    pub(super) ended: Vec<Alert>,
    /// What changed.
    pub(super) transitions: Vec<Transition>,
    /// Rules that the reading does not tell of.
    pub(super) unknown: Vec<RuleName>,
    /// Whether every rule but advice is known and below its `clear_below`, and nothing is pending.
    pub(super) all_clear: bool,
}

/// All alerts of a target after a reading that came `served` after the one before.
pub(super) fn advance_all(
    rules: &Rules,
    mut before: Vec<Alert>,
    look: &Look<'_>,
    served: Duration,
) -> Alerts {
    let at = look.reading.at;
    let mut alerts = Alerts {
        open: Vec::new(),
        ended: Vec::new(),
        transitions: Vec::new(),
        unknown: Vec::new(),
        all_clear: true,
    };
    for rule in RuleName::ALL {
        let (own, others): (Vec<_>, Vec<_>) = before.into_iter().partition(|a| a.rule == rule);
        before = others;
        let subjects: Vec<Subject> = own.iter().map(|a| a.subject.clone()).collect();
        match rule::find(&rules.set, rule, look, &subjects) {
            Findings::Off => {
                for alert in own {
                    alerts.end(alert, at);
                }
            }
            Findings::Unknown => {
                alerts.unknown.push(rule);
                alerts.all_clear &= rule.is_advice();
                alerts.open.extend(own.into_iter().map(|alert| alert.later(served)));
            }
            Findings::Known(findings) => {
                let is_clear = || findings.iter().all(rule::Finding::is_clear);
                alerts.all_clear &= rule.is_advice() || is_clear();
                let findings = rule::bound(findings, &subjects);
                alerts.advance_rule(rule, own, findings, at, served);
            }
        }
    }
    alerts.all_clear &= alerts.open.iter().all(|alert| alert.rule.is_advice());
    alerts.open.sort_by(|a, b| (a.rule, &a.subject).cmp(&(b.rule, &b.subject)));
    alerts
}

impl Alerts {
    fn advance_rule(
        &mut self,
        rule: RuleName,
        mut own: Vec<Alert>,
        findings: Vec<rule::Finding>,
        at: Timestamp,
        served: Duration,
    ) {
        for finding in findings {
            let index = own.iter().position(|a| a.subject == finding.subject);
            let before = index.map(|i| own.swap_remove(i));
            if before.is_none() && !finding.is_met() {
                continue;
            }
            let subject = finding.subject.clone();
            let was = before.clone();
            let advanced = advance(before, rule, finding, served, at);
            if let Some((state, severity)) = advanced.change {
                self.transitions.push(Transition::Alert { rule, subject, state, severity, at });
                if state == AlertState::Resolved {
                    self.ended.extend(was);
                }
            }
            self.open.extend(advanced.after);
        }
        for alert in own {
            self.end(alert, at);
        }
    }

    fn end(&mut self, alert: Alert, at: Timestamp) {
        let (state, severity) = ended((alert.state(), alert.severity()));
        let (rule, subject) = (alert.rule, alert.subject.clone());
        self.transitions.push(Transition::Alert { rule, subject, state, severity, at });
        if state == AlertState::Resolved {
            self.ended.push(alert);
        }
    }
}

/// The highest severity that fires, if it is one that an incident is made of.
pub(super) fn highest_firing(alerts: &[Alert]) -> Option<Severity> {
    let firing = alerts.iter().filter(|a| a.state() == AlertState::Firing);
    firing.map(Alert::severity).max().filter(|severity| Severity::Warning <= *severity)
}
