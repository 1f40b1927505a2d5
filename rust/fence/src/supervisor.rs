//! The fence's one loop: clocks first, then children, then clients.
//!
//! After every wake both clocks are looked at before anything else is done, so that no
//! request, however long it waited, can hide a deadline or a pause of the machine.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::TimerFd;
use nix::unistd::Pid;
use serde_json::json;

use crate::client::{Client, Listener};
use crate::deadline::{Permission, Verdict, Why};
use crate::escalation::{Escalation, Step};
use crate::heartbeat::{Heartbeat, Pulse};
use crate::kernel::{self, Alarm, Protection};
use crate::log;
use crate::netcut::NetCut;
use crate::protocol::Role;
use crate::spawn::User;
use crate::tree::Cgroup;
use crate::watchdog::Watchdog;

/// Heartbeats, looks at the clocks, and what waits for processes to end.
const PULSE: Duration = Duration::from_millis(100);
/// The watchdog is petted every so many pulses.
const PET_EVERY: u64 = 5;
pub const CLIENTS_MAX: usize = 64;

const SIGNALS: u64 = 0;
const ALARM: u64 = 1;
const PULSES: u64 = 2;
const CLOCK_SET: u64 = 3;
const DOOR: u64 = 4;
const EXEC: u64 = 5;
const FIRST_CLIENT: Token = 16;

/// Names a caller; unlike a descriptor, never used again.
pub type Token = u64;

/// What was found at the start, and stays.
pub struct Fittings {
    pub node: String,
    pub user: User,
    /// We are root, and Postgres becomes `user`.
    pub change_user: bool,
    pub started_s: f64,
    pub protection: Protection,
    pub listener: Listener,
    pub cgroup: Option<Cgroup>,
    pub netcut: Option<NetCut>,
    pub watchdog: Option<Watchdog>,
    pub heartbeat: Option<Heartbeat>,
    /// What was asked for and could not be had, in words.
    pub missing: Vec<String>,
}

/// The postmaster, from its fork to its end.
pub struct Postmaster {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub start_ticks: Option<u64>,
    pub started_s: f64,
    pub role: Role,
    pub starting: Option<Starting>,
    /// It never became Postgres.
    pub failed: bool,
}

/// Somebody waits to hear whether exec succeeded.
pub struct Starting {
    pub outcome: OwnedFd,
    pub client: Token,
    pub id: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub pid: Pid,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub boottime_s: f64,
}

pub struct Supervisor {
    pub fittings: Fittings,
    pub permission: Permission,
    pub postmaster: Option<Postmaster>,
    /// The postmaster is gone, but something of it may live: what it was.
    pub remnants: Option<Role>,
    /// Servers at work in our directory that are not our children.
    pub strangers: Vec<(Pid, OwnedFd)>,
    pub escalation: Option<Escalation>,
    pub killing: bool,
    pub leaving: bool,
    pub last_exit: Option<Exit>,
    pub clients: BTreeMap<Token, Client>,
    pub next_client: Token,
    epoll: Epoll,
    pub signals: SignalFd,
    alarm: Alarm,
    pulses: Alarm,
    clock_set: TimerFd,
    pulse_count: u64,
}

impl Supervisor {
    pub fn new(fittings: Fittings) -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let supervisor = Self {
            fittings,
            permission: Permission::new(),
            postmaster: None,
            remnants: None,
            strangers: Vec::new(),
            escalation: None,
            killing: false,
            leaving: false,
            last_exit: None,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            signals: SignalFd::with_flags(&set, flags)?,
            alarm: Alarm::new()?,
            pulses: Alarm::new()?,
            clock_set: kernel::clock_set_watch()?,
            pulse_count: 0,
        };
        supervisor.pulses.every(PULSE)?;
        supervisor.watch(&supervisor.signals, SIGNALS)?;
        supervisor.watch(supervisor.alarm.fd(), ALARM)?;
        supervisor.watch(supervisor.pulses.fd(), PULSES)?;
        supervisor.watch(&supervisor.clock_set, CLOCK_SET)?;
        supervisor.watch(&supervisor.fittings.listener.fd, DOOR)?;
        Ok(supervisor)
    }

    /// Until Postgres is stopped for good.
    pub fn run(mut self) -> nix::Result<()> {
        self.inherit();
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(errno) => return Err(errno),
            };
            self.look();
            for event in &events[..count] {
                self.serve(event.data(), event.events());
                // A request may have moved the deadline, to the past even.
                self.look();
            }
            if self.leaving && self.tree_empty() {
                self.close();
                return Ok(());
            }
            self.rearm()?;
        }
    }

    pub fn serve(&mut self, token: u64, flags: EpollFlags) {
        match token {
            SIGNALS => self.signalled(),
            ALARM => self.alarm.clear(),
            PULSES => self.pulse(),
            CLOCK_SET => {
                if let Err(errno) = kernel::watch_clock_set(&self.clock_set) {
                    log::warning(format_args!("the wall clock is not watched any more: {errno}"));
                }
            }
            DOOR => self.admit(),
            EXEC => self.started(),
            // Nobody waits for what its caller has given up: carried out late, it might undo
            // what was asked for since.
            client if flags.contains(EpollFlags::EPOLLHUP) => {
                self.forget(client);
            }
            client => self.hear(client),
        }
    }

    pub fn watch(&self, fd: impl AsFd, token: u64) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    pub fn unwatch(&self, fd: impl AsFd) {
        if let Err(errno) = self.epoll.delete(fd) {
            log::warning(format_args!("epoll: {errno}"));
        }
    }

    /// Waits for the outcome of an exec.
    pub fn watch_exec(&self, outcome: &OwnedFd) -> nix::Result<()> {
        self.watch(outcome, EXEC)
    }

    /// Rings at the next instant that matters.
    fn rearm(&self) -> nix::Result<()> {
        let deadline_s = self.permission.deadline_s();
        let step_s = self.escalation.as_ref().and_then(Escalation::next_s);
        let next_s = match (deadline_s, step_s) {
            (Some(deadline_s), Some(step_s)) => Some(deadline_s.min(step_s)),
            (one, other) => one.or(other),
        };
        self.alarm.set(next_s)
    }

    // ------------------------------------------------------------------ time

    /// The clocks, then whatever has fallen due.
    pub fn look(&mut self) {
        let at = kernel::look();
        let primary = self.role() == Some(Role::Primary);
        if let Verdict::Ended(why) = self.permission.look(at, primary) {
            self.ended(why, primary);
        }
        while let Some(step) = self.escalation.as_mut().and_then(|steps| steps.due(at.boottime_s)) {
            self.take(step);
        }
    }

    /// The permission has just ended.  A standby goes on: it acknowledges nothing.
    pub fn ended(&mut self, why: Why, stop: bool) {
        let term = self.permission.term();
        let words = why.words();
        log::warning(format_args!("the permission of term {term} has ended: {words}"));
        self.tell(&json!({"event": "fenced", "term": term, "why": words}));
        if stop && !self.tree_empty() && !self.fencing() {
            self.escalation = Some(Escalation::fencing(kernel::now_s()));
        }
    }

    /// Postgres is being stopped because it may not run; asked twice, it is not given more time.
    pub fn fencing(&self) -> bool {
        self.escalation.as_ref().is_some_and(Escalation::is_fencing)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fast => self.signal_postmaster(libc::SIGINT),
            Step::Quit if self.postmaster.is_some() => self.signal_postmaster(libc::SIGQUIT),
            // A postmaster that is gone can't end its children any more.
            Step::Quit | Step::Kill => self.kill_tree(),
            Step::Cut => self.cut(),
        }
    }

    fn cut(&mut self) {
        let Some(netcut) = &mut self.fittings.netcut else {
            return;
        };
        match netcut.cut() {
            Ok(()) => log::error("Postgres outlives SIGKILL: its port is cut"),
            Err(error) => log::error(format_args!("the port could not be cut: {error}")),
        }
    }

    fn pulse(&mut self) {
        self.pulses.clear();
        self.pulse_count += 1;
        if self.remnants.is_some() || self.killing {
            self.reap();
        }
        let pulse = Pulse {
            term: self.permission.term(),
            postgres_alive: self.postmaster.is_some(),
            boottime_s: kernel::now_s(),
        };
        if let Some(heartbeat) = &mut self.fittings.heartbeat {
            heartbeat.beat(pulse);
        }
        if self.pulse_count % PET_EVERY == 0 {
            self.pet();
        }
    }

    /// While something lives that should be dead, nobody pets.
    fn pet(&mut self) {
        if self.fencing() && !self.tree_empty() {
            return;
        }
        if let Some(Err(error)) = self.fittings.watchdog.as_mut().map(Watchdog::pet) {
            log::warning(format_args!("the watchdog was not petted: {error}"));
        }
    }

    fn close(&mut self) {
        self.fittings.listener.remove();
        if let Some(cgroup) = &self.fittings.cgroup {
            cgroup.remove();
        }
        if let Some(Err(error)) = self.fittings.netcut.as_mut().map(NetCut::remove) {
            log::warning(format_args!("the nftables table stays: {error}"));
        }
        if let Some(Err(error)) = self.fittings.watchdog.take().map(Watchdog::disarm) {
            log::error(format_args!("the watchdog is still armed: {error}"));
        }
        log::info("ended");
    }
}
