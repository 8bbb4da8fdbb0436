//! What a pooler said of its pools at its admin console.
//!
//! Raw, as PgBouncer 1.12 to 1.26 and its look-alikes say it: a column that a version does not
//! have is `None`, never 0. What follows from it (capacity, who waits, client slots) is reckoned in
//! [`capacity`] and [`waiting`], in pure functions, for the rules.

pub mod capacity;
mod lookup;
pub mod waiting;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use capacity::{Bound, Capacity, ClientSlots, Reach, Reachable, Scope};
pub use lookup::Lookup;

/// What one look at the console saw.
///
/// The pools are of the look itself. The rest is asked for less often, and may be as old as
/// `rest_age`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What it says that it is, e.g. `PgBouncer 1.24.1`.
    pub version: String,
    /// `SHOW POOLS`, without the console's own: one a (database, user).
    pub pools: Vec<Pool>,
    /// `SHOW DATABASES`, without the console's own.
    pub databases: Vec<Database>,
    /// `SHOW USERS`, those that have a limit of their own.
    pub users: Vec<User>,
    /// `SHOW CONFIG`: what bounds pools and clients.
    pub limits: Limits,
    /// `used_clients` of `SHOW LISTS`: all clients, those at the console included.
    pub clients: Option<u32>,
    /// `SHOW STATS_TOTALS`, raw; they begin anew with the pooler.
    pub counters: Vec<Counters>,
    /// `SHOW STATE`, where it exists.
    pub paused: Option<bool>,
    /// What was seen of single clients and servers, the last time that was asked.
    pub sockets: Option<Sockets>,
    /// Wall time of the whole look, as we saw it.
    pub seconds: f64,
    /// How long ago the oldest part was read that is not read at each look: the number of clients,
    /// databases, users, limits, counters and the state.
    #[serde(default)]
    pub rest_age: Duration,
    /// Commands that this pooler refuses, such as `SHOW STATE` before 1.19.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// One pool: a (database, user) at the pooler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The database, as clients name it.
    pub database: String,
    /// The user.
    pub user: String,
    /// `session`, `transaction` or `statement`.
    pub mode: Option<String>,
    /// Clients that are linked to a server, or idle with no statement waiting.
    pub cl_active: Option<u32>,
    /// Clients that have sent a statement and have no server.
    pub cl_waiting: Option<u32>,
    /// Servers that are linked to a client.
    pub sv_active: Option<u32>,
    /// Servers that a client can have at once.
    pub sv_idle: Option<u32>,
    /// Servers that were idle for so long that they are checked first.
    pub sv_used: Option<u32>,
    /// Servers that are being reset or checked.
    pub sv_tested: Option<u32>,
    /// Servers that are being logged in.
    pub sv_login: Option<u32>,
    /// Servers that carry a cancel request (1.18 and later).
    #[serde(default)]
    pub sv_active_cancel: Option<u32>,
    /// Servers whose statement is being cancelled (1.18 and later).
    #[serde(default)]
    pub sv_being_canceled: Option<u32>,
    /// How long the oldest waiting client has waited: `maxwait` + `maxwait_us` ÷ 1,000,000.
    pub wait_seconds: Option<f64>,
}

/// A database at the pooler. Limits of 0 in its output are `None` here: unlimited.
///
/// Those of which no `pool_size` is said are left out. Sizes are those that hold: where the file
/// says nothing, PgBouncer shows the default here (admin.c, `admin_show_databases`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// As clients name it.
    pub name: String,
    /// The server's host; `None` for a Unix socket.
    pub host: Option<String>,
    /// The server's port.
    pub port: Option<u16>,
    /// The database at the server.
    pub database: Option<String>,
    /// The user that all its clients become.
    pub force_user: Option<String>,
    /// Servers a pool; a pool is a (database, user). Before 1.24 there is no unlimited one, and 0
    /// is none.
    pub pool_size: Option<u32>,
    /// More of them, once a client has waited for `reserve_pool_timeout`.
    pub reserve_pool_size: Option<u32>,
    /// Servers of all its pools: `max_db_connections`.
    pub max_connections: Option<u32>,
    /// Servers that there are.
    pub current_connections: Option<u32>,
    /// Clients (1.24 and later).
    pub max_client_connections: Option<u32>,
    /// Clients that there are (1.24 and later).
    pub current_client_connections: Option<u32>,
    /// `PAUSE`.
    pub paused: bool,
    /// `DISABLE`.
    pub disabled: bool,
}

/// A user at the pooler. Limits of 0 in its output are `None` here: unlimited. Sizes that are not
/// its own are `None`, too, and `Some(0)` is an unlimited one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its own `pool_size` (1.23 and later).
    pub pool_size: Option<u32>,
    /// Its own `reserve_pool_size` (1.24 and later).
    pub reserve_pool_size: Option<u32>,
    /// The sizes may be those of the user listed before it: PgBouncer 1.23 to 1.25 repeats them for
    /// users that have none (measured on 1.24.1; 1.26.1 does not).
    #[serde(default)]
    pub sizes_in_doubt: bool,
    /// Servers of all its pools (1.23 and later).
    pub max_user_connections: Option<u32>,
    /// Servers that there are (1.23 and later).
    pub current_connections: Option<u32>,
    /// Clients (1.24 and later).
    pub max_user_client_connections: Option<u32>,
    /// Clients that there are (1.24 and later).
    pub current_client_connections: Option<u32>,
}

/// What bounds pools and clients. `None` is unlimited, or not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Clients of the whole pooler.
    pub max_client_conn: Option<u32>,
    /// Servers of one user.
    pub max_user_connections: Option<u32>,
    /// Servers a pool, where the database says nothing else.
    pub default_pool_size: Option<u32>,
    /// How long a client waits until it is refused.
    pub query_wait_timeout: Option<Duration>,
    /// How long a client waits until the reserve is used; zero is never.
    #[serde(default)]
    pub reserve_pool_timeout: Option<Duration>,
}

/// Raw counters of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// As clients name it.
    pub database: String,
    /// Transactions.
    pub transactions: Option<u64>,
    /// Statements.
    pub queries: Option<u64>,
    /// Time that clients waited for a server, in microseconds; counted once they have one.
    pub wait_micros: Option<u64>,
    /// How often a server was given to a client (1.23 and later).
    pub server_assignments: Option<u64>,
}

/// Single clients and servers, gathered; at most so many groups, the rest one `other`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sockets {
    /// How long ago that was.
    pub age: Duration,
    /// Clients by application and address, the largest first.
    pub clients: Vec<ClientGroup>,
    /// Process ids of the servers' backends: which sessions of the server are the pooler's. None
    /// of those that it reaches over a Unix socket: what it knows there is the postmaster's.
    pub backends: Vec<i32>,
    /// Clients that wait for their very first server, which `maxwait` leaves out: since when, a
    /// pool.
    #[serde(default)]
    pub login_waits: Vec<LoginWait>,
}

/// How long clients of a pool have waited since they came in, with no server at all to greet them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoginWait {
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// The longest of them, in whole seconds of the pooler's clock.
    pub seconds: f64,
}

/// Clients that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientGroup {
    /// `application_name` (1.18 and later).
    pub application: String,
    /// The user.
    pub user: String,
    /// The database.
    pub database: String,
    /// The client's address.
    pub address: String,
    /// How many.
    pub clients: u32,
    /// How many of them wait.
    pub waiting: u32,
}
