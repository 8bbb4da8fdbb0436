//! `plimsoll check` and `plimsoll setup-sql` from outside: the real binary at real servers. Each
//! fault is staged alone, and where a statement is printed it is run, and must mend it.

mod fallback;
mod help;
mod receivers;
mod secrets;
mod setup_sql;
mod sources;
mod state;
mod targets;
mod tls;

use std::process::Output;

use plimsoll::drill::server::{Mode, Options, Server, Session};
use serde_json::Value;

use crate::daemon::{plimsoll, until};
use crate::major::major;

/// A server with the role as the README's first version made it, and an application's.
async fn server(max_connections: u32) -> Server {
    let server = bare_server(max_connections, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(
        &superuser,
        "CREATE ROLE app LOGIN; CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5",
    )
    .await;
    let pid = superuser.backend_pid().await.unwrap();
    superuser.close().await;
    // Until then it holds a slot.
    let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    until("the superuser's backend to be gone", gone).await;
    server
}

/// Fills a server; sessions of before may hold their slots for a moment longer.
async fn fill(server: &Server, application: &str, count: usize) -> Vec<Session> {
    let deadline = plimsoll::clock::monotonic() + crate::daemon::DEADLINE;
    loop {
        match server.fill("app", application, count).await {
            Ok(sessions) => return sessions,
            Err(error) => assert!(plimsoll::clock::monotonic() < deadline, "{error}"),
        }
    }
}

async fn bare_server(max_connections: u32, settings: &[(&str, &str)]) -> Server {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings = settings.iter().map(own).collect();
    let options = Options { max_connections, settings, ..Options::default() };
    crate::major::start(options, "").await
}

async fn execute(session: &Session, sql: &str) {
    session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// How a command ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command beside the test, which may have to answer it.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = plimsoll();
    command.args(arguments).envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap().into()
}

/// What `check --format json` says.
struct Checked {
    code: i32,
    json: Value,
}

impl Checked {
    /// The findings of the first target, but for those that are `ok`.
    fn troubles(&self) -> Vec<String> {
        let shown = |finding: &Value| {
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            (word("grade") != "ok").then(|| format!("{} {}", word("grade"), word("check")))
        };
        self.findings().iter().filter_map(shown).collect()
    }

    fn findings(&self) -> &[Value] {
        self.json["targets"][0]["findings"].as_array().unwrap()
    }

    fn finding(&self, check: &str) -> &Value {
        let found = self.findings().iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("{check}: {}", self.json))
    }

    fn grade(&self, check: &str) -> &str {
        let found = self.findings().iter().find(|finding| finding["check"] == check);
        found.map_or("", |finding| finding["grade"].as_str().unwrap())
    }
}

/// Checks one address, with sessions idle for any time counted as resting.
async fn check(url: &str) -> Checked {
    check_with(&["--postgres", url]).await
}

async fn check_with(arguments: &[&str]) -> Checked {
    check_in(&[&["--idle-for", "0s"], arguments].concat(), &[]).await
}

/// Checks with nothing but these arguments and variables.
async fn check_in(arguments: &[&str], variables: &[(&str, &str)]) -> Checked {
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().display().to_string();
    let common = ["check", "--format", "json", "--state-dir", &state_dir];
    let ended = run(&[&common, arguments].concat(), variables).await;
    let json = serde_json::from_str(&ended.stdout);
    let json = json.unwrap_or_else(|error| panic!("{error}: {} {}", ended.stdout, ended.stderr));
    Checked { code: ended.code, json }
}

fn url(server: &Server) -> String {
    server.url("plimsoll", "postgres")
}

/// What is not `ok` about a server on which nothing is staged: before 16 there are no slots for such
/// a role, and later ones have none reserved as they are delivered.
const ALWAYS: &str = "warning reserved_slots";

/// Stages a fault, sees it found and nothing else, runs what is printed, and sees it gone.
async fn mends(server: &mut Server, stage: &[&str], fault: &[&str], code: i32) {
    let superuser = server.superuser().await.unwrap();
    for sql in stage {
        execute(&superuser, sql).await;
    }
    drop(superuser);
    let expected: Vec<&str> = fault.to_vec();
    let seen = until_checked(server, |seen| seen.troubles() == expected).await;
    assert_eq!(seen.code, code, "{stage:?}");
    let superuser = server.superuser().await.unwrap();
    let mut needs_restart = false;
    for finding in seen.findings() {
        // The one that is always there has a test of its own.
        if finding["check"] == "reserved_slots" && fault != [ALWAYS] {
            continue;
        }
        for statement in finding["statements"].as_array().unwrap() {
            execute(&superuser, statement.as_str().unwrap()).await;
        }
        needs_restart |= finding["needs_restart"] == true;
    }
    drop(superuser);
    if needs_restart {
        server.restart(Mode::Fast).await.unwrap();
    }
    let mended = |seen: &Checked| seen.troubles().iter().all(|trouble| trouble == ALWAYS);
    let seen = until_checked(server, mended).await;
    assert_eq!(seen.code, 0, "{stage:?}");
    let staged = fault.iter().filter(|one| **one != ALWAYS || fault.len() == 1);
    for check in staged.map(|fault| fault.split(' ').nth(1).unwrap()) {
        assert_eq!(seen.grade(check), "ok", "{stage:?}: {}", seen.json);
    }
}

/// Checks until it is as it should be: the server hears of some changes a moment later.
async fn until_checked(server: &Server, holds: impl Fn(&Checked) -> bool) -> Checked {
    let deadline = plimsoll::clock::monotonic() + crate::daemon::DEADLINE;
    loop {
        let seen = check(&url(server)).await;
        if holds(&seen) {
            return seen;
        }
        let late = deadline < plimsoll::clock::monotonic();
        assert!(!late, "{:?} {}", seen.troubles(), seen.json);
    }
}

/// Waits until a query that gives one boolean gives true.
async fn until_true(session: &Session, sql: &str) {
    let deadline = plimsoll::clock::monotonic() + crate::daemon::DEADLINE;
    while !session.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(plimsoll::clock::monotonic() < deadline, "waiting for {sql}");
        tokio::task::yield_now().await;
    }
}
