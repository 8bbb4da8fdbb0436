//! The pools of a reading in one form, whoever keeps them: those of poolers, and those of
//! applications over all their instances.
//!
//! For the rules, the bottleneck, the status and the metrics. A pool of a source that failed or is
//! stale is not among them: what is unknown is not zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::memory::counters::Moved;
use super::source;
use crate::reading::app_pool::{self, Instance, Max};
use crate::reading::pooler::{self, Bound, Capacity, Scope};
use crate::reading::{FailureKind, Reading};

/// The wait in a pooler that is not an ordinary one: clients of a transaction pool take turns, and
/// a client that waits for less than this at the moment of a look waits for nobody in particular.
pub const WAIT_THAT_COUNTS_SECONDS: f64 = 0.1;

/// What a pool is called: by the source that it was read from, and by its own name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolName {
    /// `pooler/NAME` or `app_pool/APPLICATION`.
    pub source: String,
    /// The whole name, as settings and alerts have it: the source, then the pool where it has a
    /// name: `pooler/pgbouncer payment/api`, `app_pool/payment-api HikariPool-1`.
    pub name: String,
}

impl PoolName {
    /// The pool of this name at a source; empty where it has none.
    pub fn new(source: String, pool: &str) -> Self {
        let name = if pool.is_empty() { source.clone() } else { format!("{source} {pool}") };
        Self { source, name }
    }

    /// The name of the pool at its source; empty where it has none.
    pub fn pool(&self) -> &str {
        self.name[self.source.len()..].trim_start()
    }
}

/// Who keeps a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A pooler: connections to the server, for clients.
    Pooler,
    /// A pooler too: the places for its clients, of which some are taken.
    ClientSlots,
    /// An application.
    Application,
}

/// One pool, at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolState {
    /// Its name.
    pub name: PoolName,
    /// Who keeps it.
    pub keeper: Keeper,
    /// Whether this reading is the first to tell of it.
    pub fresh: bool,
    /// Connections that are lent out; for client slots those that are taken.
    pub in_use: Option<u32>,
    /// Connections that are open and not lent out.
    pub idle: Option<u32>,
    /// The most that there can be.
    pub max: Max,
    /// Who waits for one now, where that is told.
    pub waiting: Option<u32>,
    /// Whether somebody waits, by gauges or counters.
    pub someone_waits: bool,
    /// How long the one waits who has waited for longest (poolers), or how long those waited on
    /// average who had to, where that was longest (applications). `None` where nobody tells.
    pub wait_seconds: Option<f64>,
    /// Of the clients that are let in, the part that waits in this pool.
    pub clients_waiting_ratio: Option<f64>,
    /// How many gave up waiting between the newest two observations.
    pub timeouts: u64,
    /// Instances of the application that tell of it; 1 for a pooler.
    pub instances: u32,
    /// Instances in which somebody waits or gave up.
    pub starved: u32,
    /// Whether somebody may wait in an instance that cannot be read now: then it cannot be said
    /// that nobody does.
    pub may_hide_waits: bool,
}

impl PoolState {
    fn of(name: PoolName, keeper: Keeper, fresh: bool) -> Self {
        Self {
            name,
            keeper,
            fresh,
            in_use: None,
            idle: None,
            max: Max::Unknown,
            waiting: None,
            someone_waits: false,
            wait_seconds: None,
            clients_waiting_ratio: None,
            timeouts: 0,
            instances: 0,
            starved: 0,
            may_hide_waits: false,
        }
    }

    /// `in_use` of `max`, where there is a bound and both are told.
    pub fn taken(&self) -> Option<(u32, u32)> {
        match (self.in_use, self.max) {
            (Some(in_use), Max::Of(max)) => Some((in_use, max)),
            _ => None,
        }
    }

    /// Whether nobody else gets in: all client slots are taken.
    pub fn is_full(&self) -> bool {
        self.taken().is_some_and(|(in_use, max)| max <= in_use)
    }
}

/// Every pool that the reading knows of, sorted by name.
pub fn pools(reading: &Reading, memory: &Memory) -> Vec<PoolState> {
    let mut pools = Vec::new();
    for pooler in &reading.poolers {
        let Some(seen) = pooler.part.known() else { continue };
        of_pooler(&source::of_pooler(&pooler.name), seen, pooler.part.fresh, &mut pools);
    }
    for application in &reading.app_pools {
        let Some(seen) = application.part.known() else { continue };
        pools.extend(of_application(&application.name, seen, application.part.fresh, memory));
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    pools
}

fn of_pooler(source: &str, seen: &pooler::Observation, fresh: bool, pools: &mut Vec<PoolState>) {
    let (lookup, slots) = (seen.lookup(), seen.client_slots());
    let bounds: BTreeMap<&Scope, u32> =
        slots.iter().map(|slots| (&slots.scope, slots.max)).collect();
    for pool in &seen.pools {
        let name = PoolName::new(source.to_owned(), &format!("{}/{}", pool.database, pool.user));
        let capacity = lookup.capacity(pool);
        let wait_seconds = lookup.wait_seconds(pool);
        // Odyssey counts clients among the waiting that have sent nothing: those have no wait.
        let counts = wait_seconds.is_none_or(|seconds| WAIT_THAT_COUNTS_SECONDS <= seconds);
        let someone_waits = counts && pool.cl_waiting.is_some_and(|waiting| waiting > 0);
        let of =
            [Scope::Pooler, Scope::Database(pool.database.clone()), Scope::User(pool.user.clone())];
        let clients = of.iter().filter_map(|scope| bounds.get(scope).copied()).min();
        let clients = clients.or(seen.limits.max_client_conn);
        let ratio = |waiting: u32, of: u32| f64::from(waiting) / f64::from(of.max(1));
        pools.push(PoolState {
            in_use: pool.in_use(),
            idle: pool.sv_idle.map(|idle| {
                let unused = pool.sv_used.unwrap_or(0);
                idle.saturating_add(unused).saturating_add(pool.sv_tested.unwrap_or(0))
            }),
            max: most(&capacity),
            waiting: pool.cl_waiting,
            someone_waits,
            wait_seconds,
            clients_waiting_ratio: pool
                .cl_waiting
                .zip(clients)
                .filter(|_| someone_waits)
                .map(|(waiting, clients)| ratio(waiting, clients)),
            instances: 1,
            starved: u32::from(someone_waits),
            ..PoolState::of(name, Keeper::Pooler, fresh)
        });
    }
    for slots in slots {
        let of = match &slots.scope {
            Scope::Pooler => "clients".to_owned(),
            Scope::Database(database) => format!("clients of database {database}"),
            Scope::User(user) => format!("clients of user {user}"),
        };
        pools.push(PoolState {
            in_use: Some(slots.used),
            max: Max::Of(slots.max),
            instances: 1,
            ..PoolState::of(PoolName::new(source.to_owned(), &of), Keeper::ClientSlots, fresh)
        });
    }
}

/// What a pooler's pool can have, without its reserve.
fn most(capacity: &Capacity) -> Max {
    match (capacity.servers, capacity.bound) {
        (Some(servers), _) => Max::Of(servers),
        (None, Bound::Unlimited) => Max::Unlimited,
        (None, _) => Max::Unknown,
    }
}

/// The pools of an application by their names, each over all instances that tell of it.
fn of_application(
    application: &str,
    seen: &app_pool::Observation,
    fresh: bool,
    memory: &Memory,
) -> Vec<PoolState> {
    let source = source::of_app_pool(application);
    let mut by_name: BTreeMap<&str, PoolState> = BTreeMap::new();
    for instance in &seen.instances {
        let mut nth: BTreeMap<&str, usize> = BTreeMap::new();
        for pool in instance.pools.iter().flatten() {
            let place = nth.entry(&pool.name).or_default();
            let gauge = Moved { someone_waits: pool.waiting > Some(0), ..Moved::default() };
            let counted = memory.counters.moved(application, &instance.address, &pool.name, *place);
            let moved = counted.unwrap_or(gauge);
            let is_first_here = *place == 0;
            *place += 1;
            let state = by_name.entry(&pool.name).or_insert_with(|| {
                let name = PoolName::new(source.clone(), &pool.name);
                PoolState { max: Max::Of(0), ..PoolState::of(name, Keeper::Application, fresh) }
            });
            state.in_use = sum(state.in_use, pool.in_use);
            state.idle = sum(state.idle, pool.idle);
            state.waiting = sum(state.waiting, pool.waiting);
            state.max = both(state.max, pool.max);
            state.timeouts = state.timeouts.saturating_add(moved.timeouts);
            state.instances += u32::from(is_first_here);
            if moved.someone_waits || moved.timeouts > 0 {
                state.starved += 1;
            }
            state.someone_waits |= moved.someone_waits;
            state.wait_seconds = longer(state.wait_seconds, moved.wait_seconds);
        }
    }
    let unread = || seen.instances.iter().filter(|instance| is_unread(instance));
    for (name, state) in &mut by_name {
        state.may_hide_waits =
            unread().any(|it| memory.counters.last_waited(application, &it.address, name));
    }
    by_name.into_values().collect()
}

/// Whether an instance is there, as far as anybody knows, and cannot be read.
fn is_unread(instance: &Instance) -> bool {
    instance.pools.as_ref().is_err_and(|failure| failure.kind != FailureKind::Stopped)
}

/// Whether somebody waited in a pool of this name that only instances have which cannot be read.
pub fn may_be_hidden(reading: &Reading, memory: &Memory, name: &PoolName) -> bool {
    let of = |application: &&crate::reading::Sourced<app_pool::Observation>| {
        source::of_app_pool(&application.name) == name.source
    };
    let Some(application) = reading.app_pools.iter().find(of) else { return false };
    let instances = application.part.known().map(|seen| seen.instances.as_slice());
    instances.unwrap_or_default().iter().filter(|it| is_unread(it)).any(|instance| {
        memory.counters.last_waited(&application.name, &instance.address, name.pool())
    })
}

fn sum(sum: Option<u32>, more: Option<u32>) -> Option<u32> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
        (known, None) | (None, known) => known,
    }
}

/// The most that two pools have together.
fn both(one: Max, other: Max) -> Max {
    match (one, other) {
        (Max::Unlimited, _) | (_, Max::Unlimited) => Max::Unlimited,
        (Max::Unknown, _) | (_, Max::Unknown) => Max::Unknown,
        (Max::Of(one), Max::Of(other)) => Max::Of(one.saturating_add(other)),
    }
}

fn longer(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (known, None) | (None, known) => known,
    }
}
