//! From answers of a console to the types of a reading: pools, databases, users, limits, counters.
//!
//! Pure: an answer and the kind of pooler in, values out. What a version does not say stays unsaid,
//! and a known column with something else than a number in it is an error: then it is no such
//! console. Called by [`super::look`], which asks.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::reading::pooler::{Counters, Database, Limits, Pool, User};

use super::answer::{Answer, Row, Unusable};
use super::kind::Kind;

/// One a (database, user).
pub(super) const POOLS: &[&str] = &[
    "database",
    "user",
    "cl_active",
    "cl_idle",
    "cl_waiting",
    "sv_active",
    "sv_active_cancel",
    "sv_being_canceled",
    "sv_idle",
    "sv_used",
    "sv_tested",
    "sv_login",
    "maxwait",
    "maxwait_us",
    "pool_mode",
];

/// From 1.24 on the reserve is called by its whole name.
pub(super) const DATABASES: &[&str] = &[
    "name",
    "host",
    "port",
    "database",
    "force_user",
    "pool_size",
    "reserve_pool",
    "reserve_pool_size",
    "max_connections",
    "current_connections",
    "max_client_connections",
    "current_client_connections",
    "paused",
    "disabled",
];

/// Up to 1.22 there are the name and the mode, and nothing of it is used.
pub(super) const USERS: &[&str] = &[
    "name",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "current_connections",
    "max_user_client_connections",
    "current_client_connections",
];

/// A row a list, or at pgdog one row with a column a list.
pub(super) const LISTS: &[&str] = &["list", "items", "used_clients", "free_clients"];

/// At pgdog, `name` in place of `key`.
pub(super) const CONFIG: &[&str] = &["key", "name", "value"];

/// From 1.19 on.
pub(super) const STATE: &[&str] = &["key", "value"];

/// `SHOW STATS_TOTALS`.
pub(super) const STATS_TOTALS: &[&str] =
    &["database", "xact_count", "query_count", "wait_time", "server_assignment_count"];

/// `SHOW STATS`, where there is no `STATS_TOTALS`: the same, with `total_` before it.
pub(super) const STATS: &[&str] = &[
    "database",
    "total_xact_count",
    "total_query_count",
    "total_wait_time",
    "total_server_assignment_count",
];

/// Pools, those of one database and user as one: several threads, shards or replicas have one each.
/// Without those of the console.
pub(super) fn pools(answer: &Answer, kind: Kind, console: &str) -> Result<Vec<Pool>, Unusable> {
    answer.must_have(&["database", "user"])?;
    let mut pools = BTreeMap::<(String, String), Pool>::new();
    for row in answer.rows() {
        let Some(key) = database_and_user(row).filter(|(database, _)| database != console) else {
            continue;
        };
        let pool = pool(row, answer, kind)?;
        match pools.get_mut(&key) {
            Some(known) => add(known, &pool),
            None => drop(pools.insert(key, pool)),
        }
    }
    Ok(pools.into_values().collect())
}

fn database_and_user(row: Row<'_>) -> Option<(String, String)> {
    Some((row.text("database")?.to_owned(), row.text("user")?.to_owned()))
}

fn pool(row: Row<'_>, answer: &Answer, kind: Kind) -> Result<Pool, Unusable> {
    let text = |column| row.text(column).unwrap_or_default().to_owned();
    let others = |column| {
        if kind.counts_other_servers() { row.number(column) } else { Ok(None) }
    };
    let waiting = kind.counts_waiting(answer.has("cl_idle"));
    Ok(Pool {
        database: text("database"),
        user: text("user"),
        mode: row.some_text("pool_mode").map(str::to_owned),
        cl_active: row.number("cl_active")?,
        cl_waiting: if waiting { row.number("cl_waiting")? } else { None },
        sv_active: row.number("sv_active")?,
        sv_idle: row.number("sv_idle")?,
        sv_used: others("sv_used")?,
        sv_tested: others("sv_tested")?,
        sv_login: others("sv_login")?,
        sv_active_cancel: row.number("sv_active_cancel")?,
        sv_being_canceled: row.number("sv_being_canceled")?,
        wait_seconds: if kind.measures_waits() {
            seconds(row.number("maxwait")?, row.number("maxwait_us")?)
        } else {
            None
        },
    })
}

/// `maxwait` are whole seconds, `maxwait_us` the microseconds beside them.
fn seconds(whole: Option<u64>, micros: Option<u64>) -> Option<f64> {
    if whole.is_none() && micros.is_none() {
        return None;
    }
    let micros = Duration::from_micros(micros.unwrap_or(0));
    Some(Duration::from_secs(whole.unwrap_or(0)).saturating_add(micros).as_secs_f64())
}

fn add(known: &mut Pool, more: &Pool) {
    let fields = [
        (&mut known.cl_active, more.cl_active),
        (&mut known.cl_waiting, more.cl_waiting),
        (&mut known.sv_active, more.sv_active),
        (&mut known.sv_idle, more.sv_idle),
        (&mut known.sv_used, more.sv_used),
        (&mut known.sv_tested, more.sv_tested),
        (&mut known.sv_login, more.sv_login),
        (&mut known.sv_active_cancel, more.sv_active_cancel),
        (&mut known.sv_being_canceled, more.sv_being_canceled),
    ];
    for (sum, one) in fields {
        *sum = sum.zip(one).map(|(sum, one)| sum.saturating_add(one)).or(*sum).or(one);
    }
    known.wait_seconds = match (known.wait_seconds, more.wait_seconds) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    };
}

/// Databases, without the console's. Those of which no size is said are left out.
pub(super) fn databases(
    answer: &Answer,
    kind: Kind,
    console: &str,
) -> Result<Vec<Database>, Unusable> {
    answer.must_have(&["name", "pool_size"])?;
    let mut databases = Vec::new();
    for row in answer.rows() {
        let Some(name) = row.text("name").filter(|name| *name != console) else { continue };
        let Some(size) = row.number::<u32>("pool_size")? else { continue };
        let reserve = match row.number("reserve_pool_size")? {
            Some(reserve) => Some(reserve),
            None => row.number("reserve_pool")?,
        };
        let mut database = Database {
            name: name.to_owned(),
            host: row.some_text("host").map(str::to_owned),
            port: row.number("port")?,
            database: row.some_text("database").map(str::to_owned),
            force_user: row.some_text("force_user").map(str::to_owned),
            pool_size: Some(size).filter(|size| *size > 0 || !kind.has_unlimited_pools()),
            reserve_pool_size: reserve,
            max_connections: row.limit("max_connections")?,
            current_connections: row.number("current_connections")?,
            max_client_connections: row.limit("max_client_connections")?,
            current_client_connections: row.number("current_client_connections")?,
            paused: row.flag("paused"),
            disabled: row.flag("disabled"),
        };
        if kind.limits_clients_of_databases() {
            database.max_client_connections = database.max_connections.take();
            database.current_client_connections = database.current_connections.take();
        }
        databases.push(database);
    }
    if kind.lists_servers_as_databases() {
        databases = joined(databases);
    }
    Ok(databases)
}

/// The servers of a pgcat pool as one database: `shop_shard_0_primary` and `shop_shard_0_replica_0`
/// of a user are the servers of its pool `shop`. Each has its own size, and no limit is shared.
fn joined(servers: Vec<Database>) -> Vec<Database> {
    let mut pools = BTreeMap::<(String, Option<String>), Database>::new();
    for mut server in servers {
        let pool = server.name.rsplit_once("_shard_").map(|(pool, _)| pool.to_owned());
        server.name = pool.unwrap_or(server.name);
        server.max_connections = None;
        // Said of a server that is banned: the pool goes on with the others.
        server.disabled = false;
        match pools.get_mut(&(server.name.clone(), server.force_user.clone())) {
            Some(pool) => {
                let sum = |one: Option<u32>, other: Option<u32>| Some(one?.saturating_add(other?));
                pool.pool_size = sum(pool.pool_size, server.pool_size);
                pool.current_connections =
                    sum(pool.current_connections, server.current_connections);
                pool.paused &= server.paused;
            }
            None => drop(pools.insert((server.name.clone(), server.force_user.clone()), server)),
        }
    }
    pools.into_values().collect()
}

/// How many clients are at the console, of the same answer as the pools.
pub(super) fn at_console(answer: &Answer, console: &str) -> Option<u32> {
    let row = answer.rows().find(|row| row.text("database") == Some(console))?;
    row.number("cl_active").ok()?
}

/// Users that have a limit of their own.
pub(super) fn users(answer: &Answer, kind: Kind) -> Result<Vec<User>, Unusable> {
    answer.must_have(&["name"])?;
    let mut users = Vec::new();
    let mut before = (None, None);
    for row in answer.rows() {
        let Some(name) = row.text("name") else { continue };
        let sizes = (row.number("pool_size")?, row.number("reserve_pool_size")?);
        let repeats =
            sizes.0.is_some() && sizes.0 == before.0 || sizes.1.is_some() && sizes.1 == before.1;
        before = sizes;
        let user = User {
            name: name.to_owned(),
            pool_size: sizes.0,
            reserve_pool_size: sizes.1,
            sizes_in_doubt: repeats && kind.repeats_sizes_of_users(),
            max_user_connections: row.limit("max_user_connections")?,
            current_connections: row.number("current_connections")?,
            max_user_client_connections: row.limit("max_user_client_connections")?,
            current_client_connections: row.number("current_client_connections")?,
        };
        let has_own = user.pool_size.or(user.reserve_pool_size).is_some();
        let has_limit = user.max_user_connections.or(user.max_user_client_connections).is_some();
        if has_own || has_limit {
            users.push(user);
        }
    }
    Ok(users)
}

/// `used_clients`, in either form of the answer.
pub(super) fn clients(answer: &Answer, kind: Kind) -> Result<Option<u32>, Unusable> {
    let of = |list: &str| {
        if !answer.has("list") {
            return answer.rows().next().map_or(Ok(None), |row| row.number(list));
        }
        let named = answer.rows().find(|row| row.text("list") == Some(list));
        named.map_or(Ok(None), |row| row.number::<u32>("items"))
    };
    let used = of("used_clients")?;
    if kind.calls_idle_clients_free() {
        let free = of("free_clients")?.unwrap_or(0);
        return Ok(used.map(|used| used.saturating_add(free)));
    }
    Ok(used)
}

/// What bounds pools and clients.
pub(super) fn limits(answer: &Answer) -> Limits {
    let value = |wanted: &str| {
        let key = |row: &Row<'_>| row.text("key").or_else(|| row.text("name")) == Some(wanted);
        answer.rows().find(key).and_then(|row| row.some_text("value"))
    };
    let number = |key: &str| value(key)?.trim().parse::<u32>().ok();
    let limit = |key: &str| number(key).filter(|limit| *limit > 0);
    let duration = |key: &str| {
        let seconds = value(key)?.trim().parse::<f64>().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    Limits {
        max_client_conn: limit("max_client_conn"),
        max_user_connections: limit("max_user_connections"),
        default_pool_size: limit("default_pool_size"),
        query_wait_timeout: duration("query_wait_timeout").filter(|timeout| !timeout.is_zero()),
        reserve_pool_timeout: duration("reserve_pool_timeout"),
    }
}

/// Whether all of it is paused.
pub(super) fn paused(answer: &Answer) -> Option<bool> {
    let row = answer.rows().find(|row| row.text("key") == Some("paused"))?;
    Some(row.flag("value"))
}

/// Counters by database, of either command. Without the console's.
pub(super) fn counters(
    answer: &Answer,
    kind: Kind,
    console: &str,
) -> Result<Vec<Counters>, Unusable> {
    answer.must_have(&["database"])?;
    let prefix = if answer.has("total_xact_count") { "total_" } else { "" };
    let mut databases = BTreeMap::<String, Counters>::new();
    for row in answer.rows() {
        let Some(database) = row.text("database").filter(|name| *name != console) else { continue };
        let number = |column: &str| row.number::<u64>(&format!("{prefix}{column}"));
        let counted = Counters {
            database: database.to_owned(),
            transactions: number("xact_count")?,
            queries: number("query_count")?,
            wait_micros: if kind.measures_waits() {
                micros(row.text(&format!("{prefix}wait_time")), kind)
            } else {
                None
            },
            server_assignments: number("server_assignment_count")?,
        };
        let known = databases
            .entry(database.to_owned())
            .or_insert_with(|| Counters { database: database.to_owned(), ..Counters::default() });
        let fields = [
            (&mut known.transactions, counted.transactions),
            (&mut known.queries, counted.queries),
            (&mut known.wait_micros, counted.wait_micros),
            (&mut known.server_assignments, counted.server_assignments),
        ];
        for (sum, one) in fields {
            *sum = sum.zip(one).map(|(sum, one)| sum.saturating_add(one)).or(*sum).or(one);
        }
    }
    Ok(databases.into_values().collect())
}

/// A time of any unit, in whole microseconds.
fn micros(text: Option<&str>, kind: Kind) -> Option<u64> {
    let text = text?.trim();
    if !kind.counts_in_millis() {
        return text.parse().ok();
    }
    let seconds = Duration::try_from_secs_f64(text.parse::<f64>().ok()? / 1_000.0).ok()?;
    u64::try_from(seconds.as_micros()).ok()
}

#[cfg(test)]
mod tests;
