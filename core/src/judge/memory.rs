//! What needs more than one reading. Every field has a named bound; only the judge advances it.
//!
//! Counters of the server carry their epoch in the reading, and no rule compares them yet; when
//! another server answers, [`Memory::switch`] says so.

pub mod counters;
pub mod heard;
pub mod refusals;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use std::time::Duration;

use self::counters::Counters;
use self::heard::Heard;
use self::refusals::Refusals;
use super::bottleneck;
use super::incident::{self, AlertFact, Holder, MAX_SUPERUSERS, Peak, StateCount};
use super::refusal;
use super::source::standings;
use super::switch::{ServerIdentity, Switch, SwitchedTo};
use crate::reading::postgres::{Observation, Slots};
use crate::reading::{Reading, Refusal};

/// What is remembered of a target from reading to reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The last reading that said who holds the slots: what a message shows when none can be had.
    pub last_known: Option<LastKnown>,
    /// How it was when most slots were in use since the incident opened.
    pub peak: Option<Peak>,
    /// Alerts that fired since the incident opened, as they were last; the first
    /// [`incident::MAX_FIRED_KEPT`].
    #[serde(default)]
    pub fired: Vec<AlertFact>,
    /// Logins refused since the incident opened, by reason: at most one entry a reason.
    pub refused: Vec<(Refusal, u64)>,
    /// The server that answered last.
    #[serde(default)]
    pub server: Option<ServerIdentity>,
    /// When another one, or the same in another part, began to answer.
    #[serde(default)]
    pub switch: Option<Switch>,
    /// When each source was heard.
    #[serde(default)]
    pub heard: Heard,
    /// The counters of applications' pools.
    #[serde(default)]
    pub counters: Counters,
    /// Refusals that still speak of now.
    #[serde(default)]
    pub refusals: Refusals,
    /// The bottleneck that was named last since the incident opened.
    #[serde(default)]
    pub bottleneck: Option<bottleneck::Found>,
}

/// The last good reading of the slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastKnown {
    /// When it was read.
    pub at: Timestamp,
    /// The slots.
    pub slots: Slots,
    /// The largest holders, at most [`super::incident::MAX_HOLDERS`], then one `other`.
    pub holders: Vec<Holder>,
    /// Connections by state.
    pub states: Vec<StateCount>,
    /// Superusers that can log in, at most [`super::incident::MAX_SUPERUSERS`].
    pub superusers: Vec<String>,
}

impl Memory {
    /// What rules need of a reading that came `served` after the one before it: before them.
    pub(super) fn with_reading(self, reading: &Reading, served: Duration) -> Self {
        Self {
            heard: self.heard.advanced(&standings(reading), served),
            counters: self.counters.advanced(reading),
            refusals: self.refusals.advanced(reading, served),
            ..self
        }
    }

    /// The memory after a reading that came `served` after the one before it, and what answers
    /// since this reading, if that changed.
    pub(super) fn advanced(
        self,
        reading: &Reading,
        incident: &incident::Advanced,
        bottleneck: &bottleneck::Found,
        served: Duration,
    ) -> (Self, Option<SwitchedTo>) {
        let seen = reading.postgres.known().filter(|_| reading.postgres.fresh);
        let last_known = match seen {
            Some(seen) => Some(LastKnown::of(seen, reading.at)),
            None => self.last_known,
        };
        let server = seen.map(|seen| ServerIdentity::of(&seen.server)).or(self.server);
        let to = self.server.zip(server).and_then(|(before, now)| before.switched_to(now));
        // Kept to the reading that ends the incident: its last message tells of them too.
        let in_incident = incident.open.is_some() || incident.ended.is_some();
        let mut refused = if in_incident && !incident.is_new { self.refused } else { Vec::new() };
        let goes_on = in_incident && !incident.is_new;
        let (peak, fired) = if goes_on { (self.peak, self.fired) } else { (None, Vec::new()) };
        let peak = match (&last_known, peak) {
            (Some(now), peak) if in_incident => Some(now.higher(peak)),
            (_, peak) => peak,
        };
        for login in refusal::counted(reading).into_iter().filter(|_| in_incident) {
            match refused.iter_mut().find(|(reason, _)| *reason == login.reason) {
                Some((_, count)) => *count = count.saturating_add(login.count.into()),
                None => refused.push((login.reason, login.count.into())),
            }
        }
        let switch = Switch::advanced(self.switch, to, reading.at, served, in_incident);
        let named = Some(bottleneck.clone()).filter(|found| in_incident && found.at.is_somewhere());
        let bottleneck = named.or(self.bottleneck.filter(|_| goes_on));
        let Self { heard, counters, refusals, .. } = self;
        let after = Self {
            last_known,
            peak,
            fired,
            refused,
            server,
            switch,
            heard,
            counters,
            refusals,
            bottleneck,
        };
        (after, to)
    }

    /// Keeps what fires for the record of the incident.
    pub(super) fn keep_fired(&mut self, facts: impl Iterator<Item = AlertFact>) {
        for fact in facts {
            let same = |kept: &AlertFact| kept.rule == fact.rule && kept.subject == fact.subject;
            match self.fired.iter().position(same) {
                // A warning that was critical stays a critical one in the record.
                Some(kept) if fact.severity < self.fired[kept].severity => {}
                Some(kept) => self.fired[kept] = fact,
                None if self.fired.len() < incident::MAX_FIRED_KEPT => self.fired.push(fact),
                None => {}
            }
        }
    }
}

impl LastKnown {
    fn higher(&self, peak: Option<Peak>) -> Peak {
        match peak {
            Some(peak) if self.slots.used <= peak.slots.used => peak,
            _ => Peak { at: self.at, slots: self.slots, holders: self.holders.clone() },
        }
    }

    fn of(seen: &Observation, at: Timestamp) -> Self {
        Self {
            at,
            slots: seen.slots(),
            holders: incident::holders(&seen.groups),
            states: incident::states(&seen.groups),
            superusers: seen.superusers.iter().take(MAX_SUPERUSERS).cloned().collect(),
        }
    }
}
