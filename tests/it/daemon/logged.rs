//! The server's log in the daemon: lines that a real server writes, counted, and told on the page.

use std::cell::Cell;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::Session;
use serde_json::Value;

use super::*;
use crate::postgres::execute;

/// In another order than anybody has it, and with signs that stand in names too.
const PREFIX: &str = "<%p> %q%d/%u (%a) %m: ";

/// What is told is what the log says: full slots and reached limits alone are no matter.
const THE_LOG_ALONE: &str = r#"
[rules.slots]
enabled = false
[rules.role_limit]
enabled = false
[rules.slots_full]
keep_firing_for = "0s"
[rules.logins_refused]
keep_firing_for = "0s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_told_from_the_log_that_a_server_writes_in_its_own_way() {
    let logs = [
        ("logging_collector", "on"),
        ("log_destination", "stderr"),
        ("log_directory", "log"),
        ("log_filename", "postgresql.log"),
        ("log_line_prefix", PREFIX),
    ];
    let logs = logs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { max_connections: 20, settings: logs, ..Options::default() };
    let roles = "CREATE ROLE app LOGIN; CREATE ROLE payment LOGIN CONNECTION LIMIT 0; \
                 CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor";
    let server = crate::major::start(options, roles).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let path = server.data_dir().join("log").join("postgresql.log");
    let log = format!("[targets.log]\npath = \"{}\"\n", path.display());
    let home = Home::new(&format!("{}{log}", settings(&server, &receiver, THE_LOG_ALONE)));
    let daemon = home.start();
    let is_followed = |t: &Value| {
        let sources = t["sources"].as_array().unwrap();
        sources.iter().any(|one| one["source"] == "log" && one["state"] == "ok")
    };
    daemon.until("its log", is_followed).await;
    let counted = |kind: &str| daemon.metric("plimsoll_log_lines_total", &[("kind", kind)]);
    assert_eq!(counted("refused").or(Some(0.0)), Some(0.0));

    assert!(server.connect("payment", "postgres").await.is_err(), "it was let in");
    let page = next(&receiver, "trigger").await;
    let incident = &page["incident"];
    let [alert] = incident["alerts"].as_array().unwrap().as_slice() else { panic!("{page:#}") };
    assert_eq!(
        (&alert["rule"], &alert["subject"]),
        (&"logins_refused".into(), &"role_limit".into())
    );
    let summary = incident["summary"].as_str().unwrap();
    assert!(summary.contains(", seen in the log for payment@postgres"), "{summary}");
    assert_eq!(incident["bottleneck"]["at"], "role_or_database_limit", "{page:#}");
    assert_eq!(counted("refused"), Some(1.0));
    next(&receiver, "resolve").await;

    // One of the seventeen slots is the daemon's.
    let crowd = server.fill("app", "crowd", 16).await.unwrap();
    let (refused, is_told) = (Cell::new(1), Cell::new(false));
    let login = server.login("app", "postgres");
    let knocking = async {
        while !is_told.get() {
            assert!(Session::open(&login).await.is_err(), "it was let in");
            refused.set(refused.get() + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let looking = async {
        let told = |t: &Value, rule: &str| {
            let alerts = t["alerts"].as_array().unwrap();
            alerts.iter().any(|alert| {
                let observed = alert["observed"].as_str().unwrap();
                alert["rule"] == rule
                    && alert["state"] == "firing"
                    && observed.ends_with(", seen in the log for app@postgres")
            })
        };
        let both = |t: &Value| told(t, "slots_full") && told(t, "logins_refused");
        let seen = daemon.until("both alerts from the log", both).await;
        is_told.set(true);
        seen
    };
    let ((), seen) = tokio::join!(knocking, looking);
    assert_eq!(seen["bottleneck"]["at"], "server_slots", "{seen:#}");
    // Each line once, and none that was not understood.
    let all = f64::from(refused.get());
    until("every line", || counted("refused").filter(|count| *count >= all)).await;
    assert_eq!(counted("refused"), Some(all));
    assert_eq!(counted("unclear").or(Some(0.0)), Some(0.0));
    drop(crowd);
    next(&receiver, "resolve").await;
}

/// A server that writes CSV, and that log as a source.
async fn with_csvlog() -> (Server, String) {
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
    let (server, source) = with_csvlog().await;
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
