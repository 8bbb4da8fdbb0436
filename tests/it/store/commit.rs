//! Commits: on disk before anything is seen, one transaction for all that waits, and a disk that
//! is held by somebody else.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use plimsoll::store::{Change, Durability};
use rusqlite::Connection;
use tokio::task::JoinSet;

use super::build::{at, memory, quiet, told};
use super::{column, look, one, open, until};

/// Holds the write lock of a folder's file, from outside.
fn lock(folder: &std::path::Path) -> Connection {
    let connection = Connection::open(folder.join("state.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

/// Frames of the log that end a transaction: those that say how large the file is after them.
fn transactions_in_log(folder: &std::path::Path) -> usize {
    let log = std::fs::read(folder.join("state.db-wal")).unwrap();
    let page = usize::try_from(u32::from_be_bytes(log[8..12].try_into().unwrap())).unwrap();
    let frames = log[32..].chunks_exact(24 + page);
    // Frames of before the log was begun anew carry other salts.
    frames.filter(|frame| frame[8..16] == log[16..24] && frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    assert_eq!(before.store().episode("db"), None);
    let change = Change { memory: Some(memory(3)), ..told("db", 1, &["on-call", "archive"]) };
    assert_eq!(before.store().commit(change).await, Durability::Durable);
    assert_eq!(before.store().commit(told("db", 2, &["on-call"])).await, Durability::Durable);
    assert_eq!(before.store().commit(quiet("other", 5)).await, Durability::Durable);
    let remembered = before.store().episode("db").unwrap();
    assert_eq!((remembered.0.sequence, remembered.1.clone()), (2, Some(memory(3))));
    let owed = ["on-call", "archive"].map(|name| before.store().outbox().owed(name));
    assert_eq!((owed[0].len(), owed[1].len()), (2, 1));
    before.close().await;

    let after = open(folder.path());
    assert!(!after.opened.fresh);
    assert_eq!(after.opened.problem, None);
    assert_eq!(after.store().episode("db"), Some(remembered));
    assert_eq!(after.store().targets(), ["db", "other"]);
    assert_eq!(["on-call", "archive"].map(|name| after.store().outbox().owed(name)), owed);
    let receivers: Vec<String> = after.store().outbox().receivers().into_iter().collect();
    assert_eq!(receivers, ["archive", "on-call"]);
    after.close().await;
    let count = one(&look(folder.path()), "SELECT count(*) FROM transitions");
    assert_eq!(count, 2);
}

#[tokio::test]
async fn nothing_is_seen_before_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    let mut changed = open.store().outbox().changed();
    changed.mark_unchanged();
    for n in 1..=20 {
        let held = lock(folder.path());
        let mut commit = pin!(open.store().commit(told("db", n, &["on-call"])));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(commit.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(open.ids("on-call").len() as u64, n - 1);
        drop(held);
        assert_eq!(commit.await, Durability::Durable);
        // Both at once: on disk, and to be sent.
        let on_disk = column(&look(folder.path()), "SELECT id FROM outbox ORDER BY sequence");
        assert_eq!(open.ids("on-call"), on_disk);
        assert_eq!(on_disk.len() as u64, n);
    }
    changed.changed().await.unwrap();
    open.close().await;
}

#[tokio::test]
async fn all_that_waits_is_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    // The first commit begins the log, so that its frames can be counted.
    open.store().commit(quiet("db", 0)).await;
    let before = transactions_in_log(folder.path());
    let held = lock(folder.path());
    let mut commits = JoinSet::new();
    for n in 1..=50 {
        let store = open.store().clone();
        let target = format!("db-{n}");
        commits.spawn(async move { store.commit(told(&target, 1, &["on-call"])).await });
    }
    // An episode, a transition, an incident and a notification each.
    until("all wait", || open.health.values().store.waiting == 200).await;
    drop(held);
    let durable = commits.join_all().await;
    assert_eq!(durable, [Durability::Durable; 50]);
    assert_eq!(transactions_in_log(folder.path()) - before, 1);
    assert_eq!(open.ids("on-call").len(), 50);
    open.close().await;
}

/// The write lock is held for 30 s: pages go from memory, and one transaction catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_for_long_does_not_hold_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    open.store().commit(quiet("db", 0)).await;
    let before = transactions_in_log(folder.path());
    let held = lock(folder.path());
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_secs(30));
        drop(held);
    });

    let mut changed = open.store().outbox().changed();
    let first = open.store().commit(told("db", 1, &["on-call"]));
    assert_eq!(first.await, Durability::Volatile);
    changed.changed().await.unwrap();
    assert_eq!(open.ids("on-call"), ["db-on-call-0001"]);
    {
        let values = open.health.values();
        assert!(values.store.volatile_since.is_some());
        assert!(values.store.problem.is_some());
    }
    // Volatile already: nothing waits two seconds for nothing.
    for n in 2..=200 {
        let durability = open.store().commit(told("db", n, &["on-call"])).await;
        assert_eq!(durability, Durability::Volatile);
    }
    assert_eq!(open.store().episode("db").unwrap().0.sequence, 200);
    let outbox = open.store().outbox();
    outbox.delivered("db-on-call-0001", at(300));
    outbox.superseded(&["db-on-call-0002".to_owned()], at(301));
    outbox.retry("db-on-call-0003", 4, at(900), "502 Bad Gateway");
    assert_eq!(open.ids("on-call").len(), 198);
    assert!(!release.is_finished(), "the test was too slow to show anything");

    until("the disk is back", || !open.is_volatile()).await;
    assert_eq!(transactions_in_log(folder.path()) - before, 1);
    let file = look(folder.path());
    assert_eq!(one(&file, "SELECT count(*) FROM outbox"), 200);
    assert_eq!(one(&file, "SELECT count(*) FROM transitions"), 200);
    let states = "SELECT state FROM outbox ORDER BY sequence LIMIT 3";
    assert_eq!(column(&file, states), ["delivered", "superseded", "owed"]);
    let episode = "SELECT episode ->> 'sequence' FROM episodes WHERE target = 'db'";
    assert_eq!(one(&file, episode), 200);
    {
        let values = open.health.values();
        assert_eq!(values.store.problem, None);
        assert_eq!((values.store.waiting, values.store.dropped), (0, 0));
        assert!(values.store.failures > 0);
    }
    let owed = open.store().outbox().owed("on-call");
    open.close().await;
    assert_eq!(super::open(folder.path()).store().outbox().owed("on-call"), owed);
    release.join().unwrap();
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    let held = lock(folder.path());
    {
        let mut commit = pin!(open.store().commit(told("db", 1, &["on-call"])));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(commit.as_mut().poll(&mut context), Poll::Pending);
    }
    assert_eq!(open.store().episode("db").unwrap().0.sequence, 1);
    drop(held);
    until("it can be sent", || open.ids("on-call").len() == 1).await;
    assert_eq!(one(&look(folder.path()), "SELECT count(*) FROM outbox"), 1);
    open.close().await;
}

#[tokio::test]
async fn a_change_without_a_wait_is_written_too() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    for n in 1..=100 {
        before.store().commit_soon(quiet("db", n));
    }
    before.close().await;
    assert_eq!(open(folder.path()).store().episode("db").unwrap().0.sequence, 100);
}

#[tokio::test]
async fn an_id_that_is_known_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    open.store().commit(told("db", 1, &["on-call"])).await;
    open.store().outbox().retry("db-on-call-0001", 2, at(60), "503");
    open.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(open.store().outbox().owed("on-call")[0].attempts, 2);
    open.store().outbox().delivered("db-on-call-0001", at(61));
    open.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(open.ids("on-call"), Vec::<String>::new());
    open.close().await;
    let open = super::open(folder.path());
    open.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(open.ids("on-call"), Vec::<String>::new());
    open.close().await;
}

#[tokio::test]
async fn a_closed_store_still_lets_a_page_go() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    assert_eq!(open.store().close(super::DEADLINE).await, Durability::Durable);
    let late = open.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(late, Durability::Volatile);
    assert_eq!(open.ids("on-call"), ["db-on-call-0001"]);
    assert!(open.is_volatile());
}
