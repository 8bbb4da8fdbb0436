//! What poolers mean: an address of a console that names its user, a rhythm that can be kept.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL};
use crate::judge::MAX_SERVED_BY_ONE_READING;
use crate::settings::PoolerSettings;
use crate::settings::mistake::Mistake;
use crate::settings::raw::{Raw, RawPooler, RawTarget};
use crate::settings::value::Val;

/// Each process of a pooler is one, and a fleet of them in front of one server is large with this.
const MAX_POOLERS: usize = 64;

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
        const EXAMPLE: &str = "\"postgresql://stats@127.0.0.1:6432/pgbouncer\"";
        let name = self.own_name(path, pooler.name.as_ref(), names, "poolers", "pgbouncer");
        let missing = format!("the address of its admin console: {EXAMPLE}");
        let without_user = format!("one of the pooler's stats_users: {EXAMPLE}");
        let url = self.login_url(path, pooler.url.as_ref(), missing, without_user);
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
}
