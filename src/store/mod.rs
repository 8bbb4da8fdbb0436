//! Episode and outbox on disk: what is decided is written, then sent.
//!
//! `run` opens the store and commits each change of a target; `notify` drains the [`Outbox`];
//! `serve` reads the record. The store decides nothing, and nothing in it can stop the watch: when
//! the disk does not take a commit within [`COMMIT_WAIT`] the store is *volatile*, pages go from
//! memory, and one transaction catches up when the disk is back. That is the only case in which a
//! crash can have a page sent twice, under one key, or forget that it was sent.
//!
//! ```text
//!  commit ──▶ waiting ──▶ writer ──▶ state.db          (one thread, one transaction for all)
//!                │           │
//!                └─ held ────┴─▶ outbox ──▶ notify     (on disk first, or volatile)
//! ```

mod disk;
mod file;
mod look;
mod outbox;
mod record;
mod retention;
mod rows;
mod schema;
mod shared;
mod waiting;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::incident::Report;
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::telling::Notification;
use plimsoll_core::judge::{Episode, Transition};
use tokio::sync::Semaphore;

pub use look::{Look, look};
pub use outbox::{MAX_ERROR_CHARS, MAX_OWED, Outbox, Owed};
pub use record::{
    Delivery, IncidentDetail, IncidentRecord, MAX_DELIVERIES_READ, MAX_INCIDENTS_READ,
};
pub use shared::COMMIT_WAIT;
pub use waiting::{MAX_WAITING_NOTIFICATIONS, MAX_WAITING_REPORTS, MAX_WAITING_TRANSITIONS};

use crate::health::Health;
use disk::{Disk, Found};
use file::Fault;
use outbox::Rows;
use shared::Shared;
use waiting::{Mark, Queue};

/// At most so many reads of the record run at once: a disk that stalls must not take all threads
/// on which such work is done. The next ones wait for their turn.
const MAX_READS: usize = 2;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon runs with this state folder. Two would send everything twice: the one that
    /// comes second does not start.
    #[error("the state folder {folder} is in use by another plimsoll", folder = folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The record could not be read.
    #[error("reading the record of incidents")]
    Read(#[from] rusqlite::Error),
    /// The daemon ends.
    #[error("the store is closed")]
    Closed,
}

/// Whether a commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is.
    Durable,
    /// It is not yet, and waits in memory.
    Volatile,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// Not sent yet.
    Owed,
    /// Its receiver accepted it.
    Delivered,
    /// Its receiver refused it for good.
    Parked,
    /// A newer one said all that it would have.
    Superseded,
}

impl DeliveryState {
    const ALL: [Self; 4] = [Self::Owed, Self::Delivered, Self::Parked, Self::Superseded];

    /// The word in the file, the API and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Delivered => "delivered",
            Self::Parked => "parked",
            Self::Superseded => "superseded",
        }
    }

    fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.word() == word).unwrap_or(Self::Parked)
    }
}

/// What one step of the judge changed in one target: written together or not at all.
#[derive(Clone, Debug)]
pub struct Change {
    /// The target.
    pub target: String,
    /// The reading's time; the only time that the file is told.
    pub at: Timestamp,
    /// The episode after the step.
    pub episode: Episode,
    /// The memory, when this is one of its checkpoints; what was kept stays otherwise.
    pub memory: Option<Memory>,
    /// What changed state, for the record.
    pub transitions: Vec<Transition>,
    /// What is owed from now on. One whose id is known already changes nothing.
    pub notifications: Vec<Notification>,
    /// Incidents as they stand now, for the record: the one that ended, and the open one.
    pub reports: Vec<Report>,
}

/// A store that was opened, and what there is to say about that.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the file went that was damaged or too new; `problem` says which.
    pub set_aside: Option<PathBuf>,
    /// What is not as it should be. Not logged yet.
    pub problem: Option<String>,
    /// There is no earlier state: the folder was empty, or nothing was ever committed in it.
    pub fresh: bool,
}

/// Episode and outbox: a cheap handle.
#[derive(Clone, Debug)]
pub struct Store {
    handle: Arc<Handle>,
    path: PathBuf,
    reads: Arc<Semaphore>,
}

/// What all handles of a store hold; the writer ends when the last of them goes.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl Store {
    /// Opens the state of this folder, and starts the writer. Reads the file, so it may block for
    /// some seconds: for the start of the daemon, before anything is watched.
    ///
    /// Never fails the watch: a file that cannot be used is set aside, and without any file the
    /// store is volatile from the start and goes on trying.
    ///
    /// # Errors
    /// [`StoreError::InUse`], and no other.
    pub fn open(folder: &Path, now: Timestamp, health: Health) -> Result<Opened, StoreError> {
        let mut disk = Disk::new(folder);
        let path = disk.path();
        let found = match disk.open(now) {
            Err(Fault::InUse) => return Err(StoreError::InUse { folder: folder.to_owned() }),
            found => found,
        };
        let mut said = Vec::new();
        let (shared, set_aside, fresh) = match found {
            Ok(found) => {
                disk.adopt();
                restored(found, now, health, &mut said)
            }
            Err(fault) => {
                let problem = fault.in_full();
                let shared =
                    Shared::new(health, BTreeMap::new(), Rows::default(), Queue::default());
                shared.begin_without_file(&problem);
                said.push(problem);
                (shared, None, false)
            }
        };
        let shared = Arc::new(shared);
        if let Err(error) = writer::start(Arc::clone(&shared), disk) {
            said.push(format!("starting the thread that writes: {error}"));
            shared.begin_without_file("the thread that writes could not be started");
            shared.ended();
        }
        let reads = Arc::new(Semaphore::new(MAX_READS));
        let store = Self { handle: Arc::new(Handle { shared }), path, reads };
        let problem = if said.is_empty() { None } else { Some(said.join("; ")) };
        Ok(Opened { store, set_aside, problem, fresh })
    }

    /// What this target committed last, whether the disk has it yet or not.
    pub fn episode(&self, target: &str) -> Option<(Episode, Option<Memory>)> {
        let one = self.handle.shared.episode(target)?;
        Some(((*one.episode).clone(), one.memory.map(|memory| (*memory).clone())))
    }

    /// Every target of which something is kept, those included that settings no longer name.
    pub fn targets(&self) -> Vec<String> {
        self.handle.shared.targets()
    }

    /// Writes a change and waits for the disk, [`COMMIT_WAIT`] at most. After that, and not
    /// before, its notifications are in the outbox. Queued before this returns: commits keep the
    /// order in which they were called, and a caller that does not wait loses nothing.
    pub fn commit(&self, change: Change) -> impl Future<Output = Durability> + Send + 'static {
        let ticket = self.handle.shared.enqueue(change);
        let shared = Arc::clone(&self.handle.shared);
        async move { shared.written(ticket).await }
    }

    /// Writes a change without waiting for the disk: patience that was served, a checkpoint of the
    /// memory. Its notifications, if it has any, still come after the disk.
    pub fn commit_soon(&self, change: Change) {
        self.handle.shared.enqueue(change);
    }

    /// What is owed to receivers.
    pub fn outbox(&self) -> Outbox {
        Outbox(Arc::clone(&self.handle))
    }

    /// The newest incidents, of one target or of all, the newest first; at most
    /// [`MAX_INCIDENTS_READ`].
    pub async fn incidents(
        &self,
        target: Option<String>,
        limit: usize,
    ) -> Result<Vec<IncidentRecord>, StoreError> {
        let of = move |path: &Path, waiting: &Queue| {
            record::incidents(path, target.as_deref(), limit, waiting)
        };
        self.read(of).await
    }

    /// One incident and what was told of it.
    pub async fn incident(&self, id: &str) -> Result<Option<IncidentDetail>, StoreError> {
        let id = id.to_owned();
        self.read(move |path, waiting| record::incident(path, &id, waiting)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Path, &Queue) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.reads).acquire_owned().await;
        let turn = turn.map_err(|_| StoreError::Closed)?;
        let (shared, path) = (Arc::clone(&self.handle.shared), self.path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            // Taken before the file is read: what is written meanwhile is then in both.
            let waiting = shared.waiting();
            let found = read(&path, &waiting);
            drop(turn);
            found
        });
        reading.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes what still waits, closes the file and gives the folder back, in this time.
    /// [`Durability::Durable`] when everything reached the disk.
    pub async fn close(&self, within: Duration) -> Durability {
        self.handle.shared.close(within).await
    }
}

/// The state that was found in a file.
fn restored(
    found: Found,
    now: Timestamp,
    health: Health,
    said: &mut Vec<String>,
) -> (Shared, Option<PathBuf>, bool) {
    let Found { loaded, set_aside, is_other: _ } = found;
    let fresh = loaded.is_empty() && set_aside.is_none();
    let mut queue = Queue::default();
    for id in loaded.unreadable_owed {
        said.push(format!("the notification {id} cannot be read and is not sent"));
        let mark = Mark {
            state: DeliveryState::Parked,
            attempts: 0,
            next_at: None,
            finished_at: Some(now),
            error: Some("its row cannot be read".to_owned()),
        };
        queue.mark(id, now, mark);
    }
    for target in loaded.unreadable_episodes {
        said.push(format!("what was kept of the target {target} cannot be read"));
    }
    let owed = Rows::restored(loaded.owed, loaded.accepted);
    let shared = Shared::new(health, loaded.episodes, owed, queue);
    let set_aside = set_aside.map(|(path, why)| {
        shared.count_set_aside();
        said.push(why);
        path
    });
    (shared, set_aside, fresh)
}
