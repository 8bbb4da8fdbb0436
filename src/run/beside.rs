//! The sources of a target beside the server itself: its log, probes, poolers, applications' pools.
//!
//! Each has a task and a mailbox of one place; a slow one delays no other. A reload ends those that
//! are not named any more and begins anew those that are told something else. [`super::targets`]
//! starts them, [`super::watch`] composes what they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_core::reading::postgres::{Logging, Slots};
use plimsoll_core::reading::{Failure, FailureKind, Reading, Sourced};
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::stopped;
use super::supervise::{Ended, supervise};
use crate::clock;
use crate::collect::SideSource;
use crate::collect::app_pool::AppPoolSource;
use crate::collect::log::{LogSource, ServerLogging};
use crate::collect::mailbox::{Delivery, Latest, Mailbox};
use crate::collect::pooler::PoolerSource;
use crate::collect::probe::ProbeSource;
use crate::health::Health;

/// So many probes that were taken out of the settings are remembered.
const MAX_LEFT: usize = 64;

/// What the sources of one target are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// By their names, as all of them.
    pub(crate) logs: BTreeMap<String, LogSource>,
    pub(crate) probes: BTreeMap<String, ProbeSource>,
    pub(crate) poolers: BTreeMap<String, PoolerSource>,
    pub(crate) app_pools: BTreeMap<String, AppPoolSource>,
}

/// The running sources of one target.
pub(super) struct Beside {
    logs: Kind<LogSource>,
    probes: Kind<ProbeSource>,
    poolers: Kind<PoolerSource>,
    app_pools: Kind<AppPoolSource>,
    mailboxes: channel::Sender<Arc<Mailboxes>>,
    /// What the server itself shows, for those that heed it; `None` while that is unknown.
    slots: channel::Receiver<Option<Slots>>,
    /// Probes that are not named any more.
    left: BTreeMap<String, ProbeSource>,
    logging: channel::Sender<Option<Arc<Logging>>>,
}

/// The mailboxes of one target's sources.
#[derive(Default)]
pub(super) struct Mailboxes {
    logs: Boxes<LogSource>,
    probes: Boxes<ProbeSource>,
    poolers: Boxes<PoolerSource>,
    app_pools: Boxes<AppPoolSource>,
}

/// What each source gave last.
#[derive(Default)]
pub(super) struct LatestBeside {
    logs: Known<LogSource>,
    probes: Known<ProbeSource>,
    poolers: Known<PoolerSource>,
    app_pools: Known<AppPoolSource>,
}

type Box<S> = Mailbox<<S as SideSource>::Seen, <S as SideSource>::Happened>;
type Boxes<S> = BTreeMap<String, Box<S>>;
type Known<S> = BTreeMap<String, Latest<<S as SideSource>::Seen, <S as SideSource>::Happened>>;
type Composed<S> = Vec<Sourced<<S as SideSource>::Seen, <S as SideSource>::Happened>>;

impl Beside {
    /// None yet, and where their mailboxes will be. They heed what the server shows of its slots.
    pub(super) fn new(
        slots: channel::Receiver<Option<Slots>>,
    ) -> (Self, channel::Receiver<Arc<Mailboxes>>) {
        let (mailboxes, seen) = channel::channel(Arc::default());
        let beside = Self {
            logs: Kind::default(),
            probes: Kind::default(),
            poolers: Kind::default(),
            app_pools: Kind::default(),
            mailboxes,
            slots,
            left: BTreeMap::new(),
            logging: channel::channel(None).0,
        };
        (beside, seen)
    }

    /// Where the server's word on its log goes, for the source that follows it.
    pub(super) fn logging(&self) -> channel::Sender<Option<Arc<Logging>>> {
        self.logging.clone()
    }

    /// Runs those that are named, as they are told, and no others.
    pub(super) fn apply(&mut self, target: &str, mut told: Told, health: &Health) {
        for log in told.logs.values_mut() {
            log.server = ServerLogging(self.logging.subscribe());
        }
        self.logs.apply(target, told.logs, health);
        // One that is named again later may still have a login that nobody has answered.
        for (name, running) in &self.probes.running {
            if !told.probes.contains_key(name) && self.left.len() < MAX_LEFT {
                self.left.insert(name.clone(), running.told.clone());
            }
        }
        let probes = told.probes.into_iter().map(|(name, probe)| {
            let before = self.probes.running.get(&name).map(|running| &running.told);
            let before = before.or(self.left.get(&name));
            let probe = probe.in_place_of(before, self.slots.clone());
            (name, probe)
        });
        let probes = probes.collect();
        self.probes.apply(target, probes, health);
        self.poolers.apply(target, told.poolers, health);
        self.app_pools.apply(target, told.app_pools, health);
        self.mailboxes.send_replace(Arc::new(Mailboxes {
            logs: self.logs.mailboxes(),
            probes: self.probes.mailboxes(),
            poolers: self.poolers.mailboxes(),
            app_pools: self.app_pools.mailboxes(),
        }));
    }

    /// Ends all, and waits for it.
    pub(super) async fn stop(mut self, target: &str, health: &Health) {
        self.apply(target, Told::default(), health);
        self.logs.ended().await;
        self.probes.ended().await;
        self.poolers.ended().await;
        self.app_pools.ended().await;
    }
}

impl LatestBeside {
    /// Takes what arrived and puts what is known into the reading.
    pub(super) fn compose(&mut self, boxes: &Mailboxes, reading: &mut Reading, now: Instant) {
        reading.log = compose::<LogSource>(&mut self.logs, &boxes.logs, now).pop();
        reading.probes = compose::<ProbeSource>(&mut self.probes, &boxes.probes, now);
        reading.poolers = compose::<PoolerSource>(&mut self.poolers, &boxes.poolers, now);
        reading.app_pools = compose::<AppPoolSource>(&mut self.app_pools, &boxes.app_pools, now);
    }
}

/// What is known of each source of a kind; nothing of those that have left nothing yet.
fn compose<S: SideSource>(known: &mut Known<S>, boxes: &Boxes<S>, now: Instant) -> Composed<S> {
    known.retain(|name, _| boxes.contains_key(name));
    let composed = boxes.iter().map(|(name, mailbox)| {
        let composed = known.entry(name.clone()).or_default().compose(mailbox, now)?;
        Some(Sourced { name: name.clone(), part: composed.part, happened: composed.happened })
    });
    composed.flatten().collect()
}

/// The running sources of one kind, by their names.
struct Kind<S: SideSource> {
    running: BTreeMap<String, Running<S>>,
    /// Tasks that are ending.
    ending: JoinSet<()>,
}

struct Running<S: SideSource> {
    told: S,
    mailbox: Box<S>,
    stop: channel::Sender<bool>,
    task: JoinSet<()>,
}

impl<S: SideSource> Default for Kind<S> {
    fn default() -> Self {
        Self { running: BTreeMap::new(), ending: JoinSet::new() }
    }
}

impl<S: SideSource> Kind<S> {
    fn apply(&mut self, target: &str, mut told: BTreeMap<String, S>, health: &Health) {
        while self.ending.try_join_next().is_some() {}
        // What a source left and nobody took stays in its mailbox while it begins anew.
        let mut kept: Boxes<S> = BTreeMap::new();
        let names: Vec<String> = self.running.keys().cloned().collect();
        for name in names {
            let is_same = |running: &Running<S>| told.get(&name) == Some(&running.told);
            if self.running.get(&name).is_some_and(is_same) {
                told.remove(&name);
            } else if let Some(running) = self.running.remove(&name) {
                kept.insert(name, running.mailbox.clone());
                running.end_in(&mut self.ending);
            }
        }
        for (name, told) in told {
            let mailbox = kept.remove(&name).unwrap_or_default();
            let running = Running::start(target, &name, told, mailbox, health);
            self.running.insert(name, running);
        }
    }

    fn mailboxes(&self) -> Boxes<S> {
        self.running.iter().map(|(name, one)| (name.clone(), one.mailbox.clone())).collect()
    }

    async fn ended(mut self) {
        while self.ending.join_next().await.is_some() {}
    }
}

impl<S: SideSource> Running<S> {
    fn start(target: &str, name: &str, told: S, mailbox: Box<S>, health: &Health) -> Self {
        let (stop, stopping) = channel::channel(false);
        let mut task = JoinSet::new();
        let one = One { target: target.to_owned(), name: name.to_owned(), told: told.clone() };
        task.spawn(one.keep(mailbox.clone(), stopping, health.clone()));
        Self { told, mailbox, stop, task }
    }

    fn end_in(self, ending: &mut JoinSet<()>) {
        self.stop.send_replace(true);
        let (stop, mut task) = (self.stop, self.task);
        ending.spawn(async move {
            while task.join_next().await.is_some() {}
            drop(stop);
        });
    }
}

/// One source of one target.
struct One<S> {
    target: String,
    name: String,
    told: S,
}

impl<S: SideSource> One<S> {
    /// Runs it until it is told to stop. One that panics too often is given up, and that is said:
    /// a source that is silent because of us says nothing of what it reads.
    async fn keep(self, mailbox: Box<S>, stop: channel::Receiver<bool>, health: Health) {
        let what = format!("{} {} {}", self.target, S::KIND, self.name);
        let start = || {
            let (told, mailbox, mut stop) = (self.told.clone(), mailbox.clone(), stop.clone());
            let (db, source) = (self.target.as_str(), self.name.as_str());
            let span = tracing::info_span!("source", db, kind = S::KIND, source);
            let stop = async move { stopped(&mut stop).await };
            told.run(mailbox, stop).instrument(span)
        };
        let count = || super::targets::count_restart(&health, &self.target);
        if supervise(&what, start, count).await == Ended::GivenUp {
            let text = "plimsoll failed three times at this source and does not read it any more";
            let failure =
                Failure { kind: FailureKind::Broken, text: text.to_owned(), sqlstate: None };
            mailbox.leave(Delivery {
                taken_at: clock::monotonic(),
                outcome: Err(failure),
                happened: S::Happened::default(),
                rhythm: Duration::MAX,
            });
        }
    }
}
