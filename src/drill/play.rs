//! Plays a scenario: starts the server, the daemon and a receiver, takes the steps one after the
//! other, and writes down what comes of them. Called by [`super::run`].

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::time::MissedTickBehavior;

use super::bouncer::{self, Bouncer};
use super::daemon::Daemon;
use super::job::Job;
use super::pool::Pool;
use super::receiver::{Behaviour, Receiver};
use super::record::{Page, Record, View};
use super::scenario::{Action, Condition, PoolerPart, Scenario, Step};
use super::server::{Options, Server};
use super::{DrillError, RunOptions, say};
use crate::chain::chain;
use crate::clock;

/// A line a second, as the daemon reads.
const RHYTHM: Duration = Duration::from_secs(1);

/// Everything that a drill has started. Dropping it ends everything.
#[derive(Debug)]
pub struct Stage {
    scenario: Scenario,
    pools: BTreeMap<String, Pool>,
    jobs: BTreeMap<String, Job>,
    bouncer: Option<Bouncer>,
    server: Server,
}

impl Stage {
    /// A server as the scenario wants it, with its setup in it, and nobody on it; and a pooler
    /// before it, if it wants one.
    pub async fn set(scenario: Scenario, major: Option<u32>) -> Result<Self, DrillError> {
        let part = &scenario.server;
        let options = Options {
            major,
            max_connections: part.max_connections,
            superuser_reserved_connections: part.superuser_reserved_connections,
            settings: part.settings.clone().into_iter().collect(),
        };
        let server = Server::start(options).await?;
        let superuser = server.superuser().await?;
        for statement in &scenario.setup.statements {
            superuser.batch_execute(statement).await.map_err(|source| {
                let first = statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
                DrillError::Postgres { doing: format!("setting up ({first} …)"), source }
            })?;
        }
        superuser.close().await;
        let bouncer = match &scenario.pooler {
            Some(pooler) => Some(Bouncer::start(before(&server, &scenario, pooler)).await?),
            None => None,
        };
        Ok(Self { scenario, pools: BTreeMap::new(), jobs: BTreeMap::new(), bouncer, server })
    }

    /// The pooler before it.
    pub fn bouncer(&self) -> Option<&Bouncer> {
        self.bouncer.as_ref()
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The pool of an application, once it was started.
    pub fn pool(&self, application: &str) -> Option<&Pool> {
        self.pools.get(application)
    }

    /// Does what a step says, but for letting time pass. Returns what the table tells of it.
    pub async fn act(&mut self, action: &Action) -> Result<Option<String>, DrillError> {
        match action {
            Action::Start(application) => self.start(application).await.map(Some),
            Action::Resize { pool, ceiling } => {
                if let Some(running) = self.pools.get(pool) {
                    running.resize(*ceiling);
                }
                Ok(Some(format!("{pool} may open {ceiling} sessions")))
            }
            Action::Terminate(application) => self.terminate(application).await.map(Some),
            Action::Close(application) => {
                if let Some(pool) = self.pools.remove(application) {
                    pool.close().await;
                }
                if let Some(job) = self.jobs.remove(application) {
                    job.close().await;
                }
                Ok(Some(format!("{application} closed")))
            }
            Action::Wait(_) => Ok(None),
        }
    }

    async fn start(&mut self, application: &str) -> Result<String, DrillError> {
        let login = self.server.login("postgres", "postgres");
        if let Some(part) = self.scenario.pool(application) {
            let login = match (&part.through, &self.bouncer) {
                (Some(_), Some(bouncer)) => bouncer.login("postgres", "postgres"),
                _ => login,
            };
            let pool = Pool::start(login, part, self.scenario.seed).await?;
            let open = pool.counts().open;
            self.pools.insert(application.to_owned(), pool);
            return Ok(format!("{application} works, with {open} sessions"));
        }
        if let Some(part) = self.scenario.job(application) {
            self.jobs.insert(application.to_owned(), Job::start(login, part).await?);
        }
        Ok(format!("{application} started"))
    }

    /// By a superuser, who gets in when nobody else does.
    async fn terminate(&self, application: &str) -> Result<String, DrillError> {
        let superuser = self.server.superuser().await?;
        let terminated = superuser
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = $1::text AND pid <> pg_backend_pid()",
                &[&application],
            )
            .await
            .map_err(|source| DrillError::Postgres {
                doing: format!("terminating {application}"),
                source,
            })?;
        superuser.close().await;
        Ok(format!("{application} terminated, sessions: {}", terminated.len()))
    }
}

/// A pooler that leads to the server, for everybody who goes through it.
fn before(server: &Server, scenario: &Scenario, pooler: &PoolerPart) -> bouncer::Options {
    let roles = scenario.pools.iter().filter(|pool| pool.through.is_some());
    bouncer::Options {
        release: None,
        databases: vec![format!("postgres = host=127.0.0.1 port={}", server.port())],
        settings: pooler.settings.clone().into_iter().collect(),
        passwords: roles.map(|pool| (pool.role.clone(), String::new())).collect(),
        ..bouncer::Options::default()
    }
}

/// What the daemon is told of it.
fn watched(bouncer: &Bouncer, pooler: &PoolerPart) -> String {
    let text = |text: &str| toml::Value::String(text.to_owned());
    let (name, url) = (text(&pooler.name), text(&bouncer.url("stats", "pgbouncer")));
    format!("[[targets.poolers]]\nname = {name}\nurl = {url}\n")
}

/// A stage with the daemon that watches it, and the record of it.
pub(super) struct Play<'a> {
    stage: Stage,
    daemon: Daemon,
    receiver: Receiver,
    record: Record,
    ends: Instant,
    out: &'a mut dyn Write,
}

impl<'a> Play<'a> {
    pub(super) async fn prepare(
        scenario: Scenario,
        options: &RunOptions,
        out: &'a mut dyn Write,
    ) -> Result<Self, DrillError> {
        say(out, &format!("drill {}: {}", scenario.name, scenario.summary))?;
        let stage = Stage::set(scenario, options.major).await?;
        let receiver = Receiver::start(Behaviour::status(200)).await.map_err(|source| {
            DrillError::File { doing: "opening a receiver on", path: "127.0.0.1".into(), source }
        })?;
        let scenario = &stage.scenario;
        let postgres = stage.server.url(&scenario.target.role, "postgres");
        let webhook = format!("{}/plimsoll", receiver.url());
        let more = match (&stage.bouncer, &scenario.pooler) {
            (Some(bouncer), Some(pooler)) => watched(bouncer, pooler),
            _ => String::new(),
        };
        let (program, target) = (&options.program, &scenario.target);
        let daemon = Daemon::start_with(program, target, &postgres, &webhook, &more).await?;
        let (major, port) = (stage.server.major(), stage.server.port());
        let before = stage.bouncer.as_ref().map(|bouncer| {
            format!("PgBouncer {} on port {} before ", bouncer.release(), bouncer.port())
        });
        say(
            out,
            &format!(
                "{}PostgreSQL {major} on port {port}, {} run with the settings that it is shipped \
                 with\n",
                before.unwrap_or_default(),
                options.program.display(),
            ),
        )?;
        let now = clock::monotonic();
        let record = Record::new(clock::wall(), TimeZone::system(), &scenario.crossings);
        let ends = now + scenario.limit;
        Ok(Self { stage, daemon, receiver, record, ends, out })
    }

    /// Takes all steps, or those up to the first whose condition does not come.
    pub(super) async fn play(&mut self) -> Result<(), DrillError> {
        let mut ticks = tokio::time::interval(RHYTHM);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for step in self.stage.scenario.steps.clone() {
            if !self.step(&step, &mut ticks).await? {
                break;
            }
        }
        let left = self.ends.saturating_duration_since(clock::monotonic());
        let limit = humantime::format_duration(self.stage.scenario.limit);
        self.record.expect_order();
        let took = self.record.since(clock::wall());
        self.record.expect_that(&format!("all within {limit}"), !left.is_zero(), took);
        Ok(())
    }

    async fn step(
        &mut self,
        step: &Step,
        ticks: &mut tokio::time::Interval,
    ) -> Result<bool, DrillError> {
        if let Some(text) = &step.say {
            self.print(&format!("--- {text}"))?;
        }
        if let Some(action) = &step.action {
            let done = self.stage.act(action).await?;
            if let Some(done) = done {
                self.record.mark(clock::wall(), done);
            }
            if let Action::Wait(time) = action {
                self.until(None, *time, ticks).await?;
            }
        }
        let (Some(condition), Some(within)) = (&step.until, step.within) else { return Ok(true) };
        let began = clock::monotonic();
        let met = self.until(Some(condition), within, ticks).await?;
        let took = clock::monotonic().duration_since(began);
        self.record.expect(condition, met, took, within);
        Ok(met)
    }

    /// Watches until a condition holds, true, or the time is over, false.
    async fn until(
        &mut self,
        condition: Option<&Condition>,
        within: Duration,
        ticks: &mut tokio::time::Interval,
    ) -> Result<bool, DrillError> {
        let deadline = (clock::monotonic() + within).min(self.ends);
        loop {
            // What was seen before the step began counts only for pages: they may be early.
            if matches!(condition, Some(page @ Condition::Page { .. }) if self.record.holds(page)) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(clock::monotonic());
            tokio::select! {
                biased;
                received = self.receiver.next() => match Page::of(&received) {
                    Ok(page) => {
                        self.print(&page.text())?;
                        self.record.receive(page);
                    }
                    Err(text) => self.record.expect_that("every request is a page", false, text),
                },
                () = tokio::time::sleep(left) => return Ok(false),
                _ = ticks.tick() => {
                    self.look().await?;
                    if condition.is_some_and(|condition| self.record.holds(condition)) {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Reads the daemon once, and prints its line.
    async fn look(&mut self) -> Result<(), DrillError> {
        if let Some(failure) = self.daemon.failure()? {
            return Err(failure);
        }
        match self.daemon.status().await {
            Ok(status) => {
                let view = View::of(&status, clock::wall());
                self.print(&view.line())?;
                self.record.see(view);
            }
            Err(error) => self.print(&format!("no answer: {}", chain(&error)))?,
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), DrillError> {
        let since = self.record.since(clock::wall());
        say(self.out, &format!("{since:>5}  {text}"))
    }

    /// Prints the table; what did not go well comes with the end of the daemon's log.
    pub(super) fn conclude(&mut self, interrupted: bool) -> Result<(), DrillError> {
        say(self.out, &format!("\n{}", self.record.table()))?;
        if interrupted {
            return say(self.out, "\ninterrupted; everything that was started ends now");
        }
        if !self.record.passed() {
            say(self.out, &format!("\nThe end of the daemon's log:\n{}", self.daemon.log()))?;
        }
        Ok(())
    }

    /// Prints where everything can be looked at.
    pub(super) fn show_addresses(&mut self) -> Result<(), DrillError> {
        let (daemon, target) = (self.daemon.address(), &self.stage.scenario.target.name);
        let postgres = self.stage.server.url("postgres", "postgres");
        let configuration = self.daemon.configuration();
        say(self.out, "\nEverything goes on until Ctrl-C:")?;
        say(self.out, &format!("  http://{daemon}/"))?;
        say(self.out, &format!("  http://{daemon}/metrics"))?;
        say(self.out, &format!("  http://{daemon}/api/v1/targets/{target}"))?;
        say(self.out, &format!("  http://{daemon}/api/v1/incidents"))?;
        say(self.out, &format!("  psql {postgres}"))?;
        if let Some(bouncer) = &self.stage.bouncer {
            say(self.out, &format!("  psql {}", bouncer.url("stats", "pgbouncer")))?;
        }
        say(self.out, &format!("  {}", configuration.display()))
    }

    /// Lets everything go on; pages are still printed. Ends only with an error.
    pub(super) async fn go_on(&mut self) -> Result<(), DrillError> {
        loop {
            let received = self.receiver.next().await;
            if let Ok(page) = Page::of(&received) {
                self.print(&page.text())?;
            }
        }
    }

    /// Ends everything in its order, and gives out what was expected.
    pub(super) async fn end(self) -> Result<Record, DrillError> {
        let Self { stage, daemon, record, .. } = self;
        drop(stage.pools);
        drop(stage.jobs);
        let status = daemon.stop().await?;
        drop(stage.bouncer);
        drop(stage.server);
        let mut record = record;
        if !status.success() {
            record.expect_that("the daemon ends well", false, status.to_string());
        }
        Ok(record)
    }
}
