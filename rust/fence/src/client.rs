//! Who may speak to the fence, and how packets go in and out.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, Flock, FlockArg};
use nix::sys::socket::{
    accept4, bind, getsockopt, listen, recvmsg, send, socket, sockopt, AddressFamily, Backlog,
    MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::stat::{umask, Mode};
use nix::unistd::{fchownat, Gid, Uid};
use serde_json::Value;

use crate::protocol::PACKET_MAX;

/// The door: a Unix socket that only its owner can open.
pub struct Listener {
    pub fd: OwnedFd,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Listener {
    /// Listens at `path`, owned by `owner`.  Fails when another fence does.
    pub fn open(path: &Path, owner: u32) -> io::Result<Self> {
        let lock = lock_beside(path)?;
        // The lock is ours: whatever is there belongs to nobody that lives.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixAddr::new(path).and_then(|address| bind(fd.as_raw_fd(), &address));
        umask(before);
        bound?;
        let owner = Some(Uid::from_raw(owner));
        fchownat(None, path, owner, None::<Gid>, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        listen(&fd, Backlog::new(32)?)?;
        let path = path.to_owned();
        Ok(Self { fd, path, _lock: lock })
    }

    /// The next caller, if there is one: its uid and its connection.
    pub fn accept(&self) -> Option<(u32, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = accept4(self.fd.as_raw_fd(), flags).ok()?;
        // SAFETY: accept4 has just made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let peer = getsockopt(&fd, sockopt::PeerCredentials).ok()?;
        Some((peer.uid(), fd))
    }

    /// Takes the door away.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn lock_beside(path: &Path) -> io::Result<Flock<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(name)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => io::Error::other("another fence has this socket"),
        errno => errno.into(),
    })
}

/// One connection.
pub struct Client {
    pub fd: OwnedFd,
    pub subscribed: bool,
}

/// What came of reading once.
pub enum Heard {
    Packet(Vec<u8>),
    TooLong,
    Nothing,
    Gone,
}

impl Client {
    pub fn new(fd: OwnedFd) -> Self {
        let subscribed = false;
        Self { fd, subscribed }
    }

    pub fn hear(&self) -> Heard {
        let mut packet = vec![0_u8; PACKET_MAX];
        let mut room = [IoSliceMut::new(&mut packet)];
        let heard = recvmsg::<()>(self.fd.as_raw_fd(), &mut room, None, MsgFlags::MSG_DONTWAIT);
        let (length, flags) = match heard {
            Ok(message) => (message.bytes, message.flags),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Heard::Nothing,
            Err(_) => return Heard::Gone,
        };
        if flags.contains(MsgFlags::MSG_TRUNC) {
            return Heard::TooLong;
        }
        if length == 0 {
            return Heard::Gone;
        }
        packet.truncate(length);
        Heard::Packet(packet)
    }

    /// Sends without waiting.  False: the other side is gone, or does not read.
    pub fn say(&self, words: &Value) -> bool {
        say(&self.fd, words)
    }
}

/// Sends one packet without waiting.
pub fn say(fd: &OwnedFd, words: &Value) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(fd.as_raw_fd(), words.to_string().as_bytes(), flags).is_ok()
}
