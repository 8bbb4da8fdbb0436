//! The writer: one thread that owns the connection and makes everything that waits one transaction.
//!
//! A transaction that fails is tried again with all that has come since. Whatever happens here,
//! the watch goes on: a panic counts as a failed transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::disk::Disk;
use super::file::Fault;
use super::shared::{Next, Shared};
use crate::clock;

/// Between two attempts. A page waits two seconds at most, and has two of them in that time.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A folder or file that could not be opened is tried so often while nothing waits for it.
const REOPEN_EVERY: Duration = Duration::from_secs(2);

/// Starts the thread. It ends, and gives the folder back, once the store is closed.
pub(super) fn start(shared: Arc<Shared>, mut disk: Disk) -> std::io::Result<()> {
    let work = move || {
        while !until_end(&shared, &mut disk, work) {}
        drop(disk);
        shared.ended();
    };
    // Nobody joins it: `Store::close` waits for it with a deadline, which a join has not.
    thread::Builder::new().name("store".to_owned()).spawn(work).map(drop)
}

/// Works until the store is closed; false after a panic that is not the end.
fn until_end(shared: &Shared, disk: &mut Disk, work: impl FnOnce(&Shared, &mut Disk)) -> bool {
    // What a panic may leave half done is the transaction, which SQLite rolls back, and the
    // connection, which is closed. What waits stays as it is until its transaction is on disk.
    let turn = catch_unwind(AssertUnwindSafe(|| work(shared, disk)));
    if turn.is_err() {
        disk.close_file();
        shared.failed("the writer panicked", false);
        return !shared.pause(RETRY_PAUSE);
    }
    true
}

fn work(shared: &Shared, disk: &mut Disk) {
    loop {
        if matches!(shared.next(disk.is_open(), REOPEN_EVERY), Next::End) {
            return;
        }
        let written = ready(shared, disk).and_then(|()| disk.write(|| shared.waiting()));
        match written {
            Ok(written) => shared.succeeded(&written),
            Err(fault) => {
                disk.recover_from(&fault);
                shared.failed(&fault.in_full(), fault.is_lock());
                if !shared.pause(RETRY_PAUSE) {
                    return;
                }
            }
        }
    }
}

/// Opens the file if it is not. When it is one that this run does not know, everything that is
/// known waits for it.
fn ready(shared: &Shared, disk: &mut Disk) -> Result<(), Fault> {
    if disk.is_open() {
        return Ok(());
    }
    let found = disk.open(clock::wall())?;
    if let Some((path, why)) = &found.set_aside {
        shared.count_set_aside();
        tracing::error!(path = %path.display(), why, "the state file was set aside");
    }
    if found.is_other {
        disk.take_over();
        shared.enqueue_everything();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::store::outbox::Rows;
    use crate::store::waiting::Queue;
    use jiff::Timestamp;
    use std::collections::BTreeMap;

    /// What goes wrong in here goes wrong in here: the next turn has a new connection.
    #[test]
    fn a_panic_is_a_failed_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::starting(Timestamp::UNIX_EPOCH);
        let shared =
            Shared::new(health.clone(), BTreeMap::new(), Rows::default(), Queue::default());
        let mut disk = Disk::new(folder.path());
        disk.open(Timestamp::UNIX_EPOCH).unwrap();
        disk.adopt();
        assert!(!until_end(&shared, &mut disk, |_, _| panic!("for the test")));
        assert!(!disk.is_open());
        let store = health.values().store.clone();
        assert_eq!((store.failures, store.problem.as_deref()), (1, Some("the writer panicked")));
        assert!(store.volatile_since.is_some());

        let next_turn = |shared: &Shared, disk: &mut Disk| {
            ready(shared, disk).unwrap();
            shared.succeeded(&disk.write(|| shared.waiting()).unwrap());
        };
        assert!(until_end(&shared, &mut disk, next_turn));
        assert!(health.values().store.volatile_since.is_none());
    }
}
