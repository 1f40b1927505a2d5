//! Postgres as our child: its start, its end, and the end of what it leaves behind.

use std::io::Read;

use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use serde_json::json;

use crate::escalation::Escalation;
use crate::kernel;
use crate::log;
use crate::protocol::{self, Refused, Role};
use crate::spawn;
use crate::supervisor::{Exit, Supervisor};
use crate::tree::{self, Cgroup};

impl Supervisor {
    /// As what a Postgres of ours, or what is left of one, lives.
    pub fn role(&self) -> Option<Role> {
        self.postmaster.as_ref().map(|running| running.role).or(self.remnants)
    }

    pub fn tree_empty(&self) -> bool {
        self.postmaster.is_none() && self.remnants.is_none()
    }

    /// A fence before us may have left something in the cgroup: nobody guards it, so it ends.
    pub fn inherit(&mut self) {
        if self.fittings.cgroup.as_ref().is_some_and(Cgroup::populated) {
            log::warning("Postgres of an earlier fence still lives in the cgroup: killing it");
            self.remnants = Some(Role::Primary);
            self.kill_tree();
        }
    }

    pub fn signalled(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as libc::c_int {
                libc::SIGCHLD => self.reap(),
                libc::SIGHUP => {}
                _ => self.leave(),
            }
        }
    }

    pub fn leave(&mut self) {
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
    pub fn reap(&mut self) {
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
        self.strangers.retain(|(_, pidfd)| kernel::pidfd_signal(pidfd, 0).is_ok());
        let cgroup = self.fittings.cgroup.as_ref();
        let empty =
            childless && self.strangers.is_empty() && !cgroup.is_some_and(Cgroup::populated);
        if empty && self.remnants.is_some() {
            self.emptied();
        } else if self.killing && !childless {
            tree::kill_children();
        }
    }

    pub fn gone(&mut self, pid: Pid, code: Option<i32>, signal: Option<i32>) {
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
        self.last_exit = Some(Exit { pid, code, signal, boottime_s });
        log::info(format_args!("postmaster {pid} ended: code {code:?}, signal {signal:?}"));
        self.tell(&json!({
            "event": "exited", "pid": pid.as_raw(), "exit_code": code, "signal": signal,
            "boottime_s": boottime_s,
        }));
    }

    /// Nothing of Postgres is left.
    pub fn emptied(&mut self) {
        self.remnants = None;
        self.killing = false;
        self.escalation = None;
        self.permission.stopped();
        if let Some(netcut) = self.fittings.netcut.as_mut().filter(|netcut| netcut.is_cut()) {
            if let Err(error) = netcut.restore() {
                log::error(format_args!("the port stays cut: {error}"));
            }
        }
        log::info("nothing of Postgres is left");
        self.tell(&json!({"event": "tree_empty"}));
    }

    /// A client waits for the outcome of an exec, which is known now (or the child is gone).
    pub fn started(&mut self) {
        let starting = self.postmaster.as_mut().and_then(|running| running.starting.take());
        let Some(starting) = starting else { return };
        self.unwatch(&starting.outcome);
        let mut report = Vec::new();
        let mut pipe = std::fs::File::from(starting.outcome);
        // At most five bytes, written at once before the end of the file.
        let _ = pipe.by_ref().take(16).read_to_end(&mut report);
        let Some(running) = &mut self.postmaster else { return };
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
            Ok(()) => log::info(format_args!("signal {signal} to postmaster {}", running.pid)),
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
}
