//! One of every other source of a target, and a test of what is shown of many pools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::pool::{Keeper, pools};
use plimsoll_core::judge::source;
use plimsoll_core::reading::app_pool::{self, Instance, Max};
use plimsoll_core::reading::log::{self, LineCount, LineKind};
use plimsoll_core::reading::pooler::{self, Counters, Database, Limits, Pool, User};
use plimsoll_core::reading::probe::{self, Attempt, Steps};
use plimsoll_core::reading::{Failure, FailureKind, Part, Refusal, Sourced};
use plimsoll_core::status::{BottleneckStatus, Published, SourceStatus};

use super::fixture::{changed, observation, scrape, target};
use super::reader::sum;
use super::text;
use crate::serve::limits::{LOOP_STALLED_AFTER, MAX_POOL_SERIES};

fn part<T>(seen: T) -> Part<T> {
    Part {
        age: Duration::from_millis(500),
        fresh: true,
        stale_after: Duration::from_secs(30),
        seen: Ok(Arc::new(seen)),
    }
}

fn pool(user: &str, in_use: u32, waiting: u32) -> Pool {
    Pool {
        database: "payment".to_owned(),
        user: user.to_owned(),
        cl_active: Some(in_use),
        cl_waiting: Some(waiting),
        sv_active: Some(in_use),
        sv_idle: Some(20 - in_use),
        sv_login: Some(0),
        wait_seconds: Some(if waiting > 0 { 0.68 } else { 0.0 }),
        ..Pool::default()
    }
}

fn pooler(pools: Vec<Pool>) -> pooler::Observation {
    pooler::Observation {
        version: "PgBouncer 1.24.1".to_owned(),
        pools,
        databases: vec![Database {
            name: "payment".to_owned(),
            pool_size: Some(20),
            max_client_connections: Some(80),
            current_client_connections: Some(70),
            ..Database::default()
        }],
        users: vec![User {
            name: "api".to_owned(),
            max_user_client_connections: Some(75),
            current_client_connections: Some(65),
            ..User::default()
        }],
        limits: Limits {
            max_client_conn: Some(100),
            default_pool_size: Some(20),
            ..Limits::default()
        },
        clients: Some(71),
        counters: vec![Counters {
            database: "payment".to_owned(),
            transactions: Some(900),
            queries: Some(1_200),
            wait_micros: Some(2_500_000),
            server_assignments: Some(850),
        }],
        paused: Some(false),
        seconds: 0.001,
        ..pooler::Observation::default()
    }
}

fn lines(kind: LineKind, role: &str, database: &str, application: &str, count: u64) -> LineCount {
    let [role, database, application] = [role, database, application].map(str::to_owned);
    LineCount { kind, role, database, application, count }
}

fn application() -> app_pool::Observation {
    let pool = app_pool::Pool {
        name: "HikariPool-1".to_owned(),
        preset: "hikaricp_micrometer".to_owned(),
        in_use: Some(50),
        idle: Some(0),
        max: Max::Of(50),
        waiting: Some(9),
        timeouts_total: Some(7),
        waits_total: None,
        wait_seconds_total: None,
    };
    let instance =
        |address: &str| Instance { address: address.to_owned(), pools: Ok(vec![pool.clone()]) };
    app_pool::Observation {
        instances: vec![instance("http://10.0.0.7:8080"), instance("http://10.0.0.8:8080")],
        ..app_pool::Observation::default()
    }
}

fn probe(at: Timestamp) -> probe::Observation {
    let step = |ms| Some(Duration::from_millis(ms));
    let steps =
        Steps { connect: step(1), tls: step(3), authentication: step(8), first_answer: step(2) };
    probe::Observation { newest: Attempt { at, outcome: Ok(()), steps }, held: None }
}

/// Adds one of each source to what is published, and what was counted of them.
pub(super) fn add(published: &mut Published, read_at: Timestamp) {
    let reading = published.reading.as_mut().unwrap();
    let sourced = |name: &str, part| Sourced { name: name.to_owned(), part, happened: () };
    let pools_of_pooler = vec![pool("api", 20, 65), pool("batch", 2, 0)];
    reading.poolers = vec![sourced("pgbouncer", part(pooler(pools_of_pooler)))];
    reading.app_pools =
        vec![Sourced { name: "payment-api".to_owned(), part: part(application()), happened: () }];
    reading.probes = vec![Sourced {
        name: "app".to_owned(),
        part: part(probe(read_at)),
        happened: probe::Attempts::default(),
    }];
    published.pools = pools(reading, &Memory::default());
    published.pools_left_out = 3;
    let applications = published.pools.iter().filter(|it| it.keeper == Keeper::Application);
    published.timeouts_total =
        applications.map(|pool| (pool.name.clone(), pool.timeouts)).collect();
    let lines = log::Lines {
        counts: vec![
            lines(LineKind::Refused(Refusal::RoleLimit), "app", "payment", "", 12),
            lines(LineKind::Error, "app", "payment", "payment-api", 5),
            lines(LineKind::Error, "batch", "payment", "backfill", 2),
        ],
        unclear: 1,
        skipped_bytes: 4_096,
        ..log::Lines::default()
    };
    Arc::make_mut(&mut published.log).add(read_at, &lines);
    let observed = log::Observation {
        file: "/var/log/postgresql/postgresql.json".to_owned(),
        format: Some(log::Format::Jsonlog),
        tells_names: true,
        behind_bytes: 512,
    };
    reading.log = Some(Sourced { name: "log".to_owned(), part: part(observed), happened: lines });
    published.probe_logins_total = BTreeMap::from([
        (("app".to_owned(), "ok"), 230),
        (("app".to_owned(), "all_slots_taken"), 2),
    ]);
    published.status.bottleneck = Some(BottleneckStatus {
        at: "pooler".to_owned(),
        figures: "65 wait for pool payment/api of pooler/pgbouncer".to_owned(),
    });
    let stands = |source: String, state: &str| SourceStatus {
        source,
        state: state.to_owned(),
        error: None,
        last_success_at: Some(read_at),
        age_seconds: Some(0.5),
        fallback: None,
    };
    published.status.sources.extend([
        stands("log".to_owned(), "stopped"),
        stands(source::of_probe("app"), "ok"),
        stands(source::of_pooler("pgbouncer"), "ok"),
        stands(source::of_app_pool("payment-api"), "ok"),
        SourceStatus {
            age_seconds: None,
            last_success_at: None,
            ..stands("probe/new".to_owned(), "unread")
        },
    ]);
}

#[test]
fn says_nothing_of_a_source_that_has_left_nothing_yet_and_no_gauge_of_one_that_failed() {
    let shown = text(&scrape());
    assert!(!shown.contains("probe/new"), "{shown}");
    let failed = changed(target("db", observation()), |published| {
        let reading = published.reading.as_mut().unwrap();
        reading.poolers[0].part.seen = Err(Failure {
            kind: FailureKind::TooSlow,
            text: "no answer within 5 s".to_owned(),
            sqlstate: None,
        });
        reading.probes[0].part.age = Duration::from_secs(31);
    });
    let mut scrape = scrape();
    scrape.targets = vec![failed];
    let failed = text(&scrape);
    for gauge in ["plimsoll_pooler_clients{", "plimsoll_probe_outcome{", "plimsoll_probe_step_"] {
        assert!(shown.contains(gauge) && !failed.contains(gauge), "{gauge}");
    }
    assert!(!failed.contains("pool=\"payment/api\""), "{failed}");
    assert!(failed.contains("pool=\"HikariPool-1\""), "{failed}");
    assert!(failed.contains("plimsoll_probe_logins_total{"), "a count stays: {failed}");
}

#[test]
fn lets_pools_and_the_bottleneck_age_while_the_loop_stands_still() {
    let after = |seconds| {
        let mut scrape = scrape();
        scrape.monotonic += Duration::from_secs(seconds);
        text(&scrape)
    };
    assert!(after(29).contains("plimsoll_pool_waiting{"));
    let stuck = after(LOOP_STALLED_AFTER.as_secs() + 1);
    for gone in ["plimsoll_pool_waiting{", "plimsoll_bottleneck{", "plimsoll_source_age_seconds{"] {
        assert!(!stuck.contains(gone), "{gone}");
    }
}

#[test]
fn cuts_many_pools_and_keeps_their_sums() {
    let many = changed(target("db", observation()), |published| {
        let reading = published.reading.as_mut().unwrap();
        let all = (0..500).map(|n| pool(&format!("user{n}"), n % 20, n % 7)).collect();
        reading.poolers[0].part = part(pooler(all));
        reading.app_pools.clear();
        published.pools = pools(reading, &Memory::default());
    });
    let mut scrape = scrape();
    scrape.targets = vec![many];
    let text = text(&scrape);
    let exact = |of: fn(u32) -> u32| (0..500).map(|n| u64::from(of(n))).sum::<u64>();
    let of = [("source", "pooler/pgbouncer")];
    assert_eq!(sum(&text, "plimsoll_pool_waiting", &of), exact(|n| n % 7));
    assert_eq!(sum(&text, "plimsoll_pool_connections_in_use", &of), exact(|n| n % 20));
    let shown = text.lines().filter(|line| line.starts_with("plimsoll_pool_waiting{")).count();
    assert_eq!(shown, MAX_POOL_SERIES + 1);
    let left_out = sum(&text, "plimsoll_series_left_out", &[("family", "plimsoll_pool_waiting")]);
    assert_eq!(left_out, 500 - MAX_POOL_SERIES as u64);
}
