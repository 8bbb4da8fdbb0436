//! What probes mean: an address that names its user, a rhythm that burdens nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL, table};
use crate::settings::ProbeSettings;
use crate::settings::mistake::Mistake;
use crate::settings::raw::{Raw, RawProbe, RawTarget};
use crate::settings::value::{Ratio, Val};

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
        const EXAMPLE: &str = "\"postgresql://payment@db:5432/payment\"";
        let name = self.own_name(path, probe.name.as_ref(), names, "probes", "as-the-application");
        let missing = format!("the address that the application has: {EXAMPLE}");
        let without_user = format!(
            "a probe logs in as an application does, not as whoever runs Plimsoll: {EXAMPLE}"
        );
        let url = self.login_url(path, probe.url.as_ref(), missing, without_user);
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
}
