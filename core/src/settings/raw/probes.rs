//! What can be written of a probe: `targets[].probes[]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::settings::Secret;
use crate::settings::value::{Argument, Name, Ratio, Val};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::settings) struct RawProbe {
    pub(in crate::settings) name: Option<Val<Name>>,
    pub(in crate::settings) url: Option<Val<Secret>>,
    pub(in crate::settings) password_file: Option<Val<PathBuf>>,
    pub(in crate::settings) password_command: Option<Vec<Val<Argument>>>,
    pub(in crate::settings) interval: Option<Val<Duration>>,
    pub(in crate::settings) timeout: Option<Val<Duration>>,
    pub(in crate::settings) keep_free: Option<Val<Ratio>>,
}
