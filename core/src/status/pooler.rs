//! What everyone may see of a pooler beside its pools: its clients, its servers, what it counted.

use serde::{Deserialize, Serialize};

use crate::reading::Reading;
use crate::reading::pooler::{ClientGroup, Counters, Observation};

/// At most so many groups of clients are shown, the largest.
pub const MAX_CLIENTS_SHOWN: usize = 20;

/// At most so many backends of the server are named as the pooler's.
pub const MAX_BACKENDS_SHOWN: usize = 1_000;

/// A pooler that can be read. What it does not tell is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolerStatus {
    /// Its name in settings.
    pub pooler: String,
    /// What it says that it is.
    pub version: String,
    /// Whether it is paused.
    pub paused: Option<bool>,
    /// Clients of all pools, those at the console included.
    pub clients: Option<u32>,
    /// The most clients that it lets in.
    pub max_clients: Option<u32>,
    /// Its logins at servers that are under way.
    pub server_logins: Option<u32>,
    /// Transactions since it began.
    pub transactions: Option<u64>,
    /// Statements since it began.
    pub statements: Option<u64>,
    /// How long those clients waited for a server that got one, added up since it began.
    pub waited_seconds: Option<f64>,
    /// How often a server was given to a client since it began.
    pub assignments: Option<u64>,
    /// Who its clients are, the most first; at most [`MAX_CLIENTS_SHOWN`].
    pub client_groups: Vec<PoolerClients>,
    /// How long ago that and `backends` were seen.
    pub client_groups_age_seconds: Option<f64>,
    /// Process ids of the server's backends that are its own; at most [`MAX_BACKENDS_SHOWN`].
    pub backends: Vec<i32>,
}

/// Clients of a pooler that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolerClients {
    /// `application_name`; empty where the pooler does not tell.
    pub application: String,
    /// The user.
    pub user: String,
    /// The database.
    pub database: String,
    /// The client's address.
    pub address: String,
    /// How many.
    pub clients: u32,
    /// How many of them wait for a server.
    pub waiting: u32,
}

/// The poolers that can be read.
pub(super) fn poolers(reading: &Reading) -> Vec<PoolerStatus> {
    let known = reading.poolers.iter().filter_map(|it| Some((&it.name, it.part.known()?)));
    known.map(|(name, seen)| PoolerStatus::of(name, seen)).collect()
}

impl PoolerStatus {
    fn of(name: &str, seen: &Observation) -> Self {
        let sockets = seen.sockets.as_ref();
        let groups = sockets.map_or(&[][..], |sockets| &sockets.clients);
        let backends = sockets.map_or(&[][..], |sockets| &sockets.backends);
        let sum = |of: fn(&Counters) -> Option<u64>| {
            let told = seen.counters.iter().filter_map(of);
            told.reduce(u64::saturating_add)
        };
        Self {
            pooler: name.to_owned(),
            version: seen.version.clone(),
            paused: seen.paused,
            clients: seen.clients,
            max_clients: seen.limits.max_client_conn,
            server_logins: seen.server_logins(),
            transactions: sum(|counted| counted.transactions),
            statements: sum(|counted| counted.queries),
            waited_seconds: sum(|counted| counted.wait_micros).map(|us| us as f64 / 1e6),
            assignments: seen.assignments(),
            client_groups: groups.iter().take(MAX_CLIENTS_SHOWN).map(PoolerClients::of).collect(),
            client_groups_age_seconds: sockets.map(|sockets| sockets.age.as_secs_f64()),
            backends: backends.iter().copied().take(MAX_BACKENDS_SHOWN).collect(),
        }
    }
}

impl PoolerClients {
    fn of(group: &ClientGroup) -> Self {
        Self {
            application: group.application.clone(),
            user: group.user.clone(),
            database: group.database.clone(),
            address: group.address.clone(),
            clients: group.clients,
            waiting: group.waiting,
        }
    }
}
