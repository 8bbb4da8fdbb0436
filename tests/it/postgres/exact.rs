//! `free` is the number of logins that an ordinary role can still make, whoever else is there.

use plimsoll::drill::server::{Server, Session};
use plimsoll_core::reading::postgres::{ConnectionLimit, Observation};

use super::bare::Bare;
use super::{Watch, execute, server, until_true};
use crate::major::major;

/// Walsenders of both kinds: they hold no client slot.
async fn walsenders(server: &Server, superuser: &Session) -> [Bare; 2] {
    let row = superuser.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    let physical = format!("START_REPLICATION PHYSICAL {}", row.get::<_, &str>(0));
    let logical = "START_REPLICATION SLOT s LOGICAL 0/0";
    let port = server.port();
    [
        Bare::replicate(port, None, &physical).await,
        Bare::replicate(port, Some("shop"), logical).await,
    ]
}

/// Logs in until it is refused.
pub(super) async fn logins_until_refused(
    server: &Server,
    role: &str,
    database: &str,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    loop {
        match server.connect(role, database).await {
            Ok(session) => sessions.push(session),
            Err(error) => {
                assert_eq!(error.sqlstate(), Some("53300"), "{error}");
                return sessions;
            }
        }
    }
}

fn count_of(seen: &Observation, backend_type: &str) -> u32 {
    let others = seen.other_backends.iter();
    others.filter(|b| b.backend_type == backend_type).map(|b| b.count).sum()
}

fn limit<'a>(limits: &'a [ConnectionLimit], name: &str) -> &'a ConnectionLimit {
    limits.iter().find(|limit| limit.name == name).unwrap_or_else(|| panic!("{name}: {limits:?}"))
}

/// Everybody who is no ordinary session: superusers, walsenders of both kinds, parallel workers,
/// an autovacuum worker that takes its time, and Plimsoll.
async fn crowd(server: &Server) -> (Vec<Session>, [Bare; 2]) {
    let superuser = server.superuser().await.unwrap();
    execute(
        &superuser,
        "CREATE ROLE replicator LOGIN REPLICATION CONNECTION LIMIT 3;
        CREATE ROLE limited LOGIN CONNECTION LIMIT 4",
    )
    .await;
    execute(&superuser, "CREATE DATABASE shop").await;
    execute(&superuser, "ALTER DATABASE shop CONNECTION LIMIT 5").await;
    let in_shop = server.connect("postgres", "shop").await.unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('s', 'test_decoding')";
    in_shop.query_one(slot, &[]).await.unwrap();
    let walsenders = walsenders(server, &superuser).await;
    execute(
        &superuser,
        "CREATE TABLE swept AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n;
        DELETE FROM swept WHERE n % 2 = 0",
    )
    .await;
    let parallel = server.connect("postgres", "postgres").await.unwrap();
    // Its name since 16.
    let forced = if major() < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
    execute(&parallel, &format!("SET {forced} = on")).await;
    // It goes on for as long as the session does.
    drop(parallel.simple_query_raw("SELECT pg_sleep(600)").await.unwrap());
    for (backend_type, count) in [("parallel worker", 1), ("walsender", 2)] {
        let seen = format!(
            "SELECT count(*) >= {count} FROM pg_stat_activity WHERE backend_type = '{backend_type}'"
        );
        until_true(&superuser, &seen).await;
    }
    // Other workers come and go.
    let swept = "SELECT count(*) = 1 FROM pg_stat_activity
        WHERE backend_type = 'autovacuum worker' AND query LIKE 'autovacuum: VACUUM%swept'";
    until_true(&superuser, swept).await;
    (vec![superuser, in_shop, parallel], walsenders)
}

#[tokio::test]
async fn free_is_what_an_ordinary_role_can_still_open_and_the_next_is_refused() {
    let settings = [
        ("wal_level", "logical"),
        // Our walsenders' clients acknowledge nothing.
        ("wal_sender_timeout", "0"),
        ("autovacuum_naptime", "1s"),
        ("autovacuum_vacuum_threshold", "1"),
        // One page a tenth of a second: the worker is there for minutes.
        ("autovacuum_vacuum_cost_delay", "100ms"),
        ("autovacuum_vacuum_cost_limit", "1"),
    ];
    let server = server(30, &settings).await;
    let (sessions, _walsenders) = crowd(&server).await;
    let mut held = server.fill("app", "payment-api", 3).await.unwrap();
    held.extend(server.fill("limited", "report", 2).await.unwrap());
    held.push(server.connect("app", "shop").await.unwrap());
    let watch = Watch::of(&server);
    let seen = watch.seen().await;
    assert!(count_of(&seen, "walsender") >= 2, "{:?}", seen.other_backends);
    assert!(count_of(&seen, "parallel worker") >= 1, "{:?}", seen.other_backends);
    assert!(count_of(&seen, "autovacuum worker") >= 1, "{:?}", seen.other_backends);
    // Two superusers here and one in shop, six ordinary, and the watcher.
    assert_eq!((seen.slots().usable, seen.slots().used), (27, 10));

    // A role's limit: the walsenders of a role do not count towards its own.
    let replicator = limit(&seen.role_limits, "replicator");
    assert_eq!((replicator.limit, replicator.used), (3, 0));
    let walsender_role = logins_until_refused(&server, "replicator", "postgres").await;
    assert_eq!(walsender_role.len(), 3);
    drop(walsender_role);
    let limited = limit(&seen.role_limits, "limited");
    assert_eq!((limited.limit, limited.used), (4, 2));
    let more = logins_until_refused(&server, "limited", "postgres").await;
    assert_eq!(more.len(), 2);
    held.extend(more);

    // A database's limit: superusers count, a logical walsender does not.
    let shop = limit(&seen.database_limits, "shop");
    assert_eq!((shop.limit, shop.used), (5, 2));
    let more = logins_until_refused(&server, "app", "shop").await;
    assert_eq!(more.len(), 3);
    held.extend(more);

    // The whole server, to the last slot.
    let settled = "SELECT count(*) = 15 FROM pg_stat_activity
        WHERE backend_type = 'client backend'";
    until_true(&sessions[0], settled).await;
    let seen = watch.seen_from_now().await;
    assert_eq!(seen.slots().used, 15);
    let free = usize::try_from(seen.slots().free).unwrap();
    let more = logins_until_refused(&server, "app", "postgres").await;
    assert_eq!(more.len(), free);
    held.extend(more);
    let full = watch.seen_from_now().await;
    assert_eq!((full.slots().free, full.slots().used), (0, 27));
    assert_eq!(full.slots().reserved_left(), 3);
    // Superusers still get in, and then there is less than nothing left.
    held.push(server.connect("postgres", "postgres").await.unwrap());
    assert_eq!(watch.seen_from_now().await.slots().free, -1);
}

#[tokio::test]
async fn sessions_that_wait_or_hold_a_transaction_are_seen_one_by_one() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE TABLE invoices (id int, note text); GRANT ALL ON invoices TO app")
        .await;
    let holder = server.connect("app", "postgres").await.unwrap();
    execute(&holder, "BEGIN; LOCK invoices; SELECT 'canary-literal'").await;
    let waiter = server.connect("app", "postgres").await.unwrap();
    drop(
        waiter
            .simple_query_raw("UPDATE invoices SET note = 'canary-literal' WHERE id = 42")
            .await
            .unwrap(),
    );
    let watch = Watch::of(&server);
    let waits = |seen: &Observation| seen.groups.iter().any(|g| g.waiting_for_lock == 1);
    let seen = watch.until("a waiter", |d| d.outcome.as_deref().is_ok_and(waits)).await;
    let seen = seen.outcome.unwrap();
    let waiting = seen.sessions.iter().find(|s| s.wait.as_deref() == Some("Lock/relation"));
    let waiting = waiting.unwrap_or_else(|| panic!("{:?}", seen.sessions));
    assert_eq!((&*waiting.role, &*waiting.database), ("app", "postgres"));
    assert_eq!(&*waiting.query, "UPDATE invoices SET note = ? WHERE id = ?");
    assert!(waiting.transaction_seconds.is_some() && waiting.started_at.is_some());
    let pid = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let holds = seen.sessions.iter().find(|s| s.pid == pid).unwrap();
    assert_eq!(holds.state.word(), "idle in transaction");
    assert!(!format!("{seen:?}").contains("canary"), "{seen:?}");
}

/// A statement's age is no wait: it may have worked before. Which one it is, `pg_stat_statements` calls
/// by the same number.
#[tokio::test]
async fn since_when_a_session_waits_and_which_statement_it_is_are_told_from_14_on() {
    let is_told = major() >= 14;
    let settings: &[_] = if is_told { &[("compute_query_id", "on")] } else { &[] };
    let server = server(20, settings).await;
    let superuser = server.superuser().await.unwrap();
    let table = "CREATE TABLE invoices AS SELECT 1 AS id; GRANT ALL ON invoices TO app";
    execute(&superuser, table).await;
    // Of one that waits for a whole table the server has not yet made out which it is.
    execute(&superuser, "BEGIN; UPDATE invoices SET id = 2").await;
    let waiter = server.connect("app", "postgres").await.unwrap();
    let pid = waiter.backend_pid().await.unwrap();
    // Two statements of one message, which has one age.
    drop(waiter.simple_query_raw("SELECT pg_sleep(1); DELETE FROM invoices").await.unwrap());
    let watch = Watch::of(&server);
    let waits = |seen: &Observation| seen.groups.iter().any(|g| g.waiting_for_lock == 1);
    watch.until("a waiter", |d| d.outcome.as_deref().is_ok_and(waits)).await;
    // The time is there a moment after the wait (proc.c, `ProcSleep`).
    let seen = watch.seen_from_now().await;
    let waiting = seen.sessions.iter().find(|session| session.pid == pid).unwrap();
    if !is_told {
        assert_eq!((waiting.query_id, waiting.lock_wait_seconds), (None, None));
        return;
    }
    let (waited, age) = (waiting.lock_wait_seconds.unwrap(), waiting.state_seconds.unwrap());
    assert!(waited > 0.0 && waited <= age - 0.9, "waits for {waited} s, in a state for {age} s");
    let asked = format!("SELECT query_id FROM pg_stat_activity WHERE pid = {pid}");
    let own: i64 = superuser.query_one(&asked, &[]).await.unwrap().get(0);
    assert_eq!(waiting.query_id, Some(own));
    let others = seen.sessions.iter().filter(|session| session.pid != pid);
    assert!(others.map(|session| session.lock_wait_seconds).all(|wait| wait.is_none()));
}

/// Somebody who has `track_activities` off has no state, and may be who everybody waits behind.
#[tokio::test]
async fn one_that_waits_and_shows_no_state_is_seen_as_waiting() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(
        &superuser,
        "CREATE TABLE invoices (id int); CREATE ROLE quiet LOGIN; GRANT ALL ON invoices TO quiet; \
         ALTER ROLE quiet SET track_activities = off",
    )
    .await;
    execute(&superuser, "BEGIN; LOCK invoices").await;
    let waiter = server.connect("quiet", "postgres").await.unwrap();
    let pid = waiter.backend_pid().await.unwrap();
    drop(waiter.simple_query_raw("DELETE FROM invoices").await.unwrap());
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while superuser.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
    let seen = Watch::of(&server).seen_from_now().await;
    let waiting = seen.sessions.iter().find(|s| s.pid == pid);
    // Before 14 nobody says what such a session waits for (`pgstat_report_wait_start`).
    if major() < 14 {
        assert_eq!(waiting, None);
        return;
    }
    let waiting = waiting.unwrap_or_else(|| panic!("{:?}", seen.sessions));
    assert_eq!(waiting.wait.as_deref(), Some("Lock/relation"));
    assert_eq!((waiting.state.word(), &*waiting.query), ("disabled", ""));
}
