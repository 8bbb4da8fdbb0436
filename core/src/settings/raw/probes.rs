//! What can be written of a probe: `targets[].probes[]`.

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawProbe {}
