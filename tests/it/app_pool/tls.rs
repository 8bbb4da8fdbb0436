//! Instances behind TLS, with a real TLS server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use plimsoll_core::reading::FailureKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::world::{GO_SQL, World, ok, pools};

/// A server for `localhost` that answers every request on every connection; its port.
fn tls_server() -> u16 {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/instance.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/instance.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (mut tcp, config) = (tcp.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                let mut tls = rustls::ServerConnection::new(config).unwrap();
                let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
                let (mut head, mut byte) = (Vec::new(), [0]);
                // A client that does not accept the certificate says so and goes away.
                while stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        stream.write_all(&ok(GO_SQL)).unwrap();
                    }
                }
            });
        }
    });
    port
}

fn ca_file(name: &str) -> String {
    format!("{}/tests/it/{name}", env!("CARGO_MANIFEST_DIR"))
}

const PATIENT: &str = "interval = \"30s\"\ntimeout = \"30s\"";

#[tokio::test]
async fn a_certificate_is_accepted_for_its_name_and_authority_alone() {
    let port = tls_server();
    let of_name = format!("scrape = [\"https://localhost:{port}/metrics\"]\n{PATIENT}");
    let of_address = format!("scrape = [\"https://127.0.0.1:{port}/metrics\"]\n{PATIENT}");
    let own = format!("ca_file = \"{}\"", ca_file("app_pool/tls/ca.pem"));

    let world = World::start(&format!("{of_name}\n{own}"));
    assert_eq!(pools(&*world.round().await, &format!("localhost:{port}")).len(), 1);
    // With an address in place of the name, which is still what the certificate is for.
    let world = World::start(&format!("{of_name}\n{own}\ndns = true"));
    assert_eq!(pools(&*world.round().await, &format!("127.0.0.1:{port}")).len(), 1);

    let other = format!("ca_file = \"{}\"", ca_file("notify/tls/ca.pem"));
    for (keys, said) in [
        (format!("{of_address}\n{own}"), "not valid for name"),
        // Another authority of the same name.
        (format!("{of_name}\n{other}"), "BadSignature"),
        (of_name.clone(), "UnknownIssuer"),
    ] {
        let failure = World::start(&keys).failure().await;
        assert_eq!(failure.kind, FailureKind::NotAllowed, "{failure:?}");
        assert!(failure.text.contains(said), "{failure:?}");
        assert!(failure.text.ends_with("ca_file names other authorities"), "{failure:?}");
    }
    for (file, said) in [
        ("no-such-file.pem", "cannot be opened"),
        ("tests/it/app_pool/tls/README.md", "holds no certificate"),
    ] {
        let file = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let failure = World::start(&format!("{of_name}\nca_file = \"{file}\"")).failure().await;
        assert_eq!(failure.kind, FailureKind::NotAllowed, "{failure:?}");
        assert!(failure.text.contains(said), "{failure:?}");
    }
}
