//! Proxies: spoken to in absolute form for `http`, through a tunnel for `https`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper_util::client::proxy::matcher::Matcher;
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::notify::http::Client;
use plimsoll_core::judge::telling::NotificationKind::Trigger;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::world::{World, client, notification, webhook};

/// `user:proxy-password`.
const CREDENTIALS: &str = "Basic dXNlcjpwcm94eS1wYXNzd29yZA==";

/// A proxy that opens tunnels and nothing else, all of them to one address, and keeps the heads of
/// the requests.
struct TunnelProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl TunnelProxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&heads);
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                tunnels.spawn(tunnel(client, to, Arc::clone(&kept)));
            }
        });
        Self { address, heads, _tasks: tasks }
    }
}

async fn tunnel(client: TcpStream, to: SocketAddr, heads: Arc<Mutex<Vec<String>>>) {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    let allowed = head.starts_with("CONNECT ") && head.contains(CREDENTIALS);
    heads.lock().unwrap().push(head);
    if !allowed {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        return;
    }
    let mut server = TcpStream::connect(to).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
}

/// A server that takes one request over TLS and answers 200; its address and what it was sent.
fn tls_server() -> (SocketAddr, std::thread::JoinHandle<String>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/receiver.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/receiver.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&request).ends_with('}') {
            let read = stream.read(&mut chunk).unwrap();
            request.extend_from_slice(&chunk[..read]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, served)
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let (server, serving) = tls_server();
    let proxy = TunnelProxy::start(server).await;
    let url = format!("http://user:proxy-password@{}", proxy.address);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(include_bytes!("tls/ca.pem")).unwrap()).unwrap();
    let client = Client::new(roots, Matcher::builder().https(url).build());
    let settings = [webhook("archive", "https://receiver.example/hook")];
    let world = World::start_with(&settings, client);
    world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
    world.until_sent("archive").await;

    let heads = proxy.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("CONNECT receiver.example:443 HTTP/1.1\r\n"), "{}", heads[0]);
    let request = serving.join().unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    assert!(!request.contains(CREDENTIALS), "the receiver is none of the proxy's users");
}

#[tokio::test]
async fn http_is_sent_to_the_proxy_in_absolute_form() {
    // The recording receiver is the proxy.
    let proxy = Receiver::start(Behaviour::status(200)).await.unwrap();
    let direct = Receiver::start(Behaviour::status(200)).await.unwrap();
    let url = format!("http://user:proxy-password@{}", proxy.address());
    let proxies = Matcher::builder().http(url).no("inside.example").build();
    let settings = [
        webhook("outside", "http://receiver.example:8080/hook?a=b"),
        webhook("loopback", &format!("{}/hook", direct.url())),
    ];
    let world = World::start_with(&settings, client(proxies));
    let both = ["outside", "loopback"].map(|name| notification(name, "k", 1, Trigger));
    world.owe(both.to_vec()).await;
    world.until_sent("outside").await;
    world.until_sent("loopback").await;

    let (outside, others) = (proxy.received(), direct.received());
    assert_eq!((outside.len(), others.len()), (1, 1));
    assert_eq!(outside[0].path, "http://receiver.example:8080/hook?a=b");
    assert_eq!(outside[0].header("host"), "receiver.example:8080");
    assert_eq!(outside[0].header("proxy-authorization"), CREDENTIALS);
    assert_eq!((others[0].path.as_str(), others[0].header("proxy-authorization")), ("/hook", ""));
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_none_is_tried_again_and_its_password_is_not_shown() {
    let (server, _serving) = tls_server();
    let proxy = TunnelProxy::start(server).await;
    let check = async |url: String, expected: &str| {
        let proxies = Matcher::builder().all(url).build();
        let settings = [webhook("archive", "https://receiver.example/hook")];
        let world = World::start_with(&settings, client(proxies));
        world.owe(vec![notification("archive", "k", 1, Trigger)]).await;
        let error = world.first_failure("archive").await.last_error.unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("wrong-password"), "{error}");
    };
    let refused = format!("http://user:wrong-password@{}", proxy.address);
    check(refused, "proxy authorization required").await;
    let socks = format!("socks5://user:wrong-password@{}", proxy.address);
    check(socks, "the proxy that the environment names is no http:// proxy").await;
}
