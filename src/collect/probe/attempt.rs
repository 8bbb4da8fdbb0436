//! One login of a probe: in, `SELECT 1`, out.
//!
//! It has no deadline: the probe says when it is late, and keeps it until it is decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_core::reading::probe::Steps;
use plimsoll_core::reading::{Failure, FailureKind};
use tokio::sync::watch as channel;
use tokio_postgres::SimpleQueryMessage;

use crate::collect::login::failure::{LoginError, is_silent_close, of_first_answer};
use crate::collect::login::progress::Moments;
use crate::collect::login::{self, Access, Ledger, Login, Progress, Purpose};

/// Asked once in. Every server and every pooler in front of one answers it.
const QUESTION: &str = "SELECT 1";

/// Its one answer.
const ANSWER: &str = "1";

/// How a login ended; `None` if we ended it.
pub(super) type Ended = Option<Result<(), Failed>>;

/// Why a login failed.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// The connection was closed without a word.
    pub(super) closed_silently: bool,
}

impl From<LoginError> for Failed {
    fn from(error: LoginError) -> Self {
        Self { failure: error.failure(), closed_silently: error.is_silent_close() }
    }
}

/// Logs in, asks and leaves, until it is decided or `end` turns true.
pub(super) async fn attempt(
    access: Access,
    ledger: Ledger,
    progress: Arc<Progress>,
    mut end: channel::Receiver<bool>,
) -> Ended {
    let logging_in = login::login(access, ledger, Arc::clone(&progress), Purpose::Probe);
    let mut login = tokio::select! {
        biased;
        _ = end.wait_for(|end| *end) => return None,
        login = logging_in => match login {
            Ok(login) => login,
            Err(error) => return Some(Err(error.into())),
        },
    };
    let answered = tokio::select! {
        biased;
        _ = end.wait_for(|end| *end) => None,
        answered = ask(&mut login) => Some(answered),
    };
    if answered.as_ref().is_some_and(Result::is_ok) {
        progress.note_answered();
    }
    login.say_goodbye().await;
    answered
}

async fn ask(login: &mut Login) -> Result<(), Failed> {
    let answer = login.ask(QUESTION).await.map_err(|error| Failed {
        failure: of_first_answer(&error, &login.address),
        closed_silently: is_silent_close(&error),
    })?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0)),
        _ => None,
    });
    if rows.eq([Some(ANSWER)]) {
        return Ok(());
    }
    let text = format!("asking at {}: {QUESTION} was not answered with {ANSWER}", login.address);
    let failure = Failure { kind: FailureKind::Unsupported, text, sqlstate: None };
    Err(Failed { failure, closed_silently: false })
}

/// How long the steps of an attempt took that are over.
pub(super) fn steps(moments: Moments) -> Steps {
    let between = |from: Option<Instant>, to: Option<Instant>| -> Option<Duration> {
        // What an earlier attempt reached is no step of this one.
        to?.checked_duration_since(from?)
    };
    let Moments { began, reached, encrypted, let_in, answered, .. } = moments;
    Steps {
        connect: between(began, reached),
        tls: between(reached, encrypted),
        authentication: between(encrypted.or(reached), let_in),
        first_answer: between(let_in, answered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn steps_are_those_of_the_newest_attempt_as_far_as_it_came() {
        let start = clock::monotonic();
        let at = |millis: u64| Some(start + Duration::from_millis(millis));
        let took = |millis: u64| Some(Duration::from_millis(millis));
        let whole = Moments {
            set_out: at(0),
            began: at(0),
            reached: at(2),
            encrypted: at(5),
            let_in: at(14),
            answered: at(15),
        };
        let steps_of_whole = Steps {
            connect: took(2),
            tls: took(3),
            authentication: took(9),
            first_answer: took(1),
        };
        assert_eq!(steps(whole), steps_of_whole);
        let plain = Steps { tls: None, authentication: took(12), ..steps_of_whole };
        assert_eq!(steps(Moments { encrypted: None, ..whole }), plain);
        let second = Moments { began: at(20), encrypted: None, let_in: None, ..whole };
        assert_eq!(steps(Moments { answered: None, ..second }), Steps::default());
    }
}
