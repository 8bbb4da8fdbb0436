//! The sources beside the server, as a timeline writes them.
//!
//! ```text
//! pooler 20/20,wait=12,longest=4.2      pool payment/api of pgbouncer: 20 of 20 connections in use
//! pooler 20/20,clients=100/100          all its client slots are taken
//! pooler 20/20,wait=12,more=40          it has 40 more pools like this one
//! app a=50/50,wait=7,timeouts=3         an instance of payment-api, with its counter of timeouts
//! app a=50/50,waits=9,waited=30.5       one whose library counts waits and their seconds
//! app a=50/-                            one whose pool has no bound
//! app a=fails:too_slow                  an instance that cannot be read
//! probe ok                              its newest login got in, and is of this reading
//! probe all_slots_taken                 it was refused
//! probe unanswered                      it has no answer
//! probe held:all_slots_taken            it was refused some readings ago, and none was made since
//! log all_slots_taken*3                 three lines say that somebody was refused
//! log quiet                             no line says anything
//! pooler fails:too_slow                 any of them cannot be read,
//! pooler stale                          or has said nothing for too long,
//! app again                             or has said nothing new since the reading before
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::reading::app_pool::{self, Instance, Max};
use plimsoll_core::reading::log::{self, LineCount, LineKind};
use plimsoll_core::reading::pooler::{self, Database, Limits, Pool};
use plimsoll_core::reading::probe::{self, Attempt, Attempts, Held, Steps};
use plimsoll_core::reading::{Failure, FailureKind, Part, Reading, Refusal, Sourced};

/// What a reading shows of the sources beside the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    pub(crate) pooler: Option<Shown<PoolerScene>>,
    pub(crate) apps: Vec<(String, Shown<AppScene>)>,
    pub(crate) probe: Option<Shown<ProbeScene>>,
    pub(crate) log: Option<Shown<Vec<(Refusal, u64)>>>,
    /// The applications' part as a whole, where it is not fresh.
    pub(crate) all_apps: Option<Shown<()>>,
}

/// How a source stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown<T> {
    Good(T),
    Fails(FailureKind),
    Stale,
    Again,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolerScene {
    pub(crate) in_use: u32,
    pub(crate) max: u32,
    pub(crate) waiting: u32,
    pub(crate) longest: f64,
    pub(crate) clients: Option<(u32, u32)>,
    /// More pools like this one.
    pub(crate) more: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AppScene {
    pub(crate) in_use: u32,
    /// `None` has no bound.
    pub(crate) max: Option<u32>,
    pub(crate) waiting: Option<u32>,
    pub(crate) timeouts: Option<u64>,
    pub(crate) waits: Option<u64>,
    pub(crate) waited: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProbeScene {
    /// `None` got in.
    pub(crate) refused: Option<Refusal>,
    pub(crate) unanswered: bool,
    /// None was made since the reading before.
    pub(crate) held: bool,
}

impl Beside {
    /// Takes one pair of a line; false if it is none of these.
    pub(crate) fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "pooler" => {
                self.pooler = Some(shown(value).unwrap_or_else(|| Shown::Good(pooler(value))));
            }
            "probe" => self.probe = Some(shown(value).unwrap_or_else(|| Shown::Good(probe(value)))),
            "log" => self.log = Some(shown(value).unwrap_or_else(|| Shown::Good(lines(value)))),
            "app" => match (value.split_once('='), shown(value)) {
                (None, Some(all)) => self.all_apps = Some(all),
                (Some((name, body)), _) => {
                    let app = shown(body).unwrap_or_else(|| Shown::Good(app(body)));
                    self.apps.push((name.to_owned(), app));
                }
                (None, None) => return false,
            },
            _ => return false,
        }
        true
    }

    /// Puts what is shown into the reading.
    pub(crate) fn compose(&self, reading: &mut Reading) {
        if let Some(shown) = &self.pooler {
            let part = shown.part(PoolerScene::observation);
            let happened = ();
            reading.poolers = vec![Sourced { name: "pgbouncer".to_owned(), part, happened }];
        }
        if !self.apps.is_empty() || self.all_apps.is_some() {
            let seen = app_pool::Observation {
                instances: self.apps.iter().map(|(name, app)| instance(name, app)).collect(),
                ..app_pool::Observation::default()
            };
            let part = match &self.all_apps {
                None => Shown::Good(seen).part(app_pool::Observation::clone),
                Some(Shown::Again) => {
                    Part { fresh: false, ..Shown::Good(seen).part(app_pool::Observation::clone) }
                }
                Some(other) => other.part(|()| seen.clone()),
            };
            let happened = ();
            reading.app_pools = vec![Sourced { name: "payment-api".to_owned(), part, happened }];
        }
        if let Some(shown) = &self.probe {
            let attempt = |scene: &ProbeScene| scene.attempt(reading.at);
            let part = shown.part(|scene| probe::Observation {
                newest: attempt(scene),
                held: scene.held.then_some(Held::BacksOff),
            });
            let happened = match shown {
                Shown::Good(scene) if !scene.held => Attempts(vec![attempt(scene)]),
                _ => Attempts::default(),
            };
            reading.probes = vec![Sourced { name: "app".to_owned(), part, happened }];
        }
        if let Some(shown) = &self.log {
            let part = shown.part(|_| observed());
            let happened = match shown {
                Shown::Good(lines) => self::happened(lines),
                _ => log::Lines::default(),
            };
            reading.log = Some(Sourced { name: "log".to_owned(), part, happened });
        }
    }
}

fn observed() -> log::Observation {
    serde_json::from_str("{\"file\": \"/var/log/postgresql/postgresql.json\"}").unwrap()
}

fn happened(lines: &[(Refusal, u64)]) -> log::Lines {
    let counts = lines.iter().map(|(reason, count)| LineCount {
        kind: LineKind::Refused(*reason),
        role: "payment".to_owned(),
        database: "payment".to_owned(),
        application: String::new(),
        count: *count,
    });
    log::Lines { counts: counts.collect(), ..log::Lines::default() }
}

impl<T> Shown<T> {
    fn part<S>(&self, observation: impl FnOnce(&T) -> S) -> Part<S> {
        let failure = |kind: FailureKind| Failure {
            kind,
            text: format!("the source is {kind}"),
            sqlstate: None,
        };
        let (stale_after, age) = match self {
            Self::Stale => (Duration::from_secs(30), Duration::from_secs(31)),
            _ => (Duration::from_secs(30), Duration::ZERO),
        };
        let seen = match self {
            Self::Good(scene) => Ok(Arc::new(observation(scene))),
            Self::Fails(kind) => Err(failure(*kind)),
            // What it said is too old to count, whatever it was.
            Self::Stale => Err(failure(FailureKind::Broken)),
            Self::Again => panic!("only applications can be shown again"),
        };
        Part { age, fresh: !matches!(self, Self::Stale), stale_after, seen }
    }
}

impl PoolerScene {
    fn observation(&self) -> pooler::Observation {
        pooler::Observation {
            version: "PgBouncer 1.18.0".to_owned(),
            pools: (0..=self.more)
                .map(|n| Pool {
                    database: "payment".to_owned(),
                    user: if n == 0 { "api".to_owned() } else { format!("user{n:02}") },
                    cl_active: Some(self.in_use),
                    cl_waiting: Some(self.waiting),
                    sv_active: Some(self.in_use),
                    sv_idle: Some(self.max - self.in_use),
                    wait_seconds: Some(self.longest),
                    ..Pool::default()
                })
                .collect(),
            databases: vec![Database {
                name: "payment".to_owned(),
                pool_size: Some(self.max),
                ..Database::default()
            }],
            limits: Limits {
                max_client_conn: Some(self.clients.map_or(1000, |(_, max)| max)),
                default_pool_size: Some(self.max),
                ..Limits::default()
            },
            clients: Some(self.clients.map_or(100, |(used, _)| used)),
            ..pooler::Observation::default()
        }
    }
}

fn instance(name: &str, app: &Shown<AppScene>) -> Instance {
    let pools = match app {
        Shown::Good(scene) => Ok(vec![app_pool::Pool {
            name: "HikariPool-1".to_owned(),
            preset: "hikaricp_micrometer".to_owned(),
            in_use: Some(scene.in_use),
            idle: Some(0),
            max: scene.max.map_or(Max::Unlimited, Max::Of),
            waiting: scene.waiting,
            timeouts_total: scene.timeouts,
            waits_total: scene.waits,
            wait_seconds_total: scene.waited,
        }]),
        Shown::Fails(kind) => {
            let text = format!("the instance is {kind}");
            Err(Failure { kind: *kind, text, sqlstate: None })
        }
        other => panic!("no instance: {other:?}"),
    };
    Instance { address: format!("http://{name}:8080/metrics"), pools }
}

impl ProbeScene {
    fn attempt(&self, at: Timestamp) -> Attempt {
        let failure = |kind: FailureKind, text: &str| {
            Err(Failure { kind, text: text.to_owned(), sqlstate: None })
        };
        let step = Some(Duration::from_millis(2));
        let (outcome, authentication) = match (self.refused, self.unanswered) {
            (_, true) => (failure(FailureKind::TooSlow, "no answer within 5 s"), None),
            (Some(reason), _) => (failure(FailureKind::Refused(reason), "refused"), None),
            (None, false) => (Ok(()), step),
        };
        let steps = Steps { connect: step, authentication, ..Steps::default() };
        Attempt { at, outcome, steps }
    }
}

fn shown<T>(text: &str) -> Option<Shown<T>> {
    match text {
        "stale" => Some(Shown::Stale),
        "again" => Some(Shown::Again),
        _ => text.strip_prefix("fails:").map(|kind| Shown::Fails(named(kind))),
    }
}

fn named<T: serde::de::DeserializeOwned>(word: &str) -> T {
    serde_json::from_str(&format!("\"{word}\"")).unwrap()
}

/// What stands behind the first comma, by key.
fn more(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').skip(1).map(|pair| pair.split_once('=').unwrap())
}

fn pair(text: &str) -> (u32, Option<u32>) {
    let (one, other) = text.split(',').next().unwrap().split_once('/').unwrap();
    (one.parse().unwrap(), other.parse().ok())
}

fn pooler(text: &str) -> PoolerScene {
    let (in_use, max) = pair(text);
    let mut scene = PoolerScene { in_use, max: max.unwrap(), ..PoolerScene::default() };
    for (key, value) in more(text) {
        match key {
            "wait" => scene.waiting = value.parse().unwrap(),
            "longest" => scene.longest = value.parse().unwrap(),
            "more" => scene.more = value.parse().unwrap(),
            "clients" => {
                let (used, max) = pair(value);
                scene.clients = Some((used, max.unwrap()));
            }
            other => panic!("not understood: {other}"),
        }
    }
    scene
}

fn app(text: &str) -> AppScene {
    let (in_use, max) = pair(text);
    let mut scene = AppScene { in_use, max, ..AppScene::default() };
    for (key, value) in more(text) {
        match key {
            "wait" => scene.waiting = Some(value.parse().unwrap()),
            "timeouts" => scene.timeouts = Some(value.parse().unwrap()),
            "waits" => scene.waits = Some(value.parse().unwrap()),
            "waited" => scene.waited = Some(value.parse().unwrap()),
            other => panic!("not understood: {other}"),
        }
    }
    scene
}

fn probe(text: &str) -> ProbeScene {
    let (held, text) = match text.strip_prefix("held:") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let refused = match text {
        "ok" | "unanswered" => None,
        reason => Some(named(reason)),
    };
    ProbeScene { refused, unanswered: text == "unanswered", held }
}

fn lines(text: &str) -> Vec<(Refusal, u64)> {
    if text == "quiet" {
        return Vec::new();
    }
    let (reason, count) = text.split_once('*').unwrap_or((text, "1"));
    vec![(named(reason), count.parse().unwrap())]
}
