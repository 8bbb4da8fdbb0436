//! An observation with what is looked up in it, found once: a pooler may have thousands of pools,
//! and what is asked of one of them (its capacity, its wait) depends on the others.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Database, Observation, Pool, User};

/// See the module. Made by [`Observation::lookup`], for the questions of a moment.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// What was observed.
    pub seen: &'a Observation,
    /// By name and forced user; the first of those that are alike.
    databases: HashMap<(&'a str, Option<&'a str>), &'a Database>,
    /// By name, whichever user is forced.
    named: HashMap<&'a str, &'a Database>,
    users: HashMap<&'a str, &'a User>,
    /// Servers that pools do not give up for others: of each database, user and pool.
    held_by_database: HashMap<&'a str, u64>,
    held_by_user: HashMap<&'a str, u64>,
    held_by_pool: HashMap<(&'a str, &'a str), u64>,
    /// How long somebody waited for a greeting when single clients were seen, in seconds.
    waits_by_database: HashMap<&'a str, f64>,
    waits_by_pool: HashMap<(&'a str, &'a str), f64>,
}

impl Observation {
    /// Prepares what is asked of single pools.
    pub fn lookup(&self) -> Lookup<'_> {
        let mut lookup = Lookup {
            seen: self,
            databases: HashMap::new(),
            named: HashMap::new(),
            users: HashMap::new(),
            held_by_database: HashMap::new(),
            held_by_user: HashMap::new(),
            held_by_pool: HashMap::new(),
            waits_by_database: HashMap::new(),
            waits_by_pool: HashMap::new(),
        };
        for database in &self.databases {
            let key = (database.name.as_str(), database.force_user.as_deref());
            lookup.databases.entry(key).or_insert(database);
            lookup.named.entry(&database.name).or_insert(database);
        }
        for user in &self.users {
            lookup.users.entry(&user.name).or_insert(user);
        }
        for pool in &self.pools {
            let held = pool.held();
            add(&mut lookup.held_by_database, &pool.database, held);
            add(&mut lookup.held_by_user, &pool.user, held);
            add(&mut lookup.held_by_pool, (&pool.database, &pool.user), held);
        }
        for wait in self.sockets.iter().flat_map(|sockets| &sockets.login_waits) {
            lengthen(&mut lookup.waits_by_database, &wait.database, wait.seconds);
            lengthen(&mut lookup.waits_by_pool, (&wait.database, &wait.user), wait.seconds);
        }
        lookup
    }
}

impl<'a> Lookup<'a> {
    /// The database of this pool: one for its user alone, else the one for all.
    pub fn database(&self, pool: &Pool) -> Option<&'a Database> {
        let (name, user) = (pool.database.as_str(), pool.user.as_str());
        let known = |user| self.databases.get(&(name, user)).copied();
        known(Some(user)).or_else(|| known(None)).or_else(|| self.named.get(name).copied())
    }

    /// The user of this pool, if it has something of its own.
    pub fn user(&self, pool: &Pool) -> Option<&'a User> {
        self.users.get(pool.user.as_str()).copied()
    }

    /// What other pools of the database do not give up for this one.
    pub(super) fn held_in_database(&self, pool: &Pool) -> u32 {
        self.others(self.held_by_database.get(pool.database.as_str()), pool)
    }

    /// What other pools of the user do not give up for this one.
    pub(super) fn held_by_user(&self, pool: &Pool) -> u32 {
        self.others(self.held_by_user.get(pool.user.as_str()), pool)
    }

    fn others(&self, all: Option<&u64>, pool: &Pool) -> u32 {
        let own = self.held_by_pool.get(&(&pool.database, &pool.user));
        let of_others = all.unwrap_or(&0).saturating_sub(*own.unwrap_or(&0));
        u32::try_from(of_others).unwrap_or(u32::MAX)
    }

    /// How long somebody waited for a greeting in this pool when single clients were seen.
    pub(super) fn login_wait(&self, pool: &Pool) -> Option<f64> {
        // Where a user is forced, the clients have come as others.
        if self.database(pool).is_some_and(|database| database.force_user.is_some()) {
            self.waits_by_database.get(pool.database.as_str()).copied()
        } else {
            self.waits_by_pool.get(&(&pool.database, &pool.user)).copied()
        }
    }
}

impl Pool {
    /// Servers that it does not give up for another: all but idle ones, and those that wait for a
    /// check where nobody waits for them (objects.c, `evict_connection`).
    pub(super) fn held(&self) -> u32 {
        let waits = self.cl_waiting.is_some_and(|waiting| waiting > 0);
        let checked = if waits { [self.sv_used, self.sv_tested] } else { [None, None] };
        let always = [self.sv_active, self.sv_login, self.sv_active_cancel, self.sv_being_canceled];
        always.into_iter().chain(checked).flatten().fold(0, u32::saturating_add)
    }
}

fn add<K: Eq + Hash>(sums: &mut HashMap<K, u64>, key: K, more: u32) {
    *sums.entry(key).or_default() += u64::from(more);
}

fn lengthen<K: Eq + Hash>(longest: &mut HashMap<K, f64>, key: K, seconds: f64) {
    let known = longest.entry(key).or_insert(seconds);
    *known = known.max(seconds);
}
