//! The rules: conditions with a threshold and patience. A file a rule; this one holds what they
//! share and calls them.
//!
//! A rule looks at a reading and says what it found on each subject. It does not know how long
//! that has been so: patience is [`super::alert`]'s.

mod limits;
mod logins_refused;
mod slots;
mod slots_full;
mod source_unreadable;
pub mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reading::{Reading, Refusal};

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
    /// A source gives no reading.
    SourceUnreadable,
}

impl RuleName {
    /// Every rule, in the order in which they are judged and shown.
    pub const ALL: [Self; 6] = [
        Self::Slots,
        Self::SlotsFull,
        Self::LoginsRefused,
        Self::RoleLimit,
        Self::DatabaseLimit,
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
            Self::SourceUnreadable => "source_unreadable",
        }
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
    /// All subjects beyond the first [`MAX_ALERTS_OF_A_RULE`] of a rule.
    AndMore,
}

impl Subject {
    /// The subject in JSON and metrics; the target's own subject is the empty string.
    pub fn word(&self) -> &str {
        match self {
            Self::Target => "",
            Self::Source(name) | Self::Role(name) | Self::Database(name) => name,
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
    /// Somebody was refused.
    pub logins_refused: Option<StateRule>,
    /// Roles near their CONNECTION LIMIT.
    pub role_limit: Option<SubjectRule>,
    /// Databases near their CONNECTION LIMIT.
    pub database_limit: Option<SubjectRule>,
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

/// Patience with a source that cannot be read, by the kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// The server refuses us, or is stopped.
    pub refused_or_stopped: Duration,
    /// No way to it, no answer in time, a lock in the way, or not allowed.
    pub unreachable_or_slow: Duration,
    /// Starting up or recovering.
    pub starting: Duration,
    /// How long it must be readable before the alert resolves.
    pub keep_firing_for: Duration,
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
            source_unreadable: None,
        }
    }

    /// The longest `for` of any rule: after so long in good order nothing can be hidden.
    pub fn longest_hold(&self) -> Duration {
        let of_levels = |l: &Levels| [l.warning, l.critical].into_iter().flatten().map(|l| l.hold);
        let of_subjects = |r: &SubjectRule| {
            let others = r.subjects.values().flatten();
            std::iter::once(&r.levels).chain(others).flat_map(of_levels).max()
        };
        [
            self.slots.as_ref().and_then(|l| of_levels(l).max()),
            self.slots_full.map(|r| r.hold),
            self.logins_refused.map(|r| r.hold),
            self.role_limit.as_ref().and_then(of_subjects),
            self.database_limit.as_ref().and_then(of_subjects),
            self.source_unreadable
                .map(|r| r.refused_or_stopped.max(r.unreachable_or_slow).max(r.starting)),
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

/// What the reading says of a rule. `alerted` are the subjects that have an alert: each of them
/// gets a finding, since what is absent from a good reading is zero.
pub fn find(set: &RuleSet, rule: RuleName, reading: &Reading, alerted: &[Subject]) -> Findings {
    match rule {
        RuleName::Slots => slots::find(set, reading),
        RuleName::SlotsFull => slots_full::find(set, reading),
        RuleName::LoginsRefused => logins_refused::find(set, reading, alerted),
        RuleName::RoleLimit => limits::find(set, limits::Kind::Role, reading, alerted),
        RuleName::DatabaseLimit => limits::find(set, limits::Kind::Database, reading, alerted),
        RuleName::SourceUnreadable => source_unreadable::find(set, reading),
    }
}

/// At most [`MAX_ALERTS_OF_A_RULE`] findings that have an alert or would begin one, the weightiest
/// first; all beyond them are one finding *and n more*. Findings that would begin none are kept
/// only where there is an alert to end.
pub fn bound(findings: Vec<Finding>, alerted: &[Subject]) -> Vec<Finding> {
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
        let clear = LevelFinding { condition: Condition::Clear, patience: Patience::default() };
        kept.push(Finding {
            subject: Subject::AndMore,
            warning: Some(clear),
            critical: Some(clear),
            observed: "no more subjects".to_owned(),
            weight: 0.0,
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
