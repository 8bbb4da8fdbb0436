//! What can be written of the pools of an application: `targets[].app_pools[]`.

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawAppPool {}
