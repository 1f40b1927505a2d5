//! What a client is told when its server is lost, and how long it is kept waiting.
//!
//! Intuition: most clients lose nothing when a server dies, they only have to wait.  The others
//! get the truth in an error that their driver can act on, and keep their connection.
//!
//! The table (fault on the left, then what happens):
//!
//! | the client was | then |
//! |---|---|
//! | new, idle or waiting | held |
//! | in a read of its own, no byte of the answer seen | run again |
//! | in a read of its own, part of the answer seen | 40001, nothing is open |
//! | in a transaction | 40001, failed until its end |
//! | in ROLLBACK, or in COMMIT after nothing but enforced reads | 40001, nothing is open |
//! | in a write of its own, or in COMMIT | 08007, nothing is open |
//! | held longer than the budget | 57P03; 08006 if something had been sent |
//!
//! Rules: never 08P01 (drivers do not take it for a lost server).  Only what provably left no
//! trace is called safe to retry or run again; a write or COMMIT in flight is neither.

use std::borrow::Cow;

use flightmode_wire::report::Report;
use flightmode_wire::server::TxStatus;

/// Where a client stood when its server was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Logged in or logging in, with nothing sent to a server.
    Between,
    /// A statement outside a transaction that can't have changed anything.
    Read { seen: bool },
    /// A transaction is open, and its end was not sent.
    Transaction,
    /// A statement outside a transaction that may have changed something.
    Write,
    /// COMMIT was sent and its answer did not come.
    Commit,
    /// ROLLBACK was sent, or COMMIT of a transaction that the server kept from writing.
    HarmlessEnd,
}

/// What happens to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for a server; nobody is told.
    Hold,
    /// Wait for a server and send the statement once more.
    RunAgain,
    /// Tell the client; its connection stays.
    Tell(Failure),
}

/// An error of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub sqlstate: &'static str,
    pub message: Cow<'static, str>,
    pub hint: &'static str,
    /// The state that the client is in afterwards, as its next `ReadyForQuery` says.
    pub after: TxStatus,
}

impl Failure {
    /// The error as it goes to the client.
    pub fn report(&self) -> Report<'_> {
        Report::new("ERROR", self.sqlstate, &self.message).with(b'H', self.hint)
    }
}

/// The table, for a server that is lost: killed, cut off, fenced, or of an old term.
pub fn on_server_lost(moment: Moment) -> Verdict {
    match moment {
        Moment::Between => Verdict::Hold,
        Moment::Read { seen: false } => Verdict::RunAgain,
        Moment::Read { seen: true } | Moment::HarmlessEnd => {
            Verdict::Tell(rolled_back(TxStatus::Idle))
        }
        Moment::Transaction => Verdict::Tell(rolled_back(TxStatus::Failed)),
        Moment::Write => Verdict::Tell(unknown("the statement")),
        Moment::Commit => Verdict::Tell(unknown("COMMIT")),
    }
}

/// The same for a server that refused a write (25006) and is in recovery: it says so before
/// anything is done, so a statement of its own left no trace, and a COMMIT behind it committed
/// nothing.  On a primary the same code comes from a read-only transaction, and is the client's
/// own affair.
pub fn on_write_refused(moment: Moment) -> Verdict {
    match moment {
        Moment::Write | Moment::Read { seen: false } => Verdict::RunAgain,
        Moment::Commit => Verdict::Tell(rolled_back(TxStatus::Idle)),
        other => on_server_lost(other),
    }
}

/// What a client is told that was held for its whole budget.  `asked` is true when its statement
/// had been sent to a server once (it is to run again).
pub fn on_budget_over(asked: bool, held_s: f64) -> Failure {
    let message = format!("no primary has accepted writes for {held_s:.0} s");
    Failure {
        sqlstate: if asked { "08006" } else { "57P03" },
        message: message.into(),
        hint: "Try again; run `flightmode status` to see what the cluster waits for.",
        after: TxStatus::Idle,
    }
}

fn rolled_back(after: TxStatus) -> Failure {
    Failure {
        sqlstate: "40001",
        message: "rolled back by a failover".into(),
        hint: "It is safe to retry.",
        after,
    }
}

fn unknown(what: &str) -> Failure {
    Failure {
        sqlstate: "08007",
        message: format!(
            "the server was lost before it answered {what}: it may or may not have committed"
        )
        .into(),
        hint: "Check whether the change is there before you retry.",
        after: TxStatus::Idle,
    }
}

/// How long a client is held: from when, and for how many seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    since_s: f64,
    hold_for_s: f64,
}

impl Budget {
    /// It starts when the client first has to wait and is not renewed by a second fault while it
    /// waits, so that a cluster that flaps can't hold anybody for ever.
    pub fn new(now_s: f64, hold_for_s: f64) -> Self {
        Self {
            since_s: now_s,
            hold_for_s,
        }
    }

    pub fn deadline_s(&self) -> f64 {
        self.since_s + self.hold_for_s
    }

    pub fn is_over(&self, now_s: f64) -> bool {
        now_s >= self.deadline_s()
    }

    pub fn held_s(&self, now_s: f64) -> f64 {
        now_s - self.since_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENTS: [Moment; 7] = [
        Moment::Between,
        Moment::Read { seen: false },
        Moment::Read { seen: true },
        Moment::Transaction,
        Moment::Write,
        Moment::Commit,
        Moment::HarmlessEnd,
    ];

    fn told(verdict: &Verdict) -> Option<(&'static str, TxStatus)> {
        match verdict {
            Verdict::Tell(failure) => Some((failure.sqlstate, failure.after)),
            Verdict::Hold | Verdict::RunAgain => None,
        }
    }

    #[test]
    fn who_has_nothing_at_stake_is_held() {
        assert_eq!(on_server_lost(Moment::Between), Verdict::Hold);
        assert_eq!(
            on_server_lost(Moment::Read { seen: false }),
            Verdict::RunAgain
        );
    }

    #[test]
    fn a_transaction_fails_and_stays_failed_until_its_end() {
        let verdict = on_server_lost(Moment::Transaction);
        assert_eq!(told(&verdict), Some(("40001", TxStatus::Failed)));
    }

    #[test]
    fn what_may_have_committed_is_never_called_safe() {
        for moment in [Moment::Write, Moment::Commit] {
            assert_eq!(
                told(&on_server_lost(moment)),
                Some(("08007", TxStatus::Idle))
            );
        }
    }

    #[test]
    fn pitfall_52_a_refused_write_of_its_own_runs_again_and_one_in_a_transaction_does_not() {
        assert_eq!(on_write_refused(Moment::Write), Verdict::RunAgain);
        let verdict = on_write_refused(Moment::Transaction);
        assert_eq!(told(&verdict), Some(("40001", TxStatus::Failed)));
        let verdict = on_write_refused(Moment::Commit);
        assert_eq!(told(&verdict), Some(("40001", TxStatus::Idle)));
    }

    #[test]
    fn pitfall_53_no_part_of_a_transaction_ever_runs_again_by_itself() {
        for moment in [Moment::Transaction, Moment::Commit] {
            assert_ne!(on_server_lost(moment), Verdict::RunAgain);
            assert_ne!(on_write_refused(moment), Verdict::RunAgain);
        }
    }

    #[test]
    fn pitfall_54_no_fault_of_a_server_is_called_a_protocol_violation() {
        let lost = MOMENTS.map(on_server_lost);
        let refused = MOMENTS.map(on_write_refused);
        for (code, _) in lost.iter().chain(&refused).filter_map(told) {
            assert!(["40001", "08007"].contains(&code), "{code}");
        }
        assert_eq!(on_budget_over(false, 30.0).sqlstate, "57P03");
        assert_eq!(on_budget_over(true, 30.0).sqlstate, "08006");
    }

    #[test]
    fn an_error_of_ours_never_ends_the_session() {
        let failure = on_budget_over(false, 30.4);
        let report = failure.report();
        assert!(!report.is_fatal());
        assert_eq!(report.sqlstate(), Some("57P03"));
        let message = report.field(b'M').unwrap();
        assert_eq!(message, b"no primary has accepted writes for 30 s");
    }

    #[test]
    fn a_budget_is_over_at_its_deadline_and_not_renewed() {
        let budget = Budget::new(100.0, 30.0);
        assert!(!budget.is_over(129.9));
        assert!(budget.is_over(130.0));
        assert!((budget.held_s(112.5) - 12.5).abs() < 1e-9);
    }
}
