//! `PagerDuty`, Events API v2: <https://developer.pagerduty.com/docs/events-api-v2-overview>.
//!
//! A trigger and an update are both its `trigger`: with the key of an open incident it refreshes
//! summary and severity and wakes nobody. That a rise to critical wakes somebody is the judge's
//! doing, who tells it as a resolve and a new trigger.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use jiff::Timestamp;
use plimsoll_core::judge::telling::{Notification, NotificationKind, RISE_TRIGGER_AFTER};
use plimsoll_core::settings::Secret;
use plimsoll_core::status::{AlertStatus, CauseStatus, HolderStatus, IncidentStatus, SlotsStatus};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::endpoint::{Endpoint, Hidden};
use super::http::{Answer, Request};
use super::outcome::{self, Outcome, cut};
use super::receiver::{Limits, Pace, ReceiverError};

/// A larger event is refused (512 kB, counted as Alertmanager counts them).
pub(super) const MAX_BODY: usize = 512_000;

/// `payload.summary`, in characters.
const MAX_SUMMARY: usize = 1024;

/// `dedup_key`, in characters.
const MAX_DEDUP_KEY: usize = 255;

/// `routing_key`, in characters; another length is refused.
const ROUTING_KEY: usize = 32;

/// Short fields of the payload have no documented limit; this is far above any name.
const MAX_FIELD: usize = 255;

/// It takes about 120 events a minute and key, in a sliding window; the rest is left for others
/// that use the same key, and for what the network bunches up.
const PACE: Pace = Pace { events: 100, per: Duration::from_mins(1) };

/// After a 429 it asks for attempts 30 s apart, and names no time in its answer.
const THROTTLE: Duration = Duration::from_secs(30);

/// An integration of a service.
#[derive(Clone, Debug)]
pub struct Pagerduty {
    routing_key: Secret,
    endpoint: Endpoint,
}

#[derive(Serialize)]
struct Enqueue<'a> {
    routing_key: &'a str,
    event_action: &'static str,
    dedup_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link<'a>>,
}

#[derive(Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: &'static str,
    timestamp: Timestamp,
    component: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    custom_details: Value,
}

#[derive(Serialize)]
struct CustomDetails<'a> {
    incident: &'a str,
    opened_at: Timestamp,
    details: &'a str,
    labels: &'a BTreeMap<String, String>,
    slots: Option<&'a SlotsStatus>,
    alerts: &'a [AlertStatus],
    holders: &'a [HolderStatus],
    causes: &'a [CauseStatus],
}

#[derive(Serialize)]
struct Link<'a> {
    href: &'a str,
    text: &'static str,
}

impl Pagerduty {
    /// An integration, by its key and the base of the API (`https://events.pagerduty.com`, or
    /// `https://events.eu.pagerduty.com`).
    pub fn new(routing_key: &Secret, base_url: &str) -> Result<Self, ReceiverError> {
        let key = routing_key.expose().trim();
        if key.chars().count() != ROUTING_KEY {
            return Err(ReceiverError::RoutingKey);
        }
        let url = format!("{}/v2/enqueue", base_url.trim().trim_end_matches('/'));
        let endpoint = Endpoint::parse(&url).ok_or(ReceiverError::Url)?;
        Ok(Self { routing_key: Secret::new(key), endpoint })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What must not be shown.
    pub fn hide(&self, hidden: &mut Hidden) {
        hidden.add(self.routing_key.expose());
    }

    /// The request for a notification.
    pub fn payload(&self, notification: &Notification, now: Timestamp) -> Request {
        let body = self.body(notification, now).into();
        Request { uri: self.endpoint.uri().clone(), headers: HeaderMap::new(), body }
    }

    fn body(&self, notification: &Notification, now: Timestamp) -> Vec<u8> {
        let link = notification.report.link.as_deref().filter(|link| !link.is_empty());
        let mut event = Enqueue {
            routing_key: self.routing_key.expose(),
            event_action: "resolve",
            dedup_key: dedup_key(&notification.key),
            payload: None,
            client: None,
            client_url: None,
            links: Vec::new(),
        };
        if notification.kind != NotificationKind::Resolve {
            event.event_action = "trigger";
            event.payload = Some(payload(notification, now));
            event.client = Some("Plimsoll");
            event.client_url = link;
            event.links = link.map(|href| Link { href, text: "Plimsoll" }).into_iter().collect();
        }
        let body = write(&event);
        if body.len() <= MAX_BODY {
            return body;
        }
        if let Some(payload) = &mut event.payload {
            payload.custom_details = serde_json::json!({
                "note": "left out: with them the event would be larger than the 512 kB allowed",
            });
        }
        write(&event)
    }

    /// What an answer means. A 400 says in `errors` what is wrong with the event.
    pub fn outcome(answer: &Answer, now: Timestamp) -> Outcome {
        if answer.status == StatusCode::BAD_REQUEST
            && let Some(errors) = errors(&answer.body)
        {
            let why = format!("answered {}: {errors}", answer.status);
            return Outcome::Park { why };
        }
        outcome::by_status(answer, now, THROTTLE)
    }

    /// How fast it may be told.
    pub fn limits() -> Limits {
        Limits { pace: PACE, before_trigger: RISE_TRIGGER_AFTER }
    }
}

fn payload(notification: &Notification, now: Timestamp) -> Payload {
    let report = &notification.report;
    let incident = IncidentStatus::sent_at(report, now);
    let details = CustomDetails {
        incident: &incident.id,
        opened_at: incident.opened_at,
        details: &incident.details,
        labels: &incident.labels,
        slots: incident.slots.as_ref(),
        alerts: &incident.alerts,
        holders: &incident.holders,
        causes: &incident.causes,
    };
    Payload {
        summary: cut(&incident.summary, MAX_SUMMARY),
        source: cut(&report.target, MAX_FIELD),
        severity: report.severity.word(),
        timestamp: report.at,
        component: "postgresql",
        group: report.labels.get("service").map(|service| cut(service, MAX_FIELD)),
        class: report.alerts.first().map(|alert| alert.rule.word().to_owned()),
        custom_details: serde_json::to_value(details)
            .expect("strings, numbers and lists can be written as JSON"),
    }
}

fn write(event: &Enqueue<'_>) -> Vec<u8> {
    serde_json::to_vec(event).expect("strings, numbers and lists can be written as JSON")
}

/// The key, or its hash if it is too long: cut keys of two targets could be the same.
fn dedup_key(key: &str) -> String {
    if key.chars().count() <= MAX_DEDUP_KEY {
        return key.to_owned();
    }
    let digest = Sha256::digest(key.as_bytes());
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    format!("plimsoll/{}", hex.collect::<String>())
}

fn errors(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let errors = body.get("errors")?.as_array()?.iter().filter_map(Value::as_str);
    let errors = errors.collect::<Vec<_>>().join("; ");
    (!errors.is_empty()).then(|| outcome::said(errors.as_bytes()))
}
