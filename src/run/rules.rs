//! What the judge is told, from what the operator set.

use plimsoll_core::judge::incident::dedup_key;
use plimsoll_core::judge::source::{LOG, Sources, of_app_pool, of_pooler, of_probe};
use plimsoll_core::judge::telling::Listener;
use plimsoll_core::judge::{Rules, TargetIdentity};
use plimsoll_core::settings::{ReceiverSettings, Settings, TargetSettings};

use crate::notify::manners;

/// The rules of one target and the receivers that hear of it.
pub(crate) fn rules_of(settings: &Settings, target: &TargetSettings) -> Rules {
    Rules {
        target: TargetIdentity {
            name: target.name.clone(),
            dedup_key: dedup_key(settings.instance.as_deref(), &target.name),
            labels: target.labels.clone(),
            link: settings.server.external_url.clone(),
        },
        set: target.rules.clone(),
        listeners: settings.receivers.iter().map(listener).collect(),
        sources: sources(target),
    }
}

fn sources(target: &TargetSettings) -> Sources {
    let log = target.log.iter().map(|_| LOG.to_owned());
    let probes = target.probes.iter().map(|probe| of_probe(&probe.name));
    let poolers = target.poolers.iter().map(|pooler| of_pooler(&pooler.name));
    let app_pools = target.app_pools.iter().map(|pool| of_app_pool(&pool.application));
    let through = target
        .app_pools
        .iter()
        .filter_map(|it| Some((it.application.clone(), it.through.clone()?)));
    Sources {
        names: log.chain(probes).chain(poolers).chain(app_pools).collect(),
        through: through.collect(),
    }
}

fn listener(receiver: &ReceiverSettings) -> Listener {
    Listener {
        name: receiver.name.clone(),
        min_severity: receiver.min_severity,
        send_resolved: receiver.send_resolved,
        rules: receiver.rules.clone(),
        targets: receiver.targets.clone(),
        repeat_interval: receiver.repeat_interval,
        repeat_interval_warning: receiver.repeat_interval_warning,
        manners: manners(&receiver.kind),
    }
}
