//! Through a real PgBouncer: what it refuses by itself, what it passes on, and what it is when it
//! hangs.

use plimsoll::drill::bouncer::{Bouncer, Options};
use plimsoll::drill::server::{Mode, Server, Session, Signal};
use plimsoll_core::reading::probe::Held;
use plimsoll_core::reading::{FailureKind, Refusal};

use super::{APPLICATION, Probing, hasty, server, told, url};
use crate::postgres::{DEADLINE, Watch, execute, sockets_to};

/// A PgBouncer before a server. Everybody is let in without a password, unless these settings say
/// otherwise.
async fn bouncer(server: &Server, settings: &[(&str, &str)]) -> Bouncer {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = Options {
        release: Some(crate::pooler::release()),
        databases: vec![format!("* = host=127.0.0.1 port={}", server.port())],
        settings: settings.iter().map(own).collect(),
        passwords: vec![own(&(APPLICATION, "right-canary"))],
        ..Options::default()
    };
    Bouncer::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Where the application logs in.
fn through(bouncer: &Bouncer) -> String {
    bouncer.url(APPLICATION, "postgres")
}

/// A session of a role through it.
async fn client(bouncer: &Bouncer, role: &str) -> Session {
    Session::open(&bouncer.url(role, "postgres").parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_login_through_it_is_timed_and_leaves_nothing_behind() {
    let server = server(20, &[]).await;
    let bouncer = bouncer(&server, &[]).await;
    let asks = format!("{}?target_session_attrs=read-write", through(&bouncer));
    for url in [through(&bouncer), asks] {
        let mut probing = Probing::start(&told(&url));
        for _ in 0..3 {
            let steps = probing.success().await.steps;
            assert!(steps.connect.is_some() && steps.tls.is_none(), "{steps:?}");
            assert!(steps.authentication.is_some() && steps.first_answer.is_some(), "{steps:?}");
        }
        probing.end().await;
    }
    // The next client is given the same connection to the server, as it was.
    let next = client(&bouncer, APPLICATION).await;
    let row = next.simple_query("SHOW default_transaction_read_only").await.unwrap();
    assert!(format!("{row:?}").contains("off"), "{row:?}");
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
    assert!(!bouncer.log().contains("client unexpected eof"), "{}", bouncer.log());
}

#[tokio::test]
async fn a_pooler_that_takes_no_more_clients_is_told_from_a_full_server() {
    let server = server(20, &[]).await;
    let bouncer = bouncer(&server, &[("max_client_conn", "2")]).await;
    let held = (client(&bouncer, "app").await, client(&bouncer, "app").await);
    let mut probing = Probing::start(&told(&through(&bouncer)));
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::PoolerClients), "{failure:?}");
    assert_eq!(failure.sqlstate.as_deref(), Some("08P01"));
    assert!(failure.text.contains("max_client_conn"), "{failure:?}");
    probing.held(Some(Held::BacksOff)).await;
    drop(held);
    probing.success().await;
}

#[tokio::test]
async fn a_pool_that_is_used_up_refuses_when_the_pooler_gives_up() {
    let server = server(20, &[]).await;
    let settings = [("default_pool_size", "1"), ("query_wait_timeout", "1")];
    let bouncer = bouncer(&server, &settings).await;
    let holder = client(&bouncer, APPLICATION).await;
    holder.simple_query("BEGIN").await.unwrap();
    let mut probing = Probing::start(&told(&through(&bouncer)));
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::PoolerWait), "{failure:?}");
    holder.simple_query("COMMIT").await.unwrap();
    probing.success().await;
    probing.end().await;
    // With less patience it is silent first; why, comes when the pooler says it.
    holder.simple_query("BEGIN").await.unwrap();
    let mut probing = Probing::start(&hasty(&through(&bouncer)));
    let late = probing.attempt().await;
    assert_eq!(late.outcome.unwrap_err().kind, FailureKind::TooSlow);
    let decided = probing.attempt().await;
    assert_eq!(decided.at, late.at);
    let failure = decided.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::PoolerWait), "{failure:?}");
}

#[tokio::test]
async fn a_full_server_behind_it_keeps_its_reason() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let bouncer = bouncer(&server, &[("server_login_retry", "1")]).await;
    let refused = async |expected: Refusal| {
        let mut probing = Probing::start(&told(&through(&bouncer)));
        // What the server has just said, and what the pooler remembers of it.
        for _ in 0..3 {
            let failure = probing.failure().await;
            assert_eq!(failure.kind, FailureKind::Refused(expected), "{failure:?}");
        }
        probing.end().await;
    };
    let held = server.fill("app", "payment-api", 16).await.unwrap();
    refused(Refusal::ReservedForSuperusers).await;
    drop(held);
    execute(&superuser, "ALTER ROLE payment CONNECTION LIMIT 0").await;
    refused(Refusal::RoleLimit).await;
    execute(&superuser, "ALTER ROLE payment CONNECTION LIMIT -1").await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT 1").await;
    refused(Refusal::DatabaseLimit).await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT -1").await;
    let mut admins = Vec::new();
    let filling = async {
        // The last of those who were refused may still be leaving.
        while admins.len() < 19 {
            admins.extend(server.connect("postgres", "postgres").await);
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.expect("a full server");
    refused(Refusal::AllSlotsTaken).await;
}

#[tokio::test]
async fn a_server_that_is_gone_from_behind_it_is_stopped() {
    let mut server = server(20, &[]).await;
    let settings = [("server_login_retry", "1"), ("query_wait_timeout", "1")];
    let bouncer = bouncer(&server, &settings).await;
    let mut probing = Probing::start(&told(&through(&bouncer)));
    probing.success().await;
    server.stop(Mode::Immediate).await.unwrap();
    let failure = probing.failure().await;
    let fits = [FailureKind::Stopped, FailureKind::Refused(Refusal::PoolerWait)];
    assert!(fits.contains(&failure.kind), "{failure:?}");
    server.start_again().await.unwrap();
    probing.success().await;
}

#[tokio::test]
async fn a_wrong_password_is_not_allowed_and_not_shown() {
    let server = server(20, &[]).await;
    for auth_type in ["scram-sha-256", "md5", "plain"] {
        let bouncer = bouncer(&server, &[("auth_type", auth_type)]).await;
        let with = |password: &str| through(&bouncer).replace('@', &format!(":{password}@"));
        let failure = Probing::start(&told(&with("wrong-canary"))).failure().await;
        assert_eq!(failure.kind, FailureKind::NotAllowed, "{auth_type}: {failure:?}");
        assert!(!failure.text.contains("canary"), "{failure:?}");
        Probing::start(&told(&with("right-canary"))).success().await;
    }
}

#[tokio::test]
async fn a_stopped_one_is_too_slow_has_one_socket_of_ours_and_holds_nobody_else_up() {
    let server = server(20, &[]).await;
    let bouncer = bouncer(&server, &[]).await;
    let watch = Watch::of(&server);
    let mut direct = Probing::start(&told(&url(&server)));
    let mut probing = Probing::start(&hasty(&through(&bouncer)));
    probing.success().await;
    bouncer.signal(Signal::STOP).unwrap();
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    for _ in 0..10 {
        let seen = probing.held(Some(Held::EarlierOneLives)).await;
        assert_eq!(seen.newest.outcome.as_ref().unwrap_err().kind, FailureKind::TooSlow);
        assert_eq!(sockets_to(bouncer.port()), 1);
        direct.success().await;
        watch.seen().await;
    }
    bouncer.signal(Signal::CONT).unwrap();
    probing.success().await;
    probing.success().await;
    // And it ends while the pooler is stopped.
    bouncer.signal(Signal::STOP).unwrap();
    probing.failure().await;
    probing.end().await;
}
