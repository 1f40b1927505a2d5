//! The parent of Postgres: it stops it when its permission to run as a primary ends.
//!
//! Why a process of its own: an agent may crash, hang, be upgraded or run out of memory, and
//! neither may Postgres notice, nor may it outlive the permission.  So this one does almost
//! nothing: one thread, one loop, memory locked, nothing read from a disk after the start.
//!
//! Reading order: `deadline.rs` (the rule), `supervisor.rs` (the loop), `commands.rs`,
//! `children.rs`.

mod callers;
mod children;
mod client;
mod commands;
mod deadline;
mod escalation;
mod heartbeat;
mod kernel;
mod log;
mod netcut;
mod options;
mod protocol;
mod spawn;
mod supervisor;
mod tree;
mod watchdog;

use std::ffi::CString;
use std::io;
use std::process::ExitCode;

use nix::unistd::{geteuid, getgrouplist, Uid};

use crate::client::Listener;
use crate::heartbeat::Heartbeat;
use crate::netcut::NetCut;
use crate::options::{Asked, Options};
use crate::spawn::User;
use crate::supervisor::{Fittings, Supervisor};
use crate::tree::Cgroup;
use crate::watchdog::Watchdog;

// sysexits.h
const USAGE_ERROR: u8 = 64;
const CANT_START: u8 = 71;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("flightmode-fence: {error}\n{}", options::USAGE);
            return ExitCode::from(USAGE_ERROR);
        }
    };
    log::set_least(options.log_level);
    match fit(&options).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(error);
            ExitCode::from(CANT_START)
        }
    }
}

fn run(fittings: Fittings) -> io::Result<()> {
    let supervisor = Supervisor::new(fittings)?;
    log::info("ready");
    Ok(supervisor.run()?)
}

/// Everything that reads a disk, runs a program or asks for a name happens here, once.
fn fit(options: &Options) -> io::Result<Fittings> {
    let user = user(options.postgres_uid)?;
    let listener = Listener::open(&options.socket, user.uid)
        .map_err(|error| io::Error::other(format!("{}: {error}", options.socket.display())))?;
    let started_s = kernel::now_s();
    let mut missing = Vec::new();
    let netcut = options.nft.as_ref();
    let netcut =
        wanted(&mut missing, "nft", netcut.map(|(table, port)| NetCut::prepare(table, *port)));
    let cgroup = wanted(&mut missing, "cgroup", options.cgroup.as_deref().map(Cgroup::open));
    let dog = options.watchdog.as_ref();
    let watchdog = wanted(&mut missing, "watchdog", dog.map(|(path, s)| Watchdog::open(path, *s)));
    let heartbeat = match &options.heartbeat_key {
        Some(key) => Some(
            Heartbeat::open(&options.node, key, started_s)
                .map_err(|error| io::Error::other(format!("{}: {error}", key.display())))?,
        ),
        None => None,
    };
    nix::sys::prctl::set_child_subreaper(true)?;
    let protection = kernel::protect();
    for words in protection.refused.iter().chain(&missing) {
        log::warning(format_args!("not had: {words}"));
    }
    Ok(Fittings {
        node: options.node.clone(),
        user,
        change_user: geteuid().is_root(),
        started_s,
        protection,
        listener,
        cgroup,
        netcut,
        watchdog,
        heartbeat,
        missing,
    })
}

/// What was asked for, if it could be had; a level that fails is missed, not fatal.
fn wanted<T>(missing: &mut Vec<String>, what: &str, tried: Option<io::Result<T>>) -> Option<T> {
    tried?.map_err(|error| missing.push(format!("{what}: {error}"))).ok()
}

/// Whose process Postgres becomes: never root's.
fn user(asked: Option<u32>) -> io::Result<User> {
    let own = geteuid();
    let uid = asked.map_or(own, Uid::from_raw);
    if uid.is_root() {
        return Err(io::Error::other("Postgres never runs as root: give --postgres-uid"));
    }
    if !own.is_root() && uid != own {
        return Err(io::Error::other("only root can run Postgres as somebody else"));
    }
    let found = nix::unistd::User::from_uid(uid)?;
    let found =
        found.ok_or_else(|| io::Error::other(format!("there is no user with uid {uid}")))?;
    let name = CString::new(found.name)?;
    let groups = getgrouplist(&name, found.gid)?;
    Ok(User {
        uid: uid.as_raw(),
        gid: found.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    })
}
