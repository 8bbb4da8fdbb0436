//! Nothing lost, nothing twice: killed at fixed but arbitrary moments while a target fills and
//! empties.

use std::collections::BTreeMap;

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

/// So many kills in the suite; `PLIMSOLL_KILLS` asks for more.
const KILLS: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_incident_has_its_trigger_and_its_resolve_after_50_kills() {
    let kills = match std::env::var("PLIMSOLL_KILLS") {
        Ok(kills) => kills.parse().expect("PLIMSOLL_KILLS is a number"),
        Err(_) => KILLS,
    };
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let fast = format!("[poll]\ninterval = \"100ms\"\n{AT_ONCE}");
    let home = Home::new(&settings(&server, &receiver, &fast));
    let mut random = fastrand::Rng::with_seed(42);
    let mut sessions = Vec::new();
    let mut daemon = home.start();
    for kill in 0..kills {
        // Fill or empty, then let it live for a moment that falls anywhere in the line.
        if kill % 2 == 0 {
            sessions = server.fill("app", "payment-api", 15).await.unwrap();
        } else {
            sessions.clear();
        }
        let life = Duration::from_millis(random.u64(0..600));
        tokio::time::sleep(life).await;
        daemon.kill();
        daemon = home.start();
    }
    drop(sessions);
    daemon
        .until("the end of all trouble", |t| t["severity"] == "ok" && t["incident"].is_null())
        .await;
    let owed = || daemon.metric("plimsoll_outbox_notifications", &[("receiver", "archive")]);
    until("an empty outbox", || owed().filter(|owed| *owed == 0.0)).await;

    // What the store decided is what the receiver has.
    let all = daemon.json("/api/v1/incidents?limit=500");
    let recorded = all.as_array().or_else(|| all["incidents"].as_array()).unwrap().clone();
    assert!(recorded.len() >= 3, "only {} incidents came of {kills} kills", recorded.len());
    let mut by_incident: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (kind, incident, id) in events(&receiver) {
        by_incident.entry(incident).or_default().entry(kind).or_default().push(id);
    }
    for incident in &recorded {
        let id = incident["id"].as_str().unwrap();
        let heard = by_incident.get(id).unwrap_or_else(|| panic!("nothing of incident {id}"));
        for kind in ["trigger", "resolve"] {
            let mut ids = heard.get(kind).unwrap_or_else(|| panic!("no {kind} of {id}")).clone();
            // Sent again after a kill perhaps, but as the same notification.
            ids.dedup();
            assert_eq!(ids.len(), 1, "{kind} of {id} came as {ids:?}");
        }
        assert_eq!(incident["state"], "resolved");
        assert_eq!(incident["dedup_key"], "plimsoll/test/db");
    }
    assert_eq!(by_incident.len(), recorded.len(), "messages of incidents that nobody recorded");
    eprintln!(
        "{kills} kills, {} incidents, {} messages: none lost, none under a second id",
        recorded.len(),
        receiver.received().len()
    );
}
