//! A scenario: what happens in a drill, on what server, and what must come of it.
//!
//! One TOML file each, under `drills/`; those are part of the program, others are read by path.
//! Strict: an unknown key is an error, and so is a name that nothing has. [`super::run`] plays it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use plimsoll_core::judge::rule::words;
use serde::{Deserialize, Deserializer};

use super::DrillError;

/// The scenarios that are part of the program.
pub const EMBEDDED: [(&str, &str); 1] =
    [("migration-042", include_str!("../../drills/migration-042.toml"))];

/// A larger file is no scenario.
const MAX_FILE: u64 = 1_000_000;

/// What happens in a drill.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is about, in a sentence.
    pub summary: String,
    /// All of it takes no longer, or it has failed.
    #[serde(deserialize_with = "duration")]
    pub limit: Duration,
    /// The same seed asks for the same rows.
    pub seed: u64,
    /// Parts of the usable slots; the table says when each was first exceeded.
    #[serde(default)]
    pub crossings: Vec<f64>,
    /// The throwaway server.
    pub server: ServerPart,
    /// How Plimsoll sees it.
    pub target: TargetPart,
    /// A PgBouncer before the server.
    pub pooler: Option<PoolerPart>,
    /// What is in the server before anything happens.
    #[serde(default)]
    pub setup: SetupPart,
    /// Applications.
    #[serde(default)]
    pub pools: Vec<PoolPart>,
    /// Single sessions with a task.
    #[serde(default)]
    pub jobs: Vec<JobPart>,
    /// What happens, one after the other.
    pub steps: Vec<Step>,
}

/// The throwaway server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPart {
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`.
    pub superuser_reserved_connections: u32,
    /// Further settings.
    #[serde(default)]
    pub settings: std::collections::BTreeMap<String, String>,
}

/// How Plimsoll sees the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPart {
    /// The target's name.
    pub name: String,
    /// As whom Plimsoll logs in.
    pub role: String,
    /// The target's labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A PgBouncer before the server, which Plimsoll watches as well.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolerPart {
    /// Its name, for Plimsoll and for pools.
    pub name: String,
    /// Settings of `[pgbouncer]`.
    #[serde(default)]
    pub settings: std::collections::BTreeMap<String, String>,
}

/// What is in the server before anything happens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupPart {
    /// Run by the superuser, each by itself, in the database `postgres`.
    pub statements: Vec<String>,
}

/// An application with a pool of sessions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolPart {
    /// Its `application_name`; also how steps name it.
    pub application: String,
    /// As whom it logs in.
    pub role: String,
    /// The pooler through which it goes, if it goes through one.
    pub through: Option<String>,
    /// Sessions that it keeps open.
    pub floor: u32,
    /// Sessions that it opens at most.
    pub ceiling: u32,
    /// Requests, whether or not the ones before were answered.
    pub requests_per_second: u32,
    /// A session above the floor that was idle so long is closed.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// `$1` in the transaction is a number from 1 to this.
    pub rows: u32,
    /// A request: one transaction of these.
    pub transaction: Vec<String>,
    /// Between two statements of it.
    #[serde(deserialize_with = "duration")]
    pub think_time: Duration,
}

/// A single session with a task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPart {
    /// Its `application_name`; also how steps name it.
    pub application: String,
    /// As whom it logs in.
    pub role: String,
    /// How often it runs its statements.
    pub rounds: u32,
    /// Run one after the other.
    pub statements: Vec<String>,
}

/// One step: something is said, then done, then awaited.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What the one who watches reads.
    pub say: Option<String>,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Option<Action>,
    /// What must come of it before the next step.
    pub until: Option<Condition>,
    /// How soon.
    #[serde(default, deserialize_with = "some_duration")]
    pub within: Option<Duration>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Starts a pool, and waits for the sessions of its floor, or a job.
    Start(String),
    /// Gives a pool another ceiling.
    Resize {
        /// Whose.
        pool: String,
        /// Sessions that it opens at most from now on.
        ceiling: u32,
    },
    /// A superuser calls `pg_terminate_backend` on every session of an application.
    Terminate(String),
    /// A pool or job ends by itself.
    Close(String),
    /// Time passes.
    #[serde(deserialize_with = "duration")]
    Wait(Duration),
}

/// What a step waits for; each is an expectation that the drill is judged by.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// More than this part of the usable slots is in use.
    UtilizationAbove(f64),
    /// Less than this part of the usable slots is in use.
    UtilizationBelow(f64),
    /// No slot is free for an ordinary login.
    Full,
    /// Nothing fires, and no incident is open.
    Calm,
    /// A page comes, after those that steps before this one waited for.
    Page {
        /// What it does.
        event: Event,
        /// The incident's severity in it.
        severity: Severity,
    },
}

/// What a page does at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Opens.
    Trigger,
    /// Says more of what is open.
    Update,
    /// Closes.
    Resolve,
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should look at it.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Event {
    /// The word in the webhook's JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Update => "update",
            Self::Resolve => "resolve",
        }
    }
}

impl Severity {
    /// The word in the webhook's JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UtilizationAbove(part) => write!(f, "more than {} in use", percent(*part)),
            Self::UtilizationBelow(part) => write!(f, "less than {} in use", percent(*part)),
            Self::Full => f.write_str("no slot free"),
            Self::Calm => f.write_str("no incident open"),
            Self::Page { event, severity } => {
                write!(f, "a page: {}, {}", event.word(), severity.word())
            }
        }
    }
}

/// `0.8` → `80 %`, as in messages.
pub fn percent(part: f64) -> String {
    format!("{} %", words::percent(part))
}

impl Scenario {
    /// One that is part of the program, by its name, or one in a file, by its path.
    pub fn find(name: &str) -> Result<Self, DrillError> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        let file =
            |source| DrillError::File { doing: "reading the scenario", path: path.into(), source };
        if !path.exists() {
            let known: Vec<_> = EMBEDDED.iter().map(|(name, _)| *name).collect();
            return Err(DrillError::Missing {
                what: format!("the scenario {name}"),
                hint: format!("name a file, or one of these: {}", known.join(", ")),
            });
        }
        if std::fs::metadata(path).map_err(file)?.len() > MAX_FILE {
            return Err(file(std::io::ErrorKind::FileTooLarge.into()));
        }
        Self::parse(name, &std::fs::read_to_string(path).map_err(file)?)
    }

    /// The scenario in this text.
    pub fn parse(name: &str, text: &str) -> Result<Self, DrillError> {
        let mistakes = |text: String| DrillError::Scenario { name: name.to_owned(), text };
        let scenario: Self = toml::from_str(text).map_err(|error| mistakes(error.to_string()))?;
        let found = scenario.mistakes();
        if found.is_empty() { Ok(scenario) } else { Err(mistakes(found.join("\n"))) }
    }

    /// The pool of this application.
    pub fn pool(&self, application: &str) -> Option<&PoolPart> {
        self.pools.iter().find(|pool| pool.application == application)
    }

    /// The job of this application.
    pub fn job(&self, application: &str) -> Option<&JobPart> {
        self.jobs.iter().find(|job| job.application == application)
    }

    fn mistakes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for pool in &self.pools {
            let PoolPart { application, floor, ceiling, requests_per_second, rows, .. } = pool;
            if let Some(name) = &pool.through
                && self.pooler.as_ref().is_none_or(|pooler| pooler.name != *name)
            {
                found.push(format!("pool {application}: there is no pooler {name}"));
            }
            if ceiling < floor {
                found.push(format!("pool {application}: ceiling {ceiling} is below floor {floor}"));
            }
            if *requests_per_second == 0 || *rows == 0 {
                found.push(format!("pool {application}: requests_per_second and rows are above 0"));
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            let number = index + 1;
            let complain = |text: String| format!("step {number}: {text}");
            found.extend(self.mistakes_of(step).into_iter().map(complain));
        }
        if self.steps.iter().all(|step| step.until.is_none()) {
            found.push("no step waits for anything: nothing can be judged".to_owned());
        }
        found
    }

    fn mistakes_of(&self, step: &Step) -> Vec<String> {
        let mut found = Vec::new();
        if step.until.is_some() != step.within.is_some() {
            found.push("`until` and `within` go together".to_owned());
        }
        if let Some(Condition::UtilizationAbove(part) | Condition::UtilizationBelow(part)) =
            step.until
            && !(0.0..=1.0).contains(&part)
        {
            found.push(format!("{part} is no part of a whole: it is from 0 to 1"));
        }
        match &step.action {
            Some(Action::Start(name) | Action::Close(name))
                if self.pool(name).is_none() && self.job(name).is_none() =>
            {
                found.push(format!("there is no pool or job {name}"));
            }
            Some(Action::Resize { pool, .. }) if self.pool(pool).is_none() => {
                found.push(format!("there is no pool {pool}"));
            }
            _ => {}
        }
        found
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is no duration such as \"30s\": {error}"))
    })
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_scenario_can_be_played_and_is_called_what_its_file_is() {
        for (name, text) in EMBEDDED {
            let scenario = Scenario::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, name);
            // What a step allows itself must fit into the whole with room for the rest.
            assert!(scenario.limit < Duration::from_mins(2), "{name}");
        }
    }

    #[track_caller]
    fn check(change: (&str, &str), complaint: &str) {
        let (_, text) = EMBEDDED[0];
        let changed = text.replacen(change.0, change.1, 1);
        assert_ne!(text, changed, "nothing was changed");
        let said = Scenario::parse("changed", &changed).expect_err("a mistake").to_string();
        assert!(said.contains(complaint), "{said}");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        check(("seed = 42", "seed = 42\nsed = 1"), "unknown field `sed`");
        check(("seed = 42", "seed = \"42\""), "invalid type");
        check(("limit = \"110s\"", "limit = \"110\""), "no duration");
        check(("until = \"full\"", "until = \"ful\""), "unknown variant `ful`");
        check(("do = { wait = \"3s\" }", "do = { sleep = \"3s\" }"), "unknown variant `sleep`");
        check(
            ("do = { start = \"payment-api\" }", "do = { start = \"api\" }"),
            "step 1: there is no",
        );
        check(("within = \"75s\"\n", ""), "step 4: `until` and `within` go together");
        check(("utilization_above = 0.80", "utilization_above = 80"), "step 3: 80 is no part");
        check(("ceiling = 40", "ceiling = 20"), "ceiling 20 is below floor 30");
        check(("through = \"pgbouncer\"", "through = \"pgcat\""), "there is no pooler pgcat");
        check(("event = \"update\"", "event = \"page\""), "unknown variant `page`");
    }

    #[test]
    fn an_unknown_scenario_names_those_that_there_are() {
        let said = Scenario::find("migration-43").expect_err("no such scenario").to_string();
        assert!(said.contains("hint: ") && said.contains("migration-042"), "{said}");
    }
}
