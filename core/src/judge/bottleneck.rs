//! Where connections run out: in the application's pool, in the pooler, or at the server.
//!
//! The three are joined from the inside out. A full server makes the pooler before it wait and the
//! applications before that, so the innermost place that is seen to be short is the bottleneck, and
//! what is seen outside of it stands in the figures. What is unknown stays unknown: a source that
//! failed or is stale proves nothing, so that a place outside of it is named only if it is known
//! that nothing inside is short, and `none` only if every source is known.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::look::Look;
use super::pool::{Keeper, PoolState};
use super::refusal;
use super::rule::words;
use super::source;
use crate::reading::probe::{self, Attempts};
use crate::reading::{FailureKind, Refusal, Sourced};

/// A place where connections run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// An application's own pool: threads wait for a connection or gave up waiting.
    ApplicationPool,
    /// A pooler: its clients wait for a server connection, or no more of them are let in.
    Pooler,
    /// The server's slots.
    ServerSlots,
    /// The CONNECTION LIMIT of a role or a database.
    RoleOrDatabaseLimit,
    /// Slots that logins hold which are under way, and which no view shows before PostgreSQL 18.
    LoginsUnderWay,
    /// Nothing is short.
    None,
    /// What is known does not tell.
    Unknown,
}

impl Bottleneck {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::ApplicationPool,
        Self::Pooler,
        Self::ServerSlots,
        Self::RoleOrDatabaseLimit,
        Self::LoginsUnderWay,
        Self::None,
        Self::Unknown,
    ];

    /// The word in metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::ApplicationPool => "application_pool",
            Self::Pooler => "pooler",
            Self::ServerSlots => "server_slots",
            Self::RoleOrDatabaseLimit => "role_or_database_limit",
            Self::LoginsUnderWay => "logins_under_way",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it names a place.
    pub fn is_somewhere(self) -> bool {
        !matches!(self, Self::None | Self::Unknown)
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word().replace('_', " "))
    }
}

/// The bottleneck with its figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Where.
    pub at: Bottleneck,
    /// What was seen, in words that stand alone; at most [`MAX_FIGURES`] of them.
    pub figures: String,
}

/// So many figures are told: the bottleneck's own and what is seen beside it.
pub const MAX_FIGURES: usize = 5;

/// The bottleneck that a reading shows.
pub fn find(look: &Look<'_>) -> Found {
    let slots =
        look.reading.postgres.known().map(super::super::reading::postgres::Observation::slots);
    let server = server(look);
    let pooler = short(look, &[Keeper::Pooler, Keeper::ClientSlots]);
    let application = short(look, &[Keeper::Application]);
    let unknown = look.unknown();
    let refused = pooler_refuses(look);
    let at = match &server {
        // What lies outside of it waits for it.
        Some((at, _)) => *at,
        None if slots.is_none() => Bottleneck::Unknown,
        None if !pooler.is_empty() || refused.is_some() => Bottleneck::Pooler,
        None if application.iter().any(|pool| is_reached(look, pool)) => {
            Bottleneck::ApplicationPool
        }
        None if unknown.is_empty() => Bottleneck::None,
        None => Bottleneck::Unknown,
    };
    let mut inside: Vec<String> = server.into_iter().map(|(_, said)| said).collect();
    inside.extend(slots.as_ref().map(words::slots_in_use).filter(|said| !inside.contains(said)));
    let poolers = refused.into_iter().chain(pooler.iter().map(|pool| words::pool(pool)));
    let poolers: Vec<String> = poolers.chain(idle_poolers(look, at, pooler.is_empty())).collect();
    let applications: Vec<String> = application.iter().map(|pool| words::pool(pool)).collect();
    let mut figures = match at {
        Bottleneck::Pooler => [poolers, inside, applications].concat(),
        Bottleneck::ApplicationPool => [applications, poolers, inside].concat(),
        Bottleneck::Unknown => [unknown, inside, poolers, applications].concat(),
        _ => [inside, poolers, applications].concat(),
    };
    if figures.len() > MAX_FIGURES {
        let more = figures.len() - (MAX_FIGURES - 1);
        figures.truncate(MAX_FIGURES - 1);
        figures.push(format!("and {more} more"));
    }
    Found { at, figures: figures.join("; ") }
}

/// What is short at the server, as far as anybody sees it, and what was seen.
fn server(look: &Look<'_>) -> Option<(Bottleneck, String)> {
    let part = &look.reading.postgres;
    let seen = part.known();
    let slots = seen.map(super::super::reading::postgres::Observation::slots);
    if let Some(slots) = slots.filter(|slots| slots.free <= 0) {
        return Some((Bottleneck::ServerSlots, words::slots_in_use(&slots)));
    }
    if let Some(said) = under_way(look) {
        return Some((Bottleneck::LoginsUnderWay, said));
    }
    if let Err(failure) = &part.seen
        && let FailureKind::Refused(reason) = failure.kind
        && reason.is_want_of_slots()
        && !part.is_stale()
    {
        return Some((Bottleneck::ServerSlots, words::refused(reason)));
    }
    let recent = &look.memory.refusals.recent;
    if let Some((reason, recent)) = recent.iter().find(|(reason, _)| reason.is_want_of_slots()) {
        let said = format!("{}{}", words::refused(*reason), recent.seen_by.words());
        return Some((Bottleneck::ServerSlots, said));
    }
    limit(look).map(|said| (Bottleneck::RoleOrDatabaseLimit, said))
}

/// What says that logins under way hold slots that no view shows.
fn under_way(look: &Look<'_>) -> Option<String> {
    let reading = look.reading;
    let seen = reading.postgres.known();
    if let Some(reason) = seen.and_then(|seen| seen.fallback).filter(|r| r.is_want_of_slots()) {
        return Some(words::refused(reason));
    }
    let refused = look.memory.refusals.recent.iter();
    let mut despite = refused.filter_map(|(reason, recent)| {
        let is_said = *reason == Refusal::LoginsUnderWay;
        let free = recent.despite_free;
        (is_said || free.is_some()).then(|| words::refused_despite(*reason, &recent.seen_by, free))
    });
    if let Some(said) = despite.next() {
        return Some(said);
    }
    let mut blind = reading.probes.iter().filter_map(|probe| {
        // Of one that cannot be heard nobody knows.
        let newest = &probe.part.known()?.newest;
        let standing = look.memory.refusals.standing.get(&probe.name)?;
        Some((&probe.name, refusal::of_attempt(newest).and(standing.despite_free)?))
    });
    if let Some((probe, free)) = blind.next() {
        let probe = words::clean(&source::of_probe(probe));
        return Some(format!("{probe} is refused though {free} usable slots look free"));
    }
    // A pooler that stands still swallows logins too, and so does a server that does.
    let is_pooler_unknown = look.troubles().any(|standing| standing.name.starts_with("pooler/"));
    if seen.is_none() || is_pooler_unknown {
        return None;
    }
    let hang = |probe: &&Sourced<probe::Observation, Attempts>| {
        probe.part.known().is_some_and(|seen| refusal::is_unanswered(&seen.newest))
    };
    let probe = reading.probes.iter().find(hang)?;
    Some(words::unanswered(&source::of_probe(&probe.name), probe.part.known()?))
}

/// A CONNECTION LIMIT that is reached, by the server's view or by refusals of others than us.
fn limit(look: &Look<'_>) -> Option<String> {
    if let Some(seen) = look.reading.postgres.known() {
        let kinds = [("role", &seen.role_limits), ("database", &seen.database_limits)];
        let mut limits = kinds.iter().flat_map(|(kind, all)| all.iter().map(move |l| (kind, l)));
        if let Some((kind, l)) = limits.find(|(_, limit)| limit.limit <= limit.used) {
            return Some(words::limit_in_use(kind, &l.name, l.used, l.limit));
        }
    }
    let is_limit = |reason: Refusal| matches!(reason, Refusal::RoleLimit | Refusal::DatabaseLimit);
    let mut recent = look.memory.refusals.recent.iter();
    let (reason, recent) = recent.find(|(reason, recent)| {
        is_limit(**reason) && (recent.seen_by.log > 0 || recent.seen_by.probes > 0)
    })?;
    Some(format!("{}{}", words::refused(*reason), recent.seen_by.words()))
}

/// A refusal by a limit of the pooler's own.
fn pooler_refuses(look: &Look<'_>) -> Option<String> {
    let mut recent = look.memory.refusals.recent.iter();
    let (reason, recent) = recent.find(|(reason, _)| reason.is_of_pooler())?;
    Some(format!("{}{}", words::refused(*reason), recent.seen_by.words()))
}

/// The pools of these keepers that are short, the worst first.
fn short<'a>(look: &'a Look<'_>, keepers: &[Keeper]) -> Vec<&'a PoolState> {
    let is_short = |pool: &&PoolState| match pool.keeper {
        Keeper::Pooler => pool.someone_waits,
        Keeper::ClientSlots => pool.is_full(),
        Keeper::Application => pool.someone_waits || pool.timeouts > 0,
    };
    let kept = look.pools.iter().filter(|pool| keepers.contains(&pool.keeper));
    let mut short: Vec<&PoolState> = kept.filter(is_short).collect();
    let rank = |pool: &PoolState| (pool.timeouts, pool.waiting.unwrap_or(0));
    short.sort_by_key(|pool| std::cmp::Reverse(rank(pool)));
    short
}

/// Whether all is known that lies between an application and the server.
fn is_reached(look: &Look<'_>, pool: &PoolState) -> bool {
    let application = pool.name.source.strip_prefix("app_pool/").unwrap_or_default();
    let Some(through) = look.sources.through.get(application) else { return true };
    let pooler = source::of_pooler(through);
    look.standings.iter().any(|standing| standing.name == pooler && standing.trouble.is_none())
}

/// That poolers show nobody waiting while the server is short: they mask it.
fn idle_poolers(look: &Look<'_>, at: Bottleneck, nobody_waits: bool) -> Option<String> {
    let is_inside = matches!(at, Bottleneck::ServerSlots | Bottleneck::LoginsUnderWay);
    let mut poolers = look.pools.iter().filter(|pool| pool.keeper == Keeper::Pooler);
    let first = poolers.next().filter(|_| is_inside && nobody_waits)?;
    Some(format!("{} shows nobody waiting", words::clean(&first.name.source)))
}
