//! What is another thing on another major, as a table of what is expected of each.

use plimsoll::drill::server::{Server, Signal};
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::postgres::{Observation, SessionState};
use std::time::Duration;

use super::bare::Bare;
use super::{WATCHER, Watch, execute, patient, processes, server};
use crate::major::major;

#[tokio::test]
async fn a_server_is_read_from_13_on() {
    let server = server(20, &[]).await;
    let delivery = Watch::start(patient(&server.url(WATCHER, "postgres"))).next().await;
    match (major(), delivery.outcome) {
        (..13, Err(failure)) => {
            assert_eq!(failure.kind, FailureKind::Unsupported);
            assert_eq!(failure.text, "the server is older than PostgreSQL 13");
        }
        (13.., Ok(seen)) => assert_eq!(seen.server.version_num / 10_000, major()),
        (major, outcome) => panic!("{major}: {outcome:?}"),
    }
}

/// Logins that are under way: the server waits for an answer to its question for a password.
async fn half_logins(server: &Server, count: usize) -> Vec<Bare> {
    let mut half = Vec::new();
    for _ in 0..count {
        let parameters = [("user", "app"), ("database", "postgres")];
        let mut login = Bare::knock(server.port(), &parameters).await;
        login.until(|answer| String::from_utf8_lossy(answer).contains("SCRAM-SHA-256")).await;
        half.push(login);
    }
    half
}

#[tokio::test]
async fn logins_under_way_are_seen_and_counted_where_the_server_shows_them() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "SET password_encryption = 'scram-sha-256'").await;
    execute(&superuser, "ALTER ROLE app PASSWORD 'secret'").await;
    let hba = "local all all trust\nhost all watcher all trust\nhost all all all scram-sha-256\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    execute(&superuser, "SELECT pg_reload_conf()").await;
    let watch = Watch::of(&server);
    assert_eq!(watch.seen_from_now().await.slots().used, 2);
    let before = processes(&server).len();
    let half = half_logins(&server, 5).await;
    assert_eq!(processes(&server).len(), before + 5);
    // Since 18 a backend is shown from the moment in which it takes its slot.
    let expected = if major() < 18 { 2 } else { 7 };
    let all = |seen: &Observation| seen.slots().used == expected;
    let seen = watch.until("them", |d| d.outcome.as_deref().is_ok_and(all)).await.outcome.unwrap();
    let starting = seen.groups.iter().filter(|g| g.state == SessionState::Starting);
    let shown: Vec<_> = starting.map(|g| (&*g.role, &*g.address, g.connections)).collect();
    let on_18 = [("", "127.0.0.1", 5)];
    assert_eq!(shown, if major() < 18 { &[][..] } else { &on_18[..] });
    // No session that matters one by one: there is no transaction, and nobody to ask about it.
    assert!(seen.sessions.iter().all(|one| &*one.role == "postgres"), "{:?}", seen.sessions);
    if major() < 18 {
        // Unseen all the same in the next, and not only in one that came before them.
        assert_eq!(watch.seen_from_now().await.slots().used, 2);
    }
    drop(half);
    watch.until("their end", |d| d.outcome.as_deref().is_ok_and(|o| o.slots().used == 2)).await;
}

#[tokio::test]
async fn counters_come_every_5_s_from_15_on_and_every_15_s_before() {
    let server = server(20, &[]).await;
    let watch = Watch::of(&server);
    let counted = |seen: &Observation| !seen.counters.is_empty();
    watch.until("counters", |d| d.outcome.as_deref().is_ok_and(counted)).await;
    // As old as they are allowed to be before they come again, with a second for a busy machine.
    let rhythm = Duration::from_secs(if major() < 15 { 15 } else { 5 });
    let mut oldest = Duration::ZERO;
    let mut young = |seen: &Observation| {
        let is_young = !oldest.is_zero() && seen.counters_age.is_zero();
        oldest = oldest.max(seen.counters_age);
        is_young
    };
    watch.until("new ones", |d| d.outcome.as_deref().is_ok_and(&mut young)).await;
    assert!(rhythm < oldest + Duration::from_secs(1), "{oldest:?}");
}

fn stats_collector(server: &Server) -> Option<i32> {
    let title = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let is_it = |pid: &i32| title(pid).is_ok_and(|title| title.contains("stats collector"));
    processes(server).into_iter().find(is_it)
}

#[tokio::test]
async fn a_stopped_statistics_collector_does_not_stop_readings() {
    let server = server(20, &[]).await;
    // With more patience than the server has for its collector: 10 s.
    let watch = Watch::start(patient(&server.url(WATCHER, "postgres")));
    let counted = |seen: &Observation| !seen.counters.is_empty();
    let first = watch.until("counters", |d| d.outcome.as_deref().is_ok_and(counted)).await;
    let mut last = first.outcome.unwrap();
    let collector = stats_collector(&server);
    // 15 put the counters into shared memory.
    assert_eq!(collector.is_some(), major() < 15);
    let Some(collector) = collector else { return };
    server.signal_backend(collector, Signal::STOP).unwrap();
    let known = last.counters.len();
    // Long enough for two attempts.
    while last.counters_age < Duration::from_secs(31) {
        let seen = watch.next().await.outcome.unwrap_or_else(|failure| panic!("{failure:?}"));
        let apart = seen.server.clock.duration_since(last.server.clock).unsigned_abs();
        // A tenth of a second is expected, and a quarter of one more where they are tried.
        assert!(apart < Duration::from_secs(4), "{apart:?} between two readings");
        assert_eq!(seen.counters.len(), known);
        last = seen;
    }
    server.signal_backend(collector, Signal::CONT).unwrap();
    let young = |seen: &Observation| seen.counters_age.is_zero();
    watch.until("new counters", |d| d.outcome.as_deref().is_ok_and(young)).await;
}
