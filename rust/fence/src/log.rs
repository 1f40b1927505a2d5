//! One line an event, to standard error, never waiting for whoever reads it.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "debug" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warning" => Some(Self::Warning),
            "error" => Some(Self::Error),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// Lines that nobody could take.
static LOST: AtomicU64 = AtomicU64::new(0);

pub fn set_least(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
}

/// Writes a line, or drops it when the reader is slow: a log must not hold up a fence.
pub fn line(level: Level, words: impl Display) {
    if (level as u8) < LEAST.load(Ordering::Relaxed) {
        return;
    }
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let takes = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
        && ready[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT));
    if !takes {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let lost = match LOST.swap(0, Ordering::Relaxed) {
        0 => String::new(),
        count => format!(" ({count} lines before this were lost)"),
    };
    let text = format!("flightmode-fence {}: {words}{lost}\n", level.word());
    // One write of less than PIPE_BUF: a pipe that polls writable takes it whole.
    let end = text.len().min(libc::PIPE_BUF);
    // SAFETY: the buffer is ours and as long as said.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), end) };
}

pub fn info(words: impl Display) {
    line(Level::Info, words);
}

pub fn warning(words: impl Display) {
    line(Level::Warning, words);
}

pub fn error(words: impl Display) {
    line(Level::Error, words);
}

pub fn debug(words: impl Display) {
    line(Level::Debug, words);
}
