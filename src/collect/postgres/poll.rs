//! The statements of a poll, and the rows that they give.
//!
//! None of them names a relation, and all are prepared: views join catalogs and hang while somebody
//! locks one, the functions below them go on. All of a pass is sent at once.

use std::time::Duration;

use futures_util::future::{join, join3, try_join3};
use jiff::Timestamp;

use super::counters::CountersAsk;
use super::rows::{Connection, Parameter, Row, Statement, StatementError};
use super::text::Text;

/// Which server this is, and its limits. One row, read once: a server has to be started anew for any
/// of it to change, but for the three that come with each [`ACTIVITY`], too.
const FACTS: &str = "
    SELECT current_setting('server_version_num')::int4 AS version_num,
        current_setting('server_version') AS version,
        pg_postmaster_start_time() AS started_at,
        pg_is_in_recovery() AS in_recovery,
        clock_timestamp() AS clock,
        current_setting('max_connections')::int4 AS max_connections,
        current_setting('superuser_reserved_connections')::int4 AS superuser_reserved,
        -- 16 and later
        COALESCE(current_setting('reserved_connections', true)::int4, 0) AS reserved,
        -- Amazon RDS up to 15. Anybody may have set such a name to anything on other servers, so
        -- it is sent as text: a cast that fails would cost the poll.
        current_setting('rds.rds_superuser_reserved_connections', true) AS rds_reserved,
        current_setting('track_activities') AS track_activities,
        current_setting('session_authorization') AS role";

/// Every backend, grouped; then the single client sessions that matter, our own left out: at most
/// 25 of each kind, and 5 idle ones, longest first, so that a queue of a thousand waiters does not
/// hide the one that they wait for. Rows of sessions have a pid. `query` is cut in bytes and sent
/// as they are: it may be text of another encoding, and every function of text may fail on it.
///
/// The shape is the cheapest of those that were measured (docs/benchmarks.md). All columns are
/// kept because rows are then copied as they are, which costs less than to pick some. The 25 are
/// chosen by pid and one time: a sort copies what it sorts, statements included. Idle sessions are
/// by far the most, so they are not copied to be chosen from. `date_part` because `extract` counts
/// in numeric from 14 on.
const ACTIVITY: &str = "
    WITH activity AS MATERIALIZED (
        SELECT * FROM pg_stat_get_activity(NULL)
    ), busy AS MATERIALIZED (
        SELECT pid, state_change, xact_start,
            CASE
                WHEN wait_event_type = 'Lock' THEN 1
                WHEN state IN ('active', 'fastpath function call') THEN 2
                ELSE 3
            END AS kind
        FROM activity
        WHERE (wait_event_type = 'Lock'
                OR state <> 'idle' AND state <> 'disabled' AND state <> 'starting')
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    ), chosen AS (
        (SELECT pid FROM busy WHERE kind = 1 ORDER BY state_change LIMIT 25)
        UNION ALL
        (SELECT pid FROM busy WHERE kind = 2 ORDER BY xact_start LIMIT 25)
        UNION ALL
        (SELECT pid FROM busy WHERE kind = 3 ORDER BY xact_start LIMIT 25)
        -- State and wait are not read at one moment: one that looks idle may be among the waiting.
        UNION
        (SELECT pid FROM activity WHERE state = 'idle' AND backend_type = 'client backend'
            ORDER BY state_change LIMIT 5)
    )
    SELECT NULL::int4 AS pid, backend_type, usesysid, datid, application_name,
        host(client_addr) AS address, client_port = -1 AS is_local, state,
        count(*)::int4 AS connections,
        (count(*) FILTER (WHERE wait_event_type = 'Lock'))::int4 AS waiting_for_lock,
        date_part('epoch', statement_timestamp() - min(state_change)) AS state_seconds,
        NULL::text AS wait, NULL::timestamptz AS started_at, NULL::float8 AS transaction_seconds,
        NULL::bytea AS query,
        bool_or(backend_type IS NULL AND query = '<insufficient privilege>') AS is_hidden,
        date_part('epoch', clock_timestamp() - statement_timestamp()) AS server_seconds,
        (SELECT pg_is_in_recovery()) AS in_recovery,
        (SELECT clock_timestamp()) AS clock,
        (SELECT current_setting('track_activities')) AS track_activities
    FROM activity
    GROUP BY backend_type, usesysid, datid, application_name, client_addr, client_port = -1, state
    UNION ALL
    SELECT pid, backend_type, usesysid, datid, application_name,
        host(client_addr), client_port = -1, state,
        0, 0,
        date_part('epoch', statement_timestamp() - state_change),
        wait_event_type || '/' || wait_event, backend_start,
        date_part('epoch', statement_timestamp() - xact_start),
        substr(textsend(query), 1, 1024), false,
        date_part('epoch', clock_timestamp() - statement_timestamp()),
        NULL, NULL, NULL
    FROM activity JOIN chosen USING (pid)";

/// Counters of the databases that are known by name.
const COUNTERS: &str = "
    SELECT d.oid AS datid,
        pg_stat_get_db_stat_reset_time(d.oid) AS stats_reset,
        pg_stat_get_db_xact_commit(d.oid) AS commits,
        pg_stat_get_db_xact_rollback(d.oid) AS rollbacks,
        pg_stat_get_db_deadlocks(d.oid) AS deadlocks,
        pg_stat_get_db_sessions(d.oid) AS sessions,
        pg_stat_get_db_sessions_abandoned(d.oid) AS sessions_abandoned,
        pg_stat_get_db_sessions_fatal(d.oid) AS sessions_fatal,
        pg_stat_get_db_sessions_killed(d.oid) AS sessions_killed,
        extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS server_seconds
    FROM unnest($1::oid[]) AS d(oid)";

/// The same before 14, which has no counters of sessions.
const COUNTERS_13: &str = "
    SELECT d.oid AS datid,
        pg_stat_get_db_stat_reset_time(d.oid) AS stats_reset,
        pg_stat_get_db_xact_commit(d.oid) AS commits,
        pg_stat_get_db_xact_rollback(d.oid) AS rollbacks,
        pg_stat_get_db_deadlocks(d.oid) AS deadlocks,
        NULL::int8 AS sessions, NULL::int8 AS sessions_abandoned,
        NULL::int8 AS sessions_fatal, NULL::int8 AS sessions_killed,
        extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS server_seconds
    FROM unnest($1::oid[]) AS d(oid)";

/// Who holds, or waits for, a lock that even a reader of a system catalog waits for. OIDs below
/// 16384 are the server's own relations (transam.h, `FirstNormalObjectId`).
const CATALOG_LOCKS: &str = "
    SELECT l.pid, l.relation, l.granted
    FROM pg_lock_status() AS l
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
        AND l.relation < 16384::oid AND l.pid IS NOT NULL
    ORDER BY l.granted DESC, l.pid
    LIMIT 3";

/// Makes the backend keep the memory that a poll frees, instead of asking the system for it anew.
///
/// A poll copies the states of all backends (backend_status.c, `pgstat_read_current_status`: room
/// for `track_activity_query_size` for each that there may be), and then their rows. glibc gives
/// what is free at the end back to the system once that is more than twice the largest block that
/// was ever freed (malloc.c, `mp_.trim_threshold`), and all of it together is: so the pages come
/// back one by one, zeroed, at each poll. With 4,980 backends those were 2,900 page faults and a
/// fifth of a poll's time. A block of twice the copy's size, freed once, ends it; the backend then
/// keeps what it had for a moment at each poll: 12 MB there, 1.6 MB with 480. glibc goes by no
/// block of 32 MiB or more. Other libraries lose nothing by it.
const KEEP_MEMORY: &str = "
    SELECT octet_length(repeat(repeat('x', 1024),
        (LEAST(31 << 20, 2 * current_setting('max_connections')::int8
            * translate(s.size, 'kMB', '')::int8
            * CASE WHEN s.size LIKE '%MB' THEN 1 << 20
                WHEN s.size LIKE '%kB' THEN 1 << 10 ELSE 1 END) / 1024)::int4)) AS freed
    FROM current_setting('track_activity_query_size') AS s(size)";

/// What does not change while a connection lasts.
const IDENTITY: &str = "
    SELECT pg_backend_pid() AS pid, c.system_identifier
    FROM pg_control_system() AS c";

/// The statements of one session.
#[derive(Debug)]
pub(super) struct Statements {
    facts: Facts,
    activity: Statement,
    counters: Statement,
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

/// A row of [`ACTIVITY`]: a group without a pid, a single session with one.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    pub(super) pid: Option<i32>,
    /// NULL where we may not see the session, and for a worker that is about to end.
    pub(super) backend_type: Option<String>,
    /// We may not see it.
    pub(super) is_hidden: bool,
    pub(super) role: Option<u32>,
    pub(super) database: Option<u32>,
    pub(super) application: String,
    pub(super) address: Option<String>,
    pub(super) is_local: bool,
    pub(super) state: Option<String>,
    pub(super) connections: u32,
    pub(super) waiting_for_lock: u32,
    pub(super) state_seconds: Option<f64>,
    pub(super) wait: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) transaction_seconds: Option<f64>,
    pub(super) query: String,
}

/// A row of [`COUNTERS`].
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
        let counters = if version < 140_000 { COUNTERS_13 } else { COUNTERS };
        let prepare = |sql| connection.prepare(sql);
        let (facts, activity, counters) =
            try_join3(prepare(FACTS), prepare(ACTIVITY), prepare(counters)).await?;
        let facts = Facts::from_row(&connection.query_one(&facts).await?)?;
        match connection.execute(KEEP_MEMORY).await {
            Err(error) if error.ends_connection() => return Err(error),
            // It has not so much to spare: polls are dearer, and right.
            Err(error) => tracing::debug!(%error, "memory is not kept between polls"),
            Ok(()) => {}
        }
        Ok(Self { facts, activity, counters })
    }

    /// One complete pass: activity first, counters after it, if they are asked for.
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
        let seconds = |rows: &[Row]| latest(rows, "server_seconds");
        let server_seconds = seconds(&activity)? + seconds(counters.as_deref().unwrap_or(&[]))?;
        Ok(Pass {
            facts: self.facts.at(&activity)?,
            activity: activity.iter().map(Activity::from_row).collect::<Result<_, _>>()?,
            counters: counters
                .map(|rows| rows.iter().map(Counters::from_row).collect::<Result<_, _>>())
                .transpose()?,
            server_seconds,
        })
    }
}

impl Statements {
    /// Counters, which may take no longer than that. The limit is set and taken back in the same
    /// breath: the three are sent at once, and one that fails keeps no other from running.
    async fn counters(
        &self,
        connection: &Connection,
        databases: &[u32],
        at_most: Option<Duration>,
    ) -> Result<Vec<Row>, StatementError> {
        let counters = connection.query(&self.counters, Parameter::Oids(databases));
        let Some(at_most) = at_most else { return counters.await };
        let limit = format!("SET statement_timeout = {}", at_most.as_millis().max(1));
        // What it is taken back to is what the session was begun with.
        let (limited, rows, reset) = join3(
            connection.execute(&limit),
            counters,
            connection.execute("RESET statement_timeout"),
        )
        .await;
        limited?;
        reset?;
        rows
    }
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

fn not_negative(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A setting that should be a count; 0 for anything else.
fn count(setting: &str) -> u32 {
    setting.trim().parse().unwrap_or(0)
}

fn text(row: &Row, column: &str) -> Result<Option<String>, StatementError> {
    Ok(row.get::<Option<Text>>(column)?.map(|text| text.0))
}

impl Facts {
    fn from_row(row: &Row) -> Result<Self, StatementError> {
        let number = |column: &str| Ok::<_, StatementError>(not_negative(row.get(column)?));
        Ok(Self {
            version_num: number("version_num")?,
            version: text(row, "version")?.unwrap_or_default(),
            started_at: row.get("started_at")?,
            in_recovery: row.get("in_recovery")?,
            clock: row.get("clock")?,
            max_connections: number("max_connections")?,
            superuser_reserved: number("superuser_reserved")?,
            reserved: number("reserved")?,
            rds_reserved: text(row, "rds_reserved")?.as_deref().map_or(0, count),
            track_activities: text(row, "track_activities")?.as_deref() != Some("off"),
            role: text(row, "role")?.unwrap_or_default(),
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

impl Activity {
    fn from_row(row: &Row) -> Result<Self, StatementError> {
        // Clocks of the server may go back: no time is negative.
        let seconds = |column: &str| {
            let seconds: Option<f64> = row.get(column)?;
            Ok::<_, StatementError>(seconds.map(|s| s.max(0.0)))
        };
        Ok(Self {
            pid: row.get("pid")?,
            backend_type: text(row, "backend_type")?,
            role: row.get("usesysid")?,
            database: row.get("datid")?,
            application: text(row, "application_name")?.unwrap_or_default(),
            address: text(row, "address")?,
            is_local: row.get::<Option<bool>>("is_local")?.unwrap_or(false),
            state: text(row, "state")?,
            connections: not_negative(row.get("connections")?),
            waiting_for_lock: not_negative(row.get("waiting_for_lock")?),
            state_seconds: seconds("state_seconds")?,
            wait: text(row, "wait")?,
            started_at: row.get("started_at")?,
            transaction_seconds: seconds("transaction_seconds")?,
            query: text(row, "query")?.unwrap_or_default(),
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
