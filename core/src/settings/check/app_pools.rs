//! What the pools of applications mean: instances that are listed once, one way to ask, one way
//! to read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::{Checker, MAX_TIMEOUT, MIN_INTERVAL, table};
use crate::reading::app_pool::scrape::{Field, Mapping};
use crate::reading::exposition::Selector;
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::{Raw, RawAppPool, RawAppPoolDefaults, RawMapping, RawTarget};
use crate::settings::value::Val;
use crate::settings::{
    AppPoolSettings, MAX_INSTANCES, PoolMetrics, ScrapeCredentials, Secret, url,
};

/// Applications of one server; each has a task of its own.
const MAX_APPLICATIONS: usize = 64;

/// Where metrics are unless somebody says otherwise, as Prometheus has it.
const METRICS_PATH: &str = "/metrics";

/// The files that the pools of applications name, each with the path of its key.
pub(super) fn secret_files(raw: &Raw) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (target, written) in raw.targets.iter().flatten().enumerate() {
        for (index, pool) in written.0.app_pools.iter().flatten().enumerate() {
            let path = format!("targets[{target}].app_pools[{index}]");
            let keys = [
                ("bearer_token_file", &pool.0.bearer_token_file),
                ("password_file", &pool.0.password_file),
            ];
            for (key, file) in keys {
                files.extend(file.iter().map(|Val(file)| (join(&path, key), file.clone())));
            }
        }
    }
    files
}

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn app_pools(
        &mut self,
        raw: &Raw,
        path: &str,
        target: &RawTarget,
    ) -> Vec<AppPoolSettings> {
        let path = join(path, "app_pools");
        let written = target.app_pools.as_deref().unwrap_or_default();
        if written.len() > MAX_APPLICATIONS {
            let found = written.len();
            let message =
                format!("expected at most {MAX_APPLICATIONS} applications, found {found}");
            self.mistake(Mistake::new(path, message));
            return Vec::new();
        }
        let defaults = table(raw.app_pool_defaults.as_ref());
        let named = target.poolers.iter().flatten().filter_map(|pooler| pooler.0.name.as_ref());
        let poolers = named.map(|Val(name)| name.0.clone()).collect();
        let mut names = BTreeSet::new();
        let pools = written.iter().enumerate().filter_map(|(index, pool)| {
            let path = format!("{path}[{index}]");
            let pool = self.app_pool(&path, &pool.0, &poolers, &defaults)?;
            if !names.insert(pool.application.clone()) {
                let message = format!("two applications are called \"{}\"", pool.application);
                let mistake = Mistake::new(join(&path, "application"), message);
                self.mistake(mistake.hint("list all instances of an application in one place"));
            }
            Some(pool)
        });
        pools.collect()
    }

    /// The rhythm of all that have none of their own, whether there is one or not.
    pub(super) fn app_pool_defaults(&mut self, raw: &Raw) {
        let defaults = table(raw.app_pool_defaults.as_ref());
        self.rhythm("app_pool_defaults", &RawAppPool::default(), &defaults);
    }

    fn app_pool(
        &mut self,
        path: &str,
        pool: &RawAppPool,
        poolers: &BTreeSet<String>,
        defaults: &RawAppPoolDefaults,
    ) -> Option<AppPoolSettings> {
        let application = pool.application.as_ref().map(|Val(name)| name.0.clone());
        if application.is_none() {
            let hint = "set `application`: what it is called in messages, such as \"payment-api\"";
            self.missing(Mistake::new(join(path, "application"), "missing").hint(hint));
        }
        let scrape = self.scraped(path, pool);
        let (interval, timeout) = self.rhythm(path, pool, defaults)?;
        let credentials = self.credentials(path, pool);
        let metrics = self.pool_metrics(path, pool);
        let through = pool.through.as_ref().map(|Val(name)| name.0.clone());
        if let Some(pooler) = &through
            && !poolers.contains(pooler)
        {
            let message = format!("no pooler of this target is called \"{pooler}\"");
            let mistake = Mistake::new(join(path, "through"), message);
            self.mistake(mistake.hint("name one of targets[].poolers, or take it out"));
        }
        let resolve = |key: &str, file: &Option<Val<PathBuf>>| {
            file.as_ref().map(|Val(file)| self.places.resolve(&join(path, key), file))
        };
        Some(AppPoolSettings {
            application: application?,
            scrape: scrape?,
            dns: pool.dns.as_ref().is_some_and(|Val(dns)| *dns),
            file_sd: resolve("file_sd", &pool.file_sd),
            metrics_path: pool
                .metrics_path
                .as_ref()
                .map_or_else(|| METRICS_PATH.to_owned(), |Val(path)| path.0.clone()),
            interval,
            timeout,
            credentials: credentials?,
            ca_file: resolve("ca_file", &pool.ca_file),
            metrics: metrics?,
            through,
        })
    }

    /// The URLs of instances, each once.
    fn scraped(&mut self, path: &str, pool: &RawAppPool) -> Option<Vec<Secret>> {
        let written = pool.scrape.as_deref().unwrap_or_default();
        let key = join(path, "scrape");
        if written.is_empty() && pool.file_sd.is_none() {
            let hint =
                "set `scrape` to the URLs of its instances, or `file_sd` to a file with them";
            self.missing(Mistake::new(&key, "no instance is named").hint(hint));
            return None;
        }
        if written.len() > MAX_INSTANCES {
            let message =
                format!("expected at most {MAX_INSTANCES} instances, found {}", written.len());
            self.mistake(Mistake::new(&key, message));
            return None;
        }
        if written.is_empty() && pool.dns.is_some() {
            let message = "stands without `scrape`, whose names it is about";
            self.mistake(Mistake::new(join(path, "dns"), message));
        }
        if pool.file_sd.is_none() && pool.metrics_path.is_some() {
            let message = "stands without `file_sd`, whose instances it is about";
            let mistake = Mistake::new(join(path, "metrics_path"), message);
            self.mistake(mistake.hint("in `scrape` each URL holds its own path"));
        }
        let mut seen = BTreeSet::new();
        let mut are_sound = true;
        for (index, Val(url)) in written.iter().enumerate() {
            let fault = match url::fault(url.expose()) {
                Some(fault) if fault.contains("user name") => {
                    Some("it contains a user name; set `username` and `password_file`")
                }
                None if !seen.insert(url.expose()) => {
                    Some("it is listed twice, and its connections would be counted twice")
                }
                fault => fault,
            };
            if let Some(fault) = fault {
                are_sound = false;
                self.mistake(Mistake::new(format!("{key}[{index}]"), fault));
            }
        }
        are_sound.then(|| written.iter().map(|Val(url)| url.clone()).collect())
    }

    /// How often, and how patiently. Patience that was not set is no longer than the rhythm.
    fn rhythm(
        &mut self,
        path: &str,
        pool: &RawAppPool,
        defaults: &RawAppPoolDefaults,
    ) -> Option<(Duration, Duration)> {
        let interval = pool.interval.as_ref().or(defaults.interval.as_ref());
        let interval = self.required("app_pool_defaults.interval", interval);
        let timeout = pool.timeout.as_ref().or(defaults.timeout.as_ref());
        let timeout = self.required("app_pool_defaults.timeout", timeout);
        let (interval, timeout) = (interval?, timeout?);
        self.within(&join(path, "interval"), interval, MIN_INTERVAL, MAX_TIMEOUT);
        let is_own = pool.timeout.is_some() || path == "app_pool_defaults";
        // What is wrong with the rhythm is said once.
        let timeout = if is_own { timeout } else { timeout.min(interval).max(MIN_INTERVAL) };
        self.within(&join(path, "timeout"), timeout, MIN_INTERVAL, interval.max(MIN_INTERVAL));
        Some((interval, timeout))
    }

    fn credentials(&mut self, path: &str, pool: &RawAppPool) -> Option<ScrapeCredentials> {
        let mut resolved = |key: &str, file: &Option<Val<PathBuf>>| {
            let Val(file) = file.as_ref()?;
            let key = join(path, key);
            self.secret_file(&key, file);
            Some(self.places.resolve(&key, file))
        };
        let bearer = resolved("bearer_token_file", &pool.bearer_token_file);
        let password = resolved("password_file", &pool.password_file);
        let username = pool.username.as_ref().map(|Val(name)| name.0.clone());
        match (bearer, username, password) {
            (None, None, None) => Some(ScrapeCredentials::None),
            (Some(file), None, None) => Some(ScrapeCredentials::Bearer(file)),
            (None, Some(username), Some(password_file)) => {
                Some(ScrapeCredentials::Basic { username, password_file })
            }
            (Some(_), _, _) => {
                let message = "stands beside `username` or `password_file`; there is one way to \
                               say who asks";
                self.mistake(Mistake::new(join(path, "bearer_token_file"), message));
                None
            }
            (None, Some(_), None) => {
                self.missing(Mistake::new(
                    join(path, "password_file"),
                    "missing, and there is a \
                     `username`",
                ));
                None
            }
            (None, None, Some(_)) => {
                self.missing(Mistake::new(
                    join(path, "username"),
                    "missing, and there is a \
                     `password_file`",
                ));
                None
            }
        }
    }

    fn pool_metrics(&mut self, path: &str, pool: &RawAppPool) -> Option<PoolMetrics> {
        match (&pool.preset, &pool.mapping) {
            (None, None) => Some(PoolMetrics::AsSeen),
            (Some(Val(preset)), None) => Some(PoolMetrics::Preset(preset.name)),
            (None, Some(mapping)) => self.mapping(&join(path, "mapping"), &mapping.0),
            (Some(_), Some(_)) => {
                let message = "stands beside `mapping`, which says the same";
                let mistake = Mistake::new(join(path, "preset"), message);
                self.mistake(mistake.hint("keep one of them"));
                None
            }
        }
    }

    fn mapping(&mut self, path: &str, mapping: &RawMapping) -> Option<PoolMetrics> {
        let written: [(Field, &Option<Val<Selector>>); 8] = [
            (Field::InUse, &mapping.in_use),
            (Field::Idle, &mapping.idle),
            (Field::Open, &mapping.open),
            (Field::Max, &mapping.max),
            (Field::Waiting, &mapping.waiting),
            (Field::Timeouts, &mapping.timeouts),
            (Field::Waits, &mapping.waits),
            (Field::WaitSeconds, &mapping.wait_time),
        ];
        if mapping.in_use.is_none() && mapping.open.is_none() {
            let hint = "set `in_use`, or `open` and `idle`: the metrics that say how many \
                        connections are lent out";
            self.missing(Mistake::new(join(path, "in_use"), "missing").hint(hint));
            return None;
        }
        if mapping.wait_unit.is_some() && mapping.wait_time.is_none() {
            let message = "stands without `wait_time`, whose unit it is";
            self.mistake(Mistake::new(join(path, "wait_unit"), message));
        }
        let unit = mapping.wait_unit.as_ref().map_or(Duration::from_secs(1), |Val(unit)| unit.0);
        let fields = written.into_iter();
        Some(PoolMetrics::Mapping(Mapping {
            pool_label: mapping.pool_label.as_ref().map(|Val(label)| label.0.clone()),
            fields: fields
                .filter_map(|(field, metric)| Some((field, metric.as_ref()?.0.clone())))
                .collect(),
            wait_unit_seconds: unit.as_secs_f64(),
        }))
    }
}
