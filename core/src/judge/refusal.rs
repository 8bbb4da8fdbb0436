//! Refused logins: who saw them, and how many there were.
//!
//! The same refusal is seen in several places: our own watch is refused and the log says so, a
//! probe is refused through a pooler that was refused, and the log says that once more. Where the
//! server's log is followed it has all of them and is counted alone; elsewhere the refusals of our
//! own logins and those of probes are counted, which are different logins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::words::clean;
use super::source;
use crate::reading::log::LineKind;
use crate::reading::probe::{Attempt, Steps};
use crate::reading::{FailureKind, Reading, Refusal, RefusedLogin};

/// Who saw logins refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBy {
    /// Our own logins.
    pub watch: u32,
    /// Logins of probes.
    pub probes: u32,
    /// The first probe, by its name as a source.
    pub probe: Option<String>,
    /// Lines of the log.
    pub log: u64,
    /// Who was refused there most often, as far as a line told: `role@database`.
    pub whom: Option<String>,
}

impl SeenBy {
    /// The largest number of refusals that one of them saw.
    pub fn most(&self) -> u64 {
        self.log.max(u64::from(self.watch.max(self.probes)))
    }

    /// In words, to stand behind what was refused: ` seen by probe/as-the-application`. Nothing if
    /// only our own login was.
    pub fn words(&self) -> String {
        match (&self.probe, self.log) {
            (None, 0) => String::new(),
            (Some(probe), 0) => format!(", seen by {}", clean(probe)),
            (probe, _) => {
                let too = probe.as_ref().map(|probe| format!(" and by {}", clean(probe)));
                let whom = self.whom.as_ref().map(|whom| format!(" for {}", clean(whom)));
                let (too, whom) = (too.unwrap_or_default(), whom.unwrap_or_default());
                format!(", seen in the log{whom}{too}")
            }
        }
    }
}

/// Whether a probe's login was refused, and why.
pub fn of_attempt(attempt: &Attempt) -> Option<Refusal> {
    match attempt.outcome.as_ref().err()?.kind {
        FailureKind::Refused(reason) => Some(reason),
        _ => None,
    }
}

/// Whether a probe's login shows how logins are met: it got in, or was turned away for a reason of
/// its own. One that found nobody there or no answer, or that we did not make, shows nothing, and
/// what was known before stands.
pub fn is_decided(attempt: &Attempt) -> bool {
    let Err(failure) = &attempt.outcome else { return true };
    match failure.kind {
        FailureKind::Refused(_)
        | FailureKind::NotAllowed
        | FailureKind::Unsupported
        | FailureKind::Failing => true,
        FailureKind::Stopped
        | FailureKind::Starting
        | FailureKind::Unreachable
        | FailureKind::TooSlow
        | FailureKind::Blocked
        | FailureKind::Broken => false,
    }
}

/// Whether a probe's login reached something and has no answer: neither let in nor refused; or
/// could not set out, because an earlier one is still open there. One that was let in and waits for
/// the first answer hangs elsewhere: in a pooler's queue, or behind a lock.
pub fn is_unanswered(attempt: &Attempt) -> bool {
    let Err(failure) = &attempt.outcome else { return false };
    let steps = attempt.steps;
    let has_reached = steps.connect.is_some() && steps.authentication.is_none();
    failure.kind == FailureKind::TooSlow && (has_reached || steps == Steps::default())
}

/// Who saw logins refused since the reading before, by reason. No refused walsender is among them:
/// that is no login of an application.
pub fn seen(reading: &Reading) -> BTreeMap<Refusal, SeenBy> {
    let mut seen: BTreeMap<Refusal, SeenBy> = BTreeMap::new();
    for login in reading.logins.refused.iter().filter(|login| login.count > 0) {
        let by = seen.entry(login.reason).or_default();
        by.watch = by.watch.saturating_add(login.count);
    }
    for probe in &reading.probes {
        for reason in probe.happened.0.iter().filter_map(of_attempt) {
            let by = seen.entry(reason).or_default();
            by.probes = by.probes.saturating_add(1);
            by.probe.get_or_insert_with(|| source::of_probe(&probe.name));
        }
    }
    let mut most: BTreeMap<Refusal, u64> = BTreeMap::new();
    for line in reading.log.iter().flat_map(|log| &log.happened.counts) {
        let LineKind::Refused(reason) = line.kind else { continue };
        if line.count == 0 {
            continue;
        }
        let by = seen.entry(reason).or_default();
        by.log = by.log.saturating_add(line.count);
        let most = most.entry(reason).or_default();
        if *most < line.count {
            *most = line.count;
            by.whom = whom(&line.role, &line.database);
        }
    }
    seen.remove(&Refusal::WalSenders);
    seen
}

fn whom(role: &str, database: &str) -> Option<String> {
    match (role, database) {
        ("", _) => None,
        (role, "") => Some(role.to_owned()),
        (role, database) => Some(format!("{role}@{database}")),
    }
}

/// Logins refused since the reading before, each once: those of the log where that is read, else
/// our own and those of probes. What a pooler refused by a limit of its own is in no server's log.
/// As in [`seen`], no refused walsender is among them.
pub fn counted(reading: &Reading) -> Vec<RefusedLogin> {
    let log = reading.log.as_ref().filter(|log| log.part.known().is_some());
    let of_log = log.into_iter().flat_map(|log| &log.happened.counts);
    let of_log = of_log.filter_map(|line| match line.kind {
        LineKind::Refused(reason) => Some((reason, line.count)),
        _ => None,
    });
    let own = reading.logins.refused.iter().map(|login| (login.reason, u64::from(login.count)));
    let own = own.filter(|_| log.is_none());
    let attempts = reading.probes.iter().flat_map(|probe| &probe.happened.0);
    let of_probes = attempts.filter_map(of_attempt).map(|reason| (reason, 1));
    let of_probes = of_probes.filter(|(reason, _)| log.is_none() || reason.is_of_pooler());
    let mut counts: BTreeMap<Refusal, u32> = BTreeMap::new();
    let all = of_log.chain(own).chain(of_probes);
    for (reason, more) in all.filter(|(reason, _)| *reason != Refusal::WalSenders) {
        let sum = counts.entry(reason).or_default();
        *sum = sum.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
    }
    let refused = counts.into_iter().filter(|(_, count)| *count > 0);
    refused.map(|(reason, count)| RefusedLogin { reason, count }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::reading::log::{LineCount, Lines, Observation};
    use crate::reading::{Failure, Logins, Part, Sourced};

    fn part<T>(seen: Result<Arc<T>, Failure>) -> Part<T> {
        let stale_after = Duration::from_secs(3);
        Part { age: Duration::ZERO, fresh: true, stale_after, seen }
    }

    #[test]
    fn a_standby_that_is_refused_is_no_refused_login() {
        let line = |reason, count| LineCount {
            kind: LineKind::Refused(reason),
            role: "app".to_owned(),
            database: "shop".to_owned(),
            application: String::new(),
            count,
        };
        let ours = RefusedLogin { reason: Refusal::WalSenders, count: 1 };
        let logins = Logins { refused: vec![ours], ..Logins::default() };
        let kind = FailureKind::Refused(Refusal::WalSenders);
        let postgres = part(Err(Failure { kind, text: String::new(), sqlstate: None }));
        let (at, elapsed) = (Timestamp::UNIX_EPOCH, Duration::ZERO);
        let mut reading = Reading::of_postgres(at, elapsed, postgres, logins);
        assert_eq!(counted(&reading), []);
        let lines = vec![line(Refusal::WalSenders, 3), line(Refusal::RoleLimit, 2)];
        let observed = Observation {
            file: "postgresql.json".to_owned(),
            format: None,
            tells_names: true,
            behind_bytes: 0,
        };
        reading.log = Some(Sourced {
            name: "log".to_owned(),
            part: part(Ok(Arc::new(observed))),
            happened: Lines { counts: lines, ..Lines::default() },
        });
        assert_eq!(counted(&reading), [RefusedLogin { reason: Refusal::RoleLimit, count: 2 }]);
        assert_eq!(seen(&reading).keys().collect::<Vec<_>>(), [&Refusal::RoleLimit]);
    }

    #[test]
    fn a_login_that_cannot_set_out_for_an_earlier_one_is_unanswered_as_that_one_was() {
        let took = Some(Duration::from_millis(1));
        let reached = Steps { connect: took, ..Steps::default() };
        let let_in = Steps { authentication: took, ..reached };
        let cases = [
            (FailureKind::TooSlow, reached, true),
            (FailureKind::TooSlow, Steps::default(), true),
            (FailureKind::TooSlow, let_in, false),
            (FailureKind::Unreachable, Steps::default(), false),
            (FailureKind::NotAllowed, reached, false),
        ];
        for (kind, steps, expected) in cases {
            let failure = Failure { kind, text: String::new(), sqlstate: None };
            let attempt = Attempt { at: Timestamp::UNIX_EPOCH, outcome: Err(failure), steps };
            assert_eq!(is_unanswered(&attempt), expected, "{attempt:?}");
        }
    }
}
