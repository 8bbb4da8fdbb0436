//! The probe at real servers, real poolers and what only looks like one: what every test of it
//! needs, and the tests by subject.

pub(crate) mod blind;
mod bouncer;
mod full;
mod strange;
mod ways;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock;
use plimsoll::collect::SideSource;
use plimsoll::collect::mailbox::{Delivery, Mailbox};
use plimsoll::collect::probe::ProbeSource;
use plimsoll::drill::server::Server;
use plimsoll_core::reading::Failure;
use plimsoll_core::reading::probe::{Attempt, Attempts, Held, Observation};
use plimsoll_core::settings::{ProbeSettings, Secret, Surroundings};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::postgres::{DEADLINE, execute, processes};

/// The role of an application. No other title of a process has its name in it.
const APPLICATION: &str = "payment";

/// More often than settings allow, and with more patience than any machine needs.
fn told(url: &str) -> ProbeSettings {
    ProbeSettings {
        name: "as-the-application".to_owned(),
        url: Secret::new(url),
        password: None,
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(20),
        keep_free: 0.0,
    }
}

/// How long those wait that expect no answer.
const HASTE: Duration = Duration::from_millis(500);

/// The same for tests of what has no answer.
fn hasty(url: &str) -> ProbeSettings {
    ProbeSettings { timeout: HASTE, ..told(url) }
}

fn source(told: &ProbeSettings) -> ProbeSource {
    ProbeSource::of(told, &Surroundings::default()).unwrap()
}

/// A server with the role of an application, beside those that all have.
async fn server(max_connections: u32, settings: &[(&str, &str)]) -> Server {
    let server = crate::postgres::server(max_connections, settings).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE ROLE payment LOGIN").await;
    superuser.close().await;
    server
}

/// Where the application logs in.
fn url(server: &Server) -> String {
    server.url(APPLICATION, "postgres")
}

/// Processes of the server that serve the probe, logins under way included: their titles name the
/// role.
fn our_processes(server: &Server) -> usize {
    let title = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    let is_ours = |pid: &i32| title(pid).is_ok_and(|title| title.contains(APPLICATION));
    processes(server).iter().filter(|pid| is_ours(pid)).count()
}

/// A probe that runs, and what it leaves.
struct Probing {
    mailbox: Mailbox<Observation, Attempts>,
    /// What came and nobody asked for yet.
    came: VecDeque<Attempt>,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

impl Probing {
    fn start(told: &ProbeSettings) -> Self {
        Self::run(source(told))
    }

    fn run(source: ProbeSource) -> Self {
        let mailbox = Mailbox::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(source.run(mailbox.clone(), async move { drop(stopped.await) }));
        Self { mailbox, came: VecDeque::new(), stop, tasks }
    }

    /// The next delivery.
    async fn next(&self) -> Delivery<Observation, Attempts> {
        tokio::time::timeout(DEADLINE, self.mailbox.arrived()).await.expect("a delivery in time");
        self.mailbox.take().unwrap()
    }

    /// The next login that was decided, or has no answer in time.
    async fn attempt(&mut self) -> Attempt {
        let deadline = clock::monotonic() + DEADLINE;
        loop {
            if let Some(attempt) = self.came.pop_front() {
                return attempt;
            }
            assert!(clock::monotonic() < deadline, "waiting for a login");
            self.came.extend(self.next().await.happened.0);
        }
    }

    /// The next that failed.
    async fn failure(&mut self) -> Failure {
        self.until("a failure", |attempt| attempt.outcome.is_err()).await.outcome.unwrap_err()
    }

    /// The next that got in.
    async fn success(&mut self) -> Attempt {
        self.until("a login", |attempt| attempt.outcome.is_ok()).await
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Attempt) -> bool) -> Attempt {
        let deadline = clock::monotonic() + DEADLINE;
        loop {
            let attempt = self.attempt().await;
            if holds(&attempt) {
                return attempt;
            }
            assert!(clock::monotonic() < deadline, "waiting for {what}; at last {attempt:?}");
        }
    }

    /// The next delivery that says that this holds the next login up.
    async fn held(&mut self, held: Option<Held>) -> Arc<Observation> {
        let deadline = clock::monotonic() + DEADLINE;
        loop {
            let delivery = self.next().await;
            self.came.extend(delivery.happened.0);
            let seen = delivery.outcome.unwrap();
            if seen.held == held {
                return seen;
            }
            assert!(clock::monotonic() < deadline, "waiting for {held:?}; at last {seen:?}");
        }
    }

    /// Tells it to stop and returns when it has.
    async fn end(mut self) {
        drop(self.stop);
        let ended = tokio::time::timeout(DEADLINE, self.tasks.join_next()).await;
        ended.expect("an end in time").unwrap().unwrap();
    }
}
