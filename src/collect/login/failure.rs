//! What a failed login or statement means: errors of the driver in, kinds of failure out.
//!
//! SQLSTATE and the name of the C function that raised an error are the same in every language
//! that a server can speak; its text is not, and is looked at only where nothing else tells.

use std::error::Error as _;
use std::io;

use plimsoll_core::reading::{Failure, FailureKind, Refusal};
use tokio_postgres::error::DbError;

use super::password::PasswordError;
use super::{A_POOLER, pooler};
use crate::collect::tls::{self, TlsError};

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::collect) enum LoginError {
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("resolving {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("connecting to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connecting to {address}: no answer in {seconds} s")]
    NoAnswer { address: String, seconds: f64 },
    /// The server has not closed what we are done with.
    #[error("connecting to {address}: earlier connections of ours are still open there")]
    NoRoom { address: String },
    #[error("logging in at {address}: {said}")]
    Login { address: String, said: String, source: tokio_postgres::Error },
    /// One of several hosts accepted us and said no more; the next had its turn.
    #[error("logging in at {address}: no answer in {seconds} s")]
    Silent { address: String, seconds: f64 },
    /// It is not the kind of server that `target_session_attrs` asks for.
    #[error("{address} is {found}, which target_session_attrs does not ask for")]
    OtherKind { address: String, found: &'static str },
    /// One after another.
    #[error("{}", joined(.0))]
    Several(Vec<LoginError>),
}

fn joined(errors: &[LoginError]) -> String {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// What the attempts at several hosts, or in several ways, failed of.
pub(in crate::collect) fn all_failed(mut errors: Vec<LoginError>) -> LoginError {
    if errors.len() == 1 { errors.remove(0) } else { LoginError::Several(errors) }
}

impl LoginError {
    /// What the judge is told of it.
    pub(in crate::collect) fn failure(&self) -> Failure {
        let sqlstate = match self.most_telling() {
            Self::Login { source, .. } => source.code().map(|code| code.code().to_owned()),
            _ => None,
        };
        Failure { kind: self.most_telling().kind(), text: cut(&self.to_string()), sqlstate }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Password(_) | Self::Tls(_) => FailureKind::NotAllowed,
            Self::Resolve { .. } | Self::NoAnswer { .. } | Self::OtherKind { .. } => {
                FailureKind::Unreachable
            }
            Self::NoRoom { .. } | Self::Silent { .. } => FailureKind::TooSlow,
            Self::Connect { source, .. } => kind_of_connect(source),
            Self::Login { source, .. } => kind_of_login(source),
            // There is one at least, and `each` gives none of these.
            Self::Several(_) => FailureKind::Unreachable,
        }
    }

    /// The one among several that says most: an answer of a server before no way to it. That a
    /// server is of another kind is no fault of it.
    fn most_telling(&self) -> &Self {
        let rank = |error: &&Self| match error.kind() {
            _ if matches!(error, Self::OtherKind { .. }) => 9,
            FailureKind::Refused(_) => 0,
            FailureKind::NotAllowed => 1,
            FailureKind::Failing => 2,
            FailureKind::Starting => 3,
            FailureKind::Unsupported => 4,
            FailureKind::Blocked => 5,
            FailureKind::TooSlow => 6,
            FailureKind::Stopped => 7,
            FailureKind::Unreachable | FailureKind::Broken => 8,
        };
        self.each().into_iter().min_by_key(rank).unwrap_or(self)
    }

    /// The single ones, in the order in which they came.
    fn each(&self) -> Vec<&Self> {
        match self {
            Self::Several(errors) => errors.iter().flat_map(Self::each).collect(),
            one => vec![one],
        }
    }

    /// Whether the connection was closed without a word: after a long silence this is how a server
    /// whose `authentication_timeout` is over gives a login up (measured on 15).
    pub(in crate::collect) fn is_silent_close(&self) -> bool {
        let Some(Self::Login { source, .. }) = self.each().pop() else { return false };
        is_silent_close(source)
    }

    /// Whether the server itself answered, so that no refusal among such answers means none.
    pub(in crate::collect) fn is_answer(&self) -> bool {
        self.each().iter().any(|error| error.db_code().is_some())
    }

    /// Whether no other host is tried after this one: the server has decided. One that takes no
    /// logins at all just now (57P03) has decided nothing (libpq does the same).
    pub(in crate::collect) fn is_decided(&self) -> bool {
        self.each().iter().any(|error| error.db_code().is_some_and(|code| code != "57P03"))
    }

    /// Whether `pg_hba.conf`, or what it asks for, may let us in with TLS or without.
    pub(in crate::collect) fn is_of_hba(&self) -> bool {
        self.db_code() == Some("28000")
    }

    /// Whether the handshake of TLS failed, so that nothing was said yet.
    pub(in crate::collect) fn is_of_handshake(&self) -> bool {
        matches!(self, Self::Login { source, .. } if is_tls(source))
    }

    fn db_code(&self) -> Option<&str> {
        let Self::Login { source, .. } = self else { return None };
        source.as_db_error().map(|db| db.code().code())
    }
}

/// The SQLSTATE of all that PgBouncer says itself (proto.c, `send_pooler_error`), and up to 1.23 of
/// what it passes on. A server says it of a client that breaks the protocol.
const POOLERS_OWN: &str = "08P01";

/// At most so much of what a server says is passed on.
const MAX_TEXT_CHARS: usize = 500;

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// An error with everything below it, in one line: the driver's own text is `db error`.
pub(in crate::collect) fn chain(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        return format!("{}{hint}", db.message());
    }
    crate::chain::chain(error)
}

fn kind_of_connect(error: &io::Error) -> FailureKind {
    use rustix::io::Errno;
    match error.kind() {
        // No socket is to be had here: that says nothing of the server.
        _ if matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
        ) =>
        {
            FailureKind::Broken
        }
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => FailureKind::Stopped,
        io::ErrorKind::PermissionDenied => FailureKind::NotAllowed,
        // A Unix socket whose queue of connections is full.
        io::ErrorKind::WouldBlock => FailureKind::TooSlow,
        _ => FailureKind::Unreachable,
    }
}

fn kind_of_login(error: &tokio_postgres::Error) -> FailureKind {
    if let Some(db) = error.as_db_error() {
        return kind_of_login_answer(db);
    }
    let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match below.map(io::Error::kind) {
        _ if is_gibberish(error) => FailureKind::Unsupported,
        // A proxy with nothing behind it, or a server that dies.
        _ if error.is_closed() => FailureKind::Stopped,
        Some(
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe,
        ) => FailureKind::Stopped,
        Some(io::ErrorKind::TimedOut) => FailureKind::Unreachable,
        // TLS: the certificate, or none offered. And a password that was asked for and not given.
        _ if tls::is_tls(error) => FailureKind::NotAllowed,
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) if is_tls(error) => {
            FailureKind::NotAllowed
        }
        None if is_ours(error) => FailureKind::NotAllowed,
        // It speaks, and what it says makes no sense here.
        _ => FailureKind::Unsupported,
    }
}

/// See [`LoginError::is_silent_close`].
pub(in crate::collect) fn is_silent_close(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none() && kind_of_login(error) == FailureKind::Stopped
}

fn is_gibberish(error: &tokio_postgres::Error) -> bool {
    error.to_string().contains("parsing response")
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().contains("TLS")
}

fn is_ours(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    ["TLS", "configuration", "authentication"].iter().any(|word| text.contains(word))
}

fn kind_of_login_answer(db: &DbError) -> FailureKind {
    match db.code().code() {
        "53300" => FailureKind::Refused(refusal(db.routine(), db.message())),
        // One function says all of these, in the server's language.
        "57P03" if db.message().contains("shutting down") => FailureKind::Stopped,
        "57P03" | "57P02" => FailureKind::Starting,
        "57P01" => FailureKind::Stopped,
        // The server's own authentication_timeout.
        "57014" => FailureKind::TooSlow,
        POOLERS_OWN => pooler::kind(db.message()),
        code => kind_of_other(code),
    }
}

/// Privileges, authentication, a database that is not there: settings or grants say no. Anything
/// else is the server's own trouble (no memory, no disk, a fault inside it), and grants do not
/// help.
fn kind_of_other(sqlstate: &str) -> FailureKind {
    match sqlstate {
        "42501" | "3D000" | "0LP01" | "0P000" => FailureKind::NotAllowed,
        code if code.starts_with("28") => FailureKind::NotAllowed,
        _ => FailureKind::Failing,
    }
}

/// Tells the failures behind SQLSTATE 53300 apart. Where a pooler passes on what the server said
/// (PgBouncer from 1.24 on), the routine is the pooler's, and the server's words are what is left.
pub(in crate::collect) fn refusal(routine: Option<&str>, message: &str) -> Refusal {
    // The names of a role and of settings are not translated.
    let for_role = message.contains("pg_use_reserved_connections");
    match routine {
        Some("InitializeSessionUserId") => Refusal::RoleLimit,
        Some("CheckMyDatabase") => Refusal::DatabaseLimit,
        Some("InitPostgres") if for_role => Refusal::ReservedForRole,
        Some("InitPostgres") => Refusal::ReservedForSuperusers,
        // The postmaster's own no: backend_startup.c from 17 on, postmaster.c before.
        Some("BackendInitialize" | "ProcessStartupPacket") => Refusal::LoginsUnderWay,
        Some("InitWalSenderSlot") => Refusal::WalSenders,
        Some("InitProcess") if message.contains("max_wal_senders") => Refusal::WalSenders,
        Some("InitProcess") => Refusal::AllSlotsTaken,
        _ => pooler::replayed(message).unwrap_or(Refusal::AllSlotsTaken),
    }
}

/// What became of the first thing that was asked after a login. Behind a pooler only this may lead
/// to the server, so it is told as a login is.
pub(in crate::collect) fn of_first_answer(error: &tokio_postgres::Error, address: &str) -> Failure {
    let text = cut(&format!("asking at {address}: {}", chain(error)));
    let sqlstate = error.code().map(|code| code.code().to_owned());
    Failure { kind: kind_of_login(error), text, sqlstate }
}

/// What became of a statement that the server did not carry out.
pub(in crate::collect) fn of_statement(error: &tokio_postgres::Error, doing: &str) -> Failure {
    let sqlstate = error.code().map(|code| code.code().to_owned());
    let mut text = format!("{doing}: {}", chain(error));
    let kind = match sqlstate.as_deref() {
        // A statement of ours is there before we prepared it, or is gone: on a connection that is
        // ours alone neither can be. A pooler shares its own.
        Some("42P05" | "26000") => {
            text = format!("{A_POOLER}: {text}");
            FailureKind::Unsupported
        }
        Some("55P03") => FailureKind::Blocked,
        Some("57014") => FailureKind::TooSlow,
        // A function or a column that is not there, or answers of another type.
        Some("42883" | "42703" | "42704" | "0A000" | "42601") | None => FailureKind::Unsupported,
        Some(code) => kind_of_other(code),
    };
    Failure { kind, text: cut(&text), sqlstate }
}

/// Whether the connection is gone with it: closed, or the server ends the session.
pub(in crate::collect) fn ends_connection(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    let by_server = matches!(code, Some("57P01" | "57P02" | "57P03" | "57P04" | "57P05"));
    let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_closed() || by_server || below.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failures_behind_53300_are_told_apart_in_any_language() {
        // Routines and texts as measured on 13 to 18.
        let reserved_15 = "remaining connection slots are reserved for non-replication superuser \
                           connections";
        let reserved_16 = "remaining connection slots are reserved for roles with the SUPERUSER \
                           attribute";
        let for_role = "remaining connection slots are reserved for roles with privileges of the \
                        \"pg_use_reserved_connections\" role";
        let cases = [
            ("InitializeSessionUserId", "zu viele Verbindungen für Rolle", Refusal::RoleLimit),
            ("CheckMyDatabase", "too many connections for database", Refusal::DatabaseLimit),
            ("InitPostgres", reserved_15, Refusal::ReservedForSuperusers),
            ("InitPostgres", reserved_16, Refusal::ReservedForSuperusers),
            ("InitPostgres", for_role, Refusal::ReservedForRole),
            ("InitProcess", "tut mir leid, schon zu viele Verbindungen", Refusal::AllSlotsTaken),
            (
                "InitProcess",
                "number of requested standby connections exceeds max_wal_senders (currently 1)",
                Refusal::WalSenders,
            ),
            ("ProcessStartupPacket", "sorry, too many clients already", Refusal::LoginsUnderWay),
            ("BackendInitialize", "sorry, too many clients already", Refusal::LoginsUnderWay),
            (
                "BackendInitialize",
                "tut mir leid, schon zu viele Verbindungen",
                Refusal::LoginsUnderWay,
            ),
            // What PgBouncer passes on from 1.24 on.
            ("pooler_error", reserved_15, Refusal::ReservedForSuperusers),
            ("SomethingNew", "no room", Refusal::AllSlotsTaken),
        ];
        for (routine, message, expected) in cases {
            assert_eq!(refusal(Some(routine), message), expected, "{routine}: {message}");
        }
        assert_eq!(refusal(None, "no room"), Refusal::AllSlotsTaken);
    }

    #[test]
    fn a_connection_that_cannot_be_made_says_why() {
        let cases = [
            (io::ErrorKind::ConnectionRefused, FailureKind::Stopped),
            (io::ErrorKind::NotFound, FailureKind::Stopped),
            (io::ErrorKind::PermissionDenied, FailureKind::NotAllowed),
            (io::ErrorKind::HostUnreachable, FailureKind::Unreachable),
            (io::ErrorKind::TimedOut, FailureKind::Unreachable),
        ];
        for (kind, expected) in cases {
            let address = "db:5432".to_owned();
            let error = LoginError::Connect { address, source: kind.into() };
            assert_eq!(error.failure().kind, expected, "{kind}");
            assert!(error.failure().text.starts_with("connecting to db:5432: "));
        }
        // What this machine refuses us is no word of the server.
        let address = "db:5432".to_owned();
        let source = rustix::io::Errno::MFILE.into();
        assert_eq!(LoginError::Connect { address, source }.failure().kind, FailureKind::Broken);
    }
}
