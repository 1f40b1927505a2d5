//! The header that a balancer puts before a connection, to say whom it is from.
//!
//! Rule: it is read where the settings say that it is there, and nowhere else: anybody could
//! write one.
//!
//! Source: `HAProxy`, "The PROXY protocol", versions 1 and 2, section 2.2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;

use crate::stream::Stream;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// With all that may follow the addresses; the format allows more, nobody sends it.
const LONGEST: usize = 4096;

/// Read it.  `address`: the balancer's own, which is kept for connections of its own.  Raises
/// `InvalidData` when it is not there.
pub async fn receive(
    stream: &mut Stream,
    address: Option<SocketAddr>,
) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head[..12] != *SIGNATURE || head[12] >> 4 != 2 || length > LONGEST {
        return Err(wrong("no header of the PROXY protocol, version 2"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match head[12] & 0x0f {
        // LOCAL: the balancer looks whether we live.
        0 => Ok(address),
        1 => from(head[13], &rest),
        _ => Err(wrong("an unknown command of the PROXY protocol")),
    }
}

fn wrong(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// `family`: of the address and of the transport, a half byte each.
fn from(family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    let short = || wrong("a header of the PROXY protocol without its addresses");
    let port = |at: usize| {
        let bytes = rest.get(at..at + 2).ok_or_else(short)?;
        Ok::<_, io::Error>(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    match family {
        0x11 => {
            let ip = rest.first_chunk::<4>().ok_or_else(short)?;
            let ip = IpAddr::V4(Ipv4Addr::from(*ip));
            Ok(Some(SocketAddr::new(ip, port(8)?)))
        }
        0x21 => {
            let ip = rest.first_chunk::<16>().ok_or_else(short)?;
            let ip = IpAddr::V6(Ipv6Addr::from(*ip));
            Ok(Some(SocketAddr::new(ip, port(32)?)))
        }
        _ => Err(wrong("a header of the PROXY protocol that is not of TCP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_senders() {
        let four = from(0x11, b"\x0a\0\0\x07\x0a\0\0\x01\xd4\x31\x15\x38").unwrap();
        assert_eq!(four, "10.0.0.7:54321".parse().ok());
        let mut six = [0; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&7_u16.to_be_bytes());
        assert_eq!(from(0x21, &six).unwrap(), "[::1]:7".parse().ok());
    }

    #[test]
    fn what_is_too_short_or_not_of_tcp_is_refused() {
        assert!(from(0x11, b"\x0a\0\0\x07").is_err());
        assert!(from(0x12, &[0; 12]).is_err());
        assert!(from(0x31, &[0; 216]).is_err());
    }
}
