//! Who hears what, and when: decided before the commit, from the incident projected on the alerts
//! that a receiver matches. Sending, pacing and retrying are `notify`'s.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Severity;
use super::alert::{Alert, AlertState};
use super::incident::{Incident, IncidentState, Report, short_hash};
use super::rule::RuleName;

/// A receiver, as far as the judge must know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in settings.
    pub name: String,
    /// What it hears of: projected severities from this one on.
    pub min_severity: Severity,
    /// Whether it is told of the end.
    pub send_resolved: bool,
    /// The rules that it hears; empty for all.
    pub rules: Vec<RuleName>,
    /// The targets that it hears; empty for all.
    pub targets: Vec<String>,
    /// How often a critical incident is told again.
    pub repeat_interval: Duration,
    /// How often a warning is told again.
    pub repeat_interval_warning: Duration,
    /// How it takes what it already knows.
    pub manners: Manners,
}

/// What a kind of receiver does with messages under a key that it knows, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// An acknowledged incident notifies nobody of a new trigger (PagerDuty): a rise to critical
    /// is told as a resolve, then a trigger, then the trigger once more.
    pub rise_needs_new_trigger: bool,
    /// A resolve of a key that it does not know is dropped without harm.
    pub unknown_resolve_is_harmless: bool,
}

/// After a resolve was accepted, the trigger of a rise waits so long: the receiver takes events
/// asynchronously, and must not see the trigger first.
pub const RISE_TRIGGER_AFTER: Duration = Duration::from_secs(2);

/// The trigger of a rise is sent once more so long after it was accepted, should the receiver
/// have taken resolve and trigger in the wrong order after all.
pub const RISE_REPEAT_AFTER: Duration = Duration::from_mins(1);

/// What a receiver was told of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The incident that is open there.
    pub incident: String,
    /// The key under which it is open there; another one cannot close it.
    pub key: String,
    /// When that opened.
    pub opened_at: Timestamp,
    /// Time served since it opened.
    pub held: Duration,
    /// The severity that it was told last.
    pub severity: Severity,
    /// Time served since it was told last.
    pub since: Duration,
}

/// What a notification does at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// Opens.
    Trigger,
    /// Says more of what is open: another severity, or again.
    Update,
    /// Closes.
    Resolve,
}

impl NotificationKind {
    /// The word in metrics, JSON and the store.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Update => "update",
            Self::Resolve => "resolve",
        }
    }
}

/// What is owed to one receiver: a row of the outbox. Never a rendered payload, never a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// hash(incident, receiver, sequence): writing it twice is harmless.
    pub id: String,
    /// The receiver's name.
    pub receiver: String,
    /// The dedup key.
    pub key: String,
    /// Orders the notifications of a target; they are sent to a receiver in this order.
    pub sequence: u64,
    /// What it does.
    pub kind: NotificationKind,
    /// Not before this long after the one before it (same receiver and key) was accepted.
    pub after_previous: Duration,
    /// When the reading was taken that made it owed.
    pub decided_at: Timestamp,
    /// The facts.
    pub report: Report,
}

impl Listener {
    /// A receiver that settings name no more: it hears of nothing but the end.
    pub(super) fn gone(name: String) -> Self {
        Self {
            name,
            min_severity: Severity::Critical,
            send_resolved: true,
            rules: Vec::new(),
            // None has this name: names are not empty.
            targets: vec![String::new()],
            repeat_interval: Duration::MAX,
            repeat_interval_warning: Duration::MAX,
            manners: Manners { rise_needs_new_trigger: false, unknown_resolve_is_harmless: false },
        }
    }

    fn hears(&self, target: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|t| t == target)
    }

    fn matches(&self, alert: &Alert) -> bool {
        self.rules.is_empty() || self.rules.contains(&alert.rule)
    }

    /// The severity of the alerts that it matches, if that is enough for it to hear.
    fn projected(&self, alerts: &[Alert]) -> Option<Severity> {
        let firing = alerts.iter().filter(|a| a.state() == AlertState::Firing && self.matches(a));
        firing.map(Alert::severity).max().filter(|severity| self.min_severity <= *severity)
    }

    fn interval(&self, severity: Severity) -> Duration {
        match severity {
            Severity::Critical => self.repeat_interval,
            Severity::Warning | Severity::Info => self.repeat_interval_warning,
        }
    }
}

/// What happens at one receiver, before it is written as notifications.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Telling {
    pub(super) kind: NotificationKind,
    pub(super) after_previous: Duration,
    pub(super) severity: Severity,
    pub(super) state: IncidentState,
    pub(super) incident: String,
    pub(super) key: String,
    pub(super) opened_at: Timestamp,
    pub(super) held: Duration,
}

/// What there is to hear in a reading that came `served` after the one before.
#[derive(Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) target: &'a str,
    pub(super) key: &'a str,
    pub(super) incident: Option<&'a Incident>,
    pub(super) alerts: &'a [Alert],
    pub(super) served: Duration,
}

/// What one receiver is told after a reading, and what it was told then.
pub(super) fn tell(
    listener: &Listener,
    heard: &Heard<'_>,
    told: Option<Told>,
) -> (Option<Told>, Vec<Telling>) {
    let incident = heard.incident.filter(|_| listener.hears(heard.target));
    let open = incident.zip(listener.projected(heard.alerts));
    let told = told.map(|t| Told {
        since: t.since.saturating_add(heard.served),
        held: t.held.saturating_add(heard.served),
        ..t
    });
    match (told, open) {
        (None, None) => (None, Vec::new()),
        (None, Some((incident, severity))) => {
            let told = begin(incident, heard.key, severity);
            let telling = say(&told, NotificationKind::Trigger, Duration::ZERO);
            (Some(told), vec![telling])
        }
        (Some(told), None) => (None, end(listener, &told)),
        (Some(told), Some((incident, severity))) if is_another(&told, heard, severity) => {
            let new = begin(incident, heard.key, severity);
            let tellings = if told.key == new.key && listener.manners.rise_needs_new_trigger {
                page_anew(&told, &new)
            } else {
                let trigger = say(&new, NotificationKind::Trigger, Duration::ZERO);
                // Under a key of before only this can close it.
                let end =
                    if told.key == new.key { end(listener, &told) } else { vec![resolve(&told)] };
                end.into_iter().chain([trigger]).collect()
            };
            (Some(new), tellings)
        }
        (Some(told), Some((_, severity))) => go_on(listener, told, severity),
    }
}

/// Whether the incident is another one to this receiver: its key changed, or a new one was opened
/// by a rise to critical that this receiver hears. What only others hear does not wake it.
fn is_another(told: &Told, heard: &Heard<'_>, severity: Severity) -> bool {
    let is_new = heard.incident.is_some_and(|incident| incident.id != told.incident);
    let rises = told.severity < severity && severity == Severity::Critical;
    told.key != heard.key || (is_new && rises)
}

fn go_on(listener: &Listener, told: Told, severity: Severity) -> (Option<Told>, Vec<Telling>) {
    let rises = told.severity < severity;
    let changes = told.severity != severity;
    let is_due = listener.interval(severity) <= told.since;
    if !changes && !is_due {
        return (Some(told), Vec::new());
    }
    let now = Told { severity, since: Duration::ZERO, ..told.clone() };
    let tellings = if rises && listener.manners.rise_needs_new_trigger {
        page_anew(&told, &now)
    } else {
        vec![say(&now, NotificationKind::Update, Duration::ZERO)]
    };
    (Some(now), tellings)
}

/// Wakes somebody though what was told before may be acknowledged: that is resolved first, also
/// where resolves are not wanted otherwise.
fn page_anew(before: &Told, now: &Told) -> Vec<Telling> {
    let trigger = say(now, NotificationKind::Trigger, RISE_TRIGGER_AFTER);
    let again = say(now, NotificationKind::Update, RISE_REPEAT_AFTER);
    vec![resolve(before), trigger, again]
}

fn begin(incident: &Incident, key: &str, severity: Severity) -> Told {
    Told {
        incident: incident.id.clone(),
        key: key.to_owned(),
        opened_at: incident.opened_at,
        held: incident.held,
        severity,
        since: Duration::ZERO,
    }
}

fn end(listener: &Listener, told: &Told) -> Vec<Telling> {
    if listener.send_resolved { vec![resolve(told)] } else { Vec::new() }
}

fn resolve(told: &Told) -> Telling {
    let telling = say(told, NotificationKind::Resolve, Duration::ZERO);
    Telling { state: IncidentState::Resolved, ..telling }
}

fn say(told: &Told, kind: NotificationKind, after_previous: Duration) -> Telling {
    Telling {
        kind,
        after_previous,
        severity: told.severity,
        state: IncidentState::Open,
        incident: told.incident.clone(),
        key: told.key.clone(),
        opened_at: told.opened_at,
        held: told.held,
    }
}

/// The notification of a telling, with its place in the sequence.
pub(super) fn notification(
    listener: &Listener,
    telling: &Telling,
    sequence: u64,
    report: Report,
) -> Notification {
    let receiver = listener.name.clone();
    Notification {
        id: short_hash(&[&telling.incident, &receiver, &sequence.to_string()]),
        receiver,
        key: report.dedup_key.clone(),
        sequence,
        kind: telling.kind,
        after_previous: telling.after_previous,
        decided_at: report.at,
        report,
    }
}

/// The alerts of a report for this receiver: those that fire, and at the end those that just
/// ended.
pub(super) fn alerts_of<'a>(
    listener: &Listener,
    telling: &Telling,
    alerts: &'a [Alert],
    ended: &'a [Alert],
) -> Vec<(&'a Alert, AlertState)> {
    let fire = |state| alerts.iter().filter(move |a: &&Alert| a.state() == state);
    let all: Vec<_> = match telling.state {
        IncidentState::Open => fire(AlertState::Firing).map(|a| (a, AlertState::Firing)).collect(),
        IncidentState::Resolved => ended.iter().map(|a| (a, AlertState::Resolved)).collect(),
    };
    all.into_iter().filter(|(alert, _)| listener.matches(alert)).collect()
}

/// Whether a resolve of an incident that nobody here remembers does no harm to this receiver.
pub(super) fn takes_unknown_resolve(listener: &Listener, target: &str) -> bool {
    let manners = listener.manners;
    manners.unknown_resolve_is_harmless && listener.send_resolved && listener.hears(target)
}
