//! The kept connection: how it is won, replaced and lost.
//!
//! What a decided login and a lost connection mean for the source. [`super::Source`] calls this
//! from its loop; when a login begins is its business and [`super::logins`]'.

use std::sync::Arc;
use std::time::Instant;

use plimsoll_core::reading::{Failure, FailureKind, Refusal, RefusedLogin};
use plimsoll_core::settings::Fallback;
use tokio::task::AbortHandle;

use super::account::Account;
use super::rows::Connection;
use super::session::Session;
use super::{Source, fallback};
use crate::collect::login::failure::{self, LoginError};
use crate::collect::login::{Login, Way};

/// The kept connection.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) session: Arc<Session>,
    pub(super) way: Way,
    pub(super) drive: AbortHandle,
    /// A poll was answered on it, with rows or with an error.
    pub(super) has_answered: bool,
    /// `None` until the first reading.
    pub(super) account: Option<Account>,
}

impl Source {
    pub(super) fn take_login(&mut self, login: Login, now: Instant) {
        self.logins.note_success();
        // A walsender that gets in says nothing of slots.
        self.decided.tried |= login.way == Way::Ordinary;
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
        if let Some(kept) = self.kept.take_if(|kept| {
            let successor = self.renew || kept.way == Way::Replication;
            !answers || login.way == Way::Ordinary && successor
        }) {
            let why = match kept.way {
                _ if !answers => "it was stuck",
                Way::Ordinary => "the settings changed",
                Way::Replication => "an ordinary login got in",
            };
            let session = kept.session.id;
            if answers {
                tracing::info!(session, why, "replaced a connection");
            } else {
                tracing::warn!(session, why, "replaced a connection");
            }
            // One that answers is left to say goodbye as it is dropped.
            if !answers {
                kept.drive.abort();
            }
        }
        let unwanted = login.way == Way::Replication && self.settings.fallback == Fallback::None;
        if self.kept.is_some() || unwanted {
            // The kept connection came back meanwhile. The new one says goodbye as it is dropped.
            return;
        }
        self.end_poll();
        self.renew = false;
        self.names.doubt();
        self.counters.doubt();
        match login.way {
            Way::Ordinary => {
                self.refused = None;
                tracing::info!(session = id, version = login.version, "connected");
            }
            Way::Replication => tracing::warn!(
                session = id,
                version = login.version,
                "connected as a walsender, for want of an ordinary connection"
            ),
        }
        let connection = Connection::new(login.client, login.way);
        let session = Session::new(id, connection, login.key_pid, &login.version);
        let session = Arc::new(session);
        self.kept =
            Some(Kept { session, way: login.way, drive, has_answered: false, account: None });
        self.due = now;
    }

    pub(super) fn take_refusal(&mut self, error: &LoginError, now: Instant) {
        let login = self.logins.note_failure(now);
        let way = login.as_ref().map_or(Way::Ordinary, |login| login.way);
        self.decided.tried |= error.is_answer();
        let mut failure = error.failure();
        if login.is_some_and(|login| login.said_late) && error.is_silent_close() {
            failure.kind = FailureKind::TooSlow;
            failure.text.push_str("; the server gave up a login that it could not finish");
        }
        if let FailureKind::Refused(reason) = failure.kind {
            self.decided.note_refused(RefusedLogin { reason, count: 1 });
        }
        let Some(failure) = self.after_fallback(way, failure, now) else { return };
        // While the kept connection is only stuck, that is what is said, and the refusal counts.
        if self.kept.is_none() {
            self.fail(failure, now);
        } else if self.renew {
            let why = failure.text;
            tracing::warn!(why, "no login under the new settings; the connection is kept");
        }
    }

    /// What is to be said of a login that failed. Nothing yet, if the other way is tried now: in a
    /// second at most it is known whether the server can be read, and then a page can name those
    /// who hold its slots.
    fn after_fallback(&mut self, way: Way, failure: Failure, now: Instant) -> Option<Failure> {
        match (way, &self.refused) {
            (Way::Replication, Some((_, refused))) => {
                let role = self.settings.conninfo.user.as_deref();
                return Some(fallback::both(refused, failure, role));
            }
            (Way::Replication, None) => return Some(failure),
            (Way::Ordinary, _) => {}
        }
        let reason = match self.settings.fallback {
            Fallback::Replication => fallback::is_for(&failure),
            Fallback::None => None,
        };
        let Some(reason) = reason else { return Some(failure) };
        self.refused = Some((reason, failure.clone()));
        if !self.is_blind(now) {
            return Some(failure);
        }
        self.logins.fall_back_next();
        None
    }

    pub(super) fn take_loss(&mut self, session: u64, why: &str, now: Instant) {
        let Some(kept) = self.kept.take_if(|kept| kept.session.id == session) else { return };
        tracing::warn!(session, why, "lost the connection");
        kept.drive.abort();
        self.end_poll();
        if kept.has_answered {
            self.logins.note_loss(now);
            return;
        }
        // It lets us in and is gone: no better than a login that failed.
        if kept.way == Way::Ordinary {
            self.logins.put_off(now);
        }
        let text = format!("the connection was lost before a poll was answered: {why}");
        self.fail(Failure { kind: FailureKind::Stopped, text, sqlstate: None }, now);
    }

    /// Why readings come over a replication connection; `None` while they do not.
    pub(super) fn fallen_back(&self) -> Option<Refusal> {
        let kept = self.kept.as_ref()?;
        let (reason, _) = self.refused.as_ref()?;
        (kept.way == Way::Replication).then_some(*reason)
    }
}
