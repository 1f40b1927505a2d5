//! "I am here, this is my term, Postgres lives": a datagram ten times a second.
//!
//! A datagram is a JSON object, a newline, and the HMAC-SHA256 of the object's bytes in
//! lower-case hexadecimal.  `started_s` and `sequence` only grow together: a receiver that
//! keeps the greatest pair it has seen refuses replays.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

/// A shorter key is a mistake.
const KEY_MIN: usize = 16;

/// What one heartbeat says.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    pub term: u64,
    pub postgres_alive: bool,
    pub boottime_s: f64,
}

pub struct Heartbeat {
    node: String,
    key: Hmac<Sha256>,
    started_s: f64,
    sequence: u64,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    to: Vec<SocketAddr>,
    pub sent: u64,
    pub failed: u64,
}

impl Heartbeat {
    /// Reads the key and opens the sockets; sends to nobody yet.
    pub fn open(node: &str, key_file: &Path, started_s: f64) -> io::Result<Self> {
        if fs::metadata(key_file)?.permissions().mode() & 0o077 != 0 {
            let words = "others than its owner can read it: chmod 600";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        let text = fs::read(key_file)?;
        let key = text.trim_ascii();
        if key.len() < KEY_MIN {
            let words = format!("a key has at least {KEY_MIN} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let key = Hmac::new_from_slice(key).map_err(io::Error::other)?;
        Ok(Self {
            node: node.to_owned(),
            key,
            started_s,
            sequence: 0,
            v4: socket((Ipv4Addr::UNSPECIFIED, 0).into()).ok(),
            v6: socket((Ipv6Addr::UNSPECIFIED, 0).into()).ok(),
            to: Vec::new(),
            sent: 0,
            failed: 0,
        })
    }

    pub fn send_to(&mut self, to: Vec<SocketAddr>) {
        self.to = to;
    }

    pub fn to(&self) -> &[SocketAddr] {
        &self.to
    }

    /// Sends to everybody.  What can't be sent at once is counted and forgotten.
    pub fn beat(&mut self, pulse: Pulse) {
        if self.to.is_empty() {
            return;
        }
        self.sequence += 1;
        let datagram = self.datagram(pulse);
        for to in &self.to {
            let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            let sent = socket.as_ref().is_some_and(|socket| socket.send_to(&datagram, to).is_ok());
            if sent {
                self.sent += 1;
            } else {
                self.failed += 1;
            }
        }
    }

    fn datagram(&self, pulse: Pulse) -> Vec<u8> {
        let mut text = json!({
            "node": self.node,
            "term": pulse.term,
            "postgres_alive": pulse.postgres_alive,
            "started_s": self.started_s,
            "sequence": self.sequence,
            "boottime_s": pulse.boottime_s,
        })
        .to_string();
        let tag = self.key.clone().chain_update(&text).finalize().into_bytes();
        text.push('\n');
        text.push_str(&hexadecimal(&tag));
        text.into_bytes()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn socket(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn opened(key: &str, mode: u32) -> io::Result<Heartbeat> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fence-key-{}-{count}", std::process::id());
        let key_file = std::env::temp_dir().join(name);
        fs::write(&key_file, key).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(mode)).unwrap();
        let opened = Heartbeat::open("ams", &key_file, 1.0);
        fs::remove_file(&key_file).unwrap();
        opened
    }

    #[test]
    fn a_heartbeat_arrives_with_its_signature() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut heartbeat = opened("0123456789abcdef\n", 0o600).unwrap();
        heartbeat.send_to(vec![receiver.local_addr().unwrap()]);
        heartbeat.beat(Pulse { term: 7, postgres_alive: true, boottime_s: 2.5 });

        let mut buffer = [0_u8; 1024];
        let length = receiver.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let (body, tag) = text.split_once('\n').unwrap();
        let said: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&said["node"], &said["term"], &said["sequence"]),
            (&json!("ams"), &json!(7), &json!(1))
        );
        let expected = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef")
            .unwrap()
            .chain_update(body)
            .finalize()
            .into_bytes();
        assert_eq!(tag, hexadecimal(&expected));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(opened("short", 0o600).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        assert!(opened("0123456789abcdef", 0o640).is_err());
    }
}
