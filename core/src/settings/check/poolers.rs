//! What poolers mean.

use super::Checker;
use crate::settings::PoolerSettings;
use crate::settings::raw::RawTarget;

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn poolers(&mut self, _path: &str, _target: &RawTarget) -> Vec<PoolerSettings> {
        Vec::new()
    }
}
