//! Disks that are full, fail or stall.
//!
//! Made from outside, by `strace`, which answers the calls of the store in the disk's place, and
//! by a limit on the size of files. Both concern a whole process: so each test runs itself again,
//! as a process of its own.

use std::path::Path;

use plimsoll::store::Durability;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::build::{at, quiet, told};
use super::{DEADLINE, again, look, one, open, state_folder_of_this_process, strace, until};

/// From now on no file grows beyond so many bytes, or every file does again.
fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

const UPDATES: u64 = 300;

async fn meet_a_disk_without_room(folder: &Path) {
    let open = open(folder);
    assert_eq!(open.store().commit(told("db", 1, &["on-call"])).await, Durability::Durable);
    limit_files(Some(0));
    for n in 2..=UPDATES {
        let commit = open.store().commit(told("db", n, &["on-call"])).await;
        assert_eq!(commit, Durability::Volatile);
        assert_eq!(open.ids("on-call").len() as u64, n);
    }
    open.store().outbox().delivered("db-on-call-0001", at(2));
    open.store().commit_soon(quiet("other", 7));
    // It is tried again, and fails again, and still nothing is lost.
    let failures = open.health.values().store.failures;
    until("it was tried again", || open.health.values().store.failures > failures + 1).await;
    assert!(open.is_volatile());
    assert!(open.health.values().store.problem.is_some());
    limit_files(None);
    until("there is room again", || !open.is_volatile()).await;
    assert_eq!(open.health.values().store.dropped, 0);
    assert_eq!(open.health.values().store.set_aside, 0);
    open.close().await;
}

#[test]
fn a_disk_without_room_holds_no_page_and_loses_none() {
    if let Some(folder) = state_folder_of_this_process() {
        super::runtime().block_on(meet_a_disk_without_room(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Without the trap a write beyond the limit would be a signal and not an error.
    let trap = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let test = "store::disk::a_disk_without_room_holds_no_page_and_loses_none";
    again(&trap, test, folder.path());
    let after = open(folder.path());
    assert_eq!(after.opened.problem, None);
    assert_eq!(after.store().episode("db").unwrap().0.sequence, UPDATES);
    assert_eq!(after.store().episode("other").unwrap().0.sequence, 7);
    assert_eq!(after.ids("on-call").len() as u64, UPDATES - 1);
    assert_eq!(one(&look(folder.path()), "SELECT count(*) FROM transitions"), UPDATES);
}

/// Commits until the disk fails, until it is well again, and three more.
async fn meet_trouble(folder: &Path) {
    let open = open(folder);
    let mut n = 0;
    let mut commit = async || {
        n += 1;
        assert!(n < 1_000, "the disk is too good");
        let durability = open.store().commit(told("db", n, &["on-call"])).await;
        assert_eq!(open.ids("on-call").len() as u64, n);
        durability
    };
    let trouble = async { while commit().await == Durability::Durable {} };
    tokio::time::timeout(DEADLINE, trouble).await.unwrap();
    commit().await;
    until("the disk is well again", || !open.is_volatile()).await;
    for _ in 0..3 {
        assert_eq!(commit().await, Durability::Durable);
    }
    assert_eq!(open.health.values().store.dropped, 0);
    assert_eq!(open.health.values().store.set_aside, 0);
    open.close().await;
}

/// Lets some calls of the store be answered as a bad disk would, in a process of its own.
fn check(test: &str, inject: &str) {
    if let Some(folder) = state_folder_of_this_process() {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
        super::runtime().block_on(meet_trouble(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let inject = format!("inject={inject}");
    let with = strace(&["-e", "trace=pwrite64,fsync,fdatasync", "-e", &inject], &trace);
    let state = folder.path().join("state");
    let log = again(&with, test, &state);
    // Said once when it began and once when it ended, however often it was tried in between.
    let said = |level: &str, what: &str| {
        log.lines().filter(|line| line.contains(level) && line.contains(what)).count()
    };
    let began = said(" WARN ", "the store is volatile");
    assert_eq!((began, said(" INFO ", "the store is on disk again")), (1, 1), "{log}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let injected = trace.matches("(INJECTED)").count() + trace.matches("(DELAYED)").count();
    assert!(injected > 0, "nothing went wrong in:\n{trace}");
    let after = open(&state);
    assert_eq!(after.opened.problem, None);
    let last = after.store().episode("db").unwrap().0.sequence;
    assert_eq!(after.ids("on-call").len() as u64, last);
    assert_eq!(one(&look(&state), "SELECT count(*) FROM transitions"), last);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    let test = "store::disk::a_disk_that_is_full_for_a_while";
    check(test, "pwrite64:error=ENOSPC:when=60..64");
}

#[test]
fn a_disk_that_fails_to_write_for_a_while() {
    let test = "store::disk::a_disk_that_fails_to_write_for_a_while";
    check(test, "pwrite64:error=EIO:when=60..64");
}

#[test]
fn a_disk_that_fails_to_sync_for_a_while() {
    let test = "store::disk::a_disk_that_fails_to_sync_for_a_while";
    check(test, "fsync,fdatasync:error=EIO:when=30..32");
}

/// It takes the write, and then does not answer: the thread that writes hangs in the system.
#[test]
fn a_disk_that_stalls() {
    let test = "store::disk::a_disk_that_stalls";
    check(test, "fsync,fdatasync:delay_enter=8000000:when=30");
}
