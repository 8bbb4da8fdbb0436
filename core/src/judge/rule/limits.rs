//! `role_limit` and `database_limit`: connections of a CONNECTION LIMIT.
//!
//! The limit that is really met first is often not the server's. Which connections count is
//! decided where they are read: see [`crate::reading::postgres::ConnectionLimit`].

use super::{Finding, Findings, RuleSet, Subject, SubjectRule, words};
use crate::reading::Reading;
use crate::reading::postgres::ConnectionLimit;

/// Whose limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Role,
    Database,
}

impl Kind {
    fn subject(self, name: &str) -> Subject {
        match self {
            Self::Role => Subject::Role(name.to_owned()),
            Self::Database => Subject::Database(name.to_owned()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Database => "database",
        }
    }
}

pub(super) fn find(set: &RuleSet, kind: Kind, reading: &Reading, alerted: &[Subject]) -> Findings {
    let rule = match kind {
        Kind::Role => &set.role_limit,
        Kind::Database => &set.database_limit,
    };
    let Some(rule) = rule else { return Findings::Off };
    let Some(seen) = reading.postgres.known() else { return Findings::Unknown };
    let limits = match kind {
        Kind::Role => &seen.role_limits,
        Kind::Database => &seen.database_limits,
    };
    let mut findings: Vec<Finding> = limits.iter().map(|l| finding(rule, kind, l)).collect();
    for subject in alerted {
        let (Subject::Role(name) | Subject::Database(name)) = subject else { continue };
        if limits.iter().all(|l| l.name != *name) {
            // Gone, or without a limit now: a limit that cannot be reached.
            let gone = ConnectionLimit { name: name.clone(), limit: u32::MAX, used: 0 };
            findings.push(finding(rule, kind, &gone));
        }
    }
    Findings::Known(findings)
}

fn finding(rule: &SubjectRule, kind: Kind, limit: &ConnectionLimit) -> Finding {
    let levels = rule.levels_of(&limit.name);
    let level = |l: super::Level| l.finding(limit.used, limit.limit);
    Finding {
        subject: kind.subject(&limit.name),
        warning: levels.and_then(|l| l.warning).map(level),
        critical: levels.and_then(|l| l.critical).map(level),
        observed: words::limit_in_use(kind.word(), &limit.name, limit.used, limit.limit),
        weight: f64::from(limit.used) / f64::from(limit.limit.max(1)),
        served: None,
    }
}
