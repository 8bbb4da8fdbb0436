//! A secret cannot be printed: canaries in every place that takes one, every failure provoked, and
//! everything searched that leaves the program.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_found_in_logs_metrics_api_store_or_messages() {
    let server = small_server().await;
    // Whoever asks for `nobody` is asked for a password, and none of those below is the right one.
    let superuser = server.superuser().await.unwrap();
    superuser.batch_execute("CREATE ROLE nobody LOGIN PASSWORD 'another'").await.unwrap();
    let hba = server.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    let rule = "host all nobody 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(hba, format!("{rule}{rules}")).unwrap();
    crate::postgres::reload(&superuser).await;
    superuser.close().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    // It says back what it was sent, as servers do when they refuse.
    let echo = Behaviour::with_body(400, "no hook at /canary-path?token=canary-query");
    let refusing = Receiver::start(echo).await.unwrap();
    let signing = "whsec_Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LWNhbmFyeQ==";
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let settings = format!(
        r#"
instance = "test"
[server]
listen = "127.0.0.1:0"
{AT_ONCE}
[[targets]]
name = "db"
postgres = "{}"
[[targets.probes]]
name = "wrong-probe"
url = "postgresql://nobody:canary-password@127.0.0.1:{}/postgres"
interval = "1s"
[[targets]]
name = "wrong-password"
postgres = "postgresql://nobody:canary-password@127.0.0.1:{}/postgres"
[[targets]]
name = "nobody-there"
postgres = "postgresql://nobody:canary-password@127.0.0.1:1/postgres"
[[targets]]
name = "wrong-command"
postgres = "host=127.0.0.1 port={} user=nobody"
password_command = ["/bin/sh", "-c", "echo canary-printed; echo not canary-printed >&2; exit 1"]
[[targets]]
name = "wrong-token"
postgres = "host=127.0.0.1 port={} user=nobody"
password_command = ["echo", "canary-printed"]
[[targets]]
name = "wrong-service"
postgres = "service=s host=127.0.0.1 port={} user=nobody"
[[targets]]
name = "wrong-variable"
postgres = "host=127.0.0.1 port={} user=nobody"
[[targets]]
name = "wrong-pgpass"
postgres = "host=127.0.0.1 port={} user=nobody password=''"
[[receivers]]
name = "archive"
type = "webhook"
url = "{}?token=canary-token"
signing_secret_file = "{}"
[[receivers]]
name = "refuses"
type = "webhook"
url = "http://{}/canary-path?token=canary-query"
[[receivers]]
name = "gone"
type = "webhook"
url = "http://127.0.0.1:1/canary-path"
[[receivers]]
name = "on-call"
type = "pagerduty"
routing_key_file = "{}"
base_url = "http://127.0.0.1:1"
"#,
        server.url("plimsoll", "postgres").replace("plimsoll@", "plimsoll:canary-password@"),
        server.port(),
        server.port(),
        server.port(),
        server.port(),
        server.port(),
        server.port(),
        server.port(),
        receiver.url(),
        file("signing", signing),
        refusing.address(),
        file("routing", "canaryroutingkeycanaryroutingkey"),
    );
    let home = Home::new(&settings);
    let mut command = home.command();
    command.env("RUST_LOG", "trace").env("HOME", files.path());
    command.env("PGPASSWORD", "canary-variable");
    file(".pg_service.conf", "[s]\npassword=canary-service\n");
    let passfile = PathBuf::from(file(".pgpass", "*:*:*:*:canary-pgpass\n"));
    std::fs::set_permissions(passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::start(command);
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    receiver.script([Behaviour::status(500)]);
    let sessions = server.fill("app", "payment-api", 15).await.unwrap();
    next(&receiver, "trigger").await;
    // Failures of every kind have been shown by now, or are when the last receiver was tried.
    until("a failed attempt at each", || {
        let failed = |receiver: &str, outcome: &str| {
            let labels = [("receiver", receiver), ("outcome", outcome)];
            daemon.metric("plimsoll_deliveries_total", &labels).is_some_and(|n| 0.0 < n)
        };
        let all = ["gone", "on-call"].iter().all(|name| failed(name, "retried"));
        (all && failed("refuses", "parked")).then_some(())
    })
    .await;
    drop(sessions);
    next(&receiver, "resolve").await;
    for way in ["password", "command", "token", "service", "variable", "pgpass"] {
        let path = format!("/api/v1/targets/wrong-{way}");
        let expected = match way {
            "command" => "it repeats what it printed",
            _ => "password authentication failed",
        };
        until(&path, || daemon.get(&path).1.contains(expected).then_some(())).await;
    }
    until("a refused probe", || daemon.log().contains("wrong-probe").then_some(())).await;
    let refused = "a login as an application makes it failed";
    until(refused, || daemon.log().contains(refused).then_some(())).await;

    let mut seen = String::new();
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/v1/targets",
        "/api/v1/targets/db",
        "/api/v1/targets/wrong-password",
        "/api/v1/targets/nobody-there",
        "/api/v1/targets/wrong-command",
        "/api/v1/targets/wrong-token",
        "/api/v1/targets/wrong-service",
        "/api/v1/targets/wrong-variable",
        "/api/v1/targets/wrong-pgpass",
        "/api/v1/incidents",
    ] {
        seen.push_str(&daemon.get(path).1);
    }
    for message in receiver.received() {
        seen.push_str(&message.body);
    }
    let (_, log) = daemon.end();
    seen.push_str(&log);
    let stored = contents(&home.state());
    seen.push_str(&String::from_utf8_lossy(&stored));
    assert!(seen.contains("wrong-password"), "what was searched is what was meant");
    for canary in [
        "canary-password",
        "canary-printed",
        "canary-service",
        "canary-variable",
        "canary-pgpass",
        "canary-token",
        "canary-query",
        "canary-path",
        signing,
        "canaryroutingkey",
    ] {
        if let Some(at) = seen.find(canary) {
            let around: String = seen[at.saturating_sub(200)..].chars().take(400).collect();
            panic!("{canary} was found: …{around}…");
        }
    }
}
