//! What receivers mean: one address and one key each, and nobody told twice under one key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL, MIN_REPEAT_INTERVAL, table};
use crate::judge::Severity;
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{Raw, RawPagerdutyDefaults, RawReceiver, RawWebhookDefaults};
use crate::settings::suggest::closest;
use crate::settings::value::{ReceiverType, Val, Value};
use crate::settings::{ReceiverKind, ReceiverSettings, TargetSettings};

/// Each has a queue of its own and a request in flight.
const MAX_RECEIVERS: usize = 64;

/// The files that receivers name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (index, receiver) in raw.receivers.iter().flatten().enumerate() {
        let path = format!("receivers[{index}]");
        let receiver = &receiver.0;
        let single = [
            ("url_file", &receiver.url_file),
            ("signing_secret_file", &receiver.signing_secret_file),
            ("routing_key_file", &receiver.routing_key_file),
        ];
        for (key, file) in single {
            files.extend(file.iter().map(|Val(file)| (join(&path, key), file.clone())));
        }
        for (place, Val(file)) in receiver.signing_secret_files.iter().flatten().enumerate() {
            files.push((format!("{path}.signing_secret_files[{place}]"), file.clone()));
        }
    }
    files
}

/// From when on a receiver hears, how often and how patiently it is told.
#[derive(Clone, Copy)]
struct Hearing {
    min_severity: Severity,
    send_resolved: bool,
    repeat_interval: Duration,
    repeat_interval_warning: Duration,
    timeout: Duration,
}

/// The same as it was written: by a receiver, or as the default of its type.
#[derive(Clone)]
struct RawHearing {
    path: String,
    min_severity: Option<Val<Severity>>,
    send_resolved: Option<Val<bool>>,
    repeat_interval: Option<Val<Duration>>,
    repeat_interval_warning: Option<Val<Duration>>,
    timeout: Option<Val<Duration>>,
}

/// What a receiver of this type has unless it says otherwise.
fn defaults(raw: &Raw, kind: ReceiverType) -> RawHearing {
    let both = table(raw.receiver_defaults.as_ref());
    match kind {
        ReceiverType::Webhook => {
            let webhook: RawWebhookDefaults = table(both.webhook.as_ref());
            RawHearing {
                path: "receiver_defaults.webhook".to_owned(),
                min_severity: webhook.min_severity,
                send_resolved: webhook.send_resolved,
                repeat_interval: webhook.repeat_interval,
                repeat_interval_warning: webhook.repeat_interval_warning,
                timeout: webhook.timeout,
            }
        }
        ReceiverType::Pagerduty => {
            let pagerduty: RawPagerdutyDefaults = table(both.pagerduty.as_ref());
            RawHearing {
                path: "receiver_defaults.pagerduty".to_owned(),
                min_severity: pagerduty.min_severity,
                send_resolved: pagerduty.send_resolved,
                repeat_interval: pagerduty.repeat_interval,
                repeat_interval_warning: pagerduty.repeat_interval_warning,
                timeout: pagerduty.timeout,
            }
        }
    }
}

impl RawHearing {
    fn of(path: &str, receiver: &RawReceiver) -> Self {
        Self {
            path: path.to_owned(),
            min_severity: receiver.min_severity.clone(),
            send_resolved: receiver.send_resolved.clone(),
            repeat_interval: receiver.repeat_interval.clone(),
            repeat_interval_warning: receiver.repeat_interval_warning.clone(),
            timeout: receiver.timeout.clone(),
        }
    }
}

impl Checker<'_> {
    pub(super) fn receivers(
        &mut self,
        raw: &Raw,
        targets: &[Option<TargetSettings>],
    ) -> Option<Vec<ReceiverSettings>> {
        let written = raw.receivers.as_deref().unwrap_or_default();
        if written.len() > MAX_RECEIVERS {
            let message =
                format!("expected at most {MAX_RECEIVERS} receivers, found {}", written.len());
            self.mistake(Mistake::new("receivers", message));
            return None;
        }
        // The defaults of each type, whether there is a receiver of it or not.
        for kind in [ReceiverType::Webhook, ReceiverType::Pagerduty] {
            let defaults = defaults(raw, kind);
            self.hearing(&defaults, &defaults);
        }
        let receivers: Vec<Option<ReceiverSettings>> = written
            .iter()
            .enumerate()
            .map(|(index, receiver)| self.receiver(raw, index, &receiver.0, targets))
            .collect();
        self.tell_names_apart(raw);
        self.tell_keys_apart(raw, &receivers, targets);
        receivers.into_iter().collect()
    }

    fn receiver(
        &mut self,
        raw: &Raw,
        index: usize,
        receiver: &RawReceiver,
        targets: &[Option<TargetSettings>],
    ) -> Option<ReceiverSettings> {
        let path = format!("receivers[{index}]");
        let name = self.named(&path, "name", receiver.name.as_ref(), "such as \"on-call\"");
        let kind = self.named(&path, "type", receiver.kind.as_ref(), ReceiverType::EXPECTED);
        self.know_targets(&path, receiver, targets);
        let kind = kind?;
        let hearing = self.hearing(&RawHearing::of(&path, receiver), &defaults(raw, kind));
        let kind = self.kind(raw, &path, receiver, kind);
        let hearing = hearing?;
        Some(ReceiverSettings {
            name: name?.0,
            kind: kind?,
            min_severity: hearing.min_severity,
            send_resolved: hearing.send_resolved,
            rules: receiver.rules.iter().flatten().map(|Val(rule)| *rule).collect(),
            targets: receiver.targets.iter().flatten().map(|Val(name)| name.0.clone()).collect(),
            repeat_interval: hearing.repeat_interval,
            repeat_interval_warning: hearing.repeat_interval_warning,
            timeout: hearing.timeout,
        })
    }

    /// A key that every receiver must have.
    fn named<T: Clone>(
        &mut self,
        path: &str,
        key: &str,
        value: Option<&Val<T>>,
        expected: &str,
    ) -> Option<T> {
        if value.is_none() {
            let hint = format!("set `{key}`: {expected}");
            self.missing(Mistake::new(join(path, key), "missing").hint(hint));
        }
        value.map(|value| value.0.clone())
    }

    fn hearing(&mut self, own: &RawHearing, defaults: &RawHearing) -> Option<Hearing> {
        let base = defaults.path.as_str();
        let min_severity = own.min_severity.as_ref().or(defaults.min_severity.as_ref());
        let send_resolved = own.send_resolved.as_ref().or(defaults.send_resolved.as_ref());
        let min_severity = self.required(&join(base, "min_severity"), min_severity);
        let send_resolved = self.required(&join(base, "send_resolved"), send_resolved);
        let mut duration = |key, own_value: &Option<Val<Duration>>, default: &Option<_>| {
            let path = join(if own_value.is_some() { &own.path } else { base }, key);
            let value = self.required(&path, own_value.as_ref().or(default.as_ref()))?;
            if key == "timeout" {
                self.within(&path, value, MIN_INTERVAL, MAX_TIMEOUT);
            } else {
                self.at_least(&path, value, MIN_REPEAT_INTERVAL);
            }
            Some(value)
        };
        let repeat = duration("repeat_interval", &own.repeat_interval, &defaults.repeat_interval);
        let repeat_warning = duration(
            "repeat_interval_warning",
            &own.repeat_interval_warning,
            &defaults.repeat_interval_warning,
        );
        let timeout = duration("timeout", &own.timeout, &defaults.timeout);
        Some(Hearing {
            min_severity: min_severity?,
            send_resolved: send_resolved?,
            repeat_interval: repeat?,
            repeat_interval_warning: repeat_warning?,
            timeout: timeout?,
        })
    }

    /// The targets that a receiver is for must be there.
    fn know_targets(
        &mut self,
        path: &str,
        receiver: &RawReceiver,
        targets: &[Option<TargetSettings>],
    ) {
        let names: Vec<&str> =
            targets.iter().flatten().map(|target| target.name.as_str()).collect();
        if names.len() < targets.len() || names.is_empty() {
            // One that could not be read may be the one that is meant.
            return;
        }
        for (index, Val(name)) in receiver.targets.iter().flatten().enumerate() {
            if names.contains(&name.0.as_str()) {
                continue;
            }
            let path = format!("{path}.targets[{index}]");
            let mistake = Mistake::new(path, format!("no target is called \"{}\"", name.0));
            self.mistake(match closest(&name.0, names.iter().copied()) {
                Some(meant) => mistake.hint(format!("did you mean \"{meant}\"?")),
                None => mistake,
            });
        }
    }

    fn tell_names_apart(&mut self, raw: &Raw) {
        let mut names = BTreeSet::new();
        for (index, receiver) in raw.receivers.iter().flatten().enumerate() {
            let Some(Val(name)) = &receiver.0.name else { continue };
            if !names.insert(&name.0) {
                let path = format!("receivers[{index}].name");
                self.mistake(
                    Mistake::new(path, format!("two receivers are called \"{}\"", name.0))
                        .hint("what each is owed is kept under its name"),
                );
            }
        }
    }

    /// PagerDuty knows an incident by routing key and dedup key alone: neither may be shared by
    /// two receivers, or by two servers that are called the same.
    fn tell_keys_apart(
        &mut self,
        raw: &Raw,
        receivers: &[Option<ReceiverSettings>],
        targets: &[Option<TargetSettings>],
    ) {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (index, receiver) in receivers.iter().enumerate() {
            let Some(receiver) = receiver else { continue };
            let ReceiverKind::Pagerduty { routing_key, .. } = &receiver.kind else { continue };
            if let Some(owner) = owners.get(routing_key.expose()) {
                let key = match raw.receivers.as_ref().and_then(|all| all.get(index)) {
                    Some(written) if written.0.routing_key_file.is_some() => "routing_key_file",
                    _ => "routing_key",
                };
                let message = format!("it is also the routing key of the receiver \"{owner}\"");
                self.mistake(Mistake::new(format!("receivers[{index}].{key}"), message).hint(
                    "one would close what the other opened; use one receiver, or two services",
                ));
            }
            owners.entry(routing_key.expose()).or_insert(&receiver.name);
            if raw.instance.is_none() {
                self.need_an_instance(receiver, targets);
            }
        }
    }

    fn need_an_instance(
        &mut self,
        receiver: &ReceiverSettings,
        targets: &[Option<TargetSettings>],
    ) {
        for (index, target) in targets.iter().enumerate() {
            let Some(target) = target else { continue };
            let hears = receiver.targets.is_empty() || receiver.targets.contains(&target.name);
            if !target.named_by_default || !hears {
                continue;
            }
            let message = format!(
                "called \"{}\" after its host, and no `instance` is set: other servers of that \
                 name would open and close the same incident at the receiver \"{}\"",
                target.name, receiver.name
            );
            self.missing(
                Mistake::new(format!("targets[{index}].name"), message)
                    .hint("set the target's `name`, or `instance`, to what no other has"),
            );
        }
    }
}
