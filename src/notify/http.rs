//! One HTTP client for all receivers: one POST, one bounded answer, one deadline.
//!
//! It follows no redirect, keeps no connection and retries nothing: that is the sender's. Proxies
//! come from the environment; what is on the loopback address is reached directly.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::connector::Connector;

/// So much of an answer's body is read: enough for an error in words, and for `retry_after`.
pub const MAX_ANSWER: usize = 16 * 1024;

/// Once the status is known, the body is waited for no longer than this: a receiver that has
/// accepted a page and drips its answer must not look like one that has not.
const BODY_WAIT: Duration = Duration::from_secs(2);

/// All headers of an answer together. hyper's own default is twenty times that.
const MAX_HEADERS: usize = 64 * 1024;

/// A request: always a POST of JSON.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to; an `http` or `https` URL without user and password.
    pub uri: Uri,
    /// Headers beside `Content-Type` and `User-Agent`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, cut at [`MAX_ANSWER`].
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody said anything in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The connection could not be made, or broke.
    #[error("no connection")]
    Connection(#[source] legacy::Error),
    /// The answer could not be read as HTTP.
    #[error("no answer")]
    Answer(#[source] legacy::Error),
    /// The request could not be put together.
    #[error("the request cannot be sent")]
    Request(#[source] hyper::http::Error),
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nobody said anything in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// It was refused, broke, or its TLS could not be trusted.
    #[error("no connection")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends requests. A clone shares its configuration.
#[derive(Clone, Debug)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<Connector>, Full<Bytes>>,
    connector: HttpsConnector<Connector>,
    proxies: Arc<Matcher>,
}

impl Client {
    /// A client with the certificate authorities of this machine and the proxies that the
    /// environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    pub fn from_environment() -> Self {
        Self::new(roots_of_this_machine(), Matcher::from_env())
    }

    /// A client that trusts these roots and uses these proxies.
    pub fn new(roots: RootCertStore, proxies: Matcher) -> Self {
        let proxies = Arc::new(proxies);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(roots))
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(Arc::clone(&proxies)));
        let inner = legacy::Client::builder(TokioExecutor::new())
            // Pages are rare: a kept connection would be found dead when it matters.
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .http1_max_buf_size(MAX_HEADERS)
            .build(connector.clone());
        Self { inner, connector, proxies }
    }

    /// Posts, and reads the answer as far as it is of use. The whole takes `timeout` at most.
    pub async fn post(&self, request: Request, timeout: Duration) -> Result<Answer, HttpError> {
        let deadline = tokio::time::sleep(timeout);
        tokio::select! {
            answer = self.exchange(request) => answer,
            () = deadline => Err(HttpError::TimedOut(timeout)),
        }
    }

    /// Makes the connection that a POST would go over, TLS and all, and closes it: nothing is sent
    /// over it. True if it ends at a proxy, which was not asked to go on.
    pub(super) async fn reach(&self, uri: &Uri, timeout: Duration) -> Result<bool, ReachError> {
        let mut connector = self.connector.clone();
        let reaching = async {
            std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(uri.clone()).await.map(drop)
        };
        match tokio::time::timeout(timeout, reaching).await {
            Ok(Ok(())) => {
                let is_plain = uri.scheme_str() == Some("http");
                Ok(is_plain && proxy_for(&self.proxies, uri).is_some())
            }
            Ok(Err(source)) => Err(ReachError::Connection(source)),
            Err(_) => Err(ReachError::TimedOut(timeout)),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Answer, HttpError> {
        let request = self.prepare(request).map_err(HttpError::Request)?;
        let response = self.inner.request(request).await.map_err(|error| {
            if error.is_connect() { HttpError::Connection(error) } else { HttpError::Answer(error) }
        })?;
        let (head, body) = response.into_parts();
        let body = read_some(body).await;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn prepare(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
        let mut built = hyper::Request::builder()
            .method(Method::POST)
            .uri(request.uri.clone())
            .body(Full::new(request.body))?;
        let headers = built.headers_mut();
        *headers = request.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("plimsoll/", env!("CARGO_PKG_VERSION"))),
        );
        // Through a tunnel the proxy is told while it is opened, and the receiver never.
        if request.uri.scheme_str() == Some("http")
            && let Some(proxy) = proxy_for(&self.proxies, &request.uri)
            && let Some(authorization) = proxy.basic_auth()
        {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(built)
    }
}

/// Never the process's default provider: with two in the tree that panics.
fn tls(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The proxy through which a URL is reached. The loopback address never has one, as in Go.
pub(super) fn proxy_for(
    proxies: &Matcher,
    uri: &Uri,
) -> Option<hyper_util::client::proxy::matcher::Intercept> {
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback { None } else { proxies.intercept(uri) }
}

/// Reads a body until it ends, is too long, breaks or takes too long: what there is will do.
async fn read_some(mut body: Incoming) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            let room = MAX_ANSWER - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if read.len() == MAX_ANSWER {
                break;
            }
        }
    };
    // Late is as good as cut.
    drop(tokio::time::timeout(BODY_WAIT, reading).await);
    read
}

/// The roots that this machine trusts; Mozilla's where it has none, as in an image without them.
fn roots_of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, unreadable) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, unreadable, failures = found.errors.len(), "read the trusted roots");
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_proxy() {
        let proxies =
            Matcher::builder().all("http://proxy.example:3128").no("inside.example").build();
        let intercepts = |url: &str| proxy_for(&proxies, &url.parse().unwrap()).is_some();
        assert!(intercepts("http://outside.example/hook"));
        assert!(intercepts("https://outside.example/hook"));
        assert!(!intercepts("https://inside.example/hook"));
        assert!(!intercepts("http://127.0.0.1:9000/"));
        assert!(!intercepts("http://[::1]:9000/"));
        assert!(!intercepts("http://LOCALHOST/"));
    }
}
