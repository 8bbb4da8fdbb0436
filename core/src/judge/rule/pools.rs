//! What the rules on pools share: which pools there are, which are gone, and which are unknown.

use super::{Condition, Finding, Findings, LevelFinding, Subject};
use crate::judge::look::Look;
use crate::judge::pool::{PoolName, PoolState, may_be_hidden};
use crate::reading::app_pool::Max;

/// A pool to look at.
pub(super) enum Seen<'a> {
    /// One that the reading knows.
    Pool(&'a PoolState),
    /// One that has an alert and that the reading does not show.
    Gone {
        name: &'a PoolName,
        /// Clear where its source was just read, else unknown.
        condition: Condition,
    },
}

impl<'a> Seen<'a> {
    pub(super) fn name(&self) -> &'a PoolName {
        match self {
            Self::Pool(pool) => &pool.name,
            Self::Gone { name, .. } => name,
        }
    }

    pub(super) fn pool(&self) -> Option<&'a PoolState> {
        match self {
            Self::Pool(pool) => Some(pool),
            Self::Gone { .. } => None,
        }
    }
}

/// A finding for each pool that is kept, and for each that has an alert. The alert of a pool whose
/// source is watched no more gets none, and ends.
pub(super) fn find<'a>(
    look: &'a Look<'_>,
    alerted: &'a [Subject],
    keeps: impl Fn(&PoolState) -> bool,
    finding: impl Fn(&Seen<'a>) -> Finding,
) -> Findings {
    let pools = look.pools.iter().filter(|pool| keeps(pool)).map(|pool| {
        let finding = finding(&Seen::Pool(pool));
        if pool.fresh { finding } else { repeated(finding, alerted) }
    });
    let gone = alerted.iter().filter_map(|subject| {
        let Subject::Pool(name) = subject else { return None };
        if !look.is_watched(&name.source) {
            return None;
        }
        let condition = match look.pools.iter().find(|pool| pool.name == *name) {
            Some(pool) if keeps(pool) => return None,
            // Without a bound now: one that cannot be reached.
            Some(pool) if pool.fresh && pool.max == Max::Unlimited => Condition::Clear,
            Some(_) => Condition::Unknown,
            None => absent(look, name),
        };
        Some(finding(&Seen::Gone { name, condition }))
    });
    Findings::Known(pools.chain(gone).collect())
}

/// What a reading repeats that another was the first to carry: nothing new, since patience is served
/// from one observation to the next. It still says where nothing was to be seen.
fn repeated(finding: Finding, alerted: &[Subject]) -> Finding {
    let is_alerted = alerted.contains(&finding.subject);
    let again = |level: Option<LevelFinding>| {
        level.map(|level| match level.condition {
            Condition::Clear if !is_alerted => level,
            _ => LevelFinding { condition: Condition::Unknown, ..level },
        })
    };
    let (warning, critical) = (again(finding.warning), again(finding.critical));
    Finding { warning, critical, ..finding }
}

/// Absent from a good observation is zero, absent from a failed one unknown.
fn absent(look: &Look<'_>, name: &PoolName) -> Condition {
    let is_read = look.standing(&name.source).is_some_and(|it| it.fresh && it.trouble.is_none());
    if is_read && !may_be_hidden(look.reading, look.memory, name) {
        Condition::Clear
    } else {
        Condition::Unknown
    }
}
