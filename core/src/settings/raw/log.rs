//! What can be written of a server's log: `targets[].log`.

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawLog {}
