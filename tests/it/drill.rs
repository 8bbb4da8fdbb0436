//! Drills: whether a scenario does to a real server what it says, seen by a superuser; and drills
//! as an operator runs them, with the daemon, to their end and cut short.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_postgres::SimpleQueryMessage;

use plimsoll::drill::scenario::{Action, Scenario};
use plimsoll::drill::server::{Session, Signal};
use plimsoll::drill::{RunOptions, Stage, run};

use crate::major::major;

/// Ten times what any of it takes.
const DEADLINE: Duration = Duration::from_secs(200);

/// Client backends, and those of the API that wait for a lock, but for the one that asks.
async fn used_and_waiting(superuser: &Session) -> (i64, i64) {
    let row = superuser
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE application_name = 'payment-api' \
             AND wait_event_type = 'Lock') FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            &[],
        )
        .await
        .expect("a superuser can read");
    (row.get(0), row.get(1))
}

async fn until(superuser: &Session, what: &str, holds: impl Fn(i64, i64) -> bool) {
    let waiting = async {
        loop {
            let (used, waiting) = used_and_waiting(superuser).await;
            if holds(used, waiting) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
        let now = used_and_waiting(superuser).await;
        panic!("waiting for {what}; used and waiting are {now:?}");
    }
}

/// Clients of the payment API at the pooler, of this column.
async fn clients(console: &Session, column: &str) -> u32 {
    let rows = console.simple_query("SHOW POOLS").await.unwrap();
    let clients = rows.iter().filter_map(|row| match row {
        SimpleQueryMessage::Row(row) if row.get("user") == Some("payment") => {
            row.get(column)?.parse::<u32>().ok()
        }
        _ => None,
    });
    clients.sum()
}

fn start(application: &str) -> Action {
    Action::Start(application.to_owned())
}

#[tokio::test]
async fn migration_042_fills_the_server_with_waiters_and_gives_it_back() {
    let scenario = Scenario::find("migration-042").unwrap();
    let mut stage = Stage::set(scenario, Some(major())).await.unwrap();
    let superuser = stage.server().superuser().await.unwrap();
    // The daemon's one session, which is not here.
    let daemon = stage.server().connect("plimsoll", "postgres").await.unwrap();

    stage.act(&start("payment-api")).await.unwrap();
    until(&superuser, "quiet times", |used, waiting| used == 31 && waiting == 0).await;
    stage.act(&start("backfill_invoice_idx")).await.unwrap();
    // 42 of 47: above 80 %, and not above 90 %.
    until(&superuser, "four pods full of waiters", |used, waiting| used == 42 && waiting > 35)
        .await;
    let resize = Action::Resize { pool: "payment-api".to_owned(), ceiling: 50 };
    stage.act(&resize).await.unwrap();
    // 46 and the one that asks, which takes a slot that an ordinary login could have: 47 of 47.
    until(&superuser, "no slot free", |used, waiting| used == 46 && waiting > 40).await;
    let refused = stage.server().connect("payment", "postgres").await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("53300"));
    let console = stage.bouncer().unwrap().login("stats", "pgbouncer");
    let console = Session::open(&console).await.unwrap();
    tokio::time::timeout(DEADLINE, async {
        while clients(&console, "cl_waiting").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the pooler finds no slot, and its clients wait");

    let told = stage.act(&Action::Terminate("backfill_invoice_idx".to_owned())).await.unwrap();
    assert_eq!(told.unwrap(), "backfill_invoice_idx terminated, sessions: 1");
    until(&superuser, "quiet times again", |used, waiting| used == 31 && waiting <= 1).await;
    let counts = stage.pool("payment-api").unwrap().counts();
    assert!(counts.answered > 0 && counts.broken == 0, "{counts:?}");
    stage.act(&Action::Close("payment-api".to_owned())).await.unwrap();
    // What the pooler keeps at hand is no application's.
    tokio::time::timeout(DEADLINE, async {
        while clients(&console, "cl_active").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("no client of the application is left");
    drop(daemon);
}

#[tokio::test]
async fn the_same_seed_asks_for_the_same_rows() {
    let mut first_rows = Vec::new();
    for _ in 0..2 {
        let mut scenario = Scenario::find("migration-042").unwrap();
        scenario.setup.statements = vec![
            "CREATE ROLE payment LOGIN".to_owned(),
            "CREATE TABLE asked (at int GENERATED ALWAYS AS IDENTITY, id bigint)".to_owned(),
            "GRANT INSERT ON asked TO payment".to_owned(),
        ];
        let pool = &mut scenario.pools[0];
        // One session: what is asked for arrives in order.
        (pool.floor, pool.ceiling) = (1, 1);
        pool.transaction = vec!["INSERT INTO asked (id) VALUES ($1)".to_owned()];
        pool.requests_per_second = 20;
        let mut stage = Stage::set(scenario, Some(major())).await.unwrap();
        stage.act(&start("payment-api")).await.unwrap();
        let superuser = stage.server().superuser().await.unwrap();
        let rows = async {
            loop {
                let sql = "SELECT id FROM asked ORDER BY at LIMIT 1";
                if let Some(row) = superuser.query_opt(sql, &[]).await.unwrap() {
                    return row.get::<_, i64>(0);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        first_rows.push(tokio::time::timeout(DEADLINE, rows).await.unwrap());
    }
    assert_eq!(first_rows[0], first_rows[1]);
}

#[tokio::test]
async fn a_daemon_that_ends_at_once_ends_the_drill_with_its_last_words() {
    let options = RunOptions::new("migration-042").unwrap();
    let options = RunOptions { program: "/bin/sh".into(), major: Some(major()), ..options };
    let mut shown = Vec::new();
    let error = run(&options, &mut shown).await.unwrap_err().to_string();
    // What a shell says of a script called `run`.
    assert!(error.contains("/bin/sh run ended") && error.contains("last words"), "{error}");
    assert!(String::from_utf8(shown).unwrap().starts_with("drill migration-042: "));
}

/// A server of twenty slots that a crowd fills and leaves: over in fifteen seconds.
const CROWD: &str = r#"
name = "crowd"
summary = "a crowd fills the server"
limit = "100s"
seed = 1
[server]
max_connections = 20
superuser_reserved_connections = 3
[target]
name = "db"
role = "plimsoll"
[setup]
statements = ["CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor", "CREATE ROLE app LOGIN"]
[[pools]]
application = "crowd"
role = "app"
floor = 16
ceiling = 16
requests_per_second = 1
idle_timeout = "1m"
rows = 10
transaction = ["SELECT $1"]
think_time = "1ms"
[[steps]]
do = { start = "crowd" }
until = "full"
within = "30s"
[[steps]]
until = { page = { event = "trigger", severity = "critical" } }
within = "30s"
[[steps]]
do = { close = "crowd" }
until = { page = { event = "resolve", severity = "critical" } }
within = "60s"
"#;

/// `plimsoll drill run`, and what it shows.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Of the throwaway server.
    port: u16,
    _file: tempfile::NamedTempFile,
}

impl Running {
    /// Of a scenario, up to the moment in which its server takes logins.
    async fn start(scenario: &str, flags: &[&str]) -> Self {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(scenario.as_bytes()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["drill", "run"])
            .arg(file.path())
            .args(["--major", &major().to_string()])
            .args(flags)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { child, lines, port: 0, _file: file };
        let line = running.until("on port ").await;
        let port = line.split("on port ").nth(1).unwrap().split(',').next().unwrap();
        running.port = port.parse().unwrap();
        running
    }

    /// The next line that contains this.
    async fn until(&mut self, part: &str) -> String {
        let found = async {
            loop {
                match self.lines.next_line().await.unwrap() {
                    Some(line) if line.contains(part) => return line,
                    Some(_) => {}
                    None => panic!("it ended without showing {part}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no {part}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.expect("it runs"), signal).unwrap();
    }

    /// The rest of what it shows, and its exit code once nothing listens on its port any more.
    async fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        let ending = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                rest.push_str(&line);
                rest.push('\n');
            }
            let status = self.child.wait().await.unwrap();
            while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            status.code()
        };
        let code = tokio::time::timeout(DEADLINE, ending).await.expect("the drill to end");
        (rest, code)
    }
}

#[tokio::test]
async fn a_drill_runs_to_its_end_and_goes_on_if_it_is_asked_to() {
    let mut drill = Running::start(CROWD, &["--keep"]).await;
    drill.until("server full: 17 of 17").await;
    drill.until("What was expected").await;
    let url = drill.until("/metrics").await;
    let daemon = url.trim().trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    assert!(TcpStream::connect(&daemon).is_ok(), "{daemon}");
    drill.signal(Signal::INT);
    let (_, code) = drill.end().await;
    assert_eq!(code, Some(0));
    assert!(TcpStream::connect(&daemon).is_err(), "the daemon outlived its drill");
}

#[tokio::test]
async fn a_drill_fails_when_a_page_does_not_come() {
    let never = CROWD.replace(
        "event = \"trigger\", severity = \"critical\" } }\nwithin = \"30s\"",
        "event = \"resolve\", severity = \"warning\" } }\nwithin = \"1s\"",
    );
    assert_ne!(never, CROWD);
    let (shown, code) = Running::start(&never, &[]).await.end().await;
    assert_eq!(code, Some(1));
    assert!(shown.contains("NOT MET  a page: resolve, warning"), "{shown}");
    assert!(!shown.contains("crowd closed"), "it went on after a step that failed");
}

#[tokio::test]
async fn a_drill_that_is_cut_short_leaves_nothing() {
    for (signal, code) in [(Signal::INT, Some(1)), (Signal::TERM, Some(1)), (Signal::KILL, None)] {
        let mut drill = Running::start(CROWD, &[]).await;
        drill.until(" of 17 ").await;
        drill.signal(signal);
        let (shown, ended) = drill.end().await;
        assert_eq!(ended, code, "{signal:?}: {shown}");
    }
}
