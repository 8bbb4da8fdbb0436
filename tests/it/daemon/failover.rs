//! A failover behind one address, as an operator sees it: status, log and page.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;
use crate::failover::{Address, standby_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_after_a_failover_says_so() {
    let mut primary = small_server().await;
    let standby = standby_of(&mut primary, 20).await;
    let address = Address::of(&primary).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let direct = primary.url("plimsoll", "postgres");
    let settings = settings(&primary, &receiver, AT_ONCE);
    let home = Home::new(&settings.replace(&direct, &address.url("plimsoll")));
    let daemon = home.start();
    let first = daemon.until("a first reading", |t| t["severity"] == "ok").await;
    assert_eq!(first["server"]["role"], "primary");
    assert_eq!(first["server"]["switched"], serde_json::Value::Null);

    address.lead_to(&standby);
    let second = daemon.until("the standby", |t| t["server"]["role"] == "standby").await;
    assert_eq!(second["server"]["switched"], "now on the standby");
    assert!(second["server"]["switched_at"].as_str() > first["read_at"].as_str());
    assert_eq!(daemon.metric("plimsoll_server_in_recovery", &[("target", "db")]), Some(1.0));

    let free = usize::try_from(second["slots"]["free"].as_i64().unwrap()).unwrap();
    let _held = standby.fill("app", "payment-api", free).await.unwrap();
    let page = next(&receiver, "trigger").await;
    let summary = page["incident"]["summary"].as_str().unwrap();
    assert!(summary.ends_with("; now on the standby"), "{summary}");
    let details = page["incident"]["details"].as_str().unwrap();
    assert!(details.contains(": now on the standby\n"), "{details}");
    assert!(daemon.log().contains("now on the standby"), "{}", daemon.log());
}
