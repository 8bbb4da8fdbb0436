//! What no view of the server shows before 18, or ever: logins under way that hold its slots or
//! keep others out, as whoever is on call reads of it.

use plimsoll::drill::receiver::{Behaviour, Receiver};
use serde_json::Value;
use tokio::net::TcpStream;

use super::*;
use crate::postgres::bare::Bare;
use crate::postgres::execute;
use crate::probe::blind::{PATIENT, ask_for_passwords, half_way};

/// A server of which 17 slots are usable, where logins under way stay so.
async fn patient_server() -> Server {
    let settings = vec![(PATIENT.0.to_owned(), PATIENT.1.to_owned())];
    let options = Options { max_connections: 20, settings, ..Options::default() };
    let roles = "CREATE ROLE app LOGIN; CREATE ROLE payment LOGIN; \
                 CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor";
    crate::major::start(options, roles).await
}

/// A daemon with a probe that has logged in once.
async fn probed(server: &Server, receiver: &Receiver, rules: &str, limits: &str) -> (Home, Daemon) {
    let url = server.url("payment", "postgres");
    let probe = format!("[[targets.probes]]\nname = \"app\"\nurl = \"{url}\"\n{limits}");
    let home = Home::new(&format!("{}{probe}", settings(server, receiver, rules)));
    let daemon = home.start();
    daemon.until("a login", |t| t["probes"][0]["outcome"] == "ok").await;
    (home, daemon)
}

/// Where connections run out by a page, and the figures.
fn bottleneck(page: &Value) -> (&str, &str) {
    let found = &page["incident"]["bottleneck"];
    (found["at"].as_str().unwrap(), found["figures"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stopped_half_way_through_their_login_are_the_bottleneck() {
    let server = patient_server().await;
    ask_for_passwords(&server).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let (_home, _daemon) = probed(&server, &receiver, AT_ONCE, "interval = \"10s\"\n").await;
    // One slot is the daemon's; the probe has left.
    let clients = half_way(&server, 19).await;
    let page = next(&receiver, "trigger").await;
    let (place, words) = if crate::major::major() < 18 {
        ("logins_under_way", "logins under way hold them")
    } else {
        ("server_slots", "usable slots in use")
    };
    let (at, figures) = bottleneck(&page);
    assert_eq!(at, place, "{page:#}");
    assert!(figures.contains(words), "{figures}");
    drop(clients);
    next(&receiver, "resolve").await;
}

/// They hold no slot yet, and no major shows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_say_nothing_are_the_bottleneck() {
    let server = patient_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let (_home, daemon) = probed(&server, &receiver, AT_ONCE, "interval = \"1s\"\n").await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    }
    let page = next(&receiver, "trigger").await;
    let (at, figures) = bottleneck(&page);
    assert_eq!(at, "logins_under_way", "{page:#}");
    assert!(
        figures.starts_with(
            "logins are refused (too many logins are under way), seen by probe/app, though "
        ),
        "{figures}"
    );
    let target = daemon.target();
    assert!(target["slots"]["free"].as_i64() > Some(10), "{target:#}");
    drop(silent);
    next(&receiver, "resolve").await;
}

/// Nobody is refused, and nobody gets in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_are_stuck_behind_locked_roles_are_the_bottleneck() {
    let server = patient_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let table = "[rules.logins_refused]\n";
    let rules = AT_ONCE.replace(table, &format!("{table}unanswered_for = \"0s\"\n"));
    let limits = "interval = \"1s\"\ntimeout = \"1s\"\n";
    let (_home, daemon) = probed(&server, &receiver, &rules, limits).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE").await;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let parameters = [("user", "app"), ("database", "postgres")];
        stuck.push(Bare::knock(server.port(), &parameters).await);
    }
    let page = next(&receiver, "trigger").await;
    let (at, figures) = bottleneck(&page);
    assert_eq!(at, "logins_under_way", "{page:#}");
    assert!(figures.starts_with("probe/app has no answer to its login ("), "{figures}");
    assert_eq!(page["incident"]["alerts"][0]["rule"], "logins_refused", "{page:#}");
    let target = daemon.target();
    assert_eq!(target["probes"][0]["outcome"], "too_slow", "{target:#}");
    assert_eq!(target["sources"][0]["state"], "ok", "{target:#}");
    execute(&superuser, "ROLLBACK").await;
    next(&receiver, "resolve").await;
    drop(stuck);
}
