//! What is good and bad about a target's other sources: findings from one reading of them. Pure;
//! they are read by `beside`.

use std::collections::BTreeSet;
use std::time::Duration;

use plimsoll_core::judge::look::Look;
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::rule::overcommit::demand;
use plimsoll_core::judge::source::{LOG, Sources};
use plimsoll_core::reading::app_pool::{Instance, Max, Pool};
use plimsoll_core::reading::pooler::{Reach, Scope};
use plimsoll_core::reading::probe::Steps;
use plimsoll_core::reading::{Failure, FailureKind, Reading, Refusal};
use plimsoll_core::reading::{app_pool, log, pooler, probe};

use super::finding::Finding;
use crate::collect::postgres::inspect::Inspection;

/// So many pools, or instances in trouble, of an application are named; the rest are counted.
const NAMED: usize = 5;

/// What there is to say of them; `server` is what was seen of the server, if anything was.
pub(super) fn find(
    reading: &Reading,
    sources: &Sources,
    server: Option<&Inspection>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(log) = &reading.log {
        findings.extend(match &log.part.seen {
            Ok(seen) => of_log(seen, server),
            Err(failure) => vec![unread(LOG, "", failure)],
        });
    }
    for one in &reading.probes {
        findings.push(match &one.part.seen {
            Ok(seen) => of_probe(&one.name, seen),
            Err(failure) => unread("probe", &one.name, failure),
        });
    }
    for one in &reading.poolers {
        findings.push(match &one.part.seen {
            Ok(seen) => of_pooler(&one.name, seen),
            Err(failure) => unread("pooler", &one.name, failure),
        });
    }
    for one in &reading.app_pools {
        match &one.part.seen {
            Ok(seen) => findings.extend(of_application(&one.name, seen)),
            Err(failure) => findings.push(unread("app_pool", &one.name, failure)),
        }
    }
    findings.extend(overcommit(reading, sources, server));
    findings
}

/// A source that gave nothing. Its own advice stands behind `hint:`.
fn unread(check: &'static str, name: &str, failure: &Failure) -> Finding {
    let (text, advice) = match failure.text.split_once("hint: ") {
        Some((text, advice)) => (text.trim_end_matches([' ', ';']), Some(advice)),
        None => (failure.text.as_str(), None),
    };
    let finding = Finding::wrong(check, named(name, text));
    match advice {
        Some(advice) => finding.hint(advice),
        None => finding,
    }
}

/// The one log has no name.
fn named(name: &str, text: &str) -> String {
    if name.is_empty() { text.to_owned() } else { format!("{name}: {text}") }
}

fn of_log(seen: &log::Observation, server: Option<&Inspection>) -> Vec<Finding> {
    let file = &seen.file;
    let mut findings = vec![match seen.format {
        None => Finding::ok(
            LOG,
            format!("{file} is followed; it is empty, and its first line will tell its format"),
        ),
        Some(format) if seen.tells_names => {
            Finding::ok(LOG, format!("{file} is followed, as {}", format.word()))
        }
        Some(format) => Finding::warning(
            LOG,
            format!(
                "{file} is followed, as {}; what stands before its lines is not known, so that \
                 nothing tells whom they are about",
                format.word()
            ),
        )
        .hint("once the server can be asked for log_line_prefix this ends; `line_prefix` sets it"),
    }];
    findings.extend(server.into_iter().flat_map(unwritten));
    findings
}

/// What the server keeps out of its log. Its settings are those of our session, of which no other
/// has them differently unless somebody made it so.
fn unwritten(server: &Inspection) -> Vec<Finding> {
    let value = |name: &str| server.settings.get(name).map_or("", |setting| setting.value.as_str());
    let mut findings = Vec::new();
    // In the order of what is written: ERROR, LOG, FATAL, PANIC (elog.c, `is_log_level_output`).
    let hidden = match value("log_min_messages") {
        "log" => Some("errors and deadlocks"),
        "fatal" => Some("errors, deadlocks, waits for locks and slow statements"),
        "panic" => Some("refused logins, and nearly everything else,"),
        _ => None,
    };
    if let Some(hidden) = hidden {
        let text =
            format!("log_min_messages is {}: {hidden} are not in it", value("log_min_messages"));
        findings.push(mended_by(text, "ALTER SYSTEM SET log_min_messages = 'warning';"));
    }
    let language = value("lc_messages");
    let is_english = ["", "C", "POSIX"].contains(&language)
        || language.starts_with("en")
        || language.starts_with("C.");
    if !is_english {
        let text = format!(
            "lc_messages is {language}: waits for locks, timeouts, slow statements and crashes are \
             told in English only"
        );
        findings.push(mended_by(text, "ALTER SYSTEM SET lc_messages = 'C';"));
    }
    if value("log_lock_waits") == "off" {
        let text = "log_lock_waits is off: waits for locks are not in it";
        findings.push(mended_by(text, "ALTER SYSTEM SET log_lock_waits = on;"));
    }
    findings
}

/// Something that is not in the log, and the setting that puts it there.
fn mended_by(text: impl Into<String>, statement: &str) -> Finding {
    Finding::warning(LOG, text).run(statement).run("SELECT pg_reload_conf();")
}

fn of_probe(name: &str, seen: &probe::Observation) -> Finding {
    const CHECK: &str = "probe";
    let steps = shown(&seen.newest.steps);
    match &seen.newest.outcome {
        Ok(()) => Finding::ok(CHECK, format!("{name}: it gets in; {steps}")),
        Err(failure) => {
            let finding = unread(CHECK, name, failure);
            match advice(failure.kind) {
                Some(advice) if finding.hint.is_none() => finding.hint(advice),
                _ => finding,
            }
        }
    }
}

/// What a person can do about a login that fails.
fn advice(kind: FailureKind) -> Option<&'static str> {
    Some(match kind {
        FailureKind::Refused(Refusal::LoginsUnderWay) => {
            "too many logins are under way, though slots may be free: look for what holds them up \
             (a lock on pg_authid or pg_database, LDAP, connections that say nothing); \
             max_connections is not the cause"
        }
        FailureKind::Refused(Refusal::PoolerClients) => {
            "the pooler takes no more clients: max_client_conn, or its limits for the database or \
             the user"
        }
        FailureKind::Refused(Refusal::PoolerWait) => {
            "the pooler has no connection to give: SHOW POOLS says which pool is short, SHOW \
             SERVERS what its servers do"
        }
        FailureKind::Refused(Refusal::RoleLimit) => "the role's CONNECTION LIMIT is used up",
        FailureKind::Refused(Refusal::DatabaseLimit) => {
            "the database's CONNECTION LIMIT is used up"
        }
        FailureKind::NotAllowed => "password, certificate, pg_hba.conf and the role decide this",
        FailureKind::TooSlow => "nobody answers it in time: an application would hang as well",
        _ => return None,
    })
}

/// The steps that it came to, e.g. `connect 0.4 ms, authentication 6.1 ms, first answer 0.3 ms`.
fn shown(steps: &Steps) -> String {
    let Steps { connect, tls, authentication, first_answer } = *steps;
    let steps = [
        ("connect", connect),
        ("TLS", tls),
        ("authentication", authentication),
        ("first answer", first_answer),
    ];
    let step = |(step, took): (&str, Option<Duration>)| {
        Some(format!("{step} {:.1} ms", took?.as_secs_f64() * 1_000.0))
    };
    steps.into_iter().filter_map(step).collect::<Vec<_>>().join(", ")
}

fn of_pooler(name: &str, seen: &pooler::Observation) -> Finding {
    const CHECK: &str = "pooler";
    let servers = match seen.lookup().reachable() {
        Reach::AtMost(servers) if !seen.pools.is_empty() => {
            format!(", which may open {servers} connections together")
        }
        Reach::Unlimited => ", which may open any number of connections".to_owned(),
        Reach::AtMost(_) | Reach::Unknown => String::new(),
    };
    let slots = seen.client_slots().into_iter().find(|slots| slots.scope == Scope::Pooler);
    let clients = slots.map_or(String::new(), |slots| {
        format!("; {} of {} client slots are taken", slots.used, slots.max)
    });
    let pools = seen.pools.len();
    let text = format!("{name}: {}, pools: {pools}{servers}{clients}", seen.version);
    if seen.paused == Some(true) {
        return Finding::warning(CHECK, format!("{text}; it is paused: nobody gets a connection"))
            .hint("RESUME, at its console");
    }
    let finding = Finding::ok(CHECK, text);
    if seen.refused.is_empty() {
        return finding;
    }
    let refused = seen.refused.join(", ");
    finding.hint(format!("it does not know or allow {refused}: what they would say is unknown"))
}

fn of_application(name: &str, seen: &app_pool::Observation) -> Vec<Finding> {
    const CHECK: &str = "app_pool";
    let mut findings = Vec::new();
    let well: Vec<&[Pool]> =
        seen.instances.iter().filter_map(|one| one.pools.as_deref().ok()).collect();
    let (all, answered) = (seen.instances.len(), well.len());
    if all == 0 {
        let text = format!("{name}: no instance is listed");
        findings.push(Finding::warning(CHECK, text).hint("`scrape` or `file_sd` names them"));
    } else if 0 < answered {
        let pools: BTreeSet<String> = well.iter().copied().flatten().map(of_pool).collect();
        let pools = cut(pools.into_iter().collect());
        findings.push(Finding::ok(
            CHECK,
            format!("{name}: {answered} of {all} instances show {pools}"),
        ));
    }
    let failed = |one: &Instance| {
        let failure = one.pools.as_ref().err()?;
        Some(format!("{}: {}", one.address, failure.text))
    };
    let failed: Vec<String> = seen.instances.iter().filter_map(failed).collect();
    if !failed.is_empty() {
        let text = format!("{name}: {} of {all} instances do not: {}", failed.len(), cut(failed));
        findings.push(Finding::warning(CHECK, text));
    }
    if let Some(failure) = &seen.list {
        let text = format!("{name}: the list of instances is an earlier one: {}", failure.text);
        findings.push(Finding::warning(CHECK, text));
    }
    findings
}

/// e.g. `HikariPool-1 (hikaricp_micrometer, at most 10)`.
fn of_pool(pool: &Pool) -> String {
    let name = if pool.name.is_empty() { "a pool" } else { &pool.name };
    let max = match pool.max {
        Max::Of(max) => format!("at most {max}"),
        Max::Unlimited => "without a bound".to_owned(),
        Max::Unknown => "its bound is not shown".to_owned(),
    };
    format!("{name} ({}, {max})", pool.preset)
}

fn cut(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    let shown = all.join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// Whether those who connect may open more than there is, where any of them is known.
fn overcommit(
    reading: &Reading,
    sources: &Sources,
    server: Option<&Inspection>,
) -> Option<Finding> {
    const CHECK: &str = "overcommit";
    let usable = server?.slots.as_ref().ok()?.usable;
    let memory = Memory::default();
    let demand = demand(&Look::new(reading, &memory, sources));
    if demand.parts.is_empty() && demand.unbounded.is_empty() {
        return None;
    }
    let text = demand.words(usable);
    Some(match demand.exceeds(usable) {
        Some(true) => Finding::warning(CHECK, text)
            .hint("let applications share a pooler, or make their pools smaller"),
        Some(false) => Finding::ok(CHECK, text),
        None => Finding::ok(CHECK, format!("{text}, as far as it is known")),
    })
}
