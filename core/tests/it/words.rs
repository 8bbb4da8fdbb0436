//! What a person reads.

use plimsoll_core::judge::Severity;
use plimsoll_core::judge::incident::{dedup_key, holders};
use plimsoll_core::judge::rule::words::{clean, percent, spell};
use plimsoll_core::message::{details, lateness, summary};
use plimsoll_core::reading::postgres::{Group, SessionState};
use plimsoll_core::reading::{FailureKind, Refusal};

use crate::timeline::{Player, Scene, listener, rules, seconds};
use std::time::Duration;

fn page(scenes: &[Scene]) -> plimsoll_core::judge::incident::Report {
    let mut player = Player::new(rules(vec![listener("archive", Severity::Warning)]));
    player.rules.target.labels.insert("service".to_owned(), "payment".to_owned());
    player.rules.target.link = Some("http://127.0.0.1:7546/".to_owned());
    let mut last = None;
    for scene in scenes {
        let verdict = player.read(seconds(1), scene);
        last = verdict.notifications.into_iter().next().or(last);
    }
    last.expect("a page").report
}

#[test]
fn a_page_stands_alone_and_then_says_everything() {
    let report = page(&[Scene::used(46), Scene::used(48), Scene::used(48)]);
    insta::assert_snapshot!(summary(&report), @"payment-db-primary: 48 of 47 usable slots in use (102 %) for 1 s; payment-api holds 45, 39 of them waiting for a lock");
    insta::assert_snapshot!(details(&report), @r#"
    critical slots_full firing: 48 of 47 usable slots in use (102 %); since 2027-01-15T08:00:02Z, 1 s; threshold: none free in two readings, or a login refused for want of one

    Bottleneck: server slots: 48 of 47 usable slots in use (102 %)

    Slots: 50 max, 3 reserved, 47 usable, 48 used, -1 free
    States: 47 active, 1 idle
    Reserved slots left: 2 of 3, for postgres

    holder                role     database  from      slots  wait  states
    payment-api           payment  payment   10.0.0.7  45     39    45 active
    backfill_invoice_idx  payment  payment   10.0.0.7  1      0     1 active
    plimsoll              payment  payment   10.0.0.7  1      0     1 active
    psql                  payment  payment   10.0.0.7  1      0     1 idle

    service: payment
    Incident 63ad946d9cd2d7d1 of plimsoll/test/payment-db-primary
    http://127.0.0.1:7546/
    "#);
}

#[test]
fn the_end_says_how_bad_it_was() {
    let mut player = Player::new(rules(vec![listener("archive", Severity::Warning)]));
    let mut record = None;
    for scene in [48, 48, 20].map(Scene::used).into_iter().chain((0..10).map(|_| Scene::used(20))) {
        record = player.read(seconds(1), &scene).ended.or(record);
    }
    let record = record.unwrap();
    insta::assert_snapshot!(summary(&record), @"payment-db-primary: resolved after 11 s: 20 of 47 usable slots in use (42 %); at worst 48, of which payment-api held 45");
    insta::assert_snapshot!(details(&record), @r#"
    critical slots_full resolved: 20 of 47 usable slots in use (42 %); since 2027-01-15T08:00:01Z, 11 s; threshold: none free in two readings, or a login refused for want of one

    Bottleneck meanwhile: server slots: 48 of 47 usable slots in use (102 %)

    Slots: 50 max, 3 reserved, 47 usable, 20 used, 27 free
    States: 19 active, 1 idle
    Reserved slots left: 3 of 3, for postgres

    holder                role     database  from      slots  wait  states
    payment-api           payment  payment   10.0.0.7  17     11    17 active
    backfill_invoice_idx  payment  payment   10.0.0.7  1      0     1 active
    plimsoll              payment  payment   10.0.0.7  1      0     1 active
    psql                  payment  payment   10.0.0.7  1      0     1 idle

    At worst, at 2027-01-15T08:00:02Z: 48 of 47 usable slots in use (102 %)
    holder                role     database  from      slots  wait  states
    payment-api           payment  payment   10.0.0.7  45     39    45 active
    backfill_invoice_idx  payment  payment   10.0.0.7  1      0     1 active
    plimsoll              payment  payment   10.0.0.7  1      0     1 active
    psql                  payment  payment   10.0.0.7  1      0     1 idle

    Incident ed426afcaa18a7ba of plimsoll/test/payment-db-primary
    "#);
}

#[test]
fn a_page_of_a_server_that_is_down_says_so_first() {
    let stopped = (0..31).map(|_| Scene::fails(FailureKind::Stopped));
    let scenes: Vec<_> = [Scene::used(44)].into_iter().chain(stopped).collect();
    insta::assert_snapshot!(summary(&page(&scenes)), @"payment-db-primary: postgres cannot be read (stopped: the server is stopped), last read 31 s ago: 44 of 47 usable slots in use (93 %); payment-api held 41, 35 of them waiting for a lock");
}

#[test]
fn a_page_of_a_server_that_refuses_us_says_what_was_known_before() {
    let refused = Scene::fails(FailureKind::Refused(Refusal::AllSlotsTaken));
    let report = page(&[Scene::used(47), refused]);
    insta::assert_snapshot!(summary(&report), @"payment-db-primary: logins are refused (every slot is taken, those for superusers too), last read 1 s ago: 47 of 47 usable slots in use (100 %); payment-api held 44, 38 of them waiting for a lock");
    insta::assert_snapshot!(details(&report), @r#"
    critical slots_full firing: logins are refused (every slot is taken, those for superusers too); since 2027-01-15T08:00:01Z, 1 s; threshold: none free in two readings, or a login refused for want of one
    critical logins_refused (all_slots_taken) firing: logins are refused (every slot is taken, those for superusers too); since 2027-01-15T08:00:02Z, 0 s; threshold: a login is refused

    Bottleneck: server slots: logins are refused (every slot is taken, those for superusers too)

    Not readable now: refused: the server is refused
    What follows was read at 2027-01-15T08:00:01Z.

    Slots: 50 max, 3 reserved, 47 usable, 47 used, 0 free
    States: 46 active, 1 idle
    Reserved slots left: 3 of 3, for postgres

    holder                role     database  from      slots  wait  states
    payment-api           payment  payment   10.0.0.7  44     38    44 active
    backfill_invoice_idx  payment  payment   10.0.0.7  1      0     1 active
    plimsoll              payment  payment   10.0.0.7  1      0     1 active
    psql                  payment  payment   10.0.0.7  1      0     1 idle

    Logins refused since it opened: 1 (every slot is taken, those for superusers too)

    service: payment
    Incident ed426afcaa18a7ba of plimsoll/test/payment-db-primary
    http://127.0.0.1:7546/
    "#);
}

fn group(application: &str, connections: u32) -> Group {
    Group {
        role: "app".into(),
        database: "db".into(),
        application: application.into(),
        address: "local".into(),
        state: SessionState::Idle,
        connections,
        waiting_for_lock: 0,
        longest_seconds: 0.0,
    }
}

#[test]
fn ten_thousand_hostile_names_are_bounded_escaped_and_exact_in_sum() {
    let groups: Vec<_> =
        (0..10_000).map(|n| group(&format!("a\u{1b}[31m\n\"{n}\"\u{202e}'"), n % 3 + 1)).collect();
    let total: u32 = groups.iter().map(|g| g.connections).sum();
    let holders = holders(&groups);
    assert_eq!(holders.len(), 11);
    assert_eq!(holders.iter().map(|h| h.connections).sum::<u32>(), total);
    let mut report = page(&[Scene::used(47), Scene::used(47)]);
    report.holders = holders;
    report.target = "t\r\n\0".to_owned();
    let (summary, details) = (summary(&report), details(&report));
    assert!(summary.chars().count() <= 1024, "{summary}");
    assert!(details.len() < 16 * 1024, "{}", details.len());
    let is_bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!summary.chars().any(|c| is_bad(c) || c == '\n'), "{summary:?}");
    assert!(!details.chars().any(is_bad), "{details:?}");
}

#[test]
fn a_message_that_is_sent_late_says_so() {
    let report = page(&[Scene::used(47), Scene::used(47)]);
    let late = |seconds: i64| {
        let now = report.at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        lateness(&report, now)
    };
    assert_eq!([late(-3600), late(59)], ["", ""]);
    assert_eq!(late(250), " (as of 2027-01-15T08:00:02Z, sent 4 min 10 s later)");
}

#[test]
fn durations_are_spelled_for_people() {
    let spelled = |ms: u64| spell(Duration::from_millis(ms));
    let said: Vec<_> = [0, 250, 12_000, 60_000, 250_000, 7_500_000, 266_400_000]
        .into_iter()
        .map(spelled)
        .collect();
    assert_eq!(said, ["0 s", "250 ms", "12 s", "1 min", "4 min 10 s", "2 h 5 min", "3 d 2 h"]);
}

#[test]
fn per_cents_do_not_round_up_to_a_line() {
    assert_eq!([0.999, 0.29, 1.0212, 0.0].map(percent), [99, 29, 102, 0]);
}

#[test]
fn a_key_is_stable_readable_and_never_too_long() {
    assert_eq!(dedup_key(None, "db"), "plimsoll/default/db");
    assert_eq!(dedup_key(Some("eu"), "db"), "plimsoll/eu/db");
    let long = dedup_key(Some("eu"), &"x".repeat(300));
    assert_eq!(long.len(), "plimsoll/sha256:".len() + 64);
    assert_ne!(long, dedup_key(Some("eu"), &"x".repeat(301)));
}

#[test]
fn text_from_outside_is_cut() {
    assert_eq!(clean(&"x".repeat(1000)).chars().count(), 257);
}
