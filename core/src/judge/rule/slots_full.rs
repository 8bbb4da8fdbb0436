//! `slots_full`: no slot is free for an ordinary role, or a login is refused for want of slots,
//! whether or not the server can be read over a replication connection meanwhile.
//!
//! From 2020-12-11 (`sorry, too many clients already`) and 2024-03-15 14:39 (100/100). One reading
//! with nothing free can be a burst of logins that end at once, two are not; a refusal is certain,
//! whoever sees it: our own kept connection when it is made anew, a probe, the server's log. A view
//! that showed free slots at the moment of a refusal does not say that it is over: logins under way
//! hold slots that no view shows before PostgreSQL 18.

use super::{
    Condition, Finding, Findings, LevelFinding, Patience, RuleSet, StateRule, Subject, words,
};
use crate::judge::look::Look;
use crate::judge::refusal;
use crate::reading::FailureKind;

/// So many readings in a row with nothing free.
const READINGS: u32 = 2;

pub(super) fn find(set: &RuleSet, look: &Look<'_>) -> Findings {
    let Some(rule) = set.slots_full else { return Findings::Off };
    let reading = look.reading;
    if let Some(observed) = refused_now(look) {
        return one(rule, Condition::Met, 1, observed, 1.0);
    }
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
            _ if is_blind(look) => Condition::Unknown,
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

/// A refusal for want of slots that a probe or the log saw since the reading before, and how many
/// slots looked free then. Ours alone show in the state of the kept connection.
fn refused_now(look: &Look<'_>) -> Option<String> {
    let mut seen = refusal::seen(look.reading).into_iter();
    let (reason, by) =
        seen.find(|(reason, by)| reason.is_want_of_slots() && (by.probes > 0 || by.log > 0))?;
    let recent = look.memory.refusals.recent.get(&reason);
    Some(words::refused_despite(reason, &by, recent.and_then(|recent| recent.despite_free)))
}

/// Whether the view showed free slots when a probe was refused one, which it still is as far as
/// anybody knows.
fn is_blind(look: &Look<'_>) -> bool {
    look.memory.refusals.standing.values().any(|standing| standing.despite_free.is_some())
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
        served: None,
    }])
}
