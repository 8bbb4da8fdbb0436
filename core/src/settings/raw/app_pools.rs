//! What can be written of the pools of an application: `targets[].app_pools[]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::reading::app_pool::presets::Preset;
use crate::reading::exposition::Selector;
use crate::settings::Secret;
use crate::settings::value::{LabelName, MetricsPath, Name, Table, Unit, Username, Val};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawAppPool {
    pub(in crate::settings) application: Option<Val<Name>>,
    pub(in crate::settings) through: Option<Val<Name>>,
    pub(in crate::settings) scrape: Option<Vec<Val<Secret>>>,
    pub(in crate::settings) dns: Option<Val<bool>>,
    pub(in crate::settings) file_sd: Option<Val<PathBuf>>,
    pub(in crate::settings) metrics_path: Option<Val<MetricsPath>>,
    pub(in crate::settings) interval: Option<Val<Duration>>,
    pub(in crate::settings) timeout: Option<Val<Duration>>,
    pub(in crate::settings) bearer_token_file: Option<Val<PathBuf>>,
    pub(in crate::settings) username: Option<Val<Username>>,
    pub(in crate::settings) password_file: Option<Val<PathBuf>>,
    pub(in crate::settings) ca_file: Option<Val<PathBuf>>,
    pub(in crate::settings) preset: Option<Val<&'static Preset>>,
    pub(in crate::settings) mapping: Option<Table<RawMapping>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawMapping {
    pub(in crate::settings) pool_label: Option<Val<LabelName>>,
    pub(in crate::settings) in_use: Option<Val<Selector>>,
    pub(in crate::settings) idle: Option<Val<Selector>>,
    pub(in crate::settings) open: Option<Val<Selector>>,
    pub(in crate::settings) max: Option<Val<Selector>>,
    pub(in crate::settings) waiting: Option<Val<Selector>>,
    pub(in crate::settings) timeouts: Option<Val<Selector>>,
    pub(in crate::settings) waits: Option<Val<Selector>>,
    pub(in crate::settings) wait_time: Option<Val<Selector>>,
    pub(in crate::settings) wait_unit: Option<Val<Unit>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawAppPoolDefaults {
    pub(in crate::settings) interval: Option<Val<Duration>>,
    pub(in crate::settings) timeout: Option<Val<Duration>>,
}
