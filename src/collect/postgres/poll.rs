//! The passes of a poll, and the rows that they give.
//!
//! All statements are prepared, and a pass is sent at once, but for what only those who wait for
//! locks call for.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join3, try_join3};
use jiff::Timestamp;
use plimsoll_core::reading::postgres::SessionState;

use super::counters::CountersAsk;
use super::rows::{Connection, Parameter, Row, Statement, StatementError};
use super::shown::ShownStatements;
use super::statements::{CATALOG_LOCKS, FACTS, IDENTITY, KEEP_MEMORY, Texts};
use super::text::Text;

/// How long a reading of since when sessions wait may take: it takes a server with a million locks
/// a second, and a reading is worth having without it.
const LOCK_WAITS_AT_MOST: Duration = Duration::from_millis(250);

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    facts: Facts,
    activity: Statement,
    counters: Statement,
    /// `None` before 14.
    lock_waits: Option<Statement>,
    shown: Mutex<ShownStatements>,
}

/// The statement that says who holds a lock on a catalog; prepared before all others.
#[derive(Debug)]
pub(super) struct CatalogLocks(Statement);

/// What does not change while a connection lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) pid: i32,
    pub(super) system_identifier: Option<i64>,
}

/// All rows of one pass.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) facts: Facts,
    pub(super) activity: Vec<Activity>,
    /// `None` when they were not asked for.
    pub(super) counters: Option<Vec<Counters>>,
    /// Time that the statements ran, by the server's clock.
    pub(super) server_seconds: f64,
}

/// The row of [`FACTS`].
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) version_num: u32,
    pub(super) version: String,
    pub(super) started_at: Timestamp,
    pub(super) in_recovery: bool,
    pub(super) clock: Timestamp,
    pub(super) max_connections: u32,
    pub(super) superuser_reserved: u32,
    pub(super) reserved: u32,
    pub(super) rds_reserved: u32,
    pub(super) track_activities: bool,
    /// The role that we logged in as.
    pub(super) role: String,
}

/// A row of [`Texts::activity`]: a group without a pid, a single session with one.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    pub(super) pid: Option<i32>,
    pub(super) backend: Backend,
    /// We may not see it.
    pub(super) is_hidden: bool,
    pub(super) role: Option<u32>,
    pub(super) database: Option<u32>,
    pub(super) application: Arc<str>,
    /// `local` for a Unix socket, empty for none.
    pub(super) address: Arc<str>,
    pub(super) state: SessionState,
    pub(super) connections: u32,
    pub(super) waiting_for_lock: u32,
    pub(super) state_seconds: Option<f64>,
    pub(super) wait: Option<Arc<str>>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) transaction_seconds: Option<f64>,
    /// As it may be shown.
    pub(super) query: Arc<str>,
    /// From 14 on, where the server computes it.
    pub(super) query_id: Option<i64>,
    /// From 14 on. It is no column of the row's.
    pub(super) lock_wait_seconds: Option<f64>,
}

/// `pg_stat_activity.backend_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// It holds a client's slot.
    Client,
    /// It holds none.
    Other(String),
    /// NULL: where we may not see the session, and for a worker that is about to end.
    Unknown,
}

/// A row of [`Texts::counters`].
#[derive(Clone, Debug)]
pub(super) struct Counters {
    pub(super) database: u32,
    pub(super) stats_reset: Option<Timestamp>,
    pub(super) commits: i64,
    pub(super) rollbacks: i64,
    pub(super) deadlocks: i64,
    pub(super) sessions: Option<i64>,
    pub(super) sessions_abandoned: Option<i64>,
    pub(super) sessions_fatal: Option<i64>,
    pub(super) sessions_killed: Option<i64>,
}

impl Statements {
    /// Prepares them. On a fresh connection this reads catalogs, and can meet a lock on one.
    pub(super) async fn prepare(
        connection: &Connection,
        version: u32,
    ) -> Result<Self, StatementError> {
        let texts = Texts::of(version);
        let prepare = |sql| connection.prepare(sql);
        let (facts, activity, counters) =
            try_join3(prepare(FACTS), prepare(texts.activity), prepare(texts.counters)).await?;
        let lock_waits = match texts.lock_waits {
            Some(sql) => Some(prepare(sql).await?),
            None => None,
        };
        let facts = Facts::from_row(&connection.query_one(&facts).await?)?;
        match connection.execute(KEEP_MEMORY).await {
            Err(error) if error.ends_connection() => return Err(error),
            // It has not so much to spare: polls are dearer, and right.
            Err(error) => tracing::debug!(%error, "memory is not kept between polls"),
            Ok(()) => {}
        }
        Ok(Self { facts, activity, counters, lock_waits, shown: Mutex::default() })
    }

    /// One complete pass: activity first, counters after it, if they are asked for; then since when
    /// those wait who wait for a lock.
    pub(super) async fn pass(
        &self,
        connection: &Connection,
        databases: Option<(&[u32], CountersAsk)>,
    ) -> Result<Pass, StatementError> {
        let counters = async {
            match databases {
                Some((oids, ask)) => self.counters(connection, oids, ask.at_most).await.map(Some),
                None => Ok(None),
            }
        };
        let activity = connection.query(&self.activity, Parameter::None);
        let (activity, counters) = join(activity, counters).await;
        let activity = activity?;
        // Slots are worth having without them: those of before are shown until the next time.
        let counters = match counters {
            Err(error) if error.ends_connection() => return Err(error),
            counters => counters.ok().flatten(),
        };
        let facts = self.facts.at(&activity)?;
        let (mut activity, ran) = self.activity(&activity)?;
        let ran_for_counters = latest(counters.as_deref().unwrap_or(&[]), "server_seconds")?;
        let waited = self.lock_waits(connection, &mut activity).await?;
        Ok(Pass {
            facts,
            activity,
            counters: counters
                .map(|rows| rows.iter().map(Counters::from_row).collect::<Result<_, _>>())
                .transpose()?,
            server_seconds: ran + ran_for_counters + waited,
        })
    }

    /// All rows, and how long their statement ran.
    fn activity(&self, rows: &[Row]) -> Result<(Vec<Activity>, f64), StatementError> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.begin();
        let mut activity = Vec::with_capacity(rows.len());
        let mut ran = 0.0_f64;
        for row in rows {
            activity.push(Activity::from_row(row, &mut shown)?);
            ran = ran.max(row.get("server_seconds")?);
        }
        Ok((activity, ran))
    }

    /// Counters, which may take no longer than that.
    async fn counters(
        &self,
        connection: &Connection,
        databases: &[u32],
        at_most: Option<Duration>,
    ) -> Result<Vec<Row>, StatementError> {
        let parameter = Parameter::Oids(databases);
        match at_most {
            Some(at_most) => limited(connection, &self.counters, parameter, at_most).await,
            None => connection.query(&self.counters, parameter).await,
        }
    }

    /// Notes how long single sessions have waited for a lock, if any does; how long that took the
    /// server.
    async fn lock_waits(
        &self,
        connection: &Connection,
        activity: &mut [Activity],
    ) -> Result<f64, StatementError> {
        let waiting = activity.iter().filter(|row| row.waits_for_lock());
        let pids: Vec<i32> = waiting.filter_map(|row| row.pid).collect();
        let Some(statement) = self.lock_waits.as_ref().filter(|_| !pids.is_empty()) else {
            return Ok(0.0);
        };
        let parameter = Parameter::Pids(&pids);
        match limited(connection, statement, parameter, LOCK_WAITS_AT_MOST).await {
            Err(error) if error.ends_connection() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "since when sessions wait is not known");
                Ok(LOCK_WAITS_AT_MOST.as_secs_f64())
            }
            Ok(rows) => {
                for row in &rows {
                    let (pid, waited): (i32, f64) = (row.get("pid")?, row.get("waited_seconds")?);
                    let of_it = activity.iter_mut().find(|row| row.pid == Some(pid));
                    if let Some(session) = of_it {
                        session.lock_wait_seconds = Some(waited.max(0.0));
                    }
                }
                latest(&rows, "server_seconds")
            }
        }
    }
}

/// The rows of a statement that may take no longer than that. The limit is set and taken back in
/// the same breath: the three are sent at once, and one that fails keeps no other from running.
async fn limited(
    connection: &Connection,
    statement: &Statement,
    parameter: Parameter<'_>,
    at_most: Duration,
) -> Result<Vec<Row>, StatementError> {
    let limit = format!("SET statement_timeout = {}", at_most.as_millis().max(1));
    // What it is taken back to is what the session was begun with.
    let (limited, rows, reset) = join3(
        connection.execute(&limit),
        connection.query(statement, parameter),
        connection.execute("RESET statement_timeout"),
    )
    .await;
    limited?;
    reset?;
    rows
}

impl CatalogLocks {
    /// Prepares it.
    pub(super) async fn prepare(connection: &Connection) -> Result<Self, StatementError> {
        connection.prepare(CATALOG_LOCKS).await.map(Self)
    }

    /// Who holds one, for people; `None` if nobody does or it cannot be read.
    pub(super) async fn said(&self, connection: &Connection) -> Option<String> {
        let rows = connection.query(&self.0, Parameter::None).await.ok()?;
        let held: Vec<String> = rows.iter().filter_map(|row| said_of_lock(row).ok()).collect();
        (!held.is_empty()).then(|| held.join(", "))
    }
}

impl Identity {
    /// Asks for it.
    pub(super) async fn read(connection: &Connection) -> Result<Self, StatementError> {
        let row = connection.query_one(&connection.prepare(IDENTITY).await?).await?;
        Ok(Self { pid: row.get("pid")?, system_identifier: row.get("system_identifier")? })
    }
}

fn latest(rows: &[Row], column: &str) -> Result<f64, StatementError> {
    let mut latest = 0.0_f64;
    for row in rows {
        latest = latest.max(row.get(column)?);
    }
    Ok(latest)
}

fn said_of_lock(row: &Row) -> Result<String, StatementError> {
    let pid: i32 = row.get("pid")?;
    let oid: u32 = row.get("relation")?;
    let verb = if row.get("granted")? { "holds" } else { "waits for" };
    // The OIDs of catalogs are fixed (the headers in src/include/catalog).
    let catalog = match oid {
        1260 => "pg_authid".to_owned(),
        1261 => "pg_auth_members".to_owned(),
        1262 => "pg_database".to_owned(),
        2964 => "pg_db_role_setting".to_owned(),
        1247 => "pg_type".to_owned(),
        1249 => "pg_attribute".to_owned(),
        1255 => "pg_proc".to_owned(),
        1259 => "pg_class".to_owned(),
        oid => format!("the catalog with OID {oid}"),
    };
    Ok(format!("pid {pid} {verb} an AccessExclusiveLock on {catalog}"))
}

/// `pg_stat_activity.state`; a login under way has none yet.
fn session_state(state: Option<&str>) -> SessionState {
    match state {
        Some("active") => SessionState::Active,
        Some("idle") => SessionState::Idle,
        Some("idle in transaction") => SessionState::IdleInTransaction,
        Some("idle in transaction (aborted)") => SessionState::IdleInTransactionAborted,
        Some("fastpath function call") => SessionState::FastpathFunctionCall,
        Some("disabled") => SessionState::Disabled,
        _ => SessionState::Starting,
    }
}

fn address(address: Option<&str>, is_local: Option<bool>) -> Arc<str> {
    match address {
        Some(address) => address.into(),
        None if is_local == Some(true) => "local".into(),
        None => Arc::default(),
    }
}

fn not_negative(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A setting that should be a count; 0 for anything else.
fn count(setting: &str) -> u32 {
    setting.trim().parse().unwrap_or(0)
}

fn text<'a>(row: &'a Row, column: &str) -> Result<Option<Cow<'a, str>>, StatementError> {
    Ok(row.get::<Option<Text<'_>>>(column)?.map(|text| text.0))
}

/// An empty one for NULL.
fn shared(row: &Row, column: &str) -> Result<Arc<str>, StatementError> {
    Ok(text(row, column)?.map(Arc::from).unwrap_or_default())
}

impl Facts {
    fn from_row(row: &Row) -> Result<Self, StatementError> {
        let number = |column: &str| Ok::<_, StatementError>(not_negative(row.get(column)?));
        Ok(Self {
            version_num: number("version_num")?,
            version: text(row, "version")?.unwrap_or_default().into_owned(),
            started_at: row.get("started_at")?,
            in_recovery: row.get("in_recovery")?,
            clock: row.get("clock")?,
            max_connections: number("max_connections")?,
            superuser_reserved: number("superuser_reserved")?,
            reserved: number("reserved")?,
            rds_reserved: text(row, "rds_reserved")?.as_deref().map_or(0, count),
            track_activities: text(row, "track_activities")?.as_deref() != Some("off"),
            role: text(row, "role")?.unwrap_or_default().into_owned(),
        })
    }

    /// The same, with what can change while a connection lasts. Groups come first, and there is
    /// always one: ours.
    fn at(&self, activity: &[Row]) -> Result<Self, StatementError> {
        let Some(row) = activity.first() else { return Ok(self.clone()) };
        Ok(Self {
            in_recovery: row.get("in_recovery")?,
            clock: row.get("clock")?,
            track_activities: text(row, "track_activities")?.as_deref() != Some("off"),
            ..self.clone()
        })
    }
}

impl Backend {
    fn of(backend_type: Option<&str>) -> Self {
        match backend_type {
            Some("client backend") => Self::Client,
            Some(other) => Self::Other(other.to_owned()),
            None => Self::Unknown,
        }
    }
}

impl Activity {
    fn waits_for_lock(&self) -> bool {
        self.wait.as_deref().is_some_and(|wait| wait.starts_with("Lock/"))
    }

    fn from_row(row: &Row, shown: &mut ShownStatements) -> Result<Self, StatementError> {
        // Clocks of the server may go back: no time is negative.
        let seconds = |column: &str| {
            let seconds: Option<f64> = row.get(column)?;
            Ok::<_, StatementError>(seconds.map(|s| s.max(0.0)))
        };
        Ok(Self {
            pid: row.get("pid")?,
            backend: Backend::of(text(row, "backend_type")?.as_deref()),
            role: row.get("usesysid")?,
            database: row.get("datid")?,
            application: shared(row, "application_name")?,
            address: address(text(row, "address")?.as_deref(), row.get("is_local")?),
            state: session_state(text(row, "state")?.as_deref()),
            connections: not_negative(row.get("connections")?),
            waiting_for_lock: not_negative(row.get("waiting_for_lock")?),
            state_seconds: seconds("state_seconds")?,
            wait: text(row, "wait")?.map(Arc::from),
            started_at: row.get("started_at")?,
            transaction_seconds: seconds("transaction_seconds")?,
            query: text(row, "query")?.map(|text| shown.show(&text)).unwrap_or_default(),
            query_id: row.get("query_id")?,
            lock_wait_seconds: None,
            is_hidden: row.get("is_hidden")?,
        })
    }
}

impl Counters {
    fn from_row(row: &Row) -> Result<Self, StatementError> {
        Ok(Self {
            database: row.get("datid")?,
            stats_reset: row.get("stats_reset")?,
            commits: row.get("commits")?,
            rollbacks: row.get("rollbacks")?,
            deadlocks: row.get("deadlocks")?,
            sessions: row.get("sessions")?,
            sessions_abandoned: row.get("sessions_abandoned")?,
            sessions_fatal: row.get("sessions_fatal")?,
            sessions_killed: row.get("sessions_killed")?,
        })
    }
}
