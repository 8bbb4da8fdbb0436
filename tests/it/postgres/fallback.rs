//! `fallback = "replication"`: a server that refuses every login is read as a walsender, and left
//! again as soon as it lets us in.

use std::time::Duration;

use super::Delivery;
use plimsoll::collect::postgres::SourceSettings;
use plimsoll::drill::server::{Mode, Server, Session};
use plimsoll_core::reading::postgres::{DatabaseCounters, Observation};
use plimsoll_core::reading::{FailureKind, Refusal};
use plimsoll_core::settings::Fallback;

use super::tls::server_with_tls;
use super::{DEADLINE, WATCHER, Watch, execute, server, settings, until_true};

fn with_fallback(url: &str) -> SourceSettings {
    SourceSettings { fallback: Fallback::Replication, ..settings(url) }
}

fn watch(server: &Server) -> Watch {
    Watch::start(with_fallback(&server.url(WATCHER, "postgres")))
}

/// A server whose watcher may be a walsender.
async fn server_for_fallback(max_connections: u32, settings: &[(&str, &str)]) -> Server {
    let server = server(max_connections, settings).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher REPLICATION").await;
    superuser.close().await;
    server
}

fn read_over(delivery: &Delivery, fallback: Option<Refusal>) -> bool {
    delivery.outcome.as_deref().is_ok_and(|seen| seen.fallback == fallback)
}

/// Our backends, as the server shows them.
async fn ours(session: &Session) -> Vec<(i32, String)> {
    let sql = "SELECT pid, backend_type FROM pg_stat_get_activity(NULL)
        WHERE application_name = 'plimsoll' ORDER BY pid";
    let rows = session.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn terminate_ours(session: &Session) {
    execute(
        session,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
        WHERE application_name = 'plimsoll'",
    )
    .await;
}

/// Takes slots as a superuser until there is none left, not even a reserved one.
async fn fill_to_the_last(server: &Server, slots: usize, used: usize) -> Vec<Session> {
    let mut held = Vec::new();
    let filling = async {
        while used + held.len() < slots {
            held.extend(server.fill("postgres", "admin", 1).await.unwrap_or_default());
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.expect("the last slot");
    assert!(server.superuser().await.is_err(), "a slot is left");
    held
}

/// Ends our connection and takes its slot, with three more: all that is left above 8 of 12.
async fn cut_off_from_the_last_slot(server: &Server, superuser: &Session) -> Vec<Session> {
    // Until the last slot is taken Plimsoll may be quicker, and then it is cut off again.
    let mut held = Vec::new();
    let filling = async {
        while held.len() < 4 {
            terminate_ours(superuser).await;
            held.extend(server.connect("postgres", "postgres").await);
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.expect("the last slot");
    assert!(server.superuser().await.is_err(), "a slot is left");
    held
}

/// A login a second, and the refused one before: at the shipped rhythm it is two ticks until a
/// walsender reads, and one more to be told.
#[tokio::test]
async fn no_more_than_three_ticks_pass_without_a_reading() {
    const TICK: Duration = Duration::from_secs(1);
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let url = server.url(WATCHER, "postgres");
    let watch = Watch::start(SourceSettings { interval: TICK, ..with_fallback(&url) });
    watch.until("an ordinary reading", |d| read_over(d, None)).await;
    let _clients = server.fill("app", "payment-api", 7).await.unwrap();
    let _held = cut_off_from_the_last_slot(&server, &superuser).await;
    let mut ticks = tokio::time::interval(TICK);
    // A machine that does not run us has no tick either.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut without = 0;
    loop {
        tokio::select! {
            delivery = watch.next() => {
                if read_over(&delivery, Some(Refusal::AllSlotsTaken)) {
                    break;
                }
            }
            _ = ticks.tick() => without += 1,
        }
        assert!(without <= 3, "{without} ticks without a reading");
    }
}

#[tokio::test]
async fn a_server_without_a_single_slot_that_cut_us_off_is_read_on() {
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = watch(&server);
    watch.until("an ordinary reading", |d| read_over(d, None)).await;
    let clients = server.fill("app", "payment-api", 7).await.unwrap();
    let _held = cut_off_from_the_last_slot(&server, &superuser).await;

    let taken = Some(Refusal::AllSlotsTaken);
    let first = watch.until("a reading all the same", |d| read_over(d, taken)).await;
    let seen = first.outcome.unwrap();
    assert_eq!((seen.slots().used, seen.slots().max), (12, 12));
    let largest = &seen.groups[0];
    assert_eq!((&*largest.application, largest.connections), ("payment-api", 7));
    let walsenders = seen.other_backends.iter().find(|b| b.backend_type == "walsender");
    assert_eq!(walsenders.map(|b| b.count), Some(1));
    let backends = ours(&superuser).await;
    assert_eq!(backends.len(), 1, "{backends:?}");
    assert_eq!(backends[0].1, "walsender");

    // Ordinary logins are tried again, and each that is refused counts, while readings go on.
    let refused = watch.until("a refusal", |d| !d.happened.refused.is_empty()).await;
    assert!(refused.happened.tried && read_over(&refused, taken), "{refused:?}");
    assert_eq!(refused.happened.refused[0].reason, Refusal::AllSlotsTaken);
    // The walsender is cut off, too.
    terminate_ours(&superuser).await;
    let is_other = |d: &Delivery| read_over(d, taken);
    while ours(&superuser).await.iter().all(|backend| *backend == backends[0]) {
        watch.next().await;
    }
    watch.until("a reading all the same", is_other).await;

    // A slot comes free: it is ours, and the walsender's place is given back.
    drop(clients);
    watch.until("an ordinary reading", |d| read_over(d, None)).await;
    until_true(&superuser, "SELECT count(*) = 0 FROM pg_stat_get_wal_senders()").await;
    let backends = ours(&superuser).await;
    assert_eq!(backends.len(), 1, "{backends:?}");
    assert_eq!(backends[0].1, "client backend");
    assert!(!server.log().contains("unexpected EOF on client connection"), "{}", server.log());
}

#[tokio::test]
async fn the_first_that_is_said_of_a_full_server_names_its_holders() {
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let _clients = server.fill("app", "payment-api", 8).await.unwrap();
    let _admins = fill_to_the_last(&server, 12, 9).await;
    let watch = watch(&server);
    let delivery = watch.next().await;
    let counted: Vec<_> = delivery.happened.refused.iter().map(|r| (r.reason, r.count)).collect();
    assert_eq!(counted, [(Refusal::AllSlotsTaken, 1)]);
    let seen = delivery.outcome.unwrap();
    assert_eq!(seen.fallback, Some(Refusal::AllSlotsTaken));
    assert_eq!(&*seen.groups[0].application, "payment-api");
    superuser.close().await;
}

/// What does not change from one moment to the next, without the two that watch.
fn lasting(seen: &Observation) -> Observation {
    let mut seen = seen.clone();
    seen.server.clock = seen.server.started_at;
    seen.fallback = None;
    seen.counters_age = Duration::ZERO;
    seen.cost = plimsoll_core::reading::postgres::Cost {
        poll_seconds: 0.0,
        server_seconds: 0.0,
        processor_seconds: None,
        budget_ratio: 0.0,
        next_after_seconds: 0.0,
    };
    seen.groups.retain(|group| &*group.application != "plimsoll");
    seen.sessions.retain(|session| &*session.application != "plimsoll");
    for group in &mut seen.groups {
        assert!(group.longest_seconds >= 0.0);
        group.longest_seconds = 0.0;
    }
    for session in &mut seen.sessions {
        session.state_seconds = session.state_seconds.map(|_| 0.0);
        session.transaction_seconds = session.transaction_seconds.map(|_| 0.0);
        session.lock_wait_seconds = session.lock_wait_seconds.map(|_| 0.0);
    }
    let still = |database: DatabaseCounters| DatabaseCounters {
        commits: 0,
        sessions: database.sessions.map(|_| 0),
        ..database
    };
    seen.counters = seen.counters.into_iter().map(still).collect();
    seen.counters.sort_by(|a, b| a.database.cmp(&b.database));
    seen.sessions.sort_by_key(|session| session.pid);
    seen.other_backends.retain(|b| !b.backend_type.contains("worker"));
    seen
}

#[tokio::test]
async fn both_ways_read_the_same() {
    let server = server_for_fallback(30, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let hostile = "it's \"app\" {1} \\ $1 <b>";
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    execute(&superuser, latin).await;
    // Stored as the database has it: one byte that is no UTF-8.
    let stranger = server.connect("postgres", "latin").await.unwrap();
    execute(&stranger, "CREATE ROLE \"caf\u{e9}\" LOGIN CONNECTION LIMIT 9").await;
    execute(&superuser, "CREATE TABLE t (); CREATE ROLE \"o'b\"\"r\" LOGIN").await;
    let _idle = server.fill("app", hostile, 3).await.unwrap();
    let _other = server.connect("o'b\"r", "latin").await.unwrap();
    let in_transaction = server.connect("postgres", "postgres").await.unwrap();
    execute(&in_transaction, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let waiting = server.connect("postgres", "postgres").await.unwrap();
    let sleeping = stranger.batch_execute("SELECT pg_sleep(600) AS \"caf\u{e9}\"");
    let blocked = waiting.batch_execute("SELECT FROM t");
    let compared = async {
        let settled = "SELECT count(*) FILTER (WHERE wait_event = 'relation') = 1
            AND count(*) FILTER (WHERE wait_event = 'PgSleep') = 1 FROM pg_stat_activity";
        until_true(&superuser, settled).await;
        execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
        let ordinary = Watch::of(&server);
        ordinary.until("an ordinary reading", |d| read_over(d, None)).await;
        // The role has no second connection; a walsender is not held to that.
        let fallen_back = watch(&server);
        let limit = Some(Refusal::RoleLimit);
        fallen_back.until("a reading as a walsender", |d| read_over(d, limit)).await;
        // Both see the other, and on 13 and 14 the collector tells of all that happened.
        let mut last = (None, None);
        let same = async {
            loop {
                last.0 = Some(lasting(&ordinary.seen().await));
                last.1 = Some(lasting(&fallen_back.seen().await));
                if last.0 == last.1 {
                    break;
                }
            }
        };
        let same = tokio::time::timeout(DEADLINE / 2, same).await;
        assert!(same.is_ok(), "{:#?}\n{:#?}", last.0, last.1);
        last.1.unwrap()
    };
    let seen = tokio::select! {
        seen = compared => seen,
        _ = sleeping => panic!("the sleeper woke up"),
        _ = blocked => panic!("the waiter was let in"),
    };
    // And it was not nothing.
    assert!(seen.groups.iter().any(|g| &*g.application == hostile && g.connections == 3));
    let sessions = &seen.sessions;
    assert!(sessions.iter().any(|s| &*s.query == "SELECT pg_sleep(?) AS \"caf\u{fffd}\""));
    assert!(sessions.iter().any(|s| s.wait.as_deref() == Some("Lock/relation")), "{sessions:#?}");
    assert!(seen.role_limits.iter().any(|limit| limit.name == "caf\u{fffd}"));
    assert_eq!(seen.counters.len(), 4);
    assert!(seen.groups.iter().any(|g| &*g.role == "o'b\"r" && &*g.database == "latin"));
}

#[tokio::test]
async fn what_a_walsender_needs_and_has_not_is_said() {
    let both = |text: &str, hint: &str| {
        assert!(text.contains("; and over a replication connection: "), "{text}");
        assert!(text.contains(hint), "{text}");
    };
    let none_free = server(12, &[("max_wal_senders", "0")]).await;
    let superuser = none_free.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher REPLICATION CONNECTION LIMIT 1").await;
    let _held = none_free.connect(WATCHER, "postgres").await.unwrap();
    let first = watch(&none_free).next().await;
    let failure = first.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::RoleLimit), "{failure:?}");
    both(&failure.text, "hint: no walsender is free; raise max_wal_senders");
    assert!(failure.text.contains("too many connections for role"), "{failure:?}");
    let mut counted: Vec<_> = first.happened.refused.iter().map(|r| (r.reason, r.count)).collect();
    counted.sort();
    assert_eq!(counted, [(Refusal::RoleLimit, 1), (Refusal::WalSenders, 1)]);

    let server = server(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    let _held = server.connect(WATCHER, "postgres").await.unwrap();
    let watch = watch(&server);
    let failure = watch.failure(FailureKind::Refused(Refusal::RoleLimit)).await;
    both(&failure.text, "hint: run: ALTER ROLE \"watcher\" REPLICATION;");
    // The statement that is said is the one that helps.
    let fix = failure.text.split_once("run: ").unwrap().1;
    execute(&superuser, fix).await;
    watch.until("a reading", |d| read_over(d, Some(Refusal::RoleLimit))).await;
}

#[tokio::test]
async fn an_ordinary_line_of_pg_hba_is_enough_and_one_for_replication_is_not() {
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    let _held = server.connect(WATCHER, "postgres").await.unwrap();
    let file = server.data_dir().join("pg_hba.conf");
    let local = "local all postgres trust\n";
    std::fs::write(&file, format!("{local}host postgres watcher 127.0.0.1/32 trust\n")).unwrap();
    execute(&superuser, "SELECT pg_reload_conf()").await;
    let watch = watch(&server);
    watch.until("a reading", |d| read_over(d, Some(Refusal::RoleLimit))).await;
    drop(watch);
    std::fs::write(&file, format!("{local}host replication watcher 127.0.0.1/32 trust\n")).unwrap();
    execute(&superuser, "SELECT pg_reload_conf()").await;
    // The postmaster reads its files again in its own time.
    let watch = self::watch(&server);
    let refused = watch.failure(FailureKind::NotAllowed).await;
    assert_eq!(refused.sqlstate.as_deref(), Some("28000"), "{refused:?}");
}

#[tokio::test]
async fn a_storm_of_terminations_leaves_no_more_than_two_backends() {
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    let _held = server.connect(WATCHER, "postgres").await.unwrap();
    let watch = watch(&server);
    let limit = Some(Refusal::RoleLimit);
    let mut most = 0;
    let storm = async {
        for _ in 0..50 {
            // Whatever is there is cut off, and what comes next, until it is gone or replaced.
            let before = ours(&superuser).await;
            most = most.max(before.len());
            terminate_ours(&superuser).await;
            tokio::select! {
                _ = watch.next() => {}
                () = until_true(
                    &superuser,
                    "SELECT count(*) = 0 FROM pg_stat_get_activity(NULL)
                    WHERE application_name = 'plimsoll'",
                ) => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, storm).await.expect("the end of the storm");
    watch.until("a reading after it", |d| read_over(d, limit)).await;
    most = most.max(ours(&superuser).await.len());
    assert!((1..=2).contains(&most), "{most}");
}

#[tokio::test]
async fn a_walsender_of_ours_is_no_standby_and_is_not_ended_for_being_idle() {
    let server = server_for_fallback(12, &[("wal_sender_timeout", "200ms")]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    if 14 <= server.major() {
        execute(&superuser, "ALTER ROLE watcher SET idle_session_timeout = '200ms'").await;
    }
    let mut held = server.login(WATCHER, "postgres");
    if 14 <= server.major() {
        held.options("-c idle_session_timeout=0");
    }
    let _held = Session::open(&held).await.unwrap();
    let slow = SourceSettings {
        interval: Duration::from_millis(600),
        ..with_fallback(&server.url(WATCHER, "postgres"))
    };
    let watch = Watch::start(slow);
    let limit = Some(Refusal::RoleLimit);
    watch.until("a reading as a walsender", |d| read_over(d, limit)).await;
    let before = ours(&superuser).await;

    // With `*` any standby would do. A commit waits as it does without us.
    execute(&superuser, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    execute(&superuser, "SELECT pg_reload_conf()").await;
    until_true(&superuser, "SELECT current_setting('synchronous_standby_names') = '*'").await;
    let writer = server.connect("postgres", "postgres").await.unwrap();
    let pid = writer.backend_pid().await.unwrap();
    let commit = writer.batch_execute("CREATE TABLE t ()");
    let watched = async {
        let waits = format!(
            "SELECT COALESCE(wait_event = 'SyncRep', false) FROM pg_stat_get_activity({pid})"
        );
        until_true(&superuser, &waits).await;
        for _ in 0..3 {
            let delivery = watch.next().await;
            assert!(read_over(&delivery, limit), "{delivery:?}");
        }
        let row = superuser.query_one(&waits, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "the commit was let go");
        let sql = "SELECT state, sync_state FROM pg_stat_replication";
        let row = superuser.query_one(sql, &[]).await.unwrap();
        let states = (row.get::<_, &str>(0), row.get::<_, &str>(1));
        // `potential` by its name alone; only a streaming one is waited for.
        assert_eq!(states.0, "startup");
        assert_ne!(states.1, "sync");
        execute(&superuser, &format!("SELECT pg_cancel_backend({pid})")).await;
    };
    let (committed, ()) = tokio::join!(commit, watched);
    committed.unwrap();
    assert_eq!(ours(&superuser).await, before, "the walsender was ended");
}

#[tokio::test]
async fn a_walsender_is_reached_inside_tls_with_channel_binding() {
    let server = server_with_tls().await;
    let superuser = server.superuser().await.unwrap();
    // The default of 13 is md5, which knows no channel binding.
    execute(
        &superuser,
        "SET password_encryption = 'scram-sha-256';
        ALTER ROLE watcher REPLICATION CONNECTION LIMIT 0 PASSWORD 'canary'",
    )
    .await;
    let hba = "local all postgres trust\nhostssl all watcher 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    execute(&superuser, "SELECT pg_reload_conf()").await;
    for mode in ["prefer", "require"] {
        let url = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=watcher password=canary \
             sslmode={mode} channel_binding=require",
            server.port()
        );
        let watch = Watch::start(with_fallback(&url));
        let limit = Some(Refusal::RoleLimit);
        watch.until("a reading as a walsender", |d| read_over(d, limit)).await;
        let sql = "SELECT count(*) = 1 FROM pg_stat_get_activity(NULL)
            WHERE application_name = 'plimsoll' AND backend_type = 'walsender' AND ssl";
        until_true(&superuser, sql).await;
        drop(watch);
        until_true(&superuser, "SELECT count(*) = 0 FROM pg_stat_get_wal_senders()").await;
    }
}

#[tokio::test]
async fn a_standby_is_read_over_a_walsender_and_stops_when_it_is_told() {
    let mut server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    superuser.close().await;
    server.stop(Mode::Fast).await.unwrap();
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    server.start_again().await.unwrap();
    let _held = server.connect(WATCHER, "postgres").await.unwrap();
    let watch = watch(&server);
    let limit = Some(Refusal::RoleLimit);
    let delivery = watch.until("a reading as a walsender", |d| read_over(d, limit)).await;
    assert!(delivery.outcome.unwrap().server.in_recovery);
    // A walsender that streams is waited for; ours is not.
    server.stop(Mode::Fast).await.unwrap();
    watch.failure(FailureKind::Stopped).await;
}

#[tokio::test]
async fn a_fallback_that_is_turned_off_is_left() {
    let server = server_for_fallback(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    let _held = server.connect(WATCHER, "postgres").await.unwrap();
    let watch = watch(&server);
    let limit = Some(Refusal::RoleLimit);
    watch.until("a reading as a walsender", |d| read_over(d, limit)).await;
    let off = settings(&server.url(WATCHER, "postgres"));
    watch.settings.send_replace(std::sync::Arc::new(off));
    until_true(&superuser, "SELECT count(*) = 0 FROM pg_stat_get_wal_senders()").await;
    let failure = watch.failure(FailureKind::Refused(Refusal::RoleLimit)).await;
    assert!(!failure.text.contains("replication"), "{failure:?}");
}
