//! Everything that lives below us: found through the kernel, never through bare pids.
//!
//! We are a child subreaper: whatever loses its parent becomes our own child.  So "we have
//! no child" means that nothing of Postgres is left, though its backends make sessions of
//! their own.  A pid of an own child means that child until we have waited for it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::kernel;

/// One line of /proc/PID/stat, as far as we need it (proc(5)).
struct Stat {
    pid: libc::pid_t,
    name: String,
    parent: libc::pid_t,
    start_ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name may hold anything, also parentheses and spaces: it ends at the last ")".
        let (head, tail) = line.rsplit_once(')')?;
        let (pid, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }

    fn read(pid: libc::pid_t) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Every process at this moment; those that end meanwhile are left out.
fn processes() -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Stat::read)
}

/// When a process started, in clock ticks since boot: with its pid, an identity.
pub fn start_ticks(pid: Pid) -> Option<u64> {
    Some(Stat::read(pid.as_raw())?.start_ticks)
}

/// SIGKILL for each child of ours; theirs become ours when they are gone: call again then.
pub fn kill_children() {
    let me = nix::unistd::getpid().as_raw();
    for child in processes().filter(|process| process.parent == me) {
        // SAFETY: no pointers.  The pid can't mean another process: only we wait for it.
        unsafe { libc::kill(child.pid, libc::SIGKILL) };
    }
}

/// Servers that already work in one of these places and are not ours, e.g. of a fence before us.
pub fn strangers(places: &[&Path]) -> Vec<(Pid, OwnedFd)> {
    processes()
        .filter(|process| process.name == "postgres")
        .filter_map(|process| {
            let pid = Pid::from_raw(process.pid);
            let pidfd = kernel::pidfd_open(pid).ok()?;
            // Asked after the pidfd is held: both speak of the same process or there is none.
            let at = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            let same = start_ticks(pid)? == process.start_ticks;
            (same && places.contains(&at.as_path())).then_some((pid, pidfd))
        })
        .collect()
}

/// A cgroup (version 2) of Postgres' own.
pub struct Cgroup {
    directory: PathBuf,
    procs: CString,
    events: File,
    kill: Option<File>,
}

impl Cgroup {
    /// Makes it if it is not there.  Its files are opened now: later nothing is looked up.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let parent = directory.parent().unwrap_or(directory);
        if !parent.join("cgroup.procs").exists() {
            let words = format!("{} is no directory of cgroup2", parent.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, words));
        }
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let procs = directory.join("cgroup.procs");
        fs::OpenOptions::new().write(true).open(&procs)?;
        let kill = fs::OpenOptions::new().write(true).open(directory.join("cgroup.kill"));
        Ok(Self {
            procs: CString::new(procs.into_os_string().into_encoded_bytes())?,
            events: File::open(directory.join("cgroup.events"))?,
            kill: kill.ok(),
            directory: directory.to_owned(),
        })
    }

    pub fn procs(&self) -> &CString {
        &self.procs
    }

    /// Whether a process lives in it.  When that can't be read, one may.
    pub fn populated(&self) -> bool {
        let mut text = [0_u8; 256];
        match self.events.read_at(&mut text, 0) {
            Ok(length) => is_populated(&text[..length]),
            Err(_) => true,
        }
    }

    /// SIGKILL for everything in it, at once (Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        match &self.kill {
            Some(file) => (&*file).write_all(b"1"),
            None => Ok(()),
        }
    }

    /// Removes it when it is empty.
    pub fn remove(&self) {
        // Somebody may still be in it; then it stays, and so it should.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn is_populated(events: &[u8]) -> bool {
    !String::from_utf8_lossy(events).lines().any(|line| line == "populated 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_nasty_name_is_read() {
        let line = "42 (a) R (b) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.start_ticks), (42, 7, 98765));
        assert_eq!(stat.name, "a) R (b");
    }

    #[test]
    fn we_are_found_with_our_parent() {
        let me = nix::unistd::getpid().as_raw();
        let found = processes().find(|process| process.pid == me).unwrap();
        assert_eq!(found.parent, nix::unistd::getppid().as_raw());
    }

    #[test]
    fn an_empty_cgroup_says_so() {
        assert!(!is_populated(b"populated 0\nfrozen 0\n"));
        assert!(is_populated(b"populated 1\nfrozen 0\n"));
        assert!(is_populated(b""));
    }
}
