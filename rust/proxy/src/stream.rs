//! One byte stream, whatever carries it.
//!
//! Intuition: most that is asked of a socket is whether there is something, and mostly there is
//! not, or there is at once.  So it is tried first, and somebody is to be woken only when it has
//! to be waited for.
//!
//! Rule: what is tried costs a task nothing of its turn.  Whoever goes on as long as there is
//! something has to look himself after those who wait (`relay`).

use std::cell::RefCell;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{ready, Context, Poll, Waker};

use bytes::{Buf, BytesMut};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use crate::buffers::lend;
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

const READABLE: Interest = Interest::READABLE;

thread_local! {
    /// One for the whole shard: a client that waits for something to read needs no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 16 << 10].into());
}

fn append(into: &mut BytesMut, found: &[u8]) {
    lend(into);
    into.extend_from_slice(found);
}

/// Read once, and append it.
pub fn read(stream: &mut Stream, into: &mut BytesMut, cx: &mut Context) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| loop {
        match stream.try_read(scratch) {
            Err(wrong) if wrong.kind() == io::ErrorKind::WouldBlock => (),
            Ok(length) => {
                append(into, &scratch[..length]);
                return Poll::Ready(Ok(length));
            }
            Err(wrong) => return Poll::Ready(Err(wrong)),
        }
        match stream {
            Stream::Tcp(stream) => ready!(stream.poll_read_ready(cx))?,
            Stream::Unix(stream) => ready!(stream.poll_read_ready(cx))?,
            other => {
                let mut found = ReadBuf::new(scratch);
                ready!(Pin::new(other).poll_read(cx, &mut found))?;
                append(into, found.filled());
                return Poll::Ready(Ok(found.filled().len()));
            }
        }
    })
}

/// The same, of what is there now.  `WouldBlock`: nothing.  Nobody is woken when something comes.
pub fn read_now(stream: &mut Stream, into: &mut BytesMut) -> io::Result<usize> {
    if let Stream::Tcp(_) | Stream::Unix(_) = stream {
        return SCRATCH.with_borrow_mut(|scratch| {
            let length = stream.try_read(scratch)?;
            append(into, &scratch[..length]);
            Ok(length)
        });
    }
    match read(stream, into, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Write what can be written at once.
pub fn write(stream: &mut Stream, bytes: &mut BytesMut, cx: &mut Context) -> io::Result<()> {
    let mut wrote = false;
    while !bytes.is_empty() {
        match stream.poll_write_once(bytes, cx) {
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

impl Stream {
    /// What is there now.  `WouldBlock`: nothing, or (TLS) it takes somebody to wake to find out.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len();
        let mut short = None;
        let mut read = |socket: SockRef| {
            let length = (&*socket).read(into)?;
            if length == 0 || length == most {
                return Ok(length);
            }
            // That was all, as Tokio's own streams take it too: until the kernel says otherwise
            // there is nothing, and no call is spent on finding that out.
            short = Some(length);
            Err(io::ErrorKind::WouldBlock.into())
        };
        let done = match self {
            Self::Tcp(stream) => stream.try_io(READABLE, || read(SockRef::from(stream))),
            Self::Unix(stream) => stream.try_io(READABLE, || read(SockRef::from(stream))),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        short.map_or(done, Ok)
    }

    fn poll_write_once(&mut self, bytes: &[u8], cx: &mut Context) -> Poll<io::Result<usize>> {
        loop {
            let done = match self {
                Self::Tcp(stream) => stream.try_write(bytes),
                Self::Unix(stream) => stream.try_write(bytes),
                other => return Pin::new(other).poll_write(cx, bytes),
            };
            match done {
                Err(wrong) if wrong.kind() == io::ErrorKind::WouldBlock => (),
                done => return Poll::Ready(done),
            }
            match self {
                Self::Tcp(stream) => ready!(stream.poll_write_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_write_ready(cx))?,
                _ => (),
            }
        }
    }
}
