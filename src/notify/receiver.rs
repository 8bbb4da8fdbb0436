//! A receiver: what kind it is, and the three things that its kind decides (payload, outcome,
//! limits). Sending, pacing and retrying are the sender's and the same for all.

use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::telling::{Manners, Notification};
use plimsoll_core::settings::{ReceiverKind, ReceiverSettings};

use super::endpoint::{Endpoint, Hidden, origin};
use super::http::{Answer, Client, ReachError, Request};
use super::outcome::Outcome;
use super::pagerduty::{self, Pagerduty};
use super::webhook::{self, Webhook};

/// A receiver that can be sent to.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Its name in settings.
    pub name: String,
    /// After so long without an answer an attempt has failed.
    pub timeout: Duration,
    kind: Kind,
    hidden: Hidden,
}

#[derive(Clone, Debug)]
enum Kind {
    Webhook(Webhook),
    Pagerduty(Pagerduty),
}

/// How fast a receiver may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests in how long.
    pub pace: Pace,
    /// How long after anything else under its key a trigger waits.
    pub before_trigger: Duration,
}

/// At most so many requests in any span of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests.
    pub events: usize,
    /// The span.
    pub per: Duration,
}

/// Why a receiver cannot be made. What was wrong with a secret is not said by repeating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// Neither http nor https, or no URL at all.
    #[error("the URL is no http:// or https:// URL")]
    Url,
    /// Not as Standard Webhooks has it.
    #[error("the signing secret is not whsec_ and the base64 of 24 to 64 bytes")]
    SigningSecret,
    /// `PagerDuty`'s keys have one length.
    #[error("the routing key has not 32 characters")]
    RoutingKey,
}

impl Receiver {
    /// The receiver that the settings describe.
    pub fn new(settings: &ReceiverSettings) -> Result<Self, ReceiverError> {
        let kind = match &settings.kind {
            ReceiverKind::Webhook { url, signing_secrets } => {
                Kind::Webhook(Webhook::new(url, signing_secrets)?)
            }
            ReceiverKind::Pagerduty { routing_key, base_url } => {
                Kind::Pagerduty(Pagerduty::new(routing_key, base_url)?)
            }
        };
        let mut hidden = kind.endpoint().hidden().clone();
        match &kind {
            Kind::Webhook(webhook) => webhook.hide(&mut hidden),
            Kind::Pagerduty(pagerduty) => pagerduty.hide(&mut hidden),
        }
        Ok(Self { name: settings.name.clone(), timeout: settings.timeout, kind, hidden })
    }

    /// The request for a notification, sent now.
    pub fn payload(&self, notification: &Notification, now: Timestamp) -> Request {
        match &self.kind {
            Kind::Webhook(webhook) => webhook.payload(notification, now),
            Kind::Pagerduty(pagerduty) => pagerduty.payload(notification, now),
        }
    }

    /// What an answer means. What it says is scrubbed first: it may repeat what it was sent, and
    /// a secret that was cut in the middle would not be found any more.
    pub fn outcome(&self, answer: Answer, now: Timestamp) -> Outcome {
        let body = self.scrub(&String::from_utf8_lossy(&answer.body)).into_bytes();
        let answer = Answer { body, ..answer };
        match &self.kind {
            Kind::Webhook(_) => Webhook::outcome(&answer, now),
            Kind::Pagerduty(_) => Pagerduty::outcome(&answer, now),
        }
    }

    /// How fast it may be told.
    pub fn limits(&self) -> Limits {
        match &self.kind {
            Kind::Webhook(_) => Webhook::limits(),
            Kind::Pagerduty(_) => Pagerduty::limits(),
        }
    }

    /// How large a body it takes, in bytes.
    pub fn max_body(&self) -> usize {
        match &self.kind {
            Kind::Webhook(_) => webhook::MAX_BODY,
            Kind::Pagerduty(_) => pagerduty::MAX_BODY,
        }
    }

    /// Makes the connection that a message would go over, and sends nothing. True if it ends at a
    /// proxy, which was not asked to go on.
    pub async fn reach(&self, client: &Client) -> Result<bool, ReachError> {
        client.reach(self.kind.endpoint().uri(), self.timeout).await
    }

    /// Where it is, as far as that may be shown.
    pub fn origin(&self) -> String {
        origin(self.kind.endpoint().uri())
    }

    /// The text without anything of ours that is secret: what a receiver says may repeat it.
    pub fn scrub(&self, text: &str) -> String {
        self.hidden.scrub(text)
    }
}

impl Kind {
    fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Webhook(webhook) => webhook.endpoint(),
            Self::Pagerduty(pagerduty) => pagerduty.endpoint(),
        }
    }
}

/// How receivers of a kind take what they already know; the judge must know it.
pub fn manners(kind: &ReceiverKind) -> Manners {
    match kind {
        ReceiverKind::Webhook { .. } => {
            Manners { rise_needs_new_trigger: false, unknown_resolve_is_harmless: false }
        }
        ReceiverKind::Pagerduty { .. } => {
            Manners { rise_needs_new_trigger: true, unknown_resolve_is_harmless: true }
        }
    }
}
