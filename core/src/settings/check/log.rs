//! What a server's log means: a path that can be followed, and how its lines are written.

use std::path::Path;
use std::time::Duration;

use super::Checker;
use crate::reading::log::Format;
use crate::settings::LogSettings;
use crate::settings::mistake::Mistake;
use crate::settings::place::join;
use crate::settings::raw::RawTarget;
use crate::settings::value::{Table, Val};

/// What is counted as a slow statement where nothing is set: the threshold of the post-mortem in
/// which slow statements took the slots.
const SLOWER_THAN: Duration = Duration::from_secs(2);

impl Checker<'_> {
    /// What can be used of it; a mistake in it is noted.
    pub(super) fn log(&mut self, path: &str, target: &RawTarget) -> Option<LogSettings> {
        let Table(log) = target.log.as_ref()?;
        let path = join(path, "log");
        let key = join(&path, "path");
        let Some(Val(written)) = &log.path else {
            let mistake = Mistake::new(&key, "missing");
            self.missing(mistake.hint("the file, or a pattern: \"/var/log/postgresql/*.json\""));
            return None;
        };
        let is_pattern = |part: &Path| part.to_string_lossy().contains(['*', '?']);
        if written.parent().is_some_and(is_pattern) {
            let message = "a pattern can stand in the last part only";
            self.mistake(Mistake::new(&key, message).hint("name the folder without * and ?"));
        }
        if written.file_name().is_none() {
            self.mistake(Mistake::new(&key, "names no file"));
        }
        let format = log.format.as_ref().map(|Val(format)| *format);
        let line_prefix = log.line_prefix.as_ref().map(|Val(prefix)| prefix.0.clone());
        if line_prefix.is_some() && format.is_some_and(|format| format != Format::Stderr) {
            let message = "set beside another format than stderr, which alone has one";
            let mistake = Mistake::new(join(&path, "line_prefix"), message);
            self.mistake(mistake.hint("take one of the two out"));
        }
        Some(LogSettings {
            path: self.places.resolve(&key, written),
            format,
            line_prefix,
            slower_than: log.slower_than.as_ref().map_or(SLOWER_THAN, |Val(least)| *least),
        })
    }
}
