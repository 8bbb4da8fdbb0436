//! `source_unreadable`: a source gives no reading.
//!
//! The one rule for which a failure is knowledge. How long it may last depends on what failed: a
//! server that is stopped is worse news than one that recovers.

use super::{
    Condition, Finding, Findings, LevelFinding, Patience, RuleSet, SourceRule, Subject, words,
};
use crate::reading::{FailureKind, Reading};

pub(super) fn find(set: &RuleSet, reading: &Reading) -> Findings {
    let Some(rule) = set.source_unreadable else { return Findings::Off };
    let part = &reading.postgres;
    let (condition, kind, observed) = match &part.seen {
        _ if part.is_stale() => {
            (Condition::Met, FailureKind::TooSlow, words::stale("postgres", part.age))
        }
        Err(failure) => (Condition::Met, failure.kind, words::unreadable("postgres", failure)),
        Ok(_) => (Condition::Clear, FailureKind::Stopped, "postgres can be read".to_owned()),
    };
    let patience =
        Patience { hold: hold(rule, kind), readings: 1, keep_firing_for: rule.keep_firing_for };
    Findings::Known(vec![Finding {
        subject: Subject::Source("postgres".to_owned()),
        warning: None,
        critical: Some(LevelFinding { condition, patience }),
        observed,
        weight: 1.0,
    }])
}

fn hold(rule: SourceRule, kind: FailureKind) -> std::time::Duration {
    match kind {
        FailureKind::Refused(_) | FailureKind::Stopped => rule.refused_or_stopped,
        FailureKind::Starting => rule.starting,
        FailureKind::Unreachable
        | FailureKind::TooSlow
        | FailureKind::Blocked
        | FailureKind::NotAllowed
        | FailureKind::Unsupported
        | FailureKind::Failing
        | FailureKind::Broken => rule.unreachable_or_slow,
    }
}
