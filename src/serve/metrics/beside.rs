//! Families on the sources beside the server: pools of poolers and applications, probes, the log,
//! and where connections run out.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_core::judge::bottleneck::Bottleneck;
use plimsoll_core::judge::pool::{Keeper, PoolState};
use plimsoll_core::judge::source;
use plimsoll_core::reading::Part;
use plimsoll_core::reading::app_pool::Max;
use plimsoll_core::reading::pooler::{Counters, Scope};
use plimsoll_core::status::{Published, outcome};

use super::Scrape;
use super::family::{Family, Sheet, counter, gauge};
use super::holders::OTHER;
use super::own::flag;
use super::target::is_of_now;
use crate::serve::limits::{MAX_DATABASE_SERIES, MAX_POOL_SERIES, MAX_SCOPE_SERIES};
use crate::serve::soundness;

const BOTTLENECK: Family = gauge(
    "plimsoll_bottleneck",
    &["target", "bottleneck"],
    "1 for the place where connections run out, 0 for the others.",
);
const SOURCE_AGE: Family = gauge(
    "plimsoll_source_age_seconds",
    &["target", "source"],
    "How long ago a source left what it left last.",
);

const IN_USE: Family =
    pool("plimsoll_pool_connections_in_use", "Connections of a pool that are lent out.");
const IDLE: Family =
    pool("plimsoll_pool_connections_idle", "Connections of a pool that are open and not lent out.");
const MAX: Family = pool("plimsoll_pool_connections_max", "The most that a pool may open.");
const WAITING: Family = pool("plimsoll_pool_waiting", "Who waits for a connection of a pool.");
const WAIT: Family = pool(
    "plimsoll_pool_wait_seconds",
    "How long the longest waits (poolers), or those who had to waited on average (applications).",
);
const TIMEOUTS: Family = counter(
    "plimsoll_pool_timeouts_total",
    &["target", "source", "pool"],
    "Those who gave up waiting for a connection of an application's pool.",
);
const INSTANCES: Family =
    pool("plimsoll_pool_instances", "Instances of an application that tell of a pool.");
const LEFT_OUT: Family = gauge(
    "plimsoll_pools_left_out",
    &["target"],
    "Pools of applications' instances whose counters are not followed for want of room.",
);

const CLIENTS: Family = gauge(
    "plimsoll_pooler_clients",
    &["target", "source", "scope", "name"],
    "Clients of a pooler that has a limit for them.",
);
const CLIENTS_MAX: Family = gauge(
    "plimsoll_pooler_clients_max",
    &["target", "source", "scope", "name"],
    "The most clients that a pooler lets in.",
);
const PAUSED: Family =
    gauge("plimsoll_pooler_paused", &["target", "source"], "1 while a pooler is paused.");
const SERVER_LOGINS: Family = gauge(
    "plimsoll_pooler_server_logins",
    &["target", "source"],
    "Logins of a pooler at its servers that are under way.",
);
const TRANSACTIONS: Family = of_pooler("plimsoll_pooler_transactions_total", "Transactions.");
const STATEMENTS: Family = of_pooler("plimsoll_pooler_statements_total", "Statements.");
const WAITED: Family = of_pooler(
    "plimsoll_pooler_waited_seconds_total",
    "How long clients waited for a server, counted once they have one.",
);
const ASSIGNMENTS: Family =
    of_pooler("plimsoll_pooler_assignments_total", "How often a server was given to a client.");
const LOOK: Family = gauge(
    "plimsoll_pooler_look_seconds",
    &["target", "source"],
    "How long the last look at the console of a pooler took.",
);

const PROBE_OUTCOME: Family = gauge(
    "plimsoll_probe_outcome",
    &["target", "source", "outcome"],
    "1 for how the newest login of a probe went.",
);
const PROBE_STEP: Family = gauge(
    "plimsoll_probe_step_seconds",
    &["target", "source", "step"],
    "How long a step of the newest login of a probe took.",
);
const PROBE_LOGINS: Family = counter(
    "plimsoll_probe_logins_total",
    &["target", "source", "outcome"],
    "Logins of a probe, by how they went.",
);

const LOG_LINES: Family = counter(
    "plimsoll_log_lines_total",
    &["target", "kind", "database"],
    "Lines of the server's log, by what they say and the database that they are about.",
);
const LOG_SKIPPED: Family = counter(
    "plimsoll_log_skipped_bytes_total",
    &["target"],
    "What was passed over of the server's log, because more was written than can be read in time.",
);
const LOG_BEHIND: Family = gauge(
    "plimsoll_log_behind_bytes",
    &["target"],
    "What the server's log holds that is not read yet.",
);

const fn of_pooler(name: &'static str, help: &'static str) -> Family {
    counter(name, &["target", "source", "database"], help)
}

const fn pool(name: &'static str, help: &'static str) -> Family {
    gauge(name, &["target", "source", "pool"], help)
}

/// What is few, whatever the sources hold.
pub(super) fn write_small(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    let watched = scrape.health.loops.get(target);
    if watched.is_some_and(|it| !soundness::is_stalled(it, scrape.monotonic)) {
        if let Some(found) = &published.status.bottleneck {
            for at in Bottleneck::ALL {
                sheet.add(&BOTTLENECK, &[target, at.word()], flag(at.word() == found.at));
            }
        }
        write_ages(sheet, scrape, published);
    }
    write_log(sheet, scrape, published);
    for ((probe, outcome), logins) in &published.probe_logins_total {
        sheet.add(&PROBE_LOGINS, &[target, &source::of_probe(probe), outcome], *logins as f64);
    }
    write_probes(sheet, scrape, published);
    if published.pools_left_out > 0 {
        sheet.add(&LEFT_OUT, &[target], f64::from(published.pools_left_out));
    }
}

/// What grows with poolers and applications.
pub(super) fn write_large(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    write_poolers(sheet, scrape, published);
    let Some(reading) = &published.reading else { return };
    let poolers = reading.poolers.iter().filter(|it| is_now(scrape, published, &it.part));
    let poolers = poolers.map(|it| source::of_pooler(&it.name));
    let app_pools = reading.app_pools.iter().filter(|it| is_now(scrape, published, &it.part));
    let known: Vec<String> =
        poolers.chain(app_pools.map(|it| source::of_app_pool(&it.name))).collect();
    let is_pool = |pool: &&PoolState| pool.keeper != Keeper::ClientSlots;
    let of_now = |pool: &&PoolState| known.contains(&pool.name.source);
    let pools: Vec<&PoolState> = published.pools.iter().filter(is_pool).filter(of_now).collect();
    write_pools(sheet, target, pools);
    // A counter: it has no sum of others, see `write_databases`.
    let mut counted: Vec<_> = published.timeouts_total.iter().collect();
    counted.sort_by_key(|(_, timeouts)| Reverse(**timeouts));
    for (name, timeouts) in counted.iter().take(MAX_POOL_SERIES) {
        sheet.add(&TIMEOUTS, &[target, &name.source, name.pool()], **timeouts as f64);
    }
    sheet.left_out(&TIMEOUTS, counted.len().saturating_sub(MAX_POOL_SERIES));
}

fn is_now<T>(scrape: &Scrape, published: &Published, part: &Part<T>) -> bool {
    part.known().is_some() && is_of_now(scrape, published, part)
}

fn write_ages(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    let Some(watched) = scrape.health.loops.get(target) else { return };
    let since = scrape.monotonic.saturating_duration_since(watched.last_turn).as_secs_f64();
    for source in &published.status.sources {
        if let Some(age) = source.age_seconds {
            sheet.add(&SOURCE_AGE, &[target, &source.source], age + since);
        }
    }
}

fn write_log(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    for ((kind, database), lines) in published.log.by_database() {
        sheet.add(&LOG_LINES, &[target, kind, database], lines as f64);
    }
    let Some(log) = published.reading.as_ref().and_then(|reading| reading.log.as_ref()) else {
        return;
    };
    sheet.add(&LOG_SKIPPED, &[target], published.log.skipped_bytes() as f64);
    if let Some(seen) = log.part.known().filter(|_| is_of_now(scrape, published, &log.part)) {
        sheet.add(&LOG_BEHIND, &[target], seen.behind_bytes as f64);
    }
}

fn write_probes(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    for probe in published.reading.iter().flat_map(|reading| &reading.probes) {
        let Some(seen) = probe.part.known().filter(|_| is_of_now(scrape, published, &probe.part))
        else {
            continue;
        };
        let name = source::of_probe(&probe.name);
        sheet.add(&PROBE_OUTCOME, &[target, &name, outcome(seen)], 1.0);
        let steps = seen.newest.steps;
        let steps = [
            ("connect", steps.connect),
            ("tls", steps.tls),
            ("authentication", steps.authentication),
            ("first_answer", steps.first_answer),
        ];
        for (step, took) in steps {
            if let Some(took) = took {
                sheet.add(&PROBE_STEP, &[target, &name, step], took.as_secs_f64());
            }
        }
    }
}

fn write_poolers(sheet: &mut Sheet, scrape: &Scrape, published: &Published) {
    let target = published.status.name.as_str();
    for pooler in published.reading.iter().flat_map(|reading| &reading.poolers) {
        let Some(seen) = pooler.part.known().filter(|_| is_of_now(scrape, published, &pooler.part))
        else {
            continue;
        };
        let name = source::of_pooler(&pooler.name);
        sheet.add(&LOOK, &[target, &name], seen.seconds);
        if let Some(paused) = seen.paused {
            sheet.add(&PAUSED, &[target, &name], flag(paused));
        }
        if let Some(logins) = seen.server_logins() {
            sheet.add(&SERVER_LOGINS, &[target, &name], f64::from(logins));
        }
        write_counters(sheet, [target, &name], &seen.counters);
        let mut slots = seen.client_slots();
        slots.sort_by(|a, b| b.utilization().total_cmp(&a.utilization()));
        for one in slots.iter().take(MAX_SCOPE_SERIES) {
            let (scope, of) = match &one.scope {
                Scope::Pooler => ("pooler", ""),
                Scope::Database(database) => ("database", database.as_str()),
                Scope::User(user) => ("user", user.as_str()),
            };
            sheet.add(&CLIENTS, &[target, &name, scope, of], f64::from(one.used));
            sheet.add(&CLIENTS_MAX, &[target, &name, scope, of], f64::from(one.max));
        }
        let rest = slots.len().saturating_sub(MAX_SCOPE_SERIES);
        sheet.left_out(&CLIENTS, rest);
        sheet.left_out(&CLIENTS_MAX, rest);
    }
}

/// What the databases with the most transactions counted. As with those of the server there is no
/// sum of the others.
fn write_counters(sheet: &mut Sheet, [target, pooler]: [&str; 2], counters: &[Counters]) {
    let mut busiest: Vec<&Counters> = counters.iter().collect();
    busiest.sort_by_key(|counted| Reverse(counted.transactions));
    let shown = busiest.len().min(MAX_DATABASE_SERIES);
    for counted in &busiest[..shown] {
        let counts = [
            (&TRANSACTIONS, counted.transactions.map(|n| n as f64)),
            (&STATEMENTS, counted.queries.map(|n| n as f64)),
            (&WAITED, counted.wait_micros.map(|us| us as f64 / 1e6)),
            (&ASSIGNMENTS, counted.server_assignments.map(|n| n as f64)),
        ];
        for (family, count) in counts {
            if let Some(count) = count {
                sheet.add(family, &[target, pooler, &counted.database], count);
            }
        }
    }
    for family in [&TRANSACTIONS, &STATEMENTS, &WAITED, &ASSIGNMENTS] {
        sheet.left_out(family, busiest.len() - shown);
    }
}

/// The pools with the most waiting, then the most in use; the rest as one `other` a source, whose
/// sums stay exact. A bound that one of them does not have, the sum has not either.
fn write_pools(sheet: &mut Sheet, target: &str, mut pools: Vec<&PoolState>) {
    let rank =
        |pool: &PoolState| (pool.timeouts, pool.waiting.unwrap_or(0), pool.in_use.unwrap_or(0));
    // Stable: those of the same size are cut in the order of their names, at every scrape alike.
    pools.sort_by_key(|pool| Reverse(rank(pool)));
    let rest = pools.split_off(pools.len().min(MAX_POOL_SERIES));
    for pool in pools {
        write_pool(sheet, [target, &pool.name.source, pool.name.pool()], pool);
    }
    let mut others: BTreeMap<&str, Vec<&PoolState>> = BTreeMap::new();
    for pool in &rest {
        others.entry(&pool.name.source).or_default().push(pool);
    }
    for (source, pools) in others {
        let labels = [target, source, OTHER];
        let sum = |of: fn(&PoolState) -> Option<u32>| {
            pools.iter().map(|pool| of(pool).map(f64::from)).sum::<Option<f64>>()
        };
        let sums = [
            (&IN_USE, sum(|pool| pool.in_use)),
            (&IDLE, sum(|pool| pool.idle)),
            (&MAX, sum(bound)),
            (&WAITING, sum(|pool| pool.waiting)),
        ];
        for (family, sum) in sums {
            if let Some(sum) = sum {
                sheet.add(family, &labels, sum);
            }
        }
        let longest = pools.iter().filter_map(|pool| pool.wait_seconds).reduce(f64::max);
        if let Some(longest) = longest {
            sheet.add(&WAIT, &labels, longest);
        }
    }
    for family in [&IN_USE, &IDLE, &MAX, &WAITING, &WAIT, &INSTANCES] {
        sheet.left_out(family, rest.len());
    }
}

fn write_pool(sheet: &mut Sheet, labels: [&str; 3], pool: &PoolState) {
    let counts = [
        (&IN_USE, pool.in_use),
        (&IDLE, pool.idle),
        (&MAX, bound(pool)),
        (&WAITING, pool.waiting),
        (&INSTANCES, Some(pool.instances).filter(|_| pool.keeper == Keeper::Application)),
    ];
    for (family, count) in counts {
        if let Some(count) = count {
            sheet.add(family, &labels, f64::from(count));
        }
    }
    if let Some(seconds) = pool.wait_seconds {
        sheet.add(&WAIT, &labels, seconds);
    }
}

fn bound(pool: &PoolState) -> Option<u32> {
    match pool.max {
        Max::Of(max) => Some(max),
        Max::Unknown | Max::Unlimited => None,
    }
}
