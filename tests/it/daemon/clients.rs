//! Who the clients of a pooler are, and what it counted, as everyone may see it of the daemon.

use plimsoll::drill::bouncer::{self, Bouncer};
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::Session;
use serde_json::Value;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_pooler_and_its_backends_are_shown() {
    let server = small_server().await;
    let shop = format!("shop = host=127.0.0.1 port={} dbname=postgres", server.port());
    let options = bouncer::Options {
        release: Some(crate::pooler::release()),
        databases: vec![shop],
        ..bouncer::Options::default()
    };
    let bouncer = Bouncer::start(options).await.unwrap();
    // Who is there when the daemon comes is listed at once.
    let mut login = bouncer.login("app", "shop");
    login.application_name("shop-api");
    let session = Session::open(&login).await.unwrap();
    let backend = session.backend_pid().await.unwrap();

    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let pooler = format!(
        "[[targets.poolers]]\nname = \"pgbouncer\"\nurl = \"{}\"\n",
        bouncer.url("stats", "pgbouncer")
    );
    let home = Home::new(&format!("{}{pooler}", settings(&server, &receiver, "")));
    let daemon = home.start();
    let target = daemon.until("the pooler", |t| !t["poolers"][0].is_null()).await;
    let seen = &target["poolers"][0];
    assert_eq!(seen["pooler"], "pgbouncer");
    let version = seen["version"].as_str().unwrap();
    assert!(version.contains(bouncer.release()), "{seen:#}");
    assert_eq!(seen["client_groups"][0]["application"], "shop-api", "{seen:#}");
    assert_eq!(seen["client_groups"][0]["clients"], 1, "{seen:#}");
    assert_eq!(seen["client_groups"][0]["waiting"], 0, "{seen:#}");
    assert_eq!(seen["backends"], serde_json::json!([backend]), "{seen:#}");
    assert_eq!(seen["server_logins"], 0, "{seen:#}");
    assert!(seen["max_clients"].as_u64() >= Some(1), "{seen:#}");
    assert!(seen["transactions"].as_u64() >= Some(1), "{seen:#}");
    let counted = |seen: &Value| seen["transactions"].as_u64().unwrap();
    let before = counted(seen);

    let of_shop = [("target", "db"), ("source", "pooler/pgbouncer"), ("database", "shop")];
    let metric = daemon.metric("plimsoll_pooler_transactions_total", &of_shop);
    assert!(metric >= Some(1.0), "{metric:?}");
    for _ in 0..20 {
        session.batch_execute("SELECT 1").await.unwrap();
    }
    daemon.until("its work", |t| counted(&t["poolers"][0]) >= before + 20).await;
}
