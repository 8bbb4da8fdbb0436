//! What `check` says of receivers, and that it sends them nothing.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Ended, run, server, url};

/// Settings for a target and what is given of receivers.
fn configuration(postgres: &str, receivers: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let target =
        format!("instance = \"test\"\n[[targets]]\nname = \"db\"\npostgres = \"{postgres}\"\n");
    std::fs::write(file.path(), target + receivers).unwrap();
    file
}

async fn check(file: &tempfile::NamedTempFile, variables: &[(&str, &str)]) -> (Ended, Value) {
    let state = tempfile::tempdir().unwrap();
    let (config, state) = (file.path().to_str().unwrap(), state.path().to_str().unwrap());
    let arguments = ["check", "--format", "json", "--config", config, "--state-dir", state];
    let ended = run(&arguments, variables).await;
    let json = serde_json::from_str(&ended.stdout).unwrap();
    (ended, json)
}

/// The findings of a receiver as `grade check: text`.
fn said(json: &Value, name: &str) -> Vec<String> {
    let receivers = json["receivers"].as_array().unwrap();
    let receiver = receivers.iter().find(|receiver| receiver["name"] == name).unwrap();
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = receiver["findings"].as_array().unwrap().iter();
    findings
        .map(|f| format!("{} {}: {}", word(f, "grade"), word(f, "check"), word(f, "text")))
        .collect()
}

#[tokio::test]
async fn receivers_are_reached_and_hear_nothing() {
    let server = server(20).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let file = configuration(
        &url(&server),
        &format!(
            "[[receivers]]\nname = \"archive\"\ntype = \"webhook\"\nurl = \"{0}/hook\"\n\
             [[receivers]]\nname = \"on-call\"\ntype = \"pagerduty\"\nbase_url = \"{0}\"\n\
             routing_key = \"0123456789abcdef0123456789abcdef\"\n",
            receiver.url()
        ),
    );
    let (ended, json) = check(&file, &[]).await;
    assert_eq!(ended.code, 0, "{json}");
    assert_eq!(
        said(&json, "archive"),
        [
            "ok reach: it answers; nothing was sent",
            "ok payload: its largest message fits into 20000 bytes"
        ]
    );
    assert_eq!(said(&json, "on-call").len(), 2);
    assert!(receiver.received().is_empty());

    // Nobody listens there any more.
    drop(receiver);
    let (ended, json) = check(&file, &[]).await;
    assert_eq!(ended.code, 1);
    assert!(said(&json, "archive")[0].starts_with("wrong reach: no connection: "), "{json}");
    assert!(json["targets"][0]["findings"][0]["grade"] == "ok", "{json}");
}

#[tokio::test]
async fn labels_that_make_messages_too_large_are_told() {
    let server = server(20).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let labels: Vec<String> = (0..32).map(|n| format!("l{n} = \"{}\"", "ü".repeat(128))).collect();
    let file = configuration(
        &url(&server),
        &format!(
            "labels = {{ {} }}\n[[receivers]]\nname = \"archive\"\ntype = \"webhook\"\nurl = \"{}\"\n",
            labels.join(", "),
            receiver.url()
        ),
    );
    let (ended, json) = check(&file, &[]).await;
    assert_eq!(ended.code, 0);
    let payload = &said(&json, "archive")[1];
    assert!(payload.starts_with("warning payload: a message of db can have "), "{payload}");
}

/// A server that finishes one TLS handshake, and says what it heard after that.
fn tls_server() -> (SocketAddr, JoinHandle<Result<Vec<u8>, String>>) {
    let fixture = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/notify/tls").join(name))
    };
    let certificate = CertificateDer::from_pem_slice(&fixture("receiver.pem").unwrap()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&fixture("receiver.key").unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(|error| error.to_string())?;
        }
        let mut heard = Vec::new();
        // A connection that just closes is an error to TLS; what came before it is kept.
        drop(rustls::Stream::new(&mut tls, &mut tcp).read_to_end(&mut heard));
        Ok(heard)
    });
    (address, heard)
}

/// A proxy that opens tunnels, all of them to one address.
async fn tunnel(listener: TcpListener, to: SocketAddr) {
    let (client, _) = listener.accept().await.unwrap();
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(client.read_line(&mut head).await.unwrap(), 0);
    }
    assert!(head.starts_with("CONNECT receiver.example:443 "), "{head}");
    let mut server = TcpStream::connect(to).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
}

#[tokio::test]
async fn a_certificate_is_looked_at_through_the_proxy_and_nothing_is_said_over_it() {
    let server = server(20).await;
    let receivers = "[[receivers]]\nname = \"archive\"\ntype = \"webhook\"\n\
                     url = \"https://receiver.example/hook\"\n";
    let file = configuration(&url(&server), receivers);
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/notify/tls/ca.pem");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/tls/ca.crt");
    for (roots, is_trusted) in [(authority, true), (other, false)] {
        let (to, heard) = tls_server();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(tunnel(listener, to));
        let roots = roots.display().to_string();
        let variables = [("HTTPS_PROXY", proxy.as_str()), ("SSL_CERT_FILE", roots.as_str())];
        let (ended, json) = check(&file, &variables).await;
        let said = said(&json, "archive").swap_remove(0);
        let heard = heard.join().unwrap();
        if is_trusted {
            assert_eq!(ended.code, 0, "{json}");
            assert_eq!(said, "ok reach: it answers and its certificate is good; nothing was sent");
            assert_eq!(heard, Ok(Vec::new()));
        } else {
            assert_eq!(ended.code, 1, "{json}");
            assert!(said.contains("invalid peer certificate"), "{said}");
            assert!(
                json["receivers"][0]["findings"][0]["hint"].as_str().unwrap().contains("authority")
            );
            assert_eq!(heard.unwrap_or_default(), Vec::<u8>::new());
        }
    }
}

#[tokio::test]
async fn a_proxy_for_http_is_all_that_is_reached() {
    let server = server(20).await;
    let receivers = "[[receivers]]\nname = \"archive\"\ntype = \"webhook\"\n\
                     url = \"http://receiver.example/hook\"\n";
    let file = configuration(&url(&server), receivers);
    let proxy = Receiver::start(Behaviour::status(200)).await.unwrap();
    let (ended, json) = check(&file, &[("HTTP_PROXY", &proxy.url())]).await;
    assert_eq!(ended.code, 0);
    let said = said(&json, "archive").swap_remove(0);
    assert_eq!(said, "ok reach: its proxy answers; what is behind that was not tried");
    assert!(proxy.received().is_empty());
}
