//! What a client is doing and since when: for its limits of time, and for what is counted.

use std::cell::Cell;

use flightmode_wire::server::TxStatus;

use crate::stats::Counts;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// Between transactions, and it has said nothing.
    #[default]
    Idle,
    /// It needs a server and has none.
    Waiting,
    /// A server works for it.
    Running,
    /// In a transaction, and it has said nothing.
    InTransaction,
}

/// See the module.  All times are those of the shard's clock, in seconds.
#[derive(Default)]
pub struct Pace {
    doing: Cell<Doing>,
    since_s: Cell<f64>,
    transaction_since_s: Cell<Option<f64>>,
    /// A cancel was sent for what it runs now.
    struck: Cell<bool>,
}

impl Pace {
    pub fn new(now_s: f64) -> Self {
        let pace = Self::default();
        pace.since_s.set(now_s);
        pace
    }

    pub fn doing(&self) -> Doing {
        self.doing.get()
    }

    /// For how long it has been doing that.
    pub fn for_s(&self, now_s: f64) -> f64 {
        now_s - self.since_s.get()
    }

    fn turn(&self, doing: Doing, now_s: f64) {
        self.doing.set(doing);
        self.since_s.set(now_s);
        self.struck.set(false);
    }

    pub fn on_waiting(&self, now_s: f64) {
        self.turn(Doing::Waiting, now_s);
    }

    /// Whether more that goes to its server changes nothing here.
    pub fn is_under_way(&self) -> bool {
        self.doing.get() == Doing::Running && self.transaction_since_s.get().is_some()
    }

    /// Something of the client goes to its server.
    pub fn on_sent(&self, now_s: f64) {
        if self.doing.get() != Doing::Running {
            self.turn(Doing::Running, now_s);
        }
        if self.transaction_since_s.get().is_none() {
            self.transaction_since_s.set(Some(now_s));
        }
    }

    /// The server is done with a group.  `behind`: there is more that the client sent ahead.
    pub fn on_ready(&self, status: TxStatus, behind: bool, now_s: f64, counts: &Counts) {
        counts.on_query(self.for_s(now_s));
        if status == TxStatus::Idle {
            let since_s = self.transaction_since_s.take().unwrap_or(now_s);
            counts.on_transaction(now_s - since_s);
        }
        match (behind, status) {
            (true, _) => self.turn(Doing::Running, now_s),
            (false, TxStatus::Idle) => self.turn(Doing::Idle, now_s),
            (false, _) => self.turn(Doing::InTransaction, now_s),
        }
    }

    /// What it waited for, or had under way, is over; nothing is counted.
    pub fn on_over(&self, status: TxStatus, now_s: f64) {
        self.transaction_since_s.set(None);
        let doing = match status {
            TxStatus::Idle => Doing::Idle,
            _ => Doing::InTransaction,
        };
        self.turn(doing, now_s);
    }

    /// A cancel is about to be sent; `false` if one was already for the same statement.
    pub fn strike(&self) -> bool {
        !self.struck.replace(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_lasts_from_its_first_message_to_the_end_of_its_last() {
        let (pace, counts) = (Pace::new(0.0), Counts::default());
        pace.on_waiting(1.0);
        pace.on_sent(2.0);
        pace.on_sent(2.5);
        pace.on_ready(TxStatus::Open, false, 3.0, &counts);
        assert_eq!(pace.doing(), Doing::InTransaction);
        pace.on_sent(10.0);
        pace.on_ready(TxStatus::Idle, false, 12.0, &counts);
        assert_eq!(pace.doing(), Doing::Idle);
        let sums = counts.sums();
        assert_eq!((sums.queries, sums.transactions), (2, 1));
        assert!((sums.query_s - 3.0).abs() < 1e-6, "{}", sums.query_s);
        assert!((sums.transaction_s - 10.0).abs() < 1e-6);
    }

    #[test]
    fn a_statement_is_struck_once_and_the_next_one_again() {
        let (pace, counts) = (Pace::new(0.0), Counts::default());
        pace.on_sent(1.0);
        assert!(pace.strike());
        assert!(!pace.strike());
        pace.on_ready(TxStatus::Idle, true, 2.0, &counts);
        assert!(pace.strike());
    }
}
