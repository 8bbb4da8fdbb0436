//! The server's log in the daemon: lines that a real server writes, counted, and told on the page.

use std::cell::Cell;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::Session;
use serde_json::Value;

use super::*;

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
