//! What a stream to a server does not let pass: the driver's search for types.
//!
//! The driver asks the server for every type of an answer that is not built in, then for the types
//! in that answer, and so on without end: a server that names a new one each time drives it into
//! the end of the stack, and the whole program with it (measured: 1,796 levels). Our statements
//! give built-in types only, so the first such question already says that this is no server of
//! ours. `socket` looks at what is sent as it is, [`Wary`] at what is sent within TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::MapOk;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// In both of the driver's questions for a type (prepare.rs, `TYPEINFO_QUERY`), in none of ours.
const TYPE_QUESTION: &[u8] = b"FROM pg_catalog.pg_type";

/// An error if these bytes ask for a type.
pub(in crate::collect) fn asks_for_no_type(bytes: &[u8]) -> io::Result<()> {
    if bytes.windows(TYPE_QUESTION.len()).any(|part| part == TYPE_QUESTION) {
        let text = "the server answers with types that no statement of ours gives";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

/// A way to TLS whose streams are wary.
pub(in crate::collect) struct Wary<T>(pub(super) T);

/// A stream that does not let a question for a type pass.
pub(in crate::collect) struct WaryStream<S>(S);

impl<S, T: TlsConnect<S>> TlsConnect<S> for Wary<T> {
    type Stream = WaryStream<T::Stream>;
    type Error = T::Error;
    type Future = MapOk<T::Future, fn(T::Stream) -> Self::Stream>;

    fn connect(self, stream: S) -> Self::Future {
        self.0.connect(stream).map_ok(WaryStream)
    }
}

impl<S: TlsStream + Unpin> TlsStream for WaryStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WaryStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WaryStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        asks_for_no_type(buf)?;
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
