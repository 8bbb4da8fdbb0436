//! Sockets: binding, accepting, seats, timeouts and the drain at the end. Not what is answered.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep};

use super::limits::{
    ACCEPT_PAUSE, DRAIN_LIMIT, HEADER_READ_LIMIT, MAX_CONNECTIONS, MAX_HEADER_BYTES, WRITE_LIMIT,
};
use super::{Shared, Site, respond};

/// Why the server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody listens there already.
    #[error("listening on {address}: the port is taken")]
    Taken {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system says no for another reason.
    #[error("listening on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ServeError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Taken { address, .. } => format!(
                "another Plimsoll or another program listens there (`ss -ltnp 'sport = :{}'` \
                 names it); end it, or set `listen` in [server] to another port",
                address.port()
            ),
            Self::Bind { address, source } => match source.kind() {
                io::ErrorKind::AddrNotAvailable => format!(
                    "{} is no address of this machine; set `listen` in [server] to 127.0.0.1 or \
                     0.0.0.0 and a port",
                    address.ip()
                ),
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need a privilege; set `listen` in [server] to a higher one"
                        .to_owned()
                }
                _ => "set `listen` in [server] to an address of this machine and a free port"
                    .to_owned(),
            },
        }
    }
}

/// Begins to listen, so that a port that is taken is known before anything else begins.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::Taken { address, source },
        _ => ServeError::Bind { address, source },
    })
}

/// Serves until `stop` is ready, then lets answers that are under way end, [`DRAIN_LIMIT`] at
/// most. Ends with every connection closed; fails never.
pub async fn run(listener: TcpListener, shared: Shared, stop: impl Future<Output = ()>) {
    let rendering = Arc::default();
    let site = Arc::new(Site { shared, counts: Counts::default(), rendering });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut seats = Seats::default();
    let mut refused = 0_u64;
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next_with_id() => seats.leave(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if refused > 0 {
                        tracing::info!(refused, "connections can be accepted again");
                        refused = 0;
                    }
                    if seats.make_room() {
                        site.counts.dropped(Dropped::Crowded);
                    }
                    let (seat, watcher) = (seats.newest(), graceful.watcher());
                    let task = connection(stream, Arc::clone(&site), watcher, seat.clone());
                    seats.take(connections.spawn(task), seat);
                }
                Err(error) => {
                    // Said once, however long it lasts.
                    if refused == 0 {
                        tracing::warn!(%error, "could not accept a connection");
                    }
                    refused = refused.saturating_add(1);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        site.counts.open.store(seats.0.len(), Ordering::Relaxed);
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(DRAIN_LIMIT) => {}
    }
    connections.shutdown().await;
}

/// One connection, from its first byte to its end.
async fn connection(stream: TcpStream, site: Arc<Site>, watcher: Watcher, seat: LastRequest) {
    let requests = Arc::clone(&site);
    let service = service_fn(move |request| {
        seat.now();
        respond(Arc::clone(&requests), request)
    });
    let socket = TokioIo::new(Socket { stream, stalled: None });
    let connection = http1::Builder::new()
        // Without a timer hyper has no header timeout, and says nothing of it.
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(socket, service);
    let Err(error) = watcher.watch(connection).await else { return };
    // Clients may break off as they like: that is theirs, and no line in our log.
    tracing::debug!(%error, "a connection ended early");
    if error.is_timeout() {
        site.counts.dropped(Dropped::Silent);
    } else if is_stall(&error) {
        site.counts.dropped(Dropped::Stalled);
    }
}

fn is_stall(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
}

/// The order of requests over all connections.
#[derive(Clone, Default)]
struct LastRequest {
    clock: Arc<AtomicU64>,
    at: Arc<AtomicU64>,
}

impl LastRequest {
    fn now(&self) {
        self.at.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Who is connected, in the order of arrival: at most [`MAX_CONNECTIONS`].
#[derive(Default)]
struct Seats(VecDeque<(AbortHandle, LastRequest)>, LastRequest);

impl Seats {
    /// Closes the connection that has been without a request for longest, if all seats are taken.
    fn make_room(&mut self) -> bool {
        if self.0.len() < MAX_CONNECTIONS {
            return false;
        }
        let last = |(_, seat): &(AbortHandle, LastRequest)| seat.at.load(Ordering::Relaxed);
        let oldest = (0..self.0.len()).min_by_key(|seat| last(&self.0[*seat]));
        if let Some((connection, _)) = oldest.and_then(|seat| self.0.remove(seat)) {
            connection.abort();
        }
        true
    }

    fn newest(&self) -> LastRequest {
        let seat = LastRequest { clock: Arc::clone(&self.1.clock), at: Arc::default() };
        seat.now();
        seat
    }

    fn take(&mut self, connection: AbortHandle, seat: LastRequest) {
        self.0.push_back((connection, seat));
    }

    fn leave(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "an answer panicked; its connection was closed");
                }
                error.id()
            }
        };
        self.0.retain(|(connection, _)| connection.id() != id);
    }
}

/// A socket whose peer must take what is written within [`WRITE_LIMIT`] of its first refusal.
struct Socket {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Turns a write that cannot go on into an error once the time is over. The time runs until
    /// all is written, so that a client that reads a byte a second ends too.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_LIMIT)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once all that it holds is written.
        self.stalled = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a connection was closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dropped {
    /// Its seat was needed.
    Crowded,
    /// No whole request came in time.
    Silent,
    /// It did not take its answer in time.
    Stalled,
}

/// The server's own numbers.
#[derive(Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    dropped: [AtomicU64; 3],
    answered: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// The server's own numbers, at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// Connections now.
    pub(super) open: usize,
    /// Connections that were closed by us, by reason.
    pub(super) dropped: BTreeMap<&'static str, u64>,
    /// Answers by route and code.
    pub(super) answered: BTreeMap<(&'static str, u16), u64>,
}

impl Counts {
    pub(super) fn answered(&self, route: &'static str, code: StatusCode) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        *answered.entry((route, code.as_u16())).or_default() += 1;
    }

    fn dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn numbers(&self) -> Numbers {
        let dropped = |reason: Dropped| self.dropped[reason as usize].load(Ordering::Relaxed);
        Numbers {
            open: self.open.load(Ordering::Relaxed),
            dropped: BTreeMap::from([
                ("crowded", dropped(Dropped::Crowded)),
                ("silent", dropped(Dropped::Silent)),
                ("stalled", dropped(Dropped::Stalled)),
            ]),
            answered: self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
