//! What `run` publishes of a target after each reading: the public form, and what `/metrics` is made
//! of. Counts go on from one to the next; everything else is of the newest reading.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::beside::{attempt_outcome, pools, probes};
use super::pooler::poolers;
use super::{
    AlertStatus, BottleneckStatus, IncidentStatus, LogSeen, LogStatus, ServerStatus, SlotsStatus,
    SourceStatus, TargetStatus, holders,
};
use crate::judge::alert::{Alert, AlertState};
use crate::judge::pool::{Keeper, PoolName, PoolState};
use crate::judge::rule::{RuleSet, words};
use crate::judge::source::{POSTGRES, Standing, Trouble, standings};
use crate::judge::{Rules, Severity, State, Verdict, refusal};
use crate::reading::log::Lines;
use crate::reading::{Reading, Refusal};

/// At most so many pools have a count of those who gave up waiting; it is never forgotten, so that
/// it does not fall.
const MAX_POOLS_COUNTED: usize = 1000;

/// What `run` publishes of a target after each reading, and `serve` reads.
#[derive(Clone, Debug)]
pub struct Published {
    /// The public form.
    pub status: TargetStatus,
    /// The reading behind it; `None` before the first.
    pub reading: Option<Reading>,
    /// The last reading in which the server itself could be read, with its time.
    pub last_success_at: Option<Timestamp>,
    /// When each other source was last read well.
    pub beside_success_at: BTreeMap<String, Timestamp>,
    /// Refused logins since the start, by reason, each counted once: see [`refusal::counted`].
    pub refused_total: BTreeMap<Refusal, u64>,
    /// Readings since the start, by whether the server could be read: `ok` or the failure's word.
    pub readings_total: BTreeMap<&'static str, u64>,
    /// What the log said since the start. Shared with what was published before, until it says
    /// more.
    pub log: Arc<LogSeen>,
    /// Logins of probes since the start, by the probe's name and how they went.
    pub probe_logins_total: BTreeMap<(String, &'static str), u64>,
    /// Those who gave up waiting since the start, by pool; at most a thousand pools.
    pub timeouts_total: BTreeMap<PoolName, u64>,
    /// The pools that are known.
    pub pools: Vec<PoolState>,
    /// Pools of applications for whose counters there was no room.
    pub pools_left_out: u32,
    /// The slots in use above which the rule `slots` is crossed, by severity; without those that
    /// are turned off, and empty while slots are unknown.
    pub slots_marks: BTreeMap<Severity, f64>,
}

impl Published {
    /// A target of which nothing was read yet.
    pub fn before_the_first_reading(name: &str, labels: BTreeMap<String, String>) -> Self {
        let status = TargetStatus {
            name: name.to_owned(),
            severity: "unknown".to_owned(),
            labels,
            server: None,
            slots: None,
            read_at: None,
            sources: Vec::new(),
            holders: Vec::new(),
            bottleneck: None,
            pools: Vec::new(),
            probes: Vec::new(),
            poolers: Vec::new(),
            log: None,
            alerts: Vec::new(),
            incident: None,
        };
        Self {
            status,
            reading: None,
            last_success_at: None,
            beside_success_at: BTreeMap::new(),
            refused_total: BTreeMap::new(),
            readings_total: BTreeMap::new(),
            log: Arc::default(),
            probe_logins_total: BTreeMap::new(),
            timeouts_total: BTreeMap::new(),
            pools: Vec::new(),
            pools_left_out: 0,
            slots_marks: BTreeMap::new(),
        }
    }
}

impl Published {
    /// The public form after a reading, following on what was published before.
    pub fn after(&self, reading: Reading, rules: &Rules, state: &State, verdict: &Verdict) -> Self {
        let target = &rules.target;
        let standings = standings(&reading);
        let known = reading.postgres.known();
        let is_success = reading.postgres.fresh && known.is_some();
        let last_success_at = if is_success { Some(reading.at) } else { self.last_success_at };
        let mut after = Self {
            last_success_at,
            beside_success_at: self.beside_success_at.clone(),
            refused_total: self.refused_total.clone(),
            readings_total: self.readings_total.clone(),
            log: Arc::clone(&self.log),
            probe_logins_total: self.probe_logins_total.clone(),
            timeouts_total: self.timeouts_total.clone(),
            pools: verdict.pools.clone(),
            pools_left_out: state.memory.counters.left_out,
            slots_marks: known
                .map(|seen| slots_marks(&rules.set, seen.slots().usable))
                .unwrap_or_default(),
            ..Self::before_the_first_reading(&target.name, target.labels.clone())
        };
        after.count(&reading, &standings);
        after.status = TargetStatus {
            severity: severity(state, known.is_some()).to_owned(),
            server: known.map(|seen| ServerStatus::from_server(&seen.server, state.memory.switch)),
            slots: known.map(|seen| SlotsStatus::from_slots(seen.slots())),
            read_at: Some(reading.at),
            sources: after.sources(&reading, &standings, rules),
            holders: known.map(holders).unwrap_or_default(),
            bottleneck: Some(BottleneckStatus::from_found(&verdict.bottleneck)),
            pools: pools(&verdict.pools),
            probes: probes(&reading),
            poolers: poolers(&reading),
            log: reading.log.as_ref().map(|log| LogStatus::of(&after.log, log)),
            alerts: state.episode.alerts.iter().map(AlertStatus::from_alert).collect(),
            incident: verdict.open.as_ref().map(IncidentStatus::from_report),
            ..after.status
        };
        Self { reading: Some(reading), ..after }
    }

    /// Counts what happened since the reading before.
    fn count(&mut self, reading: &Reading, standings: &[Standing]) {
        let server = standings.iter().find(|standing| standing.name == POSTGRES);
        add(&mut self.readings_total, server.map_or("unknown", Standing::word), 1);
        for login in refusal::counted(reading) {
            add(&mut self.refused_total, login.reason, login.count.into());
        }
        if let Some(log) = &reading.log
            && log.happened != Lines::default()
        {
            Arc::make_mut(&mut self.log).add(reading.at, &log.happened);
        }
        for probe in &reading.probes {
            for attempt in &probe.happened.0 {
                let outcome = attempt_outcome(&attempt.outcome);
                add(&mut self.probe_logins_total, (probe.name.clone(), outcome), 1);
            }
        }
        let counted = |pool: &&PoolState| pool.fresh && pool.keeper == Keeper::Application;
        for pool in self.pools.iter().filter(counted) {
            let is_known = self.timeouts_total.contains_key(&pool.name);
            if is_known || self.timeouts_total.len() < MAX_POOLS_COUNTED {
                add(&mut self.timeouts_total, pool.name.clone(), pool.timeouts);
            }
        }
        for standing in standings.iter().filter(|it| it.fresh && it.trouble.is_none()) {
            self.beside_success_at.insert(standing.name.clone(), reading.at);
        }
        self.beside_success_at.retain(|name, _| standings.iter().any(|it| it.name == *name));
    }

    /// Every source: those that have left something, and those that settings name besides.
    fn sources(
        &self,
        reading: &Reading,
        standings: &[Standing],
        rules: &Rules,
    ) -> Vec<SourceStatus> {
        let refused = reading.postgres.known().and_then(|seen| seen.fallback);
        let read = standings.iter().map(|standing| SourceStatus {
            source: standing.name.clone(),
            state: standing.word().to_owned(),
            error: standing.trouble.as_ref().map(|trouble| match trouble {
                Trouble::Stale => format!("no answer for {}", words::spell(standing.age)),
                Trouble::Failed(failure) => failure.text.clone(),
            }),
            last_success_at: match standing.name.as_str() {
                POSTGRES => self.last_success_at,
                name => self.beside_success_at.get(name).copied(),
            },
            age_seconds: Some(standing.age.as_secs_f64()),
            fallback: refused
                .filter(|_| standing.name == POSTGRES)
                .map(|reason| reason.word().to_owned()),
        });
        let is_unread = |name: &&String| standings.iter().all(|it| it.name != **name);
        let unread = rules.sources.names.iter().filter(is_unread).map(|name| SourceStatus {
            source: name.clone(),
            state: "unread".to_owned(),
            error: None,
            last_success_at: None,
            age_seconds: None,
            fallback: None,
        });
        read.chain(unread).collect()
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, more: u64) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(more);
}

fn slots_marks(set: &RuleSet, usable: u32) -> BTreeMap<Severity, f64> {
    let Some(levels) = set.slots else { return BTreeMap::new() };
    let marked = [(Severity::Warning, levels.warning), (Severity::Critical, levels.critical)];
    let marks = marked.into_iter().filter_map(|(severity, level)| Some((severity, level?)));
    marks.map(|(severity, level)| (severity, level.threshold.mark(usable))).collect()
}

/// The highest severity of what fires; `unknown` if nothing does and the server is not readable.
fn severity(state: &State, known: bool) -> &'static str {
    let firing = state.episode.alerts.iter().filter(|a| a.state() == AlertState::Firing);
    match firing.map(Alert::severity).max() {
        Some(severity) => severity.word(),
        None if known => "ok",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::rule::{Level, Levels, Threshold};

    #[track_caller]
    fn check(warning: Option<Threshold>, critical: Option<Threshold>, marks: &[(Severity, f64)]) {
        let level = |threshold: Threshold| {
            let zero = Duration::ZERO;
            Level { threshold, hold: zero, keep_firing_for: zero }
        };
        let levels = Levels { warning: warning.map(level), critical: critical.map(level) };
        let set = RuleSet { slots: Some(levels), ..RuleSet::off() };
        assert_eq!(slots_marks(&set, 50), marks.iter().copied().collect());
    }

    #[test]
    fn a_mark_is_where_the_rule_is_crossed() {
        let ratio = Some(Threshold::Ratio { above: 0.75, clear_below: 0.7 });
        let used = Some(Threshold::Used { above: 32, clear_below: 28 });
        check(ratio, used, &[(Severity::Warning, 37.5), (Severity::Critical, 32.0)]);
        check(None, ratio, &[(Severity::Critical, 37.5)]);
        check(None, None, &[]);
        assert!(slots_marks(&RuleSet::off(), 50).is_empty());
    }
}
