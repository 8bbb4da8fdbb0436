//! What can be written of a pooler: `targets[].poolers[]`.

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawPooler {}
