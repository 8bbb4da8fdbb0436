//! A session on the server, and one turn of it: a pass of the poll and, when due, the names.

use std::sync::Arc;

use plimsoll_core::reading::{Failure, FailureKind};
use tokio::sync::OnceCell;

use super::counters::CountersAsk;
use super::names::Names;
use super::observe;
use super::poll::{CatalogLocks, Identity, Pass, Statements};
use super::rows::{Connection, StatementError};
use crate::collect::login::A_POOLER;

/// The oldest release that is read.
const OLDEST: u32 = 130_000;

/// From 14 on a session can be ended for being idle.
const HAS_IDLE_SESSION_TIMEOUT: u32 = 140_000;

/// Up to 14 the counters come from the statistics collector, which can make a session wait.
const HAS_SHARED_COUNTERS: u32 = 150_000;

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Session {
    /// Ours, to tell one session from the next.
    pub(super) id: u64,
    connection: Connection,
    key_pid: Option<i32>,
    /// `server_version_num` as far as the version's text gives it.
    version: u32,
    catalog_locks: OnceCell<CatalogLocks>,
    ready: OnceCell<(Identity, Statements)>,
}

/// What a turn is asked for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// The names are old, or there are none.
    pub(super) names: bool,
    /// Names are read, too, if somebody is seen who has none.
    pub(super) names_if_unknown: bool,
    /// Counters are read, too.
    pub(super) counters: Option<CountersAsk>,
}

/// What came of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// The session that it was.
    pub(super) session: u64,
    /// The pass, or why there is none.
    pub(super) outcome: Result<(Identity, Pass), TurnError>,
    /// New names, if they were asked for: or why they could not be read.
    pub(super) names: Option<Result<Names, Failure>>,
}

/// Why a turn gave no pass.
#[derive(Debug)]
pub(super) enum TurnError {
    /// The connection is gone.
    Lost(String),
    /// The connection is there, and the poll failed.
    Failed(Failure),
}

impl Session {
    pub(super) fn new(
        id: u64,
        connection: Connection,
        key_pid: Option<i32>,
        version: &str,
    ) -> Self {
        Self {
            id,
            version: version_num(version),
            connection,
            key_pid,
            catalog_locks: OnceCell::new(),
            ready: OnceCell::new(),
        }
    }

    /// Whether a poll may have to wait for counters.
    pub(super) fn has_dear_counters(&self) -> bool {
        self.version < HAS_SHARED_COUNTERS
    }

    /// One turn.
    pub(super) async fn turn(self: Arc<Self>, names: Arc<Names>, ask: Ask) -> Turn {
        // The very first pass waits for the names, so that it has the counters of all databases.
        let first = if names.is_empty() && ask.names { self.names().await } else { None };
        let known = match &first {
            Some(Ok(read)) => read,
            _ => &*names,
        };
        let mut outcome = self.pass(known, &ask).await;
        if let Err(TurnError::Failed(failure)) = &mut outcome
            && failure.kind == FailureKind::Blocked
        {
            self.say_who_blocks(failure).await;
        }
        let names = match &outcome {
            Ok((_, pass)) if first.is_none() => {
                let unknown = observe::has_unknown_names(&pass.activity, &names);
                let wanted = ask.names || ask.names_if_unknown && unknown;
                if wanted { self.names().await } else { None }
            }
            _ => first,
        };
        Turn { session: self.id, outcome, names }
    }

    async fn pass(&self, names: &Names, ask: &Ask) -> Result<(Identity, Pass), TurnError> {
        let (identity, statements) = self.ready.get_or_try_init(|| self.prepare()).await?;
        let databases: Vec<u32> = names.databases.keys().copied().collect();
        let databases = ask.counters.map(|ask| (databases.as_slice(), ask));
        let pass = statements.pass(&self.connection, databases).await;
        Ok((*identity, pass.map_err(|error| failed(&error, "polling"))?))
    }

    /// Makes a fresh session ready to be polled.
    async fn prepare(&self) -> Result<(Identity, Statements), TurnError> {
        let unsupported = |text: String| {
            TurnError::Failed(Failure { kind: FailureKind::Unsupported, text, sqlstate: None })
        };
        if self.version < OLDEST {
            return Err(unsupported("the server is older than PostgreSQL 13".to_owned()));
        }
        // Text comes as it is stored: converting what sessions of other encodings do would fail.
        let mut set = "SET client_encoding = 'SQL_ASCII'".to_owned();
        if HAS_IDLE_SESSION_TIMEOUT <= self.version {
            set.push_str("; SET idle_session_timeout = 0");
        }
        let preparing = |error: StatementError| failed(&error, "preparing to poll");
        self.connection.execute(&set).await.map_err(preparing)?;
        self.catalog_locks
            .get_or_try_init(|| CatalogLocks::prepare(&self.connection))
            .await
            .map_err(preparing)?;
        let identity = Identity::read(&self.connection).await.map_err(preparing)?;
        if self.key_pid.is_some_and(|pid| pid != identity.pid) {
            return Err(unsupported(A_POOLER.to_owned()));
        }
        let statements = Statements::prepare(&self.connection, self.version).await;
        Ok((identity, statements.map_err(preparing)?))
    }

    async fn say_who_blocks(&self, failure: &mut Failure) {
        let said = match self.catalog_locks.get() {
            Some(catalog_locks) => catalog_locks.said(&self.connection).await,
            None => None,
        };
        let who = said.unwrap_or_else(|| "who holds it cannot be read".to_owned());
        failure.text = format!("blocked by a lock on a system catalog: {who} ({})", failure.text);
    }

    async fn names(&self) -> Option<Result<Names, Failure>> {
        let read = Names::read(&self.connection).await;
        Some(read.map_err(|error| error.failure("reading names")))
    }
}

fn failed(error: &StatementError, doing: &str) -> TurnError {
    if error.ends_connection() {
        TurnError::Lost(error.to_string())
    } else {
        TurnError::Failed(error.failure(doing))
    }
}

/// `server_version_num` from texts such as `15.18 (Debian …)`, `18beta1` and `9.6.24`: the major,
/// which is all that is decided by it. 0 for no version at all.
fn version_num(text: &str) -> u32 {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse::<u32>().map_or(0, |major| major.saturating_mul(10_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_its_text() {
        let texts = ["15.18 (Debian 15.18-0+deb12u1)", "18beta1", "9.6.24", "", "1.18.0/bouncer"];
        assert_eq!(texts.map(version_num), [150_000, 180_000, 90_000, 0, 10_000]);
    }
}
