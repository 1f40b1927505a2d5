//! The second level: cut Postgres' port when SIGKILL does not end it (a stalled disk).
//!
//! At our start, while disks still answer, `nft` makes a table that drops the port's
//! packets, and that sleeps (flag `dormant`, nft(8)).  Cutting is one message to the kernel
//! that wakes the table: no program is run and no file is read when it matters.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::sys::socket::{socket, AddressFamily, SockFlag, SockProtocol, SockType};

// linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const INET: u8 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const AWAKE: u32 = 0;
const DORMANT: u32 = 1;

pub struct NetCut {
    netlink: OwnedFd,
    table: String,
    cut: bool,
}

impl NetCut {
    /// Makes the sleeping table.  Runs `nft`, so only at the start.
    pub fn prepare(table: &str, port: u16) -> io::Result<Self> {
        run_nft(&ruleset(table, port))?;
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        let table = table.to_owned();
        let mut cut = Self { netlink, table, cut: false };
        // A first message shows that the kernel takes them from us.
        cut.restore()?;
        Ok(cut)
    }

    pub fn is_cut(&self) -> bool {
        self.cut
    }

    pub fn cut(&mut self) -> io::Result<()> {
        self.tell(NEW_TABLE, Some(AWAKE))?;
        self.cut = true;
        Ok(())
    }

    pub fn restore(&mut self) -> io::Result<()> {
        self.tell(NEW_TABLE, Some(DORMANT))?;
        self.cut = false;
        Ok(())
    }

    /// Takes the table away.
    pub fn remove(&mut self) -> io::Result<()> {
        self.tell(DELETE_TABLE, None)
    }

    fn tell(&self, kind: u16, flags: Option<u32>) -> io::Result<()> {
        let batch = batch(kind, &self.table, flags);
        let fd = self.netlink.as_raw_fd();
        // SAFETY: the buffer is ours and as long as said.
        let sent = unsafe { libc::send(fd, batch.as_ptr().cast(), batch.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        // The kernel has worked through the batch when send returns; its verdict is there.
        let mut verdict = [0_u8; 4096];
        // SAFETY: as above.
        let length = unsafe { libc::recv(fd, verdict.as_mut_ptr().cast(), verdict.len(), 0) };
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        judge(&verdict[..length as usize])
    }
}

fn ruleset(table: &str, port: u16) -> String {
    format!(
        "table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
           flags dormant;\n\
           chain in {{ type filter hook input priority -300; tcp dport {port} drop; }}\n\
           chain out {{ type filter hook output priority -300; tcp sport {port} drop; }}\n\
         }}\n"
    )
}

fn run_nft(rules: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(words.lines().next().unwrap_or("nft failed").to_owned()))
}

/// One change between the two messages that make it a transaction.
fn batch(kind: u16, table: &str, flags: Option<u32>) -> Vec<u8> {
    let mut name = table.as_bytes().to_vec();
    name.push(0);
    let mut attributes = attribute(TABLE_NAME, &name);
    if let Some(flags) = flags {
        attributes.extend(attribute(TABLE_FLAGS, &flags.to_be_bytes()));
    }
    let request = libc::NLM_F_REQUEST as u16;
    let acknowledged = request | libc::NLM_F_ACK as u16;
    let mut bytes = message(BATCH_BEGIN, request, 0, NFTABLES, &[]);
    bytes.extend(message(kind, acknowledged, INET, 0, &attributes));
    bytes.extend(message(BATCH_END, request, 0, NFTABLES, &[]));
    bytes
}

/// struct nlmsghdr, struct nfgenmsg, attributes.
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = 16 + 4 + attributes.len() as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// struct nlattr and its value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The kernel's answer: struct nlmsghdr, then struct nlmsgerr, whose first field is 0 or -errno.
fn judge(verdict: &[u8]) -> io::Result<()> {
    let errno = verdict.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match errno.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::Error::other("the kernel's answer was too short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_lengths_that_they_state() {
        let bytes = batch(NEW_TABLE, "flightmode", Some(AWAKE));
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < bytes.len() {
            let length = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes(bytes[at + 4..at + 6].try_into().unwrap()));
            assert_eq!(length % 4, 0);
            at += length;
        }
        assert_eq!(kinds, [BATCH_BEGIN, NEW_TABLE, BATCH_END]);
    }

    #[test]
    fn a_refusal_of_the_kernel_is_an_error() {
        let mut verdict = [0_u8; 36];
        assert!(judge(&verdict).is_ok());
        verdict[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(judge(&verdict).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(judge(&[]).is_err());
    }
}
