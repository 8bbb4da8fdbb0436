//! `source_unreadable`: a source gives no reading.
//!
//! The one rule for which a failure is knowledge. How long the server may be unreadable depends on
//! what failed: one that is stopped is worse news than one that recovers. Any other source that is
//! unreadable is a warning: what it would say is unknown, and no rule takes it for good news.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Condition, Finding, Findings, LevelFinding, Patience, RuleSet, Subject, words};
use crate::judge::look::Look;
use crate::judge::source::{POSTGRES, Standing, Trouble};
use crate::reading::FailureKind;

/// Patience with a source that cannot be read: with the server by the kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// The server refuses us, or is stopped.
    pub refused_or_stopped: Duration,
    /// No way to it, no answer in time, a lock in the way, or not allowed.
    pub unreachable_or_slow: Duration,
    /// Starting up or recovering.
    pub starting: Duration,
    /// Any other source than the server.
    pub others: Duration,
    /// How long it must be readable before the alert resolves.
    pub keep_firing_for: Duration,
    /// Other patience with some sources, whatever fails, by their names; `None` turns the rule off
    /// for one.
    pub subjects: BTreeMap<String, Option<Duration>>,
}

impl SourceRule {
    /// How long a source may fail like this; `None` if that is not judged.
    fn hold(&self, source: &str, kind: FailureKind) -> Option<Duration> {
        if let Some(own) = self.subjects.get(source) {
            return *own;
        }
        Some(match kind {
            _ if source != POSTGRES => self.others,
            FailureKind::Refused(_) | FailureKind::Stopped => self.refused_or_stopped,
            FailureKind::Starting => self.starting,
            FailureKind::Unreachable
            | FailureKind::TooSlow
            | FailureKind::Blocked
            | FailureKind::NotAllowed
            | FailureKind::Unsupported
            | FailureKind::Failing
            | FailureKind::Broken => self.unreachable_or_slow,
        })
    }

    /// The longest patience of all, with those for sources beside the server if there are any.
    pub(super) fn longest_hold(&self, has_others: bool) -> Duration {
        let own = self.subjects.values().flatten().copied();
        let all = [self.refused_or_stopped, self.unreachable_or_slow, self.starting];
        let others = has_others.then_some(self.others);
        all.into_iter().chain(others).chain(own).max().unwrap_or_default()
    }
}

pub(super) fn find(set: &RuleSet, look: &Look<'_>, alerted: &[Subject]) -> Findings {
    let Some(rule) = &set.source_unreadable else { return Findings::Off };
    let mut findings: Vec<Finding> =
        look.standings.iter().map(|standing| of_standing(rule, standing)).collect();
    for subject in alerted {
        let Subject::Source(name) = subject else { continue };
        if look.standing(name).is_none() && look.is_watched(name) {
            // It has left nothing yet.
            let kind = FailureKind::TooSlow;
            findings.push(finding(rule, name, kind, Condition::Unknown, String::new()));
        }
    }
    Findings::Known(findings)
}

fn of_standing(rule: &SourceRule, standing: &Standing) -> Finding {
    let name = standing.name.as_str();
    let (condition, kind, observed) = match &standing.trouble {
        Some(Trouble::Stale) => {
            (Condition::Met, FailureKind::TooSlow, words::stale(name, standing.age))
        }
        Some(Trouble::Failed(failure)) => {
            (Condition::Met, failure.kind, words::unreadable(name, failure))
        }
        None => (Condition::Clear, FailureKind::Stopped, format!("{name} can be read")),
    };
    finding(rule, name, kind, condition, observed)
}

fn finding(
    rule: &SourceRule,
    name: &str,
    kind: FailureKind,
    condition: Condition,
    observed: String,
) -> Finding {
    let level = rule.hold(name, kind).map(|hold| {
        let patience = Patience { hold, readings: 1, keep_firing_for: rule.keep_firing_for };
        LevelFinding { condition, patience }
    });
    let (warning, critical) = if name == POSTGRES { (None, level) } else { (level, None) };
    Finding {
        subject: Subject::Source(name.to_owned()),
        warning,
        critical,
        observed,
        weight: 1.0,
        served: None,
    }
}
