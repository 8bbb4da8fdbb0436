//! What rules mean: those for all targets with those of one laid over them, key by key, and the
//! lines and patience that come out of it. The rules on pools are in [`super::pool_rules`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Checked, Checker, table};
use crate::judge::rule::{
    Level, Levels, LoginsRule, RuleSet, SourceRule, StateRule, SubjectRule, Threshold,
};
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{
    Raw, RawLevel, RawLevels, RawLoginsRule, RawRules, RawSourceRule, RawStateRule, RawSubjectRule,
};
use crate::settings::value::{Table, Val};

/// Where `clear_below_used` is when it is not set: a tenth under the line.
const CLEARS_A_TENTH_LOWER: u32 = 10;

/// Tables of the same rule, the more general first, each with its path.
pub(super) type Layered<'a, T> = Vec<(Option<&'a Table<T>>, String)>;

/// A value and the path of the key that it was written at.
#[derive(Clone)]
struct Given<T> {
    value: T,
    path: String,
}

/// A level while it is put together. Never holds both a ratio and a number.
#[derive(Clone, Default)]
struct Draft {
    enabled: Option<bool>,
    above: Option<Given<f64>>,
    clear_below: Option<Given<f64>>,
    above_used: Option<Given<u32>>,
    clear_below_used: Option<Given<u32>>,
    hold: Option<Duration>,
    keep_firing_for: Option<Duration>,
}

impl Draft {
    /// Another draft laid over this one.
    fn under(self, over: Self) -> Self {
        let ratio = over.above.is_some() || over.clear_below.is_some();
        let used = over.above_used.is_some() || over.clear_below_used.is_some();
        Self {
            enabled: over.enabled.or(self.enabled),
            above: over.above.or(self.above.filter(|_| !used)),
            clear_below: over.clear_below.or(self.clear_below.filter(|_| !used)),
            above_used: over.above_used.or(self.above_used.filter(|_| !ratio)),
            clear_below_used: over.clear_below_used.or(self.clear_below_used.filter(|_| !ratio)),
            hold: over.hold.or(self.hold),
            keep_firing_for: over.keep_firing_for.or(self.keep_firing_for),
        }
    }
}

impl Checker<'_> {
    /// The rules for all targets, or those of one target, whose own are given with its path.
    pub(super) fn rules(&mut self, raw: &Raw, own: Option<(&RawRules, &str)>) -> Option<RuleSet> {
        let general = table(raw.rules.as_ref());
        let tables = match own {
            Some((own, path)) => vec![(&general, "rules".to_owned()), (own, join(path, "rules"))],
            None => vec![(&general, "rules".to_owned())],
        };
        let slots = self.levels_rule(&pick(&tables, "slots", |rules| rules.slots.as_ref()));
        let slots_full =
            self.state_rule(&pick(&tables, "slots_full", |rules| rules.slots_full.as_ref()));
        let logins_refused = self
            .logins_rule(&pick(&tables, "logins_refused", |rules| rules.logins_refused.as_ref()));
        let role_limit =
            self.subject_rule(&pick(&tables, "role_limit", |rules| rules.role_limit.as_ref()));
        let database_limit = self
            .subject_rule(&pick(&tables, "database_limit", |rules| rules.database_limit.as_ref()));
        let pool_waiting =
            self.waiting_rule(&pick(&tables, "pool_waiting", |rules| rules.pool_waiting.as_ref()));
        let pool_utilization = self.utilization_rule(&pick(&tables, "pool_utilization", |rules| {
            rules.pool_utilization.as_ref()
        }));
        let overcommit =
            self.state_rule(&pick(&tables, "overcommit", |rules| rules.overcommit.as_ref()));
        let source_unreadable = self.source_rule(&pick(&tables, "source_unreadable", |rules| {
            rules.source_unreadable.as_ref()
        }));
        Some(RuleSet {
            slots: slots?,
            slots_full: slots_full?,
            logins_refused: logins_refused?,
            role_limit: role_limit?,
            database_limit: database_limit?,
            pool_waiting: pool_waiting?,
            pool_utilization: pool_utilization?,
            overcommit: overcommit?,
            source_unreadable: source_unreadable?,
        })
    }

    /// `Some(None)` is a rule that is turned off.
    fn levels_rule(&mut self, tables: &Layered<'_, RawLevels>) -> Checked<Option<Levels>> {
        let levels = self.levels(tables)?;
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(levels))
    }

    fn levels(&mut self, tables: &Layered<'_, RawLevels>) -> Option<Levels> {
        let warning = self.level(&pick_level(tables, "warning", |rule| rule.warning.as_ref()));
        let critical = self.level(&pick_level(tables, "critical", |rule| rule.critical.as_ref()));
        Some(Levels { warning: warning?, critical: critical? })
    }

    fn subject_rule(
        &mut self,
        tables: &Layered<'_, RawSubjectRule>,
    ) -> Checked<Option<SubjectRule>> {
        let general = layer(tables, |rule| {
            let (warning, critical) = (rule.warning.clone(), rule.critical.clone());
            RawLevels { enabled: None, warning, critical }
        });
        let rule = self.subject_levels(&general, &named(tables, |rule| rule.subjects.as_ref()))?;
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    /// What holds for every subject, and for those that are named.
    pub(super) fn subject_levels(
        &mut self,
        general: &Owned<RawLevels>,
        named: &Named<'_, RawLevels>,
    ) -> Checked<SubjectRule> {
        let levels = self.levels(&lend(general));
        let mut subjects = BTreeMap::new();
        for (name, own) in named {
            let enabled = is_enabled(own, |rule| rule.enabled.as_ref());
            let own = self.levels(&[lend(general), own.clone()].concat())?;
            subjects.insert(name.clone(), enabled.then_some(own));
        }
        Some(SubjectRule { levels: levels?, subjects })
    }

    fn state_rule(&mut self, tables: &Layered<'_, RawStateRule>) -> Checked<Option<StateRule>> {
        let hold = self.last(tables, "for", |rule| rule.hold.as_ref());
        let keep = self.last(tables, "keep_firing_for", |rule| rule.keep_firing_for.as_ref());
        let rule = StateRule { hold: hold?, keep_firing_for: keep? };
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    /// A refusal has happened and has no length: there is nothing to wait for. A login without an
    /// answer has one.
    fn logins_rule(&mut self, tables: &Layered<'_, RawLoginsRule>) -> Checked<Option<LoginsRule>> {
        let unanswered = self.last(tables, "unanswered_for", |rule| rule.unanswered_for.as_ref());
        let keep = self.last(tables, "keep_firing_for", |rule| rule.keep_firing_for.as_ref());
        let rule = LoginsRule { unanswered_for: unanswered?, keep_firing_for: keep? };
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    fn source_rule(&mut self, tables: &Layered<'_, RawSourceRule>) -> Checked<Option<SourceRule>> {
        let refused =
            self.last(tables, "refused_or_stopped", |rule| rule.refused_or_stopped.as_ref());
        let unreachable =
            self.last(tables, "unreachable_or_slow", |rule| rule.unreachable_or_slow.as_ref());
        let starting = self.last(tables, "starting", |rule| rule.starting.as_ref());
        let others = self.last(tables, "others", |rule| rule.others.as_ref());
        let keep = self.last(tables, "keep_firing_for", |rule| rule.keep_firing_for.as_ref());
        let mut subjects = BTreeMap::new();
        for (name, own) in named(tables, |rule| rule.subjects.as_ref()) {
            if !is_enabled(&own, |rule| rule.enabled.as_ref()) {
                subjects.insert(name, None);
            } else if let Some(Val(hold)) = latest(&own, |rule| rule.hold.as_ref()) {
                subjects.insert(name, Some(*hold));
            }
        }
        let rule = SourceRule {
            refused_or_stopped: refused?,
            unreachable_or_slow: unreachable?,
            starting: starting?,
            others: others?,
            keep_firing_for: keep?,
            subjects,
        };
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    /// The value of a key in the most particular table that has it.
    pub(super) fn last<T, V: Clone>(
        &mut self,
        tables: &Layered<'_, T>,
        key: &str,
        value: impl Fn(&T) -> Option<&Val<V>>,
    ) -> Option<V> {
        self.required(&join(&tables[0].1, key), latest(tables, value))
    }

    fn level(&mut self, tables: &Layered<'_, RawLevel>) -> Checked<Option<Level>> {
        let mut draft = Draft::default();
        for (level, path) in tables {
            if let Some(level) = level {
                draft = draft.under(self.draft(&level.0, path));
            }
        }
        if draft.enabled == Some(false) {
            return Some(None);
        }
        let path = &tables[0].1;
        let threshold = self.threshold(&draft, path);
        let hold = self.required(&join(path, "for"), draft.hold.map(Val).as_ref());
        let keep =
            self.required(&join(path, "keep_firing_for"), draft.keep_firing_for.map(Val).as_ref());
        Some(Some(Level { threshold: threshold?, hold: hold?, keep_firing_for: keep? }))
    }

    /// One table of a level. The files below may have set a ratio where this one sets a number,
    /// and have been merged with it; then the upper one counts.
    fn draft(&mut self, level: &RawLevel, path: &str) -> Draft {
        let mut draft = Draft {
            enabled: level.enabled.as_ref().map(|enabled| enabled.0),
            above: given(level.above.as_ref(), path, "above", |ratio| ratio.0),
            clear_below: given(level.clear_below.as_ref(), path, "clear_below", |ratio| ratio.0),
            above_used: given(level.above_used.as_ref(), path, "above_used", |used| *used),
            clear_below_used: given(
                level.clear_below_used.as_ref(),
                path,
                "clear_below_used",
                |used| *used,
            ),
            hold: level.hold.as_ref().map(|hold| hold.0),
            keep_firing_for: level.keep_firing_for.as_ref().map(|keep| keep.0),
        };
        let order = |path: Option<&String>| path.and_then(|path| self.places.order(path));
        let ratio = order(draft.above.as_ref().map(|given| &given.path))
            .max(order(draft.clear_below.as_ref().map(|given| &given.path)));
        let used = order(draft.above_used.as_ref().map(|given| &given.path))
            .max(order(draft.clear_below_used.as_ref().map(|given| &given.path)));
        if ratio.is_some() && ratio == used {
            let message = "a line is either a ratio or a number of connections, not both";
            self.mistake(
                Mistake::new(path, message)
                    .hint("keep `above` and `clear_below`, or `above_used` and `clear_below_used`"),
            );
        }
        if ratio > used {
            draft.above_used = None;
            draft.clear_below_used = None;
        } else if used.is_some() {
            draft.above = None;
            draft.clear_below = None;
        }
        draft
    }

    fn threshold(&mut self, draft: &Draft, path: &str) -> Option<Threshold> {
        if let Some(clear) = &draft.clear_below_used
            && draft.above_used.is_none()
        {
            let message = "stands without the `above_used` that it belongs to";
            self.missing(Mistake::new(&clear.path, message));
            return None;
        }
        if let Some(above) = &draft.above_used {
            let clear = draft.clear_below_used.clone().unwrap_or_else(|| Given {
                value: above.value - above.value / CLEARS_A_TENTH_LOWER,
                path: above.path.clone(),
            });
            self.ordered(above, &clear);
            return Some(Threshold::Used { above: above.value, clear_below: clear.value });
        }
        let above = draft.above.clone().or_else(|| self.no_line(path, "above"))?;
        let clear = draft.clear_below.clone().or_else(|| self.no_line(path, "clear_below"))?;
        self.ordered(&above, &clear);
        Some(Threshold::Ratio { above: above.value, clear_below: clear.value })
    }

    fn no_line<T>(&mut self, path: &str, key: &str) -> Option<T> {
        self.missing(Mistake::new(join(path, key), "missing"));
        None
    }

    /// An alert clears under the line that it crossed, or it would never stay resolved.
    fn ordered<T: PartialOrd + std::fmt::Display>(&mut self, above: &Given<T>, clear: &Given<T>) {
        if clear.value <= above.value {
            return;
        }
        let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let clear_name = name(&clear.path);
        let mistake = if self.places.is_default(&clear.path) {
            let message = format!(
                "{} lies under `{clear_name}`, which is {} unless it is set",
                above.value, clear.value
            );
            Mistake::new(&above.path, message).hint(format!("set `{clear_name}` too"))
        } else {
            let message = format!(
                "expected at most `{}`, which is {}, found {}",
                name(&above.path),
                above.value,
                clear.value
            );
            Mistake::new(&clear.path, message).hint("an alert clears under the line it crossed")
        };
        self.mistake(mistake);
    }
}

fn given<V, T>(
    value: Option<&Val<V>>,
    path: &str,
    key: &str,
    take: impl Fn(&V) -> T,
) -> Option<Given<T>> {
    value.map(|Val(value)| Given { value: take(value), path: join(path, key) })
}

/// One rule out of each set of rules.
fn pick<'a, T>(
    tables: &[(&'a RawRules, String)],
    key: &str,
    rule: impl Fn(&'a RawRules) -> Option<&'a Table<T>>,
) -> Layered<'a, T> {
    tables.iter().map(|(rules, path)| (rule(rules), join(path, key))).collect()
}

/// One level out of each table of a rule.
pub(super) fn pick_level<'a, T, L>(
    tables: &Layered<'a, T>,
    key: &str,
    level: impl Fn(&'a T) -> Option<&'a Table<L>>,
) -> Layered<'a, L> {
    tables
        .iter()
        .map(|(rule, path)| (rule.and_then(|rule| level(&rule.0)), join(path, key)))
        .collect()
}

/// The value in the most particular table that has one.
fn latest<'a, T, V>(
    tables: &Layered<'a, T>,
    value: impl Fn(&'a T) -> Option<&'a Val<V>>,
) -> Option<&'a Val<V>> {
    tables.iter().rev().find_map(|(table, _)| value(&(*table)?.0))
}

/// What the most particular table says that says anything; a rule is on until it is turned off.
pub(super) fn is_enabled<'a, T>(
    tables: &Layered<'a, T>,
    enabled: impl Fn(&'a T) -> Option<&'a Val<bool>>,
) -> bool {
    latest(tables, enabled).is_none_or(|on| on.0)
}

/// Tables that were made out of others.
pub(super) type Owned<T> = Vec<(Option<Table<T>>, String)>;

/// The tables of each subject that is named somewhere.
pub(super) type Named<'a, T> = BTreeMap<String, Layered<'a, T>>;

/// The part of each table of a rule that holds for every subject.
pub(super) fn layer<T, L>(tables: &Layered<'_, T>, part: impl Fn(&T) -> L) -> Owned<L> {
    let part = |rule: Option<&Table<T>>| rule.map(|rule| Table(part(&rule.0)));
    tables.iter().map(|(rule, path)| (part(*rule), path.clone())).collect()
}

/// The same to look at.
pub(super) fn lend<T>(tables: &Owned<T>) -> Layered<'_, T> {
    tables.iter().map(|(rule, path)| (rule.as_ref(), path.clone())).collect()
}

/// The own tables of each subject that is named in some table of a rule. What is set for one counts
/// before what a target sets for all.
pub(super) fn named<'a, T, L>(
    tables: &Layered<'a, T>,
    subjects: impl Fn(&'a T) -> Option<&'a BTreeMap<String, Table<L>>>,
) -> Named<'a, L> {
    let of = |rule: Option<&'a Table<T>>| rule.and_then(|rule| subjects(&rule.0));
    let names: BTreeSet<&String> =
        tables.iter().filter_map(|(rule, _)| of(*rule)).flat_map(BTreeMap::keys).collect();
    let own = |name: &String| {
        let own = tables.iter().map(|(rule, path)| {
            let own = of(*rule).and_then(|subjects| subjects.get(name));
            (own, join(&join(path, "subjects"), name))
        });
        own.collect()
    };
    names.into_iter().map(|name| (name.clone(), own(name))).collect()
}
