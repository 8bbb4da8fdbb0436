//! What poolers mean: an address of a console that names its user, a rhythm that can be kept.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL};
use crate::judge::MAX_SERVED_BY_ONE_READING;
use crate::settings::mistake::Mistake;
use crate::settings::raw::{Raw, RawPooler, RawTarget};
use crate::settings::value::Val;
use crate::settings::{PoolerSettings, Secret};

/// Each process of a pooler is one, and a fleet of them in front of one server is large with this.
const MAX_POOLERS: usize = 64;

/// The files that poolers name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (at, target) in raw.targets.iter().flatten().enumerate() {
        for (index, pooler) in target.0.poolers.iter().flatten().enumerate() {
            let Some(Val(file)) = &pooler.0.password_file else { continue };
            files.push((format!("targets[{at}].poolers[{index}].password_file"), file.clone()));
        }
    }
    files
}

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn poolers(
        &mut self,
        raw: &Raw,
        path: &str,
        target: &RawTarget,
    ) -> Vec<PoolerSettings> {
        let written = target.poolers.as_deref().unwrap_or_default();
        if written.len() > MAX_POOLERS {
            let found = written.len();
            let message = format!("expected at most {MAX_POOLERS} poolers, found {found}");
            self.mistake(Mistake::new(format!("{path}.poolers"), message));
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let poolers = written.iter().enumerate().map(|(index, pooler)| {
            self.pooler(raw, &format!("{path}.poolers[{index}]"), &pooler.0, &mut names)
        });
        poolers.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn pooler(
        &mut self,
        raw: &Raw,
        path: &str,
        pooler: &RawPooler,
        names: &mut BTreeSet<String>,
    ) -> Option<PoolerSettings> {
        let name = self.pooler_name(path, pooler, names);
        let url = self.pooler_url(path, pooler);
        let file = pooler.password_file.as_ref();
        let password = self.password(path, file, pooler.password_command.as_deref());
        let own = |key: &str, value: Option<&Val<Duration>>| {
            value.map(|Val(value)| (format!("{path}.{key}"), *value))
        };
        if let Some((key, interval)) = own("interval", pooler.interval.as_ref()) {
            self.within(&key, interval, MIN_INTERVAL, MAX_SERVED_BY_ONE_READING);
        }
        if let Some((key, timeout)) = own("timeout", pooler.timeout.as_ref()) {
            self.within(&key, timeout, MIN_INTERVAL, MAX_TIMEOUT);
        }
        let poll = super::table(raw.poll.as_ref());
        let interval = pooler.interval.clone().or(poll.interval);
        let timeout = pooler.timeout.clone().or(poll.timeout);
        Some(PoolerSettings {
            name: name?,
            url: url?,
            password,
            interval: interval?.0,
            timeout: timeout?.0,
        })
    }

    fn pooler_name(
        &mut self,
        path: &str,
        pooler: &RawPooler,
        names: &mut BTreeSet<String>,
    ) -> Option<String> {
        let key = format!("{path}.name");
        let Some(Val(name)) = &pooler.name else {
            self.missing(Mistake::new(key, "missing").hint("such as \"pgbouncer\""));
            return None;
        };
        if !names.insert(name.0.clone()) {
            let message = format!("two poolers of this target are called \"{}\"", name.0);
            let mistake = Mistake::new(key, message);
            self.mistake(mistake.hint("alerts and metrics are told apart by it"));
        }
        Some(name.0.clone())
    }

    /// The address, without what surrounds the watcher: see
    /// [`crate::settings::Surroundings::without_variables`].
    fn pooler_url(&mut self, path: &str, pooler: &RawPooler) -> Option<Secret> {
        const EXAMPLE: &str = "\"postgresql://stats@127.0.0.1:6432/pgbouncer\"";
        let key = format!("{path}.url");
        let Some(Val(url)) = &pooler.url else {
            let hint = format!("the address of its admin console: {EXAMPLE}");
            self.missing(Mistake::new(key, "missing").hint(hint));
            return None;
        };
        let around = self.outside.surroundings.without_variables();
        let parsed = self.parsed(&key, url, &around)?;
        if parsed.user.is_none() {
            let hint = format!("one of the pooler's stats_users: {EXAMPLE}");
            self.mistake(Mistake::new(key, "names no user").hint(hint));
            return None;
        }
        Some(url.clone())
    }
}
