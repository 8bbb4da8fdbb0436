//! `/healthz` and `/readyz`: whether Plimsoll itself does its work. How the servers under watch
//! stand is no part of it: a full server is why Plimsoll runs, and no reason to restart it.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use jiff::Timestamp;
use plimsoll_core::status::Published;
use serde::Serialize;

use super::limits::{LOOP_STALLED_AFTER, MAX_REASONS_SHOWN, OWED_TOO_OLD_AFTER};
use crate::health::{LoopHealth, Values};

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub(super) struct HealthStatus {
    /// `ok` or `failing`.
    status: &'static str,
    /// Why, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct ReadinessStatus {
    /// `ready` or `starting`.
    status: &'static str,
    /// Targets that were not read yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for: Vec<String>,
}

/// 200, or 503 if something is wrong or missing.
pub(super) fn code(missing: &[String]) -> StatusCode {
    if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) fn health(reasons: Vec<String>) -> HealthStatus {
    let status = if reasons.is_empty() { "ok" } else { "failing" };
    HealthStatus { status, reasons: cut(reasons) }
}

pub(super) fn readiness(waiting_for: Vec<String>) -> ReadinessStatus {
    let status = if waiting_for.is_empty() { "ready" } else { "starting" };
    ReadinessStatus { status, waiting_for: cut(waiting_for) }
}

fn cut(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MAX_REASONS_SHOWN);
    if more > 0 {
        lines.truncate(MAX_REASONS_SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Whether a loop has not turned for too long.
pub(super) fn is_stalled(watched: &LoopHealth, monotonic: Instant) -> bool {
    monotonic.saturating_duration_since(watched.last_turn) > LOOP_STALLED_AFTER
}

/// Everything that is wrong with Plimsoll itself.
pub(super) fn complaints(
    watched: &[String],
    values: &Values,
    now: Timestamp,
    monotonic: Instant,
) -> Vec<String> {
    let mut complaints: Vec<String> = watched
        .iter()
        .filter_map(|name| of_loop(name, values.loops.get(name), monotonic))
        .collect();
    if let Some(since) = values.store.volatile_since {
        let seconds = monotonic.saturating_duration_since(since).as_secs();
        let problem = values.store.problem.as_deref().unwrap_or("commits do not end");
        complaints.push(format!(
            "store: nothing has reached the disk for {seconds} s ({problem}); pages go from memory"
        ));
    }
    for (name, receiver) in &values.receivers {
        let Some(oldest) = receiver.oldest_owed_at else { continue };
        let seconds = now.duration_since(oldest).as_secs();
        if receiver.owed == 0 || seconds <= OWED_TOO_OLD_AFTER.as_secs().cast_signed() {
            continue;
        }
        let error = receiver.last_error.as_deref().unwrap_or("no failure was seen");
        complaints.push(format!(
            "receiver {name}: the oldest of {} owed notifications has waited for {seconds} s \
             ({error})",
            receiver.owed
        ));
    }
    complaints
}

fn of_loop(name: &str, watched: Option<&LoopHealth>, monotonic: Instant) -> Option<String> {
    let Some(watched) = watched else {
        return Some(format!("target {name}: its loop has not begun"));
    };
    if watched.blind {
        return Some(format!(
            "target {name}: nobody watches it: its loop panicked too often ({} restarts)",
            watched.restarts
        ));
    }
    let seconds = monotonic.saturating_duration_since(watched.last_turn).as_secs();
    is_stalled(watched, monotonic)
        .then(|| format!("target {name}: its loop has not turned for {seconds} s"))
}

/// Targets without a first reading, good or failed.
pub(super) fn unread(targets: &[Arc<Published>]) -> Vec<String> {
    let unread = targets.iter().filter(|target| target.reading.is_none());
    unread.map(|target| target.status.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::*;
    use crate::clock;
    use crate::health::{Health, ReceiverHealth};

    /// What is wrong after a change to a daemon in which all is well, in its 1,000th second.
    fn check(change: impl FnOnce(&mut Values, &dyn Fn(u64) -> Instant), expected: &[&str]) {
        let started: Timestamp = "2024-03-15T14:00:00Z".parse().unwrap();
        let begin = clock::monotonic();
        let second = |n| begin + Duration::from_secs(n);
        let mut values = Health::starting(started).values().clone();
        let turned = LoopHealth { last_turn: second(999), restarts: 2, blind: false, replaced: 0 };
        values.loops.insert("db".to_owned(), turned);
        values.receivers.insert("on-call".to_owned(), ReceiverHealth::default());
        change(&mut values, &second);
        let now = started + SignedDuration::from_secs(1000);
        assert_eq!(complaints(&["db".to_owned()], &values, now, second(1000)), expected);
    }

    #[test]
    fn nothing_is_wrong_with_a_daemon_that_works() {
        check(|_, _| (), &[]);
        check(
            |values, second| {
                // At the limit, and beside it what is no longer watched.
                values.loops.get_mut("db").unwrap().last_turn = second(970);
                let gone = LoopHealth { blind: true, ..values.loops["db"].clone() };
                values.loops.insert("taken out of the settings".to_owned(), gone);
            },
            &[],
        );
    }

    #[test]
    fn a_loop_that_stands_still_is_wrong() {
        check(
            |values, second| values.loops.get_mut("db").unwrap().last_turn = second(969),
            &["target db: its loop has not turned for 31 s"],
        );
        check(
            |values, _| values.loops.get_mut("db").unwrap().blind = true,
            &["target db: nobody watches it: its loop panicked too often (2 restarts)"],
        );
        check(|values, _| values.loops.clear(), &["target db: its loop has not begun"]);
    }

    #[test]
    fn a_store_that_reaches_no_disk_is_wrong() {
        let problem =
            "store: nothing has reached the disk for 7 s (disk full); pages go from memory";
        check(
            |values, second| {
                values.store.volatile_since = Some(second(993));
                values.store.problem = Some("disk full".to_owned());
            },
            &[problem],
        );
    }

    #[test]
    fn a_page_that_is_owed_for_too_long_is_wrong_and_a_parked_one_is_not() {
        let check_owed = |count, seconds: i64, expected: &[&str]| {
            let owe = |values: &mut Values, _: &dyn Fn(u64) -> Instant| {
                let oldest = values.started_at + SignedDuration::from_secs(1000 - seconds);
                let receiver = values.receivers.get_mut("on-call").unwrap();
                receiver.owed = count;
                receiver.oldest_owed_at = Some(oldest);
                receiver.last_error = Some("answered 503".to_owned());
                receiver.parked = vec!["0123456789abcdef: answered 400".to_owned()];
            };
            check(owe, expected);
        };
        let late = "receiver on-call: the oldest of 2 owed notifications has waited for 301 s \
                    (answered 503)";
        check_owed(2, 300, &[]);
        check_owed(2, 301, &[late]);
        check_owed(0, 301, &[]);
    }

    #[test]
    fn names_some_of_many() {
        let lines = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(cut(lines(MAX_REASONS_SHOWN)), lines(MAX_REASONS_SHOWN));
        let cut = cut(lines(MAX_REASONS_SHOWN + 5));
        assert_eq!((cut.len(), cut.last().unwrap().as_str()), (21, "and 5 more"));
    }
}
