//! Clients that send too much, too little or nothing, that do not read, that come in crowds, or
//! that are still there at the end: none of them costs more than its bound.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use plimsoll::serve::limits::{MAX_CONNECTIONS, MAX_HEADER_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::site::{DEADLINE, Reply, Running, Site};

/// Between two looks at something that takes seconds.
const A_WHILE: Duration = Duration::from_millis(200);

/// Everything until the server closes; a reset counts as closed.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut said)).await;
    read.expect("closed in time").ok();
    String::from_utf8(said).unwrap()
}

/// One number of `/metrics` now.
async fn metric(server: &Running, series: &str) -> usize {
    number(&server.get("/metrics").await.body, series)
}

/// One number of an answer of `/metrics`.
fn number(body: &str, series: &str) -> usize {
    let value = body.lines().find_map(|line| line.strip_prefix(series)).expect(series);
    value.trim().parse().unwrap()
}

#[tokio::test]
async fn keeps_a_connection_for_the_next_request() {
    let server = Running::start(Site::one_target()).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(Reply::read(&mut stream, false).await.code, 200);
    }
}

#[tokio::test]
async fn refuses_headers_that_are_too_long() {
    let server = Running::start(Site::one_target()).await;
    let mut request = b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec();
    request.resize(MAX_HEADER_BYTES, b'x');
    let mut stream = server.connect().await;
    stream.write_all(&request).await.unwrap();
    let said = until_closed(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{said}");

    // Of 100 kB most is never read, so the answer may be lost in the reset.
    request.resize(100_000, b'x');
    let mut stream = server.connect().await;
    stream.write_all(&request).await.ok();
    let said = until_closed(&mut stream).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{said}");
    assert_eq!(server.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn refuses_what_is_no_request() {
    let server = Running::start(Site::one_target()).await;
    for nonsense in ["\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", "SSH-2.0-x\r\n\r\n", "GET\r\n\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        let said = until_closed(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{nonsense:?}: {said}");
    }
}

#[tokio::test]
async fn closes_whoever_sends_half_a_request_nothing_or_nothing_more() {
    let server = Running::start(Site::one_target()).await;
    let mut half = server.connect().await;
    half.write_all(b"GET /metrics HTTP/1.1\r\nhost:").await.unwrap();
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(Reply::read(&mut idle, false).await.code, 200);
    for stream in [&mut half, &mut silent, &mut idle] {
        assert_eq!(until_closed(stream).await, "");
    }
    let closed = "plimsoll_http_dropped_connections_total{reason=\"silent\"}";
    assert!(metric(&server, closed).await >= 2, "half and silent are counted");
}

#[tokio::test]
async fn answers_a_scrape_among_a_thousand_idle_sockets() {
    // Both ends are in this process, and some systems allow 1,024 files at first.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();

    let server = Running::start(Site::one_target()).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(server.connect().await);
    }
    let body = server.get("/metrics").await.body;
    assert_eq!(number(&body, "plimsoll_http_connections"), MAX_CONNECTIONS);
    let crowded = "plimsoll_http_dropped_connections_total{reason=\"crowded\"}";
    assert_eq!(number(&body, crowded), 1001 - MAX_CONNECTIONS, "the scrape has a seat too");
    // The first came first, and has asked for nothing: its seat is gone.
    assert_eq!(until_closed(&mut idle[0]).await, "");
}

#[tokio::test]
async fn takes_the_seat_of_whoever_was_without_a_request_for_longest() {
    let server = Running::start(Site::one_target()).await;
    let mut scraper = server.connect().await;
    let mut idle = vec![server.connect().await];
    for _ in 1..MAX_CONNECTIONS - 1 {
        idle.push(server.connect().await);
    }
    // All seats are taken; the scraper sits longest, but has just asked.
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    scraper.write_all(request).await.unwrap();
    assert_eq!(Reply::read(&mut scraper, false).await.code, 200);
    let _newcomer = server.connect().await;
    assert_eq!(until_closed(&mut idle[0]).await, "");
    scraper.write_all(request).await.unwrap();
    assert_eq!(Reply::read(&mut scraper, false).await.code, 200);
}

/// Asks for more than any send buffer holds (4 MB by default), in few bytes, and reads nothing.
/// Returns once the server has to wait.
async fn client_that_does_not_read(server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2_000);
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answered = "plimsoll_http_requests_total{route=\"/metrics\",code=\"200\"}";
    let waits = async {
        let mut before = 0;
        // Between two looks nothing was answered but the first look itself.
        while before == 0 || metric(server, answered).await > before + 1 {
            before = metric(server, answered).await;
            sleep(A_WHILE).await;
        }
    };
    timeout(DEADLINE, waits).await.expect("the buffers are full in time");
    stream
}

/// Until a client was closed because it did not read.
async fn stall_is_seen(server: &Running) {
    let stalled = "plimsoll_http_dropped_connections_total{reason=\"stalled\"}";
    let seen = async {
        while metric(server, stalled).await == 0 {
            sleep(A_WHILE).await;
        }
    };
    timeout(DEADLINE, seen).await.expect("the stall is seen in time");
}

#[tokio::test]
async fn closes_a_client_that_does_not_read() {
    let server = Running::start(Site::one_target()).await;
    let mut stream = client_that_does_not_read(&server).await;
    stall_is_seen(&server).await;
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn goes_on_after_an_answer_that_panics() {
    let mut site = Site::one_target();
    site.incidents = Arc::new(|_| panic!("a fault in the reader"));
    let server = Running::start(site).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /api/v1/incidents HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(until_closed(&mut stream).await, "");
    assert_eq!(server.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn ends_after_the_answers_that_are_under_way() {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut site = Site::one_target();
    let signals = (Arc::clone(&asked), Arc::clone(&go_on));
    site.incidents = Arc::new(move |_| {
        let (asked, go_on) = signals.clone();
        async move {
            asked.notify_one();
            go_on.notified().await;
            Ok(Vec::new())
        }
        .boxed()
    });
    let mut server = Running::start(site).await;
    let mut under_way = server.connect().await;
    under_way.write_all(b"GET /api/v1/incidents HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    asked.notified().await;
    let mut kept_alive = server.connect().await;
    kept_alive.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(Reply::read(&mut kept_alive, false).await.code, 200);

    server.stop.take().unwrap().send(()).unwrap();
    assert_eq!(until_closed(&mut kept_alive).await, "");
    go_on.notify_one();
    let reply = Reply::read(&mut under_way, false).await;
    assert_eq!((reply.code, reply.body.as_str()), (200, "{\"incidents\":[]}\n"));
    assert_eq!(until_closed(&mut under_way).await, "");
    timeout(DEADLINE, server.task.join_next()).await.expect("ends").unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn does_not_wait_at_the_end_for_who_never_ends() {
    let goes_on = Running::start(Site::one_target()).await;
    let mut ends = Running::start(Site::one_target()).await;
    let _there = client_that_does_not_read(&goes_on).await;
    let mut here = client_that_does_not_read(&ends).await;
    ends.stop.take().unwrap().send(()).unwrap();
    // The drain is shorter than what a client that does not read is given otherwise.
    tokio::select! {
        biased;
        ended = timeout(DEADLINE, ends.task.join_next()) => ended.unwrap().unwrap().unwrap(),
        () = stall_is_seen(&goes_on) => panic!("the drain takes as long as the client"),
    }
    until_closed(&mut here).await;
}
