//! The sockets to one server, counted until the server has closed them.
//!
//! A backend that is stuck (behind a lock on a catalog, or stopped) holds its slot however often
//! its client walks away. A target of several hosts has a count for each. So a socket that we are done with is only half closed and watched: as
//! long as the server has not closed its side, there is a backend of ours behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{io, mem};

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::wary::asks_for_no_type;
use crate::clock;

/// What a server says until it has let us in, certificates included, is some kB. One that goes on
/// and on (the driver keeps what it says until then) would take all memory.
const MAX_LOGIN_BYTES: usize = 1024 * 1024;

/// At most so much is heard after a request of ours. A poll of the largest server that there can
/// be, with 262,143 sessions of as many names, is answered with some 60 MB; without a bound a
/// single answer could take all memory.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A socket that its server has not closed after so long is given up: a proxy that swallows
/// connections must not keep us from logging in for ever. A backend that is really stuck for
/// longer than this leaks one slot an hour.
const LINGER_AT_MOST: Duration = Duration::from_hours(1);

/// A peer that never stops talking is not listened to for longer.
const READS_AT_ONCE: usize = 64;

/// A silent peer is asked after so long, so often, until it counts as dead: 25 s in all.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
/// What we sent and nobody acknowledged for so long ends the connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT_MILLIS: u32 = 25_000;

/// All sockets that one source has to its server, or to one of several.
#[derive(Clone, Debug)]
pub(in crate::collect) struct Ledger {
    /// By the address of the server.
    books: Arc<Mutex<BTreeMap<String, Entries>>>,
    server: String,
    /// So many may be open at one server.
    most: usize,
    /// At most so many bytes are heard after a request of ours.
    most_heard: usize,
}

#[derive(Debug, Default)]
struct Entries {
    in_use: usize,
    lingering: Vec<(Wire, Instant)>,
}

impl Ledger {
    /// An empty one, for at most so many sockets a server.
    pub(in crate::collect) fn of(most: usize) -> Self {
        let most_heard = MAX_ANSWER_BYTES;
        Self { books: Arc::default(), server: String::new(), most, most_heard }
    }

    /// The same for servers whose answers are never larger than this.
    pub(in crate::collect) fn hearing_at_most(self, bytes: usize) -> Self {
        Self { most_heard: bytes, ..self }
    }

    /// The same ledger, open at this server's page.
    pub(in crate::collect) fn at(&self, server: String) -> Self {
        Self { server, ..self.clone() }
    }

    /// Whether another socket may be opened at this server.
    pub(in crate::collect) fn has_room(&self, now: Instant) -> bool {
        self.open(now) < self.most
    }

    /// How many sockets the server has not closed: at least as many as there are backends of ours.
    pub(super) fn open(&self, now: Instant) -> usize {
        let mut books = self.books();
        // Of all servers: an address that settings do not name any more is never asked for.
        books.retain(|_, entries| {
            entries.lingering.retain(|(wire, since)| {
                !wire.is_closed_by_peer() && now.saturating_duration_since(*since) < LINGER_AT_MOST
            });
            entries.in_use > 0 || !entries.lingering.is_empty()
        });
        books.get(&self.server).map_or(0, |entries| entries.in_use + entries.lingering.len())
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Entries>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket in use. Dropped, it lingers in its ledger.
#[derive(Debug)]
pub(in crate::collect) struct Socket {
    wire: Wire,
    ledger: Ledger,
    /// Bytes since our last request; until we are let in, since the connection was made.
    heard: usize,
    let_in: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Its stream lingers.
    Gone,
}

impl Socket {
    pub(in crate::collect) async fn tcp(address: SocketAddr, ledger: &Ledger) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MILLIS)?;
        Ok(Self::new(Wire::Tcp(stream), ledger))
    }

    pub(in crate::collect) async fn unix(path: &Path, ledger: &Ledger) -> io::Result<Self> {
        Ok(Self::new(Wire::Unix(UnixStream::connect(path).await?), ledger))
    }

    fn new(wire: Wire, ledger: &Ledger) -> Self {
        ledger.books().entry(ledger.server.clone()).or_default().in_use += 1;
        Self { wire, ledger: ledger.clone(), heard: 0, let_in: Arc::default() }
    }

    /// To be set once the server has let us in: from then on it may say more.
    pub(in crate::collect) fn let_in(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.let_in)
    }

    fn hear(&mut self, bytes: usize) -> io::Result<()> {
        self.heard = self.heard.saturating_add(bytes);
        let let_in = self.let_in.load(Ordering::Relaxed);
        let most = if let_in { self.ledger.most_heard } else { MAX_LOGIN_BYTES };
        if self.heard <= most {
            return Ok(());
        }
        let what = if let_in { "one request" } else { "a login" };
        let text = format!("the server said more than {most} bytes to {what}");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let wire = mem::replace(&mut self.wire, Wire::Gone);
        let lingers = wire.say_goodbye() && !wire.is_closed_by_peer();
        let mut books = self.ledger.books();
        let entries = books.entry(self.ledger.server.clone()).or_default();
        entries.in_use = entries.in_use.saturating_sub(1);
        if lingers {
            entries.lingering.push((wire, clock::monotonic()));
        }
    }
}

impl Wire {
    /// Closes our side; false if the connection was gone already.
    fn say_goodbye(&self) -> bool {
        let how = rustix::net::Shutdown::Write;
        match self {
            Self::Tcp(stream) => rustix::net::shutdown(stream, how).is_ok(),
            Self::Unix(stream) => rustix::net::shutdown(stream, how).is_ok(),
            Self::Gone => false,
        }
    }

    /// Reads what still comes, to see the end of it.
    fn is_closed_by_peer(&self) -> bool {
        let mut last_words = [0_u8; 4096];
        for _ in 0..READS_AT_ONCE {
            let read = match self {
                Self::Tcp(stream) => stream.try_read(&mut last_words),
                Self::Unix(stream) => stream.try_read(&mut last_words),
                Self::Gone => return true,
            };
            match read {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Gone => gone(),
        };
        self.hear(buf.filled().len() - before)?;
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        asks_for_no_type(buf)?;
        if self.let_in.load(Ordering::Relaxed) {
            self.heard = 0;
        }
        match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Gone => gone(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Gone => gone(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Gone => gone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_dropped_socket_counts_until_its_server_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ledger = Ledger::of(2);
        let socket = Socket::tcp(listener.local_addr().unwrap(), &ledger).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        assert_eq!(ledger.open(clock::monotonic()), 1);
        drop(socket);
        // The server hears that we are done, and takes its time.
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(ledger.open(clock::monotonic()), 1);
        assert_eq!(ledger.open(clock::monotonic() + LINGER_AT_MOST), 0);

        let socket = Socket::tcp(listener.local_addr().unwrap(), &ledger).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        drop(socket);
        server.try_write(b"last words").unwrap();
        drop(server);
        while ledger.open(clock::monotonic()) > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Reads from a server that never ends, and gives how much until it is not listened to.
    async fn listen(socket: &mut Socket) -> (usize, String) {
        let (mut heard, mut bytes) = (0, vec![0; 64 * 1024]);
        loop {
            match socket.read(&mut bytes).await {
                Ok(read) => heard += read,
                Err(error) => return (heard, error.to_string()),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_stop_talking_is_not_listened_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut talking = tokio::task::JoinSet::new();
        let address = listener.local_addr().unwrap();
        talking.spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            while server.write_all(&[b'N'; 16 * 1024]).await.is_ok() {}
        });
        let mut socket = Socket::tcp(address, &Ledger::of(2)).await.unwrap();
        // Requests do not begin a new account while nobody has let us in.
        socket.write_all(b"a startup packet").await.unwrap();
        let (heard, why) = listen(&mut socket).await;
        assert!(heard <= MAX_LOGIN_BYTES, "{heard}");
        assert_eq!(why, "the server said more than 1048576 bytes to a login");

        socket.let_in().store(true, Ordering::Relaxed);
        socket.write_all(b"a query").await.unwrap();
        let (heard, why) = listen(&mut socket).await;
        assert!((MAX_LOGIN_BYTES..=MAX_ANSWER_BYTES).contains(&heard), "{heard}");
        assert_eq!(why, "the server said more than 67108864 bytes to one request");
        // Another request, another answer.
        socket.write_all(b"a query").await.unwrap();
        socket.read_exact(&mut [0; 4096]).await.unwrap();
    }

    #[tokio::test]
    async fn the_server_is_asked_for_no_type() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut socket = Socket::tcp(address, &Ledger::of(2)).await.unwrap();
        socket.write_all(b"SELECT x.oid FROM pg_catalog.pg_class AS x").await.unwrap();
        let asked = socket.write_all(b"SELECT t.oid FROM pg_catalog.pg_type t WHERE").await;
        assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
