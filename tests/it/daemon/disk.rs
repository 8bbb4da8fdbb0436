//! The disk that stalls: the watch goes on, the page goes from memory, and all is caught up.

use plimsoll::drill::receiver::{Behaviour, Receiver};
use rusqlite::{Connection, OpenFlags};

use super::*;

/// How long the lock is held.
const STALL: Duration = Duration::from_secs(30);

pub(super) fn hold_write_lock(home: &Home) -> Connection {
    let path = home.state().join("state.db");
    let lock = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    lock.busy_timeout(DEADLINE).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    lock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_go_on_and_the_page_comes_while_the_disk_stalls_for_30_s() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;

    let lock = hold_write_lock(&home);
    let readings =
        || daemon.metric("plimsoll_readings_total", &[("target", "db"), ("outcome", "ok")]);
    let before = until("a first scrape", readings).await;
    let sessions = server.fill("app", "payment-api", 15).await.unwrap();
    let page = next(&receiver, "trigger").await;
    let opened: jiff::Timestamp = page["incident"]["opened_at"].as_str().unwrap().parse().unwrap();
    let sent: jiff::Timestamp = page["sent_at"].as_str().unwrap().parse().unwrap();
    let took = sent.duration_since(opened);
    assert!(took.as_secs_f64() <= 3.0, "the page came after {took:#}");
    let (status, health) = daemon.get("/healthz");
    assert_eq!(status, 503, "{health}");
    assert_eq!(daemon.metric("plimsoll_store_durable", &[]), Some(0.0));

    // The one wait here that is a time and not a condition: it is the subject.
    tokio::time::sleep(STALL).await;
    let readings = readings().unwrap() - before;
    assert!(STALL.as_secs_f64() * 0.8 <= readings, "only {readings} readings in {STALL:?}");
    drop(sessions);
    next(&receiver, "resolve").await;

    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    until("a durable store", || daemon.metric("plimsoll_store_durable", &[]).filter(|d| 0.5 < *d))
        .await;
    assert_eq!(daemon.get("/healthz").0, 200);
    let told = receiver.received().len();
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");

    // Everything is in the file: another daemon with it has nothing to say.
    let db = Connection::open_with_flags(
        home.state().join("state.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let owed: i64 = db
        .query_row(
            "SELECT count(*) FROM outbox WHERE state <> 'delivered' AND state <> 'superseded'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let delivered: i64 = db
        .query_row("SELECT count(*) FROM outbox WHERE state = 'delivered'", [], |row| row.get(0))
        .unwrap();
    let incidents: i64 = db
        .query_row("SELECT count(*) FROM incidents WHERE state = 'resolved'", [], |row| row.get(0))
        .unwrap();
    assert_eq!((owed, incidents), (0, 1));
    assert_eq!(usize::try_from(delivered).unwrap(), told);
}
