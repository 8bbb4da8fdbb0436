//! What a server's log means.

use super::Checker;
use crate::settings::LogSettings;
use crate::settings::raw::RawTarget;

impl Checker<'_> {
    /// Those that can be used; a mistake in one is noted.
    pub(super) fn log(&mut self, _path: &str, _target: &RawTarget) -> Option<LogSettings> {
        None
    }
}
