//! Servers that recover, stand by, are promoted, or take each other's place behind one address.

use plimsoll::drill::server::{Mode, Signal};
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::postgres::Observation;

use super::exact::logins_until_refused;
use super::{
    Delivery, WATCHER, Watch, execute, our_backends, patient, server, settings, until_true,
};
use crate::failover::{Address, begin_anew, standby_of};

fn is_standby(delivery: &Delivery) -> bool {
    delivery.outcome.as_deref().is_ok_and(|seen| seen.server.in_recovery)
}

fn is_primary(delivery: &Delivery) -> bool {
    delivery.outcome.as_deref().is_ok_and(|seen| !seen.server.in_recovery)
}

#[tokio::test]
async fn a_standby_is_read_exactly_and_over_its_promotion() {
    let mut primary = server(16, &[]).await;
    let standby = standby_of(&mut primary, 16).await;
    let watch = Watch::of(&standby);
    let before = watch.seen().await;
    assert!(before.server.in_recovery);
    let free = usize::try_from(before.slots().free).unwrap();
    let held = logins_until_refused(&standby, "app", "postgres").await;
    assert_eq!(held.len(), free);
    let full = |d: &Delivery| d.outcome.as_deref().is_ok_and(|o| o.slots().free == 0);
    watch.until("a full standby", full).await;

    let superuser = standby.superuser().await.unwrap();
    let ours = our_backends(&superuser).await;
    execute(&superuser, "SELECT pg_promote()").await;
    let after = watch.until("the promotion", is_primary).await.outcome.unwrap();
    assert_eq!(after.server.system_identifier, before.server.system_identifier);
    assert_eq!(after.server.started_at, before.server.started_at);
    // In a full server, over the connection that was there; the superuser sits on a reserved slot.
    assert_eq!(our_backends(&superuser).await, ours);
    assert_eq!(after.slots().free, -1);
}

#[tokio::test]
async fn a_failover_behind_one_address_shows_who_answers() {
    let mut primary = server(16, &[]).await;
    let (standby, mut other) = tokio::join!(standby_of(&mut primary, 16), server(16, &[]));
    begin_anew(&mut other).await;
    let superuser = other.superuser().await.unwrap();
    execute(&superuser, "CREATE ROLE watcher LOGIN IN ROLE pg_monitor").await;
    // From 15 on there is no such time before the first reset.
    let row = "SELECT stats_reset FROM pg_stat_database WHERE datname = 'postgres'";
    let reset_of =
        async || superuser.query_one(row, &[]).await.unwrap().get::<_, Option<jiff::Timestamp>>(0);
    let unset = reset_of().await;
    execute(&superuser, "SELECT pg_stat_reset()").await;
    // Up to 14 the collector carries it out a moment later.
    let changed = async { while reset_of().await == unset {} };
    tokio::time::timeout(super::DEADLINE, changed).await.expect("the reset");
    let address = Address::of(&primary).await;
    let watch = Watch::start(settings(&address.url(WATCHER)));
    let counted = |d: &Delivery| d.outcome.as_deref().is_ok_and(|seen| !seen.counters.is_empty());
    let reset_in = |seen: &Observation| {
        seen.counters.iter().find(|c| &*c.database == "postgres").unwrap().stats_reset
    };
    let first = watch.until("counters", counted).await.outcome.unwrap();
    let (first, first_reset) = (first.server.clone(), reset_in(&first));
    assert!(!first.in_recovery);

    address.lead_to(&standby);
    let second = watch.until("the standby", is_standby).await.outcome.unwrap();
    assert_eq!(second.server.system_identifier, first.system_identifier);

    address.lead_to(&other);
    let third = watch.until("the other", is_primary).await.outcome.unwrap();
    assert_ne!(third.server.system_identifier, first.system_identifier);
    // Counters are those of the server that answers, with their epoch.
    let fourth = watch.until("counters", counted).await.outcome.unwrap();
    let reset = reset_of().await;
    assert!(reset.is_some());
    assert_eq!(reset_in(&fourth), reset);
    assert_ne!(first_reset, reset);
    assert_eq!(our_backends(&superuser).await.len(), 1);
}

#[tokio::test]
async fn a_crash_of_one_backend_is_recovered_from_and_read_again() {
    let server = server(20, &[]).await;
    let watch = Watch::start(patient(&server.url(WATCHER, "postgres")));
    let before = watch.seen().await.server.clone();
    let mut victim = server.connect("app", "postgres").await.unwrap();
    let pid = victim.backend_pid().await.unwrap();
    let other = server.connect("app", "postgres").await.unwrap();
    let held = other.backend_pid().await.unwrap();
    let ours = our_backends(&server.superuser().await.unwrap()).await;
    // The postmaster then ends everybody and recovers. One that is stopped is in its way (it waits
    // for 5 s before it kills), so that we come while it takes nobody.
    server.signal_backend(held, Signal::STOP).unwrap();
    server.signal_backend(pid, Signal::KILL).unwrap();
    victim.until_closed().await;
    let starting = watch.failure(FailureKind::Starting).await;
    assert_eq!(starting.sqlstate.as_deref(), Some("57P03"), "{starting:?}");
    server.signal_backend(held, Signal::CONT).unwrap();
    let mut failures = Vec::new();
    let come_back = async {
        loop {
            match watch.next().await.outcome {
                Ok(seen) if seen.groups.iter().all(|g| &*g.application != "drill") => {
                    match server.superuser().await {
                        Ok(superuser) if our_backends(&superuser).await != ours => return seen,
                        _ => {}
                    }
                }
                Ok(_) => {}
                Err(failure) => failures.push(failure.kind),
            }
        }
    };
    let after =
        tokio::time::timeout(super::DEADLINE, come_back).await.expect("a reading").server.clone();
    // It is the same server, and not even its start is another.
    assert_eq!(after.system_identifier, before.system_identifier);
    assert_eq!(after.started_at, before.started_at);
    let fits = |kind: &FailureKind| matches!(kind, FailureKind::Starting | FailureKind::Stopped);
    assert!(failures.iter().all(fits), "{failures:?}");
}

#[tokio::test]
async fn after_an_immediate_shutdown_it_recovers_and_is_read_again() {
    let mut server = server(20, &[]).await;
    let watch = Watch::of(&server);
    let before = watch.seen().await.server.clone();
    let superuser = server.superuser().await.unwrap();
    // Something to replay.
    execute(&superuser, "CREATE TABLE kept AS SELECT generate_series(1, 10000)").await;
    server.restart(Mode::Immediate).await.unwrap();
    let started = |d: &Delivery| {
        d.outcome.as_deref().is_ok_and(|seen| seen.server.started_at > before.started_at)
    };
    let after = watch.until("the next start", started).await.outcome.unwrap();
    assert_eq!(after.server.system_identifier, before.system_identifier);
    let superuser = server.superuser().await.unwrap();
    until_true(&superuser, "SELECT count(*) = 10000 FROM kept").await;
}
