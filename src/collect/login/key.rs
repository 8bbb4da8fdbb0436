//! The process id that comes with a backend's key: the one thing of a login that the driver keeps
//! to itself. It tells a server from a pooler, which gives keys of its own. Asked by the login.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{future, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{self, TlsConnect};

/// The process id. The driver shows it in a cancel request only, so one is written, into memory:
/// length, code, process id, key.
pub(super) async fn key_pid(client: &Client) -> Option<i32> {
    const CANCEL_REQUEST_BYTES: usize = 16;
    const ROOM: usize = 64;
    let (ours, mut theirs) = tokio::io::duplex(ROOM);
    // Where TLS is required, the driver asks for it first and must hear yes.
    theirs.write_all(b"S").await.ok()?;
    client.cancel_token().cancel_query_raw(ours, InMemory).await.ok()?;
    let mut written = Vec::new();
    theirs.read_to_end(&mut written).await.ok()?;
    let request = written.split_at_checked(written.len().checked_sub(CANCEL_REQUEST_BYTES)?)?.1;
    let pid = i32::from_be_bytes(request.get(8..12)?.try_into().ok()?);
    (pid != 0).then_some(pid)
}

/// TLS as far as the driver can see, for a stream that never leaves this program.
struct InMemory;

struct InMemoryStream<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for InMemory {
    type Stream = InMemoryStream<S>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Stream, io::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        future::ready(Ok(InMemoryStream(stream)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for InMemoryStream<S> {
    fn channel_binding(&self) -> tls::ChannelBinding {
        tls::ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InMemoryStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InMemoryStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
