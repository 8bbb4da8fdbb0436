//! What an entry says: the kinds that it is counted as.
//!
//! SQLSTATE, the names of C functions, types of backends and process titles are in no language, and
//! are looked at first. Some things only the message tells, and that in English
//! (`lc_messages = C` or `en_…`): which timeout ended a statement, that a session still waits for
//! a lock, how long a statement took, a crash and a recovery. stderr without `%e` in its prefix has
//! no SQLSTATE, and is told by English messages alone.

use std::time::Duration;

use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::log::LineKind;

use super::entry::{Entry, Severity};
use crate::collect::login::failure;

/// The kinds of an entry: what it is by itself, and that it is an ERROR.
pub(super) fn kinds(entry: &Entry, slower_than: Duration) -> [Option<LineKind>; 2] {
    let own = match entry.severity {
        Severity::Fatal => of_fatal(entry),
        Severity::Error => of_error(entry),
        Severity::Log => of_log(entry, slower_than),
        Severity::Panic | Severity::Other => None,
    };
    let error = entry.severity == Severity::Error && !is_told_twice(entry);
    [own, error.then_some(LineKind::Error)]
}

/// What a parallel worker fails of, its leader fails of, too.
fn is_told_twice(entry: &Entry) -> bool {
    entry.backend_type.as_deref() == Some("parallel worker")
}

fn of_fatal(entry: &Entry) -> Option<LineKind> {
    if !is_login_of_client(entry) {
        return None;
    }
    let Some(code) = entry.sqlstate.as_deref() else { return of_fatal_text(entry) };
    match code {
        "53300" => Some(LineKind::Refused(refusal(entry))),
        "57P03" => Some(LineKind::NotAccepting),
        // No statement's cancellation is FATAL: it is that of a login, by authentication_timeout.
        "57014" => Some(LineKind::LoginAbandoned),
        "25P04" => Some(LineKind::TransactionTimeout),
        "57P05" | "25P03" => Some(LineKind::IdleTermination),
        "3D000" | "42501" | "55000" => Some(LineKind::LoginFailed),
        _ if code.starts_with("28") => Some(LineKind::LoginFailed),
        // Told to stop, the connection lost: no decision about a login.
        _ if code.starts_with("57") || code.starts_with("08") => None,
        _ => is_during_login(entry).then_some(LineKind::LoginFailed),
    }
}

/// The same by English messages.
fn of_fatal_text(entry: &Entry) -> Option<LineKind> {
    let text = entry.message.as_str();
    let is_refusal = text.starts_with("sorry, too many clients already")
        || text.starts_with("remaining connection slots are reserved")
        || text.starts_with("too many connections for ")
        || text.starts_with("number of requested standby connections exceeds");
    if is_refusal {
        return Some(LineKind::Refused(refusal(entry)));
    }
    let not_accepting = ["the database system is ", "the database is not yet accepting"];
    let failed = [
        "password authentication failed for user",
        "no pg_hba.conf entry for",
        "pg_hba.conf rejects",
        "permission denied for database",
    ];
    let failed_of_name = [
        " does not exist",
        " is not permitted to log in",
        " is not currently accepting connections",
    ];
    let begins = |texts: &[&str]| texts.iter().any(|begin| text.starts_with(begin));
    if begins(&not_accepting) {
        Some(LineKind::NotAccepting)
    } else if text.starts_with("canceling authentication due to timeout") {
        Some(LineKind::LoginAbandoned)
    } else if text.starts_with("terminating connection due to idle") {
        Some(LineKind::IdleTermination)
    } else if text.starts_with("terminating connection due to transaction timeout") {
        Some(LineKind::TransactionTimeout)
    } else if begins(&failed)
        || text.contains(" authentication failed for user ")
        || begins(&["role \"", "database \""])
            && failed_of_name.iter().any(|end| text.ends_with(end))
    {
        Some(LineKind::LoginFailed)
    } else {
        None
    }
}

fn of_error(entry: &Entry) -> Option<LineKind> {
    let text = entry.message.as_str();
    let is = |code: &str| entry.sqlstate.as_deref().is_none_or(|own| own == code);
    if entry.sqlstate.as_deref() == Some("40P01") || is("40P01") && text == "deadlock detected" {
        Some(LineKind::Deadlock)
    } else if is("57014") && text == "canceling statement due to statement timeout" {
        Some(LineKind::StatementTimeout)
    } else if is("55P03") && text == "canceling statement due to lock timeout" {
        Some(LineKind::LockTimeout)
    } else {
        None
    }
}

fn of_log(entry: &Entry, slower_than: Duration) -> Option<LineKind> {
    let text = entry.message.as_str();
    let is_connection = entry.sqlstate.as_deref().is_some_and(|code| code.starts_with("08"));
    if is_connection && is_during_login(entry) && is_login_of_client(entry)
        || text == "incomplete startup packet"
    {
        Some(LineKind::LoginAbandoned)
    } else if text.starts_with("process ") && text.contains(" still waiting for ") {
        Some(LineKind::LockWait)
    } else if took(text).is_some_and(|took| slower_than <= took) {
        Some(LineKind::SlowStatement)
    } else if text.starts_with("terminating any other active server processes") {
        Some(LineKind::Crash)
    } else if text.contains("automatic recovery in progress") {
        Some(LineKind::Recovery)
    } else {
        None
    }
}

/// `duration: 1234.567 ms  statement: …`. What auto_explain writes has `plan:` there, and is of a
/// statement that may be logged by itself, too.
fn took(message: &str) -> Option<Duration> {
    let (took, rest) = message.strip_prefix("duration: ")?.split_once(" ms")?;
    if rest.trim_start().starts_with("plan:") {
        return None;
    }
    Duration::try_from_secs_f64(took.parse::<f64>().ok()? / 1e3).ok()
}

/// Whether it is of a client, or of one that is not yet told from others. A worker that finds no
/// slot is no login.
fn is_login_of_client(entry: &Entry) -> bool {
    let clients = ["client backend", "walsender", "dead-end client backend", "not initialized", ""];
    entry.backend_type.as_deref().is_none_or(|own| clients.contains(&own))
}

/// Whether the process title is that of a login; false where lines do not tell it.
fn is_during_login(entry: &Entry) -> bool {
    let titles = ["", "initializing", "authentication", "startup"];
    entry.title.as_deref().is_some_and(|title| titles.contains(&title))
}

/// Tells the failures behind SQLSTATE 53300 apart.
///
/// By the function, where the log is verbose. Else by what a message names and does not translate;
/// by the English message; and by the process title (measured on 13 to 18): there is none yet while
/// the postmaster's children are counted, it is `initializing` when a slot is looked for, and
/// `startup` once there is one. (`BackendInitialize` in backend_startup.c, until 16 in
/// postmaster.c.)
fn refusal(entry: &Entry) -> Refusal {
    let text = entry.message.as_str();
    if entry.routine.is_some() {
        return failure::refusal(entry.routine.as_deref(), text);
    }
    let title = entry.title.as_deref();
    let names = |name: &str| !name.is_empty() && text.contains(name);
    let begins = |begin: &str| text.starts_with(begin);
    if names("max_wal_senders") || begins("number of requested standby connections") {
        Refusal::WalSenders
    } else if names("pg_use_reserved_connections") {
        Refusal::ReservedForRole
    } else if names("SUPERUSER") || begins("remaining connection slots are reserved") {
        Refusal::ReservedForSuperusers
    } else if begins("too many connections for role") {
        Refusal::RoleLimit
    } else if begins("too many connections for database") {
        Refusal::DatabaseLimit
    } else if title == Some("") {
        Refusal::LoginsUnderWay
    } else if title == Some("startup") {
        match (names(&entry.role), names(&entry.database)) {
            (true, _) => Refusal::RoleLimit,
            (false, true) => Refusal::DatabaseLimit,
            (false, false) => Refusal::ReservedForSuperusers,
        }
    } else {
        Refusal::AllSlotsTaken
    }
}
