//! The pooler source: PgBouncer and its look-alikes, read at their admin console.
//!
//! ```text
//!  tick ─▶ a session? ── no ──▶ log in (one at a time, at most one a second, with backoff)
//!            │ yes                   │
//!            ▼                       ▼
//!          look: SHOW POOLS, and what else is due ─▶ Observation ─▶ mailbox
//! ```
//! One kept session, simple queries, one a time; all of a look has one deadline. A pooler that is
//! stopped or hangs is said to be so at that deadline; the session is given up, for nobody knows
//! what it would answer next. All that is not asked for at each look stays known for as long as the
//! session lasts: a pooler that was started anew is asked for everything.
//!
//! From 1.23 on a PgBouncer that is told to stop waits for its clients to leave, those at the
//! console among them: a session that is kept would hold up every restart. So where nobody else is
//! left, the session is ended after each look, and looks are further apart.
//!
//! It needs a member of `stats_users` and nothing else: no startup parameter is sent that PgBouncer
//! does not know. `run` starts it and takes from its mailbox; what follows from what it saw is
//! reckoned in `plimsoll_core::reading::pooler`.

mod answer;
mod console;
mod failure;
mod kind;
mod look;
mod parts;
mod rhythm;
mod sockets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_core::reading::pooler::Observation;
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::{PoolerSettings, Surroundings};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::console::Console;
use self::failure::AskError;
use self::look::Known;
use self::rhythm::Command;
use super::SideSource;
use super::conninfo::{ConnInfo, ConnInfoError};
use super::login::{self, Access, Ledger, Progress, Purpose};
use super::mailbox::{Delivery, Mailbox};
use super::postgres::pace::{LOGINS_APART, backoff};
use crate::clock;

/// So many sockets of ours may be open at the pooler: the session's, and one that it has not closed
/// yet. One that is stopped would else collect them.
const MAX_SOCKETS: usize = 2;

/// No answer to a command is longer: the largest that are asked for, of 20,000 clients, have 5 MB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Without a session that is kept each look begins with a login: not more often than this.
const REST_ALONE: Duration = Duration::from_secs(5);

/// How long the session gets to say goodbye when we stop.
const GOODBYE_AT_MOST: Duration = Duration::from_secs(1);

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolerSource {
    access: Access,
    interval: Duration,
}

impl PoolerSource {
    /// As settings say, among these surroundings.
    pub fn of(told: &PoolerSettings, around: &Surroundings) -> Result<Self, ConnInfoError> {
        // They are for the login that watches the server.
        let around = around.without_variables();
        let access = Access {
            conninfo: ConnInfo::parse_console(&told.url, &around)?,
            password: told.password.clone(),
            timeout: told.timeout,
        };
        Ok(Self { access, interval: told.interval })
    }
}

impl SideSource for PoolerSource {
    type Seen = Observation;
    type Happened = ();
    const KIND: &'static str = "pooler";

    async fn run(
        self,
        mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut reader = Reader::new(self, mailbox);
        tokio::select! {
            () = stop => {}
            () = reader.read() => {}
        }
        reader.say_goodbye().await;
    }
}

/// Reads one pooler.
struct Reader {
    told: PoolerSource,
    mailbox: Mailbox<Observation>,
    ledger: Ledger,
    session: Option<Session>,
    /// They drive the connections of this session and of those that say goodbye.
    drives: JoinSet<()>,
    /// So many logins failed in a row, or got in to no avail.
    failed: u32,
    /// No login before.
    not_before: Instant,
    /// Why there is no session, as it was said last.
    standing: Option<Failure>,
    /// There was a session before.
    was_there: bool,
    /// Commands whose answers cost us a session: too long, or torn. They are not asked again, for
    /// the pools are told without them.
    without: Vec<Command>,
}

/// A session, and what it has told.
struct Session {
    console: Console,
    known: Known,
}

impl Reader {
    fn new(told: PoolerSource, mailbox: Mailbox<Observation>) -> Self {
        Self {
            told,
            mailbox,
            ledger: Ledger::of(MAX_SOCKETS).hearing_at_most(MAX_ANSWER_BYTES),
            session: None,
            drives: JoinSet::new(),
            failed: 0,
            not_before: clock::monotonic(),
            standing: None,
            was_there: false,
            without: Vec::new(),
        }
    }

    /// A look each tick, and a delivery after each look.
    async fn read(&mut self) {
        loop {
            let began = clock::monotonic();
            let outcome = self.look(began).await;
            let now = clock::monotonic();
            let mut rest = self.rest();
            if self.session.take_if(|session| session.known.holds_it_up()).is_some() {
                rest = rest.max(REST_ALONE);
            }
            self.mailbox.leave(Delivery {
                taken_at: now,
                outcome: outcome.map(Arc::new),
                happened: (),
                rhythm: rest,
            });
            // Missed ticks are skipped.
            let mut due = began + rest;
            if due < now {
                due = now + rest;
            }
            tokio::time::sleep_until(due.into()).await;
            while self.drives.try_join_next().is_some() {}
        }
    }

    fn rest(&self) -> Duration {
        let tick = self.told.interval;
        self.session.as_ref().map_or(tick, |session| session.known.rest(tick))
    }

    /// What is seen, or why nothing is, by the deadline.
    async fn look(&mut self, began: Instant) -> Result<Observation, Failure> {
        let deadline = began + self.told.access.timeout;
        let was_there = self.session.is_some();
        let first = self.look_once(began, deadline).await;
        let looked = match first {
            // The pooler was started anew, or has closed an idle session: who comes back at once
            // sees it in the same look.
            Err(Looked::Lost(failure)) if was_there => {
                match self.look_once(began, deadline).await {
                    Err(Looked::TooSoon(_)) => Err(Looked::Lost(failure)),
                    again => again,
                }
            }
            // It lets us in and is gone: no better than a login that failed.
            Err(Looked::Lost(failure)) => {
                self.put_off();
                Err(Looked::Lost(failure))
            }
            other => other,
        };
        looked.map_err(|why| self.stand(why))
    }

    /// Keeps what is said until something else is known.
    fn stand(&mut self, why: Looked) -> Failure {
        match why {
            Looked::Lost(failure) | Looked::Failed(failure) => {
                if self.standing.as_ref() != Some(&failure) {
                    let (kind, why) = (failure.kind.word(), failure.text.as_str());
                    tracing::warn!(kind, why, "cannot read the pooler");
                }
                self.standing = Some(failure.clone());
                failure
            }
            Looked::TooSoon(failure) => failure,
        }
    }

    async fn look_once(
        &mut self,
        began: Instant,
        deadline: Instant,
    ) -> Result<Observation, Looked> {
        let timeout = self.told.access.timeout;
        if self.session.is_none() {
            self.session = Some(self.begin_session(deadline).await?);
        }
        let Some(Session { console, known }) = &mut self.session else {
            return Err(Looked::Failed(silence("a session", timeout)));
        };
        match known.look(console, began, deadline, timeout).await {
            Ok(seen) => {
                self.failed = 0;
                if self.standing.take().is_some() {
                    tracing::info!(version = seen.version, "reads the pooler again");
                }
                Ok(seen)
            }
            Err((command, error)) => {
                if matches!(error, AskError::Unusable(_)) && command != Command::Pools {
                    self.without.push(command);
                }
                Err(self.give_up(&error, error.failure(command)))
            }
        }
    }

    async fn begin_session(&mut self, deadline: Instant) -> Result<Session, Looked> {
        let mut console = self.log_in(deadline).await?;
        let timeout = self.told.access.timeout;
        let name = &self.told.access.conninfo.dbname;
        match Known::begin(&mut console, name, &self.without, deadline, timeout).await {
            Ok(known) => {
                let (version, at) = (known.version(), self.told.access.conninfo.address());
                if self.was_there {
                    tracing::debug!(version, at, "connected to the console");
                } else {
                    tracing::info!(version, at, "connected to the console");
                }
                self.was_there = true;
                Ok(Session { console, known })
            }
            Err((command, error)) => {
                console.drive.abort();
                self.put_off();
                Err(Looked::Failed(error.failure(command)))
            }
        }
    }

    /// Ends a session that is of no use any more.
    fn give_up(&mut self, error: &AskError, failure: Failure) -> Looked {
        let Some(session) = self.session.take() else { return Looked::Failed(failure) };
        if let AskError::Lost(_) = error {
            session.console.drive.abort();
            return Looked::Lost(failure);
        }
        // One that is refused can still be told goodbye. Of a late one nobody knows.
        if !matches!(error, AskError::Refused { .. }) {
            session.console.drive.abort();
        }
        self.put_off();
        Looked::Failed(failure)
    }

    /// One login, unless it is too soon for another, or the pooler has not closed those before.
    async fn log_in(&mut self, deadline: Instant) -> Result<Console, Looked> {
        let now = clock::monotonic();
        let timeout = self.told.access.timeout;
        if now < self.not_before {
            let unsaid = silence("a login, and the next one is not due yet", timeout);
            return Err(Looked::TooSoon(self.standing.clone().unwrap_or(unsaid)));
        }
        let address = self.told.access.conninfo.address();
        if !self.ledger.at(address.clone()).has_room(now) {
            let text = format!("{address} does not answer, and has not closed what we gave up");
            let failure = Failure { kind: FailureKind::TooSlow, text, sqlstate: None };
            return Err(Looked::Failed(failure));
        }
        self.not_before = now + LOGINS_APART;
        let progress = Arc::<Progress>::default();
        let access = self.told.access.clone();
        let login =
            login::login(access, self.ledger.clone(), Arc::clone(&progress), Purpose::Console);
        let failure = match tokio::time::timeout_at(deadline.into(), login).await {
            Ok(Ok(login)) => {
                let drive = login.drive;
                let (tell, ended) = oneshot::channel();
                // Nobody listens once the session is over.
                let drive = self.drives.spawn(async move { drop(tell.send(drive.await.err())) });
                let server_version = login.version;
                return Ok(Console {
                    client: login.client,
                    drive,
                    ended: Some(ended),
                    server_version,
                });
            }
            Ok(Err(error)) => failure::of_login(&error, &self.told.access.conninfo.dbname),
            Err(_) if progress.has_reached() => silence("a login", timeout),
            Err(_) => {
                let text =
                    format!("connecting to {address}: no answer in {} s", timeout.as_secs_f64());
                Failure { kind: FailureKind::Unreachable, text, sqlstate: None }
            }
        };
        self.put_off();
        Err(Looked::Failed(failure))
    }

    /// The next login waits for longer than the last.
    fn put_off(&mut self) {
        self.failed = self.failed.saturating_add(1);
        let pause = backoff(self.failed, fastrand::f64());
        self.not_before = self.not_before.max(clock::monotonic() + pause);
    }

    async fn say_goodbye(&mut self) {
        self.session = None;
        let gone = async { while self.drives.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE_AT_MOST, gone).await.is_err() {
            self.drives.abort_all();
        }
    }
}

/// Why a look saw nothing.
enum Looked {
    /// The session that there was is gone.
    Lost(Failure),
    /// This was tried, and failed.
    Failed(Failure),
    /// Nothing was tried: it is too soon after what failed.
    TooSoon(Failure),
}

fn silence(what: &str, timeout: Duration) -> Failure {
    let text = format!("no answer to {what} in {} s", timeout.as_secs_f64());
    Failure { kind: FailureKind::TooSlow, text, sqlstate: None }
}
