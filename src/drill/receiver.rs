//! An HTTP receiver that records what it is sent and behaves as badly as it is told to.
//!
//! Drills print the pages that arrive here, the demo and the tests deliver to it. It is one of the
//! sides of a conversation, not a mock inside the program: everything goes over a real socket.
//! Not for production: it listens on the loopback address alone.

mod pagerduty;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock;
use pagerduty::Pagerduty;
pub use pagerduty::{Page, Problem};

/// At most so many requests are kept; the oldest go first. A drill sends some dozens.
const MAX_RECEIVED: usize = 10_000;

/// A larger body is answered with 413: `PagerDuty` takes 512 kB, nothing else of ours is larger.
const MAX_BODY: usize = 1_000_000;

/// At most so many connections at once; others wait in the backlog.
const MAX_CONNECTIONS: usize = 256;

/// A connection that sends no header for so long is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with a status, headers and a body.
    Answer {
        /// The status code.
        status: u16,
        /// Headers beside those that every answer has.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Takes the request and never answers.
    Stall,
    /// Takes the request and resets the connection.
    Reset,
    /// Waits, then answers 200.
    Slow(Duration),
    /// Answers with this status and a body that never ends.
    Endless(u16),
    /// Answers with this status, sends a few bytes of its body and then nothing more.
    StalledBody(u16),
    /// Behaves as `PagerDuty`'s Events API v2 does, with the state of every dedup key. A resolve
    /// takes effect so long after it was accepted: the real one takes events asynchronously.
    Pagerduty {
        /// The lag of a resolve.
        resolve_lag: Duration,
    },
}

impl Behaviour {
    /// Answers with a status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// Answers with a status and one header.
    pub fn with_header(status: u16, name: &str, value: &str) -> Self {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Self::Answer { status, headers, body: String::new() }
    }

    /// Answers with a status and a body.
    pub fn with_body(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_owned() }
    }

    /// `PagerDuty` at its best: what it accepts takes effect at once.
    pub fn pagerduty() -> Self {
        Self::Pagerduty { resolve_lag: Duration::ZERO }
    }
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// When its body was complete.
    pub at: Timestamp,
    /// The method.
    pub method: String,
    /// Path and query; the whole URL if it was sent in absolute form, as to a proxy.
    pub path: String,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body; what is not UTF-8 is replaced.
    pub body: String,
}

impl Received {
    /// A header, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// A receiver that listens until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::behaving(behaviour));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens: `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from the next request on, after what [`Receiver::script`] still holds.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state().behaviour = behaviour;
    }

    /// Behaves so for the next requests, one each.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.state().script.extend(behaviours);
    }

    /// Everything that was received, the oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.iter().cloned().collect()
    }

    /// The oldest request that was not yet given out by this; waits for it.
    pub async fn next(&self) -> Received {
        loop {
            let arrived = self.shared.arrived.notified();
            if let Some(received) = self.shared.state().unseen() {
                return received;
            }
            arrived.await;
        }
    }

    /// Someone at the fake `PagerDuty` acknowledges the incident of a key, if one is open.
    pub fn acknowledge(&self, key: &str) {
        self.shared.state().pagerduty.acknowledge(key, clock::monotonic());
    }

    /// Whom the fake `PagerDuty` woke, in order.
    pub fn pages(&self) -> Vec<Page> {
        self.shared.state().pagerduty.pages().to_vec()
    }

    /// How the fake `PagerDuty` sees a key: open, acknowledged, or nothing.
    pub fn problem(&self, key: &str) -> Option<Problem> {
        self.shared.state().pagerduty.problem(key, clock::monotonic())
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    script: VecDeque<Behaviour>,
    received: VecDeque<Received>,
    /// Index into `received` of the first that [`Receiver::next`] did not give out.
    seen: usize,
    pagerduty: Pagerduty,
}

impl Shared {
    fn behaving(behaviour: Behaviour) -> Self {
        let state = State {
            behaviour,
            script: VecDeque::new(),
            received: VecDeque::new(),
            seen: 0,
            pagerduty: Pagerduty::default(),
        };
        Self { state: Mutex::new(state), arrived: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the request and says what to do with it.
    fn record(&self, received: Received) -> Behaviour {
        let mut state = self.state();
        if state.received.len() == MAX_RECEIVED {
            state.received.pop_front();
            state.seen = state.seen.saturating_sub(1);
        }
        state.received.push_back(received);
        let behaviour = state.script.pop_front().unwrap_or_else(|| state.behaviour.clone());
        drop(state);
        self.arrived.notify_waiters();
        behaviour
    }
}

impl State {
    fn unseen(&mut self) -> Option<Received> {
        let received = self.received.get(self.seen).cloned()?;
        self.seen += 1;
        Some(received)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            // Out of file descriptors, most likely: some are freed as connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection to its end. A request that is to be reset ends it with an error of the
/// service, and then the socket is closed with a reset in place of the orderly goodbye.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| Box::pin(answer(request, Arc::clone(&shared))));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = (&mut connection).await
        && error.is_user()
    {
        // Without the option the client reads an early end, which is a failure as well.
        drop(connection.into_parts().io.into_inner().set_zero_linger());
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(plain(413, Vec::new(), "the body is too large".to_owned()));
    };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let received = Received {
        at: clock::wall(),
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers.collect(),
        body: body.clone(),
    };
    match shared.record(received) {
        Behaviour::Answer { status, headers, body } => Ok(plain(status, headers, body)),
        Behaviour::Stall => std::future::pending().await,
        Behaviour::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            Ok(plain(200, Vec::new(), String::new()))
        }
        Behaviour::Endless(status) => Ok(with_body(status, endless())),
        Behaviour::StalledBody(status) => Ok(with_body(status, stalled())),
        Behaviour::Pagerduty { resolve_lag } => {
            let now = clock::monotonic();
            let (status, body) = shared.state().pagerduty.take(&body, now, resolve_lag);
            let json = vec![("content-type".to_owned(), "application/json".to_owned())];
            Ok(plain(status, json, body))
        }
    }
}

fn plain(status: u16, headers: Vec<(String, String)>, body: String) -> Response<Body> {
    let mut response = with_body(status, Full::new(Bytes::from(body)).boxed());
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (name.parse::<hyper::header::HeaderName>(), value.parse::<hyper::header::HeaderValue>())
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn with_body(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    response
}

fn endless() -> Body {
    let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
    let chunks = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
    BodyExt::boxed(StreamBody::new(chunks))
}

fn stalled() -> Body {
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"wait")))]);
    let chunks = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    BodyExt::boxed(StreamBody::new(chunks))
}
