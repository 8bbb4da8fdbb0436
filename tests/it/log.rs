//! The source of a server's log: files that are written to, moved and cut under it, and the logs
//! that real servers write.

mod files;
mod lines;
mod rights;
mod rotation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock;
use plimsoll::collect::SideSource;
use plimsoll::collect::log::{LogSource, ServerLogging};
use plimsoll::collect::mailbox::{Delivery, Mailbox};
use plimsoll_core::reading::log::{LineKind, Lines, Observation};
use plimsoll_core::reading::postgres::Logging;
use plimsoll_core::reading::{Failure, Happened};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Ten times what any of it takes.
const DEADLINE: Duration = Duration::from_mins(1);

fn source(path: impl Into<PathBuf>) -> LogSource {
    LogSource {
        path: path.into(),
        format: None,
        line_prefix: None,
        slower_than: Duration::from_millis(200),
        rhythm: Duration::from_millis(50),
        timeout: Duration::from_secs(20),
        server: ServerLogging::default(),
    }
}

/// A source that runs, and all that it has said.
struct Follow {
    mailbox: Mailbox<Observation, Lines>,
    tasks: JoinSet<()>,
    /// What happened since the start.
    lines: Lines,
    /// What was seen last.
    seen: Option<Result<Observation, Failure>>,
}

impl Follow {
    fn start(source: LogSource) -> Self {
        let mailbox = Mailbox::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(source.run(mailbox.clone(), std::future::pending()));
        Self { mailbox, tasks, lines: Lines::default(), seen: None }
    }

    /// Starts it, and returns when it has looked once: what is written from now on is new.
    async fn begun(source: LogSource) -> Self {
        let mut follow = Self::start(source);
        follow.next().await;
        follow
    }

    async fn next(&mut self) {
        tokio::time::timeout(DEADLINE, self.mailbox.arrived()).await.expect("a delivery in time");
        let Delivery { outcome, happened, .. } = self.mailbox.take().unwrap();
        self.lines.add(happened);
        self.seen = Some(outcome.map(Arc::unwrap_or_clone));
    }

    /// Waits until this holds of all that was said.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = clock::monotonic() + DEADLINE;
        while !holds(self) {
            assert!(
                clock::monotonic() < deadline,
                "waiting for {what}; {:?} and {:#?}",
                self.seen,
                self.lines
            );
            self.next().await;
        }
    }

    /// Waits until so many lines of a kind were read, and no other.
    async fn until_of(&mut self, kind: LineKind, count: u64) {
        self.until(kind.word(), |all| count <= all.lines.of(kind)).await;
        assert_eq!(self.lines.of(kind), count, "{kind:?}");
    }

    /// Waits until it was looked twice, so that all that is there now was read.
    async fn settled(&mut self) {
        for _ in 0..3 {
            self.next().await;
        }
    }

    async fn failure(&mut self) -> Failure {
        self.until("a failure", |all| matches!(all.seen, Some(Err(_)))).await;
        self.seen.clone().unwrap().unwrap_err()
    }

    fn file(&self) -> &str {
        let seen = self.seen.as_ref().and_then(|seen| seen.as_ref().ok());
        &seen.unwrap_or_else(|| panic!("{:?}", self.seen)).file
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// What the Postgres source would say of the server's log.
fn said(
    line_prefix: &str,
    destination: &str,
) -> (watch::Sender<Option<Arc<Logging>>>, ServerLogging) {
    let logging = Logging {
        line_prefix: line_prefix.into(),
        destination: destination.into(),
        process_titles: true,
    };
    let (sender, receiver) = watch::channel(Some(Arc::new(logging)));
    (sender, ServerLogging(receiver))
}
