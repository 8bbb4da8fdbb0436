//! The routes of the HTTP server, over real sockets: what each answers, and in which form.

mod crowd;
mod site;

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use insta::{assert_json_snapshot, assert_snapshot};
use plimsoll::health::ReceiverHealth;
use plimsoll::serve::limits::INCIDENT_READ_LIMIT;
use plimsoll::serve::{IncidentQuery, IncidentReader, bind};
use serde_json::Value;
use site::{Reply, Running, Site, incident, read};

fn parsed(reply: &Reply) -> Value {
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn lists_targets() {
    let server = Running::start(Site::one_target()).await;
    let reply = server.get("/api/v1/targets").await;
    assert_eq!(reply.code, 200);
    assert_json_snapshot!("targets", parsed(&reply));
}

#[tokio::test]
async fn shows_one_target_by_its_escaped_name() {
    let mut site = Site::one_target();
    site.watch(read("a/b é"));
    let server = Running::start(site).await;
    let reply = server.get("/api/v1/targets/payment-db-primary").await;
    assert_eq!(reply.code, 200);
    assert_json_snapshot!("target", parsed(&reply));

    let reply = server.get("/api/v1/targets/a%2Fb%20%C3%A9").await;
    assert_eq!((reply.code, &parsed(&reply)["name"]), (200, &Value::from("a/b é")));
    let reply = server.get("/api/v1/targets/no%0Asuch").await;
    assert_eq!(reply.code, 404);
    assert_snapshot!(reply.body, @r#"{"error":"no target is named \"no\\nsuch\""}"#);
    let reply = server.get("/api/v1/targets/%ff").await;
    assert_eq!(reply.code, 400);
    assert_snapshot!(reply.body, @r#"{"error":"the path is not percent-encoded UTF-8"}"#);
}

#[tokio::test]
async fn lists_incidents_newest_first_with_the_open_one_as_published() {
    let mut site = Site::one_target();
    // The record is a little behind: it knows an older severity of the open incident.
    let mut behind = incident("bbbb", "2024-03-15T14:38:50Z");
    behind.severity = "warning".to_owned();
    let older = incident("aaaa", "2024-03-10T09:00:00Z");
    let asked = site.record(vec![older, behind]);
    site.change(|published| {
        published.status.incident = Some(incident("bbbb", "2024-03-15T14:38:50Z"));
    });
    let server = Running::start(site).await;
    let reply = server.get("/api/v1/incidents").await;
    assert_eq!(reply.code, 200);
    assert_json_snapshot!("incidents", parsed(&reply));

    let ids = |reply: &Reply| -> Vec<String> {
        let incidents = parsed(reply)["incidents"].clone();
        let ids = incidents.as_array().unwrap().iter();
        ids.map(|incident| incident["id"].as_str().unwrap().to_owned()).collect()
    };
    let reply = server.get("/api/v1/incidents?limit=1").await;
    assert_eq!(ids(&reply), ["bbbb"]);
    let reply = server.get("/api/v1/incidents?target=payment-db-primary&limit=9").await;
    assert_eq!(ids(&reply), ["bbbb", "aaaa"]);
    let newest = |target: Option<&str>, limit| {
        let target = target.map(str::to_owned);
        IncidentQuery::Newest { target, limit }
    };
    let expected = [newest(None, 50), newest(None, 1), newest(Some("payment-db-primary"), 9)];
    assert_eq!(*asked.lock().unwrap(), expected);

    let reply = server.get("/api/v1/incidents?target=another").await;
    assert_eq!(ids(&reply), [""; 0]);
    let reply = server.get("/api/v1/incidents?limit=many").await;
    assert_eq!(reply.code, 400);
    assert_snapshot!(reply.body, @r#"{"error":"`limit` is not a number from 1 to 500"}"#);
}

#[tokio::test]
async fn shows_one_incident() {
    let mut site = Site::one_target();
    let asked = site.record(vec![incident("aaaa", "2024-03-10T09:00:00Z")]);
    let server = Running::start(site).await;
    let reply = server.get("/api/v1/incidents/aaaa").await;
    assert_eq!(reply.code, 200);
    assert_json_snapshot!("incident", parsed(&reply));
    assert_eq!(*asked.lock().unwrap(), [IncidentQuery::One { id: "aaaa".to_owned() }]);
    let reply = server.get("/api/v1/incidents/cccc").await;
    assert_eq!(reply.code, 404);
    assert_snapshot!(reply.body, @r#"{"error":"no incident has the id \"cccc\""}"#);
}

#[tokio::test]
async fn shows_open_incidents_while_the_record_cannot_be_read() {
    let stalls: IncidentReader = Arc::new(|_| std::future::pending().boxed());
    let fails: IncidentReader =
        Arc::new(|_| async { Err("reading incidents: disk I/O error".to_owned()) }.boxed());
    let stalled = format!(
        "reading the recorded incidents took longer than {} s",
        INCIDENT_READ_LIMIT.as_secs()
    );
    for (reader, error) in [(fails, "reading incidents: disk I/O error"), (stalls, &stalled)] {
        let mut site = Site::one_target();
        site.incidents = reader;
        site.change(|published| {
            published.status.incident = Some(incident("bbbb", "2024-03-15T14:38:50Z"));
        });
        let server = Running::start(site).await;
        let reply = server.get("/api/v1/incidents").await;
        assert_eq!(reply.code, 503);
        assert_eq!(parsed(&reply)["error"], error);
        assert_eq!(parsed(&reply)["incidents"][0]["id"], "bbbb");
        assert_eq!(server.get("/api/v1/incidents/bbbb").await.code, 200);
        let reply = server.get("/api/v1/incidents/aaaa").await;
        assert_eq!((reply.code, &parsed(&reply)["error"]), (503, &Value::from(error)));
    }
}

#[tokio::test]
async fn says_whether_it_does_its_work() {
    let site = Site::one_target();
    let health = site.health.clone();
    let server = Running::start(site).await;
    let reply = server.get("/healthz").await;
    assert_eq!(reply.code, 200);
    assert_snapshot!(reply.body, @r#"{"status":"ok"}"#);

    health.values().loops.get_mut("payment-db-primary").unwrap().blind = true;
    let reply = server.get("/healthz").await;
    assert_eq!(reply.code, 503);
    let reason = "target payment-db-primary: nobody watches it: its loop panicked too often \
                  (0 restarts)";
    let expected = serde_json::json!({"status": "failing", "reasons": [reason]});
    assert_eq!(parsed(&reply), expected);
}

#[tokio::test]
async fn is_ready_once_every_target_was_read() {
    let mut site = Site::one_target();
    site.watch(site::unread("second"));
    let second = site.publisher("second");
    let server = Running::start(site).await;
    let reply = server.get("/readyz").await;
    assert_eq!(reply.code, 503);
    assert_snapshot!(reply.body, @r#"{"status":"starting","waiting_for":["second"]}"#);
    second.send_replace(Arc::new(site::failed("second")));
    let reply = server.get("/readyz").await;
    assert_eq!(reply.code, 200);
    assert_snapshot!(reply.body, @r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn shows_other_targets_after_a_reload() {
    let mut site = Site::one_target();
    let reload = site.reloader();
    let server = Running::start(site).await;
    assert_eq!(server.get("/api/v1/targets/second").await.code, 404);
    let mut after = Site::one_target();
    after.watch(read("second"));
    reload.send_replace(after.targets());
    assert_eq!(server.get("/api/v1/targets/second").await.code, 200);
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("plimsoll_targets 2\n"), "{metrics}");
}

#[tokio::test]
async fn answers_scrapes_from_what_was_published() {
    let server = Running::start(Site::one_target()).await;
    assert_eq!(server.get("/nowhere").await.code, 404);
    let reply = server.get("/metrics").await;
    assert_eq!(reply.code, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "plimsoll_slots_used{target=\"payment-db-primary\"} 46",
        "plimsoll_slots_free{target=\"payment-db-primary\"} 1",
        "plimsoll_http_requests_total{route=\"unknown\",code=\"404\"} 1",
        "plimsoll_http_connections 1",
    ] {
        assert!(reply.body.lines().any(|it| it == line), "{line} is not in\n{}", reply.body);
    }
}

#[tokio::test]
async fn shows_a_page_in_which_nothing_hostile_works() {
    let mut site = Site::one_target();
    let mut hostile = read("<script>alert(1)</script>");
    hostile.status.sources[0].error = Some("\"><img src=x onerror=alert(1)>\u{202e}".to_owned());
    site.watch(hostile);
    site.watch(site::unread("second"));
    site.change(|published| {
        let mut open = incident("bbbb", "2024-03-15T14:38:50Z");
        open.summary = "<b>46</b> of 47 usable slots in use & rising".to_owned();
        published.status.incident = Some(open);
    });
    let refuses = ReceiverHealth {
        owed: 2,
        oldest_owed_at: Some(site::at("2024-03-15T14:38:00Z")),
        parked: vec!["0123456789abcdef: answered 404 <b>gone</b>".to_owned()],
        last_error: Some("answered 503".to_owned()),
        ..ReceiverHealth::default()
    };
    site.health.values().receivers.insert("on-call".to_owned(), refuses);
    let server = Running::start(site).await;
    let reply = server.get("/").await;
    assert_eq!(reply.code, 200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_snapshot!("page", reply.body);
}

#[tokio::test]
async fn refuses_what_is_not_there() {
    let server = Running::start(Site::one_target()).await;
    for path in
        ["/nowhere", "/metrics/", "/api/v1/targets/", "/api/v1/targets/a/b", "/api/v1", "//"]
    {
        let reply = server.get(path).await;
        assert_eq!(reply.code, 404, "{path}");
        assert_eq!(parsed(&reply)["error"], "no such path; `/` names those that there are");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
        let reply = server.ask(&format!("{method} /metrics HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!((reply.code, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(parsed(&reply)["error"], "this path answers GET and HEAD only");
    }
    let reply =
        server.ask("GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(reply.code, 413);
    assert_snapshot!(reply.body, @r#"{"error":"no request here takes a body"}"#);
}

#[tokio::test]
async fn answers_head_without_a_body_and_every_answer_is_for_now() {
    let server = Running::start(Site::one_target()).await;
    let paths = ["/", "/metrics", "/healthz", "/readyz", "/api/v1/targets", "/api/v1/incidents"];
    for path in paths {
        let whole = server.get(path).await;
        let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        let length = |reply: &Reply| reply.header("content-length").unwrap().parse::<usize>();
        assert!(length(&head).unwrap() > 0, "{path}");
        assert_eq!(length(&whole).unwrap(), whole.body.len(), "{path}");
        for reply in [whole, head] {
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        }
    }
}

#[tokio::test]
async fn says_that_a_port_is_taken() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("listening on {address}: the port is taken"));
    assert!(error.hint().contains(&format!("sport = :{}", address.port())), "{}", error.hint());
    // Documentation addresses (RFC 5737) belong to no machine.
    let error = bind("192.0.2.1:0".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "listening on 192.0.2.1:0");
    assert!(error.hint().starts_with("192.0.2.1 is no address of this machine"));
}

/// What the incident reader was asked.
type Asked = Arc<Mutex<Vec<IncidentQuery>>>;
