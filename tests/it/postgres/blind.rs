//! Whatever stands in the way of a login, the kept connection goes on reading.

use std::fs;

use plimsoll::drill::server::{Mode, Options, Server, Session, Signal};
use plimsoll_core::reading::{FailureKind, Refusal};

use super::{Watch, execute, our_backends, processes, server, until_true};

/// All of the server's own tables, so that whatever a poll named would be among them.
const LOCK_EVERY_CATALOG: &str = "
    DO $$
    DECLARE catalog regclass;
    BEGIN
        FOR catalog IN
            SELECT oid FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
                AND relkind = 'r' ORDER BY oid
        LOOP
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', catalog);
        END LOOP;
    END $$";

/// Fills the server so that not even the slot of a terminated session comes free for an ordinary
/// role: superusers sit on reserved slots.
async fn fill_beyond(server: &Server, usable: usize) -> Vec<Session> {
    let mut held = server.fill("postgres", "admin", 2).await.unwrap();
    held.extend(server.fill("app", "payment-api", usable - held.len()).await.unwrap());
    held.extend(server.fill("postgres", "admin", 1).await.unwrap());
    held
}

#[tokio::test]
async fn a_server_full_of_ordinary_clients_is_read_on() {
    let server = server(12, &[]).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    let held = server.fill("app", "payment-api", 8).await.unwrap();
    assert!(server.connect("app", "postgres").await.is_err());
    for _ in 0..3 {
        let delivery = watch.next().await;
        assert!(delivery.outcome.is_ok(), "{delivery:?}");
    }
    let full = watch.seen().await;
    assert_eq!(full.slots().free, 0);
    let largest = &full.groups[0];
    assert_eq!((&*largest.application, largest.connections), ("payment-api", 8));
    drop(held);
    watch.until("free slots", |d| d.outcome.as_deref().is_ok_and(|s| s.slots().free == 8)).await;
}

#[tokio::test]
async fn a_full_server_that_ended_our_session_is_a_refusal_and_not_an_absence() {
    let server = server(12, &[]).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    let superuser = server.superuser().await.unwrap();
    // Nine usable: ours, the superuser's and seven more; then two reserved ones.
    let mut held = fill_beyond(&server, 7).await;
    held.extend(server.fill("postgres", "admin", 1).await.unwrap());
    execute(
        &superuser,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'plimsoll'",
    )
    .await;
    let refused = Refusal::ReservedForSuperusers;
    let delivery = watch.until("a refusal", |d| d.outcome.is_err()).await;
    let failure = delivery.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused(refused), "{failure:?}");
    assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
    assert!(failure.text.contains("remaining connection slots are reserved"), "{failure:?}");
    assert!(delivery.happened.tried);
    let counted: Vec<_> = delivery.happened.refused.iter().map(|r| (r.reason, r.count)).collect();
    assert_eq!(counted, [(refused, 1)]);
    // It stays a state at every tick, and each refusal is told once.
    let next = watch.next().await;
    assert_eq!(next.outcome.unwrap_err().kind, FailureKind::Refused(refused));
    assert_eq!(next.happened.refused, []);
    drop(held);
    assert!(watch.seen().await.slots().free > 0);
}

#[tokio::test]
async fn polls_go_on_while_every_catalog_is_locked() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen_from_now().await;
    execute(&superuser, &format!("BEGIN; {LOCK_EVERY_CATALOG}")).await;
    for _ in 0..10 {
        let delivery = watch.next().await;
        let seen = delivery.outcome.unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(seen.slots().used, 2);
    }
    execute(&superuser, "ROLLBACK").await;
}

#[tokio::test]
async fn cold_caches_behind_a_lock_say_so_and_who_holds_it() {
    let server = server(20, &[]).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    let granter = server.superuser().await.unwrap();
    let holder = server.superuser().await.unwrap();
    let pid = holder.backend_pid().await.unwrap();
    // The grant empties our cache of memberships when it commits, and the lock comes in behind it.
    execute(&granter, "BEGIN; GRANT pg_signal_backend TO app").await;
    let lock = holder.batch_execute("BEGIN; LOCK TABLE pg_auth_members IN ACCESS EXCLUSIVE MODE");
    let commit = async {
        let queued = "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted";
        until_true(&granter, queued).await;
        execute(&granter, "COMMIT").await;
    };
    let (locked, ()) = tokio::join!(lock, commit);
    locked.unwrap();
    let failure = watch.failure(FailureKind::Blocked).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("55P03"));
    let who = format!("pid {pid} holds an AccessExclusiveLock on pg_auth_members");
    let failure = watch
        .until("who", |d| d.outcome.as_ref().is_err_and(|f| f.text.contains(&who)))
        .await
        .outcome
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Blocked);
    assert_eq!(our_backends(&holder).await.len(), 1);
    execute(&holder, "ROLLBACK").await;
    watch.seen().await;
}

/// Processes that serve us, logins under way included: their titles name the role.
fn our_processes(server: &Server) -> usize {
    let title = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let is_ours = |pid: &i32| title(pid).is_ok_and(|title| title.contains(super::WATCHER));
    processes(server).iter().filter(|pid| is_ours(pid)).count()
}

#[tokio::test]
async fn with_the_roles_locked_for_a_minute_there_are_never_more_than_two_backends_of_ours() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen().await;
    execute(
        &superuser,
        "BEGIN; LOCK TABLE pg_authid, pg_database IN ACCESS EXCLUSIVE MODE;
        SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
        WHERE application_name = 'plimsoll'",
    )
    .await;
    let failure = watch.failure(FailureKind::TooSlow).await;
    assert!(failure.text.contains("a login was accepted and not answered"), "{failure:?}");
    let mut most = 0;
    let minute = tokio::time::sleep(std::time::Duration::from_mins(1));
    let mut minute = std::pin::pin!(minute);
    loop {
        tokio::select! {
            () = &mut minute => break,
            delivery = watch.next() => {
                let failure = delivery.outcome.unwrap_err();
                assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
            }
        }
        most = most.max(our_processes(&server));
        assert!(our_backends(&superuser).await.len() <= 2);
    }
    assert!((1..=2).contains(&most), "{most} processes of ours");
    execute(&superuser, "ROLLBACK").await;
    watch.seen().await;
    assert_eq!(our_backends(&superuser).await.len(), 1);
}

#[tokio::test]
async fn a_stopped_postmaster_takes_no_login_and_the_kept_connection_reads_on() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen().await;
    server.signal_postmaster(Signal::STOP).unwrap();
    for _ in 0..5 {
        assert!(watch.next().await.outcome.is_ok());
    }
    let pid = our_backends(&superuser).await[0];
    execute(&superuser, &format!("SELECT pg_terminate_backend({pid})")).await;
    let failure = watch.failure(FailureKind::TooSlow).await;
    assert!(failure.text.contains("a login was accepted and not answered"), "{failure:?}");
    server.signal_postmaster(Signal::CONT).unwrap();
    watch.seen().await;
}

#[tokio::test]
async fn a_stopped_backend_is_replaced_and_counted_until_it_is_gone() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen().await;
    let stuck = our_backends(&superuser).await[0];
    server.signal_backend(stuck, Signal::STOP).unwrap();
    let failure = watch.failure(FailureKind::TooSlow).await;
    assert!(failure.text.contains("a poll was accepted and not answered"), "{failure:?}");
    let seen = watch.seen().await;
    let ours: u32 =
        seen.groups.iter().filter(|g| &*g.application == "plimsoll").map(|g| g.connections).sum();
    assert_eq!(ours, 2, "{:?}", seen.groups);
    // Its successor stops, too: with two of ours there, no third is begun.
    let successor = our_backends(&superuser).await.into_iter().find(|pid| *pid != stuck).unwrap();
    server.signal_backend(successor, Signal::STOP).unwrap();
    let before = processes(&server);
    for _ in 0..30 {
        let failure = watch.failure(FailureKind::TooSlow).await;
        assert!(failure.text.contains("a poll was accepted"), "{failure:?}");
    }
    assert_eq!(processes(&server), before);
    server.signal_backend(stuck, Signal::CONT).unwrap();
    server.signal_backend(successor, Signal::CONT).unwrap();
    watch.seen().await;
    let one = "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    until_true(&superuser, one).await;
}

#[tokio::test]
async fn a_server_that_was_restarted_is_read_again() {
    let mut server = server(20, &[]).await;
    let watch = Watch::of(&server);
    let before = watch.seen().await.server;
    server.restart(Mode::Fast).await.unwrap();
    let started = |d: &super::Delivery| {
        d.outcome.as_deref().is_ok_and(|seen| seen.server.started_at > before.started_at)
    };
    let after = watch.until("the new start", started).await.outcome.unwrap().server.clone();
    assert_eq!(after.system_identifier, before.system_identifier);
}

#[tokio::test]
async fn a_server_that_was_stopped_is_stopped_and_read_when_it_is_back() {
    let mut server = server(20, &[]).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    server.stop(Mode::Immediate).await.unwrap();
    let failure = watch.failure(FailureKind::Stopped).await;
    assert!(failure.text.starts_with("connecting to 127.0.0.1:"), "{failure:?}");
    server.start_again().await.unwrap();
    watch.seen().await;
}

#[tokio::test]
async fn a_server_that_shuts_down_is_read_to_the_end_and_then_stopped() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen().await;
    // A smart shutdown takes no logins and waits for everybody who is there.
    server.signal_postmaster(Signal::TERM).unwrap();
    for _ in 0..3 {
        assert!(watch.next().await.outcome.is_ok());
    }
    execute(
        &superuser,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'plimsoll'",
    )
    .await;
    let failure = watch.failure(FailureKind::Stopped).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("57P03"), "{failure:?}");
}

#[tokio::test]
async fn a_server_that_recovers_is_starting() {
    // A standby that lets nobody in never gets any further.
    let settings = vec![("hot_standby".to_owned(), "off".to_owned())];
    let options = Options { settings, ..Options::default() };
    let mut server = crate::major::start(options, "").await;
    server.stop(Mode::Fast).await.unwrap();
    let signal = server.data_dir().join("standby.signal");
    fs::write(&signal, "").unwrap();
    let url = server.url("postgres", "postgres");
    let watch = Watch::start(super::settings(&url));
    server.start_again().await.unwrap();
    let failure = watch.failure(FailureKind::Starting).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("57P03"));
}

#[tokio::test]
async fn a_connection_limit_of_five_is_enough_whatever_happens_to_our_sessions() {
    let server = server(30, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 5").await;
    let watch = Watch::of(&server);
    for round in 0..2_u32 {
        watch.seen().await;
        // The kept connection is stuck, and replaced; then its successor is cut off.
        let stuck = our_backends(&superuser).await[0];
        server.signal_backend(stuck, Signal::STOP).unwrap();
        watch.failure(FailureKind::TooSlow).await;
        watch.seen().await;
        let others = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
            WHERE application_name = 'plimsoll' AND pid <> {stuck}"
        );
        execute(&superuser, &others).await;
        watch.seen_from_now().await;
        // New settings, and a login for them.
        let mut other = super::settings(&server.url(super::WATCHER, "postgres"));
        other.timeout += std::time::Duration::from_millis(u64::from(round) + 1);
        watch.settings.send_replace(std::sync::Arc::new(other));
        watch.seen_from_now().await;
        // The roles are locked, and the next login is stuck beside the stopped session.
        execute(
            &superuser,
            &format!("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE; {others}"),
        )
        .await;
        for _ in 0..20 {
            watch.failure(FailureKind::TooSlow).await;
            assert!(our_processes(&server) <= 2);
        }
        execute(&superuser, "ROLLBACK").await;
        watch.seen_from_now().await;
        server.signal_backend(stuck, Signal::CONT).unwrap();
        let one = "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'plimsoll'";
        until_true(&superuser, one).await;
    }
    assert!(!server.log().contains("too many connections for role"), "{}", server.log());
}
