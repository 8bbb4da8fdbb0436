//! What a crash leaves: the log cut anywhere opens as a prefix of what was committed.
//!
//! A power cut can lose the end of the log, at any byte. A kill cannot: what was written is the
//! system's. So the log is cut here, by hand, at each frame boundary and a byte beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::build::{at, told};
use super::{look, one, open};

const COMMITS: u64 = 6;

/// Copies the file and its log while their store is open. By another process: a descriptor of the
/// database that is closed here would give back the locks that SQLite holds here.
fn copy(from: &Path, to: &Path) {
    for file in ["state.db", "state.db-wal"] {
        let copied = Command::new("cp").arg(from.join(file)).arg(to.join(file)).status();
        assert!(copied.unwrap().success());
    }
}

/// What a folder holds: the newest episode, and how much of everything else.
async fn held(folder: &Path) -> (u64, u64, u64, u64) {
    let store = open(folder);
    assert_eq!(store.opened.set_aside, None);
    assert_eq!(store.opened.problem, None);
    let episode = store.store().episode("db").map_or(0, |(episode, _)| episode.sequence);
    let owed = store.store().outbox().owed("on-call");
    let sequences: Vec<u64> = owed.iter().map(|one| one.notification.sequence).collect();
    // A prefix, and not any subset.
    assert_eq!(sequences, (1..=owed.len() as u64).collect::<Vec<_>>());
    store.close().await;
    let file = look(folder);
    let count = |table: &str| one(&file, &format!("SELECT count(*) FROM {table}"));
    (episode, owed.len() as u64, count("outbox"), count("transitions"))
}

#[tokio::test]
async fn a_log_that_is_cut_anywhere_opens_as_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let original = open(folder.path());
    for n in 1..=COMMITS {
        original.store().commit(told("db", n, &["on-call"])).await;
    }
    let whole = tempfile::tempdir().unwrap();
    copy(folder.path(), whole.path());
    let (database, log) =
        (whole.path().join("state.db"), fs::read(whole.path().join("state.db-wal")).unwrap());
    let page = usize::try_from(u32::from_be_bytes(log[8..12].try_into().unwrap())).unwrap();
    let frames = (log.len() - 32) / (24 + page);
    assert!(frames as u64 >= COMMITS, "{frames} frames: there is nothing to cut");

    let mut cuts = vec![0, 1, 31];
    for frame in 0..=frames {
        let boundary = 32 + frame * (24 + page);
        cuts.extend([boundary - 1, boundary, boundary + 1]);
    }
    let (mut newest, mut seen) = (0, Vec::new());
    for cut in cuts.into_iter().filter(|cut| *cut <= log.len()) {
        let crashed = tempfile::tempdir().unwrap();
        fs::copy(&database, crashed.path().join("state.db")).unwrap();
        fs::write(crashed.path().join("state.db-wal"), &log[..cut]).unwrap();
        let (episode, owed, rows, transitions) = held(crashed.path()).await;
        // One transaction: all of a change, or nothing of it.
        assert_eq!([owed, rows, transitions], [episode; 3], "cut at byte {cut}");
        assert!(episode >= newest, "a longer log held less: cut at byte {cut}");
        newest = episode;
        seen.push(episode);
    }
    assert_eq!(newest, COMMITS, "the whole log holds everything");
    seen.dedup();
    assert_eq!(seen, (0..=COMMITS).collect::<Vec<_>>());
    original.close().await;
}

/// Not only cut but scribbled over: a log ends where it stops to be one.
#[tokio::test]
async fn garbage_in_the_log_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let original = open(folder.path());
    for n in 1..=COMMITS {
        original.store().commit(told("db", n, &["on-call"])).await;
    }
    let copied = tempfile::tempdir().unwrap();
    copy(folder.path(), copied.path());
    original.close().await;
    let path = copied.path().join("state.db-wal");
    let mut log = fs::read(&path).unwrap();
    let middle = log.len() / 2;
    log[middle..middle + 3000].fill(0xA5);
    fs::write(&path, log).unwrap();
    fs::write(copied.path().join("state.db-shm"), vec![0xA5; 32_768]).unwrap();
    let (episode, owed, rows, transitions) = held(copied.path()).await;
    assert_eq!([owed, rows, transitions], [episode; 3]);
    assert!((1..COMMITS).contains(&episode), "{episode}");
    // And it goes on from there.
    let after = open(copied.path());
    after.store().commit(told("db", episode + 1, &["on-call"])).await;
    after.store().outbox().delivered("db-on-call-0001", at(1));
    after.close().await;
    assert_eq!(open(copied.path()).ids("on-call").len() as u64, episode);
}
