//! The part of `PagerDuty`'s Events API v2 on which the sender's correctness hangs: what it takes,
//! what it refuses, and whom it wakes. Called by the recording receiver alone.
//!
//! From its own documentation: a trigger of an open key is a log entry and wakes nobody, nor does
//! one of an acknowledged key; after a resolve a trigger opens a new incident; an acknowledge or
//! resolve of an unknown key is dropped with a 202.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Somebody was woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The dedup key.
    pub key: String,
    /// The severity of the trigger that opened it.
    pub severity: String,
    /// Its summary.
    pub summary: String,
}

/// How a key stands that is not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Somebody is being woken.
    Triggered,
    /// Somebody works on it and is left alone.
    Acknowledged,
}

#[derive(Debug, Default)]
pub(super) struct Pagerduty {
    problems: BTreeMap<String, Entry>,
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Entry {
    problem: Problem,
    /// A resolve was accepted and takes effect then.
    ends: Option<Instant>,
}

impl Pagerduty {
    pub(super) fn pages(&self) -> &[Page] {
        &self.pages
    }

    pub(super) fn problem(&mut self, key: &str, now: Instant) -> Option<Problem> {
        self.settle(now);
        self.problems.get(key).map(|e| e.problem)
    }

    pub(super) fn acknowledge(&mut self, key: &str, now: Instant) {
        self.settle(now);
        if let Some(entry) = self.problems.get_mut(key) {
            entry.problem = Problem::Acknowledged;
        }
    }

    /// Takes the body of a request; the status and the body of the answer.
    pub(super) fn take(&mut self, body: &str, now: Instant, lag: Duration) -> (u16, String) {
        self.settle(now);
        let event: Value = serde_json::from_str(body).unwrap_or_default();
        let errors = mistakes(&event);
        if !errors.is_empty() {
            let answer = json!({
                "status": "invalid event", "message": "Event object is invalid", "errors": errors,
            });
            return (400, answer.to_string());
        }
        let key = event["dedup_key"].as_str().unwrap_or_default().to_owned();
        match event["event_action"].as_str() {
            Some("trigger") => self.trigger(&key, &event["payload"]),
            Some("acknowledge") => self.acknowledge(&key, now),
            _ => {
                if let Some(entry) = self.problems.get_mut(&key) {
                    entry.ends = Some(now + lag);
                }
                self.settle(now);
            }
        }
        let answer = json!({ "status": "success", "message": "Event processed", "dedup_key": key });
        (202, answer.to_string())
    }

    fn trigger(&mut self, key: &str, payload: &Value) {
        if self.problems.contains_key(key) {
            return;
        }
        let entry = Entry { problem: Problem::Triggered, ends: None };
        self.problems.insert(key.to_owned(), entry);
        self.pages.push(Page {
            key: key.to_owned(),
            severity: payload["severity"].as_str().unwrap_or_default().to_owned(),
            summary: payload["summary"].as_str().unwrap_or_default().to_owned(),
        });
    }

    /// Ends what a resolve has ended by now.
    fn settle(&mut self, now: Instant) {
        self.problems.retain(|_, entry| entry.ends.is_none_or(|at| now < at));
    }
}

/// What the real one would answer 400 to, in its own words.
fn mistakes(event: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let key = event["routing_key"].as_str().unwrap_or_default();
    if key.is_empty() {
        errors.push("'routing_key' is missing or blank".to_owned());
    } else if key.chars().count() != 32 {
        errors.push("Length of 'routing_key' is incorrect (should be 32 characters)".to_owned());
    }
    let dedup = event["dedup_key"].as_str().unwrap_or_default();
    if dedup.chars().count() > 255 {
        errors.push("'dedup_key' is too long (maximum is 255 characters)".to_owned());
    }
    match event["event_action"].as_str() {
        Some("trigger") => errors.extend(mistakes_of_a_trigger(event)),
        Some("acknowledge" | "resolve") if dedup.is_empty() => {
            errors.push("'dedup_key' is missing or blank".to_owned());
        }
        Some("acknowledge" | "resolve") => {}
        _ => errors.push(
            "'event_action' is invalid (must be one of the following: \
             'acknowledge', 'resolve' or 'trigger')"
                .to_owned(),
        ),
    }
    errors
}

fn mistakes_of_a_trigger(event: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let payload = &event["payload"];
    for field in ["summary", "source"] {
        if payload[field].as_str().unwrap_or_default().is_empty() {
            errors.push(format!("'payload.{field}' is missing or blank"));
        }
    }
    if payload["summary"].as_str().unwrap_or_default().chars().count() > 1024 {
        errors.push("'payload.summary' is too long (maximum is 1024 characters)".to_owned());
    }
    if !matches!(payload["severity"].as_str(), Some("critical" | "warning" | "error" | "info")) {
        errors.push(
            "'payload.severity' is invalid (must be one of the following: \
             'critical', 'warning', 'error' or 'info')"
                .to_owned(),
        );
    }
    let links = event["links"].as_array().map_or(&[][..], Vec::as_slice);
    if links.iter().any(|link| link["href"].as_str().unwrap_or_default().is_empty()) {
        errors.push("'link href' is missing or blank".to_owned());
    }
    errors
}
