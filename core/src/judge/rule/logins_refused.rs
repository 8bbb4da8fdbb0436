//! `logins_refused`: somebody was refused a login, by reason, or left without an answer.
//!
//! Refusals are things that happened: each is in one reading, and nothing in SQL counts them. They
//! are seen by our own logins, by probes and in the server's log. That one refusal is seen twice
//! (the log has ours too) makes no difference here: it happened. Where they are counted, each is
//! counted once: see [`crate::judge::refusal`].
//!
//! A reading in which somebody logged in, or was logged in, and nobody was refused says that it is
//! over; any other says nothing. Nor does one over a replication connection: it was made because
//! our own login is refused, which lasts until one is let in. The same goes for a probe: it stays
//! refused until its login is let in, or turned away for another reason. It may have backed off, or
//! have had no answer since.
//!
//! A probe's login that has no answer is a state and not an occurrence: it lasts until there is one.

use std::time::Duration;

use super::{Condition, Finding, Findings, LevelFinding, Patience, RuleSet, Subject, words};
use crate::judge::look::Look;
use crate::judge::refusal::{self, SeenBy};
use crate::judge::source;
use crate::reading::Refusal;

/// Patience with logins that are refused or unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginsRule {
    /// How long a probe's login may be without an answer, beyond the time in which it is due.
    pub unanswered_for: Duration,
    /// How long nobody must be refused, or left without an answer, before the alert resolves.
    pub keep_firing_for: Duration,
}

pub(super) fn find(set: &RuleSet, look: &Look<'_>, alerted: &[Subject]) -> Findings {
    let Some(rule) = set.logins_refused else { return Findings::Off };
    let mut findings: Vec<Finding> = refusal::seen(look.reading)
        .into_iter()
        .map(|(reason, by)| refused(rule, look, reason, &by))
        .collect();
    for subject in alerted {
        let Subject::Reason(reason) = subject else { continue };
        if findings.iter().all(|f| f.subject != *subject) {
            let over = is_over(look, *reason);
            let condition = if over { Condition::Clear } else { Condition::Unknown };
            let observed = words::refused(*reason);
            findings.push(finding(rule, *reason, condition, observed, 0.0));
        }
    }
    findings.extend(unanswered(rule, look, alerted));
    Findings::Known(findings)
}

/// Whether the reading shows that nobody is refused for this reason any more.
fn is_over(look: &Look<'_>, reason: Refusal) -> bool {
    let reading = look.reading;
    let known = reading.postgres.known();
    let is_refused = known.is_some_and(|seen| seen.fallback.is_some());
    let is_read = reading.postgres.fresh && known.is_some();
    let mut standing = look.memory.refusals.standing.values();
    let still = standing.any(|standing| standing.reason == reason);
    !is_refused && (reading.logins.tried || is_read) && !still
}

fn refused(rule: LoginsRule, look: &Look<'_>, reason: Refusal, by: &SeenBy) -> Finding {
    let recent = look.memory.refusals.recent.get(&reason);
    let observed = words::refused_despite(reason, by, recent.and_then(|it| it.despite_free));
    finding(rule, reason, Condition::Met, observed, by.most() as f64)
}

fn finding(
    rule: LoginsRule,
    reason: Refusal,
    condition: Condition,
    observed: String,
    weight: f64,
) -> Finding {
    let keep_firing_for = rule.keep_firing_for;
    let patience = Patience { hold: Duration::ZERO, readings: 1, keep_firing_for };
    let level = Some(LevelFinding { condition, patience });
    // A limit of one role or database keeps out some, anything else everybody.
    let is_of_some = matches!(reason, Refusal::RoleLimit | Refusal::DatabaseLimit);
    let (warning, critical) = if is_of_some { (level, None) } else { (None, level) };
    Finding { subject: Subject::Reason(reason), warning, critical, observed, weight, served: None }
}

/// Probes whose newest login has no answer, and those of which an alert says so.
fn unanswered(rule: LoginsRule, look: &Look<'_>, alerted: &[Subject]) -> Vec<Finding> {
    let patience =
        Patience { hold: rule.unanswered_for, readings: 1, keep_firing_for: rule.keep_firing_for };
    let finding = |name: &str, condition: Condition, observed: String| Finding {
        subject: Subject::Unanswered(name.to_owned()),
        warning: None,
        critical: Some(LevelFinding { condition, patience }),
        observed,
        weight: 1.0,
        served: None,
    };
    let probes = look.reading.probes.iter().filter_map(|probe| {
        let name = source::of_probe(&probe.name);
        let seen = probe.part.known()?;
        let condition =
            if refusal::is_unanswered(&seen.newest) { Condition::Met } else { Condition::Clear };
        Some(finding(&name, condition, words::unanswered(&name, seen)))
    });
    let mut findings: Vec<Finding> = probes.collect();
    for subject in alerted {
        let Subject::Unanswered(name) = subject else { continue };
        let is_seen = findings.iter().any(|finding| finding.subject == *subject);
        if !is_seen && look.is_watched(name) {
            findings.push(finding(name, Condition::Unknown, String::new()));
        }
    }
    findings
}
