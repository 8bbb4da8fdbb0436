//! Why a console could not be read: what poolers and drivers say in, kinds of failure out.
//!
//! PgBouncer gives nearly every error the SQLSTATE 08P01 (proto.c, up to 1.23 even those of the
//! server behind it), and its words are not translated: so here the words tell. Called by
//! [`super::console`] and [`super`].

use std::error::Error as _;
use std::io;
use std::time::Duration;

use plimsoll_core::reading::{Failure, FailureKind};

use super::answer::Unusable;
use super::rhythm::Command;
use crate::collect::login::failure::{self, LoginError};

/// What is said by poolers that do not let us in, or not to the console.
const NOT_ALLOWED: [&str; 10] = [
    "not allowed",
    "no such user",
    "authentication failed",
    "auth failed",
    "login rejected",
    "no authentication",
    "wrong password",
    "password",
    "admin access needed",
    "Unsuitable user role",
];

/// And by those that are going.
const STOPPING: [&str; 3] = ["shutting down", "shut down", "is suspended"];

/// Added where a person has to change something.
const ADVICE: &str = "the user of url must be in stats_users or admin_users of the pooler";

/// What a failed login at a console means.
pub(super) fn of_login(error: &LoginError, console: &str) -> Failure {
    let mut failure = error.failure();
    let Some(sqlstate) = failure.sqlstate.as_deref() else { return failure };
    let says = |words: &[&str]| words.iter().any(|words| failure.text.contains(words));
    let (kind, advice) = match sqlstate {
        "3D000" => (FailureKind::Unsupported, Some(no_console(console))),
        "08P01" | "28000" | "28P01" | "58000" | "XX000" => {
            if says(&["no such database", "No pool configured", "does not exist"]) {
                (FailureKind::Unsupported, Some(no_console(console)))
            } else if says(&STOPPING) {
                (FailureKind::Stopped, None)
            } else if says(&NOT_ALLOWED) {
                (FailureKind::NotAllowed, Some(ADVICE.to_owned()))
            } else if says(&["timeout"]) {
                (FailureKind::TooSlow, None)
            } else {
                (failure.kind, None)
            }
        }
        _ => (failure.kind, None),
    };
    failure.kind = kind;
    if let Some(advice) = advice {
        failure.text = format!("{}; {advice}", failure.text);
    }
    failure
}

fn no_console(console: &str) -> String {
    format!("no pooler's admin console is called {console} there, the database of url")
}

/// Why a command gave no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// The pooler knows it not, or not for us. The connection goes on.
    Refused { sqlstate: String, said: String },
    /// It is answered with something that no console says. The connection is of no use.
    Unusable(Unusable),
    /// No answer by the deadline. The connection is out of step.
    Late(Duration),
    /// The connection is gone.
    Lost(String),
}

impl AskError {
    /// What the driver's error means.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let said = failure::chain(error);
        let Some(db) = error.as_db_error() else {
            let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            let is_nonsense = below.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData);
            return if is_nonsense || !failure::ends_connection(error) {
                Self::Unusable(Unusable(format!("cannot be read: {said}")))
            } else {
                Self::Lost(said)
            };
        };
        let is_fatal = matches!(
            db.parsed_severity(),
            Some(tokio_postgres::error::Severity::Fatal | tokio_postgres::error::Severity::Panic)
        );
        if is_fatal || failure::ends_connection(error) {
            return Self::Lost(said);
        }
        Self::Refused { sqlstate: db.code().code().to_owned(), said }
    }

    /// What the judge is told where the command cannot be done without.
    pub(super) fn failure(&self, command: Command) -> Failure {
        let sql = command.sql();
        let (kind, text, sqlstate) = match self {
            // `SHOW` of a setting that Postgres has not: unrecognized configuration parameter.
            Self::Refused { sqlstate, said } if sqlstate == "42704" => (
                FailureKind::Unsupported,
                format!("a Postgres server answers there, no admin console of a pooler: {said}"),
                Some(sqlstate.clone()),
            ),
            Self::Refused { sqlstate, said } => {
                let is_right = NOT_ALLOWED.iter().any(|words| said.contains(words));
                let kind =
                    if is_right { FailureKind::NotAllowed } else { FailureKind::Unsupported };
                let advice = if is_right { format!("; {ADVICE}") } else { String::new() };
                (kind, format!("{sql} was refused: {said}{advice}"), Some(sqlstate.clone()))
            }
            Self::Unusable(why) => {
                (FailureKind::Unsupported, format!("the answer to {sql} {}", why.0), None)
            }
            Self::Late(timeout) => {
                let seconds = timeout.as_secs_f64();
                (FailureKind::TooSlow, format!("no answer to {sql} in {seconds} s"), None)
            }
            Self::Lost(why) => {
                (FailureKind::Stopped, format!("the connection was lost at {sql}: {why}"), None)
            }
        };
        Failure { kind, text, sqlstate }
    }
}
