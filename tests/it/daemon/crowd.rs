//! What is beside a target must not disturb its watch: other targets, clients, the way out.

use std::net::{TcpListener, TcpStream};

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::Mode;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_hangs_delays_no_other() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!(
        "[poll]\ninterval = \"200ms\"\n[[targets]]\nname = \"hangs\"\n\
         postgres = \"postgresql://{}/postgres\"\n",
        silent.local_addr().unwrap()
    );
    let home = Home::new(&settings(&server, &receiver, &hangs));
    let daemon = home.start();
    until("word of the one that hangs", || {
        let state = daemon.json("/api/v1/targets/hangs")["sources"][0]["state"].clone();
        (state == "too_slow").then_some(())
    })
    .await;
    let readings = [("target", "db"), ("outcome", "ok")];
    let readings = daemon.metric("plimsoll_readings_total", &readings).unwrap();
    // It takes 5 s to be too slow: some 25 ticks.
    assert!(12.0 < readings, "only {readings} readings of the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_of_the_environment_is_used() {
    let server = small_server().await;
    let proxy = Receiver::start(Behaviour::status(200)).await.unwrap();
    let outside = settings(&server, &proxy, AT_ONCE)
        .replace(&format!("url = \"{}\"", proxy.url()), "url = \"http://receiver.example/hook\"");
    let home = Home::new(&outside);
    let mut command = home.command();
    command.env("HTTP_PROXY", proxy.url());
    let daemon = Daemon::start(command);
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let _sessions = server.fill("app", "payment-api", 15).await.unwrap();
    next(&proxy, "trigger").await;
    assert_eq!(proxy.received()[0].header("host"), "receiver.example");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sockets_take_little_memory_and_no_scrape() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let memory = || daemon.metric("process_resident_memory_bytes", &[]).unwrap();
    let before = memory();
    let sockets: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let after = memory();
    assert!(after - before < 16.0 * 1024.0 * 1024.0, "from {before} to {after} bytes");
    drop(sockets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_read_is_not_read_faster_than_the_tick() {
    let mut server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    server.stop(Mode::Fast).await.unwrap();
    next(&receiver, "trigger").await;
    let readings = [("target", "db"), ("outcome", "stopped")];
    let readings = || daemon.metric("plimsoll_readings_total", &readings).unwrap();
    let before = readings();
    // A rate is the subject, and a rate needs a time: five ticks.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = readings();
    assert!(after - before < 20.0, "{} readings in 5 s", after - before);
}
