//! A pooler that is stopped, that hangs, that comes back; and what goes on meanwhile.

use plimsoll::drill::server::Signal;

use super::*;

#[tokio::test]
async fn a_pooler_that_is_started_anew_is_read_again_from_the_start() {
    let server = server(20).await;
    let mut bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let app = client(&bouncer, "app", "shop").await;
    app.batch_execute("SELECT 1").await.unwrap();
    let watched = Watched::of(&bouncer);
    watched
        .seen("a counted statement", |s| s.counters.first().is_some_and(|c| c.queries > Some(0)))
        .await;
    drop(app);
    bouncer.stop().await.unwrap();
    let failure = watched.failure().await;
    assert_eq!(failure.kind, FailureKind::Stopped, "{failure:?}");
    bouncer.start_again().await.unwrap();
    let seen = watched.seen("the new one", |_| true).await;
    // Nothing of the one before is left.
    assert_eq!(seen.pools, []);
    assert!(
        seen.counters.iter().all(|counters| counters.queries == Some(0)),
        "{:?}",
        seen.counters
    );
}

/// One that nobody has started yet.
#[tokio::test]
async fn a_pooler_that_is_not_there_is_stopped_and_found_when_it_is() {
    let mut bouncer = bouncer(options(Vec::new())).await;
    bouncer.stop().await.unwrap();
    let watched = Watched::of(&bouncer);
    let failure = watched.fails(FailureKind::Stopped).await;
    assert!(failure.text.contains("connecting to"), "{failure:?}");
    bouncer.start_again().await.unwrap();
    watched.seen("the pooler", |_| true).await;
}

/// SIGSTOP: it accepts connections and says nothing. It is said at the deadline, nobody else waits
/// for it, and it is not drowned in logins.
#[tokio::test]
async fn a_pooler_that_hangs_is_too_slow_and_holds_nobody_up() {
    let server = server(20).await;
    let databases = || vec![database("shop", &server, "")];
    let (hangs, works) = (bouncer(options(databases())).await, bouncer(options(databases())).await);
    let _clients = [client(&hangs, "app", "shop").await, client(&works, "app", "shop").await];
    let impatient = |bouncer: &Bouncer| PoolerSettings {
        timeout: Duration::from_millis(500),
        ..told(&bouncer.url("stats", "pgbouncer"))
    };
    let watched = Watched::start(&impatient(&hangs));
    let beside = Watched::of(&works);
    watched.seen("the pooler", |_| true).await;
    hangs.signal(Signal::STOP).unwrap();
    let failure = watched.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    assert!(failure.text.contains("no answer to SHOW POOLS in 0.5 s"), "{failure:?}");
    for _ in 0..10 {
        beside.seen("the other", |_| true).await;
        let failure = watched.failure().await;
        assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    }
    hangs.signal(Signal::CONT).unwrap();
    // What was given up while it hung is closed, and one session is left beside the client.
    watched.seen("the pooler again, and nobody else", |seen| seen.clients == Some(2)).await;
}

/// The first delivery comes in time, whatever hangs.
#[tokio::test]
async fn a_pooler_that_hangs_from_the_start_is_said_to_be_slow() {
    let hangs = bouncer(options(Vec::new())).await;
    hangs.signal(Signal::STOP).unwrap();
    let told = PoolerSettings {
        timeout: Duration::from_millis(500),
        ..told(&hangs.url("stats", "pgbouncer"))
    };
    let watched = Watched::start(&told);
    let failure = watched.fails(FailureKind::TooSlow).await;
    assert!(failure.text.contains("no answer to a login in 0.5 s"), "{failure:?}");
    // A reload need not wait for it either.
    watched.end().await;
}

#[tokio::test]
async fn a_paused_pooler_is_told_where_it_says_so() {
    let server = server(20).await;
    let bouncer =
        bouncer(options(vec![database("shop", &server, ""), database("jobs", &server, "")])).await;
    let watched = Watched::of(&bouncer);
    watched.seen("the pooler", |seen| !seen.databases.is_empty()).await;
    let admin = client(&bouncer, "admin", "pgbouncer").await;
    admin.simple_query("PAUSE jobs").await.unwrap();
    let paused = |seen: &Observation, name: &str| {
        seen.databases.iter().find(|database| database.name == name).unwrap().paused
    };
    let seen = watched.seen("a paused database", |seen| paused(seen, "jobs")).await;
    assert!(!paused(&seen, "shop"));
    admin.simple_query("RESUME jobs").await.unwrap();
    admin.simple_query("PAUSE").await.unwrap();
    if has(1, 19) {
        watched.seen("a paused pooler", |seen| seen.paused == Some(true)).await;
    } else {
        let seen = watched.seen("the pooler", |seen| !paused(seen, "jobs")).await;
        assert_eq!(seen.paused, None);
    }
}

/// It says goodbye when it is told to stop: the pooler sees a client less.
#[tokio::test]
async fn a_source_that_ends_leaves_nothing_behind() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let _client = client(&bouncer, "app", "shop").await;
    let ends = Watched::of(&bouncer);
    let stays = Watched::of(&bouncer);
    ends.seen("the pooler", |_| true).await;
    stays.seen("both", |seen| seen.clients == Some(3)).await;
    ends.end().await;
    stays.seen("one", |seen| seen.clients == Some(2)).await;
}

/// SIGTERM lets the last clients finish, from 1.23 on; two who watch are none that it waits for.
#[tokio::test]
async fn a_pooler_that_is_told_to_stop_is_not_held_up() {
    let server = server(20).await;
    let mut bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let app = client(&bouncer, "app", "shop").await;
    let watched = [Watched::of(&bouncer), Watched::of(&bouncer)];
    for one in &watched {
        one.seen("the pooler", |_| true).await;
    }
    bouncer.signal(Signal::TERM).unwrap();
    drop(app);
    bouncer.until_gone().await.unwrap();
    for one in &watched {
        assert_eq!(one.failure().await.kind, FailureKind::Stopped);
    }
}
