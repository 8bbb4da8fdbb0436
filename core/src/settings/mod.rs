//! What the operator asked for: text in, checked settings or every mistake out.
//!
//! `load` reads the files, the environment and the secrets, and calls this. Nothing here reads a
//! file: what stands in one arrives as text with its name, so that each mistake can say where.
//!
//! The way of a configuration: text → [`Layer`] (strictly, a mistake at a time) → merged by
//! `load` → [`Raw`] → [`check()`] → [`Settings`].

mod check;
mod keys;
mod layer;
mod mistake;
mod place;
mod raw;
mod signing;
mod strict;
mod suggest;
mod surroundings;
mod url;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::judge::Severity;
use crate::judge::rule::{RuleName, RuleSet};
use crate::reading::app_pool::scrape::Mapping;
use crate::reading::log::Format;

pub use check::{Outside, ParsedTarget, check, default_rules, secret_files};
pub use keys::known_keys;
pub use layer::Layer;
pub use mistake::Mistake;
pub use place::{Origin, Place, Position};
pub use raw::Raw;
pub use surroundings::{ServiceFile, Surroundings};

/// Every default, with its reason: the first layer of each configuration.
pub const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Checked settings: everything has a value, and every value can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Part of every dedup key; `None` was not set.
    pub instance: Option<String>,
    /// Where episode and outbox are kept.
    pub state_dir: PathBuf,
    /// The HTTP server.
    pub server: ServerSettings,
    /// The rhythm of reading.
    pub poll: PollSettings,
    /// The targets, each with its own rules.
    pub targets: Vec<TargetSettings>,
    /// The receivers.
    pub receivers: Vec<ReceiverSettings>,
    /// What the addresses of targets leave out.
    pub surroundings: Surroundings,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The address under which people reach it, for links in messages.
    pub external_url: Option<String>,
    /// How long SIGTERM lets deliveries and connections end.
    pub shutdown_grace: Duration,
}

/// The rhythm of reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PollSettings {
    /// The tick.
    pub interval: Duration,
    /// Of one server core, tenfold in trouble.
    pub budget: f64,
    /// After so long without an answer a poll has failed.
    pub timeout: Duration,
}

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSettings {
    /// Its name, from settings or from its address.
    pub name: String,
    /// True if it got its name from its address.
    pub named_by_default: bool,
    /// A URL or key=value string for the Postgres driver, which may hold a password.
    pub postgres: Secret,
    /// Where its password is, if not in `postgres` or around it.
    pub password: Option<PasswordFrom>,
    /// How it is read when it refuses our ordinary login.
    pub fallback: Fallback,
    /// Its server's log, if that is followed.
    pub log: Option<LogSettings>,
    /// Logins that are made as applications make them.
    pub probes: Vec<ProbeSettings>,
    /// Poolers before it.
    pub poolers: Vec<PoolerSettings>,
    /// The pools of applications.
    pub app_pools: Vec<AppPoolSettings>,
    /// Said with every message.
    pub labels: BTreeMap<String, String>,
    /// Its rules: those for all targets with its own laid over them.
    pub rules: RuleSet,
}

/// A server's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// The file, or a pattern that its names match.
    pub path: PathBuf,
    /// Its format; `None` if its name and its first line are to tell it.
    pub format: Option<Format>,
    /// The `log_line_prefix` of a stderr log; `None` if the server is to tell it.
    pub line_prefix: Option<String>,
    /// Statements that took at least so long are counted as slow ones.
    pub slower_than: Duration,
}

/// A login that is made as an application makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSettings {
    /// Its name; no other probe of the target has it.
    pub name: String,
    /// The address that the application has, which may hold a password. It names its user.
    pub url: Secret,
    /// Where its password is, if not in `url`.
    pub password: Option<PasswordFrom>,
    /// From the beginning of one login to the beginning of the next.
    pub interval: Duration,
    /// After so long without an answer a login has failed.
    pub timeout: Duration,
    /// No login is made that would leave less than this part of the usable slots free.
    pub keep_free: f64,
}

/// A pooler.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolerSettings {
    /// Its name; no other pooler of the target has it.
    pub name: String,
    /// The address of its admin console, which may hold a password. It names its user.
    pub url: Secret,
    /// Where its password is, if not in `url`.
    pub password: Option<PasswordFrom>,
    /// How often it is looked at.
    pub interval: Duration,
    /// After so long without an answer a look has failed.
    pub timeout: Duration,
}

/// Instances of one application, however they are found. A round over them is to end in its
/// interval, and each is in every reading.
pub const MAX_INSTANCES: usize = 1000;

/// The pools of an application.
#[derive(Clone, Debug, PartialEq)]
pub struct AppPoolSettings {
    /// The application's name.
    pub application: String,
    /// The URLs of instances, which may hold tokens.
    pub scrape: Vec<Secret>,
    /// Whether each address that a name in them has is an instance.
    pub dns: bool,
    /// A file that lists instances, in Prometheus' JSON.
    pub file_sd: Option<PathBuf>,
    /// Where those of that file show their metrics, unless it says otherwise.
    pub metrics_path: String,
    /// How often they are asked.
    pub interval: Duration,
    /// After so long without a whole answer an instance has failed; at most the interval.
    pub timeout: Duration,
    /// Who asks.
    pub credentials: ScrapeCredentials,
    /// Whose certificates are accepted; `None` for those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// What their metrics mean.
    pub metrics: PoolMetrics,
    /// The pooler through which it reaches the server, if it does, by its name.
    pub through: Option<String>,
}

/// What is shown to an instance that wants to know who asks; read anew for every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeCredentials {
    /// Nothing.
    None,
    /// A token in a file.
    Bearer(PathBuf),
    /// A name, and a password in a file.
    Basic {
        /// The name.
        username: String,
        /// The file.
        password_file: PathBuf,
    },
}

/// What the metrics of an application mean.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolMetrics {
    /// The names that are seen say which presets.
    AsSeen,
    /// This preset and no other.
    Preset(&'static str),
    /// A mapping of the operator's own.
    Mapping(Mapping),
}

/// A password that is looked up anew at every login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a program prints: the program and its arguments. No shell sees them.
    Command(Vec<Secret>),
}

/// How a server is read that refuses our ordinary login for want of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Not at all, until it lets us in.
    #[default]
    None,
    /// Over a connection with `replication=database`, which takes no slot.
    Replication,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverSettings {
    /// Its name.
    pub name: String,
    /// What it is and where.
    pub kind: ReceiverKind,
    /// From which severity on it hears.
    pub min_severity: Severity,
    /// Whether it is told of the end.
    pub send_resolved: bool,
    /// Only these rules; empty for all.
    pub rules: Vec<RuleName>,
    /// Only these targets; empty for all.
    pub targets: Vec<String>,
    /// How often a critical incident is told again.
    pub repeat_interval: Duration,
    /// How often a warning is told again.
    pub repeat_interval_warning: Duration,
    /// After so long without an answer an attempt has failed.
    pub timeout: Duration,
}

/// The kinds of receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverKind {
    /// Our JSON, signed if there is a secret.
    Webhook {
        /// Where it is posted.
        url: Secret,
        /// `whsec_…` of Standard Webhooks; several while one is replaced by another.
        signing_secrets: Vec<Secret>,
    },
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// The integration's key: 32 characters.
        routing_key: Secret,
        /// The base of the API: the default, the one of the EU region, or a proxy of one's own.
        base_url: String,
    },
}

/// Text that cannot be printed by accident: no Display, and a Debug that hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
