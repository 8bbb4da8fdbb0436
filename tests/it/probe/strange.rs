//! What only looks like a server: it hangs, talks without end, or says nonsense. Each is said, none
//! is asked twice at a time, and none keeps the probe from ending.

use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::probe::Held;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Probing, hasty, told};

/// Lets everybody in: authenticated, a key, ready.
const LETS_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I";

/// A column without a name, of type int4.
const ONE_COLUMN: &[u8] = b"T\0\0\0\x19\0\x01\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";

/// The end of a good answer.
const DONE: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

fn row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    let header = [b"D", &(length + 10).to_be_bytes()[..], b"\0\x01", &length.to_be_bytes()[..]];
    [header.concat(), value.to_vec()].concat()
}

/// A message that answers the question.
fn answer(row: &[u8]) -> Vec<u8> {
    [ONE_COLUMN, row, DONE].concat()
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("postgresql://payment@{address}/postgres?sslmode=disable"))
}

/// Reads what a client says next.
async fn heard(client: &mut TcpStream) -> usize {
    client.read(&mut [0; 1024]).await.unwrap_or(0)
}

/// What is done with a client that was let in and has asked.
#[derive(Clone)]
enum Then {
    Say(Vec<u8>),
    SayAndClose(Vec<u8>),
    /// Over and over, until nobody listens.
    SayForEver(Vec<u8>),
}

/// Lets everybody in, one after the other.
fn serve(listener: TcpListener, then: Then) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            heard(&mut client).await;
            client.write_all(LETS_IN).await.unwrap();
            heard(&mut client).await;
            match &then {
                Then::Say(bytes) => {
                    drop(client.write_all(bytes).await);
                    // Its goodbye is heard, and its socket closed with it.
                    if bytes.is_empty() {
                        kept.push(client);
                    } else {
                        heard(&mut client).await;
                    }
                }
                Then::SayAndClose(bytes) => drop(client.write_all(bytes).await),
                Then::SayForEver(bytes) => while client.write_all(bytes).await.is_ok() {},
            }
        }
    });
    tasks
}

#[tokio::test]
async fn a_good_answer_is_one_row_with_a_one() {
    let (listener, url) = listener().await;
    let _server = serve(listener, Then::Say(answer(&row(b"1"))));
    let mut probing = Probing::start(&told(&url));
    probing.success().await;
    probing.success().await;
    probing.end().await;
}

#[tokio::test]
async fn another_answer_is_unsupported() {
    let rows = [row(b"2"), row(b""), Vec::new(), [row(b"1"), row(b"1")].concat()];
    for rows in rows {
        let (listener, url) = listener().await;
        let _server = serve(listener, Then::Say(answer(&rows)));
        let failure = Probing::start(&told(&url)).failure().await;
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure:?}");
        assert!(failure.text.contains("SELECT 1 was not answered with 1"), "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_listened_to() {
    // One that says that it is a gigabyte long, rows without end, notices without end.
    let endless = [b"D\x40\0\0\0\0\x01".to_vec(), vec![0; 64 * 1024]].concat();
    let rows = [ONE_COLUMN, &row(b"1").repeat(4096)].concat();
    let notices = b"N\0\0\0\x12SNOTICE\0Mhello\0\0".repeat(4096);
    for said in [endless, rows, notices] {
        let (listener, url) = listener().await;
        let _server = serve(listener, Then::SayForEver(said));
        let failure = Probing::start(&told(&url)).failure().await;
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure:?}");
    }
}

#[tokio::test]
async fn nonsense_is_unsupported_and_an_early_end_is_a_stop() {
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let cases = [
        (http, FailureKind::Unsupported),
        (binary, FailureKind::Unsupported),
        (b"D\0\0\0\x02".to_vec(), FailureKind::Unsupported),
        (DONE[..4].to_vec(), FailureKind::Unsupported),
        (Vec::new(), FailureKind::Stopped),
        (ONE_COLUMN.to_vec(), FailureKind::Stopped),
    ];
    for (said, expected) in cases {
        let (listener, url) = listener().await;
        let _server = serve(listener, Then::SayAndClose(said.clone()));
        let failure = Probing::start(&told(&url)).failure().await;
        assert_eq!(failure.kind, expected, "{said:?}: {failure:?}");
    }
}

#[tokio::test]
async fn a_server_that_lets_in_and_hangs_is_too_slow_and_has_one_socket_of_ours() {
    let (listener, url) = listener().await;
    let mut probing = Probing::start(&hasty(&url));
    let (mut client, _) = listener.accept().await.unwrap();
    heard(&mut client).await;
    client.write_all(LETS_IN).await.unwrap();
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    assert!(failure.text.contains("let in, and no answer"), "{failure:?}");
    for _ in 0..10 {
        probing.held(Some(Held::EarlierOneLives)).await;
    }
    let another = futures_util::FutureExt::now_or_never(listener.accept());
    assert!(another.is_none(), "a second login while the first was not answered");
    // It ends all the same, and the socket with it.
    probing.end().await;
    while heard(&mut client).await > 0 {}
}

#[tokio::test]
async fn a_server_that_never_says_a_word_has_one_socket_of_ours_and_keeps_nobody_from_ending() {
    let (listener, url) = listener().await;
    let mut probing = Probing::start(&hasty(&url));
    let (mut client, _) = listener.accept().await.unwrap();
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    for _ in 0..10 {
        probing.held(Some(Held::EarlierOneLives)).await;
    }
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
    // A server that gives up does it without a word.
    drop(client);
    let failure = probing.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    assert!(failure.text.contains("gave up a login"), "{failure:?}");
    (client, _) = listener.accept().await.unwrap();
    probing.end().await;
    while heard(&mut client).await > 0 {}
}

#[tokio::test]
async fn where_nothing_listens_it_is_stopped() {
    let (listener, url) = listener().await;
    drop(listener);
    let failure = Probing::start(&told(&url)).failure().await;
    assert_eq!(failure.kind, FailureKind::Stopped, "{failure:?}");
    let failure = Probing::start(&told("postgresql://u@no-such-host.invalid/")).failure().await;
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
}
