//! A server that refuses everybody, us included, and a page that names its holders all the same.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_to_the_last_slot_and_cut_off_is_a_page_that_names_the_holders() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let fallback = "fallback = \"replication\"\n[[receivers]]";
    let settings = settings(&server, &receiver, AT_ONCE).replace("[[receivers]]", fallback);
    let superuser = server.superuser().await.unwrap();
    superuser.batch_execute("ALTER ROLE plimsoll REPLICATION").await.unwrap();
    let clients = server.fill("app", "payment-api", 14).await.unwrap();
    let mut admins = Vec::new();
    let filling = async {
        while admins.len() < 5 {
            admins.extend(server.connect("postgres", "postgres").await);
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.expect("the last slot");
    assert!(server.superuser().await.is_err(), "a slot is left");

    // It comes into a server in which there is no room, and has never read it before.
    let home = Home::new(&settings);
    let daemon = home.start();
    let page = next(&receiver, "trigger").await;
    let summary = page["incident"]["summary"].as_str().unwrap();
    assert!(summary.contains("payment-api"), "{summary}");
    let is_read = |t: &serde_json::Value| t["sources"][0]["fallback"] == "all_slots_taken";
    let target = daemon.until("a reading over a walsender", is_read).await;
    assert_eq!(target["sources"][0]["state"], "ok");
    assert_eq!((&target["slots"]["used"], &target["slots"]["max"]), (&20.into(), &20.into()));
    assert_eq!(target["holders"][0]["application"], "payment-api");
    let labels = [("target", "db"), ("source", "postgres")];
    assert_eq!(daemon.metric("plimsoll_source_fallback", &labels), Some(1.0));
    assert_eq!(daemon.metric("plimsoll_source_up", &labels), Some(1.0));
    let (_, html) = daemon.get("/");
    assert!(html.contains("ordinary logins are refused (all_slots_taken)"), "{html}");
    let fires = |t: &serde_json::Value, rule: &str| {
        let alerts = t["alerts"].as_array().unwrap();
        alerts.iter().any(|a| a["rule"] == rule && a["state"] == "firing")
    };
    daemon.until("both alerts", |t| fires(t, "slots_full") && fires(t, "logins_refused")).await;

    // That connection is cut, too, and the server is read on.
    let walsender = "SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'walsender'";
    let before: i32 = superuser.query_one(walsender, &[]).await.unwrap().get(0);
    superuser.execute("SELECT pg_terminate_backend($1)", &[&before]).await.unwrap();
    until("another walsender", || {
        daemon.log().matches("connected as a walsender").nth(1).map(drop)
    })
    .await;
    let target = daemon.until("a reading over a walsender", is_read).await;
    assert_eq!(target["holders"][0]["application"], "payment-api");

    drop(admins);
    drop(superuser);
    drop(clients);
    let ordinary = |t: &serde_json::Value| {
        t["sources"][0]["state"] == "ok" && t["sources"][0]["fallback"].is_null()
    };
    daemon.until("an ordinary reading", ordinary).await;
    assert_eq!(daemon.metric("plimsoll_source_fallback", &labels), Some(0.0));
    let resolve = next(&receiver, "resolve").await;
    assert_eq!(resolve["incident"]["id"], page["incident"]["id"]);
}
