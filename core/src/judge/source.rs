//! The sources of a target by their names, and whether each can be read now.
//!
//! For the rules, the bottleneck and the status. What a source saw is not looked at here, but
//! where it says that it cannot see: a probe whose login is not allowed, an application of which
//! no instance answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::reading::app_pool::Instance;
use crate::reading::{Failure, FailureKind, Part, Reading, Sourced, app_pool, probe};

/// The server itself.
pub const POSTGRES: &str = "postgres";

/// The server's log.
pub const LOG: &str = "log";

/// The name of a probe as a source.
pub fn of_probe(name: &str) -> String {
    format!("probe/{name}")
}

/// The name of a pooler as a source.
pub fn of_pooler(name: &str) -> String {
    format!("pooler/{name}")
}

/// The name of an application's pools as a source.
pub fn of_app_pool(application: &str) -> String {
    format!("app_pool/{application}")
}

/// What settings say of the sources of a target beside its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The names of all of them: `log`, `probe/NAME`, `pooler/NAME`, `app_pool/NAME`.
    pub names: BTreeSet<String>,
    /// The pooler through which an application reaches the server, by the application's name.
    pub through: BTreeMap<String, String>,
}

/// How one source stands in a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// `postgres`, `log`, `probe/NAME`, `pooler/NAME`, `app_pool/NAME`.
    pub name: String,
    /// True in the one reading that is the first to carry what it left.
    pub fresh: bool,
    /// Time since it left it.
    pub age: Duration,
    /// Why it says nothing of now; `None` if it does.
    pub trouble: Option<Trouble>,
}

/// Why a source says nothing of now.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// What it left is older than three of its rhythms.
    Stale,
    /// It could not be read.
    Failed(Failure),
}

impl Standing {
    fn of<T>(name: String, part: &Part<T>, blind: impl FnOnce(&T) -> Option<Failure>) -> Self {
        let trouble = match &part.seen {
            _ if part.is_stale() => Some(Trouble::Stale),
            Err(failure) => Some(Trouble::Failed(failure.clone())),
            Ok(seen) => blind(seen).map(Trouble::Failed),
        };
        Self { name, fresh: part.fresh, age: part.age, trouble }
    }

    /// `ok`, `stale`, or the kind of failure.
    pub fn word(&self) -> &'static str {
        match &self.trouble {
            None => "ok",
            Some(Trouble::Stale) => "stale",
            Some(Trouble::Failed(failure)) => failure.kind.word(),
        }
    }
}

/// Every source that the reading has something of, the server first.
pub fn standings(reading: &Reading) -> Vec<Standing> {
    let mut all = vec![Standing::of(POSTGRES.to_owned(), &reading.postgres, |_| None)];
    all.extend(reading.log.iter().map(|log| Standing::of(LOG.to_owned(), &log.part, |_| None)));
    all.extend(reading.probes.iter().map(|probe| {
        Standing::of(of_probe(&probe.name), &probe.part, |seen| not_a_login(&seen.newest))
    }));
    all.extend(reading.poolers.iter().map(|p| Standing::of(of_pooler(&p.name), &p.part, |_| None)));
    all.extend(reading.app_pools.iter().map(of_application));
    all
}

fn of_application(application: &Sourced<app_pool::Observation>) -> Standing {
    let name = of_app_pool(&application.name);
    Standing::of(name, &application.part, |seen| no_instance(&seen.instances))
}

/// Why a probe's login says nothing of slots: it neither got in, nor was it refused for want of
/// one or left without an answer.
fn not_a_login(attempt: &probe::Attempt) -> Option<Failure> {
    let failure = attempt.outcome.as_ref().err()?;
    match failure.kind {
        FailureKind::Refused(_) | FailureKind::TooSlow => None,
        _ => Some(failure.clone()),
    }
}

/// Why nothing is known of an application: not one of its instances could be read.
fn no_instance(instances: &[Instance]) -> Option<Failure> {
    let failures = || instances.iter().filter_map(|instance| instance.pools.as_ref().err());
    let first = failures().next().filter(|_| failures().count() == instances.len())?;
    let text = match instances.len() {
        1 => first.text.clone(),
        n => format!("none of {n} instances can be read; the first: {}", first.text),
    };
    Some(Failure { text, ..first.clone() })
}
