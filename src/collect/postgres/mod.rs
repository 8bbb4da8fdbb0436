//! The Postgres source: one kept connection, polled, and a delivery for each tick.
//!
//! [`Source::run`] is one loop over a few things that end: the tick, the poll, a login, the
//! connection. It never waits for any of them alone, so a server that does not answer is said to be
//! silent at the next tick and not when it speaks again. `run` starts it and reads its mailbox.
//!
//! The rules that it keeps, each because of an outage:
//! - The kept connection is given up only when its successor is in or its socket is dead: in a full
//!   server there is no other.
//! - There are never more than two backends of ours. A login that is not answered in time goes on
//!   until the server decides it; no other is begun meanwhile.
//! - The first login after a loss comes at once, the next with backoff, at most one a second.
//! - Where settings allow it, a refused login is followed by one over a replication connection. It
//!   is kept until an ordinary login gets in, and no longer.

mod account;
mod counters;
pub mod fallback;
pub mod inspect;
mod kept;
mod logins;
mod names;
mod observe;
pub(in crate::collect) mod pace;
mod poll;
mod rows;
mod session;
mod shown;
mod statements;
mod text;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_core::reading::postgres::{Cost, Observation};
use plimsoll_core::reading::{self, Failure, FailureKind, Refusal};
use plimsoll_core::settings::{Fallback, PasswordFrom};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use self::account::Account;
use self::counters::{CountersCache, Epoch};
use self::kept::Kept;
use self::logins::Logins;
use self::names::NamesCache;
use self::pace::Pace;
use self::poll::{Identity, Pass};
use self::session::{Ask, Turn, TurnError};
use super::conninfo::ConnInfo;
use super::login::failure::LoginError;
use super::login::{Access, Login, Purpose, Way};
use super::mailbox::{Delivery, Mailbox};
use crate::clock;

/// After so many timeouts without an answer a successor of the kept connection is sought.
const TIMEOUTS_UNTIL_REPLACED: u32 = 2;

/// How long sessions get to say goodbye when we stop.
const GOODBYE_AT_MOST: Duration = Duration::from_secs(1);

/// What a source is told by settings.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSettings {
    /// Where the server is, and who we are there.
    pub conninfo: ConnInfo,
    /// Where the password is looked up at every login, if not in `conninfo` or around it.
    pub password: Option<PasswordFrom>,
    /// The tick.
    pub interval: Duration,
    /// After so long without an answer a poll or a login has failed.
    pub timeout: Duration,
    /// Of one server core; tenfold in trouble and above half of the slots.
    pub budget: f64,
    /// How the server is read when it refuses our ordinary login.
    pub fallback: Fallback,
}

impl SourceSettings {
    /// Whether a connection under these settings can go on under others.
    fn keeps_connection_under(&self, other: &Self) -> bool {
        let same_login = self.conninfo == other.conninfo;
        same_login && self.password == other.password && self.timeout == other.timeout
    }

    /// Where its logins go, and as whom.
    fn access(&self) -> Access {
        Access {
            conninfo: self.conninfo.clone(),
            password: self.password.clone(),
            timeout: self.timeout,
        }
    }

    /// What its sessions are for.
    fn purpose(&self, way: Way) -> Purpose {
        Purpose::Watch { way, statement_timeout: self.statement_timeout() }
    }

    /// Somewhat less than our own patience: the server's word that it was too slow brings the
    /// connection back into step.
    fn statement_timeout(&self) -> Duration {
        self.timeout.mul_f64(0.8).max(Duration::from_millis(50))
    }
}

/// The source of one target.
pub struct Source {
    settings: Arc<SourceSettings>,
    /// A reload changes them while the source runs.
    told: watch::Receiver<Arc<SourceSettings>>,
    /// The kept connection is to be replaced by one under the settings of now.
    renew: bool,
    mailbox: Mailbox<Observation, reading::Logins>,
    /// An alert of the target is pending or firing.
    trouble: watch::Receiver<bool>,
    connections: JoinSet<(u64, String)>,
    polls: JoinSet<Turn>,
    logins: Logins,
    sessions: u64,
    kept: Option<Kept>,
    poll: Option<Waited>,
    /// How an ordinary login was refused last, since one got in, if a fallback is for that.
    refused: Option<(Refusal, Failure)>,
    due: Instant,
    poll_began: Instant,
    pace: Pace,
    names: NamesCache,
    counters: CountersCache,
    /// What is said at a tick at which nothing new is known.
    standing: Option<Failure>,
    /// Logins that were decided since the last delivery.
    decided: reading::Logins,
}

/// Something that should be answered by a deadline, after which it is said that it was not.
struct Waited {
    began: Instant,
    said_late: bool,
}

enum Event {
    Polled(Turn),
    LoggedIn(Result<Login, LoginError>),
    Lost(u64, String),
    Trouble,
    Settings,
    Time,
}

impl Source {
    /// A source that begins with [`Source::run`].
    pub fn new(
        mut told: watch::Receiver<Arc<SourceSettings>>,
        mailbox: Mailbox<Observation, reading::Logins>,
        trouble: watch::Receiver<bool>,
    ) -> Self {
        let now = clock::monotonic();
        let settings = Arc::clone(&told.borrow_and_update());
        Self {
            pace: Pace::new(settings.interval, settings.budget),
            due: now + settings.interval,
            settings,
            told,
            renew: false,
            mailbox,
            trouble,
            connections: JoinSet::new(),
            polls: JoinSet::new(),
            logins: Logins::new(now),
            sessions: 0,
            kept: None,
            poll: None,
            refused: None,
            poll_began: now,
            names: NamesCache::default(),
            counters: CountersCache::default(),
            standing: None,
            decided: reading::Logins::default(),
        }
    }

    /// Reads the server and leaves what it sees in the mailbox, until `stop` is ready.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let now = clock::monotonic();
            self.begin_what_is_due(now);
            let wake = self.next_wake(now);
            let event = tokio::select! {
                () = &mut stop => break,
                event = self.next_event(wake) => event,
            };
            self.take(event, clock::monotonic());
        }
        self.say_goodbye().await;
    }

    async fn next_event(&mut self, wake: Instant) -> Event {
        tokio::select! {
            Some(turn) = next_done(&mut self.polls) => Event::Polled(turn),
            Some(login) = self.logins.next_decided() => Event::LoggedIn(login),
            Some((session, why)) = next_done(&mut self.connections) => Event::Lost(session, why),
            Ok(()) = self.trouble.changed() => Event::Trouble,
            Ok(()) = self.told.changed() => Event::Settings,
            () = tokio::time::sleep_until(wake.into()) => Event::Time,
        }
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Polled(turn) => self.take_turn(turn, now),
            Event::LoggedIn(Ok(login)) => self.take_login(login, now),
            Event::LoggedIn(Err(error)) => self.take_refusal(&error, now),
            Event::Lost(session, why) => self.take_loss(session, &why, now),
            Event::Trouble => {
                let due = self.poll_began + self.pace.rest(*self.trouble.borrow_and_update());
                self.due = self.due.min(due.max(now));
            }
            Event::Settings => self.take_settings(now),
            Event::Time => {}
        }
    }

    /// Make before break: the kept connection goes on until its successor is in. Only when the
    /// target is elsewhere now, what the old server says is of no use; and a way that is not wanted
    /// any more is left.
    fn take_settings(&mut self, now: Instant) {
        let new = Arc::clone(&self.told.borrow_and_update());
        self.renew |= !self.settings.keeps_connection_under(&new);
        let elsewhere = self.settings.conninfo.address() != new.conninfo.address();
        let unwanted = |kept: &mut Kept| {
            elsewhere || kept.way == Way::Replication && new.fallback == Fallback::None
        };
        if let Some(kept) = self.kept.take_if(unwanted) {
            kept.drive.abort();
            self.end_poll();
        }
        self.pace = Pace::new(new.interval, new.budget);
        self.due = self.due.min(now + new.interval);
        if new.fallback == Fallback::None {
            self.logins.no_fallback();
        }
        self.settings = new;
    }

    // What is begun, and when.

    fn begin_what_is_due(&mut self, now: Instant) {
        self.say_what_is_late(now);
        if self.wants_login(now) && self.logins.due().is_some_and(|due| due <= now) {
            self.logins.begin(&self.settings, now);
        }
        if self.due <= now {
            self.tick(now);
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let timeout = self.settings.timeout;
        let late = |waited: &Waited| (!waited.said_late).then(|| waited.began + timeout);
        let poll_late = self.poll.as_ref().and_then(late);
        let login_late = self.logins.late_at(timeout);
        let login = self.logins.due().filter(|_| self.wants_login(now));
        [poll_late, login_late, login].into_iter().flatten().fold(self.due, Instant::min)
    }

    /// Whether an ordinary connection that answers is missing.
    fn wants_login(&self, now: Instant) -> bool {
        let ordinary = self.kept.as_ref().is_some_and(|kept| kept.way == Way::Ordinary);
        self.renew || !ordinary || self.is_blind(now)
    }

    /// Whether there is no connection, or the kept one has not answered for too long.
    fn is_blind(&self, now: Instant) -> bool {
        let stuck =
            |poll: &Waited| now >= poll.began + self.settings.timeout * TIMEOUTS_UNTIL_REPLACED;
        self.kept.is_none() || self.poll.as_ref().is_some_and(stuck)
    }

    /// A poll if there can be one; else what is known of why there is none.
    fn tick(&mut self, now: Instant) {
        let late = self.poll.as_ref().is_some_and(|poll| poll.said_late);
        self.due = now + self.settings.interval;
        if self.poll.is_none() && self.kept.is_some() {
            self.begin_poll(now);
            self.due = self.pace.next(now, now, *self.trouble.borrow());
        } else if let Some(failure) = self.standing.clone()
            && (late || self.kept.is_none())
        {
            self.leave(Err(failure), self.settings.interval, now);
        }
    }

    fn begin_poll(&mut self, now: Instant) {
        let Some(kept) = &self.kept else { return };
        let ask = Ask {
            names: self.names.are_old(now),
            names_if_unknown: self.names.may_be_read(now),
            counters: self.counters.ask(
                now,
                self.settings.timeout,
                kept.session.has_dear_counters(),
            ),
        };
        self.polls.spawn(Arc::clone(&kept.session).turn(self.names.known(), ask));
        self.poll = Some(Waited { began: now, said_late: false });
        self.poll_began = now;
    }

    fn say_what_is_late(&mut self, now: Instant) {
        let timeout = self.settings.timeout;
        let is_late = |waited: &Waited| !waited.said_late && now >= waited.began + timeout;
        if let Some(poll) = self.poll.as_mut().filter(|poll| is_late(poll)) {
            poll.said_late = true;
            self.fail(silence("a poll", timeout), now);
        }
        if let Some(login) = self.logins.late(timeout, now) {
            let silence = silence("a login", timeout);
            let failure = match &self.refused {
                Some((_, refused)) if login.way == Way::Replication => {
                    fallback::both(refused, silence, None)
                }
                _ => silence,
            };
            if self.kept.is_none() {
                self.fail(failure, now);
            }
        }
        self.logins.give_up_hopeless(now);
    }

    // What ended.

    fn take_turn(&mut self, mut turn: Turn, now: Instant) {
        if self.kept.as_ref().is_none_or(|kept| kept.session.id != turn.session) {
            return;
        }
        let Some(poll) = self.poll.take() else { return };
        if let Ok((identity, pass)) = &mut turn.outcome
            && self.names.forget_unless_of(identity.system_identifier)
        {
            // They were asked for by the names of the other.
            pass.counters = None;
        }
        if let Some(names) = turn.names {
            self.names.take(names, now);
        }
        if !matches!(turn.outcome, Err(TurnError::Lost(_)))
            && let Some(kept) = &mut self.kept
        {
            kept.has_answered = true;
            if kept.way == Way::Ordinary {
                self.logins.note_answer();
            }
        }
        match turn.outcome {
            Ok((identity, pass)) => self.take_pass(identity, pass, &poll, now),
            Err(TurnError::Failed(failure)) => self.fail(failure, now),
            Err(TurnError::Lost(why)) => self.take_loss(turn.session, &why, now),
        }
        self.due = self.pace.next(poll.began, now, *self.trouble.borrow());
    }

    fn take_pass(&mut self, identity: Identity, pass: Pass, poll: &Waited, now: Instant) {
        if let Some(failure) = observe::distrust(&pass.facts, &pass.activity) {
            self.fail(failure, now);
            return;
        }
        let epoch = Epoch {
            system_identifier: identity.system_identifier,
            started_at: pass.facts.started_at,
            in_recovery: pass.facts.in_recovery,
        };
        self.counters.take(epoch, pass.counters, now);
        let fallback = self.fallen_back();
        let processor_seconds = self.kept.as_mut().and_then(|kept| match &mut kept.account {
            Some(account) => account.spent(),
            unopened => {
                *unopened = Some(Account::of(identity.pid, &pass.facts.role));
                None
            }
        });
        let mut seen = observe::observation(
            identity,
            pass.facts,
            &pass.activity,
            observe::Known {
                names: &self.names.known(),
                counters: self.counters.known(),
                counters_age: self.counters.age(now),
            },
            fallback,
            Cost {
                poll_seconds: now.saturating_duration_since(poll.began).as_secs_f64(),
                server_seconds: pass.server_seconds,
                processor_seconds,
                budget_ratio: 0.0,
                next_after_seconds: 0.0,
            },
        );
        let cost = account::cost(processor_seconds, pass.server_seconds);
        self.pace.note(cost, seen.slots().utilization);
        let trouble = *self.trouble.borrow();
        let rest = self.pace.rest(trouble);
        seen.cost.budget_ratio = self.pace.budget_ratio(trouble);
        seen.cost.next_after_seconds = rest.as_secs_f64();
        if self.standing.take().is_some() {
            tracing::info!("readable again");
        }
        tracing::debug!(server_seconds = pass.server_seconds, processor_seconds, "polled");
        self.leave(Ok(seen), rest, now);
    }

    // What is said.

    fn fail(&mut self, failure: Failure, now: Instant) {
        if self.standing.as_ref().is_none_or(|known| known.kind != failure.kind) {
            tracing::warn!(kind = failure.kind.word(), text = failure.text, "cannot be read");
        }
        self.standing = Some(failure.clone());
        self.leave(Err(failure), self.settings.interval, now);
    }

    fn leave(&mut self, outcome: Result<Observation, Failure>, rhythm: Duration, now: Instant) {
        self.mailbox.leave(Delivery {
            taken_at: now,
            outcome: outcome.map(Arc::new),
            happened: std::mem::take(&mut self.decided),
            rhythm,
        });
    }

    fn end_poll(&mut self) {
        self.polls.abort_all();
        self.poll = None;
    }

    async fn say_goodbye(mut self) {
        self.logins.abort();
        self.end_poll();
        while self.polls.join_next().await.is_some() {}
        self.kept = None;
        let gone = async { while self.connections.join_next().await.is_some() {} };
        // A server that does not even take a goodbye finds the socket closed.
        drop(tokio::time::timeout(GOODBYE_AT_MOST, gone).await);
    }
}

fn silence(what: &str, timeout: Duration) -> Failure {
    let text = format!("{what} was accepted and not answered in {} s", timeout.as_secs_f64());
    Failure { kind: FailureKind::TooSlow, text, sqlstate: None }
}

/// The next task that ended; `None` if there is none. One that was ended by us gave nothing, and
/// a panic is passed on: the loop of the target counts it and starts again.
async fn next_done<T: 'static>(tasks: &mut JoinSet<T>) -> Option<T> {
    loop {
        match tasks.join_next().await? {
            Ok(done) => return Some(done),
            Err(error) => pass_panic_on(error),
        }
    }
}

fn pass_panic_on(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
