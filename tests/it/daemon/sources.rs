//! The sources beside the server in the daemon: where connections run out, on real poolers and
//! servers; and all kinds of bad sources at once, of which none stops another.

use std::io::Write;
use std::net::TcpListener;

use plimsoll::drill::bouncer::{self, Bouncer};
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::{Session, Signal as ToServer};
use serde_json::Value;

use super::*;

const HIKARI: &str =
    include_str!("../../../core/tests/fixtures/exposition/hikaricp_micrometer.prom");

/// Rules on pools without patience.
const POOLS_AT_ONCE: &str = r#"
[rules.pool_waiting]
warning = { above = "1s", for = "0s", clear_below = "500ms" }
critical = { above = "3s", for = "0s", clear_below = "1s", keep_firing_for = "0s" }
"#;

/// Slots in use are no matter for a page, and a login that is refused is one at once.
const REFUSALS_ALONE: &str = r#"
[rules.slots]
enabled = false
[rules.slots_full]
enabled = false
[rules.logins_refused]
keep_firing_for = "0s"
"#;

/// Of this run's release.
async fn pooler(server: &Server, settings: &[(&str, &str)]) -> Bouncer {
    let shop = format!("shop = host=127.0.0.1 port={} dbname=postgres", server.port());
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = bouncer::Options {
        release: Some(crate::pooler::release()),
        databases: vec![shop],
        settings: settings.iter().map(own).collect(),
        ..bouncer::Options::default()
    };
    Bouncer::start(options).await.unwrap()
}

fn watched(bouncer: &Bouncer) -> String {
    let url = bouncer.url("stats", "pgbouncer");
    format!("[[targets.poolers]]\nname = \"pgbouncer\"\nurl = \"{url}\"\n")
}

fn at(target: &Value) -> &str {
    target["bottleneck"]["at"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_whose_clients_wait_while_the_server_is_idle_is_the_bottleneck() {
    let server = small_server().await;
    let bouncer = pooler(&server, &[("default_pool_size", "1")]).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let settings = settings(&server, &receiver, &format!("{AT_ONCE}{POOLS_AT_ONCE}"));
    let home = Home::new(&format!("{settings}{}", watched(&bouncer)));
    let daemon = home.start();
    daemon.until("nothing to say", |t| at(t) == "none").await;

    let login: tokio_postgres::Config = bouncer.url("app", "shop").parse().unwrap();
    let holder = Session::open(&login).await.unwrap();
    holder.batch_execute("BEGIN").await.unwrap();
    let waiter = Session::open(&login).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { waiter.batch_execute("SELECT 1").await.is_ok() });

    let page = next(&receiver, "trigger").await;
    let incident = &page["incident"];
    let alert = &incident["alerts"][0];
    assert_eq!(alert["rule"], "pool_waiting", "{page:#}");
    assert_eq!(alert["subject"], "pooler/pgbouncer shop/app");
    assert_eq!(incident["bottleneck"]["at"], "pooler");
    let summary = incident["summary"].as_str().unwrap();
    assert!(summary.contains("pgbouncer") && summary.contains("shop/app"), "{summary}");
    let seen = daemon.until("all of it", |t| t["incident"]["severity"] == "critical").await;
    assert_eq!(at(&seen), "pooler");
    assert!(seen["slots"]["free"].as_i64() > Some(10), "{seen:#}");
    let labels = [("target", "db"), ("source", "pooler/pgbouncer"), ("pool", "shop/app")];
    assert_eq!(daemon.metric("plimsoll_pool_waiting", &labels), Some(1.0));
    assert!(daemon.metric("plimsoll_pool_wait_seconds", &labels) > Some(1.0));

    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(waiting.join_next().await.unwrap().unwrap());
    next(&receiver, "resolve").await;
    daemon.until("nothing to say again", |t| at(t) == "none").await;
}

/// What the server refuses its pooler is in no number of the pooler's. Those who look at the
/// server's slots say nothing here, so that all that is told is what the probe saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_behind_a_pooler_that_shows_zeros_is_told_by_a_probe_through_it() {
    let server = small_server().await;
    let mut bouncer = pooler(&server, &[("server_login_retry", "1")]).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let url = bouncer.url("app", "shop");
    let probe = format!(
        "[[targets.probes]]\nname = \"through\"\nurl = \"{url}\"\ninterval = \"1s\"\n\
         timeout = \"10s\"\n"
    );
    let settings = settings(&server, &receiver, REFUSALS_ALONE);
    let home = Home::new(&format!("{settings}{}{probe}", watched(&bouncer)));
    let daemon = home.start();
    let of_probe = |t: &Value| t["probes"][0]["outcome"].as_str().unwrap_or("").to_owned();
    daemon.until("a login through the pooler", |t| of_probe(t) == "ok").await;

    // The pooler is started anew, and finds none of the slots left that it had.
    bouncer.stop().await.unwrap();
    let mut crowd = Vec::new();
    let filling = async {
        // One of the seventeen is the daemon's.
        while crowd.len() < 16 {
            crowd.extend(server.connect("app", "postgres").await);
        }
    };
    tokio::time::timeout(DEADLINE, filling).await.expect("a full server");
    bouncer.start_again().await.unwrap();

    let page = next(&receiver, "trigger").await;
    let incident = &page["incident"];
    let [alert] = incident["alerts"].as_array().unwrap().as_slice() else { panic!("{page:#}") };
    assert_eq!(alert["rule"], "logins_refused", "{page:#}");
    assert_eq!(alert["subject"], "reserved_for_superusers");
    let summary = incident["summary"].as_str().unwrap();
    assert!(summary.contains(", seen by probe/through"), "{summary}");
    assert_eq!(incident["bottleneck"]["at"], "server_slots", "{page:#}");
    // And while the probe is refused, the pooler has a pool of zeros to show.
    let zeros = |t: &Value| {
        let pools = t["pools"].as_array().unwrap();
        let pool = pools.iter().find(|one| one["kind"] == "pooler" && one["pool"] == "shop/app");
        pool.is_some_and(|pool| pool["waiting"] == 0 && pool["in_use"] == 0)
    };
    let refused = |t: &Value| of_probe(t) == "reserved_for_superusers";
    let seen = daemon.until("a pool of zeros", |t| refused(t) && zeros(t)).await;
    assert_eq!(at(&seen), "server_slots", "{seen:#}");
    let figures = seen["bottleneck"]["figures"].as_str().unwrap();
    assert!(figures.contains("pooler/pgbouncer shows nobody waiting"), "{figures}");
    assert_eq!(seen["alerts"][0]["state"], "firing", "{seen:#}");
    let used = [("target", "db"), ("source", "pooler/pgbouncer"), ("pool", "shop/app")];
    assert_eq!(daemon.metric("plimsoll_pool_connections_in_use", &used), Some(0.0));
    drop(crowd);
    next(&receiver, "resolve").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_whose_threads_give_up_waiting_is_told_while_all_else_is_idle() {
    let server = small_server().await;
    let application = Receiver::start(Behaviour::with_body(200, HIKARI)).await.unwrap();
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let pools = format!(
        "[[targets.app_pools]]\napplication = \"payment-api\"\ninterval = \"1s\"\n\
         scrape = [\"{}/metrics\"]\n",
        application.url()
    );
    let settings = settings(&server, &receiver, &format!("{AT_ONCE}{POOLS_AT_ONCE}"));
    let home = Home::new(&format!("{settings}{pools}"));
    let daemon = home.start();
    daemon.until("its pool", |t| t["pools"][0]["max"] == 10).await;

    let starved = HIKARI
        .replace(
            "timeout_total{pool=\"HikariPool-1\",} 0.0",
            "timeout_total{pool=\"HikariPool-1\",} 7.0",
        )
        .replace("active{pool=\"HikariPool-1\",} 0.0", "active{pool=\"HikariPool-1\",} 10.0")
        .replace("idle{pool=\"HikariPool-1\",} 10.0", "idle{pool=\"HikariPool-1\",} 0.0")
        .replace("pending{pool=\"HikariPool-1\",} 0.0", "pending{pool=\"HikariPool-1\",} 23.0");
    assert_eq!(starved.matches("23.0").count(), 1);
    application.behave(Behaviour::with_body(200, &starved));
    let page = next(&receiver, "trigger").await;
    let incident = &page["incident"];
    assert_eq!(incident["severity"], "critical", "{page:#}");
    assert_eq!(incident["bottleneck"]["at"], "application_pool");
    let summary = incident["summary"].as_str().unwrap();
    assert!(summary.contains("payment-api"), "{summary}");
    let seen = daemon.until("the figures", |t| t["pools"][0]["waiting"] == 23).await;
    assert!(seen["slots"]["free"].as_i64() > Some(10), "{seen:#}");
    let labels = [("target", "db"), ("source", "app_pool/payment-api"), ("pool", "HikariPool-1")];
    assert_eq!(daemon.metric("plimsoll_pool_timeouts_total", &labels), Some(7.0));
}

/// Says the same bytes to whoever comes, and waits until he goes; with none it hangs up at once.
fn says(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if !bytes.is_empty() {
                // A client that is gone hears nothing.
                drop(stream.write_all(bytes));
                std::thread::spawn(move || drop(std::io::copy(&mut stream, &mut std::io::sink())));
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_sources_of_every_kind_are_told_and_stop_no_other() {
    let server = small_server().await;
    let bouncer = pooler(&server, &[]).await;
    let hangs = pooler(&server, &[]).await;
    let endless = Receiver::start(Behaviour::Endless(200)).await.unwrap();
    let stalled = Receiver::start(Behaviour::Stall).await.unwrap();
    let html = Receiver::start(Behaviour::with_body(200, "<html>hello</html>")).await.unwrap();
    let well = Receiver::start(Behaviour::with_body(200, HIKARI)).await.unwrap();
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let log = file("postgresql.log", b"");
    let list = file("list.json", b"[{\"targets\": [\"10.0.0");
    let ssh = says(b"SSH-2.0-OpenSSH_9.2\r\n");
    let nothing = says(b"");
    let pooler = |name: &str, url: &str| {
        format!("[[targets.poolers]]\nname = \"{name}\"\nurl = \"{url}\"\ntimeout = \"2s\"\n")
    };
    let probe = |name: &str, port: u16| {
        let url = format!("postgresql://app@127.0.0.1:{port}/postgres");
        format!("[[targets.probes]]\nname = \"{name}\"\nurl = \"{url}\"\ninterval = \"1s\"\n")
    };
    let scraped = |name: &str, url: &str| {
        format!(
            "[[targets.app_pools]]\napplication = \"{name}\"\nscrape = [\"{url}/metrics\"]\n\
             interval = \"2s\"\ntimeout = \"1s\"\n"
        )
    };
    let bad = [
        format!("[targets.log]\npath = \"{log}\"\n"),
        pooler("stranger", &bouncer.url("app", "pgbouncer")),
        pooler("ssh", &format!("postgresql://stats@127.0.0.1:{ssh}/pgbouncer")),
        pooler("postgres", &server.url("app", "postgres")),
        pooler("hangs", &hangs.url("stats", "pgbouncer")),
        pooler("well", &bouncer.url("stats", "pgbouncer")),
        probe("ssh", ssh),
        probe("nothing", nothing),
        probe("well", server.port()),
        scraped("endless", &endless.url()),
        scraped("stalled", &stalled.url()),
        scraped("html", &html.url()),
        scraped("well", &well.url()),
        format!("[[targets.app_pools]]\napplication = \"list\"\nfile_sd = \"{list}\"\n"),
    ];
    let settings = settings(&server, &receiver, AT_ONCE);
    let home = Home::new(&format!("{settings}{}", bad.concat()));
    let daemon = home.start();

    let state = |t: &Value, name: &str| {
        let sources = t["sources"].as_array().unwrap();
        let source = sources.iter().find(|one| one["source"] == name);
        source.map_or("", |one| one["state"].as_str().unwrap()).to_owned()
    };
    daemon.until("a pooler that works", |t| state(t, "pooler/hangs") == "ok").await;
    hangs.signal(ToServer::STOP).unwrap();
    let expected = [
        ("postgres", "ok"),
        ("log", "ok"),
        ("pooler/stranger", "not_allowed"),
        ("pooler/postgres", "unsupported"),
        ("pooler/hangs", "too_slow"),
        ("pooler/well", "ok"),
        ("probe/well", "ok"),
        ("app_pool/endless", "unsupported"),
        ("app_pool/stalled", "too_slow"),
        ("app_pool/html", "unsupported"),
        ("app_pool/well", "ok"),
    ];
    daemon
        .until("every source to say how it is", |t| {
            expected.iter().all(|(name, said)| state(t, name) == *said)
                // What they are taken for depends on the bytes and on the moment.
                && ["pooler/ssh", "probe/nothing", "app_pool/list"]
                    .iter()
                    .all(|name| !["", "ok", "unread"].contains(&state(t, name).as_str()))
        })
        .await;
    // A login that nobody answers is what that probe is there to see.
    let outcome = |t: &Value| {
        let probes = t["probes"].as_array().unwrap();
        probes.iter().find(|one| one["probe"] == "ssh").map(|one| one["outcome"].clone())
    };
    let late = Some(Value::from("too_slow"));
    let seen = daemon.until("a login without an answer", |t| outcome(t) == late).await;
    // Each with a sentence.
    for source in seen["sources"].as_array().unwrap() {
        assert_eq!(source["state"] == "ok", source["error"].is_null(), "{source}");
    }
    // A log that no server ever wrote.
    std::fs::write(&log, b"\xff\xfe{\"half\": \"a li\n\x00\x00\n{\"user\":\n\n").unwrap();
    let unclear = || daemon.metric("plimsoll_log_lines_total", &[("kind", "unclear")]);
    until("lines that make no sense", || unclear().filter(|count| *count >= 2.0)).await;
    // And all that is well is read on, the server each second.
    let read_at = |t: &Value, name: &str| {
        let sources = t["sources"].as_array().unwrap();
        let source = sources.iter().find(|one| one["source"] == name).unwrap();
        source["last_success_at"].as_str().unwrap().to_owned()
    };
    let sound =
        expected.map(|(name, _)| name).into_iter().filter(|name| state(&seen, name) == "ok");
    let sound: Vec<&str> = sound.collect();
    let reads_on = |t: &Value| {
        let is_later =
            |name: &&str| state(t, name) == "ok" && read_at(t, name) > read_at(&seen, name);
        state(t, "pooler/hangs") == "too_slow" && sound.iter().all(is_later)
    };
    daemon.until("the next readings", reads_on).await;
    let (status, log) = daemon.end();
    assert!(status.success() && !log.contains("panicked"), "{log}");
}
