//! What everyone may see of the server's log: what it said since the start, and its deadlocks.
//!
//! Readings hold what was read since the one before; here it is added up, so that it can be looked
//! at and scraped. Called by [`super::published`].

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reading::Sourced;
use crate::reading::log::{self, Deadlock, LineCount, LineKind, Lines};

/// At most so many kinds, roles, databases and applications are told apart. Names come from
/// clients; what is beyond is added up by kind and database, and then by kind alone. Nothing is
/// forgotten, so that no count falls.
const MAX_COUNTS: usize = 500;
const MAX_COUNTS_BY_DATABASE: usize = 600;

/// So many deadlocks are kept with their statements, the newest.
pub const MAX_DEADLOCKS_SHOWN: usize = 10;

/// At most so many counts are shown, the largest.
pub const MAX_LINES_SHOWN: usize = 100;

/// The word for lines that make no sense in the log's format.
const UNCLEAR: &str = "unclear";

/// What a line says and about whom: kind, role, database, application.
type Key = (LineKind, String, String, String);

/// What the log said since the start.
#[derive(Clone, Debug, Default)]
pub struct LogSeen {
    counts: BTreeMap<Key, u64>,
    unclear: u64,
    skipped_bytes: u64,
    deadlocks: VecDeque<DeadlockStatus>,
}

/// The log of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogStatus {
    /// The file that is read; absent while the log cannot be read.
    pub file: Option<String>,
    /// `jsonlog`, `csvlog` or `stderr`.
    pub format: Option<String>,
    /// What the file holds that is not read yet.
    pub behind_bytes: Option<u64>,
    /// What was passed over since the start, because more was written than can be read in time.
    pub skipped_bytes: u64,
    /// Lines since the start that make no sense in the log's format.
    pub unclear: u64,
    /// Lines since the start by what they say and about whom, the most frequent first; at most
    /// [`MAX_LINES_SHOWN`].
    pub lines: Vec<LogLineStatus>,
    /// The newest deadlocks, the latest first; at most [`MAX_DEADLOCKS_SHOWN`].
    pub deadlocks: Vec<DeadlockStatus>,
}

/// Lines that are alike. Names are empty where the lines do not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLineStatus {
    /// `refused`, `login_failed`, `deadlock`, `error`…
    pub kind: String,
    /// Of refused logins: `all_slots_taken`, `role_limit`…
    pub reason: Option<String>,
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// The application.
    pub application: String,
    /// How many.
    pub count: u64,
}

/// A deadlock, as its victim wrote it into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlockStatus {
    /// The time of the reading that it is in.
    pub read_at: Timestamp,
    /// The role of the session that was cancelled.
    pub role: String,
    /// Its database.
    pub database: String,
    /// Its application.
    pub application: String,
    /// Its process id.
    pub pid: Option<i32>,
    /// The sessions that waited for each other.
    pub parties: Vec<DeadlockParty>,
}

/// A session in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlockParty {
    /// Its process id.
    pub pid: i32,
    /// What it waited for, in the server's words.
    pub waits: String,
    /// What it ran, without literals.
    pub statement: String,
}

impl LogSeen {
    /// Adds what a reading holds.
    pub fn add(&mut self, read_at: Timestamp, lines: &Lines) {
        for line in &lines.counts {
            self.count(line);
        }
        self.unclear = self.unclear.saturating_add(lines.unclear);
        self.skipped_bytes = self.skipped_bytes.saturating_add(lines.skipped_bytes);
        for deadlock in &lines.deadlocks {
            self.deadlocks.push_front(DeadlockStatus::of(read_at, deadlock));
        }
        self.deadlocks.truncate(MAX_DEADLOCKS_SHOWN);
    }

    fn count(&mut self, line: &LineCount) {
        let (role, database) = (line.role.clone(), line.database.clone());
        let whole = (line.kind, role, database.clone(), line.application.clone());
        let of_database = (line.kind, String::new(), database, String::new());
        let of_kind = (line.kind, String::new(), String::new(), String::new());
        let has_room = |key: &Key, most| self.counts.contains_key(key) || self.counts.len() < most;
        let key = if has_room(&whole, MAX_COUNTS) {
            whole
        } else if has_room(&of_database, MAX_COUNTS_BY_DATABASE) {
            of_database
        } else {
            of_kind
        };
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(line.count);
    }

    /// Lines by the word for what they say and by database; those that make no sense are of none.
    pub fn by_database(&self) -> BTreeMap<(&'static str, &str), u64> {
        let mut sums: BTreeMap<(&'static str, &str), u64> = BTreeMap::new();
        for ((kind, _, database, _), count) in &self.counts {
            let sum = sums.entry((kind.word(), database)).or_default();
            *sum = sum.saturating_add(*count);
        }
        if self.unclear > 0 {
            sums.insert((UNCLEAR, ""), self.unclear);
        }
        sums
    }

    /// What was passed over.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }
}

impl LogStatus {
    /// The public form of what was seen, and of where it is read now.
    pub(super) fn of(seen: &LogSeen, log: &Sourced<log::Observation, Lines>) -> Self {
        let now = log.part.known();
        let mut lines: Vec<LogLineStatus> = seen.counts.iter().map(LogLineStatus::of).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.count));
        lines.truncate(MAX_LINES_SHOWN);
        Self {
            file: now.map(|now| now.file.clone()),
            format: now.and_then(|now| now.format).map(|format| format.word().to_owned()),
            behind_bytes: now.map(|now| now.behind_bytes),
            skipped_bytes: seen.skipped_bytes,
            unclear: seen.unclear,
            lines,
            deadlocks: seen.deadlocks.iter().cloned().collect(),
        }
    }
}

impl LogLineStatus {
    fn of(((kind, role, database, application), count): (&Key, &u64)) -> Self {
        let reason = match kind {
            LineKind::Refused(reason) => Some(reason.word().to_owned()),
            _ => None,
        };
        Self {
            kind: kind.word().to_owned(),
            reason,
            role: role.clone(),
            database: database.clone(),
            application: application.clone(),
            count: *count,
        }
    }
}

impl DeadlockStatus {
    fn of(read_at: Timestamp, deadlock: &Deadlock) -> Self {
        let parties = deadlock.parties.iter().map(|party| DeadlockParty {
            pid: party.pid,
            waits: party.waits.clone(),
            statement: party.statement.clone(),
        });
        Self {
            read_at,
            role: deadlock.role.clone(),
            database: deadlock.database.clone(),
            application: deadlock.application.clone(),
            pid: deadlock.pid,
            parties: parties.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(role: &str, database: &str) -> Lines {
        let line = LineCount {
            kind: LineKind::Error,
            role: role.to_owned(),
            database: database.to_owned(),
            application: "web".to_owned(),
            count: 2,
        };
        Lines { counts: vec![line], ..Lines::default() }
    }

    #[test]
    fn a_flood_of_names_keeps_its_sums_and_no_count_falls() {
        let mut seen = LogSeen::default();
        seen.add(Timestamp::UNIX_EPOCH, &errors("app", "shop"));
        for n in 0..2_000 {
            let lines = errors(&format!("role{n}"), &format!("db{}", n % 200));
            seen.add(Timestamp::UNIX_EPOCH, &lines);
        }
        seen.add(Timestamp::UNIX_EPOCH, &errors("app", "shop"));
        assert!(seen.counts.len() <= MAX_COUNTS_BY_DATABASE + 1, "{}", seen.counts.len());
        let sums = seen.by_database();
        assert_eq!(sums[&("error", "shop")], 4);
        assert_eq!(sums.values().sum::<u64>(), 4_004);
    }

    #[test]
    fn the_newest_deadlocks_are_kept() {
        let mut seen = LogSeen::default();
        for pid in 0..25 {
            let deadlock = Deadlock {
                role: "app".to_owned(),
                database: "shop".to_owned(),
                application: "web".to_owned(),
                pid: Some(pid),
                parties: Vec::new(),
            };
            let lines = Lines { deadlocks: vec![deadlock], ..Lines::default() };
            seen.add(Timestamp::UNIX_EPOCH, &lines);
        }
        let pids: Vec<_> = seen.deadlocks.iter().filter_map(|deadlock| deadlock.pid).collect();
        assert_eq!(pids, (15..25).rev().collect::<Vec<_>>());
    }
}
