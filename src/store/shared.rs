//! What the watch, the sender and the writer share: what waits, what is owed, and whether the disk
//! takes it. One lock, held for a copy and never over I/O; the log is written after it is given
//! back.
//!
//! The rule that everything here keeps: a notification is shown to the sender when the transaction
//! that holds it is on disk, or when the store is *volatile*, and not before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_core::judge::Episode;
use plimsoll_core::judge::memory::Memory;
use plimsoll_core::judge::telling::Notification;
use tokio::sync::watch;

use super::disk::Written;
use super::outbox::{Rows, cut};
use super::waiting::{Mark, Parts, Queue, Ticket, Waiting};
use super::{Change, DeliveryState, Durability};
use crate::clock;
use crate::health::{Health, Values};

/// A commit waits so long for the disk and no longer: a page must not hang on a disk that stalls.
/// Two seconds are a hundred times what a slow disk takes, and still within one look of a person.
pub const COMMIT_WAIT: Duration = Duration::from_secs(2);

/// What was remembered of a target.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) at: Timestamp,
    pub(super) episode: Arc<Episode>,
    pub(super) memory: Option<Arc<Memory>>,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    work: Condvar,
    progress: watch::Sender<Progress>,
    changed: watch::Sender<u64>,
    health: Health,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    /// Notifications that wait for their commit, unseen by the sender.
    held: VecDeque<(Ticket, Vec<Arc<Notification>>)>,
    owed: Rows,
    episodes: BTreeMap<Arc<str>, Remembered>,
    /// Since when something waits and the disk has not answered.
    waiting_since: Option<Instant>,
    volatile_since: Option<Instant>,
    /// Write what waits, then end.
    closing: bool,
    /// End after the next failure.
    give_up: bool,
    /// The writer has ended.
    ended: bool,
}

/// How far the writer is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    written: Ticket,
    volatile: bool,
    ended: bool,
}

/// What the writer does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// Writes what waits.
    Write,
    /// Ends.
    End,
}

impl Shared {
    /// With what was on disk.
    pub(super) fn new(
        health: Health,
        episodes: BTreeMap<Arc<str>, Remembered>,
        owed: Rows,
        queue: Queue,
    ) -> Self {
        let waiting_since = (!queue.is_empty()).then(clock::monotonic);
        let inner = Inner {
            queue,
            held: VecDeque::new(),
            owed,
            episodes,
            waiting_since,
            volatile_since: None,
            closing: false,
            give_up: false,
            ended: false,
        };
        Self {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            changed: watch::Sender::new(0),
            health,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change of `Inner` is complete before anything in it can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for the watch ----

    /// The newest that a target committed, whether it is on disk or still waits for it.
    pub(super) fn episode(&self, target: &str) -> Option<Remembered> {
        self.lock().episodes.get(target).cloned()
    }

    /// The targets of which something is remembered.
    pub(super) fn targets(&self) -> Vec<String> {
        self.lock().episodes.keys().map(ToString::to_string).collect()
    }

    /// Queues a change and wakes the writer.
    pub(super) fn enqueue(&self, change: Change) -> Ticket {
        let (parts, now) = (Parts::from(change), clock::monotonic());
        let mut inner = self.lock();
        let before = inner.episodes.get(&parts.target).and_then(|one| one.memory.clone());
        let remembered = Remembered {
            at: parts.at,
            episode: Arc::clone(&parts.episode),
            memory: parts.memory.clone().or(before),
        };
        inner.episodes.insert(Arc::clone(&parts.target), remembered);
        let notifications = parts.notifications.clone();
        let ticket = inner.queue.change(parts);
        inner.waiting_since.get_or_insert(now);
        if !notifications.is_empty() {
            inner.held.push_back((ticket, notifications));
        }
        let overdue = inner.overdue(now);
        let said = match (inner.ended, inner.volatile_since, overdue) {
            (true, None, _) => self.begin_volatile(&mut inner, now, "the store is closed"),
            (false, None, true) => self.begin_volatile(&mut inner, now, NO_ANSWER),
            (_, None, _) => None,
            (_, Some(_), _) => {
                self.reveal(&mut inner, Ticket::MAX, &[]);
                None
            }
        };
        self.show(&inner, |_| ());
        drop(inner);
        self.work.notify_all();
        say(said);
        ticket
    }

    /// Waits until this ticket is on disk, or for [`COMMIT_WAIT`], or not at all when volatile.
    pub(super) async fn written(&self, ticket: Ticket) -> Durability {
        let mut progress = self.progress.subscribe();
        let done = progress.wait_for(|p| p.written >= ticket || p.volatile);
        let in_time = tokio::time::timeout(COMMIT_WAIT, done).await.is_ok();
        let mut inner = self.lock();
        if self.progress.borrow().written >= ticket {
            return Durability::Durable;
        }
        let said = if in_time {
            None
        } else {
            self.begin_volatile(&mut inner, clock::monotonic(), NO_ANSWER)
        };
        self.show(&inner, |_| ());
        drop(inner);
        say(said);
        Durability::Volatile
    }

    /// Lets the writer write what waits and end; whether all of it reached the disk in time.
    pub(super) async fn close(&self, within: Duration) -> Durability {
        self.lock().closing = true;
        self.work.notify_all();
        let mut progress = self.progress.subscribe();
        let ended = tokio::time::timeout(within, progress.wait_for(|p| p.ended)).await.is_ok();
        let mut inner = self.lock();
        inner.give_up = true;
        let written = inner.queue.is_empty();
        drop(inner);
        self.work.notify_all();
        if ended && written { Durability::Durable } else { Durability::Volatile }
    }

    /// Nobody holds the store any more: one last attempt, then the writer ends.
    pub(super) fn abandon(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        inner.give_up = true;
        drop(inner);
        self.work.notify_all();
    }

    // ---- for the sender ----

    /// Looks at what is owed.
    pub(super) fn with_owed<T>(&self, look: impl FnOnce(&Rows) -> T) -> T {
        look(&self.lock().owed)
    }

    /// See [`super::Outbox::changed`].
    pub(super) fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a notification out of the outbox for good.
    pub(super) fn finish(
        &self,
        id: &str,
        at: Timestamp,
        state: DeliveryState,
        error: Option<&str>,
    ) {
        let mut inner = self.lock();
        let Some(row) = inner.owed.remove(id) else { return };
        if state == DeliveryState::Delivered {
            inner.owed.accepted(&row.notification, at);
        }
        let mark = row.mark(state, Some(at), error.map(cut));
        self.marked(inner, id, at, mark);
    }

    /// Notes a failed attempt.
    pub(super) fn retry(&self, id: &str, attempts: u32, next_at: Timestamp, error: &str) {
        let mut inner = self.lock();
        let Some(row) = inner.owed.get_mut(id) else { return };
        row.attempts = attempts;
        row.next_at = Some(next_at);
        row.last_error = Some(cut(error));
        let mark = row.mark(DeliveryState::Owed, None, row.last_error.clone());
        let at = row.notification.decided_at;
        self.marked(inner, id, at, mark);
    }

    fn marked(&self, mut inner: MutexGuard<'_, Inner>, id: &str, at: Timestamp, mark: Mark) {
        inner.queue.mark(id.to_owned(), at, mark);
        inner.waiting_since.get_or_insert_with(clock::monotonic);
        self.show(&inner, |_| ());
        drop(inner);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        self.work.notify_all();
    }

    // ---- for readers and the writer ----

    /// A copy of what waits: what the file does not say yet. It is forgotten here once it does.
    pub(super) fn waiting(&self) -> Queue {
        self.lock().queue.clone()
    }

    // ---- for the writer ----

    /// Waits until there is something to write, or until a file that is not open is to be tried.
    pub(super) fn next(&self, file_is_open: bool, reopen_every: Duration) -> Next {
        let mut inner = self.lock();
        loop {
            if !inner.queue.is_empty() {
                return Next::Write;
            }
            if inner.closing {
                return Next::End;
            }
            if file_is_open {
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (back, timeout) =
                self.work.wait_timeout(inner, reopen_every).unwrap_or_else(PoisonError::into_inner);
            inner = back;
            if timeout.timed_out() {
                return Next::Write;
            }
        }
    }

    /// Waits before a failed transaction is tried again; false when it is not to be.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let inner = self.lock();
        if inner.give_up {
            return false;
        }
        let (inner, _) = self
            .work
            .wait_timeout_while(inner, pause, |inner| !inner.give_up)
            .unwrap_or_else(PoisonError::into_inner);
        drop(inner);
        true
    }

    /// A transaction is on disk.
    pub(super) fn succeeded(&self, written: &Written) {
        let mut inner = self.lock();
        inner.queue.written(written.up_to);
        // What is left came meanwhile: the disk has answered, and is waited for anew.
        inner.waiting_since = (!inner.queue.is_empty()).then(clock::monotonic);
        self.reveal(&mut inner, written.up_to, &written.finished);
        let ended = inner.volatile_since.take();
        self.show(&inner, |values| {
            values.store.commits = values.store.commits.saturating_add(1);
            values.store.problem = None;
        });
        self.progress.send_modify(|p| {
            p.written = written.up_to;
            p.volatile = false;
        });
        drop(inner);
        if let Some(since) = ended {
            let seconds = clock::monotonic().saturating_duration_since(since).as_secs_f64();
            tracing::info!(seconds, "the store is on disk again");
        }
    }

    /// A transaction failed; everything in it still waits. `wait_on` while it may be only a lock.
    pub(super) fn failed(&self, problem: &str, wait_on: bool) {
        let now = clock::monotonic();
        let mut inner = self.lock();
        let said = if inner.volatile_since.is_some() || (wait_on && !inner.overdue(now)) {
            None
        } else {
            self.begin_volatile(&mut inner, now, problem)
        };
        self.show(&inner, |values| {
            values.store.failures = values.store.failures.saturating_add(1);
            values.store.problem = Some(problem.to_owned());
        });
        drop(inner);
        say(said);
    }

    /// The file is not the one that this run knows: everything that is known waits for it anew.
    pub(super) fn enqueue_everything(&self) {
        let mut inner = self.lock();
        let Inner { queue, owed, episodes, .. } = &mut *inner;
        queue.ticket += 1;
        let ticket = queue.ticket;
        for (target, one) in episodes.iter() {
            let (at, episode) = (one.at, Arc::clone(&one.episode));
            let waiting = Waiting { ticket, at, value: episode };
            queue.episodes.entry(Arc::clone(target)).or_insert(waiting);
            if let Some(memory) = &one.memory {
                let waiting = Waiting { ticket, at, value: Arc::clone(memory) };
                queue.memories.entry(Arc::clone(target)).or_insert(waiting);
            }
        }
        let waiting: BTreeSet<String> =
            queue.notifications.iter().map(|one| one.value.id.clone()).collect();
        for row in owed.all().filter(|row| !waiting.contains(&row.notification.id)) {
            let at = row.notification.decided_at;
            let value = Arc::clone(&row.notification);
            queue.notifications.push_back(Waiting { ticket, at, value });
            let value = row.mark(DeliveryState::Owed, None, row.last_error.clone());
            let mark = Waiting { ticket, at, value };
            queue.marks.entry(row.notification.id.clone()).or_insert(mark);
        }
        self.show(&inner, |_| ());
    }

    /// There is no file at the start: volatile from the first moment. The caller says so.
    pub(super) fn begin_without_file(&self, problem: &str) {
        let mut inner = self.lock();
        let said = self.begin_volatile(&mut inner, clock::monotonic(), problem);
        drop((inner, said));
    }

    /// A file was set aside.
    pub(super) fn count_set_aside(&self) {
        let mut values = self.health.values();
        values.store.set_aside = values.store.set_aside.saturating_add(1);
    }

    /// The writer is gone, and with it the connection and the lock.
    pub(super) fn ended(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        let said = if inner.queue.is_empty() {
            None
        } else {
            self.begin_volatile(&mut inner, clock::monotonic(), "the store is closed")
        };
        self.progress.send_modify(|p| p.ended = true);
        drop(inner);
        say(said);
    }

    // ---- under the lock ----

    /// Gives what was known only here to the sender; gives back what to log, once.
    fn begin_volatile(&self, inner: &mut Inner, now: Instant, problem: &str) -> Option<Said> {
        if inner.volatile_since.is_some() {
            return None;
        }
        inner.volatile_since = Some(now);
        self.reveal(inner, Ticket::MAX, &[]);
        self.show(inner, |values| values.store.problem = Some(problem.to_owned()));
        self.progress.send_modify(|p| p.volatile = true);
        Some(Said { problem: problem.to_owned(), waiting: inner.queue.len() })
    }

    /// Shows the sender every notification up to this ticket.
    fn reveal(&self, inner: &mut Inner, up_to: Ticket, finished: &[String]) {
        let mut any = false;
        while inner.held.front().is_some_and(|(ticket, _)| *ticket <= up_to) {
            let Some((_, notifications)) = inner.held.pop_front() else { break };
            for one in notifications.into_iter().filter(|one| !finished.contains(&one.id)) {
                any = true;
                let at = one.decided_at;
                let Some(gone) = inner.owed.insert(one) else { continue };
                let error = Some("dropped: too many were owed".to_owned());
                let mark = gone.mark(DeliveryState::Superseded, Some(at), error);
                inner.queue.mark(gone.notification.id.clone(), at, mark);
                inner.queue.dropped = inner.queue.dropped.saturating_add(1);
            }
        }
        if any {
            self.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Writes what anybody may see of this store.
    fn show(&self, inner: &Inner, more: impl FnOnce(&mut Values)) {
        let mut values = self.health.values();
        values.store.volatile_since = inner.volatile_since;
        values.store.waiting = inner.queue.len();
        values.store.dropped = inner.queue.dropped;
        more(&mut values);
    }
}

impl Inner {
    fn overdue(&self, now: Instant) -> bool {
        self.waiting_since.is_some_and(|since| now.saturating_duration_since(since) >= COMMIT_WAIT)
    }
}

const NO_ANSWER: &str = "the disk did not answer in time";

/// What is logged when a store becomes volatile.
#[derive(Debug)]
struct Said {
    problem: String,
    waiting: usize,
}

fn say(said: Option<Said>) {
    if let Some(Said { problem, waiting }) = said {
        tracing::warn!(problem, waiting, "the store is volatile: what is decided is not on disk");
    }
}
