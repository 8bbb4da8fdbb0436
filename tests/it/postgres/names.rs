//! Names that somebody chose to be difficult, and bytes of other encodings.

use plimsoll_core::reading::postgres::Observation;

use super::bare::Bare;
use super::{Watch, execute, server};
use crate::failover::Address;

#[tokio::test]
async fn hostile_names_are_kept_as_they_are_and_sums_stay_exact() {
    let server = server(220, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let role = "we\"ird\n'; DROP ROLE app; --";
    let database = "d\u{1b}[31m\tb";
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    execute(&superuser, &format!("CREATE ROLE {} LOGIN CONNECTION LIMIT 7", quoted(role))).await;
    execute(&superuser, &format!("CREATE DATABASE {}", quoted(database))).await;
    let mut held = vec![server.connect(role, database).await.unwrap()];
    for n in 0..200 {
        let application = format!("it's \"app\" {{{n}}} \\ <b>&");
        held.extend(server.fill("app", &application, 1).await.unwrap());
    }
    let watch = Watch::of(&server);
    let all = |seen: &Observation| seen.slots().used == 203;
    let seen = watch.until("everybody", |d| d.outcome.as_deref().is_ok_and(all)).await;
    let seen = seen.outcome.unwrap();
    let mut applications: Vec<_> =
        seen.groups.iter().filter(|g| &*g.role == "app").map(|g| &*g.application).collect();
    assert_eq!(applications.len(), 200);
    applications.dedup();
    assert_eq!(applications.len(), 200);
    assert!(applications.contains(&"it's \"app\" {0} \\ <b>&"));
    assert!(seen.groups.iter().any(|g| &*g.role == role && &*g.database == database));
    assert!(seen.role_limits.iter().any(|l| l.name == role && l.limit == 7 && l.used == 1));
    assert!(seen.sessions.len() <= plimsoll_core::reading::postgres::MAX_SESSIONS);
}

#[tokio::test]
async fn a_role_that_was_just_made_is_known_by_name_soon() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.seen().await;
    execute(&superuser, "CREATE ROLE newcomer LOGIN").await;
    let _session = server.connect("newcomer", "postgres").await.unwrap();
    let named = |seen: &Observation| seen.groups.iter().any(|g| &*g.role == "newcomer");
    watch.until("its name", |d| d.outcome.as_deref().is_ok_and(named)).await;
}

#[tokio::test]
async fn statements_in_other_encodings_do_not_fail_a_poll() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        .await;
    let statement = b"SELECT pg_sleep(600) AS \"caf\xe9\"";
    let parameters = [("user", "app"), ("database", "latin"), ("client_encoding", "LATIN1")];
    let mut session = Bare::open(server.port(), &parameters).await;
    session.send(statement).await;
    for database in ["postgres", "latin"] {
        let url = server.url(super::WATCHER, database);
        let watch = Watch::start(super::settings(&url));
        let shown = |seen: &Observation| {
            seen.sessions.iter().any(|s| &*s.query == "SELECT pg_sleep(?) AS \"caf\u{fffd}\"")
        };
        watch.until("the statement", |d| d.outcome.as_deref().is_ok_and(shown)).await;
    }
}

#[tokio::test]
async fn after_a_switch_to_another_server_names_are_those_of_the_other() {
    let (one, other) = tokio::join!(server(20, &[]), server(20, &[]));
    let mut held = Vec::new();
    for (server, role) in [(&one, "alpha"), (&other, "beta")] {
        // The same OID on both.
        let superuser = server.superuser().await.unwrap();
        execute(&superuser, &format!("CREATE ROLE {role} LOGIN")).await;
        held.push(server.connect(role, "postgres").await.unwrap());
    }
    let address = Address::of(&one).await;
    let watch = Watch::start(super::settings(&address.url(super::WATCHER)));
    let shows = |seen: &Observation, role: &str| seen.groups.iter().any(|g| &*g.role == role);
    assert!(shows(&watch.seen().await, "alpha"));
    address.lead_to(&other);
    let alone = |seen: &Observation| !shows(seen, "alpha");
    let seen = watch.until("the other", |d| d.outcome.as_deref().is_ok_and(alone)).await;
    assert!(shows(&seen.outcome.unwrap(), "beta"));
}
