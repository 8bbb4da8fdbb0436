//! Answers that are no metrics: each is a failure of that instance, which says what it was, in the
//! same round in which a sound one beside it is read.

use plimsoll_core::reading::FailureKind::{self, Failing, NotAllowed, TooSlow, Unsupported};

use super::world::{Answer, GO_SQL, HIKARI, Rogue, World, ok, pools, why};

/// Twice the bytes that are read of one answer, in lines that can be read.
fn lines() -> Vec<u8> {
    "go_sql_in_use_connections{db_name=\"kine\"} 1\n".repeat(1000).into_bytes()
}

fn head(more: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{more}\r\n").into_bytes()
}

fn with(head: impl AsRef<[u8]>, body: &[u8]) -> Vec<u8> {
    [head.as_ref(), body].concat()
}

fn status(line: &str) -> Answer {
    let location = "location: http://127.0.0.1:9/c4n4ry7Zq9";
    Answer::Bytes(
        format!("HTTP/1.1 {line}\r\n{location}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
    )
}

/// Each alone beside a sound instance.
async fn check(answers: Vec<(&str, Answer, FailureKind, &str)>, timeout: &str) {
    let sound = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let mut urls = vec![format!("\"http://{}/metrics\"", sound.address)];
    let mut rogues = Vec::new();
    for (name, answer, kind, said) in answers {
        let rogue = Rogue::start(answer).await;
        urls.push(format!("\"http://{}/metrics?token=c4n4ry7Zq9\"", rogue.address));
        rogues.push((name, rogue, kind, said));
    }
    let world = World::start(&format!(
        "scrape = [{}]\ninterval = \"{timeout}\"\ntimeout = \"{timeout}\"",
        urls.join(", ")
    ));
    let seen = world.round().await;
    assert_eq!(pools(&seen, &sound.address).len(), 1, "the sound one is read in the same round");
    for (name, rogue, kind, said) in &rogues {
        let (found, text) = why(&seen, &rogue.address);
        assert!(text.contains(said), "{name}: {text}");
        assert_eq!(found, *kind, "{name}: {text}");
    }
    assert!(!format!("{seen:?}").contains("c4n4ry"), "{seen:?}");
    world.end().await;
}

#[tokio::test]
async fn what_is_no_page_of_metrics_says_what_it_was() {
    let html = head("content-type: text/html; charset=utf-8\r\ncontent-length: 6\r\n");
    let undeclared = "<!DOCTYPE html><html><body>Sign in</body></html>";
    let openmetrics =
        head("content-type: application/openmetrics-text; version=1.0.0\r\ncontent-length: 5\r\n");
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let torn = with(head("content-length: 4000\r\n"), b"go_sql_in_use_connections 1\ngo_s");
    let torn_chunk = with(head("transfer-encoding: chunked\r\n"), b"1000\r\ngo_sql");
    let gzip = head("content-encoding: gzip\r\ncontent-length: 2\r\n");
    check(
        vec![
            ("html", Answer::Bytes(with(html, b"<html>")), Unsupported, "HTML"),
            ("undeclared html", Answer::Bytes(ok(undeclared)), Unsupported, "looks like HTML"),
            ("json", Answer::Bytes(ok("{\"a\": 1}")), Unsupported, "line 1 is no metric"),
            ("nothing", Answer::Bytes(ok("")), Unsupported, "it shows no metric at all"),
            ("no pools", Answer::Bytes(ok("up 1\n")), Unsupported, "of no connection pool"),
            (
                "binary",
                Answer::Bytes(with(head("content-length: 4096\r\n"), &binary)),
                Unsupported,
                "line 1 is no metric",
            ),
            (
                "torn openmetrics",
                Answer::Bytes(with(openmetrics, b"up 1\n")),
                Unsupported,
                "it ends without # EOF",
            ),
            ("gzip", Answer::Bytes(with(gzip, b"\x1f\x8b")), Unsupported, "compressed"),
            ("half an answer", Answer::Last(torn), Failing, "its answer breaks off"),
            ("half a chunk", Answer::Last(torn_chunk), Failing, "its answer breaks off"),
            ("no http", Answer::Last(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Failing, "no answer"),
            ("closed", Answer::Last(Vec::new()), Failing, "no answer"),
            ("redirect", status("302 Found"), Unsupported, "302 Found: redirects are not followed"),
            ("no page", status("404 Not Found"), Unsupported, "404 Not Found: is the path right?"),
            ("who", status("401 Unauthorized"), NotAllowed, "401 Unauthorized: it wants to know"),
            ("no", status("403 Forbidden"), NotAllowed, "403 Forbidden"),
            ("fault", status("503 Service Unavailable"), Failing, "503 Service Unavailable"),
            ("no content", status("204 No Content"), Unsupported, "204 No Content"),
        ],
        "20s",
    )
    .await;
}

/// A gigabyte in each form: announced, counted, one line, headers; none of it is held.
#[tokio::test]
async fn a_gigabyte_is_given_up() {
    let chunk = lines();
    let chunked = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
    let announced = head("content-length: 1073741824\r\n");
    let one_line = vec![b'x'; 16 * 1024];
    check(
        vec![
            (
                "announced",
                Answer::Endless(announced, lines()),
                Unsupported,
                "its answer is longer than 16 MB",
            ),
            (
                "chunked",
                Answer::Endless(head("transfer-encoding: chunked\r\n"), chunked),
                Unsupported,
                "its answer is longer than 16 MB",
            ),
            (
                "until it is closed",
                Answer::Endless(head(""), lines()),
                Unsupported,
                "its answer is longer than 16 MB",
            ),
            (
                "one line",
                Answer::Endless(head(""), one_line.clone()),
                Unsupported,
                "line 1 is longer than 64 kB",
            ),
            ("headers", Answer::Endless(head("")[..17].to_vec(), one_line), Failing, "no answer"),
        ],
        "50s",
    )
    .await;
}

/// A round ends when its time is over, for each of them.
#[tokio::test]
async fn whoever_hangs_or_drips_is_too_slow() {
    let stalled = with(head("content-length: 4000\r\n"), &HIKARI.as_bytes()[..100]);
    check(
        vec![
            ("silent", Answer::Hang, TooSlow, "no answer within 2s"),
            ("dripping head", Answer::Drip(b"HTTP/1.1 200 OK\r\n".to_vec()), TooSlow, "no answer"),
            (
                "dripping body",
                Answer::Drip(with(head(""), b"up 1\n")),
                TooSlow,
                "no end of its answer within 2s",
            ),
            ("half a body", Answer::Bytes(stalled), TooSlow, "no end of its answer within 2s"),
        ],
        "2s",
    )
    .await;
}
