//! What is no Postgres, or says nothing: told apart, and never asked by more than one of us.

use std::time::Duration;

use plimsoll_core::reading::{Failure, FailureKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{DEADLINE, Watch, settings};

async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap().0
}

fn url(listener: &TcpListener) -> String {
    format!("postgresql://watcher@{}/postgres", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_too_slow_and_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let watch = Watch::start(settings(&url(&listener)));
    let silent = accept(&listener).await;
    for _ in 0..20 {
        watch.failure(FailureKind::TooSlow).await;
    }
    // Nobody else knocked meanwhile.
    let another = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(another.is_err(), "a second login while the first was not decided");
    drop(silent);
    let gave_up = |f: &Failure| f.text.contains("the server gave up a login");
    let closed = watch.until("the end", |d| d.outcome.as_ref().is_err_and(gave_up)).await;
    assert_eq!(closed.outcome.unwrap_err().kind, FailureKind::TooSlow);
    accept(&listener).await;
}

#[tokio::test]
async fn where_nothing_listens_the_server_is_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url(&listener);
    drop(listener);
    let watch = Watch::start(settings(&url));
    let delivery = watch.next().await;
    assert_eq!(delivery.outcome.unwrap_err().kind, FailureKind::Stopped);
    assert!(!delivery.happened.tried);
    let watch = Watch::start(settings("host=/nonexistent user=watcher"));
    let failure = watch.failure(FailureKind::Stopped).await;
    assert!(failure.text.contains("/nonexistent/.s.PGSQL.5432"), "{failure:?}");
}

#[tokio::test]
async fn a_host_without_an_address_is_unreachable() {
    let watch = Watch::start(settings("postgresql://watcher@no-such-host.invalid/postgres"));
    let failure = watch.failure(FailureKind::Unreachable).await;
    assert!(failure.text.starts_with("resolving no-such-host.invalid: "), "{failure:?}");
}

/// Answers everybody with the same bytes, and closes.
fn answer(listener: TcpListener, answer: Vec<u8>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let mut client = listener.accept().await.unwrap().0;
            let mut request = [0; 1024];
            drop(client.read(&mut request).await);
            drop(client.write_all(&answer).await);
        }
    });
    tasks
}

#[tokio::test]
async fn what_speaks_another_protocol_is_unsupported() {
    let http = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // What PgBouncer says to startup options.
    let pooler = "SERROR\0VFATAL\0C08P01\0Munsupported startup parameter in options: jit\0\0";
    let length = u32::try_from(pooler.len() + 4).unwrap().to_be_bytes();
    let pooler = [b"E", &length[..], pooler.as_bytes()].concat();
    for said in [http.as_bytes().to_vec(), pooler] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{}?sslmode=disable", url(&listener));
        let _server = answer(listener, said);
        let watch = Watch::start(settings(&url));
        let delivery = watch.next().await;
        let failure = delivery.outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure:?}");
    }
}
