//! The loop of one target: a reading, the judge, the commit, what everyone may see.
//!
//! It never waits for the disk, a receiver or another target. A loop that panics is started again
//! from what it committed last; see [`super::supervise`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_core::judge::rule::RuleSet;
use plimsoll_core::judge::telling::Notification;
use plimsoll_core::judge::{
    Commit, Input, Rules, State, TargetIdentity, Transition, Verdict, step,
};
use plimsoll_core::reading::postgres::{Logging, Observation, Slots};
use plimsoll_core::reading::{Failure, FailureKind, Logins, Part, Reading};
use plimsoll_core::status::Published;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::beside::{LatestBeside, Mailboxes};
use crate::clock;
use crate::collect::mailbox::{Composed, Latest, Mailbox};
use crate::collect::postgres::SourceSettings;
use crate::health::{Health, LoopHealth};
use crate::store::{Change, Durability, Store};

/// The loop turns so often even where the tick is longer: `/healthz` takes one that has not turned
/// for 30 s for stuck.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// A name is looked up, a connection is made, a login and a poll are answered: the first reading,
/// good or failed, is due after so many of the poll's timeouts.
const FIRST_READING_STEPS: u32 = 4;

/// While patience is served the episode is on disk at least so often: a crash costs no more.
const PATIENCE_COMMIT_EVERY: Duration = Duration::from_secs(5);

/// The memory is on disk so often; when it is lost, rules learn anew.
const MEMORY_COMMIT_EVERY: Duration = Duration::from_mins(1);

/// Everything that the loop of one target needs. Cloned when it is started again.
#[derive(Clone)]
pub(super) struct Watch {
    /// The target's name: the key of its episode in the store.
    pub(super) target: String,
    /// What the judge is told; a reload changes it between two readings.
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    /// What the source is told: its tick is ours.
    pub(super) source: watch::Receiver<Arc<SourceSettings>>,
    /// Where the Postgres source leaves what it saw.
    pub(super) mailbox: Mailbox<Observation, Logins>,
    /// Where the other sources of the target leave what they saw.
    pub(super) beside: watch::Receiver<Arc<Mailboxes>>,
    /// Tells them what the server shows of its slots; `None` while that is unknown.
    pub(super) slots: watch::Sender<Option<Slots>>,
    /// Episode and outbox.
    pub(super) store: Store,
    /// Our own numbers.
    pub(super) health: Health,
    /// What everyone may see.
    pub(super) published: watch::Sender<Arc<Published>>,
    /// Tells the source that follows the server's log how that is written.
    pub(super) logging: watch::Sender<Option<Arc<Logging>>>,
    /// Tells the source that there is trouble, and that it may spend more.
    pub(super) trouble: watch::Sender<bool>,
    /// Turns true at the end.
    pub(super) stop: watch::Receiver<bool>,
}

impl Watch {
    /// Watches until it is told to stop.
    pub(super) async fn run(mut self) {
        let began = clock::monotonic();
        let mut turn = Turn::begin(&self);
        let (mut latest, mut beside) = (Latest::default(), LatestBeside::default());
        loop {
            self.mark_turn();
            let deadline = self.deadline(turn.last_reading);
            tokio::select! {
                biased;
                () = super::stopped(&mut self.stop) => break,
                () = self.mailbox.arrived() => {}
                () = sleep_until(deadline.into()) => {}
                () = sleep(TURN_AT_LEAST_EVERY) => continue,
            }
            let now = clock::monotonic();
            let composed = latest.compose(&self.mailbox, now);
            if let Some(composed) = composed.or_else(|| self.nothing_yet(began, now)) {
                let mut reading = turn.reading(composed, now);
                self.pass_on_logging(&reading);
                beside.compose(&self.beside.borrow_and_update(), &mut reading, now);
                let slots = reading.postgres.known().map(Observation::slots);
                self.slots.send_if_modified(|told| std::mem::replace(told, slots) != slots);
                turn.take(&self, reading, now);
            }
        }
        turn.end(&self).await;
    }

    /// A reading is composed when the source left something. If it leaves nothing for half an
    /// interval more than it should, one is composed of what is known: it only grows older.
    fn deadline(&self, last_reading: Option<Instant>) -> Instant {
        let interval = self.source.borrow().interval;
        last_reading.unwrap_or_else(clock::monotonic) + interval + interval / 2
    }

    /// What is known when the source has never left anything, and no failure either, for longer
    /// than a login and a poll may take: then nobody knows this server, and that is said. (A server
    /// that lets us in and closes, time after time; a file that cannot be read for a disk that
    /// hangs.) Once there was a first delivery, its age says it.
    fn nothing_yet(&self, began: Instant, now: Instant) -> Option<Composed<Observation, Logins>> {
        let source = self.source.borrow();
        let patience = source.timeout * FIRST_READING_STEPS + source.interval;
        if now.saturating_duration_since(began) < patience {
            return None;
        }
        let text = "nothing was read since its watch began; the log says what was tried".to_owned();
        let failure = Failure { kind: FailureKind::TooSlow, text, sqlstate: None };
        Some(Composed { part: standing(failure), happened: Logins::default() })
    }

    /// What the server says of its log outlives the connection that said it.
    fn pass_on_logging(&self, reading: &Reading) {
        let Ok(seen) = &reading.postgres.seen else { return };
        let Some(logging) = &seen.logging else { return };
        self.logging.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(logging);
            if is_new {
                *known = Some(Arc::clone(logging));
            }
            is_new
        });
    }

    /// Says that the loop turns.
    pub(super) fn mark_turn(&self) {
        let mut values = self.health.values();
        let now = clock::monotonic();
        let new = || LoopHealth { last_turn: now, restarts: 0, blind: false, replaced: 0 };
        let turned = values.loops.entry(self.target.clone()).or_insert_with(new);
        turned.last_turn = now;
        turned.replaced = self.mailbox.replaced();
    }
}

/// What a loop carries from turn to turn.
struct Turn {
    state: State,
    /// Commits that wait for the disk: each for 2 s at most, in which there are few readings.
    commits: JoinSet<Durability>,
    last_reading: Option<Instant>,
    last_commit: Instant,
    last_memory: Instant,
}

impl Turn {
    fn begin(watch: &Watch) -> Self {
        let now = clock::monotonic();
        let state = match watch.store.episode(&watch.target) {
            Some((episode, memory)) => State::restored(episode, memory),
            None => State::empty(),
        };
        Self {
            state,
            commits: JoinSet::new(),
            last_reading: None,
            last_commit: now,
            last_memory: now,
        }
    }

    fn reading(&mut self, composed: Composed<Observation, Logins>, now: Instant) -> Reading {
        let before = self.last_reading.replace(now);
        let elapsed = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        Reading::of_postgres(clock::wall(), elapsed, composed.part, composed.happened)
    }

    fn take(&mut self, watch: &Watch, reading: Reading, now: Instant) {
        let rules = Arc::clone(&watch.rules.borrow());
        let input = Input { reading };
        // Nobody reads it in between: after a panic the loop begins with what was committed.
        let state = std::mem::replace(&mut self.state, State::empty());
        let (state, verdict) = step(&rules, state, &input);
        self.state = state;
        let before = Arc::clone(&watch.published.borrow());
        let after = before.after(input.reading, &rules, &self.state, &verdict);
        watch.published.send_replace(Arc::new(after));
        // Advice may stand for years and is no trouble.
        let in_trouble = self.state.episode.alerts.iter().any(|alert| !alert.rule.is_advice());
        watch.trouble.send_if_modified(|told| std::mem::replace(told, in_trouble) != in_trouble);
        // What must not be lost first: the log is somebody else's pipe.
        let said = said(&verdict);
        self.commit(watch, verdict, now);
        log(&rules.target, &said);
    }

    fn commit(&mut self, watch: &Watch, verdict: Verdict, now: Instant) {
        let since = |last: Instant| now.saturating_duration_since(last);
        let memory_due = MEMORY_COMMIT_EVERY <= since(self.last_memory);
        let due = match verdict.commit {
            Commit::Transition => true,
            Commit::Patience => PATIENCE_COMMIT_EVERY <= since(self.last_commit) || memory_due,
            Commit::Unchanged => memory_due,
        };
        while self.commits.try_join_next().is_some() {}
        if !due {
            return;
        }
        self.last_commit = now;
        let with_memory = memory_due || verdict.commit == Commit::Transition;
        if with_memory {
            self.last_memory = now;
        }
        let change = change(&watch.target, &self.state, verdict, with_memory);
        // Queued here and now, so that the order is that of the readings; waited for elsewhere.
        self.commits.spawn(watch.store.commit(change));
    }

    /// Commits what patience was served, and waits until all that was decided is in the outbox:
    /// the sender sends it before it ends. Each commit waits for the disk for 2 s at most.
    async fn end(mut self, watch: &Watch) {
        if self.last_reading.is_some() {
            let nothing = Verdict::of_nothing(Commit::Patience);
            let change = change(&watch.target, &self.state, nothing, true);
            self.commits.spawn(watch.store.commit(change));
        }
        while self.commits.join_next().await.is_some() {}
    }
}

/// What the store is told: it shows the notifications to the sender when they are on disk, or
/// after 2 s.
fn change(target: &str, state: &State, verdict: Verdict, with_memory: bool) -> Change {
    Change {
        target: target.to_owned(),
        at: clock::wall(),
        episode: state.episode.clone(),
        memory: with_memory.then(|| state.memory.clone()),
        transitions: verdict.transitions,
        notifications: verdict.notifications,
        reports: verdict.ended.into_iter().chain(verdict.open).collect(),
    }
}

/// What the log is told of a verdict, when the verdict itself has gone to the store.
struct Said {
    transitions: Vec<Transition>,
    /// Receiver, kind and id of what is owed.
    owed: Vec<(String, &'static str, String)>,
}

fn said(verdict: &Verdict) -> Said {
    let owed = |n: &Notification| (n.receiver.clone(), n.kind.word(), n.id.clone());
    Said {
        transitions: verdict.transitions.clone(),
        owed: verdict.notifications.iter().map(owed).collect(),
    }
}

fn log(target: &TargetIdentity, said: &Said) {
    let db = target.name.as_str();
    for transition in &said.transitions {
        match transition {
            Transition::Alert { rule, subject, state, severity, .. } => tracing::info!(
                db,
                rule = rule.word(),
                subject = subject.word(),
                state = state.word(),
                severity = severity.word(),
                "an alert changed"
            ),
            Transition::Switched { to, .. } => {
                tracing::warn!(db, to = to.words(), "another server, or another part");
            }
            Transition::Opened { incident, severity, .. } => {
                let severity = severity.word();
                tracing::warn!(db, incident, severity, "an incident opened");
            }
            Transition::Severity { incident, severity, .. } => {
                let severity = severity.word();
                tracing::warn!(db, incident, severity, "an incident changed its severity");
            }
            Transition::Resolved { incident, .. } => {
                tracing::info!(db, incident, "an incident ended");
            }
        }
    }
    for (receiver, kind, notification) in &said.owed {
        tracing::info!(db, receiver, kind, notification, "a notification is owed");
    }
}

/// A failure that stands until something else is known.
fn standing<T>(failure: Failure) -> Part<T> {
    Part { age: Duration::ZERO, fresh: true, stale_after: Duration::MAX, seen: Err(failure) }
}

/// One step on a reading that nobody took: of a target whose loop is given up, or that is not
/// watched any more. What follows from it is owed like anything else.
pub(super) async fn take_failure(
    store: &Store,
    rules: &Rules,
    published: Option<&watch::Sender<Arc<Published>>>,
    text: &str,
) {
    let Some((episode, memory)) = store.episode(&rules.target.name) else { return };
    if episode.is_over() && rules.set == RuleSet::off() {
        return;
    }
    let failure = Failure { kind: FailureKind::Broken, text: text.to_owned(), sqlstate: None };
    let part = standing(failure);
    let reading = Reading::of_postgres(clock::wall(), Duration::ZERO, part, Logins::default());
    let input = Input { reading };
    let (state, verdict) = step(rules, State::restored(episode, memory), &input);
    if let Some(published) = published {
        let before = Arc::clone(&published.borrow());
        let after = before.after(input.reading, rules, &state, &verdict);
        published.send_replace(Arc::new(after));
    }
    let said = said(&verdict);
    store.commit(change(&rules.target.name, &state, verdict, true)).await;
    log(&rules.target, &said);
}
