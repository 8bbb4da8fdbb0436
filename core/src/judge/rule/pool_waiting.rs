//! `pool_waiting`: somebody waits for a connection of a pool, or gave up waiting.
//!
//! From the post-mortem of 2024-03-15: its first symptom was *Unable to acquire database connection
//! from pool*, minutes before anybody looked at the server. A pooler says how long its oldest
//! client has waited; libraries mostly say how many wait, or count them, and all count those who
//! gave up, which is certain and fires at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pools::{self, Seen};
use super::{Condition, Finding, Findings, LevelFinding, Patience, RuleSet, Subject, words};
use crate::judge::look::Look;
use crate::judge::pool::{Keeper, PoolState};

/// Where nobody tells how long somebody waits, so many observations in a row must show it: a busy
/// pool has a thread in its queue now and then.
const READINGS_WITHOUT_A_LENGTH: u32 = 3;

/// Waiting clients and threads, by pool.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingRule {
    /// For every pool that is not named below.
    pub levels: WaitLevels,
    /// By the pool's name; `None` turns the rule off for it.
    pub subjects: BTreeMap<String, Option<WaitLevels>>,
    /// Whether somebody who gave up waiting is critical at once.
    pub timeouts: bool,
}

/// A wait each for warning and critical; `None` has no such level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaitLevels {
    /// The warning level.
    pub warning: Option<WaitLevel>,
    /// The critical level.
    pub critical: Option<WaitLevel>,
}

/// How long somebody may wait, and for how long that may be so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaitLevel {
    /// Crossed by a wait longer than this.
    pub above: Duration,
    /// Crossed as well if a larger part than this of the clients that a pooler lets in waits.
    pub above_clients: Option<f64>,
    /// Clear with shorter waits than this; at most `above`.
    pub clear_below: Duration,
    /// `for`: how long it must be above before the alert fires.
    pub hold: Duration,
    /// How long it must be below `clear_below` before the alert resolves.
    pub keep_firing_for: Duration,
}

impl WaitingRule {
    /// The levels that hold for a pool.
    pub fn levels_of(&self, pool: &str) -> Option<WaitLevels> {
        self.subjects.get(pool).copied().unwrap_or(Some(self.levels))
    }

    /// The longest patience of all.
    pub(super) fn longest_hold(&self) -> Duration {
        let levels = std::iter::once(&self.levels).chain(self.subjects.values().flatten());
        let levels = levels.flat_map(|levels| [levels.warning, levels.critical]).flatten();
        levels.map(|level| level.hold).max().unwrap_or_default()
    }
}

pub(super) fn find(set: &RuleSet, look: &Look<'_>, alerted: &[Subject]) -> Findings {
    let Some(rule) = &set.pool_waiting else { return Findings::Off };
    let keeps = |pool: &PoolState| pool.keeper != Keeper::ClientSlots;
    pools::find(look, alerted, keeps, |seen| finding(rule, look, seen))
}

fn finding(rule: &WaitingRule, look: &Look<'_>, seen: &Seen<'_>) -> Finding {
    let levels = rule.levels_of(&seen.name().name);
    let level = |level: Option<WaitLevel>, is_critical: bool| {
        let level = level?;
        let gave_up = is_critical && rule.timeouts && seen.pool().is_some_and(|p| p.timeouts > 0);
        let condition = match seen {
            Seen::Pool(pool) => condition(level, pool, gave_up, is_critical),
            Seen::Gone { condition, .. } => *condition,
        };
        let has_no_length = seen.pool().is_some_and(|pool| pool.wait_seconds.is_none());
        let patience = Patience {
            hold: if gave_up { Duration::ZERO } else { level.hold },
            readings: if has_no_length && !gave_up { READINGS_WITHOUT_A_LENGTH } else { 1 },
            keep_firing_for: level.keep_firing_for,
        };
        Some(LevelFinding { condition, patience })
    };
    let pool = seen.pool();
    Finding {
        subject: Subject::Pool(seen.name().clone()),
        warning: level(levels.and_then(|l| l.warning), false),
        critical: level(levels.and_then(|l| l.critical), true),
        observed: match seen {
            Seen::Pool(pool) => words::pool(pool),
            Seen::Gone { name, .. } => format!("{} is not there any more", words::pool_name(name)),
        },
        weight: pool.map_or(0.0, |p| f64::from(p.waiting.unwrap_or(0)) + p.timeouts as f64),
        served: Some(look.memory.heard.gap(&seen.name().source)),
    }
}

fn condition(level: WaitLevel, pool: &PoolState, gave_up: bool, is_critical: bool) -> Condition {
    let many = level.above_clients.zip(pool.clients_waiting_ratio);
    if gave_up || many.is_some_and(|(above, ratio)| above < ratio) {
        return Condition::Met;
    }
    match pool.wait_seconds.filter(|_| pool.someone_waits) {
        Some(seconds) if level.above.as_secs_f64() < seconds => Condition::Met,
        Some(seconds) if level.clear_below.as_secs_f64() <= seconds => Condition::Between,
        // Nobody tells for how long: enough for somebody to look, not to wake one.
        None if pool.someone_waits && is_critical => Condition::Between,
        None if pool.someone_waits => Condition::Met,
        _ if pool.may_hide_waits => Condition::Unknown,
        _ => Condition::Clear,
    }
}
