//! Where connections run out when not everything is known, and what may be opened, in words.

use plimsoll_core::judge::source::Sources;

use crate::joined::{direct, joined};
use crate::timeline::{Player, check, scene, seconds};

#[test]
fn an_application_that_waits_behind_a_pooler_nobody_can_read_proves_nothing_of_its_own_pool() {
    check(
        joined(),
        "2 x 1s: used 12 log quiet probe ok pooler fails:stopped app a=50/50,wait=9,timeouts=0
         1s: used 12 log quiet probe ok pooler 5/20 app a=50/50,wait=9,timeouts=0",
        "1s pool_waiting(app_pool/payment-api HikariPool-1) pending warning
         1s pool_utilization(app_pool/payment-api HikariPool-1) pending critical
         1s source_unreadable(pooler/pgbouncer) pending warning
         1s bottleneck unknown: pooler/pgbouncer cannot be read (stopped: the source is stopped); 12 of 47 usable slots in use (25 %); 9 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use)
         3s source_unreadable(pooler/pgbouncer) inactive warning
         3s bottleneck application pool: 9 wait for pool HikariPool-1 of app_pool/payment-api (50 of 50 connections in use); 12 of 47 usable slots in use (25 %)",
    );
}

#[test]
fn a_limit_that_the_view_shows_is_the_place() {
    check(
        joined(),
        "1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0 role payment=10/10
         1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0 database shop=8/8
         1s: used 12 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0 role payment=9/10",
        "1s role_limit(payment) pending critical
         1s bottleneck role or database limit: role payment uses 10 of its 10 connections (100 %); 12 of 47 usable slots in use (25 %)
         2s role_limit(payment) inactive critical
         2s database_limit(shop) pending critical
         3s role_limit(payment) pending warning
         3s database_limit(shop) inactive critical
         3s bottleneck none: 12 of 47 usable slots in use (25 %)",
    );
}

/// What `overcommit` says after a minute of this, if anything.
fn said(mut player: Player, what: &str) -> Option<String> {
    for _ in 0..62 {
        player.read(seconds(1), &scene(what));
    }
    let alerts = player.state.episode.alerts.iter();
    let mut said = alerts.filter(|alert| alert.rule.word() == "overcommit");
    said.next().map(|alert| alert.observed.clone())
}

#[test]
fn what_may_be_opened_is_said_in_words() {
    let cases = [
        // Instances of different sizes.
        (
            "used 20 app a=2/50 app b=2/50 app c=2/10",
            "payment-api 1 × 10 + 2 × 50 = 110 > 47 usable slots: adding instances will make it \
             worse",
        ),
        // One instance cannot be read: at least so many.
        (
            "used 20 app a=2/50 app b=fails:stopped",
            "payment-api 1 × 50 = 50 > 47 usable slots: adding instances will make it worse",
        ),
        // One has no bound.
        (
            "used 20 app a=2/- app b=2/10",
            "payment-api may open any number of connections, 47 slots are usable",
        ),
        // Enough for all.
        ("used 20 app a=2/20 app b=2/20", ""),
    ];
    for (what, expected) in cases {
        assert_eq!(said(direct(), what).as_deref().unwrap_or_default(), expected, "{what}");
    }
    // Beside a pooler, an application that goes through it is not counted twice.
    let through = "used 20 log quiet probe ok pooler 5/60 app a=2/50,wait=0,timeouts=0";
    assert_eq!(said(joined(), through).as_deref(), Some("pgbouncer 60 > 47 usable slots"));
    let mut both = joined();
    both.rules.sources = Sources { through: [].into(), ..both.rules.sources };
    let all = "payment-api 1 × 50 + pgbouncer 60 = 110 > 47 usable slots: adding instances will make \
               it worse";
    assert_eq!(said(both, through).as_deref(), Some(all));
}
