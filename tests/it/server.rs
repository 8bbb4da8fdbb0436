//! The harness of throwaway servers itself: what other tests take for granted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::drill::DrillError;
use plimsoll::drill::server::{Mode, Options, Server, Signal};

use crate::major::major;

/// Ten times what any of it takes.
const DEADLINE: Duration = Duration::from_mins(1);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("waiting for {what}"));
}

fn small(max_connections: u32) -> Options {
    Options { major: Some(major()), max_connections, ..Options::default() }
}

fn is_running(pid: i32) -> bool {
    // A process that was reaped has no folder; one that was not yet is a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn two_servers_run_side_by_side_and_know_nothing_of_each_other() {
    let (one, two) = tokio::join!(Server::start(small(10)), Server::start(small(20)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.port(), two.port());
    for (server, max) in [(&one, "10"), (&two, "20")] {
        let session = server.connect("postgres", "postgres").await.unwrap();
        let row = session.query_one("SHOW max_connections", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), max);
        let row = session.query_one("SHOW server_version", &[]).await.unwrap();
        assert!(row.get::<_, String>(0).starts_with(&format!("{}.", major())), "{row:?}");
    }
    one.superuser().await.unwrap().batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    assert!(one.connect("app", "postgres").await.is_ok());
    assert_eq!(two.connect("app", "postgres").await.unwrap_err().sqlstate(), Some("28000"));
}

#[tokio::test]
async fn urls_lead_to_it_over_tcp_and_socket() {
    let server = Server::start(small(10)).await.unwrap();
    for url in [server.url("postgres", "postgres"), server.socket_url("postgres", "postgres")] {
        let login = url.parse().unwrap();
        let session = plimsoll::drill::server::Session::open(&login).await.unwrap();
        assert!(session.backend_pid().await.unwrap() > 0, "{url}");
    }
}

#[tokio::test]
async fn it_is_filled_to_its_last_ordinary_slot_and_not_further() {
    let server = Server::start(small(10)).await.unwrap();
    let superuser = server.superuser().await.unwrap();
    superuser.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    let holders = server.fill("app", "payment-api", 6).await.unwrap();
    let refused = server.fill("app", "payment-api", 1).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("53300"), "{refused}");
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'payment-api'";
    let row = superuser.query_one(count, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 6);
    drop(holders);
}

#[tokio::test]
async fn it_stops_and_starts_again_on_the_same_port_with_what_was_in_it() {
    for mode in [Mode::Smart, Mode::Fast, Mode::Immediate] {
        let mut server = Server::start(small(10)).await.unwrap();
        let port = server.port();
        let session = server.superuser().await.unwrap();
        session.batch_execute("CREATE TABLE kept (); CHECKPOINT").await.unwrap();
        session.close().await;
        server.stop(mode).await.unwrap();
        assert_eq!(server.pid(), None);
        assert!(server.connect("postgres", "postgres").await.is_err());
        server.start_again().await.unwrap();
        assert_eq!(server.port(), port);
        let session = server.superuser().await.unwrap();
        assert!(session.query("SELECT FROM kept", &[]).await.is_ok(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_killed_postmaster_leaves_a_pid_file_that_deceives_nobody() {
    let mut server = Server::start(small(10)).await.unwrap();
    server.signal_postmaster(Signal::KILL).unwrap();
    server.until_gone().await.unwrap();
    assert!(server.data_dir().join("postmaster.pid").exists());
    // Until its backends have seen the end of the postmaster a new one refuses to start.
    let waiting = async {
        while server.start_again().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert!(server.superuser().await.is_ok(), "{}", server.log());
}

#[tokio::test]
async fn a_stopped_postmaster_accepts_and_says_nothing_until_it_goes_on() {
    let server = Server::start(small(10)).await.unwrap();
    server.signal_postmaster(Signal::STOP).unwrap();
    let login = server.connect("postgres", "postgres");
    let mut login = std::pin::pin!(login);
    let silent = tokio::time::timeout(Duration::from_millis(100), &mut login).await;
    assert!(silent.is_err(), "a stopped postmaster answered");
    server.signal_postmaster(Signal::CONT).unwrap();
    tokio::time::timeout(DEADLINE, login).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_with_stopped_backends_still_ends() {
    let server = Server::start(small(10)).await.unwrap();
    let (postmaster, session) = (server.pid().unwrap(), server.superuser().await.unwrap());
    let backend = session.backend_pid().await.unwrap();
    server.signal_backend(backend, Signal::STOP).unwrap();
    drop(server);
    assert!(!is_running(postmaster));
    until("the backend's end", || !is_running(backend)).await;
}

#[tokio::test]
async fn nothing_of_it_is_left_after_drop_or_panic() {
    let server = Server::start(small(10)).await.unwrap();
    let (folder, pid) = (server.socket_dir().to_owned(), server.pid().unwrap());
    drop(server);
    assert!(!folder.exists() && !is_running(pid));

    let mut tasks = tokio::task::JoinSet::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    tasks.spawn(async move {
        let server = Server::start(small(10)).await.unwrap();
        tell.send((server.socket_dir().to_owned(), server.pid().unwrap())).unwrap();
        panic!("as a failing test does");
    });
    let (folder, pid) = told.await.unwrap();
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
    assert!(!folder.exists() && !is_running(pid));
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_told_in_its_own_words() {
    let setting = ("max_connections".to_owned(), "many".to_owned());
    let options = Options { settings: vec![setting], ..small(10) };
    let error = Server::start(options).await.unwrap_err();
    assert!(matches!(&error, DrillError::Ended { said, .. } if said.contains("many")), "{error}");
}

#[tokio::test]
async fn a_major_that_is_not_installed_is_an_error_with_a_command() {
    let options = Options { major: Some(9), ..Options::default() };
    let error = Server::start(options).await.unwrap_err().to_string();
    assert!(error.contains("PostgreSQL 9") && error.contains("hint: "), "{error}");
}

/// The name of the variable with which the test below starts itself as the one to be killed.
const HOLD: &str = "PLIMSOLL_TEST_HOLDS_A_SERVER";

#[tokio::test]
async fn nothing_of_it_is_left_when_its_owner_is_killed() {
    if std::env::var_os(HOLD).is_some() {
        return hold().await;
    }
    let name = "server::nothing_of_it_is_left_when_its_owner_is_killed";
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(HOLD, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("holds ")).unwrap();
    let mut words = line.split("holds ").nth(1).unwrap().split(' ');
    let pid: i32 = words.next().unwrap().parse().unwrap();
    let folder = PathBuf::from(words.next().unwrap());
    assert!(is_running(pid) && folder.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the folder to go", || !folder.exists()).await;
    assert!(!is_running(pid));
    assert!(!Path::new("/proc").exists() || !is_running(pid));
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn hold() {
    let server = Server::start(small(10)).await.expect("a server");
    println!("holds {} {}", server.pid().expect("a pid"), server.socket_dir().display());
    std::future::pending::<()>().await;
}
