//! An application on a throwaway server: requests that come at their own rhythm, and a pool of
//! sessions that grows when all of them are busy and shrinks when they are idle.
//!
//! It behaves as pools do: the session used last is used next, a refused login is tried again
//! after a moment, and requests that find neither a session nor room for one go unanswered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Config;
use tokio_postgres::types::{ToSql, Type};

use super::DrillError;
use super::scenario::PoolPart;
use super::server::Session;
use crate::clock;

/// After a refused login no other is tried for so long: as pools do, so that a full server is
/// not drowned in logins.
const LOGIN_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How often idle sessions are looked at.
const LOOK_AFTER_IDLE: Duration = Duration::from_millis(250);

/// Logins at once while the floor is opened.
const LOGINS_AT_ONCE: usize = 10;

/// What has become of the requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions open or being opened.
    pub open: u32,
    /// Requests answered.
    pub answered: u64,
    /// Requests that found neither a session nor room for one.
    pub unanswered: u64,
    /// Logins that the server refused.
    pub refused: u64,
    /// Sessions that broke within a request.
    pub broken: u64,
}

/// A working application. Dropping it closes its sockets.
#[derive(Debug)]
pub struct Pool {
    ceiling: watch::Sender<u32>,
    counts: watch::Receiver<Counts>,
    tasks: JoinSet<()>,
}

impl Pool {
    /// Opens the sessions of the floor and begins to work.
    pub async fn start(mut login: Config, part: &PoolPart, seed: u64) -> Result<Self, DrillError> {
        login.user(&part.role).application_name(&part.application);
        let logins = stream::iter(0..part.floor).map(|_| Session::open(&login));
        let sessions: Vec<Session> = logins.buffer_unordered(LOGINS_AT_ONCE).try_collect().await?;
        let now = clock::monotonic();
        let (ceiling, ceiling_here) = watch::channel(part.ceiling);
        let (counts_here, counts) =
            watch::channel(Counts { open: part.floor, ..Counts::default() });
        let work = Work {
            request: Arc::new(Request {
                login,
                transaction: part.transaction.clone(),
                think_time: part.think_time,
            }),
            part: part.clone(),
            rng: fastrand::Rng::with_seed(seed),
            ceiling: ceiling_here,
            counts: counts_here,
            idle: sessions.into_iter().map(|session| (session, now)).collect(),
            requests: JoinSet::new(),
            no_login_before: now,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run());
        Ok(Self { ceiling, counts, tasks })
    }

    /// Opens at most so many sessions from now on; those above it are not closed for it.
    pub fn resize(&self, ceiling: u32) {
        self.ceiling.send_replace(ceiling);
    }

    /// What has become of the requests so far.
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Ends the application: all its sockets are closed when this returns.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What a request needs.
#[derive(Debug)]
struct Request {
    login: Config,
    transaction: Vec<String>,
    think_time: Duration,
}

/// How a request ended; the session, if it can be used again.
enum Ended {
    Answered(Session),
    Refused,
    Broken,
}

impl Request {
    async fn run(&self, session: Option<Session>, row: i64) -> Ended {
        let session = match session {
            Some(session) => session,
            None => match Session::open(&self.login).await {
                Ok(session) => session,
                Err(_) => return Ended::Refused,
            },
        };
        match self.transact(&session, row).await {
            Ok(()) => Ended::Answered(session),
            Err(_) => Ended::Broken,
        }
    }

    async fn transact(&self, session: &Session, row: i64) -> Result<(), tokio_postgres::Error> {
        session.batch_execute("BEGIN").await?;
        for statement in &self.transaction {
            let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&row, Type::INT8)];
            session.query_typed(statement, parameters).await?;
            tokio::time::sleep(self.think_time).await;
        }
        session.batch_execute("COMMIT").await
    }
}

struct Work {
    request: Arc<Request>,
    part: PoolPart,
    rng: fastrand::Rng,
    ceiling: watch::Receiver<u32>,
    counts: watch::Sender<Counts>,
    /// The one used last is at the end.
    idle: Vec<(Session, Instant)>,
    requests: JoinSet<Ended>,
    no_login_before: Instant,
}

impl Work {
    async fn run(mut self) {
        let rhythm = Duration::from_secs(1) / self.part.requests_per_second.max(1);
        let mut arrivals = tokio::time::interval(rhythm);
        arrivals.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut look = tokio::time::interval(LOOK_AFTER_IDLE);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = arrivals.tick() => self.arrive(),
                _ = look.tick() => self.close_idle(),
                Some(ended) = self.requests.join_next() => {
                    self.end(ended.unwrap_or(Ended::Broken));
                }
            }
        }
    }

    fn arrive(&mut self) {
        let row = self.rng.i64(1..=i64::from(self.part.rows));
        let session = self.idle.pop().map(|(session, _)| session);
        let open = self.counts.borrow().open;
        let may_log_in =
            open < *self.ceiling.borrow() && self.no_login_before <= clock::monotonic();
        if session.is_none() {
            if !may_log_in {
                self.counts.send_modify(|counts| counts.unanswered += 1);
                return;
            }
            self.counts.send_modify(|counts| counts.open += 1);
        }
        let request = Arc::clone(&self.request);
        self.requests.spawn(async move { request.run(session, row).await });
    }

    fn end(&mut self, ended: Ended) {
        let now = clock::monotonic();
        self.counts.send_modify(|counts| match ended {
            Ended::Answered(_) => counts.answered += 1,
            Ended::Refused => {
                counts.open = counts.open.saturating_sub(1);
                counts.refused += 1;
            }
            Ended::Broken => {
                counts.open = counts.open.saturating_sub(1);
                counts.broken += 1;
            }
        });
        match ended {
            Ended::Answered(session) => self.idle.push((session, now)),
            Ended::Refused => self.no_login_before = now + LOGIN_AGAIN_AFTER,
            Ended::Broken => {}
        }
    }

    fn close_idle(&mut self) {
        let now = clock::monotonic();
        let spare = self.counts.borrow().open.saturating_sub(self.part.floor) as usize;
        let timeout = self.part.idle_timeout;
        // Those used longest ago are in front.
        let expired = self.idle.iter().take(spare).take_while(|(_, since)| now - *since >= timeout);
        let expired = expired.count();
        self.idle.drain(..expired);
        let closed = u32::try_from(expired).unwrap_or(u32::MAX);
        self.counts.send_modify(|counts| counts.open = counts.open.saturating_sub(closed));
    }
}
