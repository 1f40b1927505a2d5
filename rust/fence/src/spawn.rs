//! From one thread, fork, become the postmaster's user, and exec.
//!
//! Order matters in the child: what needs root comes before the change of user; the
//! parent-death signal comes after it, because a change of credentials clears it
//! (prctl(2), `PR_SET_PDEATHSIG`); and whether the parent is still there is asked after that.
//! The log is opened as the postmaster's user: root must not open what that user names.

use std::ffi::{CString, NulError};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use libc::c_int;
use nix::fcntl::OFlag;
use nix::unistd::{fork, pipe2, ForkResult, Pid};

use crate::protocol::Start;

/// Whose process it becomes.
#[derive(Clone, Debug)]
pub struct User {
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    /// All of its groups, the primary one among them.
    pub groups: Vec<libc::gid_t>,
}

/// A child that is about to be the postmaster.
pub struct Spawned {
    pub pid: Pid,
    /// At its end with nothing read: exec has succeeded.  Otherwise what failed.
    pub outcome: OwnedFd,
}

/// Steps of the child that can fail, in order; the discriminant crosses the pipe.
const STEPS: [&str; 9] = [
    "start a session",
    "join the cgroup",
    "change the user",
    "ask for the parent-death signal",
    "find its parent",
    "enter the directory",
    "open the log",
    "attach the log",
    "execute the program",
];

/// What the child said before it gave up.
pub fn failure(report: &[u8]) -> String {
    let [step, rest @ ..] = report else {
        return "the child ended without a word".into();
    };
    let what = STEPS.get(usize::from(*step)).unwrap_or(&"go on");
    let errno = rest.try_into().map_or(0, i32::from_ne_bytes);
    format!("could not {what}: {}", std::io::Error::from_raw_os_error(errno))
}

/// Everything the child needs, allocated before the fork.
struct Plan {
    argv: Vec<CString>,
    env: Vec<CString>,
    directory: CString,
    log: CString,
    user: Option<User>,
    cgroup_procs: Option<CString>,
    parent: libc::pid_t,
}

impl Plan {
    fn new(
        start: &Start,
        user: Option<&User>,
        cgroup_procs: Option<&CString>,
    ) -> Result<Self, NulError> {
        let env: Vec<String> =
            start.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Ok(Self {
            argv: texts(&start.argv)?,
            env: texts(&env)?,
            directory: CString::new(start.directory.as_os_str().as_bytes())?,
            log: CString::new(start.log.as_os_str().as_bytes())?,
            user: user.cloned(),
            cgroup_procs: cgroup_procs.cloned(),
            parent: nix::unistd::getpid().as_raw(),
        })
    }
}

fn texts(list: &[String]) -> Result<Vec<CString>, NulError> {
    list.iter().map(|text| CString::new(text.as_str())).collect()
}

/// Forks the child.  `user` None: it stays who we are.  Returns before exec.
pub fn spawn(
    start: &Start,
    user: Option<&User>,
    cgroup_procs: Option<&CString>,
) -> Result<Spawned, String> {
    let plan = Plan::new(start, user, cgroup_procs).map_err(|error| error.to_string())?;
    let argv = pointers(&plan.argv);
    let env = pointers(&plan.env);
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| e.to_string())?;
    // SAFETY: we have one thread, and the child calls only async-signal-safe functions on
    // memory that was prepared above.
    match unsafe { fork() } {
        Err(errno) => Err(errno.to_string()),
        Ok(ForkResult::Parent { child }) => Ok(Spawned { pid: child, outcome: read }),
        Ok(ForkResult::Child) => {
            // SAFETY: as above; it never returns.
            unsafe { become_postmaster(&plan, &argv, &env, write.as_raw_fd()) }
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    let ends = std::iter::once(std::ptr::null());
    texts.iter().map(|text| text.as_ptr()).chain(ends).collect()
}

/// The child: never returns.
///
/// # Safety
/// Only in a freshly forked child of a process with one thread.
unsafe fn become_postmaster(
    plan: &Plan,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
    report: RawFd,
) -> ! {
    // SAFETY: all calls are async-signal-safe; all pointers are into `plan`, which outlives us.
    unsafe {
        must(report, 0, libc::setsid());
        must(report, 1, join_cgroup(plan.cgroup_procs.as_ref()));
        forget_privileges();
        if let Some(user) = &plan.user {
            must(report, 2, libc::setgroups(user.groups.len(), user.groups.as_ptr()));
            must(report, 2, libc::setresgid(user.gid, user.gid, user.gid));
            must(report, 2, libc::setresuid(user.uid, user.uid, user.uid));
        }
        must(report, 3, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT));
        if libc::getppid() != plan.parent {
            give_up(report, 4, libc::ESRCH);
        }
        libc::umask(0o077);
        must(report, 5, libc::chdir(plan.directory.as_ptr()));
        let flags =
            libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let log = must(report, 6, libc::open(plan.log.as_ptr(), flags, 0o600));
        let null =
            must(report, 6, libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC));
        must(report, 7, libc::dup2(null, 0));
        must(report, 7, libc::dup2(log, 1));
        must(report, 7, libc::dup2(log, 2));
        libc::execve(argv[0], argv.as_ptr(), env.as_ptr());
        give_up(report, 8, *libc::__errno_location())
    }
}

/// A cgroup is joined by writing 0 ("me") to its cgroup.procs.
unsafe fn join_cgroup(procs: Option<&CString>) -> c_int {
    let Some(procs) = procs else { return 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe {
        let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return -1;
        }
        let written = libc::write(fd, b"0".as_ptr().cast(), 1);
        libc::close(fd);
        if written == 1 {
            0
        } else {
            -1
        }
    }
}

/// What protects the fence is not for its children: signals as for a fresh process, and a
/// score like any other's when memory runs out.
unsafe fn forget_privileges() {
    // SAFETY: signal sets are initialised before use; failures of these are harmless.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, b"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
    }
}

unsafe fn must(report: RawFd, step: u8, outcome: c_int) -> c_int {
    if outcome < 0 {
        // SAFETY: errno belongs to this thread.
        unsafe { give_up(report, step, *libc::__errno_location()) }
    }
    outcome
}

unsafe fn give_up(report: RawFd, step: u8, errno: c_int) -> ! {
    let [a, b, c, d] = errno.to_ne_bytes();
    let words = [step, a, b, c, d];
    // SAFETY: the buffer is ours; _exit runs nothing of the parent's.
    unsafe {
        libc::write(report, words.as_ptr().cast(), words.len());
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn a_failed_step_is_told_in_words() {
        let [a, b, c, d] = libc::ENOENT.to_ne_bytes();
        let words = failure(&[8, a, b, c, d]);
        assert!(words.starts_with("could not execute the program: No such file"), "{words}");
    }

    #[test]
    fn a_silent_end_is_told_too() {
        assert_eq!(failure(&[]), "the child ended without a word");
    }
}
