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

mod counters;
mod failure;
pub mod inspect;
mod login;
mod names;
mod observe;
mod open;
mod pace;
mod password;
mod poll;
mod session;
mod socket;
mod text;
mod wary;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_core::reading::postgres::{Cost, Observation};
use plimsoll_core::reading::{Failure, FailureKind, RefusedLogin};
use plimsoll_core::settings::PasswordFrom;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use self::counters::{CountersCache, Epoch};
use self::failure::LoginError;
use self::login::Login;
use self::names::NamesCache;
use self::pace::{LOGINS_APART, Pace};
use self::poll::{Identity, Pass};
use self::session::{Ask, Session, Turn, TurnError};
use self::socket::Ledger;
use super::conninfo::ConnInfo;
use super::mailbox::{Delivery, Mailbox, add_refused};
use crate::clock;

/// So many sockets of ours may be open at the server: the kept connection and one more, its
/// successor or a login that is stuck.
const MAX_SOCKETS: usize = 2;

/// After so many timeouts without an answer a successor of the kept connection is sought.
const TIMEOUTS_UNTIL_REPLACED: u32 = 2;

/// A login that was not decided after so long is given up: what swallowed it may be a proxy that
/// will never answer. Its socket is still counted.
const LOGIN_AT_MOST: Duration = Duration::from_mins(15);

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
}

impl SourceSettings {
    /// Whether a connection under these settings can go on under others.
    fn keeps_connection_under(&self, other: &Self) -> bool {
        let same_login = self.conninfo == other.conninfo;
        same_login && self.password == other.password && self.timeout == other.timeout
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
    mailbox: Mailbox<Observation>,
    /// An alert of the target is pending or firing.
    trouble: watch::Receiver<bool>,
    ledger: Ledger,
    connections: JoinSet<(u64, String)>,
    polls: JoinSet<Turn>,
    logins: JoinSet<Result<Login, LoginError>>,
    sessions: u64,
    kept: Option<Kept>,
    poll: Option<Waited>,
    login: Option<LoginUnderWay>,
    failed_logins: u32,
    login_not_before: Instant,
    due: Instant,
    poll_began: Instant,
    pace: Pace,
    names: NamesCache,
    counters: CountersCache,
    /// What is said at a tick at which nothing new is known.
    standing: Option<Failure>,
    refused_logins: Vec<RefusedLogin>,
    logins_tried: bool,
}

/// The kept connection.
struct Kept {
    session: Arc<Session>,
    drive: AbortHandle,
}

/// Something that should be answered by a deadline, after which it is said that it was not.
struct Waited {
    began: Instant,
    said_late: bool,
}

struct LoginUnderWay {
    waited: Waited,
    reached: Arc<AtomicBool>,
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
        mailbox: Mailbox<Observation>,
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
            ledger: Ledger::default(),
            connections: JoinSet::new(),
            polls: JoinSet::new(),
            logins: JoinSet::new(),
            sessions: 0,
            kept: None,
            poll: None,
            login: None,
            failed_logins: 0,
            login_not_before: now,
            poll_began: now,
            names: NamesCache::default(),
            counters: CountersCache::default(),
            standing: None,
            refused_logins: Vec::new(),
            logins_tried: false,
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
            Some(login) = next_done(&mut self.logins) => Event::LoggedIn(login),
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
    /// target is elsewhere now, what the old server says is of no use.
    fn take_settings(&mut self, now: Instant) {
        let new = Arc::clone(&self.told.borrow_and_update());
        self.renew |= !self.settings.keeps_connection_under(&new);
        if self.settings.conninfo.address() != new.conninfo.address()
            && let Some(kept) = self.kept.take()
        {
            kept.drive.abort();
            self.end_poll();
        }
        self.pace = Pace::new(new.interval, new.budget);
        self.due = self.due.min(now + new.interval);
        self.settings = new;
    }

    // What is begun, and when.

    fn begin_what_is_due(&mut self, now: Instant) {
        self.say_what_is_late(now);
        if self.wants_login(now) && self.login_not_before <= now {
            self.begin_login(now);
        }
        if self.due <= now {
            self.tick(now);
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let timeout = self.settings.timeout;
        let late = |waited: &Waited| (!waited.said_late).then(|| waited.began + timeout);
        let poll_late = self.poll.as_ref().and_then(late);
        // One that has not reached the server yet has deadlines of its own.
        let reached = self.login.as_ref().filter(|login| login.reached.load(Ordering::Relaxed));
        let login_late = reached.and_then(|login| late(&login.waited));
        let login = self.wants_login(now).then_some(self.login_not_before);
        [poll_late, login_late, login].into_iter().flatten().fold(self.due, Instant::min)
    }

    /// Whether a connection is missing, or the kept one has not answered for too long.
    fn wants_login(&self, now: Instant) -> bool {
        let stuck =
            |poll: &Waited| now >= poll.began + self.settings.timeout * TIMEOUTS_UNTIL_REPLACED;
        let is_stuck = self.poll.as_ref().is_some_and(stuck);
        self.login.is_none() && (self.kept.is_none() || self.renew || is_stuck)
    }

    fn begin_login(&mut self, now: Instant) {
        // With several hosts, the login passes over one at which there is no room.
        let mut hosts = self.settings.conninfo.hosts.iter();
        if hosts.all(|host| self.ledger.at(host.address()).open(now) >= MAX_SOCKETS) {
            self.login_not_before = now + LOGINS_APART;
            return;
        }
        let reached = Arc::new(AtomicBool::new(false));
        let settings = Arc::clone(&self.settings);
        self.logins.spawn(login::login(settings, self.ledger.clone(), Arc::clone(&reached)));
        let waited = Waited { began: now, said_late: false };
        self.login = Some(LoginUnderWay { waited, reached });
        self.login_not_before = now + LOGINS_APART;
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
            dear_counters: self.counters.ask(now, self.settings.timeout),
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
        let reached = |login: &&mut LoginUnderWay| login.reached.load(Ordering::Relaxed);
        let login = self.login.as_mut().filter(reached);
        if let Some(login) = login.filter(|login| is_late(&login.waited)) {
            login.waited.said_late = true;
            if self.kept.is_none() {
                self.fail(silence("a login", timeout), now);
            }
        }
        if self.login.as_ref().is_some_and(|login| now >= login.waited.began + LOGIN_AT_MOST) {
            self.login = None;
            self.logins.abort_all();
        }
    }

    // What ended.

    fn take_login(&mut self, login: Login, now: Instant) {
        self.login = None;
        self.failed_logins = 0;
        self.logins_tried = true;
        self.sessions += 1;
        let id = self.sessions;
        let drive = login.drive;
        let drive = self.connections.spawn(async move {
            let why = match drive.await {
                Ok(()) => "closed by us".to_owned(),
                Err(error) => failure::chain(&error),
            };
            (id, why)
        });
        let answers = self.poll.as_ref().is_none_or(|poll| !poll.said_late);
        let renewed = std::mem::take(&mut self.renew);
        if self.kept.is_some() && answers && !renewed {
            // The kept connection came back meanwhile. The new one says goodbye as it is dropped.
            return;
        }
        if let Some(stuck) = self.kept.take() {
            let why = if answers { "the settings changed" } else { "it was stuck" };
            tracing::warn!(session = stuck.session.id, why, "replaced a connection");
            stuck.drive.abort();
        }
        self.end_poll();
        self.names.doubt();
        self.counters.doubt();
        tracing::info!(session = id, version = login.version, "connected");
        let session = Session::new(id, login.client, login.key_pid, &login.version);
        self.kept = Some(Kept { session: Arc::new(session), drive });
        self.due = now;
    }

    fn take_refusal(&mut self, error: &LoginError, now: Instant) {
        let late = self.login.take().is_some_and(|login| login.waited.said_late);
        self.failed_logins = self.failed_logins.saturating_add(1);
        let pause = pace::backoff(self.failed_logins, fastrand::f64());
        self.login_not_before = now + pause;
        self.logins_tried |= error.is_answer();
        let mut failure = error.failure();
        if late && error.is_silent_close() {
            failure.kind = FailureKind::TooSlow;
            failure.text.push_str("; the server gave up a login that it could not finish");
        }
        if let FailureKind::Refused(reason) = failure.kind {
            add_refused(&mut self.refused_logins, RefusedLogin { reason, count: 1 });
        }
        // While the kept connection is only stuck, that is what is said, and the refusal counts.
        if self.kept.is_none() {
            self.fail(failure, now);
        } else if self.renew {
            let why = failure.text;
            tracing::warn!(why, "no login under the new settings; the connection is kept");
        }
    }

    fn take_loss(&mut self, session: u64, why: &str, now: Instant) {
        let Some(kept) = self.kept.take_if(|kept| kept.session.id == session) else { return };
        tracing::warn!(session, why, "lost the connection");
        kept.drive.abort();
        self.end_poll();
        self.failed_logins = 0;
        // At once, unless the last login is less than a second ago.
        self.login_not_before = self.login_not_before.min(now + LOGINS_APART);
    }

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
        let mut seen = observe::observation(
            identity,
            pass.facts,
            &pass.activity,
            (self.counters.known(), self.counters.age(now)),
            &self.names.known(),
            Cost {
                poll_seconds: now.saturating_duration_since(poll.began).as_secs_f64(),
                server_seconds: pass.server_seconds,
                budget_ratio: 0.0,
                next_after_seconds: 0.0,
            },
        );
        self.pace.note(pass.server_seconds, seen.slots().utilization);
        let trouble = *self.trouble.borrow();
        let rest = self.pace.rest(trouble);
        seen.cost.budget_ratio = self.pace.budget_ratio(trouble);
        seen.cost.next_after_seconds = rest.as_secs_f64();
        if self.standing.take().is_some() {
            tracing::info!("readable again");
        }
        tracing::debug!(server_seconds = pass.server_seconds, "polled");
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
            outcome,
            refused_logins: std::mem::take(&mut self.refused_logins),
            logins_tried: std::mem::take(&mut self.logins_tried),
            rhythm,
        });
    }

    fn end_poll(&mut self) {
        self.polls.abort_all();
        self.poll = None;
    }

    async fn say_goodbye(mut self) {
        self.logins.abort_all();
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
