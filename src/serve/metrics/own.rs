//! Families on Plimsoll itself: its loops, store, outbox, receivers, reloads, HTTP and process.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::Scrape;
use super::family::{Family, Sheet, counter, gauge, histogram};
use crate::health::ReceiverHealth;

const BUILD_INFO: Family = gauge("plimsoll_build_info", &["version"], "Always 1.");
const TARGETS: Family = gauge("plimsoll_targets", &[], "Servers under watch.");

const LOOP_LAST_TURN: Family = gauge(
    "plimsoll_loop_last_turn_timestamp_seconds",
    &["target"],
    "When the loop of a target last turned.",
);
const LOOP_RESTARTS: Family = counter(
    "plimsoll_loop_restarts_total",
    &["target"],
    "How often the loop of a target panicked and was started again.",
);
const OBSERVATIONS_REPLACED: Family = counter(
    "plimsoll_observations_replaced_total",
    &["target"],
    "Observations that a newer one replaced before the loop of their target took them.",
);
const LOOP_BLIND: Family = gauge(
    "plimsoll_loop_blind",
    &["target"],
    "1 if the loop of a target panicked so often that nobody watches the target.",
);

const STORE_DURABLE: Family = gauge(
    "plimsoll_store_durable",
    &[],
    "1 while commits reach the disk, 0 while pages go from memory.",
);
const STORE_COMMITS: Family =
    counter("plimsoll_store_commits_total", &[], "Transactions that reached the disk.");
const STORE_FAILURES: Family = counter(
    "plimsoll_store_commit_failures_total",
    &[],
    "Transactions that failed and are tried again.",
);
const STORE_WAITING: Family =
    gauge("plimsoll_store_waiting_changes", &[], "Changes that wait for the disk.");
const STORE_DROPPED: Family = counter(
    "plimsoll_store_dropped_changes_total",
    &[],
    "Changes that were dropped because too many waited for the disk.",
);
const STORE_SET_ASIDE: Family = counter(
    "plimsoll_store_set_aside_files_total",
    &[],
    "Files that were set aside as damaged or too new.",
);

const OUTBOX_DEPTH: Family =
    gauge("plimsoll_outbox_notifications", &["receiver"], "Notifications that are owed.");
const OUTBOX_OLDEST: Family = gauge(
    "plimsoll_outbox_oldest_timestamp_seconds",
    &["receiver"],
    "When the oldest notification that is owed was decided.",
);
const DELIVERIES: Family = counter(
    "plimsoll_deliveries_total",
    &["receiver", "outcome"],
    "Attempts to deliver a notification, by outcome.",
);
const DELIVERY_SECONDS: Family = histogram(
    "plimsoll_delivery_seconds",
    &["receiver"],
    "Time from the reading that made a trigger owed to its acceptance by the receiver.",
);
const RECEIVER_FAILING: Family = gauge(
    "plimsoll_receiver_failing",
    &["receiver"],
    "1 while the last delivery to a receiver failed.",
);

const RELOAD_OK: Family =
    gauge("plimsoll_reload_successful", &[], "1 if the last reload of settings succeeded.");
const RELOAD_AT: Family = gauge(
    "plimsoll_reload_timestamp_seconds",
    &[],
    "When settings were last reloaded, well or not; the start before the first.",
);
const RELOAD_FAILURES: Family =
    counter("plimsoll_reload_failures_total", &[], "Reloads that kept the old settings.");

const HTTP_REQUESTS: Family =
    counter("plimsoll_http_requests_total", &["route", "code"], "Requests that were answered.");
const HTTP_CONNECTIONS: Family =
    gauge("plimsoll_http_connections", &[], "Connections to this server.");
const HTTP_DROPPED: Family = counter(
    "plimsoll_http_dropped_connections_total",
    &["reason"],
    "Connections that this server closed to keep within its limits.",
);

const CPU: Family =
    counter("process_cpu_seconds_total", &[], "User and system CPU time of this process.");
const RESIDENT: Family =
    gauge("process_resident_memory_bytes", &[], "Memory that this process has in use.");
const VIRTUAL: Family =
    gauge("process_virtual_memory_bytes", &[], "Addresses that this process has in use.");
const OPEN_FDS: Family = gauge("process_open_fds", &[], "Open file descriptors.");
const MAX_FDS: Family = gauge("process_max_fds", &[], "How many file descriptors may be open.");
const THREADS: Family = gauge("process_threads", &[], "Threads of this process.");
const START: Family =
    gauge("process_start_time_seconds", &[], "When this process started, since 1970.");

/// Outcomes that every receiver shows from its first scrape on: a counter that appears with its
/// first count hides that one from `increase()`.
const OUTCOMES: [&str; 4] = ["delivered", "retried", "parked", "superseded"];

/// Everything on Plimsoll itself.
pub(super) fn write(sheet: &mut Sheet, scrape: &Scrape) {
    sheet.add(&BUILD_INFO, &[scrape.version], 1.0);
    sheet.add(&TARGETS, &[], scrape.targets.len() as f64);
    sheet.add(&START, &[], seconds(scrape.health.started_at));
    write_loops(sheet, scrape);
    write_store(sheet, scrape);
    for (name, receiver) in &scrape.health.receivers {
        write_receiver(sheet, name, receiver);
    }
    let reload = scrape.health.reload;
    sheet.add(&RELOAD_OK, &[], flag(reload.ok));
    sheet.add(&RELOAD_AT, &[], seconds(reload.at));
    sheet.add(&RELOAD_FAILURES, &[], reload.failures as f64);
    write_http(sheet, scrape);
    write_process(sheet, scrape);
}

fn write_loops(sheet: &mut Sheet, scrape: &Scrape) {
    for (target, watched) in &scrape.health.loops {
        let last_turn = seconds(on_the_wall(watched.last_turn, scrape));
        sheet.add(&LOOP_LAST_TURN, &[target], last_turn);
        sheet.add(&LOOP_RESTARTS, &[target], watched.restarts as f64);
        sheet.add(&OBSERVATIONS_REPLACED, &[target], watched.replaced as f64);
        sheet.add(&LOOP_BLIND, &[target], flag(watched.blind));
    }
}

fn write_store(sheet: &mut Sheet, scrape: &Scrape) {
    let store = &scrape.health.store;
    sheet.add(&STORE_DURABLE, &[], flag(store.volatile_since.is_none()));
    sheet.add(&STORE_COMMITS, &[], store.commits as f64);
    sheet.add(&STORE_FAILURES, &[], store.failures as f64);
    sheet.add(&STORE_WAITING, &[], store.waiting as f64);
    sheet.add(&STORE_DROPPED, &[], store.dropped as f64);
    sheet.add(&STORE_SET_ASIDE, &[], store.set_aside as f64);
}

fn write_receiver(sheet: &mut Sheet, name: &str, receiver: &ReceiverHealth) {
    sheet.add(&OUTBOX_DEPTH, &[name], receiver.owed as f64);
    if let Some(oldest) = receiver.oldest_owed_at {
        sheet.add(&OUTBOX_OLDEST, &[name], seconds(oldest));
    }
    for outcome in OUTCOMES {
        sheet.add(&DELIVERIES, &[name, outcome], 0.0);
    }
    for (outcome, attempts) in &receiver.attempts {
        sheet.add(&DELIVERIES, &[name, outcome], *attempts as f64);
    }
    sheet.observe(&DELIVERY_SECONDS, &[name], &receiver.delivery_seconds);
    sheet.add(&RECEIVER_FAILING, &[name], flag(receiver.last_error.is_some()));
}

fn write_http(sheet: &mut Sheet, scrape: &Scrape) {
    sheet.add(&HTTP_CONNECTIONS, &[], scrape.http.open as f64);
    for (reason, connections) in &scrape.http.dropped {
        sheet.add(&HTTP_DROPPED, &[reason], *connections as f64);
    }
    for ((route, code), answers) in &scrape.http.answered {
        sheet.add(&HTTP_REQUESTS, &[route, &code.to_string()], *answers as f64);
    }
}

fn write_process(sheet: &mut Sheet, scrape: &Scrape) {
    let Some(process) = &scrape.process else { return };
    sheet.add(&CPU, &[], process.cpu_seconds);
    sheet.add(&RESIDENT, &[], process.resident_bytes as f64);
    sheet.add(&VIRTUAL, &[], process.virtual_bytes as f64);
    sheet.add(&OPEN_FDS, &[], process.open_fds as f64);
    if let Some(most) = process.max_fds {
        sheet.add(&MAX_FDS, &[], most as f64);
    }
    sheet.add(&THREADS, &[], process.threads as f64);
}

/// A moment of the monotonic clock as the wall clock would have shown it.
fn on_the_wall(moment: Instant, scrape: &Scrape) -> Timestamp {
    let age = scrape.monotonic.saturating_duration_since(moment);
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    scrape.now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seconds since 1970.
pub(super) fn seconds(moment: Timestamp) -> f64 {
    moment.as_duration().as_secs_f64()
}

/// 1 for true.
pub(super) fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
