//! What the pools of applications mean.

use super::Checker;
use crate::settings::AppPoolSettings;
use crate::settings::raw::RawTarget;

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn app_pools(&mut self, _path: &str, _target: &RawTarget) -> Vec<AppPoolSettings> {
        Vec::new()
    }
}
