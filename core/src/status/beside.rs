//! What everyone may see of the sources beside the server: pools, probes, the bottleneck.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::judge::bottleneck;
use crate::judge::pool::{Keeper, PoolState};
use crate::reading::app_pool::Max;
use crate::reading::probe::{Held, Observation};
use crate::reading::{FailureKind, Reading};

/// At most so many pools are shown: those with the most waiting, then the fullest.
pub const MAX_POOLS_SHOWN: usize = 200;

/// Where connections run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BottleneckStatus {
    /// `application_pool`, `pooler`, `server_slots`, `role_or_database_limit`,
    /// `logins_under_way`, `none` or `unknown`.
    pub at: String,
    /// What was seen, in words.
    pub figures: String,
}

/// A pool of a pooler or an application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// `pooler/NAME` or `app_pool/APPLICATION`.
    pub source: String,
    /// Its name there; empty where it has none.
    pub pool: String,
    /// `pooler`, `client_slots` or `application`.
    pub kind: String,
    /// Connections that are lent out, or client slots that are taken.
    pub in_use: Option<u32>,
    /// Connections that are open and not lent out.
    pub idle: Option<u32>,
    /// The most that there can be; absent where that is unknown or has no bound.
    pub max: Option<u32>,
    /// Whether it has no bound.
    pub unlimited: bool,
    /// Who waits for a connection.
    pub waiting: Option<u32>,
    /// How long the longest of them has waited (poolers), or those who had to wait did on average
    /// (applications).
    pub wait_seconds: Option<f64>,
    /// How many gave up waiting between the newest two observations.
    pub timeouts: u64,
    /// Instances of the application that tell of it.
    pub instances: u32,
}

/// A probe's newest login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// The probe's name.
    pub probe: String,
    /// When the login began.
    pub at: Timestamp,
    /// `ok`, the reason of a refusal (`all_slots_taken`…), or the kind of failure (`too_slow`…).
    pub outcome: String,
    /// What went wrong, in a sentence.
    pub error: Option<String>,
    /// The SQLSTATE, where there was one.
    pub sqlstate: Option<String>,
    /// Why no other is made at present: `earlier_one_lives`, `backs_off`, `few_slots_free`.
    pub held: Option<String>,
    /// The name's lookup and the connection.
    pub connect_seconds: Option<f64>,
    /// The handshake of TLS.
    pub tls_seconds: Option<f64>,
    /// From there until it was let in.
    pub authentication_seconds: Option<f64>,
    /// The first statement.
    pub first_answer_seconds: Option<f64>,
}

impl BottleneckStatus {
    /// The public form.
    pub fn from_found(found: &bottleneck::Found) -> Self {
        Self { at: found.at.word().to_owned(), figures: found.figures.clone() }
    }
}

impl PoolStatus {
    fn from_state(state: &PoolState) -> Self {
        let kind = match state.keeper {
            Keeper::Pooler => "pooler",
            Keeper::ClientSlots => "client_slots",
            Keeper::Application => "application",
        };
        Self {
            source: state.name.source.clone(),
            pool: state.name.pool().to_owned(),
            kind: kind.to_owned(),
            in_use: state.in_use,
            idle: state.idle,
            max: match state.max {
                Max::Of(max) => Some(max),
                Max::Unknown | Max::Unlimited => None,
            },
            unlimited: state.max == Max::Unlimited,
            waiting: state.waiting,
            wait_seconds: state.wait_seconds,
            timeouts: state.timeouts,
            instances: state.instances,
        }
    }
}

/// The pools as they are shown, by name; at most [`MAX_POOLS_SHOWN`].
pub(super) fn pools(states: &[PoolState]) -> Vec<PoolStatus> {
    let mut shown: Vec<&PoolState> = states.iter().collect();
    let full = |pool: &PoolState| {
        pool.taken().map_or(0.0, |(in_use, max)| f64::from(in_use) / f64::from(max.max(1)))
    };
    let waiting = |pool: &PoolState| (pool.timeouts, pool.waiting.unwrap_or(0));
    shown.sort_by(|a, b| waiting(b).cmp(&waiting(a)).then(full(b).total_cmp(&full(a))));
    shown.truncate(MAX_POOLS_SHOWN);
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    shown.into_iter().map(PoolStatus::from_state).collect()
}

/// The word for how a login went.
pub fn outcome(observation: &Observation) -> &'static str {
    attempt_outcome(&observation.newest.outcome)
}

/// The word for how one login went.
pub(super) fn attempt_outcome(outcome: &Result<(), crate::reading::Failure>) -> &'static str {
    match outcome.as_ref().map_err(|failure| failure.kind) {
        Ok(()) => "ok",
        Err(FailureKind::Refused(reason)) => reason.word(),
        Err(kind) => kind.word(),
    }
}

/// The newest login of each probe that can be heard.
pub(super) fn probes(reading: &Reading) -> Vec<ProbeStatus> {
    let known = reading.probes.iter().filter_map(|it| Some((&it.name, it.part.known()?)));
    known.map(|(name, seen)| probe(name, seen)).collect()
}

fn probe(name: &str, seen: &Observation) -> ProbeStatus {
    let newest = &seen.newest;
    let failure = newest.outcome.as_ref().err();
    let seconds = |step: Option<Duration>| step.map(|step| step.as_secs_f64());
    ProbeStatus {
        probe: name.to_owned(),
        at: newest.at,
        outcome: outcome(seen).to_owned(),
        error: failure.map(|failure| failure.text.clone()),
        sqlstate: failure.and_then(|failure| failure.sqlstate.clone()),
        held: seen.held.map(|held| {
            match held {
                Held::EarlierOneLives => "earlier_one_lives",
                Held::BacksOff => "backs_off",
                Held::FewSlotsFree => "few_slots_free",
            }
            .to_owned()
        }),
        connect_seconds: seconds(newest.steps.connect),
        tls_seconds: seconds(newest.steps.tls),
        authentication_seconds: seconds(newest.steps.authentication),
        first_answer_seconds: seconds(newest.steps.first_answer),
    }
}
