//! `pool_utilization`: how much of what a pool may open is lent out.
//!
//! From the post-mortem of 2024-03-15, action 1 (80 % and 90 %). A pool that is full and for which
//! nobody waits is well sized, so that critical asks for somebody who waits, unless the bare number
//! is asked for (`alone`). For the places of a pooler's clients nobody waits: there one who comes
//! when all are taken is refused.

use super::pools::{self, Seen};
use super::{
    Condition, Finding, Findings, Level, LevelFinding, RuleSet, Subject, SubjectRule, words,
};
use crate::judge::look::Look;
use crate::judge::pool::{Keeper, PoolState};

/// How full pools are, by pool.
#[derive(Clone, Debug, PartialEq)]
pub struct UtilizationRule {
    /// The levels.
    pub levels: SubjectRule,
    /// Whether critical is the bare number, without somebody who waits.
    pub alone: bool,
}

pub(super) fn find(set: &RuleSet, look: &Look<'_>, alerted: &[Subject]) -> Findings {
    let Some(rule) = &set.pool_utilization else { return Findings::Off };
    // Without a bound there is nothing to be full.
    let keeps = |pool: &PoolState| pool.taken().is_some_and(|(_, max)| max > 0);
    pools::find(look, alerted, keeps, |seen| finding(rule, look, seen))
}

fn finding(rule: &UtilizationRule, look: &Look<'_>, seen: &Seen<'_>) -> Finding {
    let name = seen.name();
    let levels = rule.levels.levels_of(&name.name);
    let (in_use, max) = seen.pool().and_then(PoolState::taken).unwrap_or((0, 1));
    let level = |level: Option<Level>, is_critical: bool| {
        let level = level?;
        let LevelFinding { condition, patience } = level.finding(in_use, max);
        let condition = match seen {
            Seen::Gone { condition, .. } => *condition,
            Seen::Pool(pool) => {
                let counts = !is_critical || rule.alone || is_felt(pool);
                let met = condition == Condition::Met;
                if met && !counts { Condition::Between } else { condition }
            }
        };
        Some(LevelFinding { condition, patience })
    };
    Finding {
        subject: Subject::Pool(name.clone()),
        warning: level(levels.and_then(|l| l.warning), false),
        critical: level(levels.and_then(|l| l.critical), true),
        observed: match seen {
            Seen::Pool(pool) => words::pool_in_use(pool),
            Seen::Gone { name, .. } => format!("{} is not there any more", words::pool_name(name)),
        },
        weight: f64::from(in_use) / f64::from(max.max(1)),
        served: Some(look.memory.heard.gap(&name.source)),
    }
}

/// Whether somebody pays for it that a pool is full.
fn is_felt(pool: &PoolState) -> bool {
    match pool.keeper {
        Keeper::Pooler | Keeper::Application => pool.someone_waits || pool.timeouts > 0,
        Keeper::ClientSlots => pool.is_full(),
    }
}
