//! The pools of an application: its instances are asked for their metrics, all of them at once, a
//! round a rhythm.
//!
//! A round ends within its timeout, whoever hangs: an instance that gives nothing in that time has
//! failed in this round, and delays no other. One that is listed no more is gone, with its kept
//! connection. `run` starts the source; what metrics mean is `plimsoll_core::reading::app_pool`'s.
//! Proxies are not used: instances are reached directly, as Prometheus does it.

mod ask;
mod connection;
mod files;
mod instances;
mod lookups;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll_core::reading::app_pool::presets::preset;
use plimsoll_core::reading::app_pool::scrape::Wanted;
use plimsoll_core::reading::app_pool::{Instance, Observation};
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::{AppPoolSettings, MAX_INSTANCES, PoolMetrics};
use tokio::time::{Instant, MissedTickBehavior};

use self::connection::Kept;
use self::files::{Files, Prepared};
use self::instances::{Endpoint, Peer};
use self::lookups::{LastGood, Lookups};
use super::SideSource;
use super::mailbox::{Delivery, Mailbox};
use crate::clock;

/// Requests under way at once. Each holds a socket and a line of at most 64 kB; a daemon may have
/// 1,024 sockets unless somebody allows it more.
const MAX_IN_FLIGHT: usize = 64;

/// Connections that stay open between rounds; the instances beyond are connected to anew.
const MAX_KEPT: usize = 128;

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AppPoolSource(AppPoolSettings);

impl AppPoolSource {
    /// As settings say.
    pub fn of(told: &AppPoolSettings) -> Self {
        Self(told.clone())
    }
}

impl SideSource for AppPoolSource {
    type Seen = Observation;
    type Happened = ();
    const KIND: &'static str = "app_pool";

    async fn run(
        self,
        mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        tokio::select! {
            () = stop => {}
            () = Rounds::of(self.0).keep(mailbox) => {}
        }
    }
}

/// What is kept from round to round.
struct Rounds {
    told: AppPoolSettings,
    wanted: Wanted,
    files: Files,
    lookups: Lookups,
    last_good: LastGood,
    /// Connections to those that answered.
    kept: BTreeMap<Peer, Kept>,
    /// Where the next round begins: when many hang, it is others each time that are not reached.
    first: usize,
    /// What was last said of the list, so that it is said once.
    said: Option<String>,
}

impl Rounds {
    fn of(told: AppPoolSettings) -> Self {
        let wanted = match &told.metrics {
            PoolMetrics::AsSeen => Wanted::of_all_presets(),
            PoolMetrics::Preset(name) => {
                preset(name).map_or_else(Wanted::of_all_presets, Wanted::of_preset)
            }
            PoolMetrics::Mapping(mapping) => Wanted::of_mapping(mapping),
        };
        let files = Files::of(&told);
        Self {
            told,
            wanted,
            files,
            lookups: Lookups::default(),
            last_good: LastGood::default(),
            kept: BTreeMap::new(),
            first: 0,
            said: None,
        }
    }

    async fn keep(mut self, mailbox: Mailbox<Observation>) {
        let mut rhythm = tokio::time::interval(self.told.interval);
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            rhythm.tick().await;
            let outcome = self.round().await;
            self.say(&outcome);
            mailbox.leave(Delivery {
                taken_at: clock::monotonic(),
                outcome: outcome.map(Arc::new),
                happened: (),
                rhythm: self.told.interval,
            });
        }
    }

    /// Says once what is wrong with the list, or with all of it, and that it is over.
    fn say(&mut self, outcome: &Result<Observation, Failure>) {
        let wrong = match outcome {
            Err(failure) => Some(failure),
            Ok(observation) => observation.list.as_ref(),
        };
        let wrong = wrong.map(|failure| failure.text.clone());
        if wrong == self.said {
            return;
        }
        if let Some(why) = &wrong {
            tracing::warn!(why, "the pools of an application are not read whole");
        } else {
            tracing::info!("the pools of an application are read again");
        }
        self.said = wrong;
    }

    async fn round(&mut self) -> Result<Observation, Failure> {
        let deadline = Instant::from_std(clock::monotonic() + self.told.timeout);
        let prepared = self.files.prepare(deadline).await?;
        let (mut peers, wrong) = self.peers(&prepared.endpoints, deadline).await;
        let mut trouble = prepared.trouble.clone().or(wrong);
        if peers.len() > MAX_INSTANCES {
            peers.truncate(MAX_INSTANCES);
            let text =
                format!("there are more than {MAX_INSTANCES} instances; the rest is left out");
            trouble = Some(Failure { kind: FailureKind::Unsupported, text, sqlstate: None });
        }
        let listed: BTreeSet<&Peer> = peers.iter().filter_map(|(_, p)| p.as_ref().ok()).collect();
        self.kept.retain(|peer, _| listed.contains(peer));
        let mut instances = self.ask_all(peers, &prepared, deadline).await;
        instances.sort_by(|a, b| a.address.cmp(&b.address));
        none_answered(&instances).map_or(Ok(Observation { instances, list: trouble }), Err)
    }

    /// Every instance by what it is called, or why it has no address; and why addresses are earlier
    /// ones, if some are.
    async fn peers(
        &mut self,
        endpoints: &[Endpoint],
        deadline: Instant,
    ) -> (Vec<Named>, Option<Failure>) {
        self.last_good.keep(endpoints);
        let looked_up = endpoints.iter().map(async |endpoint| {
            if !(self.told.dns && endpoint.is_set) {
                return None;
            }
            let deadline = self.last_good.deadline(endpoint, deadline, self.told.timeout);
            Some(self.lookups.addresses(endpoint.host(), endpoint.port(), deadline).await)
        });
        let found = futures_util::future::join_all(looked_up).await;
        named(endpoints, found, &mut self.last_good)
    }

    async fn ask_all(
        &mut self,
        peers: Vec<Named>,
        prepared: &Prepared,
        deadline: Instant,
    ) -> Vec<Instance> {
        let mut peers = peers;
        let count = peers.len().max(1);
        peers.rotate_left(self.first % count);
        self.first = (self.first + MAX_IN_FLIGHT) % count;
        let asked: Vec<_> = peers
            .into_iter()
            .map(|(address, peer)| {
                let kept = peer.as_ref().ok().and_then(|peer| self.kept.remove(peer));
                (address, peer, kept)
            })
            .collect();
        let patience = self.told.timeout;
        let asking = asked.into_iter().map(async |(address, peer, kept)| {
            let with = ask::With {
                wanted: &self.wanted,
                lookups: &self.lookups,
                prepared,
                deadline,
                patience,
            };
            match peer {
                Err(failure) => (address, Err(failure), None),
                Ok(peer) => {
                    let (pools, kept) = with.ask(&peer, kept).await;
                    (address, pools, kept.map(|kept| (peer, kept)))
                }
            }
        });
        let mut answers = futures_util::stream::iter(asking).buffer_unordered(MAX_IN_FLIGHT);
        let mut instances = Vec::new();
        while let Some((address, pools, kept)) = answers.next().await {
            if let Some((peer, kept)) = kept.filter(|_| self.kept.len() < MAX_KEPT) {
                self.kept.insert(peer, kept);
            }
            instances.push(Instance { address, pools });
        }
        instances
    }
}

/// An instance and what it is called, or why it cannot be asked.
type Named = (String, Result<Peer, Failure>);

/// What a lookup found, where one was made.
type LookedUp = Option<Result<Vec<SocketAddr>, Failure>>;

/// Every instance by what it is called: an address of a name that was looked up, or the name of one
/// that was not.
fn named(
    endpoints: &[Endpoint],
    found: Vec<LookedUp>,
    last_good: &mut LastGood,
) -> (Vec<Named>, Option<Failure>) {
    let (mut named, mut trouble) = (Vec::new(), None);
    for (endpoint, found) in endpoints.iter().zip(found) {
        let peer = |at| (endpoint.shown(at), Ok(Peer { to: endpoint.clone(), at }));
        let Some(found) = found else {
            named.push(peer(None));
            continue;
        };
        let (addresses, wrong) = last_good.or_last(endpoint, found);
        trouble = trouble.or(wrong);
        match addresses {
            Err(failure) => named.push((endpoint.shown(None), Err(failure))),
            Ok(addresses) => named.extend(addresses.into_iter().map(|at| peer(Some(at)))),
        }
    }
    (instances::told_apart(named), trouble)
}

/// Why there is nothing to see, if no instance gave anything: the first one's failure speaks for
/// all. An application without instances is one that was scaled down, and no failure.
fn none_answered(instances: &[Instance]) -> Option<Failure> {
    let first = instances.first()?;
    if instances.iter().any(|instance| instance.pools.is_ok()) {
        return None;
    }
    let failure = first.pools.as_ref().err()?;
    let text = match instances.len() {
        1 => format!("{}: {}", first.address, failure.text),
        n => format!("none of {n} instances answers well; {}: {}", first.address, failure.text),
    };
    Some(Failure { text, ..failure.clone() })
}

/// A failure that is no server's.
fn failure(kind: FailureKind, text: impl Into<String>) -> Failure {
    Failure { kind, text: text.into(), sqlstate: None }
}

/// How long it was waited, in words.
fn shown(patience: Duration) -> String {
    humantime::format_duration(patience).to_string()
}

#[cfg(test)]
mod tests {
    use plimsoll_core::settings::Secret;

    use super::*;

    #[test]
    fn a_name_with_several_addresses_is_as_many_instances() {
        let of = |url: &str| Endpoint::of_settings(&Secret::new(url)).unwrap();
        let api = of("http://api.svc:8080/metrics");
        let endpoints = [api.clone(), of("http://plain:9/metrics"), of("http://gone/metrics")];
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let three = vec![at("10.0.0.7:8080"), at("10.0.0.8:8080"), at("[fd00::7]:8080")];
        let nothing = failure(FailureKind::Unreachable, "looking up its name: no answer");
        let found = vec![Some(Ok(three.clone())), None, Some(Err(nothing.clone()))];
        let mut last_good = LastGood::default();
        let (all, trouble) = named(&endpoints, found, &mut last_good);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["10.0.0.7:8080", "10.0.0.8:8080", "[fd00::7]:8080", "plain:9", "gone:80"]
        );
        // Each is asked at its own address, by the name that all of them have.
        for ((_, peer), at) in all.iter().zip(three) {
            assert_eq!(peer, &Ok(Peer { to: api.clone(), at: Some(at) }));
        }
        assert_eq!(all[3].1, Ok(Peer { to: endpoints[1].clone(), at: None }));
        assert_eq!(all[4].1, Err(nothing.clone()));
        assert_eq!(trouble, None);
        // One that has lost an address has lost that instance; one that cannot be looked up, none.
        let one = vec![at("10.0.0.8:8080")];
        for found in [Ok(one), Err(nothing)] {
            let is_known = found.is_ok();
            let (all, trouble) = named(&endpoints[..1], vec![Some(found)], &mut last_good);
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!(all[0].0, "10.0.0.8:8080");
            assert_eq!(trouble.is_none(), is_known, "{trouble:?}");
        }
    }
}
