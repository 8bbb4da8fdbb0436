//! The server's log, followed where it lies: what no view of the server tells.
//!
//! A sidecar's way: it reads files, in the server's own folder or on a volume that both mount.
//! jsonlog, csvlog and stderr; not syslog, and not the logs of managed services that are no files.
//! Nothing is asked of the server but its `log_line_prefix` and `log_destination`, which the
//! Postgres source reads for us ([`ServerLogging`]). `run` starts it and reads its mailbox.
//!
//! It begins at the end of what is there, looks once a second, and reads what is new: memory is
//! bounded by the fields of one entry, whatever the length of a line. Files are read on threads
//! that may wait, so a disk that hangs is said at the next turn and stops nothing else.

mod csvlog;
mod deadlock;
mod entry;
mod find;
mod follow;
mod jsonlog;
mod kinds;
mod labels;
mod prefix;
mod reader;
mod stderr;
mod tally;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::reading::log::{self, Format, Lines, Observation};
use plimsoll_core::reading::postgres::Logging;
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::{LogSettings, Settings};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::entry::Entry;
use self::follow::{Again, Follower, Look};
use super::SideSource;
use super::mailbox::{Delivery, Mailbox};
use crate::clock;

/// Hears each entry as it is read; `None` is a line that makes no sense.
type Hears<'a> = dyn FnMut(Option<Entry>) + 'a;

/// How often the log is looked at, unless the server is polled more often. A look at files that did
/// not change costs some microseconds.
const RHYTHM: Duration = Duration::from_secs(1);

/// Where servers are polled more often than this, the log is not.
const RHYTHM_AT_LEAST: Duration = Duration::from_millis(50);

/// The lines of one entry are written at once. When nothing more came for so long, it is whole.
const SETTLES_IN: Duration = Duration::from_millis(100);

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSource {
    /// The file, or a pattern in the last part of its path.
    pub path: PathBuf,
    /// Its format, if names and first lines are not to tell it.
    pub format: Option<Format>,
    /// The `log_line_prefix` of a stderr log, if the server is not to tell it.
    pub line_prefix: Option<String>,
    /// Statements that took at least so long are counted.
    pub slower_than: Duration,
    /// How often the log is looked at.
    pub rhythm: Duration,
    /// After so long a look has failed.
    pub timeout: Duration,
    /// What the server says of its log.
    pub server: ServerLogging,
}

/// Where the Postgres source's word on the server's log arrives. Not a part of settings: two of
/// them are always equal.
#[derive(Clone, Debug)]
pub struct ServerLogging(pub watch::Receiver<Option<Arc<Logging>>>);

impl PartialEq for ServerLogging {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Default for ServerLogging {
    /// Nobody says anything.
    fn default() -> Self {
        Self(watch::channel(None).1)
    }
}

impl LogSource {
    /// As settings say.
    pub fn of(told: &LogSettings, settings: &Settings) -> Self {
        Self {
            path: told.path.clone(),
            format: told.format,
            line_prefix: told.line_prefix.clone(),
            slower_than: told.slower_than,
            rhythm: settings.poll.interval.clamp(RHYTHM_AT_LEAST, RHYTHM),
            timeout: settings.poll.timeout,
            server: ServerLogging::default(),
        }
    }
}

impl SideSource for LogSource {
    type Seen = log::Observation;
    type Happened = log::Lines;
    const KIND: &'static str = "log";

    async fn run(
        self,
        mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut stop = pin!(stop);
        let mut follower = Follower::new(self.clone());
        let mut source = Source { told: self, mailbox, standing: None };
        loop {
            let Some((back, again)) = source.look(follower, stop.as_mut()).await else { return };
            follower = back;
            let pause = match again {
                Again::AtOnce => continue,
                Again::Soon => SETTLES_IN.min(source.told.rhythm),
                Again::Later => source.told.rhythm,
            };
            tokio::select! {
                () = stop.as_mut() => return,
                () = sleep(pause) => {}
            }
        }
    }
}

/// A source that runs.
struct Source {
    told: LogSource,
    mailbox: Mailbox<Observation, Lines>,
    /// What was wrong at the last look.
    standing: Option<FailureKind>,
}

impl Source {
    /// One look, on a thread that may wait; `None` at the end. While it takes too long that is
    /// said, and no other is begun.
    async fn look(
        &mut self,
        mut follower: Follower,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<(Follower, Again)> {
        let server = self.told.server.0.borrow().clone();
        let mut looks = JoinSet::new();
        looks.spawn_blocking(move || {
            let look = follower.look(server.as_deref(), clock::monotonic());
            (follower, look)
        });
        loop {
            tokio::select! {
                () = stop.as_mut() => return None,
                done = looks.join_next() => match done? {
                    Ok((follower, Look { outcome, lines, again })) => {
                        self.leave(outcome, lines, self.told.rhythm);
                        return Some((follower, again));
                    }
                    // Passed on: `run` counts it and begins again.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return None,
                    },
                },
                () = sleep(self.told.timeout) => self.leave_late(),
            }
        }
    }

    fn leave_late(&mut self) {
        let (path, timeout) = (self.told.path.display(), self.told.timeout);
        let text =
            format!("reading {path}: the disk did not answer in {} s", timeout.as_secs_f64());
        let failure = Failure { kind: FailureKind::TooSlow, text, sqlstate: None };
        self.leave(Err(failure), Lines::default(), timeout.max(self.told.rhythm));
    }

    fn leave(&mut self, outcome: Result<Observation, Failure>, lines: Lines, rhythm: Duration) {
        let kind = outcome.as_ref().err().map(|failure| failure.kind);
        match &outcome {
            Err(failure) if kind != self.standing => {
                tracing::warn!(kind = failure.kind.word(), text = failure.text, "cannot be read");
            }
            Ok(seen) if self.standing.is_some() => {
                tracing::info!(file = seen.file, "readable again");
            }
            _ => {}
        }
        self.standing = kind;
        self.mailbox.leave(Delivery {
            taken_at: clock::monotonic(),
            outcome: outcome.map(Arc::new),
            happened: lines,
            rhythm,
        });
    }
}
