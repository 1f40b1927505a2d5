//! Who is who, as the cluster says: an event, never a guess and never a timer.
//!
//! Rule: news are ordered by (term, revision); older ones are ignored, whoever brings them.  A
//! term has one leader (I1), so news that name another one for the same term are refused.  Time
//! passes within one revision too, above all while the store does not answer: then data grow old
//! and standbys fall silent, and only these may be told anew.

/// A node's number in the cluster's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A place in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// A node that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standby {
    pub node: NodeId,
    /// How far its data are behind, in seconds.
    pub lag_s: f64,
    /// What it has replayed at least.
    pub replayed: Lsn,
}

/// One piece of news, and the state that it leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub term: u64,
    /// Orders the news of one term (the store's revision).
    pub revision: u64,
    /// The node that accepts writes.  `None` while nobody does.
    pub primary: Option<NodeId>,
    pub standbys: Vec<Standby>,
    /// The primary's permission has ended: it must not be used even if it answers.
    pub fenced: bool,
    /// The primary is about to be stopped on purpose: what is under way there may end, and
    /// whoever would begin something waits for the next one.
    pub parting: bool,
}

/// What a piece of news changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Old news, or a second leader for a known term.
    Ignored,
    /// Lags, standbys, or a primary that is back in its own term.
    Updated,
    /// The primary of this term must not be used any more.
    PrimaryGone,
    /// Another term: every session with the old primary is void.
    NewTerm,
}

impl Topology {
    /// Take a piece of news.
    pub fn accept(&mut self, news: Self) -> Change {
        let (known, told) = ((self.term, self.revision), (news.term, news.revision));
        if told < known {
            return Change::Ignored;
        }
        if told == known && *self != Self::default() {
            return self.age(news.standbys);
        }
        if news.term > self.term {
            *self = news;
            return Change::NewTerm;
        }
        let another = self
            .primary
            .zip(news.primary)
            .is_some_and(|(old, new)| old != new);
        if another {
            return Change::Ignored;
        }
        let gone = self.writable().is_some() && news.writable().is_none();
        *self = news;
        if gone {
            Change::PrimaryGone
        } else {
            Change::Updated
        }
    }

    /// What time alone has done to the standbys.
    fn age(&mut self, standbys: Vec<Standby>) -> Change {
        if standbys == self.standbys {
            return Change::Ignored;
        }
        self.standbys = standbys;
        Change::Updated
    }

    /// The node that may be written to now.
    pub fn writable(&self) -> Option<NodeId> {
        self.primary.filter(|_| !self.fenced)
    }

    /// The node that a client may begin something at that may write.
    pub fn serving(&self) -> Option<NodeId> {
        self.writable().filter(|_| !self.parting)
    }

    /// The supposed primary refused a write (25006): nobody is one until there are news.
    ///
    /// `term` is that of the session which was refused; a session of an older term proves
    /// nothing.  True if this changed anything.
    pub fn doubt(&mut self, term: u64) -> bool {
        let doubted = term == self.term && self.writable().is_some();
        self.fenced |= doubted;
        doubted
    }

    pub fn is_standby(&self, node: NodeId) -> bool {
        self.standbys.iter().any(|standby| standby.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(term: u64, revision: u64, primary: Option<u32>) -> Topology {
        Topology {
            term,
            revision,
            primary: primary.map(NodeId),
            ..Topology::default()
        }
    }

    #[test]
    fn old_news_change_nothing() {
        let mut known = news(5, 9, Some(1));
        assert_eq!(known.accept(news(4, 99, Some(2))), Change::Ignored);
        assert_eq!(known.accept(news(5, 9, None)), Change::Ignored);
        assert_eq!(known.writable(), Some(NodeId(1)));
    }

    #[test]
    fn data_grow_old_within_one_revision_and_nobody_becomes_or_stops_being_the_primary() {
        let standby = |lag_s| Standby {
            node: NodeId(2),
            lag_s,
            replayed: Lsn(7),
        };
        let told = |lag_s, primary| Topology {
            standbys: vec![standby(lag_s)],
            ..news(5, 9, primary)
        };
        let mut known = told(0.0, Some(1));
        assert_eq!(known.accept(told(60.0, None)), Change::Updated);
        assert_eq!(known.standbys, [standby(60.0)]);
        assert_eq!(known.writable(), Some(NodeId(1)));
        assert_eq!(known.accept(told(60.0, Some(1))), Change::Ignored);
        assert_eq!(known.accept(news(5, 9, Some(1))), Change::Updated);
        assert!(
            !known.is_standby(NodeId(2)),
            "it has said nothing for too long"
        );
    }

    #[test]
    fn a_term_has_one_leader() {
        let mut known = news(5, 1, Some(1));
        assert_eq!(known.accept(news(5, 2, Some(2))), Change::Ignored);
        assert_eq!(known.accept(news(6, 3, Some(2))), Change::NewTerm);
        assert_eq!(known.writable(), Some(NodeId(2)));
    }

    #[test]
    fn a_fenced_primary_is_gone_until_the_news_say_otherwise() {
        let mut known = news(5, 1, Some(1));
        let fenced = Topology {
            fenced: true,
            ..news(5, 2, Some(1))
        };
        assert_eq!(known.accept(fenced), Change::PrimaryGone);
        assert_eq!(known.writable(), None);
        assert_eq!(known.accept(news(5, 3, Some(1))), Change::Updated);
        assert_eq!(known.writable(), Some(NodeId(1)));
    }

    #[test]
    fn a_primary_that_parts_is_the_primary_still_and_serves_nobody_new() {
        let mut known = news(5, 1, Some(1));
        let parting = Topology {
            parting: true,
            ..news(5, 2, Some(1))
        };
        assert_eq!(known.accept(parting), Change::Updated);
        assert_eq!(known.writable(), Some(NodeId(1)));
        assert_eq!(known.serving(), None);
        assert_eq!(known.accept(news(5, 3, Some(1))), Change::Updated);
        assert_eq!(known.serving(), Some(NodeId(1)), "it stayed");
    }

    #[test]
    fn pitfall_52_a_primary_that_refuses_writes_is_doubted_until_there_are_news() {
        let mut known = news(5, 1, Some(1));
        assert!(!known.doubt(4), "a session of an older term proves nothing");
        assert!(known.doubt(5));
        assert_eq!(known.writable(), None);
        assert!(!known.doubt(5), "already doubted");
        assert_eq!(known.accept(news(6, 2, Some(2))), Change::NewTerm);
        assert_eq!(known.writable(), Some(NodeId(2)));
    }
}
