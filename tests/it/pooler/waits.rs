//! Pools that work, that queue, and that stall.

use plimsoll::drill::server::Signal;
use plimsoll_core::reading::pooler::{Bound, Reach, Sockets};
use tokio_postgres::SimpleQueryMessage;

use super::*;

#[tokio::test]
async fn a_pooler_that_works_is_told_as_it_is() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "pool_size=5")])).await;
    let clients = [
        client(&bouncer, "app", "shop").await,
        client(&bouncer, "app", "shop").await,
        client(&bouncer, "batch", "shop").await,
    ];
    for client in &clients[..2] {
        client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    }
    let watched = Watched::of(&bouncer);
    let seen = watched.seen("the pools", |_| true).await;

    assert!(seen.version.starts_with(&format!("PgBouncer {}.", release())), "{}", seen.version);
    let app = pool(&seen, "shop", "app").unwrap();
    assert_eq!((app.cl_active, app.cl_waiting, app.sv_active), (Some(2), Some(0), Some(2)));
    assert_eq!((app.sv_login, app.wait_seconds), (Some(0), Some(0.0)));
    assert_eq!(app.mode.as_deref(), Some("transaction"));
    // The console is none of its pools, and none of its databases.
    assert_eq!(seen.pools.len(), 2, "{:?}", seen.pools);
    let names: Vec<&str> = seen.databases.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["shop"]);
    assert_eq!(seen.databases[0].port, Some(server.port()));

    let capacity = seen.lookup().capacity(app);
    assert_eq!((capacity.servers, capacity.bound), (Some(5), Bound::PoolSize));
    assert_eq!(capacity.utilization(app), Some(0.4));
    assert_eq!(seen.lookup().reachable(), Reach::AtMost(10));
    // Three clients and the one that looks.
    assert_eq!(seen.clients, Some(4));
    let slots = seen.client_slots();
    assert_eq!((slots[0].used, slots[0].max), (4, 100));
    assert_eq!(seen.counters.len(), 1);
    assert_eq!(seen.server_logins(), Some(0));

    let sockets = seen.sockets.as_ref().unwrap();
    let told: Vec<_> = sockets
        .clients
        .iter()
        .map(|g| (g.application.as_str(), g.user.as_str(), g.clients))
        .collect();
    assert_eq!(told, [("shop-api", "app", 2), ("shop-api", "batch", 1)]);
    // The backends are the server's own, by the pids that it shows.
    let superuser = server.superuser().await.unwrap();
    let sql = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE usename = 'app'";
    let pids: Vec<i32> = superuser.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| sockets.backends.contains(pid)), "{sockets:?} {pids:?}");
    watched.end().await;
}

/// A pool of one, whose client is in a transaction, and a client that would wait.
async fn one_connection_held() -> (Server, Bouncer, Session, Session) {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "pool_size=1")])).await;
    let holder = client(&bouncer, "app", "shop").await;
    let waiter = client(&bouncer, "app", "shop").await;
    holder.batch_execute("BEGIN; SELECT 1").await.unwrap();
    (server, bouncer, holder, waiter)
}

/// 0.7 s of waiting are 0.7 s, and not 0.
#[tokio::test]
async fn a_queue_is_as_long_as_it_is() {
    let (_server, bouncer, holder, waiter) = one_connection_held().await;
    let watched = Watched::of(&bouncer);
    watched.seen("nobody who waits", |seen| seen.clients_waiting() == Some(0)).await;
    let before = clock::monotonic();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waiter.batch_execute("SELECT 1").await });
    let first = watched.until("somebody who waits", |d| {
        d.outcome.as_ref().is_ok_and(|seen| seen.clients_waiting() == Some(1))
    });
    let first = first.await.taken_at;
    let mut whole = 0;
    for _ in 0..8 {
        let delivery = watched
            .until("0.7 s of waiting", |d| {
                let waited = |seen: &Arc<Observation>| {
                    seen.lookup().wait_seconds(pool(seen, "shop", "app").unwrap()).unwrap() >= 0.7
                };
                d.outcome.as_ref().is_ok_and(waited)
            })
            .await;
        let seen = delivery.outcome.unwrap();
        let waited = seen.lookup().wait_seconds(pool(&seen, "shop", "app").unwrap()).unwrap();
        // It began after we asked for it, and before it was first seen.
        let at_most = (delivery.taken_at - before).as_secs_f64();
        let at_least = (delivery.taken_at - first).as_secs_f64() - seen.seconds;
        assert!(
            (at_least - 0.01..=at_most + 0.01).contains(&waited),
            "{at_least} {waited} {at_most}"
        );
        whole += u32::from(waited.fract() == 0.0);
    }
    assert!(whole < 8, "only whole seconds");
    // Once it has a server, nobody waits.
    holder.batch_execute("ROLLBACK").await.unwrap();
    waiting.join_next().await.unwrap().unwrap().unwrap();
    let seen = watched.seen("the end of the queue", |s| s.clients_waiting() == Some(0)).await;
    assert_eq!(seen.lookup().wait_seconds(pool(&seen, "shop", "app").unwrap()), Some(0.0));
}

/// Nobody gets a server, so no counter of waits moves: what is live does.
#[tokio::test]
async fn a_total_stall_is_seen_while_it_lasts() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "pool_size=2")])).await;
    let mut holders = Vec::new();
    for _ in 0..2 {
        let holder = client(&bouncer, "app", "shop").await;
        holder.batch_execute("BEGIN; SELECT 1").await.unwrap();
        holders.push(holder);
    }
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let waiter = client(&bouncer, "app", "shop").await;
        waiting.spawn(async move { drop(waiter.batch_execute("SELECT 1").await) });
    }
    // The source asks for counters every few seconds only: here they are asked for at both ends.
    let console = client(&bouncer, "admin", "pgbouncer").await;
    let watched = Watched::of(&bouncer);
    let stalled = |s: &Observation| s.clients_waiting() == Some(3);
    let first = watched.seen("a stall", stalled).await;
    let waited = |seen: &Observation| {
        seen.lookup().wait_seconds(pool(seen, "shop", "app").unwrap()).unwrap()
    };
    let start = waited(&first);
    let at_first = totals(&console).await;
    let later = watched.seen("a longer stall", |s| stalled(s) && waited(s) > start + 1.0).await;
    assert_eq!(at_first, totals(&console).await);
    let counters = |seen: &Observation| {
        let shop = &seen.counters[0];
        (shop.wait_micros, shop.transactions, shop.server_assignments)
    };
    watched.seen("the same counters", |s| stalled(s) && counters(s) == at_first).await;
    let capacity = later.lookup().capacity(pool(&later, "shop", "app").unwrap());
    assert_eq!(capacity.utilization(pool(&later, "shop", "app").unwrap()), Some(1.0));
    // Who waits is told of each application.
    let seen = watched.seen("who waits", |s| s.sockets.as_ref().unwrap().clients[0].waiting == 3);
    assert_eq!(seen.await.sockets.unwrap().clients[0].application, "shop-api");
    // Afterwards they move.
    for holder in &holders {
        holder.batch_execute("ROLLBACK").await.unwrap();
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
    let after = totals(&console).await;
    assert!(after.0 > at_first.0.map(|micros| micros + 1_000_000), "{at_first:?} {after:?}");
    assert!(at_first.2.is_none() || after.2 > at_first.2, "{at_first:?} {after:?}");
}

/// Waits in microseconds, transactions that were begun, and assignments (from 1.23 on) of the
/// database `shop`, as they are now.
async fn totals(console: &Session) -> (Option<u64>, Option<u64>, Option<u64>) {
    let answer = console.simple_query("SHOW STATS_TOTALS").await.unwrap();
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get("database") == Some("shop") => Some(row),
        _ => None,
    });
    let row = row.unwrap_or_else(|| panic!("{answer:?}"));
    let number = |column: &str| {
        let is_there = row.columns().iter().any(|one| one.name() == column);
        is_there.then(|| row.get(column).unwrap().parse().unwrap())
    };
    (number("wait_time"), number("xact_count"), number("server_assignment_count"))
}

/// The server answers nobody, so no pool was ever greeted: PgBouncer measures no wait there.
#[tokio::test]
async fn clients_that_wait_for_a_greeting_wait() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    server.signal_postmaster(Signal::STOP).unwrap();
    let url = bouncer.url("app", "shop");
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let login = url.parse().unwrap();
        drop(Session::open(&login).await);
    });
    let watched = Watched::of(&bouncer);
    let waits = |seen: &Observation| {
        let pool = pool(seen, "shop", "app")?;
        (pool.cl_waiting == Some(1)).then(|| seen.lookup().wait_seconds(pool).unwrap())
    };
    let seen = watched.seen("two seconds of waiting", |s| waits(s).is_some_and(|w| w >= 2.0)).await;
    let shop = pool(&seen, "shop", "app").unwrap();
    assert_eq!((shop.wait_seconds, shop.sv_active), (Some(0.0), Some(0)));
    assert_eq!(seen.server_logins(), Some(1));
    server.signal_postmaster(Signal::CONT).unwrap();
    waiting.join_next().await.unwrap().unwrap();
}

/// Each of them is a row of the pooler's one thread.
#[tokio::test]
async fn single_clients_are_listed_once_and_again_when_one_of_them_waits() {
    let (_server, bouncer, holder, waiter) = one_connection_held().await;
    let watched = Watched::of(&bouncer);
    // When the list was read that a look tells.
    let listed = |seen: Delivery<Observation>| {
        let age = seen.outcome.unwrap().sockets.as_ref().unwrap().age;
        seen.taken_at.checked_sub(age).unwrap()
    };
    let first = listed(watched.next().await);
    let rest = first + Duration::from_secs(10);
    let mut looks = 0;
    loop {
        let look = watched.next().await;
        if look.taken_at > rest {
            break;
        }
        looks += 1;
        assert!(listed(look) < first + Duration::from_secs(4), "look {looks} listed them anew");
    }
    assert!(looks > 2, "{looks}");

    let began = clock::monotonic();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { waiter.batch_execute("SELECT 1").await });
    let look = watched.until("a list with the one that waits", |look| {
        let seen = look.outcome.as_ref().unwrap();
        let waits = |sockets: &Sockets| sockets.clients.iter().any(|group| group.waiting == 1);
        seen.sockets.as_ref().is_some_and(waits)
    });
    let seen = listed(look.await);
    assert!(seen > began, "the list is as old as the first");
    assert!(seen < first + Duration::from_mins(1), "only when the next was due anyway");
    holder.batch_execute("ROLLBACK").await.unwrap();
    waiting.join_next().await.unwrap().unwrap().unwrap();
    watched.end().await;
}
