//! A disk that stays away for very long: what is dropped is counted, and it is never an episode
//! or a notification that is still owed.

use std::fs;

use plimsoll::store::{MAX_OWED, MAX_WAITING_NOTIFICATIONS, MAX_WAITING_TRANSITIONS};
use plimsoll_core::judge::{Severity, Transition};

use super::build::{at, notification, quiet};
use super::{Open, column, look, one, open, until};

/// A store without a folder, and what makes room for one.
fn volatile() -> (tempfile::TempDir, Open) {
    let above = tempfile::tempdir().unwrap();
    fs::write(above.path().join("plimsoll"), "a file stands in its way").unwrap();
    let store = open(&above.path().join("plimsoll"));
    assert!(store.is_volatile());
    (above, store)
}

async fn disk_is_back(above: &tempfile::TempDir, store: &Open) -> rusqlite::Connection {
    let folder = above.path().join("plimsoll");
    fs::remove_file(&folder).unwrap();
    until("the folder can be made", || !store.is_volatile()).await;
    look(&folder)
}

#[tokio::test]
async fn the_oldest_transitions_go_first() {
    let (above, store) = volatile();
    let too_many = MAX_WAITING_TRANSITIONS as u64 + 50;
    for n in 1..=too_many {
        let mut change = quiet("db", n);
        let now = change.at;
        change.transitions = vec![Transition::Severity {
            incident: n.to_string(),
            severity: Severity::Warning,
            at: now,
        }];
        if n <= 3 {
            change.notifications = vec![notification("db", "on-call", n)];
        }
        store.store().commit(change).await;
    }
    assert_eq!(store.health.values().store.dropped, 50);
    let file = disk_is_back(&above, &store).await;
    assert_eq!(one(&file, "SELECT count(*) FROM transitions"), MAX_WAITING_TRANSITIONS as u64);
    let oldest = "SELECT transition ->> 'incident' FROM transitions ORDER BY at LIMIT 1";
    assert_eq!(column(&file, oldest), ["51"]);
    assert_eq!(one(&file, "SELECT episode ->> 'sequence' FROM episodes"), too_many);
    assert_eq!(one(&file, "SELECT count(*) FROM outbox"), 3);
    store.close().await;
}

/// Notifications `from` to `to`, in one commit.
async fn commit(store: &Open, from: usize, to: usize) {
    let mut change = quiet("db", to as u64);
    change.notifications = (from..=to).map(|n| notification("db", "on-call", n as u64)).collect();
    store.store().commit(change).await;
}

fn deliver(store: &Open, from: usize, to: usize) {
    for n in from..=to {
        store.store().outbox().delivered(&format!("db-on-call-{n:04}"), at(300));
    }
}

#[tokio::test]
async fn notifications_that_were_sent_go_before_those_that_were_not() {
    let (above, store) = volatile();
    let (half, all) = (MAX_OWED, MAX_WAITING_NOTIFICATIONS);
    commit(&store, 1, half).await;
    deliver(&store, 101, half);
    commit(&store, half + 1, all - 100).await;
    deliver(&store, half + 1, half + 1_000);
    assert_eq!(store.health.values().store.dropped, 0);
    commit(&store, all - 99, all + 60).await;
    assert_eq!(store.health.values().store.dropped, 60);
    let owed = store.ids("on-call");
    assert_eq!(owed.len(), all + 60 - (half - 100) - 1_000);
    let file = disk_is_back(&above, &store).await;
    let on_disk = "SELECT id FROM outbox WHERE state = 'owed' ORDER BY sequence";
    assert_eq!(column(&file, on_disk), owed);
    let sent = "SELECT min(sequence) FROM outbox WHERE state = 'delivered'";
    assert_eq!(one(&file, sent), 161);
    store.close().await;
}

#[tokio::test]
async fn a_sender_that_never_comes_round_loses_old_updates_and_no_trigger() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    commit(&store, 1, MAX_OWED + 5).await;
    let owed = store.ids("on-call");
    assert_eq!(owed.len(), MAX_OWED);
    assert_eq!(owed[..2], ["db-on-call-0001", "db-on-call-0007"]);
    assert_eq!(store.health.values().store.dropped, 5);
    store.close().await;
    let gone = "SELECT count(*) FROM outbox WHERE state = 'superseded' AND error IS NOT NULL";
    assert_eq!(one(&look(folder.path()), gone), 5);
    assert_eq!(open(folder.path()).ids("on-call"), owed);
}
