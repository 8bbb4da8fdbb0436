//! The daemon end to end: the real binary, a real Postgres, a real receiver, real signals.

mod bad_input;
mod blind;
mod clients;
mod crowd;
mod disk;
mod ending;
mod failover;
mod fallback;
mod kills;
pub(crate) mod launch;
mod limits;
mod line;
mod logged;
mod probes;
mod reload;
mod secrets;
mod sources;
mod surroundings;

use std::path::Path;
use std::time::Duration;

use plimsoll::drill::receiver::{Received, Receiver};
use plimsoll::drill::server::{Options, Server};
use rustix::process::Signal;

pub(crate) use launch::{DEADLINE, Daemon, Home, plimsoll, until};

/// Rules without patience: what the rules' patience does is played in the timelines of `core`.
pub(crate) const AT_ONCE: &str = r#"
[rules.slots]
warning  = { above = 0.80, for = "0s", clear_below = 0.70 }
critical = { above = 0.90, for = "0s", clear_below = 0.80 }
[rules.slots_full]
keep_firing_for = "0s"
[rules.logins_refused]
keep_firing_for = "0s"
[rules.source_unreadable]
refused_or_stopped = "2s"
unreachable_or_slow = "4s"
"#;

/// A server of which 17 slots are usable, so that tests fill it quickly.
pub(crate) async fn small_server() -> Server {
    let options = Options { max_connections: 20, ..Options::default() };
    let roles = "CREATE ROLE app LOGIN; CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor";
    crate::major::start(options, roles).await
}

/// Settings for one target and one webhook receiver.
pub(crate) fn settings(server: &Server, receiver: &Receiver, more: &str) -> String {
    format!(
        r#"
instance = "test"
[server]
listen = "127.0.0.1:0"
{more}
[[targets]]
name = "db"
postgres = "{}"
[[receivers]]
name = "archive"
type = "webhook"
url = "{}"
min_severity = "warning"
"#,
        server.url("plimsoll", "postgres"),
        receiver.url()
    )
}

/// The next message of this kind; others are passed over.
pub(crate) async fn next(receiver: &Receiver, event: &str) -> serde_json::Value {
    let waiting = async {
        loop {
            let body = receiver.next().await.json();
            if body["event"] == event {
                return body;
            }
        }
    };
    let came = tokio::time::timeout(DEADLINE, waiting).await;
    came.unwrap_or_else(|_| panic!("waiting for a {event}; came: {:?}", events(receiver)))
}

/// What came, as kind, incident and id of the notification.
pub(crate) fn events(receiver: &Receiver) -> Vec<(String, String, String)> {
    receiver.received().iter().map(event).collect()
}

pub(crate) fn event(received: &Received) -> (String, String, String) {
    let body = received.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&body["event"]), text(&body["incident"]["id"]), received.header("webhook-id").to_owned())
}

/// Everything that lies in a folder, as one text.
pub(crate) fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            all.extend(std::fs::read(path).unwrap());
        }
    }
    all
}
