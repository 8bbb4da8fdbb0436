//! The names of roles and databases, and what else only catalogs know: limits and superusers.
//!
//! Polls carry OIDs, because a query that names a catalog hangs while somebody locks it. This cache
//! is refreshed between polls, over the same connection, with its short lock_timeout; what cannot
//! be refreshed stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, try_join};
use plimsoll_core::reading::Failure;
use plimsoll_core::reading::postgres::Logging;

use super::rows::{Connection, Parameter, Row, StatementError};
use super::text::Text;

/// So many roles, and so many databases, are known by name; others are shown by their OID.
const MAX_NAMES: i64 = 20_000;

/// Names are read again after so long, in case a limit was changed.
const AGE_AT_MOST: Duration = Duration::from_mins(1);

/// Names are not read more often than this, however many unknown ones are seen.
const READ_APART: Duration = Duration::from_secs(5);

/// The names as they were read last. They outlive a connection.
#[derive(Debug, Default)]
pub(super) struct NamesCache {
    known: Arc<Names>,
    read: Option<Instant>,
    tried: Option<Instant>,
    /// The `system_identifier` of the server that they are of.
    system: Option<i64>,
}

/// All names of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) roles: BTreeMap<u32, Role>,
    pub(super) databases: BTreeMap<u32, Database>,
    /// How it writes its log: what the source that follows that must know.
    pub(super) logging: Option<Arc<Logging>>,
}

#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: Arc<str>,
    pub(super) superuser: bool,
    pub(super) can_login: bool,
    /// −1 is none.
    pub(super) limit: i32,
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) name: Arc<str>,
    /// −1 is none, −2 an interrupted DROP DATABASE.
    pub(super) limit: i32,
}

/// Not prepared for good: it runs once a minute, and may wait for a lock at every step.
const ROLES: &str = "
    SELECT r.oid, r.rolname, r.rolsuper, r.rolcanlogin, r.rolconnlimit
    FROM pg_roles AS r
    LIMIT $1";

const DATABASES: &str = "
    SELECT d.oid, d.datname, d.datconnlimit
    FROM pg_database AS d
    LIMIT $1";

/// Every role may see these (guc_tables.c has no `GUC_SUPERUSER_ONLY` for them). They come with the
/// names because a reload of the server can change them.
const LOGGING: &str = "
    SELECT current_setting('log_line_prefix') AS line_prefix,
        current_setting('log_destination') AS destination,
        current_setting('update_process_title')::bool AS process_titles";

impl NamesCache {
    pub(super) fn known(&self) -> Arc<Names> {
        Arc::clone(&self.known)
    }

    /// Whether they should be read again.
    pub(super) fn are_old(&self, now: Instant) -> bool {
        self.read.is_none_or(|at| now >= at + AGE_AT_MOST) && self.may_be_read(now)
    }

    /// Whether they may be read again, if there is a reason.
    pub(super) fn may_be_read(&self, now: Instant) -> bool {
        self.tried.is_none_or(|at| now >= at + READ_APART)
    }

    /// On a new connection they are read again: who answers may be another server.
    pub(super) fn doubt(&mut self) {
        (self.read, self.tried) = (None, None);
    }

    /// Forgets those of another server, where the same OIDs are others; says whether it did.
    pub(super) fn forget_unless_of(&mut self, system: Option<i64>) -> bool {
        let another = self.system.is_some() && self.system != system;
        if another {
            *self = Self::default();
        }
        self.system = system;
        another
    }

    /// Takes what was read; what could not be read stays as it was.
    pub(super) fn take(&mut self, names: Result<Names, Failure>, now: Instant) {
        self.tried = Some(now);
        match names {
            Ok(names) => {
                self.known = Arc::new(names);
                self.read = Some(now);
            }
            Err(failure) => {
                tracing::debug!(text = failure.text, "the names stay as they were");
            }
        }
    }
}

impl Names {
    /// Reads all of them anew.
    pub(super) async fn read(connection: &Connection) -> Result<Self, StatementError> {
        let read = |sql| connection.query_once(sql, Parameter::Count(MAX_NAMES));
        let names = try_join(read(ROLES), read(DATABASES));
        let logging = connection.query_once(LOGGING, Parameter::None);
        let (names, logging) = join(names, logging).await;
        let (roles, databases) = names?;
        // Names are worth having without it.
        let logging = logging.ok().and_then(|rows| Some(Arc::new(logging_of(rows.first()?).ok()?)));
        let mut names = Self { logging, ..Self::default() };
        for row in roles {
            let role = Role {
                name: row.get::<Text<'_>>("rolname")?.0.into(),
                superuser: row.get("rolsuper")?,
                can_login: row.get("rolcanlogin")?,
                limit: row.get("rolconnlimit")?,
            };
            names.roles.insert(row.get("oid")?, role);
        }
        for row in databases {
            let database = Database {
                name: row.get::<Text<'_>>("datname")?.0.into(),
                limit: row.get("datconnlimit")?,
            };
            names.databases.insert(row.get("oid")?, database);
        }
        Ok(names)
    }

    /// Whether nothing was ever read.
    pub(super) fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// The role's name, its OID while that is unknown, empty for none.
    pub(super) fn role(&self, oid: Option<u32>) -> Arc<str> {
        let known = |oid| self.roles.get(&oid).map(|role| Arc::clone(&role.name));
        named(oid, known)
    }

    /// The database's name, as for a role.
    pub(super) fn database(&self, oid: Option<u32>) -> Arc<str> {
        let known = |oid| self.databases.get(&oid).map(|database| Arc::clone(&database.name));
        named(oid, known)
    }
}

fn logging_of(row: &Row) -> Result<Logging, StatementError> {
    Ok(Logging {
        line_prefix: row.get::<Text<'_>>("line_prefix")?.0.into_owned(),
        destination: row.get::<Text<'_>>("destination")?.0.into_owned(),
        process_titles: row.get("process_titles")?,
    })
}

fn named(oid: Option<u32>, known: impl Fn(u32) -> Option<Arc<str>>) -> Arc<str> {
    match oid {
        None | Some(0) => Arc::default(),
        Some(oid) => known(oid).unwrap_or_else(|| format!("oid {oid}").into()),
    }
}
