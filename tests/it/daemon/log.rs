//! The server's log in the daemon: what everyone may see of it, of a real server's lines.

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::Session;
use serde_json::Value;

use super::*;
use crate::postgres::execute;

/// A server that writes a log, and that log as a source.
async fn logged() -> (Server, String) {
    let settings = [
        ("logging_collector", "on"),
        ("log_destination", "csvlog"),
        ("log_directory", "log"),
        ("log_filename", "postgresql.log"),
        ("deadlock_timeout", "100ms"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { max_connections: 20, settings, ..Options::default() };
    let script = "CREATE ROLE app LOGIN; CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor;
        CREATE TABLE pay (id int4 PRIMARY KEY, card text); INSERT INTO pay VALUES (1), (2);
        GRANT ALL ON pay TO app";
    let server = crate::major::start(options, script).await;
    let path = server.data_dir().join("log/postgresql.csv");
    let source = format!("[targets.log]\npath = \"{}\"\n", path.display());
    (server, source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_shows_who_and_what_without_literals() {
    let (server, source) = logged().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&format!("{}{source}", settings(&server, &receiver, "")));
    let daemon = home.start();
    daemon.until("the log", |target| target["log"]["format"] == "csvlog").await;

    let mut login = server.login("app", "postgres");
    login.application_name("web");
    let one = Session::open(&login).await.unwrap();
    let two = Session::open(&login).await.unwrap();
    execute(&one, "BEGIN; UPDATE pay SET card = 'canary' WHERE id = 1").await;
    execute(&two, "BEGIN; UPDATE pay SET card = 'canary' WHERE id = 2").await;
    let (first, second) = tokio::join!(
        one.batch_execute("UPDATE pay SET card = 'canary' WHERE id = 2"),
        two.batch_execute("UPDATE pay SET card = 'canary' WHERE id = 1"),
    );
    assert!(first.is_ok() != second.is_ok(), "one of the two was the victim");

    let has_one = |target: &Value| !target["log"]["deadlocks"][0].is_null();
    let target = daemon.until("the deadlock", has_one).await;
    let log = &target["log"];
    let deadlock = &log["deadlocks"][0];
    let who = ["role", "database", "application"].map(|key| deadlock[key].as_str().unwrap());
    assert_eq!(who, ["app", "postgres", "web"], "{log:#}");
    let parties = deadlock["parties"].as_array().unwrap();
    assert_eq!(parties.len(), 2, "{log:#}");
    for party in parties {
        assert_eq!(party["statement"], "UPDATE pay SET card = ? WHERE id = ?", "{log:#}");
    }
    let lines = log["lines"].as_array().unwrap();
    let is_it = |line: &&Value| line["kind"] == "deadlock" && line["role"] == "app";
    assert_eq!(lines.iter().find(is_it).unwrap()["count"], 1, "{log:#}");
    assert!(!target.to_string().contains("canary"), "{log:#}");
    let of = |kind| [("target", "db"), ("kind", kind), ("database", "postgres")];
    assert_eq!(daemon.metric("plimsoll_log_lines_total", &of("deadlock")), Some(1.0));
    assert_eq!(daemon.metric("plimsoll_log_lines_total", &of("error")), Some(1.0));
    let skipped = daemon.metric("plimsoll_log_skipped_bytes_total", &[("target", "db")]);
    assert_eq!(skipped, Some(0.0));
    assert!(receiver.received().is_empty(), "nobody is paged for one");
}
