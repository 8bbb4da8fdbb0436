//! What a pooler can give: servers to a pool, servers in all, slots to clients. Pure arithmetic.
//!
//! A pool is a (database, user), the user being the one that it logs in as: where a database forces
//! one, all its clients share a pool. A pool of PgBouncer may open another server (objects.c,
//! `launch_new_connection`) while all of these hold:
//!
//! ```text
//! its servers                  < size, or size + reserve once a client waited reserve_pool_timeout
//! servers of its database      < max_db_connections      (SHOW DATABASES, max_connections)
//! servers of its user          < max_user_connections    (SHOW USERS from 1.23 on; SHOW CONFIG)
//! ```
//!
//! The size is the user's own `pool_size` (1.23), else the database's, else `default_pool_size`,
//! and the reserve likewise (the user's from 1.24 on). 0 is no limit, but for sizes before 1.24. At
//! the two shared limits it first closes what other pools hold idle, so only what those *use* is
//! taken off.
//!
//! Not seen: a user's own `max_user_connections` before 1.23. In doubt: the sizes of some users
//! from 1.23 to 1.25; where one would make a difference, the capacity is not known. Called by the
//! rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lookup, Observation, Pool};

/// How many servers a pool can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// As many at once as it can have without the reserve, beside what other pools use of limits
    /// that they share with it. `None` is unlimited or not known: see `bound`.
    pub servers: Option<u32>,
    /// What keeps it from having more.
    pub bound: Bound,
    /// So many more from the reserve, for clients who have waited `reserve_pool_timeout`.
    pub reserve: u32,
    /// As many as it could have if no other pool used anything, the reserve included.
    pub alone: Option<u32>,
}

impl Capacity {
    /// How much of it is in use: `in_use` ÷ `servers`. Above 1 while the reserve is used, and 1
    /// where no server can be had at all. `None` if one of the two is not known.
    pub fn utilization(&self, pool: &Pool) -> Option<f64> {
        let (in_use, servers) = (pool.in_use()?, self.servers?);
        Some(if servers == 0 { 1.0 } else { f64::from(in_use) / f64::from(servers) })
    }
}

/// What a pool's number of servers is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// `pool_size` of the database, or `default_pool_size`.
    PoolSize,
    /// `pool_size` of the user.
    UserPoolSize,
    /// `max_db_connections`, shared by all pools of the database.
    DatabaseConnections,
    /// `max_user_connections`, shared by all pools of the user.
    UserConnections,
    /// Nothing.
    Unlimited,
    /// The pooler does not say.
    Unknown,
}

impl Bound {
    /// The setting's name, as the pooler's documentation has it; for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::PoolSize => "pool_size",
            Self::UserPoolSize => "pool_size of the user",
            Self::DatabaseConnections => "max_db_connections",
            Self::UserConnections => "max_user_connections",
            Self::Unlimited => "unlimited",
            Self::Unknown => "unknown",
        }
    }
}

/// How many servers several pools can have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// At most so many, reserves included.
    AtMost(u32),
    /// As many as come: a pool of it has no limit.
    Unlimited,
    /// The pooler does not say.
    Unknown,
}

impl Reach {
    /// The number, if there is one.
    pub fn at_most(self) -> Option<u32> {
        match self {
            Self::AtMost(servers) => Some(servers),
            Self::Unlimited | Self::Unknown => None,
        }
    }
}

/// The servers that a pooler can have at one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachable {
    /// The host, as the pooler's file has it; `None` for a Unix socket.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// So many.
    pub servers: Reach,
    /// So many pools lead there.
    pub pools: usize,
}

/// Whose clients are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of the whole pooler: `max_client_conn`.
    Pooler,
    /// Those of a database: `max_db_client_connections` (1.24 and later).
    Database(String),
    /// Those of a user: `max_user_client_connections` (1.24 and later).
    User(String),
}

/// Places for clients. The next one above `max` is refused, but for those who go to the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSlots {
    /// Whose.
    pub scope: Scope,
    /// The limit.
    pub max: u32,
    /// Clients that are there. Of the whole pooler: also those who are logging in and those at
    /// the console, us included, for the limit counts them, too (`used_clients` of `SHOW LISTS`).
    pub used: u32,
}

impl ClientSlots {
    /// Left; 0 if there are more than the limit has.
    pub fn free(&self) -> u32 {
        self.max.saturating_sub(self.used)
    }

    /// `used` ÷ `max`.
    pub fn utilization(&self) -> f64 {
        if self.max == 0 { 1.0 } else { f64::from(self.used) / f64::from(self.max) }
    }
}

/// The limits of one pool. `None` is no limit.
struct Sizes {
    size: Option<u32>,
    size_of: Bound,
    reserve: u32,
    database: Option<u32>,
    user: Option<u32>,
    /// The size and the reserve are the larger ones of two that may hold.
    in_doubt: bool,
}

impl Lookup<'_> {
    /// How many servers this pool can have, and what bounds it.
    pub fn capacity(&self, pool: &Pool) -> Capacity {
        let Some(sizes) = self.sizes(pool) else {
            return Capacity { servers: None, bound: Bound::Unknown, reserve: 0, alone: None };
        };
        // What is left of the shared limits; what it has already it keeps.
        let own = pool.held();
        let left = |limit: Option<u32>, taken: u32| {
            limit.map(|limit| limit.saturating_sub(taken).max(own.min(limit)))
        };
        let in_database = left(sizes.database, self.held_in_database(pool));
        let in_user = left(sizes.user, self.held_by_user(pool));
        let (servers, bound) = smallest([
            (sizes.size, sizes.size_of),
            (in_database, Bound::DatabaseConnections),
            (in_user, Bound::UserConnections),
        ]);
        let (with_reserve, _) = smallest([
            (sizes.with_reserve(), sizes.size_of),
            (in_database, Bound::DatabaseConnections),
            (in_user, Bound::UserConnections),
        ]);
        let (alone, _) = smallest([
            (sizes.with_reserve(), sizes.size_of),
            (sizes.database, Bound::DatabaseConnections),
            (sizes.user, Bound::UserConnections),
        ]);
        if sizes.in_doubt {
            return Capacity { servers: None, bound: Bound::Unknown, reserve: 0, alone };
        }
        let reserve = match (with_reserve, servers) {
            (Some(with), Some(without)) => with.saturating_sub(without),
            _ => 0,
        };
        Capacity { servers, bound, reserve, alone }
    }

    /// How many servers the whole pooler can have, with the pools that it has now.
    ///
    /// Each pool its size and reserve, but no database and no user more than its limit: the smaller
    /// of the two sums, over databases and over users. Never too small; too large where both kinds
    /// of limits bind at once. A database that nobody has used yet has no pool, and adds nothing.
    pub fn reachable(&self) -> Reach {
        self.reach_of(&self.seen.pools.iter().collect::<Vec<_>>())
    }

    /// The same by the address that the pools lead to, so that those of a standby can be told from
    /// those of its primary. In the order of the addresses.
    pub fn reachable_by_server(&self) -> Vec<Reachable> {
        let mut by_address: BTreeMap<_, Vec<&Pool>> = BTreeMap::new();
        for pool in &self.seen.pools {
            let database = self.database(pool);
            let address = (database.and_then(|d| d.host.as_deref()), database.and_then(|d| d.port));
            by_address.entry(address).or_default().push(pool);
        }
        let reachable = by_address.into_iter().map(|((host, port), pools)| Reachable {
            servers: self.reach_of(&pools),
            pools: pools.len(),
            host: host.map(str::to_owned),
            port,
        });
        reachable.collect()
    }

    /// `None` where the pooler does not say.
    fn sizes(&self, pool: &Pool) -> Option<Sizes> {
        let database = self.database(pool)?;
        let user = self.user(pool);
        let of_database = (database.pool_size, Bound::PoolSize);
        let (mut size, mut size_of) = match user.and_then(|user| user.pool_size) {
            Some(0) => (None, Bound::Unlimited),
            Some(size) => (Some(size), Bound::UserPoolSize),
            None => of_database,
        };
        let reserve_of_database = database.reserve_pool_size.unwrap_or(0);
        let mut reserve =
            user.and_then(|user| user.reserve_pool_size).unwrap_or(reserve_of_database);
        let mut in_doubt = false;
        if user.is_some_and(|user| user.sizes_in_doubt) {
            in_doubt = (size, reserve) != (of_database.0, reserve_of_database);
            reserve = reserve.max(reserve_of_database);
            // No limit is larger than any.
            if size.zip(of_database.0).is_none_or(|(own, other)| own <= other) {
                (size, size_of) = (size.and(of_database.0), of_database.1);
            }
        }
        let never = self.seen.limits.reserve_pool_timeout.is_some_and(|timeout| timeout.is_zero());
        let of_user = user.and_then(|user| user.max_user_connections);
        Some(Sizes {
            size,
            size_of,
            reserve: if never { 0 } else { reserve },
            database: database.max_connections,
            user: of_user.or(self.seen.limits.max_user_connections),
            in_doubt,
        })
    }

    fn reach_of(&self, pools: &[&Pool]) -> Reach {
        let sizes: Option<Vec<(&Pool, Sizes)>> =
            pools.iter().map(|pool| Some((*pool, self.sizes(pool)?))).collect();
        let Some(sizes) = sizes else { return Reach::Unknown };
        let by_database = sum_of_groups(
            sizes.iter().map(|(pool, s)| (pool.database.as_str(), s.with_reserve(), s.database)),
        );
        let by_user = sum_of_groups(
            sizes.iter().map(|(pool, s)| (pool.user.as_str(), s.with_reserve(), s.user)),
        );
        match [by_database, by_user].into_iter().flatten().min() {
            Some(servers) => Reach::AtMost(servers),
            None => Reach::Unlimited,
        }
    }
}

impl Observation {
    /// Every limit of clients that is known, with how much of it is used: of the whole pooler
    /// first, then of databases and users by their names.
    pub fn client_slots(&self) -> Vec<ClientSlots> {
        let slots = |scope, max: Option<u32>, used: Option<u32>| {
            Some(ClientSlots { scope, max: max?, used: used? })
        };
        let whole = slots(Scope::Pooler, self.limits.max_client_conn, self.clients);
        let databases = self.databases.iter().filter_map(|database| {
            let scope = Scope::Database(database.name.clone());
            slots(scope, database.max_client_connections, database.current_client_connections)
        });
        let users = self.users.iter().filter_map(|user| {
            let scope = Scope::User(user.name.clone());
            slots(scope, user.max_user_client_connections, user.current_client_connections)
        });
        // A look-alike may have a row a (database, user): the fullest speaks for all of a name.
        let mut fullest: BTreeMap<Scope, ClientSlots> = BTreeMap::new();
        for slots in whole.into_iter().chain(databases).chain(users) {
            match fullest.get(&slots.scope) {
                Some(known) if slots.utilization() <= known.utilization() => {}
                _ => drop(fullest.insert(slots.scope.clone(), slots)),
            }
        }
        fullest.into_values().collect()
    }
}

impl Sizes {
    fn with_reserve(&self) -> Option<u32> {
        self.size.map(|size| size.saturating_add(self.reserve))
    }
}

/// The smallest limit, the first of those that are alike.
fn smallest(limits: [(Option<u32>, Bound); 3]) -> (Option<u32>, Bound) {
    let known = limits.into_iter().filter_map(|(limit, bound)| Some((limit?, bound)));
    let smallest = known.min_by_key(|(limit, _)| *limit);
    smallest.map_or((None, Bound::Unlimited), |(limit, bound)| (Some(limit), bound))
}

/// The sum of the pools of each group, cut to the group's limit; `None` is unlimited.
fn sum_of_groups<'a>(
    pools: impl Iterator<Item = (&'a str, Option<u32>, Option<u32>)>,
) -> Option<u32> {
    let mut groups = BTreeMap::<&str, (Option<u32>, Option<u32>)>::new();
    for (group, servers, limit) in pools {
        let sum = groups.entry(group).or_insert((Some(0), limit));
        sum.0 = sum.0.zip(servers).map(|(sum, servers)| sum.saturating_add(servers));
        // Databases of one name can differ by their user, at poolers that have such.
        sum.1 = sum.1.zip(limit).map(|(one, other)| one.max(other));
    }
    groups.into_values().try_fold(0_u32, |total, (sum, limit)| {
        let most = [sum, limit].into_iter().flatten().min()?;
        Some(total.saturating_add(most))
    })
}

#[cfg(test)]
mod tests;
