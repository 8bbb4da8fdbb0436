//! The arithmetic, limit by limit, and against counting out every way to share them.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Database, Limits, Observation, User};
use super::*;

fn pool(database: &str, user: &str, active: u32) -> Pool {
    Pool {
        database: database.to_owned(),
        user: user.to_owned(),
        sv_active: Some(active),
        sv_idle: Some(0),
        cl_waiting: Some(0),
        ..Pool::default()
    }
}

fn database(name: &str, size: Option<u32>, max: Option<u32>) -> Database {
    let (name, pool_size, max_connections) = (name.to_owned(), size, max);
    Database { name, pool_size, max_connections, ..Database::default() }
}

fn user(name: &str) -> User {
    User { name: name.to_owned(), ..User::default() }
}

/// A pool of 20 and a reserve of 5, with no other limit.
fn ordinary() -> Observation {
    Observation {
        pools: vec![pool("shop", "app", 4)],
        databases: vec![Database {
            reserve_pool_size: Some(5),
            ..database("shop", Some(20), None)
        }],
        ..Observation::default()
    }
}

/// servers, what bounds them, the reserve, and how many alone: of the first pool.
fn check(seen: &Observation, expected: (Option<u32>, Bound, u32, Option<u32>)) {
    let capacity = seen.lookup().capacity(&seen.pools[0]);
    let Capacity { servers, bound, reserve, alone } = capacity;
    assert_eq!((servers, bound, reserve, alone), expected, "{seen:#?}");
}

#[test]
fn a_pool_has_its_size_and_a_reserve() {
    let seen = ordinary();
    check(&seen, (Some(20), Bound::PoolSize, 5, Some(25)));
    assert_eq!(seen.lookup().capacity(&seen.pools[0]).utilization(&seen.pools[0]), Some(0.2));
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(25));
}

#[test]
fn a_reserve_that_nobody_waits_for_is_none() {
    let mut seen = ordinary();
    seen.limits.reserve_pool_timeout = Some(Duration::ZERO);
    check(&seen, (Some(20), Bound::PoolSize, 0, Some(20)));
    seen.limits.reserve_pool_timeout = Some(Duration::from_secs(5));
    check(&seen, (Some(20), Bound::PoolSize, 5, Some(25)));
}

#[test]
fn a_user_s_own_sizes_are_stronger_than_the_database_s() {
    let mut seen = ordinary();
    seen.users = vec![User { pool_size: Some(3), ..user("app") }];
    check(&seen, (Some(3), Bound::UserPoolSize, 5, Some(8)));
    seen.users[0].reserve_pool_size = Some(0);
    check(&seen, (Some(3), Bound::UserPoolSize, 0, Some(3)));
    // Another's are nothing to it.
    seen.users = vec![User { pool_size: Some(3), ..user("other") }];
    check(&seen, (Some(20), Bound::PoolSize, 5, Some(25)));
    seen.users = vec![User { pool_size: Some(0), ..user("app") }];
    check(&seen, (None, Bound::Unlimited, 0, None));
}

#[test]
fn sizes_in_doubt_make_a_capacity_unknown_where_they_differ() {
    let mut seen = ordinary();
    let doubted = |size| User { pool_size: size, sizes_in_doubt: true, ..user("app") };
    seen.users = vec![doubted(Some(3))];
    check(&seen, (None, Bound::Unknown, 0, Some(25)));
    seen.users = vec![doubted(Some(30))];
    check(&seen, (None, Bound::Unknown, 0, Some(35)));
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(35));
    seen.users = vec![doubted(Some(0))];
    check(&seen, (None, Bound::Unknown, 0, None));
    // The same either way.
    seen.users = vec![doubted(Some(20))];
    check(&seen, (Some(20), Bound::PoolSize, 5, Some(25)));
}

#[test]
fn max_db_connections_are_shared_by_the_users_of_a_database() {
    let mut seen = ordinary();
    seen.databases[0].max_connections = Some(12);
    check(&seen, (Some(12), Bound::DatabaseConnections, 0, Some(12)));
    // Nine in use elsewhere leave three, but what it has it keeps.
    seen.pools.push(pool("shop", "batch", 9));
    check(&seen, (Some(4), Bound::DatabaseConnections, 0, Some(12)));
    seen.pools[0].sv_active = Some(1);
    check(&seen, (Some(3), Bound::DatabaseConnections, 0, Some(12)));
    // Idle ones are closed for it; those that are being logged in are not.
    seen.pools[1] = Pool { sv_idle: Some(9), ..pool("shop", "batch", 0) };
    check(&seen, (Some(12), Bound::DatabaseConnections, 0, Some(12)));
    seen.pools[1].sv_login = Some(1);
    check(&seen, (Some(11), Bound::DatabaseConnections, 0, Some(12)));
    // Those that are checked are kept only for somebody who waits for them.
    seen.pools[1].sv_used = Some(2);
    check(&seen, (Some(11), Bound::DatabaseConnections, 0, Some(12)));
    seen.pools[1].cl_waiting = Some(1);
    check(&seen, (Some(9), Bound::DatabaseConnections, 0, Some(12)));
    // A pool of another database takes none of them.
    seen.pools[1].database = "other".to_owned();
    check(&seen, (Some(12), Bound::DatabaseConnections, 0, Some(12)));
}

#[test]
fn a_limit_between_size_and_reserve_cuts_the_reserve() {
    let mut seen = ordinary();
    seen.databases[0].max_connections = Some(22);
    check(&seen, (Some(20), Bound::PoolSize, 2, Some(22)));
}

#[test]
fn max_user_connections_are_shared_by_the_databases_of_a_user() {
    let mut seen = ordinary();
    seen.pools.push(pool("reports", "app", 6));
    seen.limits.max_user_connections = Some(10);
    check(&seen, (Some(4), Bound::UserConnections, 0, Some(10)));
    // The user's own limit is stronger than the one for all.
    seen.users = vec![User { max_user_connections: Some(18), ..user("app") }];
    check(&seen, (Some(12), Bound::UserConnections, 0, Some(18)));
}

#[test]
fn zero_is_no_limit() {
    let mut seen = ordinary();
    seen.databases = vec![database("shop", None, None)];
    check(&seen, (None, Bound::Unlimited, 0, None));
    assert_eq!(seen.lookup().reachable(), Reach::Unlimited);
    seen.databases = vec![database("shop", None, Some(30))];
    check(&seen, (Some(30), Bound::DatabaseConnections, 0, Some(30)));
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(30));
}

#[test]
fn a_pooler_that_does_not_say_has_no_known_capacity() {
    let seen = Observation { databases: Vec::new(), ..ordinary() };
    check(&seen, (None, Bound::Unknown, 0, None));
    assert_eq!(seen.lookup().reachable(), Reach::Unknown);
    assert_eq!(seen.lookup().capacity(&seen.pools[0]).utilization(&seen.pools[0]), None);
    assert_eq!(Observation::default().lookup().reachable(), Reach::AtMost(0));
}

#[test]
fn a_pool_that_can_have_no_server_is_full() {
    let mut seen = ordinary();
    seen.databases[0].max_connections = Some(9);
    seen.pools[0].sv_active = Some(0);
    seen.pools.push(pool("shop", "batch", 9));
    check(&seen, (Some(0), Bound::DatabaseConnections, 0, Some(9)));
    assert_eq!(seen.lookup().capacity(&seen.pools[0]).utilization(&seen.pools[0]), Some(1.0));
}

#[test]
fn a_forced_user_s_pool_is_that_user_s() {
    // All clients become `owner`, and the pool is called so.
    let mut seen = ordinary();
    seen.pools = vec![pool("shop", "owner", 4)];
    seen.databases[0].force_user = Some("owner".to_owned());
    seen.users = vec![
        User { pool_size: Some(2), ..user("app") },
        User { max_user_connections: Some(7), ..user("owner") },
    ];
    check(&seen, (Some(7), Bound::UserConnections, 0, Some(7)));
}

#[test]
fn databases_of_one_name_are_told_apart_by_their_user() {
    // As pgcat and some of Odyssey have them.
    let mut seen = ordinary();
    let of = |user: &str, size| Database {
        force_user: Some(user.to_owned()),
        ..database("shop", Some(size), None)
    };
    seen.databases = vec![of("batch", 2), of("app", 9)];
    check(&seen, (Some(9), Bound::PoolSize, 0, Some(9)));
}

#[test]
fn what_is_reachable_is_told_by_the_server_that_it_leads_to() {
    let mut seen = ordinary();
    let at = |name: &str, host: Option<&str>, port| Database {
        host: host.map(str::to_owned),
        port: Some(port),
        ..database(name, Some(10), Some(15))
    };
    seen.databases = vec![
        at("shop", Some("primary"), 5432),
        at("reports", Some("standby"), 5432),
        at("jobs", Some("primary"), 5432),
        at("unused", Some("elsewhere"), 5432),
    ];
    seen.pools = vec![
        pool("shop", "a", 0),
        pool("shop", "b", 0),
        pool("jobs", "a", 0),
        pool("reports", "a", 0),
    ];
    let reachable = seen.lookup().reachable_by_server();
    let told: Vec<_> = reachable.iter().map(|r| (r.host.as_deref(), r.servers, r.pools)).collect();
    let primary = (Some("primary"), Reach::AtMost(25), 3);
    assert_eq!(told, [primary, (Some("standby"), Reach::AtMost(10), 1)]);
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(35));
    // 18 + 10: the limit of `a` binds where it has most.
    seen.limits.max_user_connections = Some(18);
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(28));
}

#[test]
fn client_slots_are_those_that_have_a_limit() {
    let seen = Observation {
        clients: Some(90),
        limits: Limits { max_client_conn: Some(100), ..Limits::default() },
        databases: vec![
            database("unlimited", Some(1), None),
            Database {
                max_client_connections: Some(50),
                current_client_connections: Some(49),
                ..database("shop", Some(1), None)
            },
        ],
        users: vec![User {
            max_user_client_connections: Some(4),
            current_client_connections: Some(5),
            ..user("app")
        }],
        ..Observation::default()
    };
    let slots = seen.client_slots();
    let told: Vec<_> = slots.iter().map(|s| (s.scope.clone(), s.used, s.max, s.free())).collect();
    assert_eq!(
        told,
        [
            (Scope::Pooler, 90, 100, 10),
            (Scope::Database("shop".to_owned()), 49, 50, 1),
            (Scope::User("app".to_owned()), 5, 4, 0),
        ]
    );
    assert!((slots[0].utilization() - 0.9).abs() < 1e-9);
    let untold = Observation { clients: None, ..seen };
    assert!(untold.client_slots().iter().all(|s| s.scope != Scope::Pooler));

    // Odyssey has a row a route: one name, and the fullest speaks for it.
    let route = |used| Database {
        name: "shop".to_owned(),
        max_client_connections: Some(10),
        current_client_connections: Some(used),
        ..Database::default()
    };
    let routes =
        Observation { databases: vec![route(2), route(9), route(5)], ..Observation::default() };
    let slots = routes.client_slots();
    assert_eq!(slots.iter().map(|slots| slots.used).collect::<Vec<_>>(), [9]);
}

/// As many servers as there can be under all limits at once, by trying every share.
fn count_out(seen: &Observation) -> u32 {
    fn go(seen: &Observation, index: usize, given: &mut Vec<u32>) -> u32 {
        let Some(pool) = seen.pools.get(index) else { return given.iter().sum() };
        let of = |name: fn(&Pool) -> &String, given: &[u32]| -> u32 {
            let same = seen.pools.iter().zip(given).filter(|(p, _)| name(p) == name(pool));
            same.map(|(_, servers)| servers).sum()
        };
        let database = seen.lookup().database(pool).unwrap();
        let most = database.pool_size.unwrap() + database.reserve_pool_size.unwrap_or(0);
        let mut best = 0;
        for servers in 0..=most {
            given.push(servers);
            let fits = database.max_connections.is_none_or(|m| of(|p| &p.database, given) <= m)
                && seen.limits.max_user_connections.is_none_or(|m| of(|p| &p.user, given) <= m);
            if fits {
                best = best.max(go(seen, index + 1, given));
            }
            given.pop();
        }
        best
    }
    go(seen, 0, &mut Vec::new())
}

proptest! {
    /// Never too small; exact where only one kind of limit is set.
    #[test]
    fn what_is_reachable_is_what_can_be_had(
        sizes in prop::array::uniform2((0_u32..4, 0_u32..2, prop::option::of(0_u32..6))),
        users in prop::option::of(0_u32..6),
        there in prop::array::uniform4(any::<bool>()),
    ) {
        let databases = ["one", "two"].into_iter().zip(sizes).map(|(name, (size, reserve, max))| {
            Database { reserve_pool_size: Some(reserve), ..database(name, Some(size), max) }
        });
        let pairs = [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")];
        let pools = pairs.into_iter().zip(there).filter(|(_, there)| *there);
        let seen = Observation {
            pools: pools.map(|((database, user), _)| pool(database, user, 0)).collect(),
            databases: databases.collect(),
            limits: Limits { max_user_connections: users, ..Limits::default() },
            ..Observation::default()
        };
        let exact = count_out(&seen);
        let said = seen.lookup().reachable().at_most().unwrap();
        prop_assert!(said >= exact, "{said} < {exact}");
        if users.is_none() || sizes.iter().all(|(.., max)| max.is_none()) {
            prop_assert_eq!(said, exact);
        }
        // No pool can have more alone than all have together.
        for pool in &seen.pools {
            prop_assert!(seen.lookup().capacity(pool).alone.unwrap() <= said);
        }
    }
}
