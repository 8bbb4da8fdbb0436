//! Where releases differ: what the one of this run says, and what it does not.

use plimsoll_core::reading::pooler::{Bound, Reach, Scope};

use super::*;

#[tokio::test]
async fn what_a_release_does_not_have_is_absent() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let app = client(&bouncer, "app", "shop").await;
    app.batch_execute("SELECT 1").await.unwrap();
    let watched = Watched::of(&bouncer);
    let counted = |seen: &Observation| seen.counters.first().is_some_and(|c| c.queries > Some(0));
    let seen = watched.seen("a statement that was counted", counted).await;
    let counters = &seen.counters[0];
    assert_eq!(counters.transactions, Some(1));
    assert_eq!(counters.server_assignments, has(1, 23).then_some(1));
    assert_eq!(seen.assignments(), counters.server_assignments);
    if has(1, 19) {
        assert_eq!((seen.paused, seen.refused.as_slice()), (Some(false), [].as_slice()));
    } else {
        assert_eq!(
            (seen.paused, seen.refused.as_slice()),
            (None, ["SHOW STATE".to_owned()].as_slice())
        );
    }
    assert_eq!(seen.databases[0].current_client_connections, has(1, 24).then_some(1));
}

/// `[users]` has sizes from 1.23 on, which no other view tells.
#[tokio::test]
async fn a_user_s_own_size_is_what_its_pools_have() {
    let server = server(20).await;
    let mut with = options(vec![database("shop", &server, "pool_size=5")]);
    let own = if has(1, 23) { "pool_size=2" } else { "pool_mode=transaction" };
    with.users = vec![format!("app = {own}"), "batch = max_user_connections=3".to_owned()];
    let bouncer = bouncer(with).await;
    let watched = Watched::of(&bouncer);
    let mut busy = JoinSet::new();
    for user in ["app", "batch"] {
        for _ in 0..6 {
            let client = client(&bouncer, user, "shop").await;
            busy.spawn(
                async move { drop(client.batch_execute("BEGIN; SELECT pg_sleep(600)").await) },
            );
        }
    }
    let (app, batch) = if has(1, 23) { (2, 3) } else { (5, 3) };
    let used = |seen: &Observation, user| pool(seen, "shop", user).and_then(Pool::in_use);
    let full =
        |seen: &Observation| used(seen, "app") == Some(app) && used(seen, "batch") == Some(batch);
    let seen = watched.seen("full pools", full).await;
    let told = |user| {
        let capacity = seen.lookup().capacity(pool(&seen, "shop", user).unwrap());
        (capacity.servers, capacity.bound)
    };
    if has(1, 26) {
        assert_eq!(told("app"), (Some(2), Bound::UserPoolSize));
        assert_eq!(told("batch"), (Some(3), Bound::UserConnections));
    } else if has(1, 23) {
        // The size of `app` is repeated for `batch`, who has none of its own.
        assert_eq!(told("app"), (Some(2), Bound::UserPoolSize));
        assert_eq!(told("batch"), (None, Bound::Unknown));
    } else {
        assert_eq!(told("app"), (Some(5), Bound::PoolSize));
        // The one limit that is not seen.
        assert_eq!(told("batch"), (Some(5), Bound::PoolSize));
    }
    busy.shutdown().await;
}

/// A size of 0 has no limit from 1.24 on.
#[tokio::test]
async fn a_size_of_zero_is_unlimited_where_it_is() {
    if !has(1, 24) {
        // There it is no size that anybody sets: a pool of none.
        return;
    }
    let server = server(60).await;
    let mut with = options(vec![
        database("shop", &server, ""),
        database("bounded", &server, "max_db_connections=4"),
    ]);
    with.settings.push(("default_pool_size".to_owned(), "0".to_owned()));
    let bouncer = bouncer(with).await;
    let watched = Watched::of(&bouncer);
    let mut busy = JoinSet::new();
    for _ in 0..25 {
        let client = client(&bouncer, "app", "shop").await;
        busy.spawn(async move { drop(client.batch_execute("BEGIN; SELECT pg_sleep(600)").await) });
    }
    let _bounded = client(&bouncer, "app", "bounded").await;
    let open = |seen: &Observation| pool(seen, "shop", "app").and_then(Pool::in_use) == Some(25);
    let seen = watched.seen("more servers than any default has", open).await;
    let capacity = |database| seen.lookup().capacity(pool(&seen, database, "app").unwrap());
    assert_eq!((capacity("shop").servers, capacity("shop").bound), (None, Bound::Unlimited));
    assert_eq!(capacity("bounded").servers, Some(4));
    assert_eq!(capacity("bounded").bound, Bound::DatabaseConnections);
    assert_eq!(seen.lookup().reachable(), Reach::Unlimited);
    busy.shutdown().await;
}

/// Limits of clients for a database and a user are from 1.24.
#[tokio::test]
async fn client_slots_of_databases_and_users_are_told() {
    let server = server(20).await;
    let limit = if has(1, 24) { "max_db_client_connections=7" } else { "" };
    let mut with = options(vec![database("shop", &server, limit)]);
    if has(1, 24) {
        with.users = vec!["app = max_user_client_connections=5".to_owned()];
    }
    let bouncer = bouncer(with).await;
    let _clients = [client(&bouncer, "app", "shop").await, client(&bouncer, "app", "shop").await];
    let seen = Watched::of(&bouncer).seen("the limits", |_| true).await;
    let told: Vec<_> = seen.client_slots().into_iter().map(|s| (s.scope, s.used, s.max)).collect();
    let mut expected = vec![(Scope::Pooler, 3, 100)];
    if has(1, 24) {
        expected.push((Scope::Database("shop".to_owned()), 2, 7));
        expected.push((Scope::User("app".to_owned()), 2, 5));
    }
    assert_eq!(told, expected);
}
