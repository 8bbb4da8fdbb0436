//! `logins_refused`: somebody was refused a login, by reason.
//!
//! Refusals are things that happened: each is in one reading, and nothing in SQL counts them. A
//! reading in which somebody logged in, or was logged in, and nobody was refused says that it is
//! over; any other says nothing. Nor does one over a replication connection: it was made because
//! our own login is refused, which lasts until one is let in.

use super::{
    Condition, Finding, Findings, LevelFinding, Patience, RuleSet, StateRule, Subject, words,
};
use crate::reading::{Reading, Refusal};

pub(super) fn find(set: &RuleSet, reading: &Reading, alerted: &[Subject]) -> Findings {
    let Some(rule) = set.logins_refused else { return Findings::Off };
    let known = reading.postgres.known();
    let is_refused = known.is_some_and(|seen| seen.fallback.is_some());
    let is_read = reading.postgres.fresh && known.is_some();
    let in_good_order = !is_refused && (reading.logins.tried || is_read);
    let mut findings: Vec<Finding> = reading
        .logins
        .refused
        .iter()
        .filter(|r| r.reason != Refusal::WalSenders && r.count > 0)
        .map(|r| finding(rule, r.reason, Condition::Met, f64::from(r.count)))
        .collect();
    for subject in alerted {
        let Subject::Reason(reason) = subject else { continue };
        if findings.iter().all(|f| f.subject != *subject) {
            let condition = if in_good_order { Condition::Clear } else { Condition::Unknown };
            findings.push(finding(rule, *reason, condition, 0.0));
        }
    }
    Findings::Known(findings)
}

fn finding(rule: StateRule, reason: Refusal, condition: Condition, weight: f64) -> Finding {
    let patience = Patience { hold: rule.hold, readings: 1, keep_firing_for: rule.keep_firing_for };
    let level = Some(LevelFinding { condition, patience });
    let (warning, critical) = if reason.is_want_of_slots() { (None, level) } else { (level, None) };
    Finding {
        subject: Subject::Reason(reason),
        warning,
        critical,
        observed: words::refused(reason),
        weight,
    }
}
