//! What no view shows: slots that are held by logins which do not end. Beside each probe a kept
//! connection reads on and sees next to nothing.

use plimsoll::drill::server::Server;
use plimsoll_core::reading::probe::Held;
use plimsoll_core::reading::{FailureKind, Refusal};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{HASTE, Probing, hasty, our_processes, server, source, told, url};
use crate::major::major;
use crate::postgres::bare::Bare;
use crate::postgres::{DEADLINE, Watch, execute, reload};

/// Logins that do not end stay for the whole test.
pub(crate) const PATIENT: (&str, &str) = ("authentication_timeout", "600s");

/// The first majors of which a view shows logins under way.
const SHOWS_STARTING: u32 = 18;

/// Whoever logs in as `app` is asked for a password.
pub(crate) async fn ask_for_passwords(server: &Server) {
    let superuser = server.superuser().await.unwrap();
    // Up to 13 it would be stored as MD5.
    let scram = "SET password_encryption = 'scram-sha-256'";
    execute(&superuser, &format!("{scram}; ALTER ROLE app PASSWORD 'secret'")).await;
    let hba = "local all postgres trust\nhost all app 127.0.0.1/32 scram-sha-256\n\
               host all all 127.0.0.1/32 trust\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    reload(&superuser).await;
    superuser.close().await;
}

/// Clients that have sent their startup packet, were asked for a password, and give none.
pub(crate) async fn half_way(server: &Server, count: usize) -> Vec<Bare> {
    let mut clients = Vec::new();
    let knocking = async {
        while clients.len() < count {
            let parameters = [("user", "app"), ("database", "postgres")];
            let mut client = Bare::knock(server.port(), &parameters).await;
            // Others may have left a moment ago, and their slots are not free yet.
            if client.first_byte().await == b'R' {
                clients.push(client);
            }
        }
    };
    tokio::time::timeout(DEADLINE, knocking).await.expect("clients half-way through their login");
    clients
}

#[tokio::test]
async fn clients_half_way_through_their_login_fill_a_server_that_shows_one_connection() {
    let server = server(20, &[PATIENT]).await;
    ask_for_passwords(&server).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    // With the connection that watches there are twenty.
    let clients = half_way(&server, 19).await;
    let mut probing = Probing::start(&told(&url(&server)));
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::AllSlotsTaken), "{failure:?}");
    assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
    assert!(failure.text.contains("sorry, too many clients already"), "{failure:?}");
    let shown = watch.seen_from_now().await.slots();
    let expected = if major() < SHOWS_STARTING { (1, 16) } else { (20, -3) };
    assert_eq!((shown.used, shown.free), expected);
    // And so it stays, until they leave.
    assert_eq!(probing.failure().await.kind, FailureKind::Refused(Refusal::AllSlotsTaken));
    drop(clients);
    probing.success().await;
}

#[tokio::test]
async fn sockets_that_say_nothing_keep_everybody_out_of_a_server_that_looks_empty() {
    let server = server(20, &[PATIENT]).await;
    let watch = Watch::of(&server);
    watch.seen().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    }
    let mut probing = Probing::start(&told(&url(&server)));
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::LoginsUnderWay), "{failure:?}");
    assert_eq!(failure.sqlstate.as_deref(), Some("53300"));
    // Not even the newest major shows them: they hold no slot yet.
    assert_eq!(watch.seen_from_now().await.slots().used, 1);
    drop(silent);
    probing.success().await;
}

#[tokio::test]
async fn behind_locked_roles_there_is_one_login_of_ours_and_no_second() {
    let server = server(20, &[PATIENT]).await;
    let watching = Watch::of(&server);
    watching.seen().await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE").await;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let parameters = [("user", "app"), ("database", "postgres")];
        stuck.push(Bare::knock(server.port(), &parameters).await);
    }
    let first = source(&hasty(&url(&server)));
    let mut probing = Probing::run(first.clone());
    let late = probing.attempt().await;
    let failure = late.outcome.as_ref().unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    assert!(failure.text.contains("no login in 0.5 s"), "{failure:?}");
    assert!(late.steps.connect.is_some() && late.steps.authentication.is_none(), "{late:?}");
    for _ in 0..10 {
        let seen = probing.held(Some(Held::EarlierOneLives)).await;
        assert_eq!(seen.newest, late);
        assert_eq!(our_processes(&server), 1);
    }
    // Those that watch see only themselves and whoever holds the lock.
    let shown = watching.seen_from_now().await.slots().used;
    assert_eq!(shown, if major() < SHOWS_STARTING { 2 } else { 2 + 5 + 1 });

    // A reload leaves the login there, and its successor waits for the end of it.
    probing.end().await;
    let (_slots, slots) = watch::channel(None);
    let second = source(&told(&url(&server))).in_place_of(Some(&first), slots);
    assert!(second != first);
    let mut probing = Probing::run(second);
    let begun = tokio::time::timeout(HASTE, probing.attempt()).await;
    assert!(begun.is_err(), "a login although an earlier one lives: {begun:?}");
    assert_eq!(our_processes(&server), 1);
    execute(&superuser, "ROLLBACK").await;
    let answered = probing.attempt().await;
    assert_eq!(answered.outcome, Ok(()), "{answered:?}");
    drop(stuck);
}

#[tokio::test]
async fn a_login_that_is_answered_late_is_told_twice_with_one_time() {
    let server = server(20, &[PATIENT]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE").await;
    let mut probing = Probing::start(&hasty(&url(&server)));
    let late = probing.attempt().await;
    assert_eq!(late.outcome.unwrap_err().kind, FailureKind::TooSlow);
    execute(&superuser, "ROLLBACK").await;
    let answered = probing.attempt().await;
    assert_eq!((answered.at, &answered.outcome), (late.at, &Ok(())));
    let took = answered.steps.authentication.unwrap();
    assert!(took + answered.steps.connect.unwrap() >= HASTE, "{took:?}");
    let next = probing.attempt().await;
    assert!(next.at > late.at && next.outcome.is_ok(), "{next:?}");
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}
