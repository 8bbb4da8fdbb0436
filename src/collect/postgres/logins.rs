//! Logins: one at a time, which way the next one goes, and when it may begin.
//!
//! It keeps the count of what must never pass: two sockets of ours at the server, and one login a
//! second. What a login means for the source is decided by [`super::Source`], who alone calls this.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::pace::{self, LOGINS_APART};
use super::{SourceSettings, next_done};
use crate::collect::login::failure::LoginError;
use crate::collect::login::{self, LOGIN_AT_MOST, Ledger, Login, Progress, Way};

/// So many sockets of ours may be open at the server: the kept connection and one more, its
/// successor or a login that is stuck.
const MAX_SOCKETS: usize = 2;

/// The logins of one source.
#[derive(Debug)]
pub(super) struct Logins {
    ledger: Ledger,
    tasks: JoinSet<Result<Login, LoginError>>,
    under_way: Option<UnderWay>,
    /// How the next one goes.
    next: Way,
    /// So many ordinary ones failed in a row.
    failed: u32,
    /// No ordinary one before: the backoff.
    not_ordinary_before: Instant,
    /// None at all before: the pace.
    not_before: Instant,
}

/// A login that the server has not decided yet.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) way: Way,
    /// It was said that there is no answer.
    pub(super) said_late: bool,
    began: Instant,
    progress: Arc<Progress>,
}

impl Logins {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ledger: Ledger::of(MAX_SOCKETS),
            tasks: JoinSet::new(),
            under_way: None,
            next: Way::Ordinary,
            failed: 0,
            not_ordinary_before: now,
            not_before: now,
        }
    }

    /// When the next one may begin; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.under_way.is_some() {
            return None;
        }
        Some(match self.next {
            Way::Ordinary => self.not_before.max(self.not_ordinary_before),
            Way::Replication => self.not_before,
        })
    }

    /// Begins the next one, unless the server still holds two sockets of ours.
    pub(super) fn begin(&mut self, settings: &Arc<SourceSettings>, now: Instant) {
        self.not_before = now + LOGINS_APART;
        // With several hosts, the login passes over one at which there is no room.
        let mut hosts = settings.conninfo.hosts.iter();
        if hosts.all(|host| !self.ledger.at(host.address()).has_room(now)) {
            return;
        }
        let way = std::mem::replace(&mut self.next, Way::Ordinary);
        let progress = Arc::<Progress>::default();
        let (access, purpose) = (settings.access(), settings.purpose(way));
        self.tasks.spawn(login::login(access, self.ledger.clone(), Arc::clone(&progress), purpose));
        self.under_way = Some(UnderWay { way, said_late: false, began: now, progress });
    }

    /// The next one goes over a replication connection, as soon as the pace lets it.
    pub(super) fn fall_back_next(&mut self) {
        self.next = Way::Replication;
    }

    /// The next one is an ordinary one again.
    pub(super) fn no_fallback(&mut self) {
        self.next = Way::Ordinary;
    }

    /// The next one that is decided; `None` if none is under way.
    pub(super) async fn next_decided(&mut self) -> Option<Result<Login, LoginError>> {
        next_done(&mut self.tasks).await
    }

    /// When the one under way will have been without an answer for too long. One that has not
    /// reached the server yet has deadlines of its own.
    pub(super) fn late_at(&self, timeout: Duration) -> Option<Instant> {
        let login = self.under_way.as_ref()?;
        let may_be = !login.said_late && login.progress.has_reached();
        may_be.then_some(login.began + timeout)
    }

    /// The one under way, when it has to be said that it has no answer: once.
    pub(super) fn late(&mut self, timeout: Duration, now: Instant) -> Option<&UnderWay> {
        let is_late = self.late_at(timeout).is_some_and(|at| at <= now);
        let login = self.under_way.as_mut().filter(|_| is_late)?;
        login.said_late = true;
        Some(login)
    }

    /// Gives up a login that nobody will ever answer.
    pub(super) fn give_up_hopeless(&mut self, now: Instant) {
        if self.under_way.as_ref().is_some_and(|login| login.began + LOGIN_AT_MOST <= now) {
            self.under_way = None;
            self.tasks.abort_all();
        }
    }

    /// Notes that the one under way is in.
    pub(super) fn note_success(&mut self) {
        self.under_way = None;
    }

    /// Notes that an ordinary connection answers: from now on none has failed.
    pub(super) fn note_answer(&mut self) {
        self.failed = 0;
    }

    /// Notes that the one under way failed, and says which that was. After an ordinary one the
    /// next waits for longer.
    pub(super) fn note_failure(&mut self, now: Instant) -> Option<UnderWay> {
        let login = self.under_way.take();
        if login.as_ref().is_none_or(|login| login.way == Way::Ordinary) {
            self.put_off(now);
        }
        login
    }

    /// The next ordinary one waits for longer than the last.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.failed = self.failed.saturating_add(1);
        self.not_ordinary_before = now + pace::backoff(self.failed, fastrand::f64());
    }

    /// Notes that the kept connection is lost: the next login comes at once, unless the last one
    /// began less than a second ago.
    pub(super) fn note_loss(&mut self, now: Instant) {
        self.failed = 0;
        self.not_ordinary_before = now;
    }

    /// Ends the one under way.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::settings::{Fallback, Secret};

    use super::*;
    use crate::clock;
    use crate::collect::conninfo::ConnInfo;
    use crate::collect::login::progress::silent::Silent;

    /// What takes a connection and never says a word may be a proxy whose server is gone for good.
    #[tokio::test]
    async fn a_login_that_nobody_decides_is_given_up_and_its_socket_still_counted() {
        let server = Silent::listen().await;
        let settings = Arc::new(SourceSettings {
            conninfo: ConnInfo::parse(&Secret::new(server.url())).unwrap(),
            password: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            budget: 0.005,
            fallback: Fallback::None,
        });
        let mut now = clock::monotonic();
        let mut logins = Logins::new(now);
        let mut held = Vec::new();
        for _ in 0..MAX_SOCKETS {
            assert!(logins.due().is_some_and(|due| due <= now));
            logins.begin(&settings, now);
            held.push(server.login().await);
            let end = now + LOGIN_AT_MOST;
            logins.give_up_hopeless(end.checked_sub(Duration::from_secs(1)).unwrap());
            assert_eq!(logins.due(), None, "it is still waited for");
            now = end;
            logins.give_up_hopeless(now);
            assert!(logins.next_decided().await.is_none(), "nobody decided it");
        }
        // Two of ours are open at whatever that is: no third.
        logins.begin(&settings, now);
        assert!(logins.under_way.is_none() && logins.due().is_some());
        held.clear();
        while logins.under_way.is_none() {
            tokio::task::yield_now().await;
            logins.begin(&settings, now);
        }
        logins.abort();
    }
}
