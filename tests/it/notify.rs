//! Sending, over real sockets to receivers that behave badly.

mod pagerduty;
mod payloads;
mod proxy;
mod secrecy;
mod world;

use std::time::Duration;

use jiff::Timestamp;
use plimsoll::clock;
use plimsoll::drill::receiver::{Behaviour, Received, Receiver};
use plimsoll::notify::Stop;
use plimsoll::notify::schedule::FEWEST_ATTEMPTS;
use plimsoll_core::judge::telling::NotificationKind::{self, Resolve, Trigger, Update};
use world::{World, notification, webhook, within};

fn ids(requests: &[Received]) -> Vec<&str> {
    requests.iter().map(|r| r.header("webhook-id")).collect()
}

fn events(requests: &[Received]) -> Vec<String> {
    let event = |r: &Received| r.json()["event"].as_str().unwrap_or_default().to_owned();
    requests.iter().map(event).collect()
}

/// A time that is written with microseconds, of a clock that has nanoseconds.
fn not_before(later: Timestamp, earlier: Timestamp, seconds: f64) {
    let waited = later.duration_since(earlier).as_secs_f64();
    assert!(waited >= seconds, "waited {waited} s and not {seconds} s");
}

#[tokio::test]
async fn what_is_owed_is_delivered_once() {
    let receiver = Receiver::start(Behaviour::status(204)).await.unwrap();
    let world = World::start(&[webhook("archive", &format!("{}/plimsoll", receiver.url()))]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    world.until_sent("archive").await;

    let requests = receiver.received();
    assert_eq!(ids(&requests), ["archive_k_1"]);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/plimsoll"));
    assert_eq!(requests[0].header("content-type"), "application/json");
    assert!(requests[0].header("user-agent").starts_with("plimsoll/"));
    assert_eq!(requests[0].header("webhook-signature"), "", "there is no secret");
    let health = world.health_of("archive");
    assert_eq!((health.owed, health.oldest_owed_at, health.last_error), (0, None, None));
    assert_eq!(health.delivery_seconds.counts.iter().sum::<u64>(), 1);
    assert_eq!(world.count("archive", "delivered"), 1);
}

#[tokio::test]
async fn a_failure_is_tried_again_under_the_same_id() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::status(503), Behaviour::Reset, Behaviour::status(408)]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    let failed = world.first_failure("archive").await;
    let said = format!("{}: answered 503 Service Unavailable", receiver.url());
    assert_eq!(failed.last_error, Some(said));
    world.until_sent("archive").await;
    assert_eq!(ids(&receiver.received()), ["archive_k_1"; 4]);
    assert_eq!((world.count("archive", "retried"), world.count("archive", "delivered")), (3, 1));
    assert_eq!(world.health_of("archive").last_error, None);
}

#[tokio::test]
async fn nobody_listens() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let url = receiver.url();
    drop(receiver);
    let world = World::start(&[webhook("archive", &url)]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    let error = world.first_failure("archive").await.last_error.unwrap();
    assert!(error.contains("Connection refused"), "{error}");
    assert_eq!(world.health_of("archive").owed, 1);
}

/// What the receiver asks for is honoured in every form, and for all keys, not only for the one
/// that was told so.
async fn asked_for(behaviour: impl Fn(Timestamp) -> Behaviour, seconds: f64) {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([behaviour(clock::wall())]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    world.first_failure("archive").await;
    world.owe(vec![notification("archive", "other", 1, Trigger)]).await;
    world.until_sent("archive").await;
    let requests = receiver.received();
    assert_eq!(requests.len(), 3);
    for later in &requests[1..] {
        not_before(later.at, requests[0].at, seconds);
    }
}

#[tokio::test]
async fn retry_after_in_seconds() {
    asked_for(|_| Behaviour::with_header(429, "retry-after", "2"), 2.0).await;
}

#[tokio::test]
async fn retry_after_in_broken_seconds() {
    asked_for(|_| Behaviour::with_header(503, "retry-after", "1.7"), 1.7).await;
}

#[tokio::test]
async fn retry_after_as_a_date() {
    let in_3_s = |now: Timestamp| {
        let date = std::time::SystemTime::from(now + Duration::from_secs(3));
        Behaviour::with_header(429, "retry-after", &httpdate::fmt_http_date(date))
    };
    // A date has whole seconds.
    asked_for(in_3_s, 1.5).await;
}

#[tokio::test]
async fn retry_after_in_the_body() {
    asked_for(|_| Behaviour::with_body(429, r#"{"retry_after": 1.6, "global": true}"#), 1.6).await;
}

#[tokio::test]
async fn what_cannot_succeed_is_parked_and_holds_nothing_up() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::with_body(400, "no such\nfield")]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    let rows = [Trigger, Resolve].iter().zip(1..);
    world.owe(rows.map(|(kind, n)| notification("archive", "k", n, *kind)).collect()).await;
    world.until_sent("archive").await;
    assert_eq!(events(&receiver.received()), ["trigger", "resolve"]);
    let health = world.health_of("archive");
    assert_eq!(world.count("archive", "parked"), 1);
    assert_eq!(health.parked.len(), 1);
    let said = format!("{}: answered 400 Bad Request: no such field", receiver.url());
    assert!(health.parked[0].starts_with("trigger of k, decided at "), "{:?}", health.parked);
    assert!(health.parked[0].ends_with(&said), "{:?}", health.parked);
}

#[tokio::test]
async fn what_fails_for_a_day_is_given_up_after_an_attempt() {
    let receiver = Receiver::start(Behaviour::status(503)).await.unwrap();
    let before = World::start(&[]);
    let mut old = notification("archive", "k", 1, Trigger);
    old.decided_at -= Duration::from_hours(25);
    let id = old.id.clone();
    before.owe(vec![old, notification("archive", "k", 2, Resolve)]).await;
    before.store.outbox().retry(&id, FEWEST_ATTEMPTS, clock::wall(), "answered 503");
    let world = before.restart(&[webhook("archive", &receiver.url())]).await;
    // The resolve is young, and is tried again.
    world.until("archive", |owed| owed.len() == 1 && owed[0].attempts > 0).await;
    let [failed] = &world.store.outbox().owed("archive")[..] else { panic!("one is owed") };
    assert_eq!(failed.notification.kind, Resolve);
    assert_eq!(world.count("archive", "parked"), 1);
    let health = world.health_of("archive");
    assert_eq!((health.owed, health.oldest_owed_at), (1, Some(failed.notification.decided_at)));
    assert!(health.parked[0].contains("given up after a day: "), "{:?}", health.parked);
}

/// What seems a day old after one attempt was decided by a clock that was wrong.
#[tokio::test]
async fn what_a_wrong_clock_makes_old_is_not_given_up() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::status(503)]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    let mut old = notification("archive", "k", 1, Trigger);
    old.decided_at = Timestamp::UNIX_EPOCH;
    world.owe(vec![old]).await;
    world.until_sent("archive").await;
    assert_eq!(world.count("archive", "parked"), 0);
    assert_eq!(events(&receiver.received()), ["trigger", "trigger"]);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(Behaviour::status(200)).await.unwrap();
    let location = format!("{}/secret-path", elsewhere.url());
    let redirect = Behaviour::with_header(307, "location", &location);
    let receiver = Receiver::start(redirect).await.unwrap();
    let world = World::start(&[webhook("archive", &receiver.url())]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    world.until_sent("archive").await;
    assert_eq!((receiver.received().len(), elsewhere.received().len()), (1, 0));
    let parked = world.health_of("archive").parked.remove(0);
    assert!(parked.contains(&elsewhere.url()) && !parked.contains("secret-path"), "{parked}");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_an_answer() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::Endless(503), Behaviour::Endless(200)]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    let error = world.first_failure("archive").await.last_error.unwrap();
    assert!(error.len() < 500, "{error}");
    world.until_sent("archive").await;
    assert_eq!(receiver.received().len(), 2);

    receiver.script([Behaviour::StalledBody(200)]);
    world.owe(vec![notification("archive", "k", 2, Update)]).await;
    world.until_sent("archive").await;
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other_receiver_and_no_other_key() {
    let hangs = Receiver::start(Behaviour::status(200)).await.unwrap();
    hangs.script([Behaviour::Stall]);
    let works = Receiver::start(Behaviour::status(200)).await.unwrap();
    let world = World::start(&[webhook("hangs", &hangs.url()), webhook("works", &works.url())]);
    world.owe(vec![notification("hangs", "k", 1, Trigger)]).await;
    within(hangs.next()).await;
    let more =
        vec![notification("hangs", "other", 1, Trigger), notification("works", "k", 1, Trigger)];
    world.owe(more).await;
    within(works.next()).await;
    assert_eq!(within(hangs.next()).await.header("webhook-id"), "hangs_other_1");
    world.until("hangs", |owed| owed.len() == 1).await;
}

#[tokio::test]
async fn an_attempt_without_an_answer_ends() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::Stall]);
    let mut settings = webhook("archive", &receiver.url());
    settings.timeout = Duration::from_millis(200);
    let world = World::start(&[settings]);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    let error = world.first_failure("archive").await.last_error.unwrap();
    assert!(error.ends_with("no answer within 200ms"), "{error}");
    world.until_sent("archive").await;
}

#[tokio::test]
async fn a_key_keeps_its_order_through_failures() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let bad = || [Behaviour::status(500), Behaviour::Reset];
    let good = || Behaviour::status(200);
    receiver.script(bad().into_iter().chain([good()]).chain(bad()));
    let world = World::start(&[webhook("archive", &receiver.url())]);
    let kinds = [Trigger, Resolve, Trigger, Resolve];
    let rows = kinds.iter().zip(1..);
    world.owe(rows.map(|(kind, n)| notification("archive", "k", n, *kind)).collect()).await;
    world.until_sent("archive").await;
    let requests = receiver.received();
    let (one, two) = ("archive_k_1", "archive_k_2");
    let expected = [one, one, one, two, two, two, "archive_k_3", "archive_k_4"];
    assert_eq!(ids(&requests), expected);
}

#[tokio::test]
async fn of_what_is_unsent_only_the_newest_update_is_sent() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::with_header(429, "retry-after", "1")]);
    let world = World::start(&[webhook("archive", &receiver.url())]);
    let rows = |kind: NotificationKind, numbers: std::ops::Range<u64>| {
        numbers.map(move |n| notification("archive", "k", n, kind)).collect::<Vec<_>>()
    };
    world.owe(rows(Trigger, 1..2)).await;
    world.first_failure("archive").await;
    world.owe(rows(Update, 2..6)).await;
    world.until_sent("archive").await;
    let (first, newest) = ("archive_k_1", "archive_k_5");
    assert_eq!(ids(&receiver.received()), [first, first, newest]);
    assert_eq!(world.count("archive", "superseded"), 3);
}

#[tokio::test]
async fn another_daemon_goes_on_with_the_same_store() {
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    receiver.script([Behaviour::with_header(503, "retry-after", "2"), Behaviour::Stall]);
    let settings = [webhook("archive", &receiver.url())];
    let world = World::start(&settings);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    world.first_failure("archive").await;

    // The delay is kept; and what was in flight when the second daemon ended is sent again.
    let world = world.restart(&settings).await;
    let first = within(receiver.next()).await;
    let second = within(receiver.next()).await;
    not_before(second.at, first.at, 1.9);
    let world = world.restart(&settings).await;
    world.until_sent("archive").await;
    assert_eq!(ids(&receiver.received()), ["archive_k_1"; 3]);
}

#[tokio::test]
async fn at_the_end_what_is_due_is_sent_and_what_is_not_stays_owed() {
    let receiver = Receiver::start(Behaviour::Slow(Duration::from_millis(300))).await.unwrap();
    receiver.script([Behaviour::with_header(503, "retry-after", "600")]);
    let other = Receiver::start(Behaviour::Slow(Duration::from_millis(300))).await.unwrap();
    let again = Receiver::start(Behaviour::status(200)).await.unwrap();
    again.script([Behaviour::with_header(503, "retry-after", "1")]);
    let settings = [
        webhook("refuses", &receiver.url()),
        webhook("slow", &other.url()),
        webhook("again", &again.url()),
    ];
    let world = World::start(&settings);
    world.owe(vec![notification("refuses", "k", 1, Trigger)]).await;
    world.first_failure("refuses").await;
    world.owe(vec![notification("again", "k", 1, Trigger)]).await;
    world.first_failure("again").await;
    let rows = [Trigger, Resolve].iter().zip(1..);
    world.owe(rows.map(|(kind, n)| notification("slow", "k", n, *kind)).collect()).await;
    let outbox = world.store.outbox();
    let started = clock::monotonic();
    // It ends long before its grace does.
    let _folder = world.end(Stop::Drain { until: started + world::DEADLINE * 2 }).await;
    assert_eq!(events(&other.received()), ["trigger", "resolve"]);
    assert_eq!(again.received().len(), 2, "its delay was over within the grace");
    assert_eq!((outbox.owed("slow").len(), outbox.owed("refuses").len()), (0, 1));
}

#[tokio::test]
async fn a_hand_over_sends_nothing_more() {
    let receiver = Receiver::start(Behaviour::Slow(Duration::from_millis(300))).await.unwrap();
    let world = World::start(&[webhook("slow", &receiver.url())]);
    let rows = [Trigger, Resolve].iter().zip(1..);
    world.owe(rows.map(|(kind, n)| notification("slow", "k", n, *kind)).collect()).await;
    within(receiver.next()).await;
    let outbox = world.store.outbox();
    let until = clock::monotonic() + world::DEADLINE;
    let _folder = world.end(Stop::HandOver { until }).await;
    assert_eq!(events(&receiver.received()), ["trigger"]);
    assert_eq!(outbox.owed("slow").len(), 1);
}

#[tokio::test]
async fn what_is_owed_to_a_receiver_that_is_gone_is_parked() {
    let receiver = Receiver::start(Behaviour::Stall).await.unwrap();
    let world = World::start(&[webhook("old", &receiver.url())]);
    world.owe(vec![notification("old", "k", 1, Trigger)]).await;
    within(receiver.next()).await;
    let world = world.restart(&[webhook("new", &receiver.url())]).await;
    world.until_sent("old").await;
    assert!(world.health.values().receivers.keys().eq(["new"]));
}
