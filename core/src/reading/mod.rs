//! What was observed of one target at one instant, including what failed: values, never changed.
//!
//! `collect` makes readings, the judge and the flight recorder take them. Raw counters stand here
//! with their epoch, never rates: what needs two readings is the judge's memory.

pub mod app_pool;
pub mod exposition;
pub mod log;
pub mod pooler;
pub mod postgres;
pub mod probe;
pub mod sql;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything that was observed of one target at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Our wall clock when the reading was composed. For people only: no patience is kept with it.
    pub at: Timestamp,
    /// Monotonic time since the reading before it in the same run; zero for the first of a run.
    pub elapsed: Duration,
    /// The server itself.
    pub postgres: Part<postgres::Observation>,
    /// Our own logins since the reading before, each in exactly one reading.
    pub logins: Logins,
    /// The server's log, where it is followed.
    #[serde(default)]
    pub log: Option<Sourced<log::Observation, log::Lines>>,
    /// Logins as applications make them.
    #[serde(default)]
    pub probes: Vec<Sourced<probe::Observation, probe::Attempts>>,
    /// Poolers.
    #[serde(default)]
    pub poolers: Vec<Sourced<pooler::Observation>>,
    /// The pools of applications.
    #[serde(default)]
    pub app_pools: Vec<Sourced<app_pool::Observation>>,
}

impl Reading {
    /// A reading of a target that has no source but its server.
    pub fn of_postgres(
        at: Timestamp,
        elapsed: Duration,
        postgres: Part<postgres::Observation>,
        logins: Logins,
    ) -> Self {
        Self {
            at,
            elapsed,
            postgres,
            logins,
            log: None,
            probes: Vec::new(),
            poolers: Vec::new(),
            app_pools: Vec::new(),
        }
    }
}

/// What one source of a target gave, beside the server itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sourced<T, H = ()> {
    /// The name of the source in settings: of the probe, of the pooler, of the application.
    pub name: String,
    /// The observation or failure, with its age.
    pub part: Part<T>,
    /// What happened since the reading before, each thing in exactly one reading.
    pub happened: H,
}

/// Things that happened, unlike a gauge: what a source says later adds to what it said before.
pub trait Happened: Default {
    /// Adds what happened after it. What is beyond a bound is counted.
    fn add(&mut self, later: Self);
}

impl Happened for () {
    fn add(&mut self, (): Self) {}
}

/// Our own logins since the reading before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logins {
    /// Those that were refused: at most one entry a reason.
    pub refused: Vec<RefusedLogin>,
    /// Whether one was answered, with yes or no, so that none refused means none.
    pub tried: bool,
}

impl Logins {
    /// Counts a refused one.
    pub fn note_refused(&mut self, one: RefusedLogin) {
        match self.refused.iter_mut().find(|known| known.reason == one.reason) {
            Some(known) => known.count = known.count.saturating_add(one.count),
            None => self.refused.push(one),
        }
    }
}

impl Happened for Logins {
    fn add(&mut self, later: Self) {
        self.tried |= later.tried;
        for refused in later.refused {
            self.note_refused(refused);
        }
    }
}

/// What one source gave: its last observation, or why there is none, with its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part<T> {
    /// Time since the source left this, on the monotonic clock.
    pub age: Duration,
    /// True in the one reading that is the first to carry it.
    pub fresh: bool,
    /// Three of the source's own rhythms: what is older says nothing of now.
    pub stale_after: Duration,
    /// The observation, or the failure in its place. Shared: it is in every reading until the next.
    pub seen: Result<Arc<T>, Failure>,
}

impl<T> Part<T> {
    /// The observation, unless it failed or is too old to speak of now.
    pub fn known(&self) -> Option<&T> {
        if self.is_stale() { None } else { self.seen.as_deref().ok() }
    }

    /// Whether it is too old to speak of now.
    pub fn is_stale(&self) -> bool {
        self.stale_after < self.age
    }
}

/// Why a source gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is; decides what is told and with how much patience.
    pub kind: FailureKind,
    /// One sentence for a person, without secrets.
    pub text: String,
    /// The SQLSTATE, where the server gave one.
    pub sqlstate: Option<String>,
}

/// The kinds of failure that a person treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The server answers, and refuses our login for want of a slot.
    Refused(Refusal),
    /// Nothing listens there, or the server is shutting down.
    Stopped,
    /// The server is starting up or recovering and takes no logins yet.
    Starting,
    /// No way to it: name resolution, routing, a connection attempt without an answer.
    Unreachable,
    /// It accepted us and then did not answer in time.
    TooSlow,
    /// A lock on a system catalog holds our query or login up.
    Blocked,
    /// The server, its `pg_hba.conf` or our privileges say no.
    NotAllowed,
    /// What answers is not a server that can be read: too old, a pooler, or no Postgres.
    Unsupported,
    /// The server answers with an error of its own: no memory, no disk, a fault inside it.
    Failing,
    /// Plimsoll itself failed at it, or does not watch it any more.
    Broken,
}

impl FailureKind {
    /// The word in metrics, the API and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Unreachable => "unreachable",
            Self::TooSlow => "too_slow",
            Self::Blocked => "blocked",
            Self::NotAllowed => "not_allowed",
            Self::Unsupported => "unsupported",
            Self::Failing => "failing",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a login is refused for want of a connection: the seven failures behind a server's SQLSTATE
/// 53300, told apart by the message's routine, and the two of a pooler before it, which has no
/// SQLSTATE for them and is told by its words.
///
/// Sources: `InitializeSessionUserId` (miscinit.c), `CheckMyDatabase` and `InitPostgres`
/// (postinit.c), `InitProcess` (proc.c), `InitWalSenderSlot` (walsender.c); PgBouncer's client.c
/// and janitor.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Every slot is taken, those reserved for superusers too.
    AllSlotsTaken,
    /// What is left is reserved for superusers.
    ReservedForSuperusers,
    /// What is left is reserved for `pg_use_reserved_connections` (16 and later).
    ReservedForRole,
    /// The role is at its CONNECTION LIMIT.
    RoleLimit,
    /// The database is at its CONNECTION LIMIT.
    DatabaseLimit,
    /// Slots are free, but too many logins are under way for the postmaster to start another.
    LoginsUnderWay,
    /// `max_wal_senders` is reached. No refused login of an application.
    WalSenders,
    /// A pooler takes no more clients: its `max_client_conn`, or a limit of its own for the
    /// database or the user. The server was not asked.
    PoolerClients,
    /// A pooler had no connection to the server to give, for as long as it lets a client wait.
    PoolerWait,
}

impl Refusal {
    /// Why logins of applications are refused: all but that of walsenders.
    pub const OF_LOGINS: [Self; 8] = [
        Self::AllSlotsTaken,
        Self::ReservedForSuperusers,
        Self::ReservedForRole,
        Self::RoleLimit,
        Self::DatabaseLimit,
        Self::LoginsUnderWay,
        Self::PoolerClients,
        Self::PoolerWait,
    ];

    /// The word in metrics, the API and subjects of alerts.
    pub fn word(self) -> &'static str {
        match self {
            Self::AllSlotsTaken => "all_slots_taken",
            Self::ReservedForSuperusers => "reserved_for_superusers",
            Self::ReservedForRole => "reserved_for_role",
            Self::RoleLimit => "role_limit",
            Self::DatabaseLimit => "database_limit",
            Self::LoginsUnderWay => "logins_under_way",
            Self::WalSenders => "wal_senders",
            Self::PoolerClients => "pooler_clients",
            Self::PoolerWait => "pooler_wait",
        }
    }

    /// Whether a pooler refused by a limit of its own.
    pub fn is_of_pooler(self) -> bool {
        matches!(self, Self::PoolerClients | Self::PoolerWait)
    }

    /// Whether the server as a whole had no slot for this login. A pooler that refuses by a limit
    /// of its own says nothing of that.
    pub fn is_want_of_slots(self) -> bool {
        matches!(
            self,
            Self::AllSlotsTaken
                | Self::ReservedForSuperusers
                | Self::ReservedForRole
                | Self::LoginsUnderWay
        )
    }
}

/// Logins that were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLogin {
    /// Why.
    pub reason: Refusal,
    /// How many since the reading before.
    pub count: u32,
}
