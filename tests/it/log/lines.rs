//! What real servers write, of each major and in each format: provoked, read, and counted as what
//! it is.

use std::time::Duration;

use plimsoll::drill::server::{Mode, Options, Server, Session, Signal};
use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::log::{Format, LineKind, Lines};
use tokio::net::TcpStream;
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use super::{DEADLINE, Follow, said, source};
use crate::daemon::launch::{Home, plimsoll, until};
use crate::major::{self, major};
use crate::postgres::bare::Bare;
use crate::postgres::{execute, until_true};

/// No SQLSTATE and no title in it: what most servers have, and the least that can be told from.
const PREFIX: &str = "%m [%p] %q%u@%d/%a ";

/// A server whose every entry goes into three files.
struct Logged {
    server: Server,
    superuser: Session,
    follows: Vec<(Format, Follow)>,
}

impl Logged {
    async fn start(verbosity: &str) -> Self {
        let formats = formats();
        let words: Vec<&str> = formats.iter().map(|(format, _)| format.word()).collect();
        let settings = [
            ("logging_collector", "on"),
            ("log_destination", &words.join(",")),
            ("log_directory", "log"),
            ("log_filename", "postgresql.log"),
            ("log_line_prefix", PREFIX),
            ("log_error_verbosity", verbosity),
            ("log_lock_waits", "on"),
            ("log_min_duration_statement", "100ms"),
            ("deadlock_timeout", "100ms"),
            // As few children as there can be: those that log in are soon too many.
            ("autovacuum_max_workers", "1"),
            ("max_worker_processes", "0"),
            ("max_wal_senders", "1"),
        ];
        let mut settings: Vec<_> =
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if 16 <= major() {
            settings.push(("reserved_connections".to_owned(), "1".to_owned()));
        }
        let options = Options { max_connections: 12, settings, ..Options::default() };
        let script = "CREATE ROLE app LOGIN; CREATE ROLE limited LOGIN CONNECTION LIMIT 1;
            CREATE ROLE replicator LOGIN REPLICATION; CREATE DATABASE shop;
            CREATE DATABASE small CONNECTION LIMIT 1;
            CREATE TABLE pay (id int4 PRIMARY KEY, card text); INSERT INTO pay VALUES (1), (2);
            GRANT ALL ON pay TO app";
        let server = major::start(options, "SELECT").await;
        let superuser = server.superuser().await.unwrap();
        // CREATE DATABASE is alone in its transaction.
        for statement in script.split(';') {
            execute(&superuser, statement).await;
        }
        let mut follows = Vec::new();
        for (format, ending) in formats {
            let path = server.data_dir().join("log").join(format!("postgresql.{ending}"));
            let (_sender, told) = said(PREFIX, &words.join(","));
            let mut source = source(path);
            source.server = told;
            let follow = Follow::begun(source).await;
            assert!(matches!(follow.seen, Some(Ok(_))), "{:?}", follow.seen);
            follows.push((format, follow));
        }
        Self { server, superuser, follows }
    }

    /// Waits until each log has so many lines of a kind, and no other; gives what it says of them.
    async fn each(&mut self, kind: LineKind, count: u64) -> Vec<(Format, [String; 3])> {
        let mut about = Vec::new();
        for (format, follow) in &mut self.follows {
            follow.until_of(kind, count).await;
            let one = follow.lines.counts.iter().find(|one| one.kind == kind).unwrap();
            about.push((*format, [&one.role, &one.database, &one.application].map(Clone::clone)));
        }
        about
    }

    async fn each_is_about(&mut self, kind: LineKind, count: u64, who: [&str; 3]) {
        for (format, about) in self.each(kind, count).await {
            assert_eq!(about, who, "{kind:?} in {}", format.word());
        }
    }

    fn login(&self, role: &str, database: &str) -> Config {
        let mut login = self.server.login(role, database);
        login.application_name("web");
        login
    }

    async fn session(&self, role: &str, database: &str) -> Session {
        Session::open(&self.login(role, database)).await.unwrap()
    }

    /// Logins until one is refused with this text; those that got in.
    async fn fill(&self, role: &str, text: &str) -> Vec<Session> {
        let mut held = Vec::new();
        loop {
            match Session::open(&self.login(role, "postgres")).await {
                Ok(session) => held.push(session),
                Err(error) => {
                    let said = plimsoll::chain::chain(&error);
                    assert!(said.contains(text), "{said} has not {text}");
                    return held;
                }
            }
        }
    }
}

fn formats() -> Vec<(Format, &'static str)> {
    let mut all = vec![(Format::Stderr, "log"), (Format::Csvlog, "csv")];
    if 15 <= major() {
        all.push((Format::Jsonlog, "json"));
    }
    all
}

/// A login that does not get in.
async fn knock(login: &Config) {
    assert!(Session::open(login).await.is_err(), "it was let in");
}

#[tokio::test]
async fn refusals_are_told_apart_in_each_format() {
    let mut logged = Logged::start("default").await;
    let of = LineKind::Refused;

    // What makes the role quiet hides nothing of its refusals.
    let version = major().to_string();
    let setup = ["setup-sql", "--role", "limited", "--version", &version];
    let setup = plimsoll().args(setup).output().unwrap();
    let setup = String::from_utf8(setup.stdout).unwrap();
    assert!(setup.contains("log_statement"), "{setup}");
    execute(&logged.superuser, &setup).await;
    execute(&logged.superuser, "ALTER ROLE limited CONNECTION LIMIT 1").await;

    let _one = logged.session("limited", "postgres").await;
    knock(&logged.login("limited", "postgres")).await;
    logged.each_is_about(of(Refusal::RoleLimit), 1, ["limited", "postgres", ""]).await;

    let _small = logged.session("app", "small").await;
    knock(&logged.login("app", "small")).await;
    logged.each_is_about(of(Refusal::DatabaseLimit), 1, ["app", "small", ""]).await;

    let _standby =
        Bare::open(logged.server.port(), &[("user", "replicator"), ("replication", "true")]).await;
    let mut second =
        Bare::knock(logged.server.port(), &[("user", "replicator"), ("replication", "true")]).await;
    second.until(|answer| String::from_utf8_lossy(answer).contains("max_wal_senders")).await;
    logged.each(of(Refusal::WalSenders), 1).await;

    let mut held = logged.fill("app", "remaining connection slots are reserved").await;
    // From 16 on those for a role come before those for superusers.
    let ordinary =
        if major() < 16 { Refusal::ReservedForSuperusers } else { Refusal::ReservedForRole };
    logged.each_is_about(of(ordinary), 1, ["app", "postgres", ""]).await;
    if 16 <= major() {
        execute(&logged.superuser, "GRANT pg_use_reserved_connections TO app").await;
        held.extend(logged.fill("app", "SUPERUSER").await);
        let superusers = of(Refusal::ReservedForSuperusers);
        logged.each_is_about(superusers, 1, ["app", "postgres", ""]).await;
    }
    held.extend(logged.fill("postgres", "sorry, too many clients already").await);
    logged.each_is_about(of(Refusal::AllSlotsTaken), 1, ["postgres", "postgres", ""]).await;
    // Each was a refusal, and nothing else.
    for (format, follow) in &follow_all(&logged) {
        assert_eq!((follow.of(LineKind::LoginFailed), follow.unclear), (0, 0), "{format:?}");
    }
}

fn follow_all(logged: &Logged) -> Vec<(Format, Lines)> {
    logged.follows.iter().map(|(format, follow)| (*format, follow.lines.clone())).collect()
}

#[tokio::test]
async fn too_many_logins_under_way_are_told_from_too_many_sessions() {
    for verbosity in ["default", "verbose"] {
        let mut logged = Logged::start(verbosity).await;
        // Sockets on which nothing was said yet: each a child of the postmaster, none with a slot.
        let mut silent = Vec::new();
        let said = loop {
            silent.push(TcpStream::connect(("127.0.0.1", logged.server.port())).await.unwrap());
            assert!(silent.len() < 500, "no end of children");
            match Session::open(&logged.login("app", "postgres")).await {
                Ok(session) => session.close().await,
                Err(error) => break plimsoll::chain::chain(&error),
            }
        };
        assert!(said.contains("sorry, too many clients already"), "{said}");
        for (format, follow) in &mut logged.follows {
            // Its process has no title yet. A plain stderr log tells none, and the text is the
            // same.
            let is_told = *format != Format::Stderr || verbosity == "verbose";
            let reason = if is_told { Refusal::LoginsUnderWay } else { Refusal::AllSlotsTaken };
            follow.until_of(LineKind::Refused(reason), 1).await;
            let refusals =
                follow.lines.counts.iter().filter(|c| matches!(c.kind, LineKind::Refused(_)));
            assert_eq!(refusals.count(), 1, "{format:?} {:#?}", follow.lines);
        }
    }
}

#[tokio::test]
async fn logins_that_fail_are_abandoned_or_come_too_late_are_counted() {
    let mut logged = Logged::start("default").await;
    knock(&logged.login("app", "nowhere")).await;
    logged.each_is_about(LineKind::LoginFailed, 1, ["app", "nowhere", ""]).await;
    knock(&logged.login("nobody", "postgres")).await;
    execute(&logged.superuser, "REVOKE CONNECT ON DATABASE small FROM public").await;
    knock(&logged.login("app", "small")).await;
    let hba = "local all all trust\nhost all limited all reject\nhost all all all scram-sha-256\n";
    std::fs::write(logged.server.data_dir().join("pg_hba.conf"), hba).unwrap();
    execute(&logged.superuser, "SET password_encryption = 'scram-sha-256'").await;
    execute(&logged.superuser, "ALTER ROLE app PASSWORD 'right-canary'").await;
    execute(&logged.superuser, "ALTER SYSTEM SET authentication_timeout = '1s'").await;
    execute(&logged.superuser, "SELECT pg_reload_conf()").await;
    until_true(&logged.superuser, "SELECT current_setting('authentication_timeout') = '1s'").await;
    let mut wrong = logged.login("app", "postgres");
    wrong.password("wrong-canary");
    knock(&wrong).await;
    knock(&logged.login("limited", "postgres")).await;
    logged.each(LineKind::LoginFailed, 5).await;

    let mut silent =
        Bare::knock(logged.server.port(), &[("user", "app"), ("database", "postgres")]).await;
    // The server asks for a password, waits, and closes without a word.
    silent.until(|answer| String::from_utf8_lossy(answer).contains("SCRAM-SHA-256")).await;
    logged.each_is_about(LineKind::LoginAbandoned, 1, ["app", "postgres", ""]).await;

    // A smart shutdown waits for the superuser, and lets nobody else in.
    logged.server.signal_postmaster(Signal::TERM).unwrap();
    let mut login = Config::new();
    login.host_path(logged.server.socket_dir()).port(logged.server.port());
    login.user("postgres").dbname("postgres");
    let too_late = async { while Session::open(&login).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, too_late).await.unwrap();
    logged.each_is_about(LineKind::NotAccepting, 1, ["postgres", "postgres", ""]).await;
    for (format, lines) in follow_all(&logged) {
        assert_eq!((lines.of(LineKind::Error), lines.unclear), (0, 0), "{format:?}");
    }
}

async fn fails(session: &Session, statement: &str, code: &str) {
    let error = session.batch_execute(statement).await.unwrap_err();
    assert_eq!(error.code().map(SqlState::code), Some(code), "{statement}: {error}");
}

#[tokio::test]
async fn what_ends_and_delays_statements_is_counted_by_whom_it_is_about() {
    let mut logged = Logged::start("default").await;
    let who = ["app", "postgres", "web"];
    let (one, two) =
        (logged.session("app", "postgres").await, logged.session("app", "postgres").await);
    fails(&one, "SELECT 1 / 0", "22012").await;
    // A statement of several lines, with what looks like an entry in it.
    fails(&one, "SELECT 'x\nFATAL:  53300: sorry, too many clients already\n'::int4", "22P02")
        .await;
    fails(&one, "SET statement_timeout = '20ms'; SELECT pg_sleep(60)", "57014").await;
    execute(&one, "RESET statement_timeout").await;
    logged.each_is_about(LineKind::StatementTimeout, 1, who).await;

    execute(&two, "BEGIN; UPDATE pay SET card = 'canary 1' WHERE id = 1").await;
    fails(&one, "SET lock_timeout = '150ms'; UPDATE pay SET card = '' WHERE id = 1", "55P03").await;
    execute(&one, "RESET lock_timeout").await;
    logged.each_is_about(LineKind::LockTimeout, 1, who).await;
    logged.each_is_about(LineKind::LockWait, 1, who).await;
    execute(&two, "ROLLBACK").await;

    execute(&one, "SELECT pg_sleep(0.12), 'fast enough'").await;
    execute(&one, "SELECT pg_sleep(0.25)").await;
    // Over the extended protocol too.
    one.query("SELECT pg_sleep(0.25), $1::text", &[&"a"]).await.unwrap();
    logged.each_is_about(LineKind::SlowStatement, 2, who).await;

    // On 13, only this one of the two exists.
    let mut idle = logged.session("app", "postgres").await;
    execute(&idle, "SET idle_in_transaction_session_timeout = '20ms'; BEGIN").await;
    tokio::time::timeout(DEADLINE, idle.until_closed()).await.unwrap();
    let mut terminated = 1;
    if 14 <= major() {
        let mut idle = logged.session("app", "postgres").await;
        execute(&idle, "SET idle_session_timeout = '20ms'").await;
        tokio::time::timeout(DEADLINE, idle.until_closed()).await.unwrap();
        terminated += 1;
    }
    logged.each_is_about(LineKind::IdleTermination, terminated, who).await;
    if 17 <= major() {
        let mut long = logged.session("app", "postgres").await;
        execute(&long, "SET transaction_timeout = '20ms'; BEGIN").await;
        tokio::time::timeout(DEADLINE, long.until_closed()).await.unwrap();
        logged.each_is_about(LineKind::TransactionTimeout, 1, who).await;
    }
    logged.each_is_about(LineKind::Error, 4, who).await;
    for (format, lines) in follow_all(&logged) {
        assert_eq!(lines.unclear, 0, "{format:?}");
        assert!(lines.counts.iter().all(|c| !matches!(c.kind, LineKind::Refused(_))), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_deadlock_brings_both_statements_without_their_literals() {
    let mut logged = Logged::start("default").await;
    let (one, two) =
        (logged.session("app", "postgres").await, logged.session("app", "postgres").await);
    execute(&one, "BEGIN; UPDATE pay SET card = 'canary 1' WHERE id = 1").await;
    execute(&two, "BEGIN; UPDATE pay SET card = 'canary 2' WHERE id = 2").await;
    let pids = [one.backend_pid().await.unwrap(), two.backend_pid().await.unwrap()];
    let (first, second) = tokio::join!(
        one.batch_execute("UPDATE pay SET card = 'canary\n3'\n WHERE id = 2"),
        two.batch_execute("UPDATE pay /* canary */ SET card = $$canary$$ WHERE id = 1"),
    );
    assert!(first.is_ok() != second.is_ok(), "one of the two was the victim");
    logged.each_is_about(LineKind::Deadlock, 1, ["app", "postgres", "web"]).await;
    for (format, lines) in follow_all(&logged) {
        let deadlock = &lines.deadlocks[0];
        assert!(deadlock.pid.is_some_and(|pid| pids.contains(&pid)), "{format:?} {deadlock:?}");
        assert_eq!(deadlock.parties.len(), 2, "{format:?} {deadlock:?}");
        for party in &deadlock.parties {
            assert!(pids.contains(&party.pid), "{deadlock:?}");
            assert!(party.waits.contains("ShareLock on transaction "), "{deadlock:?}");
            assert_eq!(party.statement, "UPDATE pay SET card = ? WHERE id = ?", "{format:?}");
        }
        assert!(!format!("{lines:?}").contains("canary"), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_crash_and_the_recovery_from_it_are_counted() {
    let mut logged = Logged::start("default").await;
    let app = logged.session("app", "postgres").await;
    let pid = app.backend_pid().await.unwrap();
    logged.server.signal_backend(pid, Signal::KILL).unwrap();
    logged.each(LineKind::Crash, 1).await;
    logged.each(LineKind::Recovery, 1).await;
    // The postmaster lives, and so does its log.
    let again = async {
        while logged.server.superuser().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.unwrap();
    logged.server.restart(Mode::Immediate).await.unwrap();
    logged.each(LineKind::Recovery, 2).await;
    logged.each(LineKind::Crash, 1).await;
}

#[tokio::test]
async fn the_daemon_is_told_by_the_server_how_its_log_is_written() {
    let settings = [
        ("logging_collector", "on"),
        ("log_destination", "csvlog"),
        ("log_directory", "log"),
        ("log_filename", "postgresql.log"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { settings, ..Options::default() };
    let script = "CREATE ROLE watcher LOGIN IN ROLE pg_monitor";
    let server = major::start(options, script).await;
    // Where the server says that it writes elsewhere, and nothing after that.
    let path = server.data_dir().join("log").join("postgresql.log");
    let home = Home::new(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [[targets]]\nname = \"db\"\npostgres = \"{}\"\n[targets.log]\npath = \"{}\"\n",
        server.url("watcher", "postgres"),
        path.display(),
    ));
    let daemon = home.start();
    let said = || daemon.log().contains("the server writes csvlog").then_some(());
    until("what the server writes", said).await;
}
