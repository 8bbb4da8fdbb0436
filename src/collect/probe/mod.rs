//! The probe: a login as an application makes it, every ten seconds, timed and told apart.
//!
//! It sees what no view shows: a server that refuses everybody while it looks idle from within,
//! because logins under way hold its slots. It logs in as an ordinary role, directly or through a
//! pooler, with nothing but what its address says, asks `SELECT 1` over the simple protocol, and
//! leaves politely. `run` starts it and reads its mailbox; what follows from it is the judge's.
//!
//! The rules that it keeps, so that watching never makes it worse:
//! - There is never a second login while the backend of an earlier one may live: one that is not
//!   answered goes on until it is decided, and its socket counts until the other side closes it,
//!   over reloads and our own mistakes too.
//! - A server that refuses is asked less often, but at least every half minute.
//! - Where settings say so, the last free slots are left to those that need them.

mod attempt;
mod rhythm;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_core::reading::postgres::Slots;
use plimsoll_core::reading::probe::{Attempt, Attempts, Held, Observation, Steps};
use plimsoll_core::reading::{Failure, FailureKind, Happened};
use plimsoll_core::settings::{ProbeSettings, Surroundings};
use tokio::sync::watch as channel;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep_until, timeout};

use self::attempt::{Ended, Failed, attempt};
use self::rhythm::Rhythm;
use super::SideSource;
use super::conninfo::{ConnInfo, ConnInfoError};
use super::login::{Access, LOGIN_AT_MOST, Ledger, Progress};
use super::mailbox::{Delivery, Mailbox};
use crate::clock;

/// One login at a time, each with one socket.
const MAX_SOCKETS: usize = 1;

/// How often a login is looked at that has not set out yet: it may wait for a password, or for the
/// other side to close the socket of the login before.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A login that is in gets a second to say goodbye when we stop (see `login`), and we a breath.
const END_AT_MOST: Duration = Duration::from_secs(2);

/// What it is told, and what it shares with the probes before it.
#[derive(Clone, Debug)]
pub struct ProbeSource {
    told: Told,
    /// What the server shows of its slots; `None` where nobody says.
    slots: Option<channel::Receiver<Option<Slots>>>,
    ledger: Ledger,
}

/// What settings say.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    access: Access,
    interval: Duration,
    keep_free: f64,
}

/// By what they are told: the rest comes from the target, and is the same for its next probe.
impl PartialEq for ProbeSource {
    fn eq(&self, other: &Self) -> bool {
        self.told == other.told
    }
}

impl ProbeSource {
    /// As settings say, among the surroundings of Plimsoll itself.
    pub fn of(told: &ProbeSettings, around: &Surroundings) -> Result<Self, ConnInfoError> {
        let access = Access {
            conninfo: ConnInfo::parse_in(&told.url, &around.without_variables())?,
            password: told.password.clone(),
            timeout: told.timeout,
        };
        Ok(Self {
            told: Told { access, interval: told.interval, keep_free: told.keep_free },
            slots: None,
            ledger: Ledger::of(MAX_SOCKETS),
        })
    }

    /// The same, heeding what the server shows of its slots (`None` while that is unknown), and in
    /// place of the one before it, whose backends may live.
    #[must_use]
    pub fn in_place_of(
        self,
        before: Option<&Self>,
        slots: channel::Receiver<Option<Slots>>,
    ) -> Self {
        let ledger = before.map_or(self.ledger, |before| before.ledger.clone());
        Self { slots: Some(slots), ledger, ..self }
    }
}

impl SideSource for ProbeSource {
    type Seen = Observation;
    type Happened = Attempts;
    const KIND: &'static str = "probe";

    async fn run(
        self,
        mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        Probe::new(self, mailbox).run(stop).await;
    }
}

/// A probe that runs.
struct Probe {
    told: Told,
    slots: Option<channel::Receiver<Option<Slots>>>,
    ledger: Ledger,
    mailbox: Mailbox<Observation, Attempts>,
    rhythm: Rhythm,
    /// At most one.
    logins: JoinSet<Ended>,
    under_way: Option<UnderWay>,
    /// Turns true at the end, for the login under way.
    end: channel::Sender<bool>,
    newest: Option<Attempt>,
    /// Since the last delivery.
    decided: Attempts,
    /// As it was left last.
    held: Option<Held>,
    /// The gauge is left again by then, so that it does not grow old while it holds.
    leave_by: Instant,
    /// Since a login was refused, the server has shown that it is full.
    was_full: bool,
}

/// The login that is not decided yet.
struct UnderWay {
    at: Timestamp,
    began: Instant,
    /// It was said that there is no answer.
    said_late: bool,
    progress: Arc<Progress>,
}

impl Probe {
    fn new(source: ProbeSource, mailbox: Mailbox<Observation, Attempts>) -> Self {
        let now = clock::monotonic();
        Self {
            rhythm: Rhythm::new(source.told.interval, now),
            leave_by: now + source.told.interval,
            told: source.told,
            slots: source.slots,
            ledger: source.ledger,
            mailbox,
            logins: JoinSet::new(),
            under_way: None,
            end: channel::channel(false).0,
            newest: None,
            decided: Attempts::default(),
            held: None,
            was_full: false,
        }
    }

    async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let now = clock::monotonic();
            self.say_what_is_late(now);
            self.begin_if_due(now);
            self.leave_if_changed(now);
            let wake = self.next_wake(now);
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = self.logins.join_next() => self.take(ended, clock::monotonic()),
                () = changed(&mut self.slots) => self.heed(),
                () = sleep_until(wake.into()) => {}
            }
        }
        self.end.send_replace(true);
        let ended = async { while self.logins.join_next().await.is_some() {} };
        drop(timeout(END_AT_MOST, ended).await);
    }

    // What is begun, and when.

    fn begin_if_due(&mut self, now: Instant) {
        let held_up = self.under_way.is_some() || now < self.rhythm.next();
        if held_up || self.shows_few_slots() {
            return;
        }
        // While the socket of the one before it is still open, the login waits for the end of that
        // before it opens another, for its timeout, and then says so.
        self.rhythm.note_begun(now, fastrand::f64());
        let progress = Arc::<Progress>::default();
        let (access, ledger) = (self.told.access.clone(), self.ledger.clone());
        self.logins.spawn(attempt(access, ledger, Arc::clone(&progress), self.end.subscribe()));
        self.under_way =
            Some(UnderWay { at: clock::wall(), began: now, said_late: false, progress });
    }

    /// Whether another socket may be opened at any of the hosts; the login passes over the others.
    fn has_room(&self, now: Instant) -> bool {
        let mut hosts = self.told.access.conninfo.hosts.iter();
        hosts.any(|host| self.ledger.at(host.address()).has_room(now))
    }

    /// Whether a login would leave fewer slots than are to be left. While it is not known how many
    /// are free it would not: the probe is the one that knows then.
    fn shows_few_slots(&self) -> bool {
        let Some(slots) = self.shown() else { return false };
        let kept = self.told.keep_free * f64::from(slots.usable);
        self.told.keep_free > 0.0 && ((slots.free - 1) as f64) < kept
    }

    fn shown(&self) -> Option<Slots> {
        self.slots.as_ref().and_then(|slots| *slots.borrow())
    }

    /// A server that was shown to be full and has slots again is asked soon.
    fn heed(&mut self) {
        if !self.rhythm.backs_off() {
            return;
        }
        match self.shown() {
            Some(slots) if slots.free <= 0 => self.was_full = true,
            Some(_) if self.was_full => {
                self.was_full = false;
                self.rhythm.note_room();
            }
            _ => {}
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        // Without anything to leave, nothing is left; what is held is looked at again all the same.
        let leave = if self.newest.is_some() { self.leave_by } else { now + self.told.interval };
        let next = match &self.under_way {
            Some(login) if login.said_late => login.began + LOGIN_AT_MOST,
            Some(login) => match login.progress.moments().set_out {
                Some(set_out) => set_out + self.told.access.timeout,
                None => now + LOOK_AGAIN,
            },
            None if now < self.rhythm.next() => self.rhythm.next(),
            // It is due and was not begun: the slots wake us.
            None => leave,
        };
        // A login that has not reached anything has deadlines of its own.
        let next = if next <= now { now + LOOK_AGAIN } else { next };
        next.min(leave.max(now))
    }

    /// Says once that a login has no answer, and gives up one that nobody will ever answer. One
    /// that has reached nothing yet has deadlines of its own, and ends with what they say.
    fn say_what_is_late(&mut self, now: Instant) {
        let timeout = self.told.access.timeout;
        let Some(login) = &mut self.under_way else { return };
        if login.began + LOGIN_AT_MOST <= now {
            self.logins.abort_all();
            return;
        }
        let moments = login.progress.moments();
        let is_late = moments.set_out.is_some_and(|set_out| set_out + timeout <= now);
        let waits = moments.reached.is_some() && moments.answered.is_none();
        if login.said_late || !is_late || !waits {
            return;
        }
        login.said_late = true;
        let seconds = timeout.as_secs_f64();
        let text = match moments.let_in {
            Some(_) => format!("let in, and no answer to the first question in {seconds} s"),
            None => format!("the connection was accepted, and no login in {seconds} s"),
        };
        let failure = Failure { kind: FailureKind::TooSlow, text, sqlstate: None };
        let attempt =
            Attempt { at: login.at, outcome: Err(failure), steps: attempt::steps(moments) };
        self.note(attempt);
        self.leave(now);
    }

    // What ended.

    fn take(&mut self, ended: Result<Ended, JoinError>, now: Instant) {
        let login = self.under_way.take();
        let result = match ended {
            Ok(Some(result)) => result,
            // We ended it.
            Ok(None) => return,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_given_up) => return,
            },
        };
        let Some(login) = login else { return };
        let outcome = result.map_err(|failed| told_apart(failed, login.said_late));
        match &outcome {
            Err(Failure { kind: FailureKind::Refused(_), .. }) => {
                self.rhythm.note_refused(now, fastrand::f64());
                self.was_full = self.shown().is_some_and(|slots| slots.free <= 0);
            }
            _ => self.rhythm.note_not_refused(),
        }
        let steps = attempt::steps(login.progress.moments());
        self.note(Attempt { at: login.at, outcome, steps });
        self.leave(now);
    }

    // What is said.

    fn note(&mut self, attempt: Attempt) {
        let Steps { connect, tls, authentication, first_answer } = attempt.steps;
        let known = self.newest.as_ref().map(|newest| newest.outcome.as_ref().map_err(|f| f.kind));
        match &attempt.outcome {
            Ok(()) => {
                tracing::debug!(?connect, ?tls, ?authentication, ?first_answer, "logged in");
                if matches!(known, Some(Err(_))) {
                    tracing::info!("logins as an application makes them get in again");
                }
            }
            Err(failure) => {
                tracing::debug!(?connect, ?tls, ?authentication, ?first_answer, "no login");
                if known != Some(Err(failure.kind)) {
                    let (kind, text) = (failure.kind.word(), failure.text.as_str());
                    tracing::warn!(kind, text, "a login as an application makes it failed");
                }
            }
        }
        self.newest = Some(attempt.clone());
        self.decided.add(Attempts(vec![attempt]));
    }

    fn held(&self, now: Instant) -> Option<Held> {
        if let Some(login) = &self.under_way {
            let waits = || login.progress.moments().set_out.is_none() && !self.has_room(now);
            return (login.said_late || waits()).then_some(Held::EarlierOneLives);
        }
        if self.rhythm.backs_off() && now < self.rhythm.next() {
            return Some(Held::BacksOff);
        }
        if now < self.rhythm.next() {
            return None;
        }
        self.shows_few_slots().then_some(Held::FewSlotsFree)
    }

    fn leave_if_changed(&mut self, now: Instant) {
        let held = self.held(now);
        if held == Some(Held::FewSlotsFree) && self.held != held {
            tracing::info!("no login is made: fewer slots are free than are to be left");
        }
        if self.held != held || self.leave_by <= now {
            self.leave(now);
        }
    }

    /// Leaves how it stands; nothing before the first login.
    fn leave(&mut self, now: Instant) {
        self.held = self.held(now);
        self.leave_by = now + self.told.interval;
        let Some(newest) = self.newest.clone() else { return };
        self.mailbox.leave(Delivery {
            taken_at: now,
            outcome: Ok(Arc::new(Observation { newest, held: self.held })),
            happened: std::mem::take(&mut self.decided),
            rhythm: self.told.interval,
        });
    }
}

/// What is said of a login that failed. A server whose `authentication_timeout` is over closes
/// without a word: after a silence that is the end of the silence.
fn told_apart(failed: Failed, said_late: bool) -> Failure {
    let Failed { mut failure, closed_silently } = failed;
    if said_late && closed_silently {
        failure.kind = FailureKind::TooSlow;
        failure.text.push_str("; the server gave up a login that it could not finish");
    }
    failure
}

/// Returns when the server shows other slots than before.
async fn changed(slots: &mut Option<channel::Receiver<Option<Slots>>>) {
    if let Some(shown) = slots
        && shown.changed().await.is_ok()
    {
        return;
    }
    // Nobody says any more: what was said last is not true for ever.
    *slots = None;
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use plimsoll_core::settings::Secret;

    use super::super::login::progress::silent::Silent;
    use super::*;

    #[tokio::test]
    async fn a_login_that_nobody_decides_is_given_up_and_its_socket_still_counted() {
        let server = Silent::listen().await;
        let told = ProbeSettings {
            name: "application".to_owned(),
            url: Secret::new(server.url()),
            password: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            keep_free: 0.0,
        };
        let source = ProbeSource::of(&told, &Surroundings::default()).unwrap();
        let mut probe = Probe::new(source, Mailbox::new());
        let began = clock::monotonic() + told.interval;
        probe.begin_if_due(began);
        let first = server.login().await;
        let now = began + LOGIN_AT_MOST;
        let almost = now.checked_sub(Duration::from_secs(1)).unwrap();
        probe.say_what_is_late(almost);
        probe.begin_if_due(almost);
        assert_eq!(probe.logins.len(), 1, "it is still waited for, and no other is begun");
        probe.say_what_is_late(now);
        let ended = probe.logins.join_next().await.unwrap();
        probe.take(ended, now);
        assert!(probe.under_way.is_none() && !probe.has_room(now));
        // The next waits for the other side to close that socket.
        probe.begin_if_due(now);
        assert_eq!(probe.held(now), Some(Held::EarlierOneLives));
        drop(first);
        server.login().await;
    }
}
