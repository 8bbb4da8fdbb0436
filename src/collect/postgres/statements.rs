//! The text of the statements of a poll, and all in which it differs by major version.
//!
//! None of them names a relation: views join catalogs and hang while somebody locks one, the
//! functions below them go on. [`super::poll`] sends them and reads their rows.

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
macro_rules! activity {
    ($query_id:literal) => {
        concat!(
            "
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
        NULL::bytea AS query, NULL::int8 AS query_id,
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
        substr(textsend(query), 1, 1024), ",
            $query_id,
            ", false,
        date_part('epoch', clock_timestamp() - statement_timestamp()),
        NULL, NULL, NULL
    FROM activity JOIN chosen USING (pid)"
        )
    };
}

/// Counters of the databases that are known by name.
macro_rules! counters {
    ($sessions:literal) => {
        concat!(
            "
    SELECT d.oid AS datid,
        pg_stat_get_db_stat_reset_time(d.oid) AS stats_reset,
        pg_stat_get_db_xact_commit(d.oid) AS commits,
        pg_stat_get_db_xact_rollback(d.oid) AS rollbacks,
        pg_stat_get_db_deadlocks(d.oid) AS deadlocks,",
            $sessions,
            "
        extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS server_seconds
    FROM unnest($1::oid[]) AS d(oid)"
        )
    };
}

/// What the statements of a poll of this server are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    /// Every backend, grouped, and the single sessions that matter.
    pub(super) activity: &'static str,
    /// Counters of the databases whose OIDs are `$1`.
    pub(super) counters: &'static str,
    /// How long the sessions whose pids are `$1` have waited for a lock; `None` where no server
    /// says it.
    pub(super) lock_waits: Option<&'static str>,
}

impl Texts {
    /// For a server with this `server_version_num`.
    pub(super) fn of(version: u32) -> Self {
        // 14 has query_id in pg_stat_get_activity, waitstart in pg_lock_status, and counters of
        // sessions.
        if version < 140_000 { BEFORE_14 } else { FROM_14 }
    }
}

const FROM_14: Texts = Texts {
    activity: activity!("query_id"),
    counters: counters!(
        "
        pg_stat_get_db_sessions(d.oid) AS sessions,
        pg_stat_get_db_sessions_abandoned(d.oid) AS sessions_abandoned,
        pg_stat_get_db_sessions_fatal(d.oid) AS sessions_fatal,
        pg_stat_get_db_sessions_killed(d.oid) AS sessions_killed,"
    ),
    lock_waits: Some(LOCK_WAITS),
};

const BEFORE_14: Texts = Texts {
    activity: activity!("NULL"),
    counters: counters!(
        "
        NULL::int8 AS sessions, NULL::int8 AS sessions_abandoned,
        NULL::int8 AS sessions_fatal, NULL::int8 AS sessions_killed,"
    ),
    lock_waits: None,
};

/// Which server this is, and its limits. One row, read once: a server has to be started anew for any
/// of it to change, but for the three that come with each [`Texts::activity`], too.
pub(super) const FACTS: &str = "
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

/// Since when those of `$1` wait for a lock. A session waits for one at a time; its time is absent
/// for a moment, while it is being queued (lockfuncs.c, `pg_lock_status`).
const LOCK_WAITS: &str = "
    SELECT l.pid,
        extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS waited_seconds,
        extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS server_seconds
    FROM pg_lock_status() AS l
    WHERE NOT l.granted AND l.waitstart IS NOT NULL AND l.pid = ANY ($1::int4[])";

/// Who holds, or waits for, a lock that even a reader of a system catalog waits for. OIDs below
/// 16384 are the server's own relations (transam.h, `FirstNormalObjectId`).
pub(super) const CATALOG_LOCKS: &str = "
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
pub(super) const KEEP_MEMORY: &str = "
    SELECT octet_length(repeat(repeat('x', 1024),
        (LEAST(31 << 20, 2 * current_setting('max_connections')::int8
            * translate(s.size, 'kMB', '')::int8
            * CASE WHEN s.size LIKE '%MB' THEN 1 << 20
                WHEN s.size LIKE '%kB' THEN 1 << 10 ELSE 1 END) / 1024)::int4)) AS freed
    FROM current_setting('track_activity_query_size') AS s(size)";

/// What does not change while a connection lasts.
pub(super) const IDENTITY: &str = "
    SELECT pg_backend_pid() AS pid, c.system_identifier
    FROM pg_control_system() AS c";
