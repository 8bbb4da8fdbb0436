//! What the server's log said since the reading before: how many lines of which kind, about whom,
//! and the statements of deadlocks.
//!
//! Counts are of lines that were read, each in exactly one reading. What the log cannot tell apart
//! is counted as the more general kind; `collect::log` says where that happens.

use serde::{Deserialize, Serialize};

use super::{Happened, Refusal};

/// At most so many roles, databases and applications are told apart in one reading. Names come from
/// clients: a flood of made-up ones must not fill a reading.
pub const MAX_COUNTS: usize = 300;

/// What is beyond is counted by kind and database, for at most so many more, and then by kind
/// alone. Sums by kind are exact whatever happens.
pub const MAX_FOLDED: usize = 100;

/// At most so many deadlocks are carried with their statements; all of them are counted.
pub const MAX_DEADLOCKS: usize = 16;

/// Where the log is read, and how well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The file that is read now.
    pub file: String,
    /// How its lines are written; `None` while the file is empty and its name does not tell.
    #[serde(default)]
    pub format: Option<Format>,
    /// For stderr: whether its lines were taken apart by a `log_line_prefix`, so that they tell
    /// role, database and application as far as that names them. Always true of the others.
    #[serde(default)]
    pub tells_names: bool,
    /// What the file holds that is not read yet, in bytes.
    #[serde(default)]
    pub behind_bytes: u64,
}

/// How a log is written (`log_destination`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object a line (15 and later).
    Jsonlog,
    /// Comma-separated values.
    Csvlog,
    /// Text, each line after a `log_line_prefix`.
    Stderr,
}

impl Format {
    /// The server's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Jsonlog => "jsonlog",
            Self::Csvlog => "csvlog",
            Self::Stderr => "stderr",
        }
    }
}

/// What was read since the reading before, by what it says.
///
/// **Refusals, and the daemon's own logins.** The server writes a refused login before it knows the
/// client's `application_name`, so the log cannot say which of them were ours: counts here hold
/// those of `Reading.logins` (and of probes) a second time. The two are never added. Where the log
/// is followed its count is the number of refused logins, ours included; `Reading.logins` says that
/// one was refused where there is no log, or none that can be read, and that none is refused any
/// more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// How many of each kind, by whom they are about: in the order of kind, role, database and
    /// application. A line can be of two kinds: each ERROR is counted as [`LineKind::Error`] too.
    pub counts: Vec<LineCount>,
    /// The deadlocks, the latest last.
    #[serde(default)]
    pub deadlocks: Vec<Deadlock>,
    /// Entries of the log that were read, whatever they say.
    #[serde(default)]
    pub read: u64,
    /// Lines that make no sense in this format: of another program, torn, or after another prefix.
    #[serde(default)]
    pub unclear: u64,
    /// Bytes that were passed over: more was written than can be read in time.
    #[serde(default)]
    pub skipped_bytes: u64,
}

/// Lines of one kind about one role, database and application; each empty where the line does not
/// tell, and where there were too many to tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    /// What they say.
    pub kind: LineKind,
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// `application_name`; refused and failed logins have none yet.
    pub application: String,
    /// How many.
    pub count: u64,
}

/// What a line says. In brackets what tells it: what is only told by its text is told in English
/// (`lc_messages`) only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A login was refused for want of a slot (53300). [`Refusal::WalSenders`] is no refused login
    /// but a standby's, or a backup's.
    Refused(Refusal),
    /// A login failed: password, `pg_hba.conf`, a role or database that is not there or may not be
    /// used (FATAL of class 28, 3D000, 42501, 55000).
    LoginFailed,
    /// A client went away, or was silent for longer than `authentication_timeout`, before it was in
    /// (57014 that is FATAL; class 08 during a login). Many go unsaid by the server: a client that
    /// closes its socket when it is asked for a password leaves no line.
    LoginAbandoned,
    /// A login came while the server starts, recovers or stops (57P03).
    NotAccepting,
    /// A deadlock, which one of its sessions was cancelled to end (40P01).
    Deadlock,
    /// A session waited for a lock for longer than `deadlock_timeout` (text; `log_lock_waits`).
    LockWait,
    /// `statement_timeout` ended a statement (57014 and text).
    StatementTimeout,
    /// `lock_timeout` ended a statement (55P03 and text).
    LockTimeout,
    /// `transaction_timeout` ended a session (25P04; 17 and later).
    TransactionTimeout,
    /// `idle_session_timeout` or `idle_in_transaction_session_timeout` ended a session (57P05,
    /// 25P03).
    IdleTermination,
    /// A statement took longer than the source was told to let pass (text;
    /// `log_min_duration_statement`).
    SlowStatement,
    /// An ERROR, whatever it is, those that are counted by another kind included.
    Error,
    /// A process of the server died, and all sessions with it (text).
    Crash,
    /// The server began to recover from a crash (text).
    Recovery,
}

impl LineKind {
    /// The word in metrics, the API and subjects of alerts; refusals have a [`Refusal::word`] too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::LoginFailed => "login_failed",
            Self::LoginAbandoned => "login_abandoned",
            Self::NotAccepting => "not_accepting",
            Self::Deadlock => "deadlock",
            Self::LockWait => "lock_wait",
            Self::StatementTimeout => "statement_timeout",
            Self::LockTimeout => "lock_timeout",
            Self::TransactionTimeout => "transaction_timeout",
            Self::IdleTermination => "idle_termination",
            Self::SlowStatement => "slow_statement",
            Self::Error => "error",
            Self::Crash => "crash",
            Self::Recovery => "recovery",
        }
    }
}

/// A deadlock, as its victim wrote it into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlock {
    /// The role of the session that was cancelled.
    pub role: String,
    /// Its database.
    pub database: String,
    /// Its application.
    pub application: String,
    /// Its process id.
    pub pid: Option<i32>,
    /// The sessions that waited for each other, in the order of the circle; at most
    /// [`MAX_PARTIES`]. Empty where the entry holds no detail.
    pub parties: Vec<Party>,
}

/// Circles of more sessions are rare, and their first ones say enough.
pub const MAX_PARTIES: usize = 8;

/// A session in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its process id.
    pub pid: i32,
    /// What it waited for and who held that, in the server's words.
    pub waits: String,
    /// What it ran, without literals; empty if the server did not say.
    pub statement: String,
}

impl Lines {
    /// Whether nothing was read at all.
    pub fn is_empty(&self) -> bool {
        self.read == 0 && self.unclear == 0 && self.skipped_bytes == 0
    }

    /// The lines of one kind.
    pub fn of(&self, kind: LineKind) -> u64 {
        let those = self.counts.iter().filter(|one| one.kind == kind);
        those.fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// Counts lines. When there are too many names, first those of role and application go, then
    /// that of the database.
    pub fn count(&mut self, mut one: LineCount) {
        if self.has_room(&one, MAX_COUNTS) {
            return self.put(one);
        }
        one.role.clear();
        one.application.clear();
        if !self.has_room(&one, MAX_COUNTS + MAX_FOLDED) {
            // There are fewer kinds than that.
            one.database.clear();
        }
        self.put(one);
    }

    /// Keeps a deadlock; the oldest goes when there are too many.
    pub fn keep(&mut self, deadlock: Deadlock) {
        self.deadlocks.push(deadlock);
        let excess = self.deadlocks.len().saturating_sub(MAX_DEADLOCKS);
        self.deadlocks.drain(..excess);
    }

    fn has_room(&self, one: &LineCount, most: usize) -> bool {
        self.counts.len() < most || self.find(one).is_ok()
    }

    fn find(&self, one: &LineCount) -> Result<usize, usize> {
        self.counts.binary_search_by(|known| known.key().cmp(&one.key()))
    }

    fn put(&mut self, one: LineCount) {
        match self.find(&one) {
            Ok(at) => self.counts[at].count = self.counts[at].count.saturating_add(one.count),
            Err(at) => self.counts.insert(at, one),
        }
    }
}

impl LineCount {
    fn key(&self) -> (LineKind, &str, &str, &str) {
        (self.kind, &self.role, &self.database, &self.application)
    }
}

impl Happened for Lines {
    fn add(&mut self, later: Self) {
        for one in later.counts {
            self.count(one);
        }
        for deadlock in later.deadlocks {
            self.keep(deadlock);
        }
        self.read = self.read.saturating_add(later.read);
        self.unclear = self.unclear.saturating_add(later.unclear);
        self.skipped_bytes = self.skipped_bytes.saturating_add(later.skipped_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: LineKind, role: &str, database: &str, application: &str) -> LineCount {
        let [role, database, application] = [role, database, application].map(str::to_owned);
        LineCount { kind, role, database, application, count: 1 }
    }

    #[test]
    fn lines_of_one_kind_about_the_same_add_up() {
        let refused = LineKind::Refused(Refusal::AllSlotsTaken);
        let mut lines = Lines::default();
        for _ in 0..3 {
            lines.count(line(refused, "app", "shop", ""));
        }
        lines.count(line(LineKind::Error, "app", "shop", "web"));
        let mut later = Lines::default();
        later.count(line(refused, "app", "shop", ""));
        later.count(line(refused, "batch", "shop", ""));
        lines.add(later);
        let counts: Vec<_> =
            lines.counts.iter().map(|one| (one.kind, one.role.as_str(), one.count)).collect();
        let expected = [(refused, "app", 4), (refused, "batch", 1), (LineKind::Error, "app", 1)];
        assert_eq!(counts, expected);
        assert_eq!((lines.of(refused), lines.of(LineKind::Crash)), (5, 0));
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_its_sums_stay_exact() {
        let mut lines = Lines::default();
        for n in 0..10_000 {
            let name = format!("made up {n}");
            let (role, application) = (format!("role {}", n % 7), name.clone());
            lines.count(line(LineKind::Error, &role, &format!("db {}", n % 5), &application));
            lines.count(line(LineKind::LoginFailed, &name, &name, ""));
        }
        // One more a kind: those that are about nobody.
        assert!(lines.counts.len() <= MAX_COUNTS + MAX_FOLDED + 2, "{}", lines.counts.len());
        assert_eq!(lines.of(LineKind::Error), 10_000);
        assert_eq!(lines.of(LineKind::LoginFailed), 10_000);
        let mut twice = lines.clone();
        twice.add(lines);
        assert!(twice.counts.len() <= MAX_COUNTS + MAX_FOLDED + 2);
        assert_eq!(twice.of(LineKind::Error), 20_000);
    }

    #[test]
    fn the_latest_deadlocks_are_kept() {
        let deadlock = |pid| Deadlock {
            role: "app".to_owned(),
            database: "shop".to_owned(),
            application: String::new(),
            pid: Some(pid),
            parties: Vec::new(),
        };
        let mut lines = Lines::default();
        (0..40).for_each(|pid| lines.keep(deadlock(pid)));
        let mut later = Lines::default();
        later.keep(deadlock(40));
        lines.add(later);
        let pids: Vec<_> = lines.deadlocks.iter().filter_map(|one| one.pid).collect();
        assert_eq!(pids, (25..=40).collect::<Vec<_>>());
    }
}
