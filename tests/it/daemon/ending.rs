//! Signals and crash points, reached from outside.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_sends_what_is_owed_within_the_grace() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    // The first attempt fails; the second comes only after a delay, in which we end it.
    receiver.script([Behaviour::status(503)]);
    let _sessions = server.fill("app", "payment-api", 15).await.unwrap();
    receiver.next().await;
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    let events = events(&receiver);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0].2, events[1].2, "sent again under the same id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_an_incident_tells_nobody_twice_and_resolves() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let sessions = server.fill("app", "payment-api", 15).await.unwrap();
    let page = next(&receiver, "trigger").await;
    daemon.until("critical", |t| t["severity"] == "critical").await;
    let (status, _) = daemon.end();
    assert!(status.success());
    let told = receiver.received().len();

    let daemon = home.start();
    let again = daemon.until("a reading", |t| !t["incident"].is_null()).await;
    assert_eq!(again["incident"]["id"], page["incident"]["id"]);
    assert_eq!(receiver.received().len(), told);
    daemon.end();

    // It is over while nobody watches: the next life says so.
    drop(sessions);
    let _daemon = home.start();
    let resolve = next(&receiver, "resolve").await;
    assert_eq!(resolve["incident"]["id"], page["incident"]["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_receiver_stalls_it_sends_the_same_again() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::Stall).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let _sessions = server.fill("app", "payment-api", 15).await.unwrap();
    let first = event(&receiver.next().await);
    daemon.kill();
    receiver.behave(Behaviour::status(200));
    let _daemon = home.start();
    let again = event(&receiver.next().await);
    assert_eq!(first, again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_when_the_page_was_accepted_it_never_has_a_second_key_for_it() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let sessions = server.fill("app", "payment-api", 15).await.unwrap();
    let first = event(&receiver.next().await);
    daemon.kill();
    let daemon = home.start();
    daemon.until("a reading", |t| !t["read_at"].is_null()).await;
    drop(sessions);
    next(&receiver, "resolve").await;
    for (kind, incident, id) in events(&receiver) {
        assert_eq!(incident, first.1);
        assert!(kind != "trigger" || id == first.2, "the trigger came again as {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_just_before_sigterm_is_sent() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    // The disk holds the commit up, so that the decision is there and the page is not.
    let lock = super::disk::hold_write_lock(&home);
    let _sessions = server.fill("app", "payment-api", 15).await.unwrap();
    until("a decision", || daemon.log().contains("a notification is owed").then_some(())).await;
    assert_eq!(receiver.received().len(), 0, "nothing is sent before its commit");
    daemon.signal(Signal::TERM);
    drop(lock);
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    let kinds: Vec<_> = events(&receiver).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["trigger"], "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_takes_nothing_from_the_watch() {
    let server = small_server().await;
    for keeps_it_open in [true, false] {
        let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
        let home = Home::new(&settings(&server, &receiver, AT_ONCE));
        // At this level some lines a second fill the pipe; or its reader goes away.
        let mut command = home.command();
        command.env("RUST_LOG", "trace");
        let daemon = Daemon::start_unread(command, keeps_it_open);
        daemon.until("a first reading", |t| t["severity"] == "ok").await;
        let sessions = server.fill("app", "payment-api", 15).await.unwrap();
        next(&receiver, "trigger").await;
        drop(sessions);
        next(&receiver, "resolve").await;
        assert!(daemon.end().0.success());
    }
}
