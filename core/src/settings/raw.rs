//! The raw form of a configuration: every key that can be written, each of them optional, as a
//! file has it and as several files and variables merge to. What it means is `check`'s.
//!
//! Unknown keys are errors at every level. Nothing here has a default: those stand in
//! `config/default.toml`, the first layer.

mod app_pools;
mod log;
mod poolers;
mod probes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::value::{
    Address, Argument, Budget, Label, Name, Ratio, ReceiverType, Region, Table, Val, WebUrl,
};
use super::{Fallback, Secret};
use crate::judge::Severity;
use crate::judge::rule::RuleName;
pub(super) use app_pools::{RawAppPool, RawAppPoolDefaults, RawMapping};
pub(super) use log::RawLog;
pub(super) use poolers::RawPooler;
pub(super) use probes::RawProbe;

/// Everything that a configuration can say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub(super) instance: Option<Val<Name>>,
    pub(super) state_dir: Option<Val<PathBuf>>,
    pub(super) server: Option<Table<RawServer>>,
    pub(super) poll: Option<Table<RawPoll>>,
    pub(super) targets: Option<Vec<Table<RawTarget>>>,
    pub(super) rules: Option<Table<RawRules>>,
    pub(super) receivers: Option<Vec<Table<RawReceiver>>>,
    pub(super) receiver_defaults: Option<Table<RawReceiverDefaults>>,
    pub(super) app_pool_defaults: Option<Table<RawAppPoolDefaults>>,
}

impl Raw {
    /// Of TOML, in the one form that is read: the code for another would be as large again as all
    /// settings are. The error can hold a value, and so a secret.
    pub fn of_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) listen: Option<Val<SocketAddr>>,
    pub(super) external_url: Option<Val<WebUrl>>,
    pub(super) shutdown_grace: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPoll {
    pub(super) interval: Option<Val<Duration>>,
    pub(super) budget: Option<Val<Budget>>,
    pub(super) timeout: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    pub(super) name: Option<Val<Name>>,
    pub(super) postgres: Option<Val<Address>>,
    pub(super) password_file: Option<Val<PathBuf>>,
    pub(super) password_command: Option<Vec<Val<Argument>>>,
    pub(super) fallback: Option<Val<Fallback>>,
    pub(super) log: Option<Table<RawLog>>,
    pub(super) probes: Option<Vec<Table<RawProbe>>>,
    pub(super) poolers: Option<Vec<Table<RawPooler>>>,
    pub(super) app_pools: Option<Vec<Table<RawAppPool>>>,
    pub(super) labels: Option<BTreeMap<String, Val<Label>>>,
    pub(super) rules: Option<Table<RawRules>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRules {
    pub(super) slots: Option<Table<RawLevels>>,
    pub(super) slots_full: Option<Table<RawStateRule>>,
    pub(super) logins_refused: Option<Table<RawLoginsRule>>,
    pub(super) role_limit: Option<Table<RawSubjectRule>>,
    pub(super) database_limit: Option<Table<RawSubjectRule>>,
    pub(super) pool_waiting: Option<Table<RawWaitingRule>>,
    pub(super) pool_utilization: Option<Table<RawUtilizationRule>>,
    pub(super) overcommit: Option<Table<RawStateRule>>,
    pub(super) source_unreadable: Option<Table<RawSourceRule>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLevels {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) warning: Option<Table<RawLevel>>,
    pub(super) critical: Option<Table<RawLevel>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSubjectRule {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) warning: Option<Table<RawLevel>>,
    pub(super) critical: Option<Table<RawLevel>>,
    pub(super) subjects: Option<BTreeMap<String, Table<RawLevels>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLevel {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) above: Option<Val<Ratio>>,
    pub(super) clear_below: Option<Val<Ratio>>,
    pub(super) above_used: Option<Val<u32>>,
    pub(super) clear_below_used: Option<Val<u32>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Val<Duration>>,
    pub(super) keep_firing_for: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStateRule {
    pub(super) enabled: Option<Val<bool>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Val<Duration>>,
    pub(super) keep_firing_for: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLoginsRule {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) unanswered_for: Option<Val<Duration>>,
    pub(super) keep_firing_for: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSourceRule {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) refused_or_stopped: Option<Val<Duration>>,
    pub(super) unreachable_or_slow: Option<Val<Duration>>,
    pub(super) starting: Option<Val<Duration>>,
    pub(super) others: Option<Val<Duration>>,
    pub(super) keep_firing_for: Option<Val<Duration>>,
    pub(super) subjects: Option<BTreeMap<String, Table<RawSourceSubject>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSourceSubject {
    pub(super) enabled: Option<Val<bool>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUtilizationRule {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) alone: Option<Val<bool>>,
    pub(super) warning: Option<Table<RawLevel>>,
    pub(super) critical: Option<Table<RawLevel>>,
    pub(super) subjects: Option<BTreeMap<String, Table<RawLevels>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWaitingRule {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) timeouts: Option<Val<bool>>,
    pub(super) warning: Option<Table<RawWaitLevel>>,
    pub(super) critical: Option<Table<RawWaitLevel>>,
    pub(super) subjects: Option<BTreeMap<String, Table<RawWaitLevels>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWaitLevels {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) warning: Option<Table<RawWaitLevel>>,
    pub(super) critical: Option<Table<RawWaitLevel>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWaitLevel {
    pub(super) enabled: Option<Val<bool>>,
    pub(super) above: Option<Val<Duration>>,
    pub(super) above_clients: Option<Val<Ratio>>,
    pub(super) clear_below: Option<Val<Duration>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Val<Duration>>,
    pub(super) keep_firing_for: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReceiver {
    pub(super) name: Option<Val<Name>>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Val<ReceiverType>>,
    pub(super) url: Option<Val<Secret>>,
    pub(super) url_file: Option<Val<PathBuf>>,
    pub(super) signing_secret: Option<Val<Secret>>,
    pub(super) signing_secret_file: Option<Val<PathBuf>>,
    pub(super) signing_secret_files: Option<Vec<Val<PathBuf>>>,
    pub(super) routing_key: Option<Val<Secret>>,
    pub(super) routing_key_file: Option<Val<PathBuf>>,
    pub(super) region: Option<Val<Region>>,
    pub(super) base_url: Option<Val<WebUrl>>,
    pub(super) min_severity: Option<Val<Severity>>,
    pub(super) send_resolved: Option<Val<bool>>,
    pub(super) rules: Option<Vec<Val<RuleName>>>,
    pub(super) targets: Option<Vec<Val<Name>>>,
    pub(super) repeat_interval: Option<Val<Duration>>,
    pub(super) repeat_interval_warning: Option<Val<Duration>>,
    pub(super) timeout: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReceiverDefaults {
    pub(super) webhook: Option<Table<RawWebhookDefaults>>,
    pub(super) pagerduty: Option<Table<RawPagerdutyDefaults>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhookDefaults {
    pub(super) min_severity: Option<Val<Severity>>,
    pub(super) send_resolved: Option<Val<bool>>,
    pub(super) repeat_interval: Option<Val<Duration>>,
    pub(super) repeat_interval_warning: Option<Val<Duration>>,
    pub(super) timeout: Option<Val<Duration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPagerdutyDefaults {
    pub(super) region: Option<Val<Region>>,
    pub(super) min_severity: Option<Val<Severity>>,
    pub(super) send_resolved: Option<Val<bool>>,
    pub(super) repeat_interval: Option<Val<Duration>>,
    pub(super) repeat_interval_warning: Option<Val<Duration>>,
    pub(super) timeout: Option<Val<Duration>>,
}

/// Keys whose values are never shown, whatever is wrong with them.
pub(super) const SECRET_KEYS: [&str; 6] =
    ["postgres", "password_command", "url", "routing_key", "signing_secret", "scrape"];
