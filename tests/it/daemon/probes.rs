//! A probe of the daemon: from settings to a login of the application's role, over a reload, to the
//! end.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::*;

fn probe(server: &Server, limits: &str) -> String {
    let url = server.url("payment", "postgres");
    format!("[[targets.probes]]\nname = \"direct\"\nurl = \"{url}\"\ninterval = \"1s\"\n{limits}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_logs_in_as_the_application_and_heeds_what_the_server_shows() {
    let on = |name: &str| (name.to_owned(), "on".to_owned());
    let logs = vec![on("log_connections"), on("log_disconnections")];
    let options = Options { max_connections: 20, settings: logs, ..Options::default() };
    let roles = "CREATE ROLE app LOGIN; CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor; \
                 CREATE ROLE payment LOGIN";
    let server = crate::major::start(options, roles).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let settings = settings(&server, &receiver, AT_ONCE);
    let home = Home::new(&format!("{settings}{}", probe(&server, "")));
    let daemon = home.start();
    let logins = || server.log().matches("connection authorized: user=payment").count();
    until("logins of the application's role", || (logins() >= 2).then_some(())).await;

    let superuser = server.superuser().await.unwrap();
    superuser.batch_execute("ALTER ROLE payment CONNECTION LIMIT 0").await.unwrap();
    let says = async |text: &str| {
        until(text, || daemon.log().contains(text).then_some(())).await;
    };
    says("a login as an application makes it failed").await;
    superuser.batch_execute("ALTER ROLE payment CONNECTION LIMIT -1").await.unwrap();
    says("logins as an application makes them get in again").await;

    // From now on half of the seventeen are to stay free, and they are not.
    home.write(&format!("{settings}{}", probe(&server, "keep_free = 0.5\n")));
    let sessions = server.fill("app", "payment-api", 8).await.unwrap();
    daemon.until("a busy server", |t| t["slots"]["used"].as_u64() >= Some(10)).await;
    daemon.signal(Signal::HUP);
    says("no login is made: fewer slots are free than are to be left").await;
    let before = logins();
    drop(sessions);
    until("logins again", || (logins() > before).then_some(())).await;

    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}
