//! The webhook receiver: our versioned JSON, signed as Standard Webhooks 1.0.0 says.
//!
//! The id is the notification's and the same on every attempt, so that a receiver can tell a
//! repeat; the time is the attempt's. With several secrets there are several signatures, so that
//! one secret can be replaced by another while both sides keep working.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use plimsoll_core::judge::telling::Notification;
use plimsoll_core::settings::Secret;
use plimsoll_core::status::IncidentStatus;
use serde::Serialize;
use sha2::Sha256;

use super::endpoint::{Endpoint, Hidden};
use super::http::{Answer, Request};
use super::outcome::{self, Outcome, cut};
use super::receiver::{Limits, Pace, ReceiverError};

/// Standard Webhooks asks for less than 20 kB; larger ones lose their prose, then alerts.
pub(super) const MAX_BODY: usize = 20_000;

/// Prose is cut to this first.
const SHORT_DETAILS: usize = 4_000;

/// Alerts are cut to so many, after the prose, and to half of that as often as it takes: the names
/// of pools are long. The first are those that fire.
const SHORT_ALERTS: usize = 20;

/// Nobody documents a rate for a receiver of one's own; this keeps a storm of many targets from
/// looking like an attack, and lets a thousand pages through in two seconds.
const PACE: Pace = Pace { events: 500, per: Duration::from_secs(1) };

/// After a 429 that names no time.
const THROTTLE: Duration = Duration::from_secs(5);

/// Standard Webhooks: a secret has 24 to 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    endpoint: Endpoint,
    keys: Vec<Key>,
}

/// The JSON that others rely on: fields are added, never renamed.
#[derive(Serialize)]
struct Message<'a> {
    version: &'static str,
    event: &'static str,
    incident: &'a IncidentStatus,
    sent_at: Timestamp,
}

impl Webhook {
    /// A webhook at a URL, unsigned if there is no secret.
    pub fn new(url: &Secret, signing_secrets: &[Secret]) -> Result<Self, ReceiverError> {
        let endpoint = Endpoint::parse(url.expose()).ok_or(ReceiverError::Url)?;
        let keys = signing_secrets.iter().map(Key::parse).collect::<Result<_, _>>()?;
        Ok(Self { endpoint, keys })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What must not be shown beside the URL.
    pub fn hide(&self, hidden: &mut Hidden) {
        for key in &self.keys {
            hidden.add(key.text.expose());
            hidden.add(key.text.expose().trim_start_matches("whsec_"));
        }
    }

    /// The request for a notification, sent now.
    pub fn payload(&self, notification: &Notification, now: Timestamp) -> Request {
        let mut incident = IncidentStatus::sent_at(&notification.report, now);
        let body = body(notification, &mut incident, now);
        let headers = self.headers(&message_id(notification), now.as_second(), &body);
        Request { uri: self.endpoint.uri().clone(), headers, body: body.into() }
    }

    fn headers(&self, id: &str, time: i64, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).expect("ids, numbers and base64 are ASCII");
            headers.insert(HeaderName::from_static(name), value);
        };
        insert("webhook-id", id);
        insert("webhook-timestamp", &time.to_string());
        if !self.keys.is_empty() {
            let signatures = self.keys.iter().map(|key| key.sign(id, time, body));
            insert("webhook-signature", &signatures.collect::<Vec<_>>().join(" "));
        }
        headers
    }

    /// What an answer means: the status alone says it.
    pub fn outcome(answer: &Answer, now: Timestamp) -> Outcome {
        outcome::by_status(answer, now, THROTTLE)
    }

    /// How fast it may be told.
    pub fn limits() -> Limits {
        Limits { pace: PACE, before_trigger: Duration::ZERO }
    }
}

/// The id without what the signed content is joined with, and without what a header cannot hold.
fn message_id(notification: &Notification) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    notification.id.chars().map(allowed).collect()
}

fn body(notification: &Notification, incident: &mut IncidentStatus, now: Timestamp) -> Vec<u8> {
    let event = notification.kind.word();
    let write = |incident: &IncidentStatus| {
        let message = Message { version: "1", event, incident, sent_at: now };
        serde_json::to_vec(&message).expect("strings, numbers and lists can be written as JSON")
    };
    let whole = write(incident);
    if whole.len() <= MAX_BODY {
        return whole;
    }
    incident.details = cut(&incident.details, SHORT_DETAILS);
    let (details, all) = (incident.details.clone(), incident.alerts.len());
    let mut kept = SHORT_ALERTS;
    loop {
        let shorter = write(incident);
        if shorter.len() <= MAX_BODY || incident.alerts.len() <= 1 {
            return shorter;
        }
        incident.alerts.truncate(kept);
        let left_out = all - incident.alerts.len();
        incident.details = format!("{details}\n{left_out} more alerts are left out here.");
        kept /= 2;
    }
}

/// A signing secret.
#[derive(Clone, Debug)]
struct Key {
    text: Secret,
    bytes: KeyBytes,
}

/// Bytes that are not printed.
#[derive(Clone)]
struct KeyBytes(Vec<u8>);

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    fn parse(secret: &Secret) -> Result<Self, ReceiverError> {
        let text = secret.expose().trim();
        let encoded = text.strip_prefix("whsec_").ok_or(ReceiverError::SigningSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| ReceiverError::SigningSecret)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(ReceiverError::SigningSecret);
        }
        Ok(Self { text: Secret::new(text), bytes: KeyBytes(bytes) })
    }

    /// `v1,` and the signature over `id.timestamp.body`.
    fn sign(&self, id: &str, time: i64, body: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.bytes.0).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answer of the specification's own libraries (TestWebhookSign).
    #[test]
    fn signs_as_the_specification_does() {
        let key = Key::parse(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        let check = |text: String, good: bool| {
            let key = Key::parse(&Secret::new(text));
            assert_eq!(key.is_ok(), good);
            let shown = key.map_or_else(|e| e.to_string(), |k| format!("{k:?}"));
            assert!(!shown.contains("MfKQ"), "{shown}");
        };
        let whsec = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".to_owned(), true);
        check("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), false);
        check("whsec_MfKQ!".to_owned(), false);
        check(whsec(23), false);
        check(whsec(24), true);
        check(whsec(64), true);
        check(whsec(65), false);
    }
}
