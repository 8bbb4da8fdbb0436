//! What was seen in a drill, and whether it was what was expected: values, and the lines and the
//! table that are made of them. Filled by [`super::run`].

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plimsoll_core::status::{AlertStatus, SlotsStatus, TargetStatus};
use serde::Deserialize;

use super::receiver::Received;
use super::scenario::{Condition, Event, percent};

/// The target at one instant, as the daemon showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When that was read from the server.
    pub at: Timestamp,
    /// The slots; `None` while they are unknown.
    pub slots: Option<SlotsStatus>,
    /// Connections by state.
    pub states: BTreeMap<String, u32>,
    /// Sessions that wait for a lock.
    pub waiting_for_lock: u32,
    /// Who waits for a connection of a pool, all together; `None` if no pool is watched.
    pub waiting_for_pool: Option<u32>,
    /// The severity of the open incident.
    pub incident: Option<String>,
    /// Alerts that wait for their patience, as `slots warning`.
    pub pending: Vec<String>,
    /// Alerts that fire, in the same words.
    pub firing: Vec<String>,
}

impl View {
    /// The same, of what the daemon answered.
    pub fn of(status: &TargetStatus, now: Timestamp) -> Self {
        let mut counts = BTreeMap::new();
        for holder in &status.holders {
            let state = if holder.state.is_empty() { "other" } else { &holder.state };
            *counts.entry(state.to_owned()).or_insert(0) += holder.connections;
        }
        let alerts = |state: &str| {
            // Advice pages nobody, and may stand all the time.
            let tells = |alert: &&AlertStatus| alert.state == state && alert.severity != "info";
            let of_it = status.alerts.iter().filter(tells);
            of_it.map(|alert| format!("{} {}", alert.rule, alert.severity)).collect()
        };
        Self {
            at: status.read_at.unwrap_or(now),
            slots: status.slots,
            states: counts,
            waiting_for_lock: status.holders.iter().map(|h| h.waiting_for_lock).sum(),
            waiting_for_pool: status
                .pools
                .iter()
                .filter_map(|pool| pool.waiting)
                .reduce(|a, b| a + b),
            incident: status.incident.as_ref().map(|incident| incident.severity.clone()),
            pending: alerts("pending"),
            firing: alerts("firing"),
        }
    }

    /// One line of it: slots, states, incident.
    pub fn line(&self) -> String {
        let mut line = match &self.slots {
            Some(slots) => {
                let SlotsStatus { used, usable, utilization, .. } = slots;
                format!("{used:>3} of {usable} ({:>5})", percent(*utilization))
            }
            None => "slots unknown".to_owned(),
        };
        let count = |state: &str| self.states.get(state).copied().unwrap_or(0);
        let in_transaction = count("idle in transaction") + count("idle in transaction (aborted)");
        let mut add = |text: String| line.push_str(&text);
        add(format!("  active {:>2}", count("active")));
        let waiting = self.waiting_for_lock;
        add(format!(" (waiting for a lock {waiting:>2})"));
        add(format!("  idle {:>2}", count("idle")));
        add(format!("  in transaction {in_transaction:>2}"));
        if let Some(waiting) = self.waiting_for_pool {
            add(format!("  waiting at the pooler {waiting:>2}"));
        }
        let told = match &self.incident {
            Some(severity) => format!("  incident {severity}: {}", self.firing.join(", ")),
            None if self.pending.is_empty() => "  calm".to_owned(),
            None => format!("  pending: {}", self.pending.join(", ")),
        };
        add(told);
        line
    }
}

/// A page as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// When it was received.
    pub at: Timestamp,
    /// What it says.
    pub message: Message,
}

/// The part of the webhook's JSON that a drill reads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Message {
    /// `trigger`, `update` or `resolve`.
    pub event: String,
    /// The incident.
    pub incident: IncidentPart,
    /// When this attempt was sent.
    pub sent_at: Timestamp,
}

/// The part of the incident that a drill reads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct IncidentPart {
    /// Its id.
    pub id: String,
    /// The dedup key.
    pub dedup_key: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// The line that stands alone.
    pub summary: String,
    /// Everything else.
    pub details: String,
}

impl Page {
    /// The page in a request, or what is wrong with it.
    pub fn of(received: &Received) -> Result<Self, String> {
        let message = serde_json::from_str(&received.body)
            .map_err(|error| format!("a request that is no page: {error}"))?;
        Ok(Self { at: received.at, message })
    }

    /// What a phone would show of it, then the rest.
    pub fn text(&self) -> String {
        let Message { event, incident, .. } = &self.message;
        let head = format!(">>> page: {event}, {}", incident.severity);
        let lines = incident.summary.lines().chain(incident.details.lines());
        let body = lines.map(|line| {
            let plain: String = line.chars().filter(|c| !c.is_control()).collect();
            format!("    | {plain}")
        });
        std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    at: Timestamp,
    what: String,
}

/// Something that was awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What.
    pub what: String,
    /// Whether it came.
    pub met: bool,
    /// What is known of it: when it came, or why not.
    pub note: String,
}

/// All that was seen so far.
#[derive(Clone, Debug)]
pub struct Record {
    started: Timestamp,
    zone: TimeZone,
    crossings: Vec<(f64, bool)>,
    was_full: bool,
    view: Option<View>,
    pages: Vec<Page>,
    /// So many of the pages were awaited by steps that are over.
    passed_pages: usize,
    marks: Vec<Mark>,
    /// What was awaited, in order.
    pub expectations: Vec<Expectation>,
}

impl Record {
    /// Of a drill that begins.
    pub fn new(started: Timestamp, zone: TimeZone, crossings: &[f64]) -> Self {
        Self {
            started,
            zone,
            crossings: crossings.iter().map(|part| (*part, false)).collect(),
            was_full: false,
            view: None,
            pages: Vec::new(),
            passed_pages: 0,
            marks: Vec::new(),
            expectations: Vec::new(),
        }
    }

    /// Time since the beginning, `1:02`.
    pub fn since(&self, at: Timestamp) -> String {
        let seconds = at.duration_since(self.started).as_secs().max(0);
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    /// Notes something that happened.
    pub fn mark(&mut self, at: Timestamp, what: impl Into<String>) {
        self.marks.push(Mark { at, what: what.into() });
    }

    /// Takes what the daemon shows now.
    pub fn see(&mut self, view: View) {
        if let Some(slots) = &view.slots {
            let SlotsStatus { used, usable, free, utilization, .. } = *slots;
            let of_them = format!("{used} of {usable}");
            for index in 0..self.crossings.len() {
                let (part, crossed) = self.crossings[index];
                if !crossed && part < utilization {
                    self.crossings[index].1 = true;
                    self.mark(view.at, format!("{} exceeded: {of_them}", percent(part)));
                }
            }
            if free <= 0 && !self.was_full {
                self.was_full = true;
                self.mark(view.at, format!("server full: {of_them}"));
            }
        }
        self.view = Some(view);
    }

    /// Takes a page.
    pub fn receive(&mut self, page: Page) {
        let Message { event, incident, sent_at } = &page.message;
        let sent = self.clock(*sent_at);
        let what = format!("page received: {event}, {} (sent {sent})", incident.severity);
        let resolved = incident.resolved_at.filter(|_| event == Event::Resolve.word());
        self.mark(page.at, what);
        if let Some(at) = resolved {
            self.mark(at, "incident resolved");
        }
        self.pages.push(page);
    }

    /// Whether a condition holds now; a page that fulfils one is then behind us.
    pub fn holds(&mut self, condition: &Condition) -> bool {
        if let Condition::Page { event, severity } = condition {
            let wanted = (event.word(), severity.word());
            let found = self.pages.iter().enumerate().skip(self.passed_pages).find(|(_, page)| {
                (page.message.event.as_str(), page.message.incident.severity.as_str()) == wanted
            });
            return found.map(|(index, _)| index + 1).is_some_and(|behind| {
                self.passed_pages = behind;
                true
            });
        }
        let Some(view) = &self.view else { return false };
        let slots = |holds: &dyn Fn(&SlotsStatus) -> bool| view.slots.as_ref().is_some_and(holds);
        match condition {
            Condition::UtilizationAbove(part) => slots(&|slots| *part < slots.utilization),
            Condition::UtilizationBelow(part) => slots(&|slots| slots.utilization < *part),
            Condition::Full => slots(&|slots| slots.free <= 0),
            Condition::Calm => view.incident.is_none() && view.firing.is_empty(),
            Condition::Page { .. } => false,
        }
    }

    /// Notes how waiting for a condition ended.
    pub fn expect(&mut self, condition: &Condition, met: bool, took: Duration, within: Duration) {
        let within = humantime::format_duration(within);
        let note = if met {
            format!("after {:.1} s (within {within})", took.as_secs_f64())
        } else {
            format!("not within {within}")
        };
        self.expectations.push(Expectation { what: condition.to_string(), met, note });
    }

    /// Notes what is expected of every drill once all its steps are over.
    pub fn expect_order(&mut self) {
        let keys: std::collections::BTreeSet<_> = self
            .pages
            .iter()
            .map(|page| (&page.message.incident.dedup_key, &page.message.incident.id))
            .collect();
        let one_key = keys.len() <= 1;
        let note = match keys.first() {
            Some((key, id)) if one_key => format!("{key}, incident {id}"),
            _ => format!("{} of them", keys.len()),
        };
        let events: Vec<&str> = self.pages.iter().map(|page| page.message.event.as_str()).collect();
        let rest = events.split_first().map_or(&[][..], |(_, rest)| rest);
        let ends = rest.last().is_none_or(|last| *last == "resolve");
        let once = rest.iter().filter(|event| **event != "update").count() <= 1;
        let starts = events.first().is_none_or(|first| *first == "trigger");
        let order = events.join(", ");
        let single = "one incident, one dedup key".to_owned();
        self.expectations.push(Expectation { what: single, met: one_key, note });
        let what = "one trigger, then its resolve, and no page after it".to_owned();
        self.expectations.push(Expectation { what, met: starts && ends && once, note: order });
    }

    /// Notes something that is expected, and is known by now.
    pub fn expect_that(&mut self, what: &str, met: bool, note: String) {
        self.expectations.push(Expectation { what: what.to_owned(), met, note });
    }

    /// Whether all that was expected came, and anything was.
    pub fn passed(&self) -> bool {
        !self.expectations.is_empty() && self.expectations.iter().all(|expected| expected.met)
    }

    fn clock(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// The table at the end.
    pub fn table(&self) -> String {
        let mut marks: Vec<&Mark> = self.marks.iter().collect();
        marks.sort_by_key(|mark| mark.at);
        let happened = marks.iter().map(|Mark { at, what }| {
            format!("  {:>5}  {}  {what}", self.since(*at), self.clock(*at))
        });
        let width = self.expectations.iter().map(|e| e.what.chars().count()).max().unwrap_or(0);
        let expected = self.expectations.iter().map(|Expectation { what, met, note }| {
            let word = if *met { "met    " } else { "NOT MET" };
            format!("  {word}  {what:<width$}  {note}")
        });
        let lines = std::iter::once("What happened".to_owned()).chain(happened);
        let lines = lines.chain([String::new(), "What was expected".to_owned()]).chain(expected);
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests;
