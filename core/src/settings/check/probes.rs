//! What probes mean: an address that names its user, a rhythm that burdens nobody.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL, table};
use crate::settings::mistake::Mistake;
use crate::settings::raw::{Raw, RawProbe, RawTarget};
use crate::settings::value::{Ratio, Val};
use crate::settings::{ProbeSettings, Secret};

/// Each takes a slot while it asks: directly, through each pooler, as one or two roles.
const MAX_PROBES: usize = 8;

/// Six logins a minute are nothing to a server, and one that refuses everybody is known in 10 s.
const INTERVAL: Duration = Duration::from_secs(10);

/// One login a second is as often as Plimsoll logs in anywhere.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// What is looked at more seldom than this is not watched.
const MOST_INTERVAL: Duration = Duration::from_mins(10);

/// A probe that leaves more than this untouched sees nothing of a server that is well used.
const MAX_KEEP_FREE: f64 = 0.5;

/// The files that probes name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (at, target) in raw.targets.iter().flatten().enumerate() {
        for (index, probe) in target.0.probes.iter().flatten().enumerate() {
            let Some(Val(file)) = &probe.0.password_file else { continue };
            files.push((format!("targets[{at}].probes[{index}].password_file"), file.clone()));
        }
    }
    files
}

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn probes(
        &mut self,
        raw: &Raw,
        path: &str,
        target: &RawTarget,
    ) -> Vec<ProbeSettings> {
        let written = target.probes.as_deref().unwrap_or_default();
        if written.len() > MAX_PROBES {
            let message = format!("expected at most {MAX_PROBES} probes, found {}", written.len());
            self.mistake(Mistake::new(format!("{path}.probes"), message));
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let probes = written.iter().enumerate().map(|(index, probe)| {
            self.probe(raw, &format!("{path}.probes[{index}]"), &probe.0, &mut names)
        });
        probes.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn probe(
        &mut self,
        raw: &Raw,
        path: &str,
        probe: &RawProbe,
        names: &mut BTreeSet<String>,
    ) -> Option<ProbeSettings> {
        let name = self.probe_name(path, probe, names);
        let url = self.probe_url(path, probe);
        let file = probe.password_file.as_ref();
        let password = self.password(path, file, probe.password_command.as_deref());
        let interval = probe.interval.as_ref().map_or(INTERVAL, |Val(interval)| *interval);
        self.within(&format!("{path}.interval"), interval, LEAST_INTERVAL, MOST_INTERVAL);
        if let Some(Val(timeout)) = probe.timeout {
            self.within(&format!("{path}.timeout"), timeout, MIN_INTERVAL, MAX_TIMEOUT);
        }
        let timeout = probe.timeout.clone().or(table(raw.poll.as_ref()).timeout);
        let keep_free = probe.keep_free.as_ref().map_or(0.0, |Val(Ratio(ratio))| *ratio);
        if keep_free > MAX_KEEP_FREE {
            let message = format!("expected at most {MAX_KEEP_FREE}, found {keep_free}");
            let mistake = Mistake::new(format!("{path}.keep_free"), message);
            self.mistake(mistake.hint("a part of the usable slots, such as 0.02"));
        }
        Some(ProbeSettings {
            name: name?,
            url: url?,
            password,
            interval,
            timeout: timeout?.0,
            keep_free,
        })
    }

    fn probe_name(
        &mut self,
        path: &str,
        probe: &RawProbe,
        names: &mut BTreeSet<String>,
    ) -> Option<String> {
        let key = format!("{path}.name");
        let Some(Val(name)) = &probe.name else {
            self.missing(Mistake::new(key, "missing").hint("such as \"as-the-application\""));
            return None;
        };
        if !names.insert(name.0.clone()) {
            let message = format!("two probes of this target are called \"{}\"", name.0);
            let mistake = Mistake::new(key, message);
            self.mistake(mistake.hint("alerts and metrics are told apart by it"));
        }
        Some(name.0.clone())
    }

    /// The address, without what surrounds the watcher: see
    /// [`crate::settings::Surroundings::without_variables`].
    fn probe_url(&mut self, path: &str, probe: &RawProbe) -> Option<Secret> {
        let key = format!("{path}.url");
        let Some(Val(url)) = &probe.url else {
            self.missing(Mistake::new(key, "missing").hint(
                "the address that the application has: \"postgresql://payment@db:5432/payment\"",
            ));
            return None;
        };
        let around = self.outside.surroundings.without_variables();
        let parsed = self.parsed(&key, url, &around)?;
        if parsed.user.is_none() {
            let mistake = Mistake::new(key, "names no user");
            self.mistake(mistake.hint(
                "a probe logs in as an application does, not as whoever runs Plimsoll: \
                 \"postgresql://payment@db:5432/payment\"",
            ));
            return None;
        }
        Some(url.clone())
    }
}
