//! The targets under watch: each a source and a loop; started, changed and ended as settings say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::judge::Rules;
use plimsoll_core::judge::rule::{RuleSet, SourceRule};
use plimsoll_core::reading::Logins;
use plimsoll_core::reading::postgres::Observation;
use plimsoll_core::settings::{Fallback, Settings, TargetSettings};
use plimsoll_core::status::Published;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::beside::{Beside, Told};
use super::rules::rules_of;
use super::stopped;
use super::supervise::{Ended, supervise};
use super::watch::{Watch, take_failure};
use crate::collect::app_pool::AppPoolSource;
use crate::collect::conninfo::{ConnInfo, ConnInfoError};
use crate::collect::log::LogSource;
use crate::collect::mailbox::Mailbox;
use crate::collect::pooler::PoolerSource;
use crate::collect::postgres::{Source, SourceSettings};
use crate::collect::probe::ProbeSource;
use crate::health::Health;
use crate::serve;
use crate::store::Store;

/// A target cannot be watched as it was set.
#[derive(Debug, thiserror::Error)]
#[error("preparing the target {name}")]
pub struct TargetError {
    name: String,
    source: ConnInfoError,
}

/// All targets under watch.
pub(super) struct Targets {
    store: Store,
    health: Health,
    running: BTreeMap<String, Running>,
    shown: channel::Sender<Arc<serve::Targets>>,
}

/// One target under watch. A reload changes what it is told; nothing of it is started anew.
struct Running {
    rules: channel::Sender<Arc<Rules>>,
    source: channel::Sender<Arc<SourceSettings>>,
    published: channel::Receiver<Arc<Published>>,
    stop: channel::Sender<bool>,
    tasks: JoinSet<()>,
    beside: Beside,
}

impl Running {
    async fn stop(mut self, name: &str, health: &Health) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.beside.stop(name, health).await;
    }
}

impl Targets {
    pub(super) fn new(
        store: Store,
        health: Health,
        shown: channel::Sender<Arc<serve::Targets>>,
    ) -> Self {
        Self { store, health, running: BTreeMap::new(), shown }
    }

    /// Whether all targets can be watched as they are set.
    pub(super) fn check(settings: &Settings) -> Result<(), TargetError> {
        settings.targets.iter().try_for_each(|target| {
            source_of(target, settings)?;
            told(target, settings).map(drop)
        })
    }

    /// Watches what these settings name, as they say, and nothing else.
    pub(super) async fn apply(&mut self, settings: &Settings) -> Result<(), TargetError> {
        Self::check(settings)?;
        for target in &settings.targets {
            let rules = Arc::new(rules_of(settings, target));
            let source = Arc::new(source_of(target, settings)?);
            let told = told(target, settings)?;
            if let Some(running) = self.running.get_mut(&target.name) {
                running.beside.apply(&target.name, told, &self.health);
                running.rules.send_replace(rules);
                running.source.send_if_modified(|told| {
                    let changes = **told != *source;
                    *told = source;
                    changes
                });
            } else {
                let running = self.start(target, rules, source, told);
                self.running.insert(target.name.clone(), running);
            }
        }
        self.leave(settings).await;
        let shown = self.running.iter().map(|(name, r)| (name.clone(), r.published.clone()));
        self.shown.send_replace(Arc::new(shown.collect()));
        Ok(())
    }

    /// Ends what is watched but not named any more, and the incidents of all that is kept of such
    /// targets: nobody else will.
    async fn leave(&mut self, settings: &Settings) {
        let is_named = |name: &str| settings.targets.iter().any(|t| t.name == name);
        let gone: Vec<String> =
            self.running.keys().filter(|name| !is_named(name)).cloned().collect();
        // All at once: one whose server does not even take a goodbye takes its time.
        for running in gone.iter().filter_map(|name| self.running.get(name)) {
            running.stop.send_replace(true);
        }
        for name in gone {
            tracing::info!(db = name.as_str(), "not watched any more");
            if let Some(running) = self.running.remove(&name) {
                running.stop(&name, &self.health).await;
            }
            self.health.values().loops.remove(&name);
        }
        for name in self.store.targets().into_iter().filter(|name| !is_named(name)) {
            let unnamed = unnamed(settings, &name);
            take_failure(&self.store, &unnamed, None, "not watched any more").await;
        }
    }

    fn start(
        &self,
        target: &TargetSettings,
        rules: Arc<Rules>,
        source: Arc<SourceSettings>,
        told: Told,
    ) -> Running {
        let (stop, stopped) = channel::channel(false);
        let (trouble, troubled) = channel::channel(false);
        let (rules, rules_seen) = channel::channel(rules);
        let (source, source_seen) = channel::channel(source);
        let (give_up, given_up) = channel::channel(false);
        let before = Published::before_the_first_reading(&target.name, target.labels.clone());
        let (publish, published) = channel::channel(Arc::new(before));
        let mailbox = Mailbox::new();
        let (slots, slots_seen) = channel::channel(None);
        let (mut beside, beside_seen) = Beside::new(slots_seen);
        beside.apply(&target.name, told, &self.health);
        let reading = Reading {
            name: target.name.clone(),
            settings: source_seen.clone(),
            mailbox: mailbox.clone(),
            trouble: troubled,
            health: self.health.clone(),
            stop: stopped.clone(),
        };
        let watch = Watch {
            target: target.name.clone(),
            rules: rules_seen,
            source: source_seen,
            mailbox,
            beside: beside_seen,
            slots,
            store: self.store.clone(),
            health: self.health.clone(),
            published: publish,
            logging: beside.logging(),
            trouble,
            stop: stopped,
        };
        // Before anybody can ask for it: a target without a loop is one that is not watched.
        watch.mark_turn();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_reading(reading, give_up));
        tasks.spawn(keep_watching(watch, given_up));
        Running { rules, source, published, stop, tasks, beside }
    }

    /// Ends all loops; what they served is committed.
    pub(super) async fn stop(self) {
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        for (name, running) in self.running {
            running.stop(&name, &self.health).await;
        }
    }
}

/// What the source of a target is told.
pub(crate) fn source_of(
    target: &TargetSettings,
    settings: &Settings,
) -> Result<SourceSettings, TargetError> {
    let poll = settings.poll;
    let conninfo = ConnInfo::parse_in(&target.postgres, &settings.surroundings)
        .map_err(|source| TargetError { name: target.name.clone(), source })?;
    Ok(SourceSettings {
        conninfo,
        password: target.password.clone(),
        interval: poll.interval,
        timeout: poll.timeout,
        budget: poll.budget,
        fallback: target.fallback,
    })
}

/// What the other sources of a target are told.
pub(crate) fn told(target: &TargetSettings, settings: &Settings) -> Result<Told, TargetError> {
    let failed = |source| TargetError { name: target.name.clone(), source };
    let mut told = Told::default();
    if let Some(log) = &target.log {
        told.logs.insert("log".to_owned(), LogSource::of(log, settings));
    }
    for probe in &target.probes {
        let source = ProbeSource::of(probe, &settings.surroundings).map_err(failed)?;
        told.probes.insert(probe.name.clone(), source);
    }
    for pooler in &target.poolers {
        let source = PoolerSource::of(pooler, &settings.surroundings).map_err(failed)?;
        told.poolers.insert(pooler.name.clone(), source);
    }
    for pool in &target.app_pools {
        let source = AppPoolSource::of(pool);
        told.app_pools.insert(pool.application.clone(), source);
    }
    Ok(told)
}

/// Everything that the source of one target needs. Cloned when it is started again.
struct Reading {
    name: String,
    settings: channel::Receiver<Arc<SourceSettings>>,
    mailbox: Mailbox<Observation, Logins>,
    trouble: channel::Receiver<bool>,
    health: Health,
    stop: channel::Receiver<bool>,
}

async fn keep_reading(reading: Reading, give_up: channel::Sender<bool>) {
    let start = || {
        let mut stop = reading.stop.clone();
        let (settings, mailbox) = (reading.settings.clone(), reading.mailbox.clone());
        let source = Source::new(settings, mailbox, reading.trouble.clone());
        // Its lines in the log name the target.
        let span = tracing::info_span!("source", db = reading.name);
        source.run(async move { stopped(&mut stop).await }).instrument(span)
    };
    let count = || count_restart(&reading.health, &reading.name);
    if supervise(&reading.name, start, count).await == Ended::GivenUp {
        // A loop without a source would say that the server is silent, and that is not known.
        give_up.send_replace(true);
    }
}

/// Returns when the source was given up; never when it just ended.
async fn until_given_up(mut given_up: channel::Receiver<bool>) {
    if given_up.wait_for(|given_up| *given_up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn keep_watching(watch: Watch, given_up: channel::Receiver<bool>) {
    let (name, health) = (watch.target.clone(), watch.health.clone());
    let count = || count_restart(&health, &name);
    let ended = tokio::select! {
        ended = supervise(&name, || watch.clone().run(), count) => ended,
        () = until_given_up(given_up) => Ended::GivenUp,
    };
    if ended == Ended::GivenUp {
        if let Some(one) = health.values().loops.get_mut(&name) {
            one.blind = true;
        }
        let rules = blind(&watch.rules.borrow());
        let text = "plimsoll failed three times at this target and does not watch it any more";
        take_failure(&watch.store, &rules, Some(&watch.published), text).await;
    }
}

pub(super) fn count_restart(health: &Health, name: &str) {
    if let Some(one) = health.values().loops.get_mut(name) {
        one.restarts = one.restarts.saturating_add(1);
    }
}

/// The rules of a target that nobody watches: one alert, at once.
fn blind(rules: &Rules) -> Rules {
    let at_once = SourceRule {
        refused_or_stopped: Duration::ZERO,
        unreachable_or_slow: Duration::ZERO,
        starting: Duration::ZERO,
        others: Duration::ZERO,
        keep_firing_for: Duration::ZERO,
        subjects: BTreeMap::new(),
    };
    let set = RuleSet { source_unreadable: Some(at_once), ..rules.set.clone() };
    Rules { set, ..rules.clone() }
}

/// The rules of a target that settings do not name: none, so that what fires there ends.
fn unnamed(settings: &Settings, name: &str) -> Rules {
    let named = TargetSettings {
        name: name.to_owned(),
        named_by_default: false,
        postgres: plimsoll_core::settings::Secret::new(""),
        password: None,
        fallback: Fallback::None,
        log: None,
        probes: Vec::new(),
        poolers: Vec::new(),
        app_pools: Vec::new(),
        labels: BTreeMap::new(),
        rules: RuleSet::off(),
    };
    rules_of(settings, &named)
}
