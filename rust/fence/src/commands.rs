//! What each request does, and when it is refused.

use std::path::Path;

use serde_json::{json, Value};

use crate::client::Client;
use crate::deadline::{Grant, Why};
use crate::kernel;
use crate::log;
use crate::netcut::NetCut;
use crate::protocol::{self, Answer, Command, Refused, Request, Role, Start};
use crate::spawn;
use crate::supervisor::{Postmaster, Starting, Supervisor, Token};
use crate::tree;

impl Supervisor {
    /// The reply, unless it has to wait (for an exec).
    pub fn carry_out(&mut self, from: Token, request: Request) -> Option<Value> {
        let id = request.id;
        if let Command::Start(start) = request.command {
            return match self.start(&start, from, id) {
                Ok(()) => None,
                Err(refused) => Some(self.refuse(id, refused)),
            };
        }
        match self.obey(from, request.command) {
            Ok(value) => Some(protocol::reply(id, Ok(value))),
            Err(refused) => Some(self.refuse(id, refused)),
        }
    }

    fn refuse(&self, id: u64, refused: Refused) -> Value {
        let term = self.permission.term();
        log::info(format_args!("refused in term {term}: {}: {}", refused.code, refused.message));
        protocol::reply(id, Err(refused))
    }

    fn obey(&mut self, from: Token, command: Command) -> Answer {
        match command {
            Command::Start(_) => unreachable!("carried out by `start`"),
            Command::Extend { term, deadline_s } => {
                self.permission.extend(term, deadline_s, kernel::now_s())?;
                log::debug(format_args!("term {term}: until {deadline_s:.3}"));
            }
            Command::Lift { term } => {
                self.permission.lift(term)?;
                log::info(format_args!("term {term}: no deadline"));
            }
            Command::SetRole { role, term } => self.set_role(role, term)?,
            Command::Stop { mode } => {
                if self.postmaster.is_none() {
                    return Err(Refused::new("not_running", "no postmaster runs"));
                }
                self.signal_postmaster(mode.signal());
            }
            Command::Void => self.void(),
            Command::Kill => {
                if !self.tree_empty() {
                    self.kill_tree();
                }
            }
            Command::Status => return Ok(self.status()),
            Command::Subscribe => {
                if let Some(client) = self.clients.get_mut(&from) {
                    client.subscribed = true;
                }
            }
            Command::Heartbeat { to } => match &mut self.fittings.heartbeat {
                Some(heartbeat) => heartbeat.send_to(to),
                None => return Err(Refused::new("no_key", "started without --heartbeat-key")),
            },
        }
        Ok(json!({}))
    }

    /// Ends the permission and whatever runs, as a primary or not: the caller knows why.
    fn void(&mut self) {
        if self.permission.ended().is_some() && (self.tree_empty() || self.fencing()) {
            return;
        }
        let primary = self.role() == Some(Role::Primary);
        self.permission.void(primary);
        self.ended(Why::Void, true);
    }

    fn set_role(&mut self, role: Role, term: u64) -> Result<(), Refused> {
        let allowed = self.permission.allows(term, kernel::now_s());
        let known = self.permission.term();
        let Some(running) = &mut self.postmaster else {
            return Err(Refused::new("not_running", "no postmaster runs"));
        };
        if term < known {
            return Err(Refused::new("older_term", format!("term {known} is known here")));
        }
        match (running.role, role) {
            (Role::Primary, Role::Standby) => {
                let words = "a primary becomes a standby only by a restart";
                Err(Refused::new("still_primary", words))
            }
            (_, Role::Primary) if !allowed => Err(no_permission(term)),
            _ => {
                running.role = role;
                log::info(format_args!("term {term}: the running Postgres is {role:?}"));
                Ok(())
            }
        }
    }

    fn start(&mut self, start: &Start, from: Token, id: u64) -> Result<(), Refused> {
        self.startable(start)?;
        self.permit(start)?;
        let user = self.fittings.change_user.then_some(&self.fittings.user);
        let procs = self.fittings.cgroup.as_ref().map(tree::Cgroup::procs);
        let failed = |words: String| Refused::new("start_failed", words);
        let spawned = spawn::spawn(start, user, procs).map_err(failed)?;
        // From here on there is a child: whatever fails, it must be known to us.
        let pidfd = match kernel::pidfd_open(spawned.pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                self.remnants = Some(start.role);
                self.kill_tree();
                return Err(failed(error.to_string()));
            }
        };
        let watched = self.watch_exec(&spawned.outcome);
        self.postmaster = Some(Postmaster {
            pid: spawned.pid,
            pidfd,
            start_ticks: tree::start_ticks(spawned.pid),
            started_s: kernel::now_s(),
            role: start.role,
            starting: Some(Starting { outcome: spawned.outcome, client: from, id }),
            failed: false,
        });
        if let Err(errno) = watched {
            self.kill_tree();
            return Err(failed(errno.to_string()));
        }
        Ok(())
    }

    /// Whether the request makes sense and nothing is in its way.
    fn startable(&mut self, start: &Start) -> Result<(), Refused> {
        if self.leaving {
            return Err(Refused::new("leaving", "this fence was asked to end"));
        }
        let user = &self.fittings.user;
        if start.uid != user.uid || !user.groups.contains(&start.gid) {
            let words = format!("this fence starts processes of uid {} alone", user.uid);
            return Err(Refused::new("wrong_user", words));
        }
        if !start.argv.first().is_some_and(|program| program.starts_with('/')) {
            return Err(Refused::new("bad_request", "the program's path is not absolute"));
        }
        if let Some(running) = &self.postmaster {
            let words = format!("postmaster {} runs already", running.pid);
            return Err(Refused::new("already_running", words));
        }
        if self.remnants.is_none() {
            self.find_strangers(start);
        }
        if self.remnants.is_some() {
            let words = "something of an earlier Postgres still lives; `kill` ends it";
            return Err(Refused::new("remnants", words));
        }
        Ok(())
    }

    /// A server that works in our directory and is nobody's child of ours is a remnant too.
    fn find_strangers(&mut self, start: &Start) {
        let arguments = start.argv.iter().skip(1).map(Path::new);
        let places: Vec<&Path> = arguments.chain([start.directory.as_path()]).collect();
        self.strangers = tree::strangers(&places);
        for (pid, _) in &self.strangers {
            log::warning(format_args!("process {pid} is a Postgres in this directory, not ours"));
            self.remnants = Some(Role::Primary);
        }
    }

    /// A primary needs a permission of its very term; a standby's term only must not be old.
    fn permit(&mut self, start: &Start) -> Result<(), Refused> {
        let now_s = kernel::now_s();
        match (start.role, start.deadline_s) {
            (Role::Standby, _) => self.permission.follow(start.term)?,
            (Role::Primary, Some(deadline_s)) => {
                self.permission.extend(start.term, deadline_s, now_s)?;
            }
            (Role::Primary, None) if start.term < self.permission.term() => {
                let words = format!("term {} is known here", self.permission.term());
                return Err(Refused::new("older_term", words));
            }
            (Role::Primary, None) => {}
        }
        if start.role == Role::Primary && !self.permission.allows(start.term, now_s) {
            return Err(no_permission(start.term));
        }
        Ok(())
    }

    fn status(&self) -> Value {
        let fittings = &self.fittings;
        let running = self.postmaster.as_ref();
        let heartbeat = fittings.heartbeat.as_ref();
        let subscribed = |client: &&Client| client.subscribed;
        let missing = [&fittings.protection.refused[..], &fittings.missing[..]].concat();
        json!({
            "node": fittings.node,
            "version": env!("CARGO_PKG_VERSION"),
            "fence_pid": std::process::id(),
            "fence_started_s": fittings.started_s,
            "boottime_s": kernel::now_s(),
            "pid": running.map(|running| running.pid.as_raw()),
            "started_s": running.map(|running| running.started_s),
            "start_ticks": running.and_then(|running| running.start_ticks),
            "role": self.role(),
            "tree_empty": self.tree_empty(),
            "term": self.permission.term(),
            "deadline_s": match self.permission.grant() {
                Grant::Until(deadline_s) => Some(deadline_s),
                Grant::Nothing | Grant::Lifted => None,
            },
            "verdict": self.verdict(),
            "ended_by": self.permission.ended().map(Why::words),
            "level": self.level(),
            "mlocked": fittings.protection.mlocked,
            "oom_protected": fittings.protection.oom_protected,
            "realtime": fittings.protection.realtime,
            "cgroup": fittings.cgroup.is_some(),
            "port_cut": fittings.netcut.as_ref().is_some_and(NetCut::is_cut),
            "watchdog_timeout_s": fittings.watchdog.as_ref().and_then(|dog| dog.timeout_s),
            "missing": missing,
            "last_exit": self.last_exit.map(|exit| json!({
                "pid": exit.pid.as_raw(), "exit_code": exit.code, "signal": exit.signal,
                "boottime_s": exit.boottime_s,
            })),
            "subscribers": self.clients.values().filter(subscribed).count(),
            "heartbeats": {
                "to": heartbeat.map_or_else(Vec::new, |beat| beat.to().to_vec()),
                "sent": heartbeat.map_or(0, |beat| beat.sent),
                "failed": heartbeat.map_or(0, |beat| beat.failed),
            },
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.permission.ended(), self.permission.grant()) {
            (Some(_), _) => "expired",
            (None, Grant::Nothing) => "none",
            (None, Grant::Until(_)) => "armed",
            (None, Grant::Lifted) => "lifted",
        }
    }

    /// Which levels stand behind SIGKILL, honestly: only what was tried and works.
    fn level(&self) -> String {
        let mut level = String::from("fence");
        if self.fittings.netcut.is_some() {
            level.push_str("+nft");
        }
        if self.fittings.watchdog.as_ref().is_some_and(|dog| dog.timeout_s.is_some()) {
            level.push_str("+watchdog");
        }
        level
    }
}

fn no_permission(term: u64) -> Refused {
    let words = format!("no permission to run a primary in term {term} is in force");
    Refused::new("no_permission", words)
}
