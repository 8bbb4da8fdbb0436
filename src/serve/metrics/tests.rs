//! Tests of `/metrics` on values: the whole text, what is absent, hostile names, and the docs.

mod beside;
mod fixture;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::reading::{Failure, FailureKind, Refusal};
use plimsoll_core::status::Published;

use super::family::printable;
use super::{Encoded, Scrape};
use crate::serve::limits::{
    LOOP_STALLED_AFTER, MAX_ADDRESS_SERIES, MAX_DATABASE_SERIES, MAX_HOLDER_SERIES,
    MAX_LABEL_CHARS, MAX_SERIES,
};
use fixture::{changed, group, observation, scrape, target};
use reader::{Series, families, series, sum};

/// The text of the first scrape.
fn text(scrape: &Scrape) -> String {
    super::text(scrape, &mut Encoded::default())
}

#[test]
fn shows_everything_that_is_known() {
    insta::assert_snapshot!("everything", text(&scrape()));
}

#[test]
fn is_what_promtool_calls_clean() {
    promtool(&text(&scrape()));
    promtool(&text(&hostile()));
}

#[test]
fn is_the_same_whatever_was_shown_before() {
    let mut before = Encoded::default();
    for scrape in
        [scrape(), hostile(), without_the_migrator(), scrape(), crowded(), crowded(), hostile()]
    {
        assert_eq!(super::text(&scrape, &mut before), text(&scrape));
    }
}

#[test]
fn has_no_series_twice_and_the_same_labels_in_a_family() {
    for text in [text(&scrape()), text(&hostile())] {
        let all = series(&text);
        let distinct: BTreeSet<_> = all.iter().map(|it| (&it.name, &it.labels)).collect();
        assert_eq!(distinct.len(), all.len());
        let names: Vec<String> = families(&text).into_iter().map(|it| it.name).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        for family in families(&text) {
            assert!(!family.labels.is_empty() || family.series == 1, "{family:?}");
        }
    }
}

#[test]
fn is_documented_and_documents_nothing_else() {
    let documented = reader::documented(include_str!("../../../docs/metrics.md"));
    let all = [text(&scrape()), text(&hostile())];
    let exported: BTreeMap<String, (String, Vec<String>)> = all
        .iter()
        .flat_map(|text| families(text))
        .map(|family| (family.name, (family.kind, family.labels)))
        .collect();
    let names = |of: &BTreeMap<_, _>| of.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&documented), names(&exported), "left: docs/metrics.md, right: exported");
    assert_eq!(documented, exported, "left: docs/metrics.md, right: exported");
}

/// Families that must be gone when the server was not read now: a value would be a lie.
fn of_the_server(text: &str) -> Vec<String> {
    let own = ["plimsoll_slots_", "plimsoll_connections", "plimsoll_address_", "plimsoll_server_"];
    let more = ["plimsoll_database_", "plimsoll_role_", "plimsoll_poll_", "plimsoll_other_"];
    let is_of = |name: &str| own.iter().chain(&more).any(|prefix| name.starts_with(prefix));
    let names = families(text).into_iter().map(|family| family.name);
    names.filter(|name| is_of(name)).collect()
}

#[test]
fn says_nothing_of_a_server_that_could_not_be_read() {
    let failed = changed(target("db", observation()), |published| {
        let postgres = &mut published.reading.as_mut().unwrap().postgres;
        postgres.seen = Err(Failure {
            kind: FailureKind::Refused(Refusal::AllSlotsTaken),
            text: "sorry, too many clients already".to_owned(),
            sqlstate: Some("53300".to_owned()),
        });
        published.status.sources[0].state = "refused".to_owned();
    });
    let scrape = Scrape { targets: vec![failed], ..scrape() };
    let text = text(&scrape);
    assert_eq!(of_the_server(&text), [""; 0]);
    assert!(text.contains("plimsoll_source_up{target=\"db\",source=\"postgres\"} 0\n"), "{text}");
    let failure = "plimsoll_source_failure{target=\"db\",source=\"postgres\",kind=\"refused\"} 1\n";
    assert!(text.contains(failure), "{text}");
    assert!(text.contains("plimsoll_source_last_success_timestamp_seconds"), "{text}");
}

#[test]
fn says_nothing_of_a_server_before_its_first_reading() {
    let unread = Published::before_the_first_reading("db", BTreeMap::new());
    let text = text(&Scrape { targets: vec![Arc::new(unread)], ..scrape() });
    assert_eq!(of_the_server(&text), [""; 0]);
    assert!(!text.contains("plimsoll_source_up"), "{text}");
    assert!(!text.contains("plimsoll_incident_open"), "{text}");
    assert!(text.contains("plimsoll_targets 1\n"), "{text}");
}

#[test]
fn lets_a_reading_age_while_its_loop_stands_still() {
    let after = |seconds| {
        let mut scrape = scrape();
        scrape.monotonic += Duration::from_secs(seconds);
        text(&scrape)
    };
    assert!(!of_the_server(&after(1)).is_empty());
    assert_eq!(of_the_server(&after(4)), [""; 0], "stale after 3 s");
    assert!(after(4).contains("plimsoll_source_up{"), "the loop is late, not stuck");
    let stuck = after(LOOP_STALLED_AFTER.as_secs() + 1);
    assert!(!stuck.contains("plimsoll_source_up{"), "{stuck}");
    assert!(stuck.contains("plimsoll_source_last_success_timestamp_seconds{"), "{stuck}");
    assert!(stuck.contains("plimsoll_loop_last_turn_timestamp_seconds{"), "{stuck}");
}

/// The usual scrape, and no application `migrator`.
fn without_the_migrator() -> Scrape {
    let fewer = changed(target("db", observation()), |published| {
        let postgres = &mut published.reading.as_mut().unwrap().postgres;
        postgres
            .seen
            .as_mut()
            .map(Arc::make_mut)
            .unwrap()
            .groups
            .retain(|group| &*group.application != "migrator");
    });
    Scrape { targets: vec![fewer], ..scrape() }
}

#[test]
fn forgets_what_vanished() {
    assert!(text(&scrape()).contains("migrator"));
    assert!(!text(&without_the_migrator()).contains("migrator"));
}

/// What 10,000 clients can call themselves, at 10,000 addresses, in 300 databases.
fn hostile() -> Scrape {
    let odd = ["\n", "\r\u{1b}[2J", "\"", "\\", "\"} 1\nevil{x=\"", "\u{202e}", "é", "other"];
    let mut seen = observation();
    seen.groups = (0..10_000_u32)
        .map(|n| {
            let name =
                format!("{}{n}{}", odd[n as usize % odd.len()], "x".repeat(n as usize % 300));
            let mut group = group(&name, "web\n", "shop\"", fixture::STATES[n as usize % 7], n % 5);
            group.address = format!("10.0.{}.{}", n / 250, n % 250).into();
            group.waiting_for_lock = n % 2;
            group
        })
        .collect();
    let database = seen.counters[0].clone();
    seen.counters = (0..300)
        .map(|n| {
            let mut database = database.clone();
            database.database = format!("db\n{n}").into();
            database.commits = n;
            database
        })
        .collect();
    let mut scrape = scrape();
    let turn = scrape.health.loops["db"].clone();
    scrape.health.loops = BTreeMap::from([("d\"b\n".to_owned(), turn)]);
    scrape.targets = vec![target("d\"b\n", seen)];
    scrape
}

#[test]
fn cuts_ten_thousand_hostile_names_and_keeps_the_sums() {
    let scrape = hostile();
    let text = text(&scrape);
    let seen = scrape.targets[0].reading.as_ref().unwrap().postgres.seen.as_ref().unwrap();
    let connections = sum(&text, "plimsoll_connections", &[]);
    assert_eq!(connections, u64::from(seen.slots().used));
    assert_eq!(connections, sum(&text, "plimsoll_slots_used", &[]));
    assert_eq!(connections, sum(&text, "plimsoll_address_connections", &[]));
    for state in fixture::STATES {
        let groups = seen.groups.iter().filter(|group| group.state == state);
        let exact: u32 = groups.map(|group| group.connections).sum();
        let shown = sum(&text, "plimsoll_connections", &[("state", state.word())]);
        assert_eq!(shown, u64::from(exact), "{}", state.word());
    }
    let waiting: u32 = seen.groups.iter().map(|group| group.waiting_for_lock).sum();
    assert_eq!(sum(&text, "plimsoll_connections_waiting_for_lock", &[]), u64::from(waiting));

    let count = |name: &str| series(&text).iter().filter(|it| it.name == name).count();
    assert_eq!(count("plimsoll_connections"), MAX_HOLDER_SERIES + fixture::STATES.len());
    assert_eq!(count("plimsoll_address_connections"), MAX_ADDRESS_SERIES + 1);
    assert_eq!(count("plimsoll_database_commits_total"), MAX_DATABASE_SERIES);
    let left_out = |family| sum(&text, "plimsoll_series_left_out", &[("family", family)]);
    assert_eq!(left_out("plimsoll_database_commits_total"), 200);
    assert_eq!(left_out("plimsoll_address_connections"), 10_000 - MAX_ADDRESS_SERIES as u64);
    for Series { labels, .. } in series(&text) {
        for value in labels.values() {
            assert!(value.chars().count() <= MAX_LABEL_CHARS, "{value}");
            assert!(!value.chars().any(char::is_control), "{value:?}");
        }
    }
    assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
}

/// Two hundred targets, each with 300 groups: more series than fit.
fn crowded() -> Scrape {
    let mut scrape = hostile();
    let mut seen = scrape.targets[0].reading.as_ref().unwrap().postgres.known().unwrap().clone();
    seen.groups.truncate(300);
    let names: Vec<String> = (0..200).map(|n| format!("db{n}")).collect();
    scrape.targets = names.iter().map(|name| target(name, seen.clone())).collect();
    let turn = scrape.health.loops["d\"b\n"].clone();
    scrape.health.loops = names.iter().map(|name| (name.clone(), turn.clone())).collect();
    scrape
}

#[test]
fn leaves_out_single_rows_before_slots_when_the_series_are_too_many() {
    let text = text(&crowded());
    let all = series(&text);
    let left_out = all.iter().filter(|it| it.name == "plimsoll_series_left_out").count();
    let own = all.iter().filter(|it| !it.name.starts_with("plimsoll_delivery_seconds")).count();
    assert_eq!(own + 1 - left_out, MAX_SERIES, "a histogram is counted as one series");
    assert_eq!(all.iter().filter(|it| it.name == "plimsoll_slots_free").count(), 200);
    assert_eq!(all.iter().filter(|it| it.name == "plimsoll_loop_blind").count(), 200);
    promtool(&text);
}

#[test]
fn prints_names_that_cannot_harm() {
    let check = |name, shown| assert_eq!(printable(name, 12), shown);
    check("payment-api", "payment-api");
    check("", "");
    check("a\nb", "a\\u{a}b");
    check("\u{1b}[2J", "\\u{1b}[2J");
    check("a\u{202e}b", "a\\u{202e}b");
    check("éééééééééééé", "éééééééééééé");
    check("0123456789abcdef", "0123456789a…");
    check("0123456789\n", "0123456789…");
}

/// Runs the real promtool on a text: it must find nothing, not even a question of style.
fn promtool(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing; install it with `apt-get install prometheus`");
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(text.as_bytes()));
        child.wait_with_output().unwrap()
    });
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((output.status.success(), String::from_utf8_lossy(&said).as_ref()), (true, ""));
}
