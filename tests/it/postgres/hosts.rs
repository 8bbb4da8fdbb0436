//! Several hosts: which is taken, which is passed over, and what is said when none will do.

use std::time::Duration;

use plimsoll::drill::server::{Mode, Server, Signal};
use plimsoll_core::reading::postgres::Observation;
use plimsoll_core::reading::{FailureKind, Refusal};

use super::{WATCHER, Watch, execute, our_backends, server, settings, sockets_to};

/// A port of this machine at which nobody answers: it was given back a moment ago.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn list(ports: &[u16], more: &str) -> String {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!("host={hosts} port={} user={WATCHER} {more}", ports.join(","))
}

/// A server that recovers for ever, and answers queries meanwhile.
async fn standby() -> Server {
    let mut server = server(20, &[]).await;
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    server.restart(Mode::Fast).await.unwrap();
    server
}

async fn is_at(server: &Server) -> bool {
    let superuser = server.superuser().await.unwrap();
    !our_backends(&superuser).await.is_empty()
}

#[tokio::test]
async fn the_first_host_that_answers_is_taken() {
    let server = server(20, &[]).await;
    let other = self::server(20, &[]).await;
    let start = |ports: &[u16]| Watch::start(settings(&list(ports, "")));
    let watch = start(&[closed_port(), server.port(), other.port()]);
    assert!(watch.next().await.outcome.is_ok());
    assert!(is_at(&server).await && !is_at(&other).await);

    // All that failed is said, each with its address.
    let (a, b) = (closed_port(), closed_port());
    let failure = start(&[a, b]).failure(FailureKind::Stopped).await;
    for port in [a, b] {
        assert!(failure.text.contains(&format!("connecting to 127.0.0.1:{port}: ")), "{failure:?}");
    }
}

/// A server that has decided is not passed over: that it is full is what is to be seen.
#[tokio::test]
async fn a_server_that_refuses_is_not_passed_over() {
    let full = server(20, &[]).await;
    let other = server(20, &[]).await;
    let _sessions = full.fill("app", "payment-api", 17).await.unwrap();
    let watch = Watch::start(settings(&list(&[closed_port(), full.port(), other.port()], "")));
    let kind = FailureKind::Refused(Refusal::ReservedForSuperusers);
    let failure = watch.failure(kind).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
    assert!(!is_at(&other).await);

    // Nor for one of a kind that would do as well.
    let standby = standby().await;
    let _sessions = standby.fill("app", "payment-api", 17).await.unwrap();
    let more = "target_session_attrs=prefer-standby";
    let watch = Watch::start(settings(&list(&[other.port(), standby.port()], more)));
    watch.failure(kind).await;
}

#[tokio::test]
async fn the_server_of_the_kind_that_is_asked_for_is_taken() {
    let (primary, standby) = (server(20, &[]).await, standby().await);
    let read_only = server(20, &[]).await;
    let superuser = read_only.superuser().await.unwrap();
    execute(&superuser, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    execute(&superuser, "SELECT pg_reload_conf()").await;
    super::until_true(&superuser, "SELECT current_setting('transaction_read_only') = 'on'").await;
    superuser.close().await;
    let servers = [("primary", &primary), ("standby", &standby), ("read-only", &read_only)];
    // What is asked for, in which order the servers are listed, and which is taken.
    let cases = [
        ("any", ["standby", "primary", "read-only"], "standby"),
        ("read-write", ["standby", "read-only", "primary"], "primary"),
        ("read-only", ["primary", "read-only", "standby"], "read-only"),
        ("read-only", ["primary", "standby", "read-only"], "standby"),
        ("primary", ["standby", "read-only", "primary"], "read-only"),
        ("standby", ["primary", "read-only", "standby"], "standby"),
        ("prefer-standby", ["primary", "read-only", "standby"], "standby"),
    ];
    let port = |name: &str| servers.iter().find(|(n, _)| *n == name).unwrap().1.port();
    for (wanted, order, expected) in cases {
        let more = format!("target_session_attrs={wanted}");
        let watch = Watch::start(settings(&list(&order.map(port), &more)));
        let seen = watch.seen().await;
        for (name, server) in servers {
            assert_eq!(is_at(server).await, name == expected, "{wanted} {order:?}: {name}");
        }
        assert_eq!(seen.server.in_recovery, expected == "standby");
        drop(watch);
        for (_, server) in servers {
            let superuser = server.superuser().await.unwrap();
            let gone = "SELECT count(*) = 0 FROM pg_stat_activity \
                        WHERE application_name = 'plimsoll'";
            super::until_true(&superuser, gone).await;
        }
    }
    let watch = Watch::start(settings(&list(
        &[primary.port(), read_only.port()],
        "target_session_attrs=prefer-standby",
    )));
    assert!(!watch.seen().await.server.in_recovery);
    let watch = Watch::start(settings(&list(
        &[standby.port(), closed_port()],
        "target_session_attrs=primary",
    )));
    // That the other one is stopped says more than that this one is a standby.
    let failure = watch.failure(FailureKind::Stopped).await;
    let said = format!("127.0.0.1:{} is a standby, which target_session_attrs", standby.port());
    assert!(failure.text.contains(&said), "{failure:?}");
    let watch = Watch::start(settings(&list(&[standby.port()], "target_session_attrs=read-write")));
    watch.failure(FailureKind::Unreachable).await;
}

/// The first accepts and says nothing: the second is read, however often, and the first never has
/// more than two sockets of ours.
#[tokio::test]
async fn a_silent_host_gives_way_to_the_next() {
    let silent = server(20, &[]).await;
    let mut other = server(20, &[]).await;
    silent.signal_postmaster(Signal::STOP).unwrap();
    let text = list(&[silent.port(), other.port()], "");
    let watch = Watch::start(settings(&text));
    let mut before = watch.seen().await.server.started_at;
    for _ in 0..4 {
        other.restart(Mode::Immediate).await.unwrap();
        let is_new = |seen: &Observation| before < seen.server.started_at;
        let after = watch.until("the new start", |d| d.outcome.as_deref().is_ok_and(is_new)).await;
        before = after.outcome.unwrap().server.started_at;
    }
    let to_silent = sockets_to(silent.port());
    assert!(to_silent <= 2, "{to_silent} connections to the silent one");
    silent.signal_postmaster(Signal::CONT).unwrap();
}

/// A reload that names another list is a reload to another place.
#[tokio::test]
async fn a_new_list_of_hosts_is_followed() {
    let (one, two) = (server(20, &[]).await, server(20, &[]).await);
    let superuser = two.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    let watch = Watch::start(settings(&list(&[one.port(), two.port()], "")));
    watch.seen().await;
    let new = settings(&list(&[two.port(), one.port()], ""));
    watch.settings.send_replace(std::sync::Arc::new(new));
    let deadline = plimsoll::clock::monotonic() + super::DEADLINE;
    while our_backends(&superuser).await.is_empty() {
        assert!(plimsoll::clock::monotonic() < deadline, "waiting for the second server");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watch.seen_from_now().await;
    assert!(!is_at(&one).await);
}
