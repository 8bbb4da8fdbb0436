//! The way to a walsender: the one word in the startup message that the driver cannot send.
//!
//! A connection that asks for `replication=database` is served by a walsender. It runs SQL in its
//! database like any other backend, over the simple protocol alone, and takes one of
//! `max_wal_senders` in place of a client slot (walsender.c, `InitWalSenderSlot`; proc.c,
//! `InitProcess`). The driver writes its startup message itself, has no setting for replication,
//! and refuses a zero byte in those that it has. So the stream below it adds the parameter as the
//! message passes: the socket where there is no TLS, the stream inside TLS where there is. An
//! ordinary login passes through unchanged. [`super::login()`] is the only caller.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::progress::Progress;

/// As what we log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::collect) enum Way {
    /// A client backend: it takes a slot.
    Ordinary,
    /// A walsender: it takes none.
    Replication,
}

/// What stands between length and parameters of a startup message (pqcomm.h, protocol 3.0).
const PROTOCOL_3_0: u32 = 0x0003_0000;

/// Before it, the driver may ask for TLS with these eight bytes' second half (pqcomm.h,
/// `NEGOTIATE_SSL_CODE`).
const SSL_REQUEST: u32 = 80_877_103;

/// Length and code.
const HEADER_BYTES: usize = 8;

/// As a startup message has it: name and value, each with a zero behind it.
const PARAMETER: &[u8] = b"replication\0database\0";

/// A stream that makes the startup message ask for a walsender, if that is the way.
#[derive(Debug)]
pub(in crate::collect) struct Startup<S> {
    stream: S,
    passage: Passage,
}

#[derive(Debug)]
enum Passage {
    /// The startup message is still to come.
    Awaited,
    /// It was taken from the driver, and this longer one is to be written in its place.
    Rewritten { message: Vec<u8>, written: usize },
    /// Nothing is changed any more.
    Open,
}

impl<S> Startup<S> {
    pub(in crate::collect) fn new(stream: S, way: Way) -> Self {
        let passage = match way {
            Way::Ordinary => Passage::Open,
            Way::Replication => Passage::Awaited,
        };
        Self { stream, passage }
    }
}

/// What the driver is about to write.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    /// All of the startup message.
    Startup,
    /// A question that comes before it, or the rest of one.
    Before,
    /// Something after which there is none here: the startup message goes inside TLS.
    Other,
    /// A part of the startup message, which the driver never writes.
    Piece,
}

fn look(buf: &[u8]) -> Written {
    let Some((header, _)) = buf.split_first_chunk::<HEADER_BYTES>() else { return Written::Before };
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    match (word(0), word(4)) {
        (length, PROTOCOL_3_0) if usize::try_from(length) == Ok(buf.len()) => Written::Startup,
        (_, PROTOCOL_3_0) => Written::Piece,
        (_, SSL_REQUEST) => Written::Before,
        _ => Written::Other,
    }
}

/// The same startup message with our parameter before the final zero.
fn amended(message: &[u8]) -> Vec<u8> {
    let parameters = message.get(HEADER_BYTES..message.len() - 1).unwrap_or_default();
    let length = HEADER_BYTES + parameters.len() + PARAMETER.len() + 1;
    let mut amended = Vec::with_capacity(length);
    amended.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    amended.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
    amended.extend_from_slice(parameters);
    amended.extend_from_slice(PARAMETER);
    amended.push(0);
    amended
}

impl<S: AsyncWrite + Unpin> Startup<S> {
    /// Writes what was taken from the driver and is not written yet.
    fn poll_rewritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Passage::Rewritten { message, written } = &mut self.passage {
            while let Some(rest) = message.get(*written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => *written += count,
                }
            }
            self.passage = Passage::Open;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Startup<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rewritten(cx))?;
        if matches!(self.passage, Passage::Awaited) {
            match look(buf) {
                Written::Startup => {
                    // It goes out with the flush that the driver lets follow.
                    self.passage = Passage::Rewritten { message: amended(buf), written: 0 };
                    return Poll::Ready(Ok(buf.len()));
                }
                Written::Piece => {
                    let why = "the startup message did not come in one piece";
                    return Poll::Ready(Err(io::Error::other(why)));
                }
                Written::Before => {}
                Written::Other => self.passage = Passage::Open,
            }
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rewritten(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Startup<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Startup<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// TLS inside of which the startup message asks for a walsender, if that is the way.
pub(in crate::collect) struct StartupTls<T> {
    pub(in crate::collect) tls: T,
    pub(in crate::collect) way: Way,
    pub(in crate::collect) progress: Arc<Progress>,
}

impl<S, T> TlsConnect<S> for StartupTls<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Startup<T::Stream>;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self { tls, way, progress } = self;
        let connecting = tls.connect(stream);
        Box::pin(async move {
            let stream = connecting.await?;
            progress.note_encrypted();
            Ok(Startup::new(stream, way))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STARTUP: &[u8] = b"\0\0\0\x16\0\x03\0\0user\0watcher\0\0";
    const ASKS_FOR_TLS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

    /// What arrives at the other side, which takes three bytes at a time.
    async fn arrived(way: Way, writes: &[&[u8]]) -> Vec<u8> {
        let (ours, mut theirs) = tokio::io::duplex(3);
        let mut startup = Startup::new(ours, way);
        let writing = async move {
            for bytes in writes {
                startup.write_all(bytes).await.unwrap();
                startup.flush().await.unwrap();
            }
        };
        let mut arrived = Vec::new();
        let reading = theirs.read_to_end(&mut arrived);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        arrived
    }

    #[tokio::test]
    async fn the_startup_message_and_nothing_else_asks_for_replication() {
        let amended: &[u8] = b"\0\0\0\x2b\0\x03\0\0user\0watcher\0replication\0database\0\0";
        assert_eq!(amended.len(), 0x2b);
        let later: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";
        let cases: [(&[&[u8]], Vec<u8>); 3] = [
            (&[STARTUP, later], [amended, later].concat()),
            // The server has no TLS, and the driver goes on without.
            (&[ASKS_FOR_TLS, STARTUP], [ASKS_FOR_TLS, amended].concat()),
            // It has: from there on these are records of TLS, and no business of ours.
            (
                &[ASKS_FOR_TLS, b"\x16\x03\x01\0\x05hello", STARTUP],
                [ASKS_FOR_TLS, b"\x16\x03\x01\0\x05hello", STARTUP].concat(),
            ),
        ];
        for (writes, expected) in cases {
            assert_eq!(arrived(Way::Replication, writes).await, expected, "{writes:?}");
            assert_eq!(arrived(Way::Ordinary, writes).await, writes.concat());
        }
    }

    #[tokio::test]
    async fn a_startup_message_in_pieces_is_not_sent_as_an_ordinary_one() {
        let mut startup = Startup::new(tokio::io::duplex(64).0, Way::Replication);
        let error = startup.write(&STARTUP[..12]).await.unwrap_err();
        assert!(error.to_string().contains("one piece"), "{error}");
    }
}
