//! One byte stream, whatever carries it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use bytes::{Buf, BytesMut};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use crate::login::Prefixed;

/// A connection to a client or to a server.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// To a server.
    Tls(Box<client::TlsStream<TcpStream>>),
    /// From a client.
    ClientTls(Box<server::TlsStream<Prefixed>>),
    /// The place of a stream that is being turned into another.
    Gone,
}

impl Stream {
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::ClientTls(_))
    }

    /// Such as `TLSv1_3`; none for plain text.
    pub fn tls_version(&self) -> Option<String> {
        let version = match self {
            Self::Tls(stream) => stream.get_ref().1.protocol_version(),
            Self::ClientTls(stream) => stream.get_ref().1.protocol_version(),
            _ => None,
        };
        version.map(|version| format!("{version:?}"))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context,
        into: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::ClientTls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::ClientTls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::ClientTls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ClientTls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

thread_local! {
    /// One for the whole shard: a client that waits for something to read needs no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 16 << 10].into());
}

/// Read once, and append it.
pub fn read(stream: &mut Stream, into: &mut BytesMut, cx: &mut Context) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut found = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut found))?;
        into.extend_from_slice(found.filled());
        Poll::Ready(Ok(found.filled().len()))
    })
}

/// Give back the memory of a buffer that has nothing in it.  It may have some even without any
/// capacity: its share of what was split off.
pub fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// Write what can be written at once.
pub fn write(stream: &mut Stream, bytes: &mut BytesMut, cx: &mut Context) -> io::Result<()> {
    let mut wrote = false;
    while !bytes.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(length)) => {
                bytes.advance(length);
                wrote = true;
            }
            Poll::Ready(Err(wrong)) => return Err(wrong),
        }
    }
    if wrote && matches!(stream, Stream::Tls(_) | Stream::ClientTls(_)) {
        if let Poll::Ready(Err(wrong)) = Pin::new(stream).poll_flush(cx) {
            return Err(wrong);
        }
    }
    Ok(())
}
