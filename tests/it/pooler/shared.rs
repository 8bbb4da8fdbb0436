//! Several processes behind one port, as PgBouncer makes use of more than one processor: each is
//! listed by a socket of its own, for nobody chooses whom the port leads to.

use super::*;

/// Clients of one pooler's database `shop`, over its Unix socket.
async fn at_its_socket(bouncer: &Bouncer, count: usize) -> Vec<Session> {
    let login: tokio_postgres::Config = bouncer.socket_url("app", "shop").parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Session::open(&login).await.unwrap());
    }
    clients
}

#[tokio::test]
async fn processes_that_share_a_port_are_told_apart_by_their_sockets() {
    let server = server(20).await;
    let sharing = |port: Option<u16>, size: &str| {
        let mut options = options(vec![database("shop", &server, &format!("pool_size={size}"))]);
        options.settings.push(("so_reuseport".to_owned(), "1".to_owned()));
        options.port = port;
        options
    };
    let first = bouncer(sharing(None, "3")).await;
    let second = bouncer(sharing(Some(first.port()), "4")).await;
    assert_eq!(first.port(), second.port());
    let of_first = at_its_socket(&first, 2).await;
    let of_second = at_its_socket(&second, 1).await;

    let told = |bouncer: &Bouncer| told(&bouncer.socket_url("stats", "pgbouncer"));
    let (at_first, at_second) = (Watched::start(&told(&first)), Watched::start(&told(&second)));
    let active = |seen: &Observation| pool(seen, "shop", "app").and_then(|pool| pool.cl_active);
    let size = |seen: &Observation| seen.lookup().capacity(pool(seen, "shop", "app")?).servers;
    let seen = at_first.seen("two clients", |seen| active(seen) == Some(2)).await;
    assert_eq!(size(&seen), Some(3));
    let seen = at_second.seen("one client", |seen| active(seen) == Some(1)).await;
    assert_eq!(size(&seen), Some(4));

    // Whoever comes by the port is at one of the two, and seen there alone.
    let mut shared = Vec::new();
    for _ in 0..8 {
        shared.push(client(&first, "app", "shop").await);
    }
    let sum = async {
        loop {
            let (one, other) = tokio::join!(
                at_first.seen("the first", |seen| active(seen).is_some()),
                at_second.seen("the second", |seen| active(seen).is_some()),
            );
            let (one, other) = (active(&one).unwrap(), active(&other).unwrap());
            if one + other == 11 && 2 <= one && 1 <= other {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, sum).await.expect("every client, once");

    // And one that hangs is told of that one only.
    drop((shared, of_first));
    at_first.seen("nobody", |seen| active(seen) == Some(0)).await;
    second.signal(plimsoll::drill::server::Signal::STOP).unwrap();
    let impatient = PoolerSettings { timeout: Duration::from_millis(500), ..told(&second) };
    Watched::start(&impatient).fails(FailureKind::TooSlow).await;
    at_first.seen("the first", |seen| active(seen) == Some(0)).await;
    drop(of_second);
}
