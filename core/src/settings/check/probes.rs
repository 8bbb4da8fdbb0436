//! What probes mean.

use super::Checker;
use crate::settings::ProbeSettings;
use crate::settings::raw::RawTarget;

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn probes(&mut self, _path: &str, _target: &RawTarget) -> Vec<ProbeSettings> {
        Vec::new()
    }
}
