//! The writer's side of the disk: the lock, the one connection that writes, and what one
//! transaction is. `Store::open` begins it, then it belongs to the writer.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::file::{self, FILE, Fault, Identity, Lock};
use super::retention;
use super::rows::{self, Loaded};
use super::waiting::{Queue, Ticket};

/// The state folder, with its file open or not.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    lock: Option<Lock>,
    open: Option<Open>,
    /// The file that this run has read or written in full.
    known: Option<Identity>,
    /// SQLite found damage while it wrote: the file is not used again, whatever a check says.
    distrusted: Option<String>,
    /// When was last looked for what can be forgotten, by the time that comes with changes.
    forgot_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    identity: Identity,
    /// What an earlier run owes here is to be superseded with the first transaction.
    has_others: bool,
}

/// A file that was opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) loaded: Loaded,
    /// What was there could not be used: where it is now, and why.
    pub(super) set_aside: Option<(PathBuf, String)>,
    /// This run has not seen this file before.
    pub(super) is_other: bool,
}

/// A transaction that is on disk.
#[derive(Debug)]
pub(super) struct Written {
    /// Everything up to this ticket.
    pub(super) up_to: Ticket,
    /// Notifications in it that the file knew as finished already: they are not sent again.
    pub(super) finished: Vec<String>,
}

impl Disk {
    /// A folder of which nothing is open yet.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lock: None,
            open: None,
            known: None,
            distrusted: None,
            forgot_at: None,
        }
    }

    /// Whether there is a file to write to.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The file's path.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Takes the folder and opens its file; one that cannot be used is set aside for a new one.
    pub(super) fn open(&mut self, now: Timestamp) -> Result<Found, Fault> {
        if !self.lock.as_ref().is_some_and(|lock| lock.is_of(&self.folder)) {
            self.lock = Some(Lock::take(&self.folder)?);
        }
        let path = self.path();
        let first = match self.distrusted.clone() {
            Some(why) if path.exists() => Err(Fault::Damaged(why)),
            _ => open_file(&path, now),
        };
        let (opened, set_aside) = match first {
            Err(why @ (Fault::Newer { .. } | Fault::Damaged(_))) => {
                let aside = file::set_aside(&path, now, &why)?;
                self.distrusted = None;
                (open_file(&path, now)?, Some((aside, why.to_string())))
            }
            opened => (opened?, None),
        };
        let (connection, loaded) = opened;
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let identity = file::identity(&path).ok_or_else(|| Fault::Folder {
            doing: "finding",
            path: path.clone(),
            source: missing,
        })?;
        self.distrusted = None;
        let is_other = self.known != Some(identity);
        self.open = Some(Open { connection, identity, has_others: false });
        Ok(Found { loaded, set_aside, is_other })
    }

    /// This run goes on from what was in the file.
    pub(super) fn adopt(&mut self) {
        self.known = self.open.as_ref().map(|open| open.identity);
    }

    /// This run began without the file, and goes on from what it knows itself.
    pub(super) fn take_over(&mut self) {
        if let Some(open) = &mut self.open {
            open.has_others = true;
        }
    }

    /// Writes everything that waits as one transaction. What waits is taken when nobody else holds
    /// the lock any more, so that it is all that came until then.
    pub(super) fn write(&mut self, take: impl FnOnce() -> Queue) -> Result<Written, Fault> {
        if !self.lock.as_ref().is_some_and(|lock| lock.is_of(&self.folder)) {
            // Another daemon may have written since, and from now on one may: it is all opened
            // anew, if there is no other.
            (self.open, self.known) = (None, None);
            return Err(Fault::LockGone);
        }
        let path = self.path();
        let Some(open) = &mut self.open else {
            return Err(Fault::Damaged("it is not open".to_owned()));
        };
        if file::identity(&path) != Some(open.identity) {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            self.open = None;
            return Err(Fault::Folder { doing: "finding", path, source });
        }
        let begin = open.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begin?;
        let queue = take();
        let finished = rows::put(&transaction, &queue)?;
        if open.has_others {
            rows::leave_others(&transaction, &queue)?;
        }
        let forgot_at = forget_some(&transaction, &queue, self.forgot_at)?;
        transaction.commit()?;
        open.has_others = false;
        self.known = Some(open.identity);
        self.forgot_at = forgot_at;
        Ok(Written { up_to: queue.ticket, finished })
    }

    /// After a failure: closes the file, to open it anew, unless it is as good as before. The
    /// folder stays ours.
    pub(super) fn recover_from(&mut self, fault: &Fault) {
        if !fault.spares_connection() {
            self.open = None;
        }
        if let Some(damage) = fault.damage() {
            self.distrusted = Some(damage);
        }
    }

    /// Closes the file, to open it anew.
    pub(super) fn close_file(&mut self) {
        self.open = None;
    }
}

/// When there is time for it (no page in it) and it is due.
fn forget_some(
    transaction: &rusqlite::Transaction<'_>,
    queue: &Queue,
    last: Option<Timestamp>,
) -> rusqlite::Result<Option<Timestamp>> {
    let Some(now) = queue.newest_at().filter(|_| queue.notifications.is_empty()) else {
        return Ok(last);
    };
    if last.is_some_and(|last| now.duration_since(last).unsigned_abs() < retention::EVERY) {
        return Ok(last);
    }
    let done = retention::forget(transaction, now)?;
    Ok(if done { Some(now) } else { last })
}

fn open_file(path: &Path, now: Timestamp) -> Result<(Connection, Loaded), Fault> {
    let mut connection = file::connect(path)?;
    file::prepare(&mut connection)?;
    let loaded = rows::load(&connection, now).map_err(file::reading)?;
    file::trust(&connection)?;
    Ok((connection, loaded))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the very connection that writes: none of this can be seen from another.
    #[test]
    fn commits_are_durable_by_its_settings() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(folder.path());
        for _ in ["a new file", "a file that was there"] {
            disk.open(Timestamp::UNIX_EPOCH).unwrap();
            let connection = &disk.open.as_ref().unwrap().connection;
            let number = |pragma: &str| -> i64 {
                connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
            };
            let mode: String =
                connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            // 2 is FULL, for auto_vacuum INCREMENTAL.
            assert_eq!(number("synchronous"), 2);
            assert_eq!(number("auto_vacuum"), 2);
            assert_eq!(number("foreign_keys"), 1);
            disk.close_file();
        }
    }
}
