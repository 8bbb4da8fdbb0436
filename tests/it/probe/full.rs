//! A full server: the reason, the backoff, the way back, and the slots that are left untouched.

use std::time::Duration;

use plimsoll_core::reading::postgres::{Limits, Slots};
use plimsoll_core::reading::probe::Held;
use plimsoll_core::reading::{FailureKind, Refusal};
use plimsoll_core::settings::ProbeSettings;
use tokio::sync::watch;

use super::{APPLICATION, Probing, server, source, told, url};
use crate::postgres::execute;

/// What a server of 20, of which 17 are usable, shows when so many are used.
fn shown(used: u32) -> Slots {
    let limits = Limits { max_connections: 20, superuser_reserved: 3, reserved: 0 };
    Slots::new(limits, used)
}

#[tokio::test]
async fn each_refusal_has_its_reason() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let refused = async |expected: Refusal| {
        let mut probing = Probing::start(&told(&url(&server)));
        let failure = probing.failure().await;
        assert_eq!(failure.kind, FailureKind::Refused(expected), "{failure:?}");
        assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
        probing.end().await;
    };
    execute(&superuser, &format!("ALTER ROLE {APPLICATION} CONNECTION LIMIT 0")).await;
    refused(Refusal::RoleLimit).await;
    execute(&superuser, &format!("ALTER ROLE {APPLICATION} CONNECTION LIMIT -1")).await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT 1").await;
    refused(Refusal::DatabaseLimit).await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT -1").await;
    let _held = server.fill("app", "payment-api", 16).await.unwrap();
    refused(Refusal::ReservedForSuperusers).await;
}

#[tokio::test]
async fn it_backs_off_while_the_server_is_full_and_comes_back_when_slots_are_shown_to_be_free() {
    let server = server(20, &[]).await;
    let (tell, slots) = watch::channel(Some(shown(17)));
    let held = server.fill("app", "payment-api", 17).await.unwrap();
    let told = ProbeSettings { interval: Duration::from_secs(2), ..told(&url(&server)) };
    let mut probing = Probing::run(source(&told).in_place_of(None, slots));
    assert!(matches!(probing.failure().await.kind, FailureKind::Refused(_)));
    let seen = probing.held(Some(Held::BacksOff)).await;
    assert!(seen.newest.outcome.is_err());
    let again = probing.failure().await;
    assert_eq!(again.kind, FailureKind::Refused(Refusal::ReservedForSuperusers), "{again:?}");
    drop(held);
    tell.send_replace(Some(shown(0)));
    probing.success().await;
    probing.held(None).await;
}

#[tokio::test]
async fn slots_that_are_to_be_left_are_left_and_what_is_not_known_is_tried() {
    let server = server(20, &[("log_connections", "on")]).await;
    let (tell, slots) = watch::channel(Some(shown(10)));
    // Of 17 at least 3.4 stay free.
    let told = ProbeSettings { keep_free: 0.2, ..told(&url(&server)) };
    let mut probing = Probing::run(source(&told).in_place_of(None, slots));
    probing.success().await;
    tell.send_replace(Some(shown(12)));
    probing.success().await;
    probing.success().await;
    tell.send_replace(Some(shown(13)));
    probing.held(Some(Held::FewSlotsFree)).await;
    let logins = || server.log().matches("connection authorized: user=payment").count();
    let before = logins();
    for _ in 0..5 {
        probing.held(Some(Held::FewSlotsFree)).await;
    }
    assert_eq!(logins(), before);
    // The server cannot be read: nobody knows how many are free, and a login is what tells.
    tell.send_replace(None);
    probing.held(None).await;
    probing.success().await;
    tell.send_replace(Some(shown(20)));
    probing.held(Some(Held::FewSlotsFree)).await;
    // Nobody says any more.
    drop(tell);
    probing.success().await;
}
