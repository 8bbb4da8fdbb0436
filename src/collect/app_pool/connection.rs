//! Connections to instances: to an address, with TLS where the URL asks for it, kept from round to
//! round where the instance keeps them too.

use std::future::Ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::TokioIo;
use plimsoll_core::reading::{Failure, FailureKind};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower_service::Service;

use super::failure;
use crate::chain::chain;
use crate::collect::tls;

/// All headers of an answer together. hyper's own default is six times that.
const MAX_HEADERS_BYTES: usize = 64 * 1024;

/// A connection over which one request after another can be sent.
#[derive(Debug)]
pub(super) struct Kept {
    requests: SendRequest<Empty<Bytes>>,
    /// What moves the bytes; ends with this.
    _driver: JoinSet<()>,
}

impl Kept {
    /// Whether the other side has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Sends a request when the connection is ready for it.
    pub(super) async fn send(
        &mut self,
        request: hyper::Request<Empty<Bytes>>,
    ) -> hyper::Result<hyper::Response<Incoming>> {
        self.requests.ready().await?;
        self.requests.send_request(request).await
    }
}

/// Connects to the first of the addresses that lets us.
pub(super) async fn connect(
    uri: &Uri,
    addresses: &[SocketAddr],
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Kept, Failure> {
    let mut refused = failure(FailureKind::Unreachable, "it has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return begin(uri, stream, tls).await,
            Err(error) => refused = why_not(&error),
        }
    }
    Err(refused)
}

fn why_not(error: &io::Error) -> Failure {
    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
    let kind = if is_refused { FailureKind::Stopped } else { FailureKind::Unreachable };
    failure(kind, format!("no connection: {error}"))
}

async fn begin(
    uri: &Uri,
    stream: TcpStream,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Kept, Failure> {
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEADERS_BYTES);
    // A request is one small packet; it is not to wait for another. Without it is only slower.
    drop(stream.set_nodelay(true));
    let mut driver = JoinSet::new();
    let broken = |error: hyper::Error| {
        failure(FailureKind::Failing, format!("no answer: {}", chain(&error)))
    };
    let requests = match tls {
        None => {
            let (requests, connection) =
                http.handshake(TokioIo::new(stream)).await.map_err(broken)?;
            driver.spawn(async move { drop(connection.await) });
            requests
        }
        Some(config) => {
            let mut connector = HttpsConnectorBuilder::new()
                .with_tls_config(ClientConfig::clone(config))
                .https_only()
                .enable_http1()
                .wrap_connector(Given(Some(stream)));
            let stream = connector.call(uri.clone()).await.map_err(|error| {
                let kind = if tls::is_tls(error.as_ref()) {
                    FailureKind::NotAllowed
                } else {
                    FailureKind::Unreachable
                };
                let hint = "; ca_file names other authorities";
                let hint = if kind == FailureKind::NotAllowed { hint } else { "" };
                failure(kind, format!("no TLS connection: {}{hint}", chain(error.as_ref())))
            })?;
            let (requests, connection) = http.handshake(stream).await.map_err(broken)?;
            driver.spawn(async move { drop(connection.await) });
            requests
        }
    };
    Ok(Kept { requests, _driver: driver })
}

/// Gives the TLS layer the connection that was made already.
#[derive(Debug)]
struct Given(Option<TcpStream>);

impl Service<Uri> for Given {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "it was given away already");
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(gone))
    }
}
