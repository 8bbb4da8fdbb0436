//! Families on the servers under watch.

use std::collections::BTreeMap;

use plimsoll_core::judge::source::POSTGRES;
use plimsoll_core::reading::postgres::{ConnectionLimit, DatabaseCounters, Observation};
use plimsoll_core::reading::{Part, Refusal};
use plimsoll_core::status::Published;

use super::Scrape;
use super::family::{Family, Sheet, counter, gauge};
use super::holders;
use super::own::{flag, seconds};
use crate::serve::limits::{MAX_BACKEND_TYPE_SERIES, MAX_DATABASE_SERIES, MAX_LIMIT_SERIES};
use crate::serve::soundness;

const SOURCE_UP: Family = gauge(
    "plimsoll_source_up",
    &["target", "source"],
    "1 if the last attempt to read a source succeeded.",
);
const SOURCE_FAILURE: Family = gauge(
    "plimsoll_source_failure",
    &["target", "source", "kind"],
    "1 for the way in which the last attempt to read a source failed.",
);
const SOURCE_LAST_SUCCESS: Family = gauge(
    "plimsoll_source_last_success_timestamp_seconds",
    &["target", "source"],
    "When a source was last read well.",
);
const SOURCE_FALLBACK: Family = gauge(
    "plimsoll_source_fallback",
    &["target", "source"],
    "1 while a source is read over a replication connection, for want of an ordinary one.",
);
const READINGS: Family = counter(
    "plimsoll_readings_total",
    &["target", "outcome"],
    "Readings, by whether the server could be read and why not.",
);
const LOGINS_REFUSED: Family = counter(
    "plimsoll_logins_refused_total",
    &["target", "reason"],
    "Logins that were seen to be refused for want of a connection.",
);

const SLOTS_MAX: Family = gauge("plimsoll_slots_max", &["target"], "max_connections.");
const SLOTS_RESERVED: Family = gauge(
    "plimsoll_slots_reserved",
    &["target"],
    "superuser_reserved_connections and reserved_connections together.",
);
const SLOTS_USABLE: Family =
    gauge("plimsoll_slots_usable", &["target"], "Slots that ordinary roles can use.");
const SLOTS_USED: Family = gauge("plimsoll_slots_used", &["target"], "Client backends.");
const SLOTS_FREE: Family = gauge(
    "plimsoll_slots_free",
    &["target"],
    "Logins that an ordinary role can still make; negative while reserved slots are in use.",
);
const SLOTS_UTILIZATION: Family =
    gauge("plimsoll_slots_utilization_ratio", &["target"], "Used slots over usable ones.");
const SLOTS_MARK: Family = gauge(
    "plimsoll_slots_mark",
    &["target", "severity"],
    "Used slots above which the rule slots is crossed.",
);

const LONGEST_IN_STATE: Family = gauge(
    "plimsoll_longest_in_state_seconds",
    &["target", "state"],
    "How long the connection that is in a state for longest has been in it.",
);
const SERVER_INFO: Family = gauge("plimsoll_server_info", &["target", "version"], "Always 1.");
const SERVER_START: Family =
    gauge("plimsoll_server_start_timestamp_seconds", &["target"], "When the server was started.");
const IN_RECOVERY: Family =
    gauge("plimsoll_server_in_recovery", &["target"], "1 if the server is a standby.");
const COUNTERS_AGE: Family = gauge(
    "plimsoll_database_counters_age_seconds",
    &["target"],
    "How long ago the counters of databases were read.",
);

const POLL: Family =
    gauge("plimsoll_poll_seconds", &["target"], "How long the last poll took, as we saw it.");
const POLL_SERVER: Family = gauge(
    "plimsoll_poll_server_seconds",
    &["target"],
    "How long the statements of the last poll ran on the server.",
);
const POLL_PROCESSOR: Family = gauge(
    "plimsoll_poll_processor_seconds",
    &["target"],
    "What the last poll took of a processor of the server, if that is this host.",
);
const POLL_BUDGET: Family = gauge(
    "plimsoll_poll_budget_ratio",
    &["target"],
    "Part of one server core that polls may use at present.",
);
const POLL_INTERVAL: Family = gauge(
    "plimsoll_poll_interval_seconds",
    &["target"],
    "Time from the beginning of the last poll to the next.",
);

const ALERT_STATE: Family = gauge(
    "plimsoll_alert_state",
    &["target", "rule", "subject", "severity", "state"],
    "1 for every alert that is pending or firing.",
);
const INCIDENT_OPEN: Family = gauge(
    "plimsoll_incident_open",
    &["target", "severity"],
    "1 if an incident of this severity is open.",
);

const CONNECTIONS: Family = gauge(
    "plimsoll_connections",
    &["target", "application", "role", "database", "state"],
    "Client backends by who holds them; the sum is plimsoll_slots_used.",
);
const WAITING_FOR_LOCK: Family = gauge(
    "plimsoll_connections_waiting_for_lock",
    &["target", "application", "role", "database", "state"],
    "Client backends that wait for a heavyweight lock.",
);
const ADDRESS_CONNECTIONS: Family = gauge(
    "plimsoll_address_connections",
    &["target", "address"],
    "Client backends by the client's address; the sum is plimsoll_slots_used.",
);
const OTHER_BACKENDS: Family = gauge(
    "plimsoll_other_backends",
    &["target", "backend_type"],
    "Backends that hold no client slot.",
);

const ROLE_MAX: Family = gauge(
    "plimsoll_role_connections_max",
    &["target", "role"],
    "CONNECTION LIMIT of a role that has one.",
);
const ROLE_USED: Family = gauge(
    "plimsoll_role_connections_used",
    &["target", "role"],
    "Connections that count towards the CONNECTION LIMIT of a role.",
);
const DATABASE_MAX: Family = gauge(
    "plimsoll_database_connections_max",
    &["target", "database"],
    "CONNECTION LIMIT of a database that has one.",
);
const DATABASE_USED: Family = gauge(
    "plimsoll_database_connections_used",
    &["target", "database"],
    "Connections that count towards the CONNECTION LIMIT of a database.",
);

/// What is counted a database.
type Count = fn(&DatabaseCounters) -> Option<i64>;

const COUNTERS: [(Family, Count); 7] = [
    (
        of_database("plimsoll_database_commits_total", "Committed transactions, ours included."),
        |database| Some(database.commits),
    ),
    (of_database("plimsoll_database_rollbacks_total", "Rolled back transactions."), |database| {
        Some(database.rollbacks)
    }),
    (of_database("plimsoll_database_deadlocks_total", "Deadlocks."), |database| {
        Some(database.deadlocks)
    }),
    (of_database("plimsoll_database_sessions_total", "Sessions that began."), |database| {
        database.sessions
    }),
    (
        of_database(
            "plimsoll_database_sessions_abandoned_total",
            "Sessions that ended because the client was lost.",
        ),
        |database| database.sessions_abandoned,
    ),
    (
        of_database("plimsoll_database_sessions_fatal_total", "Sessions that a fatal error ended."),
        |database| database.sessions_fatal,
    ),
    (
        of_database("plimsoll_database_sessions_killed_total", "Sessions that an operator ended."),
        |database| database.sessions_killed,
    ),
];

const fn of_database(name: &'static str, help: &'static str) -> Family {
    counter(name, &["target", "database"], help)
}

/// What is few whatever the server holds.
pub(super) fn write_small(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    write_sources(sheet, scrape, published);
    for (outcome, readings) in &published.readings_total {
        sheet.add(&READINGS, &[target, outcome], *readings as f64);
    }
    // All from the first scrape on, so that `increase()` sees the first refusal.
    for reason in Refusal::OF_LOGINS {
        let refused = published.refused_total.get(&reason).copied().unwrap_or(0);
        sheet.add(&LOGINS_REFUSED, &[target, reason.word()], refused as f64);
    }
    write_alerts(sheet, published);
    if let Some(seen) = seen_now(scrape, published) {
        write_server(sheet, target, seen);
        for (severity, mark) in &published.slots_marks {
            sheet.add(&SLOTS_MARK, &[target, severity.word()], *mark);
        }
    }
}

/// What grows with the server: holders, addresses, databases, limits.
pub(super) fn write_large(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    let Some(seen) = seen_now(scrape, published) else { return };
    let (shown, rest) = holders::holders(&seen.groups);
    for (holder, held) in &shown {
        let state = holder.state.word();
        let labels = [target, &holder.application, &holder.role, &holder.database, state];
        sheet.add(&CONNECTIONS, &labels, held.connections as f64);
        sheet.add(&WAITING_FOR_LOCK, &labels, held.waiting_for_lock as f64);
    }
    sheet.left_out(&CONNECTIONS, rest);
    sheet.left_out(&WAITING_FOR_LOCK, rest);
    write_counts(sheet, &ADDRESS_CONNECTIONS, target, holders::addresses(&seen.groups));
    let mut backends: BTreeMap<String, u64> = BTreeMap::new();
    for backend in &seen.other_backends {
        *backends.entry(backend.backend_type.clone()).or_default() += u64::from(backend.count);
    }
    let backends = holders::cut(backends, MAX_BACKEND_TYPE_SERIES);
    write_counts(sheet, &OTHER_BACKENDS, target, backends);
    write_limits(sheet, [&ROLE_MAX, &ROLE_USED], target, &seen.role_limits);
    write_limits(sheet, [&DATABASE_MAX, &DATABASE_USED], target, &seen.database_limits);
    write_databases(sheet, target, seen.known_counters());
}

/// What the server said, as far as it speaks of now.
fn seen_now<'a>(scrape: &Scrape, published: &'a Published) -> Option<&'a Observation> {
    let part = &published.reading.as_ref()?.postgres;
    part.known().filter(|_| is_of_now(scrape, published, part))
}

/// Whether a part of the newest reading speaks of now: it ages while the loop stands still.
pub(super) fn is_of_now<T>(scrape: &Scrape, published: &Published, part: &Part<T>) -> bool {
    let Some(watched) = scrape.health.loops.get(&published.status.name) else { return false };
    let since = scrape.monotonic.saturating_duration_since(watched.last_turn);
    part.age.saturating_add(since) <= part.stale_after
}

fn write_sources(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    let watched = scrape.health.loops.get(target);
    let is_read = watched.is_some_and(|it| !soundness::is_stalled(it, scrape.monotonic));
    for source in &published.status.sources {
        let name = source.source.as_str();
        let is_up = source.state == "ok";
        // Nobody has looked for a while, or it has left nothing yet: neither up nor down.
        if is_read && source.state != "unread" {
            sheet.add(&SOURCE_UP, &[target, name], flag(is_up));
            if is_up && name == POSTGRES {
                let is_fallback = source.fallback.is_some();
                sheet.add(&SOURCE_FALLBACK, &[target, name], flag(is_fallback));
            }
            if !is_up {
                sheet.add(&SOURCE_FAILURE, &[target, name, &source.state], 1.0);
            }
        }
        if let Some(at) = source.last_success_at {
            sheet.add(&SOURCE_LAST_SUCCESS, &[target, name], seconds(at));
        }
    }
}

fn write_alerts(sheet: &mut Sheet, published: &Published) {
    let status = &published.status;
    for alert in &status.alerts {
        let labels = [&status.name, &alert.rule, &alert.subject, &alert.severity, &alert.state];
        sheet.add(&ALERT_STATE, &labels.map(String::as_str), 1.0);
    }
    if status.read_at.is_none() {
        return;
    }
    for severity in ["warning", "critical"] {
        let open = status.incident.as_ref().is_some_and(|it| it.severity == severity);
        sheet.add(&INCIDENT_OPEN, &[&status.name, severity], flag(open));
    }
}

fn write_server(sheet: &mut Sheet, target: &str, seen: &Observation) {
    let slots = seen.slots();
    sheet.add(&SLOTS_MAX, &[target], f64::from(slots.max));
    sheet.add(&SLOTS_RESERVED, &[target], f64::from(slots.reserved));
    sheet.add(&SLOTS_USABLE, &[target], f64::from(slots.usable));
    sheet.add(&SLOTS_USED, &[target], f64::from(slots.used));
    sheet.add(&SLOTS_FREE, &[target], slots.free as f64);
    sheet.add(&SLOTS_UTILIZATION, &[target], slots.utilization);
    let mut longest = BTreeMap::new();
    for group in &seen.groups {
        let seconds: &mut f64 = longest.entry(group.state).or_default();
        *seconds = seconds.max(group.longest_seconds);
    }
    for (state, seconds) in longest {
        sheet.add(&LONGEST_IN_STATE, &[target, state.word()], seconds);
    }
    sheet.add(&SERVER_INFO, &[target, &seen.server.version], 1.0);
    sheet.add(&SERVER_START, &[target], seconds(seen.server.started_at));
    sheet.add(&IN_RECOVERY, &[target], flag(seen.server.in_recovery));
    if !seen.counters.is_empty() {
        sheet.add(&COUNTERS_AGE, &[target], seen.counters_age.as_secs_f64());
    }
    sheet.add(&POLL, &[target], seen.cost.poll_seconds);
    sheet.add(&POLL_SERVER, &[target], seen.cost.server_seconds);
    if let Some(seconds) = seen.cost.processor_seconds {
        sheet.add(&POLL_PROCESSOR, &[target], seconds);
    }
    sheet.add(&POLL_BUDGET, &[target], seen.cost.budget_ratio);
    sheet.add(&POLL_INTERVAL, &[target], seen.cost.next_after_seconds);
}

fn write_counts(
    sheet: &mut Sheet,
    family: &Family,
    target: &str,
    (shown, rest): (BTreeMap<String, u64>, usize),
) {
    for (name, count) in &shown {
        sheet.add(family, &[target, name], *count as f64);
    }
    sheet.left_out(family, rest);
}

fn write_limits(
    sheet: &mut Sheet,
    [most, used]: [&Family; 2],
    target: &str,
    limits: &[ConnectionLimit],
) {
    let mut fullest: Vec<&ConnectionLimit> = limits.iter().collect();
    let full = |limit: &ConnectionLimit| f64::from(limit.used) / f64::from(limit.limit.max(1));
    fullest.sort_by(|a, b| full(b).total_cmp(&full(a)).then_with(|| a.name.cmp(&b.name)));
    for limit in fullest.iter().take(MAX_LIMIT_SERIES) {
        sheet.add(most, &[target, &limit.name], f64::from(limit.limit));
        sheet.add(used, &[target, &limit.name], f64::from(limit.used));
    }
    let rest = fullest.len().saturating_sub(MAX_LIMIT_SERIES);
    sheet.left_out(most, rest);
    sheet.left_out(used, rest);
}

/// Counters of the databases with the most transactions. There is no `other` here: a database
/// that leaves a sum makes it fall, and a counter that falls reads as a reset, that is as a burst
/// of everything it has ever counted.
fn write_databases(sheet: &mut Sheet, target: &str, counters: &[DatabaseCounters]) {
    let mut busiest: Vec<&DatabaseCounters> = counters.iter().collect();
    let transactions = |it: &DatabaseCounters| it.commits.saturating_add(it.rollbacks);
    busiest.sort_by(|a, b| {
        transactions(b).cmp(&transactions(a)).then_with(|| a.database.cmp(&b.database))
    });
    let shown = busiest.len().min(MAX_DATABASE_SERIES);
    let (shown, rest) = busiest.split_at(shown);
    for (family, count) in &COUNTERS {
        for database in shown {
            if let Some(count) = count(database) {
                sheet.add(family, &[target, &database.database], count as f64);
            }
        }
        sheet.left_out(family, rest.iter().filter(|database| count(database).is_some()).count());
    }
}
