//! Follows the files of a log: which is read, how far, and what comes after it.
//!
//! All calls may wait for a disk; [`super`] makes them on a thread that may. The file that is read
//! is kept open, so one that was renamed or removed is read to its end before the next is begun.
//! How far the others were read is remembered by their identity, so no line is read twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use plimsoll_core::reading::log::{Lines, Observation};
use plimsoll_core::reading::postgres::Logging;
use plimsoll_core::reading::{Failure, FailureKind};

use super::LogSource;
use super::find::{Found, Identity, failure, find, folder_of, is_pattern, no_file};
use super::prefix::Prefix;
use super::reader::{FIRST_LINE_BYTES, Reader, by_first_line, by_name};
use super::tally::Tally;
use crate::clock;

/// So much is read in one look: some hundredths of a second of one core.
const MAX_READ_A_LOOK: u64 = 8 * 1024 * 1024;

/// What was written longer ago than this many bytes is passed over: it says little of now, and
/// would be read for seconds.
const MAX_BEHIND: u64 = 256 * 1024 * 1024;

/// What is left of it then.
const KEPT_OF_BEHIND: u64 = 16 * 1024 * 1024;

/// So many files are begun in one look.
const MAX_FILES_A_LOOK: usize = 16;

const BUFFER_BYTES: usize = 64 * 1024;

/// So many bytes at the beginning of a file, and before the place of reading, are remembered: one that
/// was truncated and has grown beyond that place again has others there. Lines of a flood are alike
/// but for their times, and the first line's is within these.
const MARK_BYTES: u64 = 128;

/// What one look at the log gave.
#[derive(Debug)]
pub(super) struct Look {
    /// Where the log is read, or why it cannot be.
    pub(super) outcome: Result<Observation, Failure>,
    /// What it said.
    pub(super) lines: Lines,
    /// When to look again.
    pub(super) again: Again,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// There is more to be read.
    AtOnce,
    /// An entry is held that may be whole.
    Soon,
    /// At the next turn.
    Later,
}

/// Follows a log.
#[derive(Debug)]
pub(super) struct Follower {
    told: LogSource,
    open: Option<Open>,
    /// How far each file was read that is there and not open.
    known: BTreeMap<Identity, u64>,
    /// Since when it is known what is there: what was there before is not read.
    begun: Option<SystemTime>,
    /// No file was there until now.
    is_awaited: bool,
    prefix: Option<(String, Prefix)>,
    buffer: Vec<u8>,
}

/// The file that is read.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    identity: Identity,
    modified: SystemTime,
    offset: u64,
    size: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// `None` while its format is not known.
    reader: Option<Reader>,
}

impl Follower {
    pub(super) fn new(told: LogSource) -> Self {
        Self {
            told,
            open: None,
            known: BTreeMap::new(),
            begun: None,
            is_awaited: false,
            prefix: None,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Reads what is new.
    pub(super) fn look(&mut self, server: Option<&Logging>, now: Instant) -> Look {
        let prefix = self.told.line_prefix.as_deref().or(server.map(|s| s.line_prefix.as_str()));
        self.learn(prefix.map(str::to_owned));
        let has_titles = server.is_none_or(|server| server.process_titles);
        let mut tally = Tally::new(self.told.slower_than, has_titles);
        let mut budget = MAX_READ_A_LOOK;
        let read = self.read(&mut budget, now, &mut tally);
        let is_held = self.settle(budget == MAX_READ_A_LOOK, &mut tally);
        let again = match budget {
            0 => Again::AtOnce,
            _ if is_held => Again::Soon,
            _ => Again::Later,
        };
        let outcome = read.and_then(|()| self.observation(server));
        Look { outcome, lines: tally.lines, again }
    }

    fn learn(&mut self, setting: Option<String>) {
        if self.prefix.as_ref().map(|(known, _)| known) == setting.as_ref() {
            return;
        }
        self.prefix = setting.map(|setting| {
            let prefix = Prefix::new(&setting);
            (setting, prefix)
        });
        let prefix = self.prefix.as_ref().map(|(_, prefix)| prefix);
        if let Some(reader) = self.open.as_mut().and_then(|open| open.reader.as_mut()) {
            reader.behind(prefix);
        }
    }

    /// Reads the open file to its end, then those that were written to after it.
    fn read(&mut self, budget: &mut u64, now: Instant, tally: &mut Tally) -> Result<(), Failure> {
        let found = find(&self.told.path);
        if let Ok(found) = &found {
            self.remember(found);
        }
        for _ in 0..MAX_FILES_A_LOOK {
            if let Some(open) = &mut self.open {
                let prefix = self.prefix.as_ref().map(|(_, prefix)| prefix);
                let read = open.read_on(&self.told, prefix, &mut self.buffer, budget, now, tally);
                if let Err(failure) = read {
                    // Opened anew at the next look: on a network's disk it may be another by then.
                    self.known.insert(open.identity, open.offset);
                    self.open = None;
                    return Err(failure);
                }
            }
            if *budget == 0 {
                break;
            }
            let Some(next) = found.as_ref().ok().and_then(|found| self.next(found)) else { break };
            self.turn_to(&next, tally)?;
        }
        found.map(drop)
    }

    /// What is there when we begin is known as if it had been read.
    fn remember(&mut self, found: &[Found]) {
        let begun = *self.begun.get_or_insert_with(|| {
            self.known = found.iter().map(|one| (one.identity, one.size)).collect();
            self.is_awaited = true;
            clock::wall().into()
        });
        if self.is_awaited && !found.is_empty() {
            self.is_awaited = false;
            // The first ones may have come with a volume that was mounted late.
            let old = found.iter().filter(|one| one.is_older_than(begun));
            self.known.extend(old.map(|one| (one.identity, one.size)));
        }
        // A volume that is gone for a while will have the same files again.
        if found.is_empty() && !folder_of(&self.told.path).is_dir() {
            return;
        }
        let there: BTreeSet<Identity> = found.iter().map(|one| one.identity).collect();
        self.known.retain(|identity, _| there.contains(identity));
        if let Some(open) = &mut self.open
            && let Some(same) = found.iter().find(|one| one.identity == open.identity)
        {
            open.modified = same.modified;
        }
    }

    /// The file to go on with: the oldest with something to read among those that were written to
    /// after the open one. As long as nothing is open, and nothing to be read, the newest.
    fn next(&self, found: &[Found]) -> Option<Found> {
        let is_unread = |one: &Found| {
            let read = self.known.get(&one.identity).copied().unwrap_or(0);
            0 < one.size && one.size != read
        };
        let Some(open) = &self.open else {
            return found.iter().find(|one| is_unread(one)).or(found.last()).cloned();
        };
        let is_later = |one: &Found| one.identity != open.identity && open.modified <= one.modified;
        found.iter().find(|one| is_later(one) && is_unread(one)).cloned()
    }

    fn turn_to(&mut self, next: &Found, tally: &mut Tally) -> Result<(), Failure> {
        let known = self.known.get(&next.identity).copied().unwrap_or(0);
        let new = Open::at(&next.path, known, next.modified)?;
        tracing::debug!(file = %next.path.display(), from = new.offset, "reading");
        if let Some(mut left) = self.open.replace(new) {
            if let Some(reader) = &mut left.reader {
                reader.settle(&mut |heard| tally.hear(heard));
            }
            self.known.insert(left.identity, left.offset);
        }
        Ok(())
    }

    /// Lets an entry go that was held while nothing came; says whether one still is.
    fn settle(&mut self, nothing_came: bool, tally: &mut Tally) -> bool {
        let reader = self.open.as_mut().and_then(|open| open.reader.as_mut());
        let Some(reader) = reader.filter(|reader| reader.is_held()) else { return false };
        if nothing_came {
            reader.settle(&mut |heard| tally.hear(heard));
        }
        !nothing_came
    }

    fn observation(&self, server: Option<&Logging>) -> Result<Observation, Failure> {
        let path = &self.told.path;
        let failure = |kind, text| Failure { kind, text, sqlstate: None };
        let Some(open) = &self.open else {
            let what = if is_pattern(path) { "no file matches" } else { "there is no file" };
            return Err(failure(FailureKind::Unreachable, format!("{what} {}", path.display())));
        };
        let format = open.reader.as_ref().map(Reader::format);
        if let (Some(format), Some(server)) = (format, server)
            && !server.writes(format)
        {
            let text = format!(
                "{} is a {} log, and the server writes {}: it gets nothing; hint: set \
                 log_destination, or the path of the other log",
                open.path.display(),
                format.word(),
                server.destination,
            );
            return Err(failure(FailureKind::Unsupported, text));
        }
        Ok(Observation {
            file: open.path.display().to_string(),
            format,
            tells_names: open.reader.as_ref().is_some_and(Reader::tells_names),
            behind_bytes: open.size.saturating_sub(open.offset),
        })
    }
}

impl Open {
    /// Opens a file, to be read from there on.
    fn at(path: &Path, offset: u64, modified: SystemTime) -> Result<Self, Failure> {
        let wrong = |error: io::Error| failure(path, "reading", &error);
        let file = File::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if !metadata.is_file() {
            return Err(no_file(path));
        }
        // One that is shorter than it was is another.
        let offset = if metadata.len() < offset { 0 } else { offset };
        let mut open = Self {
            path: path.to_owned(),
            identity: Identity::of(&metadata),
            file,
            modified,
            offset,
            size: metadata.len(),
            head: Vec::new(),
            tail: Vec::new(),
            reader: None,
        };
        (open.head, open.tail) = open.marks().map_err(wrong)?;
        Ok(open)
    }

    /// What stands at the beginning and before the place of reading.
    fn marks(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let len = self.offset.min(MARK_BYTES);
        let bytes_at = |offset| {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            self.file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        Ok((bytes_at(0)?, bytes_at(self.offset - len)?))
    }

    /// Reads what is new, as far as the budget goes.
    fn read_on(
        &mut self,
        told: &LogSource,
        prefix: Option<&Prefix>,
        buffer: &mut [u8],
        budget: &mut u64,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let path = self.path.clone();
        let wrong = |error: io::Error| failure(&path, "reading", &error);
        self.size = self.file.metadata().map_err(wrong)?.len();
        if self.is_another() {
            self.begin_again();
        }
        self.skip(tally);
        self.know_format(told, prefix).map_err(wrong)?;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let before = self.offset;
        while self.offset < self.size && 0 < *budget {
            let len = buffer.len().min(usize::try_from(*budget).unwrap_or(usize::MAX));
            let len = match self.file.read_at(&mut buffer[..len], self.offset) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(error)),
            };
            reader.feed(&buffer[..len], now, &mut |heard| tally.hear(heard));
            self.offset += len as u64;
            *budget -= len as u64;
        }
        self.size = self.size.max(self.offset);
        // One that was truncated meanwhile has none, and is begun again at the next look.
        if before < self.offset
            && let Ok(marks) = self.marks()
        {
            (self.head, self.tail) = marks;
        }
        Ok(())
    }

    /// Whether what is in the file now is not what was read: it was truncated.
    fn is_another(&self) -> bool {
        if self.size < self.offset {
            return true;
        }
        // One that cannot be read now says so in a moment.
        let is_other = |(head, tail): (Vec<u8>, Vec<u8>)| head != self.head || tail != self.tail;
        self.offset < self.size && self.marks().is_ok_and(is_other)
    }

    fn begin_again(&mut self) {
        tracing::debug!(file = %self.path.display(), "the log was truncated");
        self.offset = 0;
        (self.head, self.tail) = (Vec::new(), Vec::new());
        self.reader = None;
    }

    /// Passes over what is too much.
    fn skip(&mut self, tally: &mut Tally) {
        if self.size - self.offset <= MAX_BEHIND {
            return;
        }
        let offset = self.size - KEPT_OF_BEHIND;
        tally.skip(offset - self.offset);
        self.offset = offset;
        (self.head, self.tail) = self.marks().unwrap_or_default();
        if let Some(reader) = &mut self.reader {
            reader.lose_place(false);
        }
    }

    /// Finds the format, if it is not known yet and the file says it.
    fn know_format(&mut self, told: &LogSource, prefix: Option<&Prefix>) -> io::Result<()> {
        if self.reader.is_some() || self.size == 0 {
            return Ok(());
        }
        let mut format = told.format.or_else(|| by_name(&self.path));
        if format.is_none() {
            let mut first = [0; FIRST_LINE_BYTES];
            let len = self.file.read_at(&mut first, 0)?;
            format = by_first_line(&first[..len]);
        }
        let Some(format) = format else { return Ok(()) };
        let mut reader = Reader::new(format);
        reader.behind(prefix);
        if 0 < self.offset {
            reader.lose_place(self.tail.last() == Some(&b'\n'));
        }
        self.reader = Some(reader);
        Ok(())
    }
}
