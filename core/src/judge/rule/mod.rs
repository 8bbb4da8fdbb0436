//! The rules: conditions with a threshold and patience. A file a rule; this one holds what they
//! share and calls them.
//!
//! A rule looks at a reading and says what it found on each subject. It does not know how long
//! that has been so: patience is [`super::alert`]'s.

mod limits;
mod logins_refused;
pub mod overcommit;
mod pool_utilization;
mod pool_waiting;
mod pools;
mod slots;
mod slots_full;
mod source_unreadable;
pub mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::look::Look;
use super::pool::PoolName;
use super::source::Sources;
use crate::reading::Refusal;
pub use logins_refused::LoginsRule;
pub use pool_utilization::UtilizationRule;
pub use pool_waiting::{WaitLevel, WaitLevels, WaitingRule};
pub use source_unreadable::SourceRule;

/// The name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// Slots in use of usable ones.
    Slots,
    /// No slot is free.
    SlotsFull,
    /// Somebody was refused.
    LoginsRefused,
    /// A role near its CONNECTION LIMIT.
    RoleLimit,
    /// A database near its CONNECTION LIMIT.
    DatabaseLimit,
    /// Somebody waits for a connection of a pool.
    PoolWaiting,
    /// A pool near its bound.
    PoolUtilization,
    /// Those who connect may open more than there is.
    Overcommit,
    /// A source gives no reading.
    SourceUnreadable,
}

impl RuleName {
    /// Every rule, in the order in which they are judged and shown.
    pub const ALL: [Self; 9] = [
        Self::Slots,
        Self::SlotsFull,
        Self::LoginsRefused,
        Self::RoleLimit,
        Self::DatabaseLimit,
        Self::PoolWaiting,
        Self::PoolUtilization,
        Self::Overcommit,
        Self::SourceUnreadable,
    ];

    /// The word in settings, metrics, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::SlotsFull => "slots_full",
            Self::LoginsRefused => "logins_refused",
            Self::RoleLimit => "role_limit",
            Self::DatabaseLimit => "database_limit",
            Self::PoolWaiting => "pool_waiting",
            Self::PoolUtilization => "pool_utilization",
            Self::Overcommit => "overcommit",
            Self::SourceUnreadable => "source_unreadable",
        }
    }

    /// Whether its alerts are advice, `info`: they open no incident and keep none open.
    pub fn is_advice(self) -> bool {
        self == Self::Overcommit
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The target as a whole.
    Target,
    /// A source of the target.
    Source(String),
    /// A role.
    Role(String),
    /// A database.
    Database(String),
    /// A reason for which logins were refused.
    Reason(Refusal),
    /// A probe whose login has no answer, by its name as a source.
    Unanswered(String),
    /// A pool of a pooler or an application.
    Pool(PoolName),
    /// All subjects beyond the first [`MAX_ALERTS_OF_A_RULE`] of a rule.
    AndMore,
}

impl Subject {
    /// The subject in JSON and metrics; the target's own subject is the empty string.
    pub fn word(&self) -> &str {
        match self {
            Self::Target => "",
            Self::Source(name)
            | Self::Role(name)
            | Self::Database(name)
            | Self::Unanswered(name) => name,
            Self::Pool(pool) => &pool.name,
            Self::Reason(reason) => reason.word(),
            Self::AndMore => "and more",
        }
    }
}

/// At most so many alerts a rule a target; the rest are one alert *and n more*.
pub const MAX_ALERTS_OF_A_RULE: usize = 32;

/// The rules of one target; `None` is turned off.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// Slots in use of usable ones.
    pub slots: Option<Levels>,
    /// No slot is free.
    pub slots_full: Option<StateRule>,
    /// Somebody was refused, or left without an answer.
    pub logins_refused: Option<LoginsRule>,
    /// Roles near their CONNECTION LIMIT.
    pub role_limit: Option<SubjectRule>,
    /// Databases near their CONNECTION LIMIT.
    pub database_limit: Option<SubjectRule>,
    /// Pools for whose connections somebody waits.
    pub pool_waiting: Option<WaitingRule>,
    /// Pools near their bound.
    pub pool_utilization: Option<UtilizationRule>,
    /// Those who connect may open more than there is.
    pub overcommit: Option<StateRule>,
    /// Sources that give no reading.
    pub source_unreadable: Option<SourceRule>,
}

/// A threshold each for warning and critical; `None` has no such level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The warning level.
    pub warning: Option<Level>,
    /// The critical level.
    pub critical: Option<Level>,
}

/// A threshold and its patience.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Where it is crossed and where it clears.
    pub threshold: Threshold,
    /// `for`: how long it must be above before the alert fires.
    pub hold: Duration,
    /// How long it must be below `clear_below` before the alert resolves.
    pub keep_firing_for: Duration,
}

/// Above `above` is crossed, below `clear_below` is clear, between them nothing changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// A part of what is usable, 0 to 1.
    Ratio {
        /// Crossed above this.
        above: f64,
        /// Clear below this; at most `above`.
        clear_below: f64,
    },
    /// A number of connections.
    Used {
        /// Crossed above this.
        above: u32,
        /// Clear below this; at most `above`.
        clear_below: u32,
    },
}

impl Threshold {
    /// The number of connections above which it is crossed, where there are so many. Not whole in
    /// general: 80 % of 47 is 37.6.
    pub fn mark(&self, of: u32) -> f64 {
        match *self {
            Self::Ratio { above, .. } => above * f64::from(of),
            Self::Used { above, .. } => f64::from(above),
        }
    }
}

/// Levels for all subjects of a rule, and other ones (or none) for some.
#[derive(Clone, Debug, PartialEq)]
pub struct SubjectRule {
    /// For every subject that is not named below.
    pub levels: Levels,
    /// By the subject's name; `None` turns the rule off for it.
    pub subjects: BTreeMap<String, Option<Levels>>,
}

/// A rule whose condition is a state or an occurrence, without a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRule {
    /// How long the condition must hold before the alert fires.
    pub hold: Duration,
    /// How long it must be gone before the alert resolves.
    pub keep_firing_for: Duration,
}

impl SubjectRule {
    /// The levels that hold for a subject.
    pub fn levels_of(&self, subject: &str) -> Option<Levels> {
        self.subjects.get(subject).copied().unwrap_or(Some(self.levels))
    }
}

impl RuleSet {
    /// Every rule turned off: what fires ends, as for a target that is watched no more.
    pub fn off() -> Self {
        Self {
            slots: None,
            slots_full: None,
            logins_refused: None,
            role_limit: None,
            database_limit: None,
            pool_waiting: None,
            pool_utilization: None,
            overcommit: None,
            source_unreadable: None,
        }
    }

    /// The longest `for` of any rule that opens incidents and can fire at a target with these
    /// sources: after so long in good order nothing can be hidden.
    pub fn longest_hold(&self, sources: &Sources) -> Duration {
        let has = |kind| sources.names.iter().any(|name| name.starts_with(kind));
        let has_pools = has("pooler/") || has("app_pool/");
        let has_others = !sources.names.is_empty();
        let of_levels = |l: &Levels| [l.warning, l.critical].into_iter().flatten().map(|l| l.hold);
        let of_subjects = |r: &SubjectRule| {
            let others = r.subjects.values().flatten();
            std::iter::once(&r.levels).chain(others).flat_map(of_levels).max()
        };
        [
            self.slots.as_ref().and_then(|l| of_levels(l).max()),
            self.slots_full.map(|r| r.hold),
            self.logins_refused.filter(|_| has("probe/")).map(|r| r.unanswered_for),
            self.role_limit.as_ref().and_then(of_subjects),
            self.database_limit.as_ref().and_then(of_subjects),
            self.pool_waiting.as_ref().filter(|_| has_pools).map(WaitingRule::longest_hold),
            self.pool_utilization
                .as_ref()
                .filter(|_| has_pools)
                .and_then(|rule| of_subjects(&rule.levels)),
            self.source_unreadable.as_ref().map(|rule| rule.longest_hold(has_others)),
        ]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or_default()
    }
}

/// What a reading says of a rule's condition on one subject, at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Above the line.
    Met,
    /// Not above the line, and not below `clear_below`.
    Between,
    /// Below `clear_below`.
    Clear,
    /// The reading does not tell.
    Unknown,
}

/// How long a condition must be seen, and how long it must be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// `for`.
    pub hold: Duration,
    /// In how many readings at least.
    pub readings: u32,
    /// Time below `clear_below` before the alert resolves.
    pub keep_firing_for: Duration,
}

/// A condition and the patience that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelFinding {
    /// What was seen.
    pub condition: Condition,
    /// How long it must be.
    pub patience: Patience,
}

/// What a reading says of one subject; a level that is `None` is turned off.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// On what.
    pub subject: Subject,
    /// The warning level.
    pub warning: Option<LevelFinding>,
    /// The critical level.
    pub critical: Option<LevelFinding>,
    /// What was measured, in words that stand alone.
    pub observed: String,
    /// Which subjects are named first when there are too many.
    pub weight: f64,
    /// The patience that this finding serves, where that is not the time since the reading before:
    /// the time since the observation before of a source that is slower than readings.
    pub served: Option<Duration>,
}

impl Finding {
    /// Whether some level is above its line.
    pub fn is_met(&self) -> bool {
        self.levels().any(|l| l.condition == Condition::Met)
    }

    /// Whether every level is known and below its `clear_below`.
    pub fn is_clear(&self) -> bool {
        self.levels().all(|l| l.condition == Condition::Clear)
    }

    /// Whether some level is known.
    pub fn is_known(&self) -> bool {
        self.levels().any(|l| l.condition != Condition::Unknown)
    }

    fn levels(&self) -> impl Iterator<Item = &LevelFinding> {
        [&self.warning, &self.critical].into_iter().flatten()
    }
}

/// What a reading says of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Findings {
    /// The rule is turned off.
    Off,
    /// The reading does not tell.
    Unknown,
    /// One for each subject that was seen or has an alert.
    Known(Vec<Finding>),
}

/// What is to be seen of a rule. `alerted` are the subjects that have an alert: each of them gets a
/// finding, since what is absent from a good reading is zero; but for those of sources that are
/// watched no more.
pub fn find(set: &RuleSet, rule: RuleName, look: &Look<'_>, alerted: &[Subject]) -> Findings {
    match rule {
        RuleName::Slots => slots::find(set, look.reading),
        RuleName::SlotsFull => slots_full::find(set, look),
        RuleName::LoginsRefused => logins_refused::find(set, look, alerted),
        RuleName::RoleLimit => limits::find(set, limits::Kind::Role, look.reading, alerted),
        RuleName::DatabaseLimit => limits::find(set, limits::Kind::Database, look.reading, alerted),
        RuleName::PoolWaiting => pool_waiting::find(set, look, alerted),
        RuleName::PoolUtilization => pool_utilization::find(set, look, alerted),
        RuleName::Overcommit => overcommit::find(set, look),
        RuleName::SourceUnreadable => source_unreadable::find(set, look, alerted),
    }
}

/// At most [`MAX_ALERTS_OF_A_RULE`] findings that have an alert or would begin one, the weightiest
/// first; all beyond them are one finding *and n more*. Findings that would begin none are kept
/// only where there is an alert to end.
pub fn bound(findings: Vec<Finding>, alerted: &[Subject]) -> Vec<Finding> {
    let is_known = findings.iter().all(Finding::is_known);
    let (mut kept, mut new): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|f| alerted.contains(&f.subject));
    new.retain(Finding::is_met);
    new.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.subject.cmp(&b.subject)));
    let places = MAX_ALERTS_OF_A_RULE.saturating_sub(kept.len());
    let rest = new.split_off(places.min(new.len()));
    kept.extend(new);
    if let Some(first) = rest.first() {
        let observed = format!("{}, and {} more", first.observed, rest.len() - 1);
        kept.push(Finding { subject: Subject::AndMore, observed, ..first.clone() });
    } else if alerted.contains(&Subject::AndMore) && kept.iter().all(is_no_more) {
        // Those that are not known now may be more.
        let condition = if is_known { Condition::Clear } else { Condition::Unknown };
        let clear = LevelFinding { condition, patience: Patience::default() };
        kept.push(Finding {
            subject: Subject::AndMore,
            warning: Some(clear),
            critical: Some(clear),
            observed: "no more subjects".to_owned(),
            weight: 0.0,
            served: None,
        });
    }
    kept
}

fn is_no_more(finding: &Finding) -> bool {
    finding.subject != Subject::AndMore
}

impl Level {
    /// The finding for so many connections of so many.
    fn finding(&self, used: u32, of: u32) -> LevelFinding {
        let condition = match self.threshold {
            Threshold::Ratio { above, clear_below } => {
                let ratio = if of == 0 { 1.0 } else { f64::from(used) / f64::from(of) };
                compare(ratio, above, clear_below)
            }
            Threshold::Used { above, clear_below } => compare(used, above, clear_below),
        };
        LevelFinding { condition, patience: self.patience() }
    }

    fn patience(&self) -> Patience {
        Patience { hold: self.hold, readings: 1, keep_firing_for: self.keep_firing_for }
    }
}

fn compare<T: PartialOrd + Copy>(value: T, above: T, clear_below: T) -> Condition {
    if above < value {
        Condition::Met
    } else if value < clear_below {
        Condition::Clear
    } else {
        Condition::Between
    }
}
