//! Opening: an empty folder, an older file, a newer one, damage of several kinds, no folder at
//! all, and another daemon in it. Nothing of it stops the watch but the last.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plimsoll::health::Health;
use plimsoll::store::{DeliveryState, Durability, Store, StoreError};
use plimsoll_core::judge::Transition;
use rusqlite::Connection;

use super::build::{at, told};
use super::{column, look, one, open, until};

/// A folder with five commits in its file, closed in good order.
async fn used() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    for n in 1..=5 {
        before.store().commit(told("db", n, &["on-call"])).await;
    }
    before.close().await;
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_empty_folder_is_made_and_nobody_else_reads_it() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("var").join("plimsoll");
    let first = open(&folder);
    assert!(first.opened.fresh);
    // Nothing was committed yet: a start that was killed does not count.
    first.close().await;
    let first = open(&folder);
    assert!(first.opened.fresh);
    assert_eq!((&first.opened.set_aside, &first.opened.problem), (&None, &None));
    first.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(mode(&folder), 0o700);
    for file in ["state.db", "state.db-wal", "state.db-shm", "state.lock"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
    first.close().await;
    assert!(!open(&folder).opened.fresh);
}

#[tokio::test]
async fn a_folder_has_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = Store::open(folder.path(), at(0), Health::starting(at(0)));
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    assert_eq!(first.store().commit(told("db", 1, &["on-call"])).await, Durability::Durable);
    first.close().await;
    assert_eq!(open(folder.path()).ids("on-call"), ["db-on-call-0001"]);
}

#[tokio::test]
async fn a_newer_file_is_set_aside_as_it_is() {
    let folder = used().await;
    let file = Connection::open(folder.path().join("state.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    let after = open(folder.path());
    let aside = after.opened.set_aside.clone().unwrap();
    assert!(aside.to_string_lossy().ends_with(".newer"), "{aside:?}");
    let problem = after.opened.problem.clone().unwrap();
    assert_eq!(problem, "the file has schema 99, and this program knows 1");
    assert!(!after.opened.fresh);
    assert_eq!(after.health.values().store.set_aside, 1);
    assert_eq!(after.store().episode("db"), None);
    assert_eq!(after.store().commit(told("db", 1, &["on-call"])).await, Durability::Durable);
    after.close().await;
    let newer = Connection::open(aside).unwrap();
    assert_eq!(one(&newer, "PRAGMA user_version"), 99);
    assert_eq!(one(&newer, "SELECT count(*) FROM outbox"), 5);
}

/// Damages a file, and finds it set aside and a new one in its place.
async fn check_damaged(why: &str, damage: impl Fn(&Path)) {
    let folder = used().await;
    let path = folder.path().join("state.db");
    damage(&path);
    let damaged = fs::read(&path).unwrap();
    let after = open(folder.path());
    let aside = after.opened.set_aside.clone().unwrap_or_else(|| panic!("{why}: was taken"));
    let name = aside.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("state.db.") && name.ends_with(".damaged"), "{name}");
    let problem = after.opened.problem.clone().unwrap();
    assert!(problem.starts_with("the file is damaged: "), "{why}: {problem}");
    assert!(fs::read(&aside).unwrap() == damaged, "{why}: it was written to");
    assert!(!after.opened.fresh, "{why}");
    assert_eq!(after.store().episode("db"), None, "{why}");
    assert_eq!(after.ids("on-call"), Vec::<String>::new(), "{why}");
    let commit = after.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(commit, Durability::Durable, "{why}");
    after.close().await;
    assert_eq!(open(folder.path()).ids("on-call"), ["db-on-call-0001"], "{why}");
}

fn overwrite(path: &Path, from: u64, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(bytes).unwrap();
}

fn execute(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    check_damaged("text", |path| fs::write(path, "not a database\n").unwrap()).await;
    check_damaged("garbage in its header", |path| overwrite(path, 0, &[0xA5; 100])).await;
    check_damaged("garbage in its first page", |path| overwrite(path, 100, &[0xA5; 900])).await;
    check_damaged("cut in the middle", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(fs::metadata(path).unwrap().len() / 2).unwrap();
    })
    .await;
    check_damaged("a page of zeros", |path| {
        let page = episodes_page(path) - 1;
        overwrite(path, page * 4096, &[0; 4096]);
    })
    .await;
    check_damaged("a table that is gone", |path| execute(path, "DROP TABLE outbox")).await;
    check_damaged("another program's", |path| {
        fs::remove_file(path).unwrap();
        execute(path, "CREATE TABLE songs (title TEXT)");
    })
    .await;
}

fn episodes_page(path: &Path) -> u64 {
    let connection = Connection::open(path).unwrap();
    one(&connection, "SELECT rootpage FROM sqlite_schema WHERE name = 'episodes'")
}

#[tokio::test]
async fn no_more_than_eight_files_are_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..10 {
        fs::write(folder.path().join("state.db"), "not a database\n").unwrap();
        let opened = Store::open(folder.path(), at(n), Health::starting(at(0))).unwrap();
        assert!(opened.set_aside.unwrap().exists());
        opened.store.close(super::DEADLINE).await;
    }
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut aside: Vec<String> = names.filter(|name| name.ends_with(".damaged")).collect();
    aside.sort();
    assert_eq!(aside.len(), 8);
    assert_eq!(aside[0], "state.db.2026-09-21T141322Z.damaged");
}

/// Every version that was ever released, as its own SQL.
const OLDER: [(u64, &str); 1] = [(1, include_str!("v1.sql"))];

#[tokio::test]
async fn every_older_file_is_read() {
    for (version, sql) in OLDER {
        let folder = tempfile::tempdir().unwrap();
        execute(&folder.path().join("state.db"), sql);
        assert_eq!(one(&look(folder.path()), "PRAGMA user_version"), version);
        let after = open(folder.path());
        assert_eq!(after.opened.problem, None, "version {version}");
        assert!(!after.opened.fresh);
        let (episode, memory) = after.store().episode("payment-db-primary").unwrap();
        assert_eq!((episode.sequence, episode.alerts.len()), (3, 1));
        assert!(memory.is_some());
        let owed = after.store().outbox().owed("on-call");
        let sequences: Vec<u64> = owed.iter().map(|one| one.notification.sequence).collect();
        assert_eq!(sequences, [2, 3]);
        assert_eq!((owed[0].attempts, owed[0].next_at), (2, Some(at(90))));
        assert_eq!(owed[0].previous_accepted_at, Some(at(1)));
        assert_eq!(owed[0].notification.report.alerts.len(), 1);
        let transitions = column(&look(folder.path()), "SELECT transition FROM transitions");
        assert_eq!(transitions.len(), 9);
        for json in transitions {
            serde_json::from_str::<Transition>(&json).unwrap();
        }
        let incident = after.store().incidents(None, 10).await.unwrap().remove(0);
        let detail = after.store().incident(&incident.report.id).await.unwrap().unwrap();
        let states: Vec<DeliveryState> = detail.deliveries.iter().map(|one| one.state).collect();
        assert_eq!(states, [DeliveryState::Delivered, DeliveryState::Owed, DeliveryState::Owed]);
        after.close().await;
        assert_eq!(one(&look(folder.path()), "PRAGMA user_version"), 1);
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_said_and_left_out() {
    let folder = used().await;
    let path = folder.path().join("state.db");
    execute(&path, "UPDATE outbox SET notification = '{' WHERE sequence = 2");
    execute(&path, "UPDATE outbox SET v = 7 WHERE sequence = 3");
    execute(&path, "UPDATE episodes SET episode = 'null'");
    let after = open(folder.path());
    let problem = after.opened.problem.clone().unwrap();
    assert_eq!(
        problem,
        "the notification db-on-call-0002 cannot be read and is not sent; \
         the notification db-on-call-0003 cannot be read and is not sent; \
         what was kept of the target db cannot be read"
    );
    assert_eq!(after.ids("on-call"), ["db-on-call-0001", "db-on-call-0004", "db-on-call-0005"]);
    assert_eq!(after.store().episode("db"), None);
    after.close().await;
    let parked = "SELECT id FROM outbox WHERE state = 'parked'";
    assert_eq!(column(&look(folder.path()), parked), ["db-on-call-0002", "db-on-call-0003"]);
    assert_eq!(open(folder.path()).opened.problem.unwrap().matches("notification").count(), 0);
}

#[tokio::test]
async fn without_a_folder_pages_go_from_memory_until_there_is_one() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("plimsoll");
    fs::write(&folder, "a file stands in its way").unwrap();
    let open = open(&folder);
    assert!(!open.opened.fresh);
    assert!(open.opened.problem.as_deref().unwrap().contains("File exists"));
    assert!(open.is_volatile());
    let commit = open.store().commit(told("db", 1, &["on-call"])).await;
    assert_eq!(commit, Durability::Volatile);
    assert_eq!(open.ids("on-call"), ["db-on-call-0001"]);
    assert_eq!(open.store().incidents(None, 10).await.unwrap().len(), 1);
    fs::remove_file(&folder).unwrap();
    until("the folder can be made", || !open.is_volatile()).await;
    assert_eq!(column(&look(&folder), "SELECT id FROM outbox"), ["db-on-call-0001"]);
    open.close().await;
}

/// The file was not there at the start (a volume that was mounted late) and holds another run.
#[tokio::test]
async fn a_file_that_comes_late_is_taken_over() {
    let folder = used().await;
    let (path, away) = (folder.path().join("state.db"), folder.path().join("away"));
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    let late = open(folder.path());
    assert!(late.is_volatile());
    let mut change = told("db", 1, &["on-call"]);
    change.notifications[0].id = "of-this-run".to_owned();
    late.store().commit(change).await;
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    until("the file is back", || !late.is_volatile()).await;
    assert_eq!(late.ids("on-call"), ["of-this-run"]);
    late.close().await;
    let file = look(folder.path());
    let owed = "SELECT id FROM outbox WHERE state = 'owed'";
    assert_eq!(column(&file, owed), ["of-this-run"]);
    let left = "SELECT count(*) FROM outbox WHERE state = 'superseded' AND error IS NOT NULL";
    assert_eq!(one(&file, left), 5);
    let episode = "SELECT episode ->> 'sequence' FROM episodes";
    assert_eq!(one(&file, episode), 1);
}

/// Somebody removes the file, or the whole folder, under the running daemon.
#[tokio::test]
async fn a_file_that_is_removed_is_written_anew() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("plimsoll");
    let open = open(&folder);
    open.store().commit(told("db", 1, &["on-call", "archive"])).await;
    open.store().outbox().delivered("db-archive-0001", at(2));
    open.store().outbox().retry("db-on-call-0001", 3, at(50), "503");
    fs::remove_dir_all(&folder).unwrap();
    open.store().commit(told("other", 1, &["on-call"])).await;
    until("it is written anew", || !open.is_volatile() && folder.join("state.db").exists()).await;
    let owed = open.store().outbox().owed("on-call");
    assert_eq!(owed.len(), 2);
    open.close().await;
    let after = super::open(&folder);
    assert_eq!(after.store().targets(), ["db", "other"]);
    assert_eq!(after.store().outbox().owed("on-call"), owed);
}

/// A folder that is cleaned while the daemon runs loses its lock, and another daemon can take it.
/// Two must not write one file: the first sees it with its next commit, and goes on from memory
/// until it is alone again.
#[tokio::test]
async fn a_lock_that_is_gone_is_taken_again_unless_another_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("state.lock");
    let first = open(folder.path());
    first.store().commit(told("db", 1, &["on-call"])).await;
    fs::remove_file(&lock).unwrap();
    first.store().commit(told("db", 2, &["on-call"])).await;
    until("the lock is taken again", || lock.exists() && !first.is_volatile()).await;
    let other = Store::open(folder.path(), at(0), Health::starting(at(0)));
    assert!(matches!(other, Err(StoreError::InUse { .. })), "{other:?}");

    fs::remove_file(&lock).unwrap();
    let second = open(folder.path());
    assert_eq!(second.ids("on-call"), ["db-on-call-0001", "db-on-call-0002"]);
    let commit = first.store().commit(told("db", 3, &["on-call"])).await;
    assert_eq!(commit, Durability::Volatile);
    let problem = first.health.values().store.problem.clone();
    assert!(problem.is_some(), "{problem:?}");
    assert_eq!(second.store().commit(told("db", 4, &["on-call"])).await, Durability::Durable);
    second.close().await;
    until("the first is alone again", || !first.is_volatile()).await;
    first.close().await;
    assert_eq!(open(folder.path()).store().episode("db").unwrap().0.sequence, 3);
}

/// What stands at the lock's place and is no file does not hold up the start.
#[tokio::test]
async fn a_pipe_in_the_place_of_the_lock_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("state.lock");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let open = open(folder.path());
    assert_eq!(open.store().commit(told("db", 1, &["on-call"])).await, Durability::Durable);
}
