//! What the kernel offers and no crate wraps the way we need it, in a few safe calls.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use nix::unistd::Pid;

use crate::deadline::Look;

/// Both clocks, one right after the other.
pub fn look() -> Look {
    Look {
        boottime_s: seconds(nix::time::ClockId::CLOCK_BOOTTIME),
        realtime_s: seconds(nix::time::ClockId::CLOCK_REALTIME),
    }
}

/// `CLOCK_BOOTTIME` in seconds.
pub fn now_s() -> f64 {
    look().boottime_s
}

fn seconds(clock: nix::time::ClockId) -> f64 {
    // These clocks exist on every Linux that has pidfd, and the pointer is ours.
    clock_gettime(clock).map_or(f64::INFINITY, |spec| Duration::from(spec).as_secs_f64())
}

/// A timer on `CLOCK_BOOTTIME` at an instant that may change.
pub struct Alarm {
    timer: TimerFd,
}

impl Alarm {
    pub fn new() -> nix::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, timer_flags())?;
        Ok(Self { timer })
    }

    /// Rings at `at_s`; at once when that is over; `None`: never.
    pub fn set(&self, at_s: Option<f64>) -> nix::Result<()> {
        let Some(at_s) = at_s else {
            return self.timer.unset();
        };
        // Zero would disarm the timer; a far future is cut to what a timespec holds.
        let at = Duration::from_secs_f64(at_s.clamp(1e-6, 1e15));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(at));
        self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    }

    /// Rings every `period`.
    pub fn every(&self, period: Duration) -> nix::Result<()> {
        let expiration = Expiration::Interval(TimeSpec::from_duration(period));
        self.timer.set(expiration, TimerSetTimeFlags::empty())
    }

    /// Forgets that it rang.
    pub fn clear(&self) {
        drain(self.timer.as_fd_raw());
    }

    pub fn fd(&self) -> &TimerFd {
        &self.timer
    }
}

/// A descriptor that becomes readable when somebody sets the wall clock (`timerfd_create(2)`).
pub fn clock_set_watch() -> nix::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, timer_flags())?;
    watch_clock_set(&timer)?;
    Ok(timer)
}

/// Arms [`clock_set_watch`] again.
pub fn watch_clock_set(timer: &TimerFd) -> nix::Result<()> {
    drain(timer.as_fd_raw());
    let never = Expiration::OneShot(TimeSpec::from_duration(Duration::from_secs(1 << 40)));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(never, flags)
}

fn timer_flags() -> TimerFlags {
    TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC
}

trait AsFdRaw {
    fn as_fd_raw(&self) -> libc::c_int;
}

impl AsFdRaw for TimerFd {
    fn as_fd_raw(&self) -> libc::c_int {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }
}

fn drain(fd: libc::c_int) {
    let mut count = [0_u8; 8];
    // SAFETY: the buffer is ours and as long as said; the descriptor does not block.
    unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

/// A process, by something that can't come to mean another one.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a descriptor that is returned is new and ours (close-on-exec).
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

pub fn pidfd_signal(pidfd: &OwnedFd, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor lives as long as the borrow; a null siginfo is allowed.
    let done = unsafe {
        let none = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How well this process is protected from a machine in trouble.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Pages are kept in memory, present and future ones.
    pub mlocked: bool,
    /// The kernel never picks it when memory is short.
    pub oom_protected: bool,
    /// It runs before ordinary processes.
    pub realtime: bool,
    /// What was refused, in words.
    pub refused: Vec<String>,
}

/// Takes what the kernel grants.  Nothing here is worth not starting for.
pub fn protect() -> Protection {
    let mut refused = Vec::new();
    let mut note = |what: &str, outcome: Result<(), String>| {
        let granted = outcome.is_ok();
        if let Err(why) = outcome {
            refused.push(format!("{what}: {why}"));
        }
        granted
    };
    let mlocked = note("mlockall", lock_memory());
    let oom = fs::write("/proc/self/oom_score_adj", "-1000").map_err(|e| e.to_string());
    let oom_protected = note("oom_score_adj", oom);
    let realtime = note("SCHED_RR", run_first());
    if let Err(errno) = nix::sys::prctl::set_name(&CString::from(c"fm-fence")) {
        note("PR_SET_NAME", Err(errno.to_string()));
    }
    Protection { mlocked, oom_protected, realtime, refused }
}

fn lock_memory() -> Result<(), String> {
    // With a limit on locked memory, MCL_FUTURE makes allocations fail once it is reached.
    if !nix::unistd::geteuid().is_root() {
        let _ = mlockall(MlockAllFlags::MCL_CURRENT);
        return Err("needs root for future pages; present ones at most".into());
    }
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(|e| e.to_string())
}

fn run_first() -> Result<(), String> {
    // SAFETY: a zeroed sched_param is valid, and the pointer is to our own.
    let done = unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        param.sched_priority = 1;
        // Children start as ordinary processes.
        let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
        libc::sched_setscheduler(0, policy, &param)
    };
    if done < 0 {
        return Err(io::Error::last_os_error().to_string());
    }
    Ok(())
}
