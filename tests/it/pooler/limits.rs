//! Limits of clients and of servers, where they are reached.

use plimsoll_core::reading::pooler::{Bound, Reach, Scope};

use super::*;

fn set(mut options: Options, settings: &[(&str, &str)]) -> Options {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    options.settings.extend(settings.iter().map(own));
    options
}

/// Applications are refused; the console is not.
#[tokio::test]
async fn a_pooler_without_a_place_for_clients_is_still_read() {
    let server = server(20).await;
    let with = set(options(vec![database("shop", &server, "")]), &[("max_client_conn", "2")]);
    let bouncer = bouncer(with).await;
    let _clients = [client(&bouncer, "app", "shop").await, client(&bouncer, "app", "shop").await];
    let login = bouncer.url("app", "shop").parse().unwrap();
    let refused = format!("{:?}", Session::open(&login).await.unwrap_err());
    assert!(refused.contains("no more connections allowed"), "{refused}");
    let watched = Watched::of(&bouncer);
    let seen = watched.seen("the limit", |_| true).await;
    let slots = seen.client_slots();
    assert_eq!((&slots[0].scope, slots[0].max, slots[0].used), (&Scope::Pooler, 2, 3));
    assert_eq!(slots[0].free(), 0);
}

/// The server refuses everybody, and at the pooler nothing is to be seen of it.
#[tokio::test]
async fn a_full_server_behind_it_shows_as_pools_of_zeros() {
    let server = server(10).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let _holders = server.fill("batch", "batch", 7).await.unwrap();
    let login = bouncer.url("app", "shop").parse().unwrap();
    let refused = format!("{:?}", Session::open(&login).await.unwrap_err());
    assert!(refused.contains("connection slots are reserved"), "{refused}");
    let watched = Watched::of(&bouncer);
    let seen = watched.seen("the pool", |seen| pool(seen, "shop", "app").is_some()).await;
    let shop = pool(&seen, "shop", "app").unwrap();
    assert_eq!((shop.cl_active, shop.cl_waiting), (Some(0), Some(0)));
    assert_eq!((shop.sv_active, shop.sv_idle, shop.wait_seconds), (Some(0), Some(0), Some(0.0)));
    assert_eq!(shop.servers(), Some(0));
}

/// What the pooler really opens is what was reckoned, limit by limit.
#[tokio::test]
async fn a_pool_opens_as_many_servers_as_it_has_capacity() {
    let server = server(60).await;
    let databases = vec![
        database("sized", &server, "pool_size=3"),
        database("shared", &server, "pool_size=6 max_db_connections=4"),
        database("forced", &server, "pool_size=2 user=batch"),
    ];
    // Nobody waits for so long that the reserve were used.
    let with = [
        ("reserve_pool_size", "2"),
        ("reserve_pool_timeout", "600"),
        ("max_user_connections", "8"),
    ];
    let bouncer = bouncer(set(options(databases), &with)).await;
    let watched = Watched::of(&bouncer);
    let mut busy = JoinSet::new();
    for (database, user) in
        [("sized", "app"), ("shared", "app"), ("forced", "app"), ("shared", "batch")]
    {
        for _ in 0..7 {
            // One of a pool without any server is not let in before it has one.
            let login: tokio_postgres::Config = bouncer.url(user, database).parse().unwrap();
            busy.spawn(async move {
                let client = Session::open(&login).await.unwrap();
                drop(client.batch_execute("BEGIN; SELECT 1; SELECT pg_sleep(600)").await);
            });
        }
        let open = |seen: &Observation| {
            let pool = pool(seen, database, if database == "forced" { "batch" } else { user });
            pool.is_some_and(|pool| {
                let full = seen.lookup().capacity(pool).servers.unwrap();
                pool.in_use() == Some(full) && pool.cl_waiting == Some(7 - full)
            })
        };
        watched.seen(&format!("a full {database} of {user}"), open).await;
    }
    let seen = watched.seen("all", |_| true).await;
    let told = |database, user| {
        let pool = pool(&seen, database, user).unwrap();
        let capacity = seen.lookup().capacity(pool);
        (pool.in_use().unwrap(), capacity.servers.unwrap(), capacity.bound, capacity.alone.unwrap())
    };
    assert_eq!(told("sized", "app"), (3, 3, Bound::PoolSize, 5));
    assert_eq!(told("shared", "app"), (4, 4, Bound::DatabaseConnections, 4));
    assert_eq!(told("forced", "batch"), (2, 2, Bound::PoolSize, 4));
    // What the other holds of the shared limit leaves it nothing.
    assert_eq!(told("shared", "batch"), (0, 0, Bound::DatabaseConnections, 4));
    // 5 + 4 + 4 by databases; by users no more, for each has at most 8 of them.
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(13));
    busy.shutdown().await;
}

/// The reserve is used once somebody has waited for long enough, and no further.
#[tokio::test]
async fn a_reserve_is_what_is_said_of_it() {
    let server = server(20).await;
    let with = [("reserve_pool_size", "2"), ("reserve_pool_timeout", "1")];
    let bouncer =
        bouncer(set(options(vec![database("shop", &server, "pool_size=1")]), &with)).await;
    let watched = Watched::of(&bouncer);
    let mut busy = JoinSet::new();
    for _ in 0..6 {
        let client = client(&bouncer, "app", "shop").await;
        busy.spawn(async move { drop(client.batch_execute("BEGIN; SELECT pg_sleep(600)").await) });
    }
    let used = |seen: &Observation| pool(seen, "shop", "app").and_then(Pool::in_use);
    let seen = watched.seen("the reserve in use", |seen| used(seen) == Some(3)).await;
    let shop = pool(&seen, "shop", "app").unwrap();
    let capacity = seen.lookup().capacity(shop);
    assert_eq!((capacity.servers, capacity.reserve, capacity.alone), (Some(1), 2, Some(3)));
    assert_eq!(capacity.utilization(shop), Some(3.0));
    assert_eq!(shop.cl_waiting, Some(3));
    busy.shutdown().await;
}

/// RELOAD changes sizes; they are seen without a new login.
#[tokio::test]
async fn a_reload_is_seen() {
    let server = server(20).await;
    let mut bouncer = bouncer(options(vec![database("shop", &server, "pool_size=5")])).await;
    let _client = client(&bouncer, "app", "shop").await;
    let watched = Watched::of(&bouncer);
    let size = |seen: &Observation| seen.lookup().capacity(pool(seen, "shop", "app")?).servers;
    watched.seen("the first size", |seen| size(seen) == Some(5)).await;
    let line = database("shop", &server, "pool_size=9");
    bouncer.reload(|options| options.databases = vec![line]).unwrap();
    let seen = watched.seen("the second size", |seen| size(seen) == Some(9)).await;
    assert_eq!(seen.rest_age.max(DEADLINE), DEADLINE);
    let logins = bouncer.log().matches("login attempt: db=pgbouncer user=stats").count();
    assert_eq!(logins, 1, "{}", bouncer.log());
}
