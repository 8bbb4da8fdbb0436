//! Timelines of several sources: where connections run out, and who hears of it.

use plimsoll_core::judge::Severity;
use plimsoll_core::judge::source::Sources;

use crate::timeline::{Player, check, listener, rules, seconds};

/// A target with a log, a probe, a pooler and an application that goes through it.
pub(crate) fn joined() -> Player {
    let mut rules = rules(vec![listener("archive", Severity::Warning)]);
    let names = ["log", "probe/app", "pooler/pgbouncer", "app_pool/payment-api"];
    let path = ("payment-api".to_owned(), "pgbouncer".to_owned());
    rules.sources = Sources {
        names: names.map(str::to_owned).into_iter().collect(),
        through: [path].into_iter().collect(),
    };
    let mut player = Player::new(rules);
    player.bottleneck = Some("");
    player
}

/// A target with one application that connects directly.
pub(crate) fn direct() -> Player {
    let mut player = joined();
    player.rules.sources.names.retain(|name| name.starts_with("app_pool/"));
    player.rules.sources.through.clear();
    player
}

#[test]
fn a_pooler_waits_while_the_server_is_idle() {
    check(
        joined(),
        "2 x 1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0
         20 x 1s: used 23 log quiet probe ok pooler 20/20,wait=12,longest=4.2 app a=32/50,wait=0,timeouts=0
         2 x 1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s bottleneck none: 12 of 47 usable slots in use (25 %)
         3s pool_waiting(pooler/pgbouncer payment/api) pending warning
         3s pool_utilization(pooler/pgbouncer payment/api) pending critical
         3s bottleneck pooler: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 4.2 s, 20 of 20 connections in use); 23 of 47 usable slots in use (48 %)
         18s pool_waiting(pooler/pgbouncer payment/api) firing warning
         18s incident opens warning
         18s -> archive trigger warning: payment-db-primary: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 4.2 s, 20 of 20 connections in use) for 15 s; payment-api holds 20, 14 of them waiting for a lock
         23s pool_waiting(pooler/pgbouncer payment/api) resolved warning
         23s pool_utilization(pooler/pgbouncer payment/api) inactive critical
         23s incident ends
         23s -> archive resolve warning: payment-db-primary: resolved after 5 s: 12 of 47 usable slots in use (25 %); at worst 23, of which payment-api held 20
         23s bottleneck none: 12 of 47 usable slots in use (25 %)",
    );
}

#[test]
fn a_wait_of_more_than_5_s_in_a_pooler_pages() {
    check(
        joined(),
        "12 x 1s: used 23 log quiet probe ok pooler 20/20,wait=30,longest=6.5 app a=32/50,wait=0,timeouts=0
         70 x 1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s pool_waiting(pooler/pgbouncer payment/api) pending critical
         1s pool_utilization(pooler/pgbouncer payment/api) pending critical
         1s bottleneck pooler: 30 wait for pool payment/api of pooler/pgbouncer (one of them for 6.5 s, 20 of 20 connections in use); 23 of 47 usable slots in use (48 %)
         11s pool_waiting(pooler/pgbouncer payment/api) firing critical
         11s incident opens critical
         11s -> archive trigger critical: payment-db-primary: 30 wait for pool payment/api of pooler/pgbouncer (one of them for 6.5 s, 20 of 20 connections in use) for 10 s; payment-api holds 20, 14 of them waiting for a lock
         13s pool_utilization(pooler/pgbouncer payment/api) inactive critical
         13s bottleneck none: 12 of 47 usable slots in use (25 %)
         73s pool_waiting(pooler/pgbouncer payment/api) resolved critical
         73s incident ends
         73s -> archive resolve critical: payment-db-primary: resolved after 1 min 2 s: 12 of 47 usable slots in use (25 %); at worst 23, of which payment-api held 20",
    );
}

#[test]
fn a_wait_of_a_tenth_of_all_clients_pages_however_short_it_is() {
    check(
        joined(),
        "11 x 1s: used 23 log quiet probe ok pooler 5/5,wait=65,longest=0.68,clients=80/100 app a=5/50,wait=0,timeouts=0",
        "1s pool_waiting(pooler/pgbouncer payment/api) pending critical
         1s pool_utilization(pooler/pgbouncer payment/api) pending critical
         1s bottleneck pooler: 65 wait for pool payment/api of pooler/pgbouncer (one of them for 680 ms, 5 of 5 connections in use); 23 of 47 usable slots in use (48 %)
         11s pool_waiting(pooler/pgbouncer payment/api) firing critical
         11s incident opens critical
         11s -> archive trigger critical: payment-db-primary: 65 wait for pool payment/api of pooler/pgbouncer (one of them for 680 ms, 5 of 5 connections in use) for 10 s; payment-api holds 20, 14 of them waiting for a lock",
    );
}

#[test]
fn a_pooler_that_shows_zeros_masks_a_full_server_until_probe_or_log_see_it() {
    check(
        joined(),
        "2 x 1s: used 20 log quiet probe ok pooler 0/20 app a=0/50,wait=0,timeouts=0
         1s: used 50 log reserved_for_superusers*4 probe held:ok pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         1s: used 50 log quiet probe reserved_for_superusers pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         1s: used 20 log quiet probe held:reserved_for_superusers pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         80 x 1s: used 20 log quiet probe ok pooler 0/20 app again app a=0/50,wait=0,timeouts=0",
        "1s bottleneck none: 20 of 47 usable slots in use (42 %)
         3s slots pending critical
         3s slots_full firing critical
         3s logins_refused(reserved_for_superusers) firing critical
         3s incident opens critical
         3s -> archive trigger critical: payment-db-primary: logins are refused (the slots that are left are reserved for superusers), seen in the log for payment@payment; payment-api holds 47, 41 of them waiting for a lock
         3s bottleneck server slots: 50 of 47 usable slots in use (106 %); pooler/pgbouncer shows nobody waiting
         5s slots inactive critical
         14s bottleneck none: 20 of 47 usable slots in use (42 %)
         15s slots_full resolved critical
         66s logins_refused(reserved_for_superusers) resolved critical
         66s incident ends
         66s -> archive resolve critical: payment-db-primary: resolved after 1 min 3 s: 20 of 47 usable slots in use (42 %); at worst 50, of which payment-api held 47",
    );
}

/// 2024-03-15: *Unable to acquire database connection from pool*, before the server was full.
#[test]
fn an_application_starves_while_all_else_is_idle_and_its_timeouts_page_at_once() {
    check(
        direct(),
        "2 x 15s: used 40 app a=20/50,wait=0,timeouts=3 app b=20/50,wait=0,timeouts=8
         15s: used 40 app a=50/50,wait=9,timeouts=3 app b=30/50,wait=0,timeouts=8
         15s: used 40 app a=50/50,wait=30,timeouts=10 app b=30/50,wait=0,timeouts=8
         6 x 15s: used 40 app a=20/50,wait=0,timeouts=10 app b=30/50,wait=0,timeouts=8",
        "15s slots pending warning
         15s overcommit pending info
         15s bottleneck none: 40 of 47 usable slots in use (85 %)
         45s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         45s bottleneck application pool: 9 wait for pool HikariPool-1 of app_pool/payment-api (in 1 of 2 instances, 80 of 100 connections in use); 40 of 47 usable slots in use (85 %)
         60s pool_waiting(app_pool/payment-api HikariPool-1) firing critical
         60s incident opens critical
         60s -> archive trigger critical: payment-db-primary: 7 gave up waiting for pool HikariPool-1 of app_pool/payment-api (30 wait, in 1 of 2 instances, 80 of 100 connections in use); payment-api holds 37, 31 of them waiting for a lock
         75s slots firing warning
         75s overcommit firing info
         75s bottleneck none: 40 of 47 usable slots in use (85 %)
         135s pool_waiting(app_pool/payment-api HikariPool-1) resolved critical
         135s incident is warning
         135s -> archive update warning: payment-db-primary: 40 of 47 usable slots in use (85 %) for 2 min; payment-api holds 37, 31 of them waiting for a lock",
    );
}

#[test]
fn all_three_are_short_and_the_innermost_is_named_until_it_is_not() {
    check(
        joined(),
        "1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0
         3 x 1s: used 47 log quiet probe ok pooler 20/20,wait=12,longest=2.5 app a=50/50,wait=30,timeouts=0
         3 x 1s: used 30 log quiet probe ok pooler 20/20,wait=12,longest=2.5 app a=50/50,wait=30,timeouts=0
         3 x 1s: used 20 log quiet probe ok pooler 5/20 app a=50/50,wait=30,timeouts=0
         3 x 1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s bottleneck none: 20 of 47 usable slots in use (42 %)
         2s slots pending critical
         2s slots_full pending critical
         2s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         2s pool_waiting(pooler/pgbouncer payment/api) pending warning
         2s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         2s pool_utilization(pooler/pgbouncer payment/api) pending critical
         2s bottleneck server slots: 47 of 47 usable slots in use (100 %); 12 wait for pool payment/api of pooler/pgbouncer (one of them for 2.5 s, 20 of 20 connections in use); 30 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use)
         3s slots_full firing critical
         3s incident opens critical
         3s -> archive trigger critical: payment-db-primary: 47 of 47 usable slots in use (100 %) for 1 s; payment-api holds 44, 38 of them waiting for a lock
         5s slots inactive critical
         5s bottleneck pooler: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 2.5 s, 20 of 20 connections in use); 30 of 47 usable slots in use (63 %); 30 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use)
         8s pool_waiting(pooler/pgbouncer payment/api) inactive warning
         8s pool_utilization(pooler/pgbouncer payment/api) inactive critical
         8s bottleneck application pool: 30 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use); 20 of 47 usable slots in use (42 %)
         11s pool_waiting(app_pool/payment-api HikariPool-1) inactive warning
         11s pool_utilization(app_pool/payment-api HikariPool-1) inactive critical
         11s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn a_source_that_failed_neither_fires_nor_resolves_and_is_told_after_2_min() {
    // While it is pending: what is known goes on only when it is known again.
    check(
        joined(),
        "10 x 1s: used 20 log quiet probe ok pooler 20/20,wait=12,longest=2.5 app a=5/50,wait=0,timeouts=0
         100 x 1s: used 20 log quiet probe ok pooler fails:too_slow app a=5/50,wait=0,timeouts=0
         6 x 1s: used 20 log quiet probe ok pooler 20/20,wait=12,longest=2.5 app a=5/50,wait=0,timeouts=0
         121 x 1s: used 20 log quiet probe ok pooler stale app a=5/50,wait=0,timeouts=0
         1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s pool_waiting(pooler/pgbouncer payment/api) pending warning
         1s pool_utilization(pooler/pgbouncer payment/api) pending critical
         1s bottleneck pooler: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 2.5 s, 20 of 20 connections in use); 20 of 47 usable slots in use (42 %)
         11s source_unreadable(pooler/pgbouncer) pending warning
         11s bottleneck unknown: pooler/pgbouncer cannot be read (too slow: the source is too_slow); 20 of 47 usable slots in use (42 %)
         111s source_unreadable(pooler/pgbouncer) inactive warning
         111s bottleneck pooler: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 2.5 s, 20 of 20 connections in use); 20 of 47 usable slots in use (42 %)
         116s pool_waiting(pooler/pgbouncer payment/api) firing warning
         116s incident opens warning
         116s -> archive trigger warning: payment-db-primary: 12 wait for pool payment/api of pooler/pgbouncer (one of them for 2.5 s, 20 of 20 connections in use) for 1 min 55 s; payment-api holds 17, 11 of them waiting for a lock
         117s source_unreadable(pooler/pgbouncer) pending warning
         117s bottleneck unknown: pooler/pgbouncer gave nothing for 31 s; 20 of 47 usable slots in use (42 %)
         237s source_unreadable(pooler/pgbouncer) firing warning
         238s pool_waiting(pooler/pgbouncer payment/api) resolved warning
         238s pool_utilization(pooler/pgbouncer payment/api) inactive critical
         238s source_unreadable(pooler/pgbouncer) resolved warning
         238s incident ends
         238s -> archive resolve warning: payment-db-primary: resolved after 2 min 2 s: 20 of 47 usable slots in use (42 %)
         238s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn every_source_is_told_when_it_cannot_be_read() {
    check(
        joined(),
        "1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0
         121 x 1s: used 20 log fails:not_allowed probe stale pooler fails:stopped app fails:unreachable
         1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s bottleneck none: 20 of 47 usable slots in use (42 %)
         2s source_unreadable(app_pool/payment-api) pending warning
         2s source_unreadable(log) pending warning
         2s source_unreadable(pooler/pgbouncer) pending warning
         2s source_unreadable(probe/app) pending warning
         2s bottleneck unknown: log cannot be read (not allowed: the source is not_allowed); probe/app gave nothing for 31 s; pooler/pgbouncer cannot be read (stopped: the source is stopped); app_pool/payment-api cannot be read (unreachable: the source is unreachable); 20 of 47 usable slots in use (42 %)
         122s source_unreadable(log) firing warning
         122s source_unreadable(probe/app) firing warning
         122s source_unreadable(pooler/pgbouncer) firing warning
         122s source_unreadable(app_pool/payment-api) firing warning
         122s incident opens warning
         122s -> archive trigger warning: payment-db-primary: app_pool/payment-api cannot be read (unreachable: the source is unreachable) for 2 min; payment-api holds 17, 11 of them waiting for a lock
         123s source_unreadable(log) resolved warning
         123s source_unreadable(probe/app) resolved warning
         123s source_unreadable(pooler/pgbouncer) resolved warning
         123s source_unreadable(app_pool/payment-api) resolved warning
         123s incident ends
         123s -> archive resolve warning: payment-db-primary: resolved after 1 s: 20 of 47 usable slots in use (42 %)
         123s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn an_instance_that_cannot_be_read_may_still_starve_and_one_that_is_gone_does_not() {
    check(
        direct(),
        "15s: used 40 app a=50/50,wait=9,timeouts=3 app b=5/50,wait=0,timeouts=0
         15s: used 40 app a=50/50,wait=30,timeouts=10 app b=5/50,wait=0,timeouts=0
         10 x 15s: used 40 app a=fails:too_slow app b=5/50,wait=0,timeouts=0
         6 x 15s: used 40 app a=fails:stopped app b=5/50,wait=0,timeouts=0",
        "15s slots pending warning
         15s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         15s overcommit pending info
         15s bottleneck application pool: 9 wait for pool HikariPool-1 of app_pool/payment-api (in 1 of 2 instances, 55 of 100 connections in use); 40 of 47 usable slots in use (85 %)
         30s pool_waiting(app_pool/payment-api HikariPool-1) firing critical
         30s incident opens critical
         30s -> archive trigger critical: payment-db-primary: 7 gave up waiting for pool HikariPool-1 of app_pool/payment-api (30 wait, in 1 of 2 instances, 55 of 100 connections in use); payment-api holds 37, 31 of them waiting for a lock
         45s bottleneck unknown: pool HikariPool-1 of app_pool/payment-api is not known in every instance; 40 of 47 usable slots in use (85 %)
         75s slots firing warning
         75s overcommit firing info
         195s bottleneck none: 40 of 47 usable slots in use (85 %)
         255s pool_waiting(app_pool/payment-api HikariPool-1) resolved critical
         255s incident is warning
         255s -> archive update warning: payment-db-primary: 40 of 47 usable slots in use (85 %) for 4 min; payment-api holds 37, 31 of them waiting for a lock",
    );
}

#[test]
fn a_rolling_deploy_and_an_instance_that_restarts_page_nobody() {
    check(
        direct(),
        "2 x 15s: used 30 app a=10/50,wait=0,timeouts=40 app b=10/50,wait=0,timeouts=70
         15s: used 40 app a=10/50,wait=0,timeouts=40 app b=10/50,wait=0,timeouts=70 app c=3/50,wait=2,timeouts=0
         15s: used 30 app a=fails:stopped app b=10/50,wait=0,timeouts=70 app c=10/50,wait=0,timeouts=0
         15s: used 30 app b=fails:stopped app c=10/50,wait=0,timeouts=0 app d=3/50,wait=1,timeouts=5
         15s: used 30 app b=1/50,wait=0,timeouts=2 app c=10/50,wait=0,timeouts=0 app d=10/50,wait=0,timeouts=5
         20 x 15s: used 30 app b=10/50,wait=0,timeouts=2 app c=10/50,wait=0,timeouts=0 app d=10/50,wait=0,timeouts=5",
        "15s overcommit pending info
         15s bottleneck none: 30 of 47 usable slots in use (63 %)
         45s slots pending warning
         45s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         45s bottleneck application pool: 2 wait for pool HikariPool-1 of app_pool/payment-api (in 1 of 3 instances, 23 of 150 connections in use); 40 of 47 usable slots in use (85 %)
         60s slots inactive warning
         60s pool_waiting(app_pool/payment-api HikariPool-1) inactive warning
         60s bottleneck none: 30 of 47 usable slots in use (63 %)
         75s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         75s overcommit firing info
         75s bottleneck application pool: 1 waits for pool HikariPool-1 of app_pool/payment-api (in 1 of 2 instances, 13 of 100 connections in use); 30 of 47 usable slots in use (63 %)
         90s pool_waiting(app_pool/payment-api HikariPool-1) inactive warning
         90s bottleneck none: 30 of 47 usable slots in use (63 %)",
    );
}

#[test]
fn a_pool_at_79_per_cent_is_quiet_and_a_full_one_wakes_nobody_without_a_queue() {
    check(
        direct(),
        "600 x 1s: used 20 app a=79/100,wait=0,timeouts=0",
        "1s overcommit pending info
         1s bottleneck none: 20 of 47 usable slots in use (42 %)
         61s overcommit firing info",
    );
    check(
        direct(),
        "62 x 1s: used 20 app a=100/100,wait=0,timeouts=0
         1s: used 20 app a=60/100,wait=0,timeouts=0",
        "1s pool_utilization(app_pool/payment-api HikariPool-1) pending warning
         1s overcommit pending info
         1s bottleneck none: 20 of 47 usable slots in use (42 %)
         61s pool_utilization(app_pool/payment-api HikariPool-1) firing warning
         61s overcommit firing info
         61s incident opens warning
         61s -> archive trigger warning: payment-db-primary: 100 of 100 connections of pool HikariPool-1 of app_pool/payment-api in use (100 %) for 1 min; payment-api holds 17, 11 of them waiting for a lock
         63s pool_utilization(app_pool/payment-api HikariPool-1) resolved warning
         63s incident ends
         63s -> archive resolve warning: payment-db-primary: resolved after 2 s: 20 of 47 usable slots in use (42 %)",
    );
    let mut player = direct();
    player.rules.set.pool_utilization.as_mut().unwrap().alone = true;
    check(player, "62 x 1s: used 20 app a=100/100,wait=0,timeouts=0", "1s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         1s overcommit pending info
         1s bottleneck none: 20 of 47 usable slots in use (42 %)
         61s pool_utilization(app_pool/payment-api HikariPool-1) firing critical
         61s overcommit firing info
         61s incident opens critical
         61s -> archive trigger critical: payment-db-primary: 100 of 100 connections of pool HikariPool-1 of app_pool/payment-api in use (100 %) for 1 min; payment-api holds 17, 11 of them waiting for a lock");
    // A queue makes it critical.
    check(direct(), "62 x 1s: used 20 app a=100/100,wait=1,timeouts=0", "1s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         1s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         1s overcommit pending info
         1s bottleneck application pool: 1 waits for pool HikariPool-1 of app_pool/payment-api (100 of 100 connections in use); 20 of 47 usable slots in use (42 %)
         16s pool_waiting(app_pool/payment-api HikariPool-1) firing warning
         16s incident opens warning
         16s -> archive trigger warning: payment-db-primary: 1 waits for pool HikariPool-1 of app_pool/payment-api (100 of 100 connections in use) for 15 s; payment-api holds 17, 11 of them waiting for a lock
         61s pool_utilization(app_pool/payment-api HikariPool-1) firing critical
         61s overcommit firing info
         61s incident is critical
         61s -> archive update critical: payment-db-primary: 100 of 100 connections of pool HikariPool-1 of app_pool/payment-api in use (100 %) for 1 min; payment-api holds 17, 11 of them waiting for a lock");
}

#[test]
fn one_observation_of_a_slow_source_does_not_serve_patience_alone() {
    check(
        direct(),
        "1s: used 20 app a=50/50,wait=1,timeouts=0
         29 x 1s: used 20 app again app a=50/50,wait=1,timeouts=0
         1s: used 20 app a=20/50,wait=0,timeouts=0
         29 x 1s: used 20 app again app a=20/50,wait=0,timeouts=0",
        "1s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         1s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         1s overcommit pending info
         1s bottleneck application pool: 1 waits for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use); 20 of 47 usable slots in use (42 %)
         31s pool_waiting(app_pool/payment-api HikariPool-1) inactive warning
         31s pool_utilization(app_pool/payment-api HikariPool-1) inactive critical
         31s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
    // Nobody tells how long they wait: three observations in a row, and the time between them.
    check(
        direct(),
        "1s: used 20 app a=40/50,wait=1,timeouts=0
         9 x 1s: used 20 app again app a=40/50,wait=1,timeouts=0
         1s: used 20 app a=40/50,wait=1,timeouts=0
         9 x 1s: used 20 app again app a=40/50,wait=1,timeouts=0
         1s: used 20 app a=40/50,wait=1,timeouts=0
         1s: used 20 app a=20/50,wait=0,timeouts=0",
        "1s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         1s overcommit pending info
         1s bottleneck application pool: 1 waits for pool HikariPool-1 of app_pool/payment-api (40 of 50 connections in use); 20 of 47 usable slots in use (42 %)
         21s pool_waiting(app_pool/payment-api HikariPool-1) firing warning
         21s incident opens warning
         21s -> archive trigger warning: payment-db-primary: 1 waits for pool HikariPool-1 of app_pool/payment-api (40 of 50 connections in use) for 20 s; payment-api holds 17, 11 of them waiting for a lock
         22s pool_waiting(app_pool/payment-api HikariPool-1) resolved warning
         22s incident ends
         22s -> archive resolve warning: payment-db-primary: resolved after 1 s: 20 of 47 usable slots in use (42 %)
         22s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn libraries_that_only_count_waits_are_understood_too() {
    // Ten waits of 30.5 s together, then a stall in which nobody is counted.
    check(
        direct(),
        "10s: used 20 app a=50/50,waits=100,waited=7.5
         2 x 10s: used 20 app a=50/50,waits=100,waited=7.5
         10s: used 20 app a=50/50,waits=110,waited=38.0
         10s: used 20 app a=50/50,waits=120,waited=68.0
         10s: used 20 app a=50/50,waits=125,waited=68.0
         10s: used 20 app a=50/50,waits=125,waited=68.0
         10s: used 20 app a=30/50,waits=125,waited=300.0
         10s: used 20 app a=30/50,waits=125,waited=300.0",
        "10s pool_utilization(app_pool/payment-api HikariPool-1) pending warning
         10s overcommit pending info
         10s bottleneck none: 20 of 47 usable slots in use (42 %)
         40s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         40s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         40s bottleneck application pool: somebody waits for pool HikariPool-1 of app_pool/payment-api (on average for 3.0 s, 50 of 50 connections in use); 20 of 47 usable slots in use (42 %)
         60s pool_waiting(app_pool/payment-api HikariPool-1) firing warning
         60s incident opens warning
         60s -> archive trigger warning: payment-db-primary: somebody waits for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use) for 20 s; payment-api holds 17, 11 of them waiting for a lock
         70s pool_utilization(app_pool/payment-api HikariPool-1) firing warning
         70s overcommit firing info
         80s pool_waiting(app_pool/payment-api HikariPool-1) resolved warning
         80s pool_utilization(app_pool/payment-api HikariPool-1) resolved warning
         80s incident ends
         80s -> archive resolve warning: payment-db-primary: resolved after 20 s: 20 of 47 usable slots in use (42 %)
         80s bottleneck none: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn what_may_be_opened_is_compared_with_what_is_usable_and_pages_nobody() {
    let mut player = direct();
    let three =
        "app a=2/50,wait=0,timeouts=0 app b=2/50,wait=0,timeouts=0 app c=2/50,wait=0,timeouts=0";
    for _ in 0..62 {
        player.read(seconds(1), &crate::timeline::scene(&format!("used 20 {three}")));
    }
    let alert = &player.state.episode.alerts[0];
    assert_eq!(
        (alert.rule.word(), alert.severity(), alert.state().word()),
        ("overcommit", Severity::Info, "firing")
    );
    assert_eq!(
        alert.observed,
        "payment-api 3 × 50 = 150 > 47 usable slots: adding instances will make it worse"
    );
    assert_eq!(player.state.episode.incident, None);
}

#[test]
fn a_rule_on_pools_is_turned_off_for_one_of_them() {
    let mut player = direct();
    let pool = "app_pool/payment-api HikariPool-1".to_owned();
    let set = &mut player.rules.set;
    set.pool_waiting.as_mut().unwrap().subjects.insert(pool.clone(), None);
    set.pool_utilization.as_mut().unwrap().levels.subjects.insert(pool, None);
    check(
        player,
        "2 x 15s: used 20 app a=50/50,wait=9,timeouts=3
         9 x 15s: used 20 app a=50/50,wait=30,timeouts=10",
        "15s overcommit pending info
         15s bottleneck application pool: 9 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use); 20 of 47 usable slots in use (42 %)
         75s overcommit firing info",
    );
}

#[test]
fn what_settings_name_no_more_ends() {
    let mut player = joined();
    for _ in 0..12 {
        player.read(seconds(1), &crate::timeline::scene("used 20 pooler 20/20,wait=9,longest=7"));
    }
    assert!(player.state.episode.incident.is_some());
    player.rules.sources.names.remove("pooler/pgbouncer");
    check(player, "1s: used 20", "13s pool_waiting(pooler/pgbouncer payment/api) resolved critical
         13s pool_utilization(pooler/pgbouncer payment/api) inactive critical
         13s incident ends
         13s -> archive resolve critical: payment-db-primary: resolved after 2 s: 20 of 47 usable slots in use (42 %)
         13s bottleneck unknown: app_pool/payment-api was not read yet; log was not read yet; probe/app was not read yet; 20 of 47 usable slots in use (42 %)");
}

#[test]
fn more_than_32_pools_are_one_alert_and_n_more() {
    let mut player = joined();
    for _ in 0..20 {
        player.read(
            seconds(1),
            &crate::timeline::scene("used 20 pooler 20/20,wait=1,longest=2,more=50"),
        );
        let of =
            |rule| player.state.episode.alerts.iter().filter(|a| a.rule.word() == rule).count();
        assert_eq!((of("pool_waiting"), of("pool_utilization")), (33, 33));
    }
    player.read(seconds(1), &crate::timeline::scene("used 20 pooler 2/20,more=50"));
    player.state.episode.alerts.retain(|alert| !alert.rule.is_advice());
    assert_eq!(player.state.episode.alerts, []);
}
