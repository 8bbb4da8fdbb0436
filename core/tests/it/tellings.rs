//! Timelines of who hears what, and when.

use plimsoll_core::judge::rule::RuleName;
use plimsoll_core::judge::{Commit, Severity};

use crate::timeline::{Player, Scene, archive, check, listener, pagerduty, rules, seconds, silent};

#[test]
fn a_receiver_of_criticals_hears_a_rise_as_trigger_and_a_fall_as_resolve() {
    check(
        Player::new(rules(vec![listener("on-call", Severity::Critical)])),
        "62 x 1s: used 39
         11 x 1s: used 44
         1s: used 37
         1s: used 20",
        "1s slots pending warning
         61s slots firing warning
         61s incident opens warning
         73s slots firing critical
         73s incident is critical
         73s -> on-call trigger critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
         74s slots firing warning
         74s incident is warning
         74s -> on-call resolve critical: payment-db-primary: resolved after 13 s: 37 of 47 usable slots in use (78 %); at worst 44, of which payment-api held 41
         75s slots resolved warning
         75s incident ends",
    );
}

#[test]
fn pagerduty_that_hears_warnings_hears_a_rise_as_resolve_then_trigger_twice() {
    check(
        Player::new(rules(vec![pagerduty("pd", Severity::Warning)])),
        "61 x 1s: used 39
         11 x 1s: used 44
         1s: used 37",
        "1s slots pending warning
         61s slots firing warning
         61s incident opens warning
         61s -> pd trigger warning: payment-db-primary: 39 of 47 usable slots in use (82 %) for 1 min; payment-api holds 36, 30 of them waiting for a lock
         72s slots firing critical
         72s incident is critical
         72s -> pd resolve warning: payment-db-primary: resolved after 11 s: 44 of 47 usable slots in use (93 %)
         72s -> pd trigger critical 2s after the one before: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
         72s -> pd update critical 60s after the one before: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
         73s slots firing warning
         73s incident is warning
         73s -> pd update warning: payment-db-primary: 37 of 47 usable slots in use (78 %) for 1 min 12 s; payment-api holds 34, 28 of them waiting for a lock",
    );
}

#[test]
fn a_critical_incident_is_told_again_every_15_minutes_a_warning_every_4_hours() {
    let log = |timeline: &str, expected: &str| {
        let mut player = archive();
        player.rules.set.slots_full = None;
        check(player, timeline, expected);
    };
    log(
        "11 x 1s: used 44
         182 x 10s: used 44",
        "1s slots pending critical
         11s slots firing critical
         11s incident opens critical
         11s -> archive trigger critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
         911s -> archive update critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 15 min 10 s; payment-api holds 41, 35 of them waiting for a lock
         1811s -> archive update critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 30 min 10 s; payment-api holds 41, 35 of them waiting for a lock",
    );
    log(
        "61 x 1s: used 39
         482 x 30s: used 39",
        "1s slots pending warning
         61s slots firing warning
         61s incident opens warning
         61s -> archive trigger warning: payment-db-primary: 39 of 47 usable slots in use (82 %) for 1 min; payment-api holds 36, 30 of them waiting for a lock
         14461s -> archive update warning: payment-db-primary: 39 of 47 usable slots in use (82 %) for 4 h 1 min; payment-api holds 36, 30 of them waiting for a lock",
    );
}

#[test]
fn a_critical_after_15_minutes_below_critical_is_a_new_incident() {
    let log = |seconds_below: u32, after: &str| {
        let mut player = silent();
        player.rules.listeners = vec![listener("archive", Severity::Warning)];
        check(
            player,
            &format!(
                "61 x 1s: used 39
                 11 x 1s: used 44
                 {seconds_below} x 1s: used 37
                 11 x 1s: used 44"
            ),
            &format!(
                "1s slots pending warning
                 61s slots firing warning
                 61s incident opens warning
                 61s -> archive trigger warning: payment-db-primary: 39 of 47 usable slots in use (82 %) for 1 min; payment-api holds 36, 30 of them waiting for a lock
                 72s slots firing critical
                 72s incident is critical
                 72s -> archive update critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
                 73s slots firing warning
                 73s incident is warning
                 73s -> archive update warning: payment-db-primary: 37 of 47 usable slots in use (78 %) for 1 min 12 s; payment-api holds 34, 28 of them waiting for a lock
                 {after}"
            ),
        );
    };
    log(
        880,
        "963s slots firing critical
         963s incident is critical
         963s -> archive update critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock",
    );
    log(
        900,
        "983s slots firing critical
         983s incident ends
         983s incident opens critical
         983s -> archive resolve warning: payment-db-primary: resolved after 15 min 22 s: 44 of 47 usable slots in use (93 %)
         983s -> archive trigger critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock",
    );
}

#[test]
fn pagerduty_hears_a_new_incident_in_place_of_an_old_one_like_a_rise() {
    let mut quiet = pagerduty("pd", Severity::Warning);
    quiet.send_resolved = false;
    let mut player = Player::new(rules(vec![quiet]));
    for (times, used) in [(61, 39), (11, 44), (900, 37)] {
        for _ in 0..times {
            player.read(seconds(1), &Scene::used(used));
        }
    }
    check(
        player,
        "11 x 1s: used 44",
        "983s slots firing critical
         983s incident ends
         983s incident opens critical
         983s -> pd resolve warning: payment-db-primary: resolved after 15 min 22 s: 44 of 47 usable slots in use (93 %)
         983s -> pd trigger critical 2s after the one before: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock
         983s -> pd update critical 60s after the one before: payment-db-primary: 44 of 47 usable slots in use (93 %) for 10 s; payment-api holds 41, 35 of them waiting for a lock",
    );
}

#[test]
fn silences_of_send_resolved_and_of_rules_are_kept() {
    let mut quiet = listener("quiet", Severity::Warning);
    quiet.send_resolved = false;
    let mut only_roles = listener("roles", Severity::Warning);
    only_roles.rules = vec![RuleName::RoleLimit];
    let mut elsewhere = listener("elsewhere", Severity::Warning);
    elsewhere.targets = vec!["another".to_owned()];
    check(
        Player::new(rules(vec![quiet, only_roles, elsewhere])),
        "2 x 1s: used 47
         11 x 1s: used 20",
        "1s slots pending critical
         1s slots_full pending critical
         2s slots_full firing critical
         2s incident opens critical
         2s -> quiet trigger critical: payment-db-primary: 47 of 47 usable slots in use (100 %) for 1 s; payment-api holds 44, 38 of them waiting for a lock
         3s slots inactive critical
         13s slots_full resolved critical
         13s incident ends",
    );
}

#[test]
fn a_restart_while_it_fires_tells_nobody_twice() {
    check(
        archive(),
        "2 x 1s: used 47
         restart
         30 x 1s: used 47
         restart
         30 x 1s: fails stopped
         restart
         1s: used 20
         11 x 1s: used 20",
        "1s slots pending critical
         1s slots_full pending critical
         2s slots_full firing critical
         2s incident opens critical
         2s -> archive trigger critical: payment-db-primary: 47 of 47 usable slots in use (100 %) for 1 s; payment-api holds 44, 38 of them waiting for a lock
         12s slots firing critical
         33s source_unreadable(postgres) pending critical
         63s slots resolved critical
         63s source_unreadable(postgres) inactive critical
         73s slots_full resolved critical
         73s incident ends
         73s -> archive resolve critical: payment-db-primary: resolved after 1 min 11 s: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn an_empty_start_that_stays_well_sends_one_resolve_where_that_is_harmless() {
    let listeners =
        || vec![pagerduty("pd", Severity::Critical), listener("archive", Severity::Warning)];
    let settles_at = |at: u32| {
        format!(
            "{at}s -> pd resolve critical: payment-db-primary: no trouble: 20 of 47 usable slots in use (42 %)"
        )
    };
    let lost = || Player::with_lost_state(rules(listeners()));
    check(lost(), "700 x 1s: used 20", &settles_at(301));
    // Unknown adds nothing, and what is not clear begins anew.
    check(
        lost(),
        "100 x 1s: used 20
         100 x 1s: fails blocked
         201 x 1s: used 20",
        &format!(
            "101s source_unreadable(postgres) pending critical
             201s source_unreadable(postgres) inactive critical
             {}",
            settles_at(401)
        ),
    );
    check(
        lost(),
        "100 x 1s: used 20
         1s: used 35
         301 x 1s: used 20",
        &settles_at(401),
    );
    // It is worth no write to the disk of its own, so a crash costs what was served since the last.
    let mut crashed = lost();
    for _ in 0..100 {
        assert_eq!(crashed.read(seconds(1), &Scene::used(20)).commit, Commit::Unchanged);
    }
    crashed.restart();
    check(crashed, "700 x 1s: used 20", &settles_at(342));
}

#[test]
fn a_receiver_of_one_rule_is_not_told_anew_because_of_others() {
    let mut roles = pagerduty("roles", Severity::Warning);
    roles.rules = vec![RuleName::RoleLimit];
    let mut player = Player::new(rules(vec![roles]));
    player.rules.set.slots_full = None;
    for _ in 0..1000 {
        let mut busy = Scene::used(30);
        busy.roles = vec![limit("payment", 41)];
        player.read(seconds(1), &busy);
    }
    check(
        player,
        "11 x 1s: used 44 role payment=41/50",
        "1001s slots pending critical
         1011s slots firing critical
         1011s incident ends
         1011s incident opens critical",
    );
}

fn limit(name: &str, used: u32) -> plimsoll_core::reading::postgres::ConnectionLimit {
    plimsoll_core::reading::postgres::ConnectionLimit { name: name.to_owned(), limit: 50, used }
}

#[test]
fn another_instance_closes_what_is_open_under_the_old_key() {
    let mut player = archive();
    for _ in 0..11 {
        player.read(seconds(1), &Scene::used(44));
    }
    player.rules.target.dedup_key = "plimsoll/other/payment-db-primary".to_owned();
    let verdict = player.read(seconds(1), &Scene::used(44));
    let told: Vec<_> =
        verdict.notifications.iter().map(|n| (n.kind.word(), n.key.as_str())).collect();
    assert_eq!(
        told,
        [
            ("resolve", "plimsoll/test/payment-db-primary"),
            ("trigger", "plimsoll/other/payment-db-primary")
        ]
    );
}

#[test]
fn a_receiver_that_is_gone_hears_the_end_of_what_it_was_told() {
    let mut player = archive();
    for _ in 0..11 {
        player.read(seconds(1), &Scene::used(44));
    }
    player.rules.listeners = vec![listener("renamed", Severity::Warning)];
    check(
        player,
        "1s: used 44
         1s: used 20",
        "12s -> renamed trigger critical: payment-db-primary: 44 of 47 usable slots in use (93 %) for 11 s; payment-api holds 41, 35 of them waiting for a lock
         12s -> archive resolve critical: payment-db-primary: resolved after 1 s: 44 of 47 usable slots in use (93 %)
         13s slots resolved critical
         13s incident ends
         13s -> renamed resolve critical: payment-db-primary: resolved after 2 s: 20 of 47 usable slots in use (42 %); at worst 44, of which payment-api held 41",
    );
}

#[test]
fn the_end_of_an_incident_still_tells_who_was_refused() {
    let mut player = archive();
    for scene in ["refused all_slots_taken", "used 20"] {
        let verdict = player.read(seconds(1), &crate::timeline::scene(scene));
        assert!(verdict.ended.is_none());
    }
    for _ in 0..60 {
        let verdict = player.read(seconds(1), &Scene::used(20));
        if let Some(ended) = verdict.ended {
            assert_eq!(ended.refused, [(plimsoll_core::reading::Refusal::AllSlotsTaken, 1)]);
            assert_eq!(ended.severity, Severity::Critical);
            return;
        }
    }
    panic!("it did not end");
}
