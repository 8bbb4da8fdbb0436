//! What was read, counted by what it says and whom it is about.

use std::time::Duration;

use plimsoll_core::reading::log::{LineCount, LineKind, Lines};

use super::deadlock::deadlock;
use super::entry::Entry;
use super::kinds::kinds;

/// Counts entries.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) lines: Lines,
    slower_than: Duration,
    /// Whether the server keeps the titles of its processes.
    has_titles: bool,
}

impl Tally {
    pub(super) fn new(slower_than: Duration, has_titles: bool) -> Self {
        Self { lines: Lines::default(), slower_than, has_titles }
    }

    /// Takes an entry; `None` is a line that makes no sense.
    pub(super) fn hear(&mut self, heard: Option<Entry>) {
        let Some(mut entry) = heard else {
            self.lines.unclear = self.lines.unclear.saturating_add(1);
            return;
        };
        self.lines.read = self.lines.read.saturating_add(1);
        if !self.has_titles {
            entry.title = None;
        }
        for kind in kinds(&entry, self.slower_than).into_iter().flatten() {
            if kind == LineKind::Deadlock {
                self.lines.keep(deadlock(&entry));
            }
            self.lines.count(LineCount {
                kind,
                role: entry.role.clone(),
                database: entry.database.clone(),
                application: entry.application.clone(),
                count: 1,
            });
        }
    }

    /// Says that so many bytes were passed over.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.lines.skipped_bytes = self.lines.skipped_bytes.saturating_add(bytes);
    }
}
