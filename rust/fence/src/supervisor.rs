//! The fence's one loop: clocks first, then children, then clients.
//!
//! After every wake both clocks are looked at before anything else is done, so that no
//! request, however long it waited, can hide a deadline or a pause of the machine.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::TimerFd;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::client::{say, Client, Heard, Listener};
use crate::deadline::{Permission, Verdict, Why};
use crate::escalation::{Escalation, Step};
use crate::heartbeat::{Heartbeat, Pulse};
use crate::kernel::{self, Alarm, Protection};
use crate::log;
use crate::netcut::NetCut;
use crate::protocol::{self, Refused, Role};
use crate::spawn::{self, User};
use crate::tree::{self, Cgroup};
use crate::watchdog::Watchdog;

/// Heartbeats, looks at the clocks, and what waits for processes to end.
const PULSE: Duration = Duration::from_millis(100);
/// The watchdog is petted every so many pulses.
const PET_EVERY: u64 = 5;
const CLIENTS_MAX: usize = 64;

const SIGNALS: u64 = 0;
const ALARM: u64 = 1;
const PULSES: u64 = 2;
const CLOCK_SET: u64 = 3;
const DOOR: u64 = 4;
const EXEC: u64 = 5;
const FIRST_CLIENT: u64 = 16;

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
    pub client: RawFd,
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
    pub clients: BTreeMap<RawFd, Client>,
    epoll: Epoll,
    signals: SignalFd,
    alarm: Alarm,
    pulses: Alarm,
    clock_set: TimerFd,
    pulse_count: u64,
}

impl Supervisor {
    pub fn new(fittings: Fittings) -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ] {
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
                self.serve(event.data());
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

    fn serve(&mut self, token: u64) {
        match token {
            SIGNALS => self.signalled(),
            ALARM => self.alarm.clear(),
            PULSES => self.pulse(),
            CLOCK_SET => {
                if let Err(errno) = kernel::watch_clock_set(&self.clock_set) {
                    log::warning(format_args!(
                        "the wall clock is not watched any more: {errno}"
                    ));
                }
            }
            DOOR => self.admit(),
            EXEC => self.started(),
            client => self.hear((client - FIRST_CLIENT) as RawFd),
        }
    }

    fn watch(&self, fd: impl AsFd, token: u64) -> nix::Result<()> {
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
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
    fn look(&mut self) {
        let at = kernel::look();
        let primary = self.role() == Some(Role::Primary);
        if let Verdict::Ended(why) = self.permission.look(at, primary) {
            self.ended(why, primary);
        }
        while let Some(step) = self
            .escalation
            .as_mut()
            .and_then(|steps| steps.due(at.boottime_s))
        {
            self.take(step);
        }
    }

    /// The permission has just ended.  A standby goes on: it acknowledges nothing.
    pub fn ended(&mut self, why: Why, stop: bool) {
        let term = self.permission.term();
        let words = why.words();
        log::warning(format_args!(
            "the permission of term {term} has ended: {words}"
        ));
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

    // ------------------------------------------------------------------ children

    /// As what a Postgres of ours, or what is left of one, lives.
    pub fn role(&self) -> Option<Role> {
        self.postmaster
            .as_ref()
            .map(|running| running.role)
            .or(self.remnants)
    }

    pub fn tree_empty(&self) -> bool {
        self.postmaster.is_none() && self.remnants.is_none()
    }

    /// A fence before us may have left something in the cgroup: nobody guards it, so it ends.
    fn inherit(&mut self) {
        if self.fittings.cgroup.as_ref().is_some_and(Cgroup::populated) {
            log::warning("Postgres of an earlier fence still lives in the cgroup: killing it");
            self.remnants = Some(Role::Primary);
            self.kill_tree();
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as libc::c_int {
                libc::SIGCHLD => self.reap(),
                libc::SIGHUP => {}
                _ => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        log::info("asked to end: Postgres is stopped first");
        if !self.tree_empty() && self.escalation.is_none() {
            self.escalation = Some(Escalation::leaving(kernel::now_s()));
            self.look();
        }
    }

    /// Waits for everybody that has ended, and sees whether anybody is left.
    fn reap(&mut self) {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        let childless = loop {
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => self.gone(pid, Some(code), None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.gone(pid, None, Some(signal as i32));
                }
                Ok(WaitStatus::StillAlive) => break false,
                Err(nix::Error::ECHILD) => break true,
                Err(nix::Error::EINTR) | Ok(_) => {}
                Err(errno) => {
                    log::error(format_args!("waitpid: {errno}"));
                    break false;
                }
            }
        };
        self.strangers
            .retain(|(_, pidfd)| kernel::pidfd_signal(pidfd, 0).is_ok());
        let cgroup = self.fittings.cgroup.as_ref();
        let empty =
            childless && self.strangers.is_empty() && !cgroup.is_some_and(Cgroup::populated);
        if empty && self.remnants.is_some() {
            self.emptied();
        } else if self.killing && !childless {
            tree::kill_children();
        }
    }

    fn gone(&mut self, pid: Pid, code: Option<i32>, signal: Option<i32>) {
        if self.postmaster.as_ref().map(|running| running.pid) != Some(pid) {
            return;
        }
        self.started();
        let Some(running) = self.postmaster.take() else {
            return;
        };
        self.remnants = Some(running.role);
        if running.failed {
            return;
        }
        let boottime_s = kernel::now_s();
        self.last_exit = Some(Exit {
            pid,
            code,
            signal,
            boottime_s,
        });
        log::info(format_args!(
            "postmaster {pid} ended: code {code:?}, signal {signal:?}"
        ));
        self.tell(&json!({
            "event": "exited", "pid": pid.as_raw(), "exit_code": code, "signal": signal,
            "boottime_s": boottime_s,
        }));
    }

    /// Nothing of Postgres is left.
    fn emptied(&mut self) {
        self.remnants = None;
        self.killing = false;
        self.escalation = None;
        self.permission.stopped();
        if let Some(netcut) = self
            .fittings
            .netcut
            .as_mut()
            .filter(|netcut| netcut.is_cut())
        {
            if let Err(error) = netcut.restore() {
                log::error(format_args!("the port stays cut: {error}"));
            }
        }
        log::info("nothing of Postgres is left");
        self.tell(&json!({"event": "tree_empty"}));
    }

    /// A client waits for the outcome of an exec, which is known now (or the child is gone).
    fn started(&mut self) {
        let Some(running) = &mut self.postmaster else {
            return;
        };
        let Some(starting) = running.starting.take() else {
            return;
        };
        let mut report = Vec::new();
        let mut pipe = std::fs::File::from(starting.outcome);
        // At most five bytes, written at once before the end of the file.
        let _ = pipe.by_ref().take(16).read_to_end(&mut report);
        let pid = running.pid.as_raw();
        let answer = if report.is_empty() {
            let started_s = running.started_s;
            log::info(format_args!("postmaster {pid} runs as {:?}", running.role));
            Ok(json!({"pid": pid, "started_s": started_s, "start_ticks": running.start_ticks}))
        } else {
            running.failed = true;
            let words = spawn::failure(&report);
            log::error(format_args!("Postgres did not start: {words}"));
            Err(Refused::new("start_failed", words))
        };
        let reply = protocol::reply(starting.id, answer);
        self.answer(starting.client, &reply);
    }

    pub fn signal_postmaster(&self, signal: libc::c_int) {
        let Some(running) = &self.postmaster else {
            return;
        };
        match kernel::pidfd_signal(&running.pidfd, signal) {
            Ok(()) => log::info(format_args!(
                "signal {signal} to postmaster {}",
                running.pid
            )),
            Err(error) => log::warning(format_args!("signal {signal} to the postmaster: {error}")),
        }
    }

    /// SIGKILL for everything, again and again until nothing is left.
    pub fn kill_tree(&mut self) {
        self.killing = true;
        log::warning("SIGKILL for all of Postgres");
        if let Some(Err(error)) = self.fittings.cgroup.as_ref().map(Cgroup::kill) {
            log::warning(format_args!("cgroup.kill: {error}"));
        }
        for (_, pidfd) in &self.strangers {
            // It may have ended by itself.
            let _ = kernel::pidfd_signal(pidfd, libc::SIGKILL);
        }
        tree::kill_children();
    }

    // ------------------------------------------------------------------ clients

    fn admit(&mut self) {
        while let Some((uid, fd)) = self.fittings.listener.accept() {
            let own = nix::unistd::geteuid().as_raw();
            let known = [0, own, self.fittings.user.uid].contains(&uid);
            let token = FIRST_CLIENT + fd.as_raw_fd() as u64;
            if !known || self.clients.len() >= CLIENTS_MAX || self.watch(&fd, token).is_err() {
                log::warning(format_args!("refused a caller of uid {uid}"));
                let message = format!("uid {uid} may not speak to this fence, or too many do");
                let error = json!({"code": "peer_refused", "message": message});
                say(&fd, &json!({"id": null, "error": error}));
                continue;
            }
            self.clients.insert(fd.as_raw_fd(), Client::new(fd));
        }
    }

    fn hear(&mut self, from: RawFd) {
        let Some(client) = self.clients.get(&from) else {
            return;
        };
        let reply = match client.hear() {
            Heard::Nothing => return,
            Heard::Gone => return self.forget(from),
            Heard::TooLong => {
                let refused = Refused::new("bad_request", "the packet is too long");
                Some(protocol::reply(0, Err(refused)))
            }
            Heard::Packet(packet) => match protocol::parse(&packet) {
                Ok(request) => self.carry_out(from, request),
                Err(reply) => Some(reply),
            },
        };
        if let Some(reply) = reply {
            self.answer(from, &reply);
        }
    }

    /// Who does not read is dropped: it can come back and ask.
    fn answer(&mut self, to: RawFd, reply: &Value) {
        if self
            .clients
            .get(&to)
            .is_some_and(|client| !client.say(reply))
        {
            self.forget(to);
        }
    }

    fn tell(&mut self, event: &Value) {
        self.clients
            .retain(|_, client| !client.subscribed || client.say(event));
    }

    fn forget(&mut self, client: RawFd) {
        // Closing the descriptor takes it out of epoll.
        self.clients.remove(&client);
        let waiting = self
            .postmaster
            .as_mut()
            .and_then(|running| running.starting.as_mut());
        if let Some(starting) = waiting.filter(|starting| starting.client == client) {
            // A later caller may get the same number.
            starting.client = -1;
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
