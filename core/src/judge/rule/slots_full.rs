//! `slots_full`: no slot is free for an ordinary role, or the server refuses our own login for
//! want of slots, whether or not it can be read over a replication connection meanwhile.
//!
//! From 2020-12-11 (`sorry, too many clients already`) and 2024-03-15 14:39 (100/100). One reading
//! with nothing free can be a burst of logins that end at once, two are not; a refusal is certain.

use super::{
    Condition, Finding, Findings, LevelFinding, Patience, RuleSet, StateRule, Subject, words,
};
use crate::reading::{FailureKind, Reading};

/// So many readings in a row with nothing free.
const READINGS: u32 = 2;

pub(super) fn find(set: &RuleSet, reading: &Reading) -> Findings {
    let Some(rule) = set.slots_full else { return Findings::Off };
    if let Some(seen) = reading.postgres.known() {
        let slots = seen.slots();
        if let Some(reason) = seen.fallback.filter(|reason| reason.is_want_of_slots())
            && slots.free > 0
        {
            // Logins under way hold slots that no view shows.
            return one(rule, Condition::Met, 1, words::refused(reason), slots.utilization);
        }
        let condition = match slots.free {
            // Readings are counted here: one observation is not to be counted twice.
            _ if !reading.postgres.fresh => Condition::Unknown,
            ..=0 => Condition::Met,
            _ => Condition::Clear,
        };
        let observed = words::slots_in_use(&slots);
        return one(rule, condition, READINGS, observed, slots.utilization);
    }
    match &reading.postgres.seen {
        Err(failure) if !reading.postgres.is_stale() => match failure.kind {
            FailureKind::Refused(reason) if reason.is_want_of_slots() => {
                one(rule, Condition::Met, 1, words::refused(reason), 1.0)
            }
            _ => Findings::Unknown,
        },
        _ => Findings::Unknown,
    }
}

fn one(
    rule: StateRule,
    condition: Condition,
    readings: u32,
    observed: String,
    weight: f64,
) -> Findings {
    let patience = Patience { hold: rule.hold, readings, keep_firing_for: rule.keep_firing_for };
    Findings::Known(vec![Finding {
        subject: Subject::Target,
        warning: None,
        critical: Some(LevelFinding { condition, patience }),
        observed,
        weight,
    }])
}
