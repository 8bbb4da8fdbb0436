//! Timelines of the shipped rules: what happens when, and who hears of it.

use std::fmt::Write;

use plimsoll_core::judge::incident::Report;
use plimsoll_core::judge::telling::NotificationKind;

use crate::timeline::{archive, check, scene, seconds, silent};

#[test]
fn a_busy_server_at_79_per_cent_is_quiet() {
    check(archive(), "3600 x 1s: used 37", "");
}

#[test]
fn warning_fires_after_60_s_above_80_per_cent_and_clears_below_70() {
    check(
        silent(),
        "10 x 1s: used 30
         61 x 1s: used 39
         100 x 1s: used 35
         1s: used 32",
        "11s slots pending warning
         71s slots firing warning
         71s incident opens warning
         172s slots resolved warning
         172s incident ends",
    );
}

#[test]
fn critical_fires_after_10_s_above_90_per_cent_and_falls_back_to_warning_below_80() {
    check(
        silent(),
        "62 x 1s: used 39
         11 x 1s: used 44
         5 x 1s: used 38
         5 x 1s: used 37
         1s: used 32",
        "1s slots pending warning
         61s slots firing warning
         61s incident opens warning
         73s slots firing critical
         73s incident is critical
         79s slots firing warning
         79s incident is warning
         84s slots resolved warning
         84s incident ends",
    );
}

#[test]
fn patience_begins_anew_after_a_reading_below_the_line() {
    check(
        silent(),
        "59 x 1s: used 39
         1s: used 37
         60 x 1s: used 39
         1s: used 30",
        "1s slots pending warning
         60s slots inactive warning
         61s slots pending warning
         121s slots inactive warning",
    );
}

#[test]
fn a_login_that_is_refused_while_slots_look_free_is_full_as_long_as_it_lasts() {
    check(
        silent(),
        "1s: used 20
         1s: used 20 despite all_slots_taken
         20 x 1s: used 20 despite all_slots_taken
         11 x 1s: used 20",
        "2s slots_full firing critical
         2s incident opens critical
         33s slots_full resolved critical
         33s incident ends",
    );
    // A limit of the role is not the server's.
    check(silent(), "20 x 1s: used 20 despite role_limit", "");
    // The refusal that began it is not over while readings come over a walsender.
    check(
        silent(),
        "1s: used 48 despite all_slots_taken saw all_slots_taken
         100 x 1s: used 48 despite all_slots_taken
         60 x 1s: used 20
         1s: used 20",
        "1s slots pending critical
         1s slots_full pending critical
         1s logins_refused(all_slots_taken) firing critical
         1s incident opens critical
         2s slots_full firing critical
         11s slots firing critical
         102s slots resolved critical
         112s slots_full resolved critical
         162s logins_refused(all_slots_taken) resolved critical
         162s incident ends",
    );
}

#[test]
fn full_in_two_readings_pages_and_names_the_holder() {
    check(
        archive(),
        "3 x 1s: used 30
         2 x 1s: used 48
         1s: used 20
         11 x 1s: used 20",
        "4s slots pending critical
         4s slots_full pending critical
         5s slots_full firing critical
         5s incident opens critical
         5s -> archive trigger critical: payment-db-primary: 48 of 47 usable slots in use (102 %) for 1 s; payment-api holds 45, 39 of them waiting for a lock
         6s slots inactive critical
         16s slots_full resolved critical
         16s incident ends
         16s -> archive resolve critical: payment-db-primary: resolved after 11 s: 20 of 47 usable slots in use (42 %); at worst 48, of which payment-api held 45",
    );
}

#[test]
fn full_for_one_reading_pages_nobody() {
    check(
        archive(),
        "1s: used 47
         1s: used 46
         1s: used 30",
        "1s slots pending critical
         1s slots_full pending critical
         2s slots_full inactive critical
         3s slots inactive critical",
    );
}

#[test]
fn a_refused_login_is_an_alert_and_not_an_absence() {
    check(
        archive(),
        "1s: used 46
         31 x 1s: refused reserved_for_superusers
         1s: used 20
         60 x 1s: used 20",
        "1s slots pending critical
         2s slots_full firing critical
         2s logins_refused(reserved_for_superusers) firing critical
         2s source_unreadable(postgres) pending critical
         2s incident opens critical
         2s -> archive trigger critical: payment-db-primary: logins are refused (the slots that are left are reserved for superusers), last read 1 s ago: 46 of 47 usable slots in use (97 %); payment-api held 43, 37 of them waiting for a lock
         32s source_unreadable(postgres) firing critical
         33s slots inactive critical
         33s source_unreadable(postgres) resolved critical
         43s slots_full resolved critical
         93s logins_refused(reserved_for_superusers) resolved critical
         93s incident ends
         93s -> archive resolve critical: payment-db-primary: resolved after 1 min 31 s: 20 of 47 usable slots in use (42 %); at worst 46, of which payment-api held 43",
    );
}

#[test]
fn unknown_neither_fires_nor_resolves_a_threshold() {
    check(
        silent(),
        "9 x 1s: used 44
         100 x 1s: fails blocked
         2 x 1s: used 44
         100 x 1s: fails blocked
         1s: used 44",
        "1s slots pending critical
         10s source_unreadable(postgres) pending critical
         110s source_unreadable(postgres) inactive critical
         111s slots firing critical
         111s incident opens critical
         112s source_unreadable(postgres) pending critical
         212s source_unreadable(postgres) inactive critical",
    );
}

#[test]
fn a_stopped_server_pages_after_30_s_a_slow_one_after_2_min_a_starting_one_after_5() {
    for (kind, fires_at) in [("stopped", 30), ("too_slow", 120), ("starting", 300)] {
        check(
            silent(),
            &format!("{} x 1s: fails {kind}", fires_at + 1),
            &format!(
                "1s source_unreadable(postgres) pending critical
                 {0}s source_unreadable(postgres) firing critical
                 {0}s incident opens critical",
                fires_at + 1
            ),
        );
    }
}

#[test]
fn a_role_at_its_limit_is_told_by_name_and_one_that_is_gone_is_zero() {
    check(
        archive(),
        "11 x 1s: used 30 role payment=46/50
         1s: used 30",
        "1s role_limit(payment) pending critical
         11s role_limit(payment) firing critical
         11s incident opens critical
         11s -> archive trigger critical: payment-db-primary: role payment uses 46 of its 50 connections (92 %) for 10 s; payment-api holds 27, 21 of them waiting for a lock
         12s role_limit(payment) resolved critical
         12s incident ends
         12s -> archive resolve critical: payment-db-primary: resolved after 1 s: 30 of 47 usable slots in use (63 %)",
    );
}

#[test]
fn a_refusal_at_a_role_limit_is_a_warning_and_at_max_wal_senders_nothing() {
    check(
        silent(),
        "1s: used 30 saw role_limit saw wal_senders
         61 x 1s: used 30",
        "1s logins_refused(role_limit) firing warning
         1s incident opens warning
         62s logins_refused(role_limit) resolved warning
         62s incident ends",
    );
}

#[test]
fn more_than_32_subjects_are_one_alert_and_n_more() {
    let mut scene = "used 30".to_owned();
    for n in 0..40 {
        write!(scene, " role r{n:02}={}/100", 99 - n % 5).unwrap();
    }
    let mut player = silent();
    player.rules.set.role_limit.as_mut().unwrap().levels.warning = None;
    let mut lines = String::new();
    // The fullest first; of equals by name.
    let mut names: Vec<_> = (0..40).collect();
    names.sort_by_key(|n| (n % 5, *n));
    for n in names.iter().take(32) {
        writeln!(lines, "1s role_limit(r{n:02}) pending critical").unwrap();
    }
    lines.push_str("1s role_limit(and more) pending critical\n");
    check(player, &format!("1s: {scene}"), &lines);
}

#[test]
fn a_rule_that_is_turned_off_while_it_fires_ends_its_alert() {
    let mut player = archive();
    player.rules.set.slots_full = None;
    for _ in 0..11 {
        player.read(seconds(1), &crate::timeline::Scene::used(44));
    }
    assert!(player.state.episode.incident.is_some());
    player.rules.set.slots = None;
    check(
        player,
        "1s: used 44",
        "12s slots resolved critical
         12s incident ends
         12s -> archive resolve critical: payment-db-primary: resolved after 1 s: 44 of 47 usable slots in use (93 %)",
    );
}

#[test]
fn a_restart_in_the_middle_of_patience_costs_at_most_5_s() {
    check(
        silent(),
        "58 x 1s: used 39
         restart
         8 x 1s: used 39",
        // 55 s were on disk when it died at 58 s; the first reading of a run serves nothing.
        "1s slots pending warning
         64s slots firing warning
         64s incident opens warning",
    );
}

#[test]
fn connections_can_be_counted_instead_of_divided() {
    use plimsoll_core::judge::rule::{Level, Levels, Threshold};
    let mut player = silent();
    let level = Level {
        threshold: Threshold::Used { above: 40, clear_below: 38 },
        hold: seconds(0),
        keep_firing_for: seconds(3),
    };
    player.rules.set.slots = Some(Levels { warning: None, critical: Some(level) });
    check(
        player,
        "1s: used 40
         1s: used 41
         1s: used 37
         1s: used 38
         4 x 1s: used 37",
        "2s slots firing critical
         2s incident opens critical
         8s slots resolved critical
         8s incident ends",
    );
}

#[test]
fn an_hour_of_sleep_serves_30_s() {
    check(
        silent(),
        "1s: used 39
         1h: used 39
         29s: used 39
         1s: used 39",
        "1s slots pending warning
         3631s slots firing warning
         3631s incident opens warning",
    );
}

#[test]
fn one_observation_of_a_full_server_is_not_counted_twice() {
    check(
        archive(),
        "1s: used 47
         1s: used 47 seen before
         1s: used 47 seen before
         1s: used 30",
        "1s slots pending critical
         1s slots_full pending critical
         4s slots inactive critical
         4s slots_full inactive critical",
    );
}

#[test]
fn an_observation_that_is_too_old_is_unknown_and_the_source_too_slow() {
    check(
        silent(),
        "5 x 1s: used 44
         121 x 1s: used 44 seen long_ago
         6 x 1s: used 44",
        "1s slots pending critical
         6s source_unreadable(postgres) pending critical
         126s source_unreadable(postgres) firing critical
         126s incident opens critical
         127s source_unreadable(postgres) resolved critical
         127s incident ends
         132s slots firing critical
         132s incident opens critical",
    );
}

#[test]
fn a_database_near_its_limit_warns_after_60_s_and_is_told_by_name() {
    check(
        archive(),
        "61 x 1s: used 30 database payment=41/50
         1s: used 30 database payment=34/50",
        "1s database_limit(payment) pending warning
         61s database_limit(payment) firing warning
         61s incident opens warning
         61s -> archive trigger warning: payment-db-primary: database payment uses 41 of its 50 connections (82 %) for 1 min; payment-api holds 27, 21 of them waiting for a lock
         62s database_limit(payment) resolved warning
         62s incident ends
         62s -> archive resolve warning: payment-db-primary: resolved after 1 s: 30 of 47 usable slots in use (63 %)",
    );
}

/// The record of an incident is what happened in it, also when the next one begins in the very
/// reading in which it ends: after 15 minutes below critical.
#[test]
fn an_incident_that_another_follows_at_once_keeps_its_record() {
    let mut player = archive();
    let mut play = |readings: usize, what: &str| {
        let verdicts = (0..readings).map(|_| player.read(seconds(1), &scene(what)));
        verdicts.reduce(|_, last| last).unwrap()
    };
    play(61, "used 48 saw all_slots_taken");
    play(1_000, "used 37");
    play(10, "used 44");
    let verdict = play(1, "used 44");
    let said = |report: &Report| {
        let peak = report.peak.as_ref().map(|peak| peak.slots.used);
        let mut said = format!("{} {peak:?} {:?}:", report.severity, report.refused);
        for alert in &report.alerts {
            write!(said, " {} {} {}", alert.severity, alert.rule, alert.state.word()).unwrap();
        }
        said
    };
    let (ended, open) = (verdict.ended.unwrap(), verdict.open.unwrap());
    assert_ne!(ended.id, open.id);
    let of_ended = "critical Some(48) [(AllSlotsTaken, 61)]: critical logins_refused resolved \
                    critical slots_full resolved critical slots resolved";
    assert_eq!(said(&ended), of_ended);
    let of_open = "critical Some(44) []: critical slots firing";
    assert_eq!(said(&open), of_open);
    // Whoever is told of both hears the same.
    let told: Vec<_> = verdict.notifications.iter().map(|n| (n.kind, n.report.clone())).collect();
    let [(NotificationKind::Resolve, resolve), (NotificationKind::Trigger, trigger)] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((&resolve.id, &resolve.peak), (&ended.id, &ended.peak));
    assert_eq!((&trigger.id, &trigger.peak), (&open.id, &open.peak));
}
