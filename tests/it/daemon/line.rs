//! The whole line: from a slot that is taken to a page that is read, and back.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fills_pages_once_names_the_holder_and_resolves() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    let quiet = daemon.until("a first reading", |t| t["severity"] == "ok").await;
    assert_eq!(quiet["slots"]["usable"], 17);
    let used = quiet["slots"]["used"].as_u64().unwrap();

    // Our own kept connection and the superuser's that made the roles may still be there.
    let free = usize::try_from(quiet["slots"]["free"].as_i64().unwrap()).unwrap();
    let sessions = server.fill("app", "payment-api", free).await.unwrap();
    let page = next(&receiver, "trigger").await;
    assert_eq!(page["version"], "1");
    let incident = &page["incident"];
    assert_eq!(incident["dedup_key"], "plimsoll/test/db");
    assert_eq!(incident["state"], "open");
    let full = daemon.until("a full server", |t| t["slots"]["free"] == 0).await;
    assert_eq!(full["severity"], "critical");
    assert_eq!(full["slots"]["used"], used + u64::try_from(free).unwrap());
    let holder =
        full["holders"].as_array().unwrap().iter().max_by_key(|h| h["connections"].as_u64());
    assert_eq!(holder.unwrap()["application"], "payment-api");
    assert_eq!(daemon.metric("plimsoll_slots_free", &[("target", "db")]), Some(0.0));

    drop(sessions);
    let resolve = next(&receiver, "resolve").await;
    assert_eq!(resolve["incident"]["id"], incident["id"]);
    assert_eq!(resolve["incident"]["state"], "resolved");
    daemon.until("a quiet server", |t| t["severity"] == "ok" && t["incident"].is_null()).await;
    let record = daemon.json(&format!("/api/v1/incidents/{}", incident["id"].as_str().unwrap()));
    assert_eq!(record["state"], "resolved");

    let kinds: Vec<_> = events(&receiver).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "trigger").count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|k| *k == "resolve").count(), 1, "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("resolve"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_enough() {
    let server = small_server().await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = plimsoll();
    command.args(["run", "--listen", "127.0.0.1:0", "--postgres"]);
    command.arg(server.url("plimsoll", "postgres")).env("XDG_STATE_HOME", folder.path());
    let daemon = Daemon::start(command);
    let target = until("a reading", || {
        let all = daemon.json("/api/v1/targets");
        let first = all.as_array().or_else(|| all["targets"].as_array())?.first()?.clone();
        (first["severity"] == "ok").then_some(first)
    })
    .await;
    assert_eq!(target["name"], "127.0.0.1");
    assert!(folder.path().join("plimsoll/state.db").exists());
    assert_eq!(daemon.get("/readyz").0, 200);
    assert_eq!(daemon.get("/healthz").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_and_cut_off_is_an_alert_and_not_an_absence() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    // Only the refusal itself may page here.
    let rules = "rules.slots = { enabled = false }\n";
    let home = Home::new(&format!("{rules}{}", settings(&server, &receiver, "")));
    let daemon = home.start();
    let quiet = daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let superuser = server.superuser().await.unwrap();
    let free = usize::try_from(quiet["slots"]["free"].as_i64().unwrap()).unwrap();
    // The superuser stays: one slot less is free, so the fill stops one short and the cut slot is
    // taken at once.
    let mut sessions = server.fill("app", "payment-api", free.saturating_sub(1)).await.unwrap();
    daemon.until("a full server", |t| t["slots"]["free"] == 0).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'plimsoll'";
    // Whoever is quicker takes the slot; when it was not us, Plimsoll came back in, and again.
    let refused = loop {
        superuser.batch_execute(cut).await.unwrap();
        if let Ok(session) = server.connect("app", "postgres").await {
            sessions.push(session);
            break daemon.until("a refusal", |t| t["sources"][0]["state"] == "refused").await;
        }
    };
    assert_eq!(refused["slots"], serde_json::Value::Null, "unknown, and not zero");
    assert!(daemon.metric("plimsoll_slots_used", &[("target", "db")]).is_none());
    next(&receiver, "trigger").await;
    let told = daemon
        .until("an alert of the refusal", |t| {
            let alerts = t["alerts"].as_array().unwrap();
            alerts.iter().any(|a| a["rule"] == "logins_refused" && a["state"] == "firing")
        })
        .await;
    let summary = told["incident"]["summary"].as_str().unwrap();
    assert!(summary.contains("logins are refused"), "{summary}");
    assert!(summary.contains("payment-api held 15"), "{summary}");

    drop(sessions);
    drop(superuser);
    daemon.until("a reading again", |t| t["sources"][0]["state"] == "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_state_folder_ends_a_page_of_an_earlier_life() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::pagerduty()).await.unwrap();
    let home = Home::new(&pagerduty_settings(&server, &receiver, ""));
    let daemon = home.start();
    let received = tokio::time::timeout(DEADLINE, receiver.next()).await.expect("a resolve");
    let body = received.json();
    assert_eq!(
        (&body["event_action"], &body["dedup_key"]),
        (&"resolve".into(), &"plimsoll/test/db".into())
    );
    // The same folder again: it is settled.
    daemon.end();
    let daemon = home.start();
    let readings =
        || daemon.metric("plimsoll_readings_total", &[("target", "db"), ("outcome", "ok")]);
    until("eight readings", || readings().filter(|n| 8.0 <= *n)).await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rise_to_critical_pages_again_though_the_warning_was_acknowledged() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::pagerduty()).await.unwrap();
    let home = Home::new(&pagerduty_settings(&server, &receiver, "min_severity = \"warning\""));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;

    // 15 of 17 are 88 %.
    let used = daemon.target()["slots"]["used"].as_u64().unwrap();
    let some =
        server.fill("app", "payment-api", usize::try_from(15 - used).unwrap()).await.unwrap();
    let pages = until("a page", || Some(receiver.pages()).filter(|p| p.len() == 1)).await;
    assert_eq!(pages[0].severity, "warning");
    receiver.acknowledge("plimsoll/test/db");
    let more = server.fill("app", "payment-api", 1).await.unwrap();
    let pages = until("a second page", || Some(receiver.pages()).filter(|p| p.len() == 2)).await;
    assert_eq!(pages[1].severity, "critical");
    assert_eq!(pages[1].key, pages[0].key);
    drop((some, more));
    until("no problem", || receiver.problem("plimsoll/test/db").is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receiver_refuses_for_good_is_parked_and_shown() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::with_body(404, "no such hook")).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let _sessions = server.fill("app", "payment-api", 15).await.unwrap();
    let open = daemon.until("an incident", |t| !t["incident"].is_null()).await;
    let path = format!("/api/v1/incidents/{}", open["incident"]["id"].as_str().unwrap());
    let parked = until("a parked delivery", || {
        let deliveries = daemon.json(&path)["deliveries"].as_array().cloned()?;
        deliveries.into_iter().find(|delivery| delivery["state"] == "parked")
    })
    .await;
    assert_eq!(parked["receiver"], "archive");
    assert_eq!(parked["event"], "trigger");
    assert!(parked["error"].as_str().unwrap().contains("404"), "{parked}");
    assert!(daemon.get("/").1.contains("404"), "the page shows it too");
}

/// Settings for one target and PagerDuty, of rules whose longest patience is some seconds.
fn pagerduty_settings(server: &Server, receiver: &Receiver, more: &str) -> String {
    format!(
        r#"
instance = "test"
[server]
listen = "127.0.0.1:0"
{AT_ONCE}
starting = "2s"
[rules.role_limit]
enabled = false
[rules.database_limit]
enabled = false
[[targets]]
name = "db"
postgres = "{}"
[[receivers]]
name = "on-call"
type = "pagerduty"
base_url = "{}"
routing_key = "0123456789abcdef0123456789abcdef"
{more}
"#,
        server.url("plimsoll", "postgres"),
        receiver.url().trim_end_matches('/')
    )
}
