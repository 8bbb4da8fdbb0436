//! What the rules on pools mean: waits in place of parts of a whole, and what is asked besides.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rules::{Layered, is_enabled, layer, lend, named, pick_level};
use super::{Checked, Checker};
use crate::judge::rule::{UtilizationRule, WaitLevel, WaitLevels, WaitingRule};
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{
    RawLevels, RawUtilizationRule, RawWaitLevel, RawWaitLevels, RawWaitingRule,
};
use crate::settings::value::Val;

impl Checker<'_> {
    pub(super) fn utilization_rule(
        &mut self,
        tables: &Layered<'_, RawUtilizationRule>,
    ) -> Checked<Option<UtilizationRule>> {
        let general = layer(tables, |rule| {
            let (warning, critical) = (rule.warning.clone(), rule.critical.clone());
            RawLevels { enabled: None, warning, critical }
        });
        let alone = self.last(tables, "alone", |rule| rule.alone.as_ref());
        let levels = self.subject_levels(&general, &named(tables, |rule| rule.subjects.as_ref()));
        let rule = UtilizationRule { levels: levels?, alone: alone? };
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    pub(super) fn waiting_rule(
        &mut self,
        tables: &Layered<'_, RawWaitingRule>,
    ) -> Checked<Option<WaitingRule>> {
        let general = layer(tables, |rule| {
            let (warning, critical) = (rule.warning.clone(), rule.critical.clone());
            RawWaitLevels { enabled: None, warning, critical }
        });
        let timeouts = self.last(tables, "timeouts", |rule| rule.timeouts.as_ref());
        let levels = self.wait_levels(&lend(&general));
        let mut subjects = BTreeMap::new();
        for (name, own) in named(tables, |rule| rule.subjects.as_ref()) {
            let enabled = is_enabled(&own, |rule| rule.enabled.as_ref());
            let own = self.wait_levels(&[lend(&general), own].concat())?;
            subjects.insert(name, enabled.then_some(own));
        }
        let rule = WaitingRule { levels: levels?, subjects, timeouts: timeouts? };
        Some(is_enabled(tables, |rule| rule.enabled.as_ref()).then_some(rule))
    }

    fn wait_levels(&mut self, tables: &Layered<'_, RawWaitLevels>) -> Checked<WaitLevels> {
        let warning = self.wait_level(&pick_level(tables, "warning", |rule| rule.warning.as_ref()));
        let critical =
            self.wait_level(&pick_level(tables, "critical", |rule| rule.critical.as_ref()));
        Some(WaitLevels { warning: warning?, critical: critical? })
    }

    /// `Some(None)` is a level that is turned off.
    fn wait_level(&mut self, tables: &Layered<'_, RawWaitLevel>) -> Checked<Option<WaitLevel>> {
        if !is_enabled(tables, |level| level.enabled.as_ref()) {
            return Some(None);
        }
        let above = self.last(tables, "above", |level| level.above.as_ref());
        let clear = self.last(tables, "clear_below", |level| level.clear_below.as_ref());
        let hold = self.last(tables, "for", |level| level.hold.as_ref());
        let keep = self.last(tables, "keep_firing_for", |level| level.keep_firing_for.as_ref());
        let clients =
            tables.iter().rev().find_map(|(level, _)| level.as_ref()?.0.above_clients.as_ref());
        let (above, clear_below) = (above?, clear?);
        self.ordered_waits(tables, above, clear_below);
        Some(Some(WaitLevel {
            above,
            above_clients: clients.map(|Val(ratio)| ratio.0),
            clear_below,
            hold: hold?,
            keep_firing_for: keep?,
        }))
    }

    /// An alert clears under the line that it crossed, or it would never stay resolved.
    fn ordered_waits(
        &mut self,
        tables: &Layered<'_, RawWaitLevel>,
        above: Duration,
        clear_below: Duration,
    ) {
        if clear_below <= above {
            return;
        }
        let written = |key: fn(&RawWaitLevel) -> bool| {
            tables.iter().rev().find(|(level, _)| level.is_some_and(|level| key(&level.0)))
        };
        let path = written(|level| level.clear_below.is_some()).map(|(_, path)| path);
        let path = join(path.unwrap_or(&tables[0].1), "clear_below");
        let [above, clear] = [above, clear_below].map(humantime::format_duration);
        let mistake = if self.places.is_default(&path) {
            let above_path = written(|level| level.above.is_some()).map(|(_, path)| path);
            let path = join(above_path.unwrap_or(&tables[0].1), "above");
            let message =
                format!("{above} lies under `clear_below`, which is {clear} unless it is set");
            Mistake::new(path, message).hint("set `clear_below` too")
        } else {
            let message = format!("expected at most `above`, which is {above}, found {clear}");
            Mistake::new(path, message).hint("an alert clears under the line it crossed")
        };
        self.mistake(mistake);
    }
}
