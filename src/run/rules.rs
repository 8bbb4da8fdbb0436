//! What the judge is told, from what the operator set.

use plimsoll_core::judge::incident::dedup_key;
use plimsoll_core::judge::telling::Listener;
use plimsoll_core::judge::{Rules, TargetIdentity};
use plimsoll_core::settings::{ReceiverSettings, Settings, TargetSettings};

use crate::notify::manners;

/// The rules of one target and the receivers that hear of it.
pub(super) fn rules_of(settings: &Settings, target: &TargetSettings) -> Rules {
    Rules {
        target: TargetIdentity {
            name: target.name.clone(),
            dedup_key: dedup_key(settings.instance.as_deref(), &target.name),
            labels: target.labels.clone(),
            link: settings.server.external_url.clone(),
        },
        set: target.rules.clone(),
        listeners: settings.receivers.iter().map(listener).collect(),
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
