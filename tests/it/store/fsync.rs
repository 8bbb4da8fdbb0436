//! That a commit is on disk: the settings of the very connection are checked when it is opened
//! (`src/store/file.rs`), and here the calls that reach the disk are counted from outside.
//!
//! A kill proves nothing of this: what was written and not synced survives it.

use std::io::Write;
use std::path::Path;

use tokio::task::JoinSet;

use super::build::{quiet, told};
use super::{again, open, state_folder_of_this_process, strace, until};

const COMMITS: u64 = 10;

/// A word that is seen in the trace, between the calls of the store.
fn mark(word: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("mark {word}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What is traced: commits one by one, then as many at once. It ends without closing, so that no
/// last checkpoint syncs what the commits did not.
fn be_traced(folder: &Path) -> ! {
    let runtime = super::runtime();
    runtime.block_on(async {
        let open = open(folder);
        open.store().commit(quiet("db", 0)).await;
        for n in 1..=COMMITS {
            mark(&format!("begin {n}"));
            open.store().commit(told("db", n, &["on-call"])).await;
            mark(&format!("end {n}"));
        }
        let held = rusqlite::Connection::open(folder.join("state.db")).unwrap();
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut commits = JoinSet::new();
        for n in 1..=COMMITS {
            let store = open.store().clone();
            commits.spawn(async move { store.commit(quiet(&format!("db-{n}"), 1)).await });
        }
        let all = usize::try_from(COMMITS).unwrap();
        until("all wait", || open.health.values().store.waiting == all).await;
        mark("begin all");
        drop(held);
        commits.join_all().await;
        mark("end all");
        std::process::exit(0)
    })
}

/// The calls on the log between two marks: `w` for a write, `s` for a sync.
fn calls(trace: &str, of: &str) -> String {
    let (begin, end) = (format!("mark begin {of}\\n"), format!("mark end {of}\\n"));
    let between = trace.lines().skip_while(|line| !line.contains(&begin));
    let between = between.take_while(|line| !line.contains(&end));
    let of_log = between.filter(|line| line.contains("/state.db-wal>"));
    let call = |line: &str| match line {
        line if line.contains("sync(") => Some('s'),
        line if line.contains("write") => Some('w'),
        _ => None,
    };
    of_log.filter_map(call).collect()
}

#[test]
fn every_commit_is_synced_once_after_its_last_write() {
    if let Some(folder) = state_folder_of_this_process() {
        be_traced(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let with = strace(&["-e", "trace=fsync,fdatasync,write,pwrite64"], &trace);
    let test = "store::fsync::every_commit_is_synced_once_after_its_last_write";
    again(&with, test, folder.path());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let each = (1..=COMMITS).map(|n| n.to_string()).chain(["all".to_owned()]);
    for of in each {
        let calls = calls(&trace, &of);
        assert!(calls.ends_with("ws"), "commit {of}: {calls:?}");
        assert_eq!(calls.matches('s').count(), 1, "commit {of}: {calls:?}");
    }
}
