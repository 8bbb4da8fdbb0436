//! What receivers are sent, to the letter, and the limits that they set.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use plimsoll::notify::http::Request;
use plimsoll::notify::{Receiver, ReceiverError};
use plimsoll_core::judge::incident::{AlertFact, Report};
use plimsoll_core::judge::rule::Subject;
use plimsoll_core::judge::telling::{Notification, NotificationKind};
use plimsoll_core::message::{details, summary};
use plimsoll_core::settings::{ReceiverKind, ReceiverSettings, Secret};
use serde_json::Value;
use sha2::Sha256;

use super::world::{notification, pagerduty, report, webhook};

const KEY: &str = "plimsoll/production-eu/payment-db-primary";

fn sent_at() -> Timestamp {
    "2024-03-15T14:39:13Z".parse().unwrap()
}

fn told(kind: NotificationKind, change: impl FnOnce(&mut Report)) -> Notification {
    let mut told = notification("r", KEY, 7, kind);
    let state = told.report.state;
    told.report = Report { state, ..report(KEY) };
    change(&mut told.report);
    told
}

fn request(settings: &ReceiverSettings, told: &Notification) -> (Request, Value) {
    let request = Receiver::new(settings).unwrap().payload(told, sent_at());
    let json = serde_json::from_slice(&request.body).unwrap();
    (request, json)
}

fn event(told: &Notification) -> Value {
    request(&pagerduty("on-call", "https://events.pagerduty.com"), told).1
}

fn alerts(report: &mut Report, count: usize, observed: &str) {
    let subject = |n| Subject::Role(format!("role {n}"));
    let alert = report.alerts[0].clone();
    let alert =
        |n| AlertFact { subject: subject(n), observed: observed.to_owned(), ..alert.clone() };
    report.alerts = (0..count).map(alert).collect();
}

/// The documented example is what is sent of the incident of these tests.
#[test]
fn a_webhook_is_sent_our_json() {
    let told = told(NotificationKind::Trigger, |_| {});
    let (request, mut json) = request(&webhook("archive", "https://h.example/hook"), &told);
    assert_eq!(request.uri, "https://h.example/hook");
    assert_eq!(json["incident"]["details"], details(&told.report));
    json["incident"]["details"] = "…".into();
    let page = include_str!("../../../docs/receivers.md");
    let example = page.split_once("```json").and_then(|(_, rest)| rest.split_once("```"));
    let example: Value = serde_json::from_str(example.unwrap().0).unwrap();
    assert_eq!(json, example);
}

#[test]
fn a_webhook_says_what_it_is_and_when_it_ended() {
    let settings = webhook("archive", "https://h.example/hook");
    let resolve = told(NotificationKind::Resolve, |r| r.resolved_at = Some(r.at));
    let (_, json) = request(&settings, &resolve);
    assert_eq!((&json["version"], &json["event"]), (&"1".into(), &"resolve".into()));
    assert_eq!(json["incident"]["state"], "resolved");
    assert_eq!(json["incident"]["resolved_at"], "2024-03-15T14:39:12Z");
    let (_, json) = request(&settings, &told(NotificationKind::Update, |_| {}));
    assert_eq!(json["event"], "update");
}

#[test]
fn a_webhook_is_signed_with_every_secret() {
    let keys = [[1_u8; 24].as_slice(), [2; 64].as_slice()];
    let secret = |key: &[u8]| Secret::new(format!("whsec_{}", STANDARD.encode(key)));
    let mut settings = webhook("archive", "https://h.example/hook");
    if let ReceiverKind::Webhook { signing_secrets, .. } = &mut settings.kind {
        *signing_secrets = keys.map(secret).to_vec();
    }
    let mut told = told(NotificationKind::Trigger, |_| {});
    told.id = "3f1c.7".to_owned();
    let (request, _) = request(&settings, &told);
    let header = |name: &str| request.headers[name].to_str().unwrap();
    assert_eq!(header("webhook-id"), "3f1c-7", "a dot would join it to what follows");
    assert_eq!(header("webhook-timestamp"), "1710513553");
    let signed = [b"3f1c-7.1710513553.", request.body.as_ref()].concat();
    let signatures = keys.map(|key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(&signed);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    });
    assert_eq!(header("webhook-signature"), signatures.join(" "));
}

#[test]
fn a_webhook_stays_small() {
    let settings = webhook("archive", "https://h.example/hook");
    let many = told(NotificationKind::Trigger, |r| alerts(r, 190, &"crowded ".repeat(12)));
    let (request, json) = self::request(&settings, &many);
    assert!(request.body.len() <= 20_000, "{}", request.body.len());
    assert_eq!(json["incident"]["alerts"].as_array().unwrap().len(), 20);
    let details = json["incident"]["details"].as_str().unwrap();
    assert!(details.ends_with("\n170 more alerts are left out here."), "{details}");

    // The names of pools are long.
    let long = told(NotificationKind::Trigger, |r| alerts(r, 33, &"crowded ".repeat(100)));
    let (request, json) = self::request(&settings, &long);
    assert!(request.body.len() <= 20_000, "{}", request.body.len());
    let shown = json["incident"]["alerts"].as_array().unwrap().len();
    assert_eq!(shown, 10);
    let details = json["incident"]["details"].as_str().unwrap();
    assert!(details.ends_with("\n23 more alerts are left out here."), "{details}");
}

#[test]
fn pagerduty_is_sent_an_event() {
    let trigger = told(NotificationKind::Trigger, |_| {});
    let mut json = event(&trigger);
    assert_eq!(event(&told(NotificationKind::Update, |_| {})), json, "an update is a trigger too");
    let words = (summary(&trigger.report).into(), details(&trigger.report).into());
    let payload = &mut json["payload"];
    let sent = (payload["summary"].take(), payload["custom_details"]["details"].take());
    assert_eq!(sent, words);
    insta::assert_json_snapshot!(json, @r#"
    {
      "client": "Plimsoll",
      "client_url": "https://plimsoll.example/targets/payment-db-primary",
      "dedup_key": "plimsoll/production-eu/payment-db-primary",
      "event_action": "trigger",
      "links": [
        {
          "href": "https://plimsoll.example/targets/payment-db-primary",
          "text": "Plimsoll"
        }
      ],
      "payload": {
        "class": "slots_full",
        "component": "postgresql",
        "custom_details": {
          "alerts": [
            {
              "observed": "47 of 47 usable slots in use (100 %)",
              "rule": "slots_full",
              "severity": "critical",
              "since": "2024-03-15T14:39:00Z",
              "state": "firing",
              "subject": ""
            }
          ],
          "causes": [],
          "details": null,
          "holders": [
            {
              "address": "10.0.0.7",
              "application": "payment-api",
              "connections": 39,
              "database": "payment",
              "role": "payment",
              "state": "active",
              "waiting_for_lock": 36
            }
          ],
          "incident": "3f1c0a9d2b7e4856",
          "labels": {
            "service": "payment"
          },
          "opened_at": "2024-03-15T14:39:00Z",
          "slots": {
            "free": 0,
            "max": 50,
            "reserved": 3,
            "usable": 47,
            "used": 47,
            "utilization": 1.0
          }
        },
        "group": "payment",
        "severity": "critical",
        "source": "payment-db-primary",
        "summary": null,
        "timestamp": "2024-03-15T14:39:12Z"
      },
      "routing_key": "0123456789abcdef0123456789abcdef"
    }
    "#);
}

#[test]
fn pagerduty_is_sent_a_resolve_without_more() {
    let json = event(&told(NotificationKind::Resolve, |_| {}));
    insta::assert_json_snapshot!(json, @r#"
    {
      "dedup_key": "plimsoll/production-eu/payment-db-primary",
      "event_action": "resolve",
      "routing_key": "0123456789abcdef0123456789abcdef"
    }
    "#);
}

#[test]
fn pagerdutys_limits_are_kept() {
    let characters = |value: &Value| value.as_str().unwrap().chars().count();
    let long = told(NotificationKind::Trigger, |r| {
        r.alerts[0].observed = "überfüllt ".repeat(200);
        r.target = "ü".repeat(400);
        r.labels.insert("service".to_owned(), "ß".repeat(400));
    });
    let json = event(&long);
    assert_eq!(characters(&json["payload"]["summary"]), 1024);
    assert!(json["payload"]["summary"].as_str().unwrap().ends_with('…'));
    assert_eq!(characters(&json["payload"]["source"]), 255);
    assert_eq!(characters(&json["payload"]["group"]), 255);

    let mut long_keys = ["a", "b"].map(|end| {
        let mut told = told(NotificationKind::Resolve, |_| {});
        told.key = format!("{}{end}", "plimsoll/".repeat(40));
        event(&told)["dedup_key"].clone()
    });
    assert!(long_keys.iter().all(|key| characters(key) <= 255));
    assert_ne!(long_keys[0].take(), long_keys[1].take(), "two targets, two keys");

    let huge = told(NotificationKind::Trigger, |r| alerts(r, 190, &"crowded ".repeat(500)));
    let settings = pagerduty("on-call", "https://events.pagerduty.com");
    let (request, json) = request(&settings, &huge);
    assert!(request.body.len() <= 512_000);
    let note = "left out: with them the event would be larger than the 512 kB allowed";
    assert_eq!(json["payload"]["custom_details"], serde_json::json!({ "note": note }));
}

#[test]
fn pagerdutys_regions_are_bases() {
    let uri = |base: &str| {
        let told = told(NotificationKind::Trigger, |_| {});
        request(&pagerduty("on-call", base), &told).0.uri.to_string()
    };
    assert_eq!(uri("https://events.pagerduty.com"), "https://events.pagerduty.com/v2/enqueue");
    assert_eq!(
        uri("https://events.eu.pagerduty.com/"),
        "https://events.eu.pagerduty.com/v2/enqueue"
    );
}

#[test]
fn receivers_that_cannot_work_are_not_made() {
    let check = |kind: ReceiverKind, expected: Option<ReceiverError>| {
        let settings = ReceiverSettings {
            kind,
            timeout: Duration::from_secs(10),
            ..webhook("r", "http://h.example")
        };
        assert_eq!(Receiver::new(&settings).err(), expected);
    };
    let webhook = |url: &str, secret: &str| ReceiverKind::Webhook {
        url: Secret::new(url),
        signing_secrets: vec![Secret::new(secret)],
    };
    let pagerduty = |key: &str, base: &str| ReceiverKind::Pagerduty {
        routing_key: Secret::new(key),
        base_url: base.to_owned(),
    };
    let good = format!("whsec_{}", STANDARD.encode([7; 24]));
    check(webhook("http://h.example/x", &good), None);
    check(webhook("file:///etc/passwd", &good), Some(ReceiverError::Url));
    check(webhook("http://h.example/x", "hunter2"), Some(ReceiverError::SigningSecret));
    check(pagerduty(&"k".repeat(32), "https://h.example"), None);
    check(pagerduty(&"k".repeat(31), "https://h.example"), Some(ReceiverError::RoutingKey));
    check(pagerduty(&"k".repeat(32), "h.example"), Some(ReceiverError::Url));
}
