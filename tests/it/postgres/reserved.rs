//! Reserved slots: how many are counted, and who comes back in over them when a full server has
//! ended our session.

use plimsoll::drill::server::{Options, Server, Session};
use plimsoll_core::reading::{FailureKind, Refusal};

use super::exact::logins_until_refused;
use super::{Observation, WATCHER, Watch, execute, our_backends, patient, server, settings};
use crate::major::major;

/// `reserved_connections` and the role that may use them came with 16.
const HAS_RESERVED_CONNECTIONS: u32 = 16;

/// What is usable in each scene; three more are reserved for superusers.
const USABLE: u32 = 9;

/// A server with so many `reserved_connections`, full: nine ordinary slots are taken, ours among
/// them, and by superusers so many of the reserved.
struct Full {
    server: Server,
    watch: Watch,
    superuser: Session,
    held: Vec<Session>,
}

impl Full {
    async fn server(reserved: u32, may_use_them: bool, superusers: usize) -> Self {
        let count = reserved.to_string();
        let own = [("reserved_connections", count.as_str())];
        let own = if reserved == 0 { &[][..] } else { &own[..] };
        let server = server(USABLE + 3 + reserved, own).await;
        let superuser = server.superuser().await.unwrap();
        if may_use_them {
            execute(&superuser, "GRANT pg_use_reserved_connections TO watcher").await;
        }
        let watch = Watch::start(patient(&server.url(WATCHER, "postgres")));
        let slots = watch.seen_from_now().await.slots();
        assert_eq!((slots.reserved, slots.usable, slots.used), (3 + reserved, USABLE, 2));
        // What is free is what can be opened, with a reserve of either kind.
        let mut held = logins_until_refused(&server, "app", "postgres").await;
        assert_eq!(i64::try_from(held.len()).unwrap(), slots.free);
        held.extend(server.fill("postgres", "admin", superusers).await.unwrap());
        let is_full = -i64::try_from(superusers).unwrap();
        let full = |seen: &Observation| seen.slots().free == is_full;
        watch.until("a full server", |d| d.outcome.as_deref().is_ok_and(full)).await;
        Self { server, watch, superuser, held }
    }

    async fn end_our_session(&self) -> i32 {
        let ours = our_backends(&self.superuser).await[0];
        execute(&self.superuser, &format!("SELECT pg_terminate_backend({ours})")).await;
        ours
    }

    async fn must_be_refused(mut self, expected: Refusal) {
        self.end_our_session().await;
        let delivery = self.watch.until("a refusal", |d| d.outcome.is_err()).await;
        let failure = delivery.outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused(expected), "{failure:?}");
        assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
        let counted: Vec<_> = delivery.happened.refused.iter().map(|r| r.reason).collect();
        assert_eq!(counted, [expected]);
        self.held.clear();
        self.watch.seen().await;
    }

    async fn comes_back(self) {
        let before = self.end_our_session().await;
        let back = async {
            while our_backends(&self.superuser).await.iter().all(|pid| *pid == before) {
                let delivery = self.watch.next().await;
                assert_eq!(delivery.happened.refused, []);
            }
        };
        tokio::time::timeout(super::DEADLINE, back).await.expect("a new connection");
        // Nobody else gets in, and readings go on.
        let slots = self.watch.seen_from_now().await.slots();
        assert!(slots.free < 0, "{slots:?}");
        let refused = self.server.connect("app", "postgres").await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("53300"));
    }
}

#[tokio::test]
async fn without_reserved_connections_the_way_back_is_for_superusers() {
    Full::server(0, false, 1).await.must_be_refused(Refusal::ReservedForSuperusers).await;
}

#[tokio::test]
async fn the_right_to_reserved_connections_is_worth_nothing_where_there_are_none() {
    if HAS_RESERVED_CONNECTIONS <= major() {
        Full::server(0, true, 1).await.must_be_refused(Refusal::ReservedForSuperusers).await;
        return;
    }
    // Before 16 there is neither.
    let server = server(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let granted = superuser.batch_execute("GRANT pg_use_reserved_connections TO watcher").await;
    assert_eq!(granted.unwrap_err().code().unwrap().code(), "42704");
    let setting = ("reserved_connections".to_owned(), "2".to_owned());
    let options = Options { major: Some(major()), settings: vec![setting], ..Options::default() };
    let error = Server::start(options).await.unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter"), "{error}");
}

#[tokio::test]
async fn reserved_connections_let_those_in_who_may_use_them() {
    if HAS_RESERVED_CONNECTIONS <= major() {
        Full::server(2, true, 1).await.comes_back().await;
        Full::server(2, false, 1).await.must_be_refused(Refusal::ReservedForRole).await;
        // With the reserve used up, the next is for superusers.
        Full::server(2, true, 3).await.must_be_refused(Refusal::ReservedForSuperusers).await;
    } else {
        // Before 16 the superusers' reserve is the only one, and all of it can be used up.
        Full::server(0, false, 3).await.must_be_refused(Refusal::ReservedForSuperusers).await;
    }
}

#[tokio::test]
async fn with_every_slot_taken_nobody_comes_back() {
    let full = Full::server(0, false, 3).await;
    full.end_our_session().await;
    // The slot of the session that ends is for superusers, and one takes it.
    let taking = async {
        loop {
            if let Ok(session) = full.server.connect("postgres", "postgres").await {
                return session;
            }
        }
    };
    let last = tokio::time::timeout(super::DEADLINE, taking).await.expect("the last slot");
    full.watch.failure(FailureKind::Refused(Refusal::AllSlotsTaken)).await;
    drop(last);
    full.watch.failure(FailureKind::Refused(Refusal::ReservedForSuperusers)).await;
}

#[tokio::test]
async fn what_rds_reserves_in_its_own_setting_counts_as_reserved() {
    let name = "rds.rds_superuser_reserved_connections";
    let server = server(20, &[(name, "2")]).await;
    let superuser = server.superuser().await.unwrap();
    let seen = Watch::of(&server).seen().await;
    assert_eq!((seen.limits.superuser_reserved, seen.limits.reserved), (3, 2));
    assert_eq!((seen.slots().reserved, seen.slots().usable), (5, 15));
    // Elsewhere anybody may have given such a name any value: it costs no reading.
    for (value, reserved) in [("4", 4), ("two", 0), ("", 0), ("-1", 0), ("2.5", 0), ("17", 0)] {
        execute(&superuser, &format!("ALTER ROLE watcher SET {name} = '{value}'")).await;
        // It holds from the next login on.
        let seen = Watch::start(settings(&server.url(WATCHER, "postgres"))).seen().await;
        assert_eq!(seen.limits.reserved, reserved, "{value}");
    }
}
