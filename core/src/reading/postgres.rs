//! What one poll of a Postgres server saw.
//!
//! Every field is what the server said. Sums are exact whatever was left out of `sessions`, which
//! holds only the single rows that matter.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::log::Format;

/// One complete poll.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which server this is, and since when.
    pub server: Server,
    /// Its connection limits.
    pub limits: Limits,
    /// Client backends, grouped. The sum of `connections` is the number of slots in use.
    pub groups: Vec<Group>,
    /// Backends that hold no client slot, by `backend_type`: walsenders, workers, launchers.
    pub other_backends: Vec<BackendCount>,
    /// The client sessions that matter one by one, at most [`MAX_SESSIONS`].
    pub sessions: Vec<Session>,
    /// Roles with a CONNECTION LIMIT that is enforced, from the cache of names.
    pub role_limits: Vec<ConnectionLimit>,
    /// Databases with a CONNECTION LIMIT, from the cache of names.
    pub database_limits: Vec<ConnectionLimit>,
    /// Roles that may use the slots reserved for superusers: superusers that can log in.
    pub superusers: Vec<String>,
    /// Counters a database, raw; empty until they were read once.
    pub counters: Vec<DatabaseCounters>,
    /// How long ago they were read. Up to 14 that is every 15 s, unless the statistics collector
    /// stalls; later every 5 s.
    #[serde(default)]
    pub counters_age: Duration,
    /// How our ordinary login was refused, where this was read over a replication connection in
    /// its place; `None` over an ordinary one. Absent in what older versions wrote.
    #[serde(default)]
    pub fallback: Option<Refusal>,
    /// How it writes its log; `None` until that was read once. Absent in what older versions wrote.
    #[serde(default)]
    pub logging: Option<Arc<Logging>>,
    /// What this poll cost.
    pub cost: Cost,
}

/// At most so many single sessions are carried in an observation; sums do not depend on them.
pub const MAX_SESSIONS: usize = 100;

/// Counters that are older than this say nothing of now: three times the 15 s in which they are
/// read where they are read seldom.
pub const COUNTERS_STALE_AFTER: Duration = Duration::from_secs(45);

impl Observation {
    /// The counters, unless they are too old to speak of now.
    pub fn known_counters(&self) -> &[DatabaseCounters] {
        if COUNTERS_STALE_AFTER < self.counters_age { &[] } else { &self.counters }
    }

    /// The slots as they stand.
    pub fn slots(&self) -> Slots {
        let used = self.groups.iter().map(|g| g.connections).fold(0, u32::saturating_add);
        Slots::new(self.limits, used)
    }
}

/// Which server answered. A change of `system_identifier` or `in_recovery` starts rates anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `server_version_num`, e.g. 150018.
    pub version_num: u32,
    /// `server_version`, e.g. `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// `system_identifier` of `pg_control_system()`.
    pub system_identifier: Option<i64>,
    /// `pg_postmaster_start_time()`: the epoch of every counter that is not reset.
    pub started_at: Timestamp,
    /// `pg_is_in_recovery()`: a standby.
    pub in_recovery: bool,
    /// The server's clock at the poll.
    pub clock: Timestamp,
}

/// How a server writes its log: settings that every role may see, read once a minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// `log_line_prefix`.
    pub line_prefix: String,
    /// `log_destination`: a list of `stderr`, `csvlog`, `jsonlog`, `syslog`, `eventlog`.
    pub destination: String,
    /// `update_process_title`: where it is off, the titles in the log say nothing.
    pub process_titles: bool,
}

impl Logging {
    /// Whether it writes a log of this format at all. (Without `logging_collector` it writes stderr
    /// in place of csvlog and jsonlog.)
    pub fn writes(&self, format: Format) -> bool {
        let mut named = self.destination.split(',').map(str::trim);
        named.any(|one| one.eq_ignore_ascii_case(format.word()))
    }
}

/// The limits that decide who may log in (`pg_settings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`.
    pub superuser_reserved: u32,
    /// `reserved_connections` (16 and later); on Amazon RDS up to 15 what stands in its place,
    /// `rds.rds_superuser_reserved_connections`; else 0.
    pub reserved: u32,
}

/// The slots of a server, as an ordinary role sees them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// `max_connections`.
    pub max: u32,
    /// `superuser_reserved_connections` + `reserved_connections`, or what stands in its place.
    pub reserved: u32,
    /// `max` − `reserved`: what ordinary roles can use.
    pub usable: u32,
    /// Client backends, superusers and Plimsoll included.
    pub used: u32,
    /// `usable` − `used`: logins that an ordinary role can still make. Negative when superusers
    /// hold reserved slots.
    pub free: i64,
    /// `used` ÷ `usable`; above 1 when `free` is negative. 1 when nothing is usable.
    pub utilization: f64,
}

impl Slots {
    /// The slots under these limits with so many client backends.
    pub fn new(limits: Limits, used: u32) -> Self {
        let reserved = limits.superuser_reserved.saturating_add(limits.reserved);
        let usable = limits.max_connections.saturating_sub(reserved);
        let utilization = if usable == 0 { 1.0 } else { f64::from(used) / f64::from(usable) };
        Self {
            max: limits.max_connections,
            reserved,
            usable,
            used,
            free: i64::from(usable) - i64::from(used),
            utilization,
        }
    }

    /// Slots that only superusers (and from 16 on `pg_use_reserved_connections`) can still take.
    pub fn reserved_left(&self) -> u32 {
        self.max.saturating_sub(self.used).min(self.reserved)
    }
}

/// Client backends that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The role's name, `oid 16384` while the name is unknown, empty while it logs in.
    pub role: Arc<str>,
    /// The database's name, or its OID as above; empty while it logs in.
    pub database: Arc<str>,
    /// `application_name`, as the client sent it. Not to be trusted: anything can be in it.
    pub application: Arc<str>,
    /// `client_addr`, or `local` for a Unix socket.
    pub address: Arc<str>,
    /// What they do.
    pub state: SessionState,
    /// How many.
    pub connections: u32,
    /// How many of them wait for a heavyweight lock.
    pub waiting_for_lock: u32,
    /// The longest time in this state, by the server's clock.
    pub longest_seconds: f64,
}

/// `pg_stat_activity.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// `active`.
    Active,
    /// `idle`.
    Idle,
    /// `idle in transaction`.
    IdleInTransaction,
    /// `idle in transaction (aborted)`.
    IdleInTransactionAborted,
    /// `fastpath function call`.
    FastpathFunctionCall,
    /// `disabled`: `track_activities` is off for it.
    Disabled,
    /// `starting` (18 and later), or no state yet: a login under way.
    Starting,
}

impl SessionState {
    /// The server's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::IdleInTransactionAborted => "idle in transaction (aborted)",
            Self::FastpathFunctionCall => "fastpath function call",
            Self::Disabled => "disabled",
            Self::Starting => "starting",
        }
    }
}

/// Backends of one type that hold no client slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendCount {
    /// `pg_stat_activity.backend_type`.
    pub backend_type: String,
    /// How many.
    pub count: u32,
}

/// One client session that matters by itself: waiting, long, idle in transaction, oldest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The backend's process id.
    pub pid: i32,
    /// As in [`Group`].
    pub role: Arc<str>,
    /// As in [`Group`].
    pub database: Arc<str>,
    /// As in [`Group`].
    pub application: Arc<str>,
    /// As in [`Group`].
    pub address: Arc<str>,
    /// What it does.
    pub state: SessionState,
    /// `wait_event_type` and `wait_event`, e.g. `Lock/transactionid`.
    pub wait: Option<Arc<str>>,
    /// When it logged in.
    pub started_at: Option<Timestamp>,
    /// Age of its transaction, if it is in one.
    pub transaction_seconds: Option<f64>,
    /// Time in this state.
    pub state_seconds: Option<f64>,
    /// Its current or last statement, cut and with literals taken out.
    pub query: Arc<str>,
    /// The statement's `query_id`, as in `pg_stat_statements`: from 14 on, where the server computes
    /// it (`compute_query_id`). Absent in what older versions wrote.
    #[serde(default)]
    pub query_id: Option<i64>,
    /// How long it has waited for the lock that it waits for, by the server's clock
    /// (`pg_locks.waitstart`, from 14 on); its statement may be older. Absent in what older
    /// versions wrote.
    #[serde(default)]
    pub lock_wait_seconds: Option<f64>,
}

/// A CONNECTION LIMIT and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionLimit {
    /// The role or database.
    pub name: String,
    /// The limit, above 0. (−1 is none; −2 is an interrupted DROP DATABASE, and no limit.)
    pub limit: u32,
    /// Connections that count towards it.
    pub used: u32,
}

/// Raw counters of one database (`pg_stat_get_db_*`), with their epoch. They can also fall within
/// it: a crash recovery begins them anew, while the postmaster, and so its start, stays the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatabaseCounters {
    /// The database, as in [`Group`].
    pub database: Arc<str>,
    /// `stats_reset`: with [`Server::started_at`] and the system identifier, the epoch.
    pub stats_reset: Option<Timestamp>,
    /// Committed transactions, ours included.
    pub commits: i64,
    /// Rolled back transactions.
    pub rollbacks: i64,
    /// Deadlocks.
    pub deadlocks: i64,
    /// Sessions established (14 and later).
    pub sessions: Option<i64>,
    /// Sessions ended because the client was lost (14 and later).
    pub sessions_abandoned: Option<i64>,
    /// Sessions ended by a fatal error (14 and later).
    pub sessions_fatal: Option<i64>,
    /// Sessions ended by an operator (14 and later).
    pub sessions_killed: Option<i64>,
}

/// What a poll cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time of the whole poll as we saw it.
    pub poll_seconds: f64,
    /// Time that our statements ran on the server, by its own clock.
    pub server_seconds: f64,
    /// Time that our backend took of a processor since the poll before, by the kernel of its host;
    /// `None` where that is another, or hides it, and at the first poll of a connection.
    pub processor_seconds: Option<f64>,
    /// Of one server core, what may be spent at present.
    pub budget_ratio: f64,
    /// When the next poll is due after this one began.
    pub next_after_seconds: f64,
}
