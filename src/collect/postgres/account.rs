//! What our backend took of a processor, by the account that the kernel of its host keeps.
//!
//! The server's clock misses what comes before and after the statements (being woken, the request,
//! the answer, the end of the transaction), which is most of a small poll on a machine whose caches
//! are cold; and it goes on while the backend waits for a processor. Where Plimsoll runs beside the
//! server the kernel says it exactly.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The clock is looked at before the last rows are sent. What a backend needs to wake up, take the
/// request and send the answer is on a quiet machine a tenth of the time that the clock sees, and
/// on one whose memory is cold after a second of rest a quarter (`make bench`).
const UNSEEN_BY_CLOCK: f64 = 1.3;

/// The middle one of some polls stands for them all (`super::pace`), and the dear ones, with names
/// or counters, lift what they take together above it: by some hundredths (`make bench`).
const ABOVE_THE_MIDDLE: f64 = 1.15;

/// What the process of a backend is called: by the distributions, by Red Hat, by EnterpriseDB.
const PROGRAMS: [&str; 3] = ["postgres", "postmaster", "edb-postgres"];

/// The account of one backend, if this host has one.
#[derive(Debug)]
pub(super) struct Account(Option<Known>);

/// Stays that of one process: when that is gone it cannot be read, whoever has its number next.
#[derive(Debug)]
struct Known {
    schedstat: File,
    seconds: f64,
}

impl Account {
    /// That of the process with this number, if it is a backend and one of this role. The server
    /// may be on another host or in a container, where the number is somebody else's; or the
    /// processes of others may be hidden (`hidepid`), or the system have no `/proc`.
    pub(super) fn of(pid: i32, role: &str) -> Self {
        Self(Self::open(Path::new(&format!("/proc/{pid}")), role))
    }

    fn open(process: &Path, role: &str) -> Option<Known> {
        // Whoever asks for the title of a process that hangs may wait with it (it is that process'
        // memory), so of processes that are none of Postgres' it is not asked for.
        let program = fs::read_to_string(process.join("comm")).ok()?;
        if !PROGRAMS.contains(&program.trim_end()) {
            return None;
        }
        let title = fs::read(process.join("cmdline")).ok()?;
        if !is_backend_of(&String::from_utf8_lossy(&title), role) {
            return None;
        }
        let mut known =
            Known { schedstat: File::open(process.join("schedstat")).ok()?, seconds: 0.0 };
        known.seconds = known.read()?;
        Some(known)
    }

    /// Seconds on a processor since this was asked before, or since the account was opened. `None`
    /// without an account, and when nothing was added to it: then it is not that of our backend.
    pub(super) fn spent(&mut self) -> Option<f64> {
        let known = self.0.as_mut()?;
        let now = known.read()?;
        let spent = now - std::mem::replace(&mut known.seconds, now);
        (spent > 0.0).then_some(spent)
    }
}

impl Known {
    /// The first number is nanoseconds (Documentation/scheduler/sched-stats.rst), and exact once
    /// the process sleeps.
    fn read(&self) -> Option<f64> {
        let mut bytes = [0; 64];
        let length = self.schedstat.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..length]).ok()?;
        let nanoseconds: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(nanoseconds as f64 / 1e9)
    }
}

/// What a poll is reckoned to cost the server: by the account, and without one by the server's
/// clock with what that does not see.
pub(super) fn cost(processor_seconds: Option<f64>, server_seconds: f64) -> f64 {
    match processor_seconds {
        Some(seconds) => seconds * ABOVE_THE_MIDDLE,
        None => server_seconds * UNSEEN_BY_CLOCK,
    }
}

/// `postgres: watcher postgres 127.0.0.1(40112) idle`; with a `cluster_name` that comes first, and
/// a walsender says so before its role (ps_status.c, `init_ps_display`).
fn is_backend_of(title: &str, role: &str) -> bool {
    title.starts_with("postgres: ") && title.contains(&format!(" {role} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_known_by_their_title() {
        let ours = [
            "postgres: plimsoll postgres 127.0.0.1(40112) idle\0\0",
            "postgres: main: plimsoll postgres [local] SELECT",
            "postgres: walsender plimsoll [local] idle",
        ];
        for title in ours {
            assert!(is_backend_of(title, "plimsoll"), "{title}");
        }
        let others = ["postgres: plimsoll2 db [local] idle", "postgres: checkpointer ", "vim", ""];
        for title in others {
            assert!(!is_backend_of(title, "plimsoll"), "{title}");
        }
    }

    #[test]
    fn an_account_says_what_was_added_since() {
        let process = tempfile::tempdir().unwrap();
        let has = |file: &str, text: &str| fs::write(process.path().join(file), text).unwrap();
        has("cmdline", "postgres: plimsoll postgres [local] idle");
        has("schedstat", "1000000000 5 1\n");
        has("comm", "vim\n");
        assert!(Account::open(process.path(), "plimsoll").is_none());
        has("comm", "postgres\n");
        assert!(Account::open(process.path(), "somebody").is_none());
        let mut account = Account(Account::open(process.path(), "plimsoll"));
        assert_eq!(account.spent(), None);
        has("schedstat", "1002500000 9 2\n");
        assert_eq!(account.spent().map(|spent| (spent * 1e6).round()), Some(2_500.0));
        has("schedstat", "no number\n");
        assert_eq!(account.spent(), None);
    }

    #[test]
    fn who_is_no_backend_has_no_account() {
        let ours = std::process::id().cast_signed();
        assert!(Account::of(ours, "plimsoll").0.is_none());
        assert!(Account::of(-1, "plimsoll").0.is_none());
    }

    #[test]
    fn a_poll_is_reckoned_by_its_account_and_without_one_by_the_clock() {
        assert!((cost(Some(0.004), 0.003) - 0.0046).abs() < 1e-9);
        assert!((cost(None, 0.003) - 0.0039).abs() < 1e-9);
    }
}
