//! From the rows of a pass to an observation. Pure: the rows in, the values of a reading out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::reading::postgres::{
    BackendCount, ConnectionLimit, Cost, DatabaseCounters, Group, Limits, MAX_SESSIONS,
    Observation, Server, Session, SessionState,
};
use plimsoll_core::reading::{Failure, FailureKind, Refusal};

use super::names::Names;
use super::poll::{Activity, Backend, Counters, Facts, Identity};

/// A background worker that is about to end has lost the name of its type.
const WORKER: &str = "background worker";

/// What is known from before this pass.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Roles and databases.
    pub(super) names: &'a Names,
    /// Counters, as they were read last.
    pub(super) counters: &'a [Counters],
    /// How long ago that was.
    pub(super) counters_age: Duration,
}

/// Whether a row names a role or database that the cache of names does not know.
pub(super) fn has_unknown_names(activity: &[Activity], names: &Names) -> bool {
    let clients = activity.iter().filter(|row| is_client(row));
    let unknown = |oid: Option<u32>, known: &dyn Fn(u32) -> bool| {
        oid.is_some_and(|oid| oid != 0 && !known(oid))
    };
    clients.into_iter().any(|row| {
        unknown(row.role, &|oid| names.roles.contains_key(&oid))
            || unknown(row.database, &|oid| names.databases.contains_key(&oid))
    })
}

/// Why these rows cannot be trusted: they are of a role that sees itself only. `None` if they can.
pub(super) fn distrust(facts: &Facts, activity: &[Activity]) -> Option<Failure> {
    let not_allowed =
        |text: String| Some(Failure { kind: FailureKind::NotAllowed, text, sqlstate: None });
    if activity.iter().any(|row| row.is_hidden) {
        let role = format!("\"{}\"", facts.role.replace('"', "\"\""));
        return not_allowed(format!(
            "the role {role} may not see other sessions; run: GRANT pg_monitor TO {role};"
        ));
    }
    if !facts.track_activities {
        return not_allowed(
            "track_activities is off, so nobody can see what sessions do; run: ALTER SYSTEM SET \
             track_activities = on; SELECT pg_reload_conf();"
                .to_owned(),
        );
    }
    None
}

/// The observation that these rows make.
pub(super) fn observation(
    identity: Identity,
    facts: Facts,
    activity: &[Activity],
    known: Known<'_>,
    fallback: Option<Refusal>,
    cost: Cost,
) -> Observation {
    let limits = limits(&facts);
    let Known { names, counters, counters_age } = known;
    Observation {
        server: Server {
            version_num: facts.version_num,
            version: facts.version,
            system_identifier: identity.system_identifier,
            started_at: facts.started_at,
            in_recovery: facts.in_recovery,
            clock: facts.clock,
        },
        limits,
        groups: groups(activity, names),
        other_backends: other_backends(activity),
        sessions: sessions(activity, names),
        role_limits: role_limits(activity, names),
        database_limits: database_limits(activity, names),
        superusers: superusers(names),
        counters: counters.iter().map(|row| database_counters(row, names)).collect(),
        counters_age,
        fallback,
        logging: names.logging.clone(),
        cost,
    }
}

fn limits(facts: &Facts) -> Limits {
    let Facts { max_connections, superuser_reserved, reserved, rds_reserved, .. } = *facts;
    // A server has one of the two at most, and none reserves all that it has: on other servers
    // than those of RDS the name may have any value.
    let left = max_connections.saturating_sub(superuser_reserved).saturating_sub(reserved);
    let rds_reserved = if rds_reserved < left { rds_reserved } else { 0 };
    Limits { max_connections, superuser_reserved, reserved: reserved + rds_reserved }
}

fn is_client(row: &Activity) -> bool {
    row.backend == Backend::Client
}

fn client_groups(activity: &[Activity]) -> impl Iterator<Item = &Activity> {
    activity.iter().filter(|row| row.pid.is_none() && is_client(row))
}

fn groups(activity: &[Activity], names: &Names) -> Vec<Group> {
    let group = |row: &Activity| Group {
        role: names.role(row.role),
        database: names.database(row.database),
        application: Arc::clone(&row.application),
        address: Arc::clone(&row.address),
        state: row.state,
        connections: row.connections,
        waiting_for_lock: row.waiting_for_lock,
        longest_seconds: row.state_seconds.unwrap_or(0.0),
    };
    let mut groups: Vec<Group> = client_groups(activity).map(group).collect();
    // The largest first, and always in one order.
    groups.sort_by(|a, b| {
        b.connections.cmp(&a.connections).then_with(|| by_name(a).cmp(&by_name(b)))
    });
    groups
}

fn by_name(group: &Group) -> ([&str; 4], SessionState) {
    let Group { application, role, database, address, state, .. } = group;
    ([application, role, database, address], *state)
}

fn other_backends(activity: &[Activity]) -> Vec<BackendCount> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for row in activity.iter().filter(|row| row.pid.is_none()) {
        let backend_type = match &row.backend {
            Backend::Client => continue,
            Backend::Other(backend_type) => backend_type,
            Backend::Unknown => WORKER,
        };
        let count = counts.entry(backend_type).or_default();
        *count = count.saturating_add(row.connections);
    }
    let count = |(backend_type, count): (&str, u32)| BackendCount {
        backend_type: backend_type.to_owned(),
        count,
    };
    counts.into_iter().map(count).collect()
}

fn sessions(activity: &[Activity], names: &Names) -> Vec<Session> {
    let session = |row: &Activity, pid: i32| Session {
        pid,
        role: names.role(row.role),
        database: names.database(row.database),
        application: Arc::clone(&row.application),
        address: Arc::clone(&row.address),
        state: row.state,
        wait: row.wait.clone(),
        started_at: row.started_at,
        transaction_seconds: row.transaction_seconds,
        state_seconds: row.state_seconds,
        query: Arc::clone(&row.query),
        query_id: row.query_id,
        lock_wait_seconds: row.lock_wait_seconds,
    };
    let single = activity.iter().filter_map(|row| row.pid.map(|pid| session(row, pid)));
    single.take(MAX_SESSIONS).collect()
}

/// Connections by role or database. Walsenders and workers do not count towards a limit (measured
/// on 15, with physical and logical walsenders); superusers do.
fn used(activity: &[Activity], oid: impl Fn(&Activity) -> Option<u32>) -> BTreeMap<u32, u32> {
    let mut used: BTreeMap<u32, u32> = BTreeMap::new();
    for row in client_groups(activity) {
        let count = used.entry(oid(row).unwrap_or(0)).or_default();
        *count = count.saturating_add(row.connections);
    }
    used
}

fn connection_limit(name: &str, limit: i32, used: Option<&u32>) -> Option<ConnectionLimit> {
    let limit = u32::try_from(limit).ok().filter(|limit| *limit > 0)?;
    Some(ConnectionLimit { name: name.to_owned(), limit, used: used.copied().unwrap_or(0) })
}

fn role_limits(activity: &[Activity], names: &Names) -> Vec<ConnectionLimit> {
    let used = used(activity, |row| row.role);
    // Nobody holds a superuser to a limit.
    let bound = names.roles.iter().filter(|(_, role)| !role.superuser && role.can_login);
    bound
        .filter_map(|(oid, role)| connection_limit(&role.name, role.limit, used.get(oid)))
        .collect()
}

fn database_limits(activity: &[Activity], names: &Names) -> Vec<ConnectionLimit> {
    let used = used(activity, |row| row.database);
    let all = names.databases.iter();
    all.filter_map(|(oid, db)| connection_limit(&db.name, db.limit, used.get(oid))).collect()
}

fn superusers(names: &Names) -> Vec<String> {
    let may = names.roles.values().filter(|role| role.superuser && role.can_login);
    may.map(|role| role.name.to_string()).collect()
}

fn database_counters(row: &Counters, names: &Names) -> DatabaseCounters {
    DatabaseCounters {
        database: names.database(Some(row.database)),
        stats_reset: row.stats_reset,
        commits: row.commits,
        rollbacks: row.rollbacks,
        deadlocks: row.deadlocks,
        sessions: row.sessions,
        sessions_abandoned: row.sessions_abandoned,
        sessions_fatal: row.sessions_fatal,
        sessions_killed: row.sessions_killed,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::names::{Database, Role};
    use super::*;

    fn group(backend: Backend, role: u32, database: u32, connections: u32) -> Activity {
        Activity {
            pid: None,
            backend,
            is_hidden: false,
            role: Some(role),
            database: Some(database),
            application: Arc::default(),
            address: "local".into(),
            state: SessionState::Idle,
            connections,
            waiting_for_lock: 0,
            state_seconds: Some(1.5),
            wait: None,
            started_at: None,
            transaction_seconds: None,
            query: Arc::default(),
            query_id: None,
            lock_wait_seconds: None,
        }
    }

    fn other(backend_type: &str) -> Backend {
        Backend::Other(backend_type.to_owned())
    }

    fn facts() -> Facts {
        Facts {
            version_num: 150_018,
            version: "15.18".to_owned(),
            started_at: Timestamp::UNIX_EPOCH,
            in_recovery: false,
            clock: Timestamp::UNIX_EPOCH,
            max_connections: 100,
            superuser_reserved: 3,
            reserved: 0,
            rds_reserved: 0,
            track_activities: true,
            role: "o\"brien".to_owned(),
        }
    }

    fn names() -> Names {
        let role = |name: &str, superuser, limit| Role {
            name: name.into(),
            superuser,
            can_login: true,
            limit,
        };
        let database = |name: &str, limit| Database { name: name.into(), limit };
        Names {
            roles: [(10, role("postgres", true, 1)), (20, role("app", false, 5))].into(),
            databases: [(5, database("postgres", -1)), (6, database("dropped", -2))]
                .into_iter()
                .chain([(7, database("shop", 9))])
                .collect(),
            logging: None,
        }
    }

    fn observe(activity: &[Activity]) -> Observation {
        let identity = Identity { pid: 1, system_identifier: Some(2) };
        let cost = Cost {
            poll_seconds: 0.0,
            server_seconds: 0.0,
            processor_seconds: None,
            budget_ratio: 0.005,
            next_after_seconds: 1.0,
        };
        let known = Known { names: &names(), counters: &[], counters_age: Duration::ZERO };
        observation(identity, facts(), activity, known, None, cost)
    }

    #[test]
    fn only_client_backends_hold_slots_and_count_towards_limits() {
        let seen = observe(&[
            group(Backend::Client, 10, 7, 2),
            group(Backend::Client, 20, 7, 3),
            group(other("walsender"), 20, 7, 4),
            group(other("parallel worker"), 20, 7, 4),
            group(other("walsender"), 10, 0, 1),
        ]);
        assert_eq!((seen.slots().used, seen.slots().free), (5, 92));
        let limit = |name: &str, limit, used| ConnectionLimit { name: name.into(), limit, used };
        // A superuser is held to no limit of its own, and counts in its database.
        assert_eq!(seen.role_limits, [limit("app", 5, 3)]);
        assert_eq!(seen.database_limits, [limit("shop", 9, 5)]);
        assert_eq!(seen.superusers, ["postgres"]);
        let others: Vec<_> =
            seen.other_backends.iter().map(|b| (b.backend_type.as_str(), b.count)).collect();
        assert_eq!(others, [("parallel worker", 4), ("walsender", 5)]);
    }

    #[test]
    fn ten_thousand_names_keep_their_sum() {
        let hostile = |n: usize| Activity {
            application: format!("'; DROP TABLE x; --\n\u{1b}[31m\"{n}").into(),
            ..group(Backend::Client, 20, 7, 1)
        };
        let seen = observe(&(0..10_000).map(hostile).collect::<Vec<_>>());
        assert_eq!(seen.groups.len(), 10_000);
        assert_eq!(seen.slots().used, 10_000);
        assert!(seen.groups.iter().all(|g| g.application.contains('\n')));
    }

    #[test]
    fn names_that_are_unknown_are_shown_by_oid_and_no_name_is_empty() {
        let mut starting = group(Backend::Client, 0, 0, 1);
        starting.role = None;
        starting.database = None;
        starting.address = Arc::default();
        starting.state = SessionState::Starting;
        let rows = [starting, group(Backend::Client, 99, 98, 1)];
        assert!(has_unknown_names(&rows, &names()));
        assert!(!has_unknown_names(&rows[..1], &names()));
        let seen = observe(&rows);
        let shown: Vec<_> =
            seen.groups.iter().map(|g| (&*g.role, &*g.database, &*g.address, g.state)).collect();
        let starting = ("", "", "", SessionState::Starting);
        assert_eq!(shown, [starting, ("oid 99", "oid 98", "local", SessionState::Idle)]);
    }

    #[test]
    fn a_hidden_row_is_a_role_that_sees_itself_only() {
        let mut hidden = group(Backend::Client, 20, 7, 1);
        hidden.backend = Backend::Unknown;
        // A worker that is about to end has no type either.
        assert_eq!(distrust(&facts(), &[hidden.clone()]), None);
        hidden.is_hidden = true;
        let rows = [group(Backend::Client, 20, 7, 1), hidden];
        let failure = distrust(&facts(), &rows).unwrap();
        assert_eq!(failure.kind, FailureKind::NotAllowed);
        assert!(failure.text.ends_with("run: GRANT pg_monitor TO \"o\"\"brien\";"), "{failure:?}");
    }

    #[test]
    fn single_sessions_are_bounded_and_hold_no_slot_of_their_own() {
        let single = |pid: i32| Activity {
            pid: Some(pid),
            connections: 0,
            ..group(Backend::Client, 20, 7, 0)
        };
        let seen = observe(&(1..=1_000).map(single).collect::<Vec<_>>());
        assert_eq!(seen.sessions.len(), MAX_SESSIONS);
        assert_eq!(seen.slots().used, 0);
    }
}
