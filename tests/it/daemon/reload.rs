//! SIGHUP: checks first, swaps second, keeps the old settings on error.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_takes_new_rules_and_keeps_the_connection() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let quiet = "[rules.slots]\nenabled = false\n[rules.slots_full]\nenabled = false\n";
    let home = Home::new(&settings(&server, &receiver, quiet));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let sessions = server.fill("app", "payment-api", 15).await.unwrap();
    daemon.until("a busy server", |t| t["slots"]["used"].as_u64() >= Some(16)).await;
    let superuser = server.superuser().await.unwrap();
    let ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    let before: i32 = superuser.query_one(ours, &[]).await.unwrap().get(0);
    assert_eq!(daemon.target()["alerts"].as_array().unwrap().len(), 0);

    home.write(&settings(&server, &receiver, AT_ONCE));
    daemon.signal(Signal::HUP);
    next(&receiver, "trigger").await;
    let after: i32 = superuser.query_one(ours, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "the kept connection");

    // A mistake changes nothing, and is said.
    home.write("[[targets]]\nname = 1\n");
    daemon.signal(Signal::HUP);
    until("a failed reload", || {
        daemon.metric("plimsoll_reload_successful", &[]).filter(|ok| *ok < 0.5)
    })
    .await;
    // The log has a thread of its own.
    until("the mistake in the log", || daemon.log().contains("plimsoll.toml:2:8").then_some(()))
        .await;
    assert_eq!(daemon.target()["severity"], "critical");

    // A target that is not named any more ends its incident.
    let other = settings(&server, &receiver, AT_ONCE).replace("name = \"db\"", "name = \"other\"");
    home.write(&other);
    daemon.signal(Signal::HUP);
    let resolve = next(&receiver, "resolve").await;
    assert_eq!(resolve["incident"]["target"], "db");
    assert_eq!(daemon.get("/api/v1/targets/db").0, 404);
    drop(sessions);
}
