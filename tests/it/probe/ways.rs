//! Every way in, what is timed on it, and what the server sees of it.

use std::time::Duration;

use plimsoll_core::reading::probe::Steps;
use plimsoll_core::reading::{FailureKind, Refusal};
use plimsoll_core::settings::{PasswordFrom, ProbeSettings};

use super::{APPLICATION, Probing, server, told, url};
use crate::major::major;
use crate::postgres::tls::server_with_tls;
use crate::postgres::{WATCHER, execute, reload, until_true};

/// Each line of the server's log that a session of the application made.
const WHO: (&str, &str) = ("log_line_prefix", "[%u %a] ");

#[tokio::test]
async fn each_step_is_timed_over_tcp_tls_and_a_unix_socket() {
    let plain = server(20, &[]).await;
    let encrypted = server_with_tls().await;
    let tls = format!("{}?sslmode=require", encrypted.url(WATCHER, "postgres"));
    let ways =
        [(url(&plain), false), (plain.socket_url(APPLICATION, "postgres"), false), (tls, true)];
    for (url, has_tls) in ways {
        let mut probing = Probing::start(&told(&url));
        for _ in 0..3 {
            let attempt = probing.success().await;
            let Steps { connect, tls, authentication, first_answer } = attempt.steps;
            assert!(connect.is_some() && authentication.is_some(), "{url}: {attempt:?}");
            assert!(first_answer.is_some(), "{url}: {attempt:?}");
            assert_eq!(tls.is_some(), has_tls, "{url}: {attempt:?}");
            let sum = [connect, tls, authentication, first_answer].into_iter().flatten();
            assert!(sum.sum::<Duration>() < told(&url).timeout, "{url}: {attempt:?}");
        }
        probing.end().await;
    }
}

/// What sessions of this application did on a server that logs all of it.
fn statements(log: &str, who: &str) -> Vec<String> {
    let of = format!("[{APPLICATION} {who}] LOG:  statement: ");
    log.lines().filter_map(|line| Some(line.strip_prefix(&of)?.to_owned())).collect()
}

#[tokio::test]
async fn it_asks_one_question_under_the_name_that_its_address_gives_and_says_goodbye() {
    let log_all = [WHO, ("log_statement", "all"), ("log_disconnections", "on")];
    let server = server(20, &log_all).await;
    let named = format!("{}?application_name=payment-api", url(&server));
    let primary = format!("{named}-2&target_session_attrs=read-write");
    for (url, name) in [(url(&server), "plimsoll"), (named, "payment-api")] {
        let mut probing = Probing::start(&told(&url));
        for _ in 0..3 {
            probing.success().await;
        }
        probing.end().await;
        let asked = statements(&server.log(), name);
        assert!(asked.len() >= 3 && asked.iter().all(|s| s == "SELECT 1"), "{asked:?}");
    }
    // What the address asks for is asked, and nothing is set: a pooler would hand it on.
    let mut probing = Probing::start(&told(&primary));
    probing.success().await;
    probing.end().await;
    let asked = statements(&server.log(), "payment-api-2");
    assert!(asked.iter().any(|s| s.starts_with("SELECT pg_is_in_recovery()")), "{asked:?}");
    assert!(!asked.iter().any(|s| s.contains("SET")), "{asked:?}");
    let superuser = server.superuser().await.unwrap();
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'payment'";
    until_true(&superuser, gone).await;
    let log = server.log();
    assert!(log.contains(&format!("[{APPLICATION} payment-api] LOG:  disconnection")), "{log}");
    assert!(!log.contains("unexpected EOF") && !log.contains("could not receive"), "{log}");
}

#[tokio::test]
async fn a_wrong_password_is_not_allowed_and_not_shown() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let scram = "SET password_encryption = 'scram-sha-256'";
    execute(&superuser, &format!("{scram}; ALTER ROLE payment PASSWORD 'right-canary'")).await;
    let hba = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    reload(&superuser).await;
    let with = |password: &str| told(&url(&server).replace('@', &format!(":{password}@")));
    let mut probing = Probing::start(&with("wrong-canary"));
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::NotAllowed, "{failure:?}");
    assert_eq!(failure.sqlstate.as_deref(), Some("28P01"));
    assert!(!failure.text.contains("canary"), "{failure:?}");
    Probing::start(&with("right-canary")).success().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "right-canary\n").unwrap();
    let password = Some(PasswordFrom::File(file.path().to_owned()));
    Probing::start(&ProbeSettings { password, ..told(&url(&server)) }).success().await;
    let mut probing = Probing::start(&told(&url(&server)));
    let failure = probing.failure().await;
    assert!(failure.text.contains("the server asks for a password"), "{failure:?}");
}

#[tokio::test]
async fn the_next_host_is_tried_and_one_that_refuses_has_decided() {
    let (one, other) = tokio::join!(server(20, &[]), server(20, &[]));
    let superuser = one.superuser().await.unwrap();
    let both = |first: u16, second: u16| {
        format!("postgresql://{APPLICATION}@127.0.0.1:{first},127.0.0.1:{second}/postgres")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().port();
    drop(listener);
    Probing::start(&told(&both(nobody, other.port()))).success().await;
    execute(&superuser, "ALTER ROLE payment CONNECTION LIMIT 0").await;
    let failure = Probing::start(&told(&both(one.port(), other.port()))).failure().await;
    assert_eq!(failure.kind, FailureKind::Refused(Refusal::RoleLimit), "{}", major());
}
