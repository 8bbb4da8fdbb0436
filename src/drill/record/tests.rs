//! The table and the judgement of a drill, on records that are made here.

use std::collections::BTreeMap;

use plimsoll_core::status::{AlertStatus, HolderStatus};

use super::super::scenario::Severity;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn record() -> Record {
    Record::new(at(0), TimeZone::UTC, &[0.8, 0.9])
}

fn slots(used: u32) -> SlotsStatus {
    SlotsStatus {
        max: 50,
        reserved: 3,
        usable: 47,
        used,
        free: 47 - i64::from(used),
        utilization: f64::from(used) / 47.0,
    }
}

fn view(second: i64, used: u32) -> View {
    View {
        at: at(second),
        slots: Some(slots(used)),
        states: BTreeMap::new(),
        waiting_for_lock: 0,
        waiting_for_pool: None,
        incident: None,
        pending: Vec::new(),
        firing: Vec::new(),
    }
}

fn page(second: i64, event: &str, severity: &str) -> Page {
    let incident = IncidentPart {
        id: "a1".to_owned(),
        dedup_key: "plimsoll/drill/db".to_owned(),
        severity: severity.to_owned(),
        resolved_at: (event == "resolve").then(|| at(second - 1)),
        summary: "db: 47 of 47".to_owned(),
        details: "why\nhow\u{1b}[31m".to_owned(),
    };
    let message = Message { event: event.to_owned(), incident, sent_at: at(second) };
    Page { at: at(second), message }
}

fn own((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

const WARNING: Condition = Condition::Page { event: Event::Trigger, severity: Severity::Warning };

#[test]
fn what_happened_is_a_table_in_the_order_of_time() {
    let mut record = record();
    record.see(view(1, 30));
    record.see(view(7, 39));
    record.see(view(8, 40));
    record.mark(at(90), "backfill_invoice_idx terminated");
    record.see(view(70, 47));
    record.see(view(71, 47));
    record.receive(page(68, "trigger", "warning"));
    record.receive(page(100, "resolve", "critical"));
    let table = record.table();
    let happened = table.split("\n\n").next().unwrap();
    insta::assert_snapshot!(happened, @r"
    What happened
       0:07  22:13:27  80 % exceeded: 39 of 47
       1:08  22:14:28  page received: trigger, warning (sent 22:14:28)
       1:10  22:14:30  90 % exceeded: 47 of 47
       1:10  22:14:30  server full: 47 of 47
       1:30  22:14:50  backfill_invoice_idx terminated
       1:39  22:14:59  incident resolved
       1:40  22:15:00  page received: resolve, critical (sent 22:15:00)
    ");
}

#[test]
fn conditions_are_judged_by_what_was_seen_last() {
    let mut record = record();
    assert!(!record.holds(&Condition::Full) && !record.holds(&Condition::Calm), "nothing was seen");
    record.see(view(1, 47));
    assert!(record.holds(&Condition::Full) && record.holds(&Condition::Calm));
    assert!(record.holds(&Condition::UtilizationAbove(0.9)));
    record.see(view(2, 32));
    assert!(!record.holds(&Condition::Full));
    assert!(record.holds(&Condition::UtilizationBelow(0.7)));
    record.see(View { slots: None, ..view(3, 0) });
    assert!(!record.holds(&Condition::UtilizationBelow(0.7)), "unknown is not below");
    record.see(View { incident: Some("warning".to_owned()), ..view(4, 32) });
    assert!(!record.holds(&Condition::Calm));
}

#[test]
fn a_page_fulfils_one_expectation_and_only_in_its_turn() {
    let mut record = record();
    assert!(!record.holds(&WARNING));
    record.receive(page(1, "trigger", "critical"));
    assert!(!record.holds(&WARNING), "another severity");
    record.receive(page(2, "trigger", "warning"));
    assert!(record.holds(&WARNING));
    assert!(!record.holds(&WARNING), "it was waited for before");
}

#[test]
fn a_drill_passes_only_if_all_that_was_expected_came() {
    let second = Duration::from_secs(1);
    let mut record = record();
    assert!(!record.passed(), "nothing was expected");
    record.expect(&WARNING, true, second, second);
    assert!(record.passed());
    record.expect(&Condition::Full, false, second, second);
    assert!(!record.passed());
    let table = record.table();
    let expected = table.split("\n\n").nth(1).unwrap();
    insta::assert_snapshot!(expected, @r"
    What was expected
      met      a page: trigger, warning  after 1.0 s (within 1s)
      NOT MET  no slot free              not within 1s
    ");
}

#[test]
fn pages_out_of_order_or_under_several_keys_fail_it() {
    let mut other_key = page(3, "resolve", "critical");
    other_key.message.incident.dedup_key = "another".to_owned();
    for (pages, good) in [
        (vec![], true),
        (vec![page(1, "trigger", "warning"), page(2, "resolve", "warning")], true),
        (
            vec![
                page(1, "trigger", "warning"),
                page(2, "update", "critical"),
                page(3, "resolve", "critical"),
            ],
            true,
        ),
        (vec![page(1, "trigger", "warning"), page(2, "trigger", "critical")], false),
        (vec![page(1, "resolve", "warning"), page(2, "trigger", "critical")], false),
        (
            vec![
                page(1, "trigger", "warning"),
                page(2, "resolve", "warning"),
                page(3, "resolve", "warning"),
            ],
            false,
        ),
        (vec![page(1, "trigger", "warning"), other_key], false),
    ] {
        let mut record = record();
        pages.iter().cloned().for_each(|page| record.receive(page));
        record.expect_order();
        assert_eq!(record.passed(), good, "{pages:?}");
    }
}

#[test]
fn a_line_tells_slots_states_and_what_the_daemon_makes_of_it() {
    let holder = |application: &str, state: &str, connections, waiting_for_lock| HolderStatus {
        application: application.into(),
        role: "payment".into(),
        database: "postgres".into(),
        address: "127.0.0.1".into(),
        state: state.to_owned(),
        connections,
        waiting_for_lock,
    };
    let alert = AlertStatus {
        rule: "slots".to_owned(),
        subject: String::new(),
        severity: "warning".to_owned(),
        state: "pending".to_owned(),
        since: at(0),
        observed: String::new(),
    };
    let status = TargetStatus {
        name: "db".to_owned(),
        severity: "ok".to_owned(),
        labels: BTreeMap::new(),
        server: None,
        slots: Some(slots(42)),
        read_at: Some(at(9)),
        sources: Vec::new(),
        holders: vec![
            holder("payment-api", "active", 35, 34),
            holder("payment-api", "idle in transaction", 4, 0),
            holder("plimsoll", "active", 1, 0),
            holder("payment-api", "idle", 2, 0),
        ],
        bottleneck: None,
        pools: Vec::new(),
        probes: Vec::new(),
        poolers: Vec::new(),
        log: None,
        alerts: vec![alert],
        incident: None,
    };
    let view = View::of(&status, at(10));
    assert_eq!(view.at, at(9));
    let (numbers, told) = view.line().split_once("  pending").map(own).unwrap();
    insta::assert_snapshot!(
        numbers,
        @" 42 of 47 ( 89 %)  active 36 (waiting for a lock 34)  idle  2  in transaction  4"
    );
    assert_eq!(told, ": slots warning");
    let unknown = TargetStatus { slots: None, read_at: None, alerts: Vec::new(), ..status };
    let line = View::of(&unknown, at(10)).line();
    assert!(line.starts_with("slots unknown") && line.ends_with("calm"), "{line}");
}

#[test]
fn a_page_is_printed_without_what_a_terminal_would_obey() {
    insta::assert_snapshot!(page(1, "trigger", "warning").text(), @r"
    >>> page: trigger, warning
        | db: 47 of 47
        | why
        | how[31m
    ");
}
