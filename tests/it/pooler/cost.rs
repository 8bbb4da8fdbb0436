//! What looking costs the pooler: its one thread, in the kernel's own account.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::*;

/// So many look at once in the worst of days that were measured.
const CLIENTS: usize = 1_000;

/// What a look may take of the pooler's thread while nobody waits.
const BUDGET: Duration = Duration::from_micros(200);

/// Looks that are measured: without the first, which asks for everything.
const LOOKS: u32 = 200;

/// Time on the processor.
fn used(bouncer: &Bouncer) -> Duration {
    let path = format!("/proc/{}/schedstat", bouncer.pid().unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_look_costs_little_of_the_pooler_s_thread() {
    let server = server(20).await;
    let mut with = options(vec![database("shop", &server, "pool_size=5")]);
    with.settings.push(("max_client_conn".to_owned(), "2000".to_owned()));
    let bouncer = bouncer(with).await;
    let login: tokio_postgres::Config = bouncer.url("app", "shop").parse().unwrap();
    let logins = stream::iter(0..CLIENTS).map(|_| Session::open(&login));
    let clients: Vec<Session> = logins.buffer_unordered(32).try_collect().await.unwrap();
    let watched = Watched::of(&bouncer);
    let seen = watched.seen("all clients", |_| true).await;
    assert_eq!(seen.clients, u32::try_from(CLIENTS + 1).ok());
    // The process itself does something three times a second.
    watched.until("a second look", |_| true).await;
    let (before, began) = (used(&bouncer), clock::monotonic());
    for _ in 0..LOOKS {
        watched.next().await;
    }
    let all = used(&bouncer).saturating_sub(before);
    let elapsed = clock::monotonic() - began;
    watched.end().await;
    // What the process does by itself three times a second, for each of its clients.
    let before = used(&bouncer);
    let began = clock::monotonic();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let alone = used(&bouncer).saturating_sub(before);
    let alone = alone.div_duration_f64(clock::monotonic() - began);
    let each = all.saturating_sub(elapsed.mul_f64(alone)) / LOOKS;
    eprintln!("a look takes {each:?} of the pooler's thread, with {CLIENTS} clients");
    // Tenfold: the figure itself is for a machine that does nothing else.
    assert!(each < BUDGET * 10, "{each:?}");
    drop(clients);
}
