//! The sockets to one server, counted until the server has closed them.
//!
//! A backend that is stuck (behind a lock on a catalog, or stopped) holds its slot however often
//! its client walks away. So a socket that we are done with is only half closed and watched: as
//! long as the server has not closed its side, there is a backend of ours behind it.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{io, mem};

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::clock;

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

/// All sockets that one source has to its server.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    in_use: usize,
    lingering: Vec<(Wire, Instant)>,
}

impl Ledger {
    /// How many sockets the server has not closed: at least as many as there are backends of ours.
    pub(super) fn open(&self, now: Instant) -> usize {
        let mut entries = self.entries();
        entries.lingering.retain(|(wire, since)| {
            !wire.is_closed_by_peer() && now.saturating_duration_since(*since) < LINGER_AT_MOST
        });
        entries.in_use + entries.lingering.len()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket in use. Dropped, it lingers in its ledger.
#[derive(Debug)]
pub(super) struct Socket {
    wire: Wire,
    ledger: Ledger,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Its stream lingers.
    Gone,
}

impl Socket {
    pub(super) async fn tcp(address: SocketAddr, ledger: &Ledger) -> io::Result<Self> {
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

    pub(super) async fn unix(path: &Path, ledger: &Ledger) -> io::Result<Self> {
        Ok(Self::new(Wire::Unix(UnixStream::connect(path).await?), ledger))
    }

    fn new(wire: Wire, ledger: &Ledger) -> Self {
        ledger.entries().in_use += 1;
        Self { wire, ledger: ledger.clone() }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let wire = mem::replace(&mut self.wire, Wire::Gone);
        let lingers = wire.say_goodbye() && !wire.is_closed_by_peer();
        let mut entries = self.ledger.entries();
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
        match &mut self.wire {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Gone => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
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
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_dropped_socket_counts_until_its_server_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ledger = Ledger::default();
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
}
