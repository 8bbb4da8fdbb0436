//! `PagerDuty`: whom it wakes, above all when an incident rises to critical.

use std::time::Duration;

use plimsoll::drill::receiver::{Behaviour, Page, Problem, Receiver};
use plimsoll_core::judge::Severity;
use plimsoll_core::judge::telling::NotificationKind::{Resolve, Trigger, Update};
use plimsoll_core::judge::telling::{Notification, NotificationKind, RISE_TRIGGER_AFTER};
use plimsoll_core::settings::{ReceiverKind, Secret};

use super::world::{ROUTING_KEY, World, notification, pagerduty};

const KEY: &str = "plimsoll/production-eu/payment-db-primary";

fn tell(sequence: u64, kind: NotificationKind, severity: Severity) -> Notification {
    let mut told = notification("on-call", KEY, sequence, kind);
    told.report.severity = severity;
    told.report.alerts[0].severity = severity;
    told
}

/// As the judge tells a rise: resolve, trigger, and the trigger once more.
fn rise(from: u64, again_after: Duration) -> Vec<Notification> {
    let resolve = tell(from, Resolve, Severity::Warning);
    let mut trigger = tell(from + 1, Trigger, Severity::Critical);
    trigger.after_previous = RISE_TRIGGER_AFTER;
    let mut again = tell(from + 2, Update, Severity::Critical);
    again.after_previous = again_after;
    vec![resolve, trigger, again]
}

fn woken(pages: &[Page]) -> Vec<&str> {
    pages.iter().map(|page| page.severity.as_str()).collect()
}

#[tokio::test]
async fn an_acknowledged_incident_that_turns_critical_wakes_somebody() {
    // It takes a second until a resolve takes effect, as with the real one.
    let behaviour = Behaviour::Pagerduty { resolve_lag: Duration::from_secs(1) };
    let receiver = Receiver::start(behaviour).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    world.owe(vec![tell(1, Trigger, Severity::Warning)]).await;
    world.until_sent("on-call").await;
    receiver.acknowledge(KEY);

    // A trigger alone wakes nobody: the reason for all this.
    world.owe(vec![tell(2, Update, Severity::Critical)]).await;
    world.until_sent("on-call").await;
    assert_eq!(woken(&receiver.pages()), ["warning"]);
    assert_eq!(receiver.problem(KEY), Some(Problem::Acknowledged));

    world.owe(rise(3, Duration::from_millis(10))).await;
    world.until_sent("on-call").await;
    assert_eq!(woken(&receiver.pages()), ["warning", "critical"]);
    assert_eq!(receiver.problem(KEY), Some(Problem::Triggered));
    let requests = receiver.received();
    let actions = requests.iter().map(|r| r.json()["event_action"].clone()).collect::<Vec<_>>();
    assert_eq!(actions, ["trigger", "trigger", "resolve", "trigger", "trigger"]);
    assert!(requests.iter().all(|r| r.json()["dedup_key"] == KEY), "one key, always");

    world.owe(vec![tell(6, Resolve, Severity::Critical)]).await;
    world.until_sent("on-call").await;
}

#[tokio::test]
async fn a_resolve_that_takes_effect_too_late_is_made_good_by_the_trigger_sent_again() {
    let behaviour = Behaviour::Pagerduty { resolve_lag: Duration::from_secs(3) };
    let receiver = Receiver::start(behaviour).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    world.owe(vec![tell(1, Trigger, Severity::Warning)]).await;
    world.until_sent("on-call").await;
    receiver.acknowledge(KEY);
    world.owe(rise(2, Duration::from_secs(2))).await;
    world.until_sent("on-call").await;
    assert_eq!(woken(&receiver.pages()), ["warning", "critical"]);
}

#[tokio::test]
async fn a_trigger_never_comes_at_the_heels_of_a_resolve() {
    let receiver = Receiver::start(Behaviour::pagerduty()).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    let kinds = [Trigger, Resolve, Trigger].iter().zip(1..);
    world.owe(kinds.map(|(kind, n)| tell(n, *kind, Severity::Critical)).collect()).await;
    world.until_sent("on-call").await;
    let requests = receiver.received();
    let waited = requests[2].at.duration_since(requests[1].at).as_secs_f64();
    // The wait begins with the acceptance, which is after the request.
    assert!(waited >= RISE_TRIGGER_AFTER.as_secs_f64(), "{waited}");
    assert_eq!(woken(&receiver.pages()), ["critical", "critical"]);
}

#[tokio::test]
async fn an_event_that_it_refuses_is_parked_in_its_words_without_the_key() {
    let errors = format!(
        r#"{{"status":"invalid event","message":"Event object is invalid","errors":["routing_key {ROUTING_KEY} is unknown","and more"]}}"#
    );
    let receiver = Receiver::start(Behaviour::with_body(400, &errors)).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    world.owe(vec![tell(1, Trigger, Severity::Critical)]).await;
    world.until_sent("on-call").await;
    let said = format!(
        "{}: answered 400 Bad Request: routing_key *** is unknown; and more",
        receiver.url()
    );
    assert_eq!(world.health_of("on-call").last_error, Some(said));
}

#[tokio::test]
async fn the_real_one_would_take_what_we_send() {
    let receiver = Receiver::start(Behaviour::pagerduty()).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    let kinds = [Trigger, Update, Resolve].iter().zip(1..);
    let mut rows: Vec<_> = kinds.map(|(kind, n)| tell(n, *kind, Severity::Critical)).collect();
    rows[0].report.alerts[0].observed = "crowded ".repeat(300);
    for row in rows {
        world.owe(vec![row]).await;
        world.until_sent("on-call").await;
    }
    assert_eq!((world.count("on-call", "delivered"), world.count("on-call", "parked")), (3, 0));
}

#[tokio::test]
async fn a_throttle_is_obeyed_for_half_a_minute() {
    let throttled = Behaviour::with_body(
        429,
        r#"{"status":"throttle exceeded","message":"Requests for this service are arriving too quickly.  Please retry later.","errors":["Enhance Your Calm."]}"#,
    );
    let receiver = Receiver::start(throttled).await.unwrap();
    let world = World::start(&[pagerduty("on-call", &receiver.url())]);
    world.owe(vec![tell(1, Trigger, Severity::Critical)]).await;
    let failed = world.first_failure("on-call").await;
    let wait = failed.next_at.unwrap().duration_since(failed.notification.decided_at);
    assert!(wait.as_secs_f64() >= 30.0, "{wait}");
}

#[tokio::test]
async fn a_storm_is_held_at_its_pace() {
    let receiver = Receiver::start(Behaviour::pagerduty()).await.unwrap();
    let mut two = [pagerduty("on-call", &receiver.url()), pagerduty("other", &receiver.url())];
    two[1].kind = ReceiverKind::Pagerduty {
        routing_key: Secret::new("f".repeat(32)),
        base_url: receiver.url(),
    };
    let world = World::start(&two);
    let storm = (0..130).map(|n| notification("on-call", &format!("k{n}"), 1, Trigger));
    world.owe(storm.collect()).await;
    world.until("on-call", |owed| owed.len() == 30).await;
    // Another receiver has a pace of its own; when its page is here, ours had time to break theirs.
    world.owe(vec![notification("other", "k", 1, Trigger)]).await;
    world.until_sent("other").await;
    assert_eq!(world.store.outbox().owed("on-call").len(), 30);
    let sent =
        receiver.received().iter().filter(|r| r.json()["routing_key"] == ROUTING_KEY).count();
    assert_eq!(sent, 100);
}
