//! A daemon within narrow limits of the system, and beside servers that are none: what it can
//! still do, it does, and the other targets are watched as before.

use std::fmt::Write as _;
use std::process::Command;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// The daemon of this home, begun by a shell that does something first.
fn after(home: &Home, what: &str) -> Command {
    let daemon = home.command();
    let mut command = plimsoll_by("sh");
    command.arg("-c").arg(format!("{what}; exec \"$0\" \"$@\"")).arg(daemon.get_program());
    command.args(daemon.get_args());
    command
}

fn plimsoll_by(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn more_targets(names: impl Iterator<Item = (String, String)>) -> String {
    let mut text = String::new();
    for (name, url) in names {
        write!(text, "[[targets]]\nname = \"{name}\"\npostgres = \"{url}\"\n").unwrap();
    }
    text
}

/// The severities of all targets, by name.
fn severities(daemon: &Daemon) -> Vec<(String, String)> {
    let targets = daemon.json("/api/v1/targets");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = targets["targets"].as_array().unwrap().iter();
    all.map(|target| (text(&target["name"]), text(&target["severity"]))).collect()
}

/// A limit on the size of files is no reason to end: with it, as on a full disk, pages go from
/// memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_of_files_ends_nothing() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, AT_ONCE));
    let daemon = Daemon::start(after(&home, "ulimit -f 0"));
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let sessions = server.fill("app", "payment-api", 16).await.unwrap();
    next(&receiver, "trigger").await;
    assert_eq!(daemon.get("/healthz").0, 503);
    drop(sessions);
    let (status, said) = daemon.end();
    assert!(status.success(), "{status}: {said}");
}

/// The soft limit is for programs that cannot take more; we take what the hard one grants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_limit_of_open_files_is_raised() {
    const TARGETS: usize = 12;
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let url = server.url("plimsoll", "postgres");
    let more = more_targets((1..TARGETS).map(|n| (format!("db{n}"), url.clone())));
    let home = Home::new(&(settings(&server, &receiver, "") + &more));
    let daemon = Daemon::start(after(&home, "ulimit -S -n 20"));
    until("all of them are read", || {
        let ok = severities(&daemon).iter().filter(|(_, severity)| severity == "ok").count();
        (ok == TARGETS).then_some(())
    })
    .await;
}

async fn hear_startup(client: &mut TcpStream) {
    let length = usize::try_from(client.read_i32().await.unwrap()).unwrap();
    client.read_exact(&mut vec![0; length - 4]).await.unwrap();
}

/// Answers as a server does that knows no password: the connection is logged in.
async fn let_in(client: &mut TcpStream) {
    hear_startup(client).await;
    // AuthenticationOk, server_version, BackendKeyData, ReadyForQuery.
    let greeting = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\x0015.18\0\
                     K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I";
    client.write_all(greeting).await.unwrap();
}

/// Begins a server that does `what` with each of its connections.
async fn server_that<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    what: fn(TcpStream) -> F,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            clients.spawn(what(client));
        }
    });
    format!("postgresql://plimsoll@{address}/postgres?sslmode=disable")
}

/// Lets everybody in, and says nothing ever after.
async fn fall_silent(mut client: TcpStream) {
    let_in(&mut client).await;
    while client.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    std::future::pending::<()>().await;
}

/// Targets that leave the settings are left together: a second a target, and a SIGTERM behind
/// them would not be heard for minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_targets_whose_servers_are_silent_are_left_at_once() {
    const SILENT: usize = 80;
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let mut tasks = JoinSet::new();
    let url = server_that(&mut tasks, fall_silent).await;
    let more = more_targets((0..SILENT).map(|n| (format!("silent{n}"), url.clone())));
    let one = settings(&server, &receiver, "");
    let home = Home::new(&(one.clone() + &more));
    let daemon = home.start();
    let connected = |daemon: &Daemon| daemon.log().matches(": connected ").count();
    until("all are connected", || (connected(&daemon) > SILENT).then_some(())).await;

    home.write(&one);
    daemon.signal(Signal::HUP);
    // One after the other they would take as long as the deadline.
    until("the settings were reloaded", || {
        daemon.log().contains("the settings were reloaded").then_some(())
    })
    .await;
    assert_eq!(severities(&daemon).len(), 1);
}

/// Answers each question with a column of a type that nobody knows.
async fn name_new_types(mut client: TcpStream) {
    let_in(&mut client).await;
    let mut oid = 100_000_i32;
    loop {
        let Ok(tag) = client.read_u8().await else { return };
        let length = usize::try_from(client.read_i32().await.unwrap()).unwrap();
        client.read_exact(&mut vec![0; length - 4]).await.unwrap();
        let mut answer = Vec::new();
        match tag {
            b'Q' => answer.extend(b"C\0\0\0\x08SET\0Z\0\0\0\x05I"),
            b'P' => answer.extend(b"1\0\0\0\x04"),
            b'D' => {
                oid += 1;
                answer.extend(b"t\0\0\0\x06\0\0T\0\0\0\x1a\0\x01c\0\0\0\0\0\0\0");
                answer.extend(oid.to_be_bytes());
                answer.extend(b"\xff\xff\xff\xff\xff\xff\0\0");
            }
            b'S' => answer.extend(b"Z\0\0\0\x05I"),
            _ => {}
        }
        if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Asks for no password, and then tells its life without end before it lets anybody in.
async fn never_stop_talking(mut client: TcpStream) {
    hear_startup(&mut client).await;
    let mut all = b"R\0\0\0\x08\0\0\0\0".to_vec();
    client.write_all(&all).await.unwrap();
    all.clear();
    for _ in 0..1_000 {
        all.extend(b"N\0\0\0\x18SNOTICE\0C00000\0MHi\0\0");
    }
    while client.write_all(&all).await.is_ok() {}
}

/// What speaks like a server and is none costs its own target a reading, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_none_take_nothing_from_the_others() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let mut tasks = JoinSet::new();
    let types = server_that(&mut tasks, name_new_types).await;
    let talks = server_that(&mut tasks, never_stop_talking).await;
    let more = [("types".to_owned(), types), ("talks".to_owned(), talks)];
    let rules = format!("{AT_ONCE}[poll]\ntimeout = \"1s\"\n");
    let home = Home::new(&(settings(&server, &receiver, &rules) + &more_targets(more.into_iter())));
    let daemon = home.start();
    // Several times over, so that what each of them costs would have added up.
    until("both were given up again and again", || {
        let log = daemon.log();
        let lost = log.matches("lost the connection").count();
        (lost >= 5 && log.contains("the server said more than 1048576 bytes to a login"))
            .then_some(())
    })
    .await;
    daemon.until("a reading", |t| t["severity"] == "ok").await;
    let resident = daemon.metric("process_resident_memory_bytes", &[]).unwrap();
    assert!(resident < 500e6, "{resident} bytes");
    let sessions = server.fill("app", "payment-api", 16).await.unwrap();
    // The others are told of, too: they cannot be read.
    while next(&receiver, "trigger").await["incident"]["target"] != "db" {}
    drop(sessions);
}

/// Lets everybody in, and closes.
async fn let_in_and_close(mut client: TcpStream) {
    let_in(&mut client).await;
}

/// A server that lets us in and then is gone, time after time, gives neither a reading nor a login
/// that fails. It is not well for that: somebody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_after_each_login_is_told() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let mut tasks = JoinSet::new();
    let url = server_that(&mut tasks, let_in_and_close).await;
    let more = more_targets([("gone".to_owned(), url)].into_iter());
    let rules = format!("{AT_ONCE}[poll]\ntimeout = \"500ms\"\n");
    let home = Home::new(&(settings(&server, &receiver, &rules) + &more));
    let _daemon = home.start();
    let told = next(&receiver, "trigger").await;
    assert_eq!(told["incident"]["target"], "gone");
    assert_eq!(told["incident"]["alerts"][0]["rule"], "source_unreadable");
}

/// `/healthz` takes a loop that has not turned for 30 s for stuck, and a tick may be as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_with_the_longest_tick_turns_between_two_readings() {
    let server = small_server().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let home = Home::new(&settings(&server, &receiver, "[poll]\ninterval = \"30s\"\n"));
    let daemon = home.start();
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    let turned = || daemon.metric("plimsoll_loop_last_turn_timestamp_seconds", &[]);
    // A turn that comes with a reading is as old as that; this one is not.
    until("a turn between two readings", || {
        let read_at = daemon.target()["read_at"].as_str()?.parse::<jiff::Timestamp>().ok()?;
        (turned()? - read_at.as_duration().as_secs_f64() > 1.0).then_some(())
    })
    .await;
    assert_eq!(daemon.get("/healthz").0, 200);
}
