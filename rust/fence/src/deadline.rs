//! Until when Postgres may run as a primary.  Pure: time comes in as numbers.
//!
//! Intuition: a permission is a promise of the others not to lead before an instant.
//! Who can't be sure that the instant is still ahead must not let Postgres run.
//!
//! Rules (I6, I8, S1, S4):
//! - a permission belongs to a term; an older term never replaces a newer one;
//! - within a term the deadline may move either way;
//! - a lifted permission (mode solo: nobody else could lead) has no end;
//! - when REALTIME and BOOTTIME move apart by more than [`JUMP_S`] between two looks, the
//!   machine was paused: our clock stood still while the others' went on, so an armed
//!   permission is void before anything else is done;
//! - what has ended stays ended until a new grant arrives *after* Postgres was stopped.

/// How far the two clocks may move apart between two looks, in seconds (S1).
pub const JUMP_S: f64 = 0.5;

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grant {
    /// Nothing yet in this term: Postgres may not run as a primary.
    Nothing,
    /// Until this instant of `CLOCK_BOOTTIME`, in seconds.
    Until(f64),
    /// Without an end (mode solo, I6).
    Lifted,
}

/// Why a permission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Deadline,
    ClockJump,
    Void,
}

impl Why {
    pub fn words(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::ClockJump => "clock jump",
            Self::Void => "void",
        }
    }
}

/// Why a grant was not taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// The fence has seen a newer term.
    OlderTerm { known: u64 },
    /// The last permission has ended, and what ran under it is not gone yet.
    NotStopped,
    /// There is nothing in force, and this deadline is in the past already.
    Past { late_s: f64 },
    /// Not a time at all.
    NotATime,
}

/// What a look at the clocks came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to be done.
    Hold,
    /// The permission ended with this look: stop a primary.
    Ended(Why),
}

/// One look at both clocks, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub boottime_s: f64,
    pub realtime_s: f64,
}

/// The permission of this node, and how it ended if it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permission {
    term: u64,
    grant: Grant,
    ended: Option<Why>,
    /// What ran as a primary when the permission ended may still be alive.
    not_stopped: bool,
    offset_s: Option<f64>,
}

impl Default for Permission {
    fn default() -> Self {
        Self::new()
    }
}

impl Permission {
    pub const fn new() -> Self {
        Self { term: 0, grant: Grant::Nothing, ended: None, not_stopped: false, offset_s: None }
    }

    pub fn term(&self) -> u64 {
        self.term
    }

    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// Why it is not in force any more; `None` also when nothing was ever granted.
    pub fn ended(&self) -> Option<Why> {
        self.ended
    }

    /// The instant at which somebody must look again, if there is one.
    pub fn deadline_s(&self) -> Option<f64> {
        match (self.grant, self.ended) {
            (Grant::Until(deadline_s), None) => Some(deadline_s),
            _ => None,
        }
    }

    /// Whether Postgres may run as the primary of `term` at this instant.
    pub fn allows(&self, term: u64, now_s: f64) -> bool {
        let open = match self.grant {
            Grant::Nothing => false,
            Grant::Until(deadline_s) => now_s < deadline_s,
            Grant::Lifted => true,
        };
        open && self.ended.is_none() && term == self.term
    }

    /// Looks at the clocks.  MUST be called before any request is served: a request that waited
    /// in a queue during a pause may not hide the pause.
    ///
    /// `primary`: a primary, or what is left of one, is alive.
    pub fn look(&mut self, at: Look, primary: bool) -> Verdict {
        let offset_s = at.realtime_s - at.boottime_s;
        let moved_s = self.offset_s.map_or(0.0, |before_s| (offset_s - before_s).abs());
        self.offset_s = Some(offset_s);
        match self.deadline_s() {
            Some(_) if moved_s > JUMP_S => self.end(Why::ClockJump, primary),
            Some(deadline_s) if at.boottime_s >= deadline_s => self.end(Why::Deadline, primary),
            _ => Verdict::Hold,
        }
    }

    /// Grants until `deadline_s`.
    pub fn extend(&mut self, term: u64, deadline_s: f64, now_s: f64) -> Result<(), Refusal> {
        if !deadline_s.is_finite() {
            return Err(Refusal::NotATime);
        }
        self.may_grant(term)?;
        let in_force = term == self.term && self.ended.is_none() && self.grant != Grant::Nothing;
        if deadline_s <= now_s && !in_force {
            let late_s = now_s - deadline_s;
            return Err(Refusal::Past { late_s });
        }
        self.set(term, Grant::Until(deadline_s));
        Ok(())
    }

    /// Grants without an end.
    pub fn lift(&mut self, term: u64) -> Result<(), Refusal> {
        self.may_grant(term)?;
        self.set(term, Grant::Lifted);
        Ok(())
    }

    /// Learns of a term in which somebody else leads.  What was granted for an older one is over.
    pub fn follow(&mut self, term: u64) -> Result<(), Refusal> {
        self.may_grant(term)?;
        if term > self.term {
            self.set(term, Grant::Nothing);
        }
        Ok(())
    }

    /// Ends the permission now, whatever it was.
    pub fn void(&mut self, primary: bool) {
        self.end(Why::Void, primary);
    }

    /// Everything that ran is gone: a new grant may be taken.
    pub fn stopped(&mut self) {
        self.not_stopped = false;
    }

    fn end(&mut self, why: Why, primary: bool) -> Verdict {
        self.ended = Some(why);
        self.not_stopped |= primary;
        Verdict::Ended(why)
    }

    fn set(&mut self, term: u64, grant: Grant) {
        self.term = term;
        self.grant = grant;
        self.ended = None;
    }

    fn may_grant(&self, term: u64) -> Result<(), Refusal> {
        if term < self.term {
            return Err(Refusal::OlderTerm { known: self.term });
        }
        if self.not_stopped {
            return Err(Refusal::NotStopped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A permission that was looked at once at boottime 100.
    fn looked() -> Permission {
        let mut permission = Permission::new();
        assert_eq!(permission.look(at(100.0), false), Verdict::Hold);
        permission
    }

    fn armed(term: u64, deadline_s: f64) -> Permission {
        let mut permission = looked();
        permission.extend(term, deadline_s, 100.0).unwrap();
        permission
    }

    fn at(boottime_s: f64) -> Look {
        jumped(boottime_s, 0.0)
    }

    fn jumped(boottime_s: f64, by_s: f64) -> Look {
        Look { boottime_s, realtime_s: boottime_s + 1_000_000.0 + by_s }
    }

    #[test]
    fn nothing_is_allowed_before_a_grant() {
        let mut permission = looked();
        assert!(!permission.allows(0, 100.0));
        assert_eq!(permission.look(at(1e9), true), Verdict::Hold);
        assert_eq!(permission.ended(), None);
    }

    #[test]
    fn an_armed_permission_holds_up_to_its_deadline_and_not_at_it() {
        let mut permission = armed(3, 104.5);
        assert!(permission.allows(3, 104.499));
        assert_eq!(permission.look(at(104.499), true), Verdict::Hold);
        assert!(!permission.allows(3, 104.5));
        assert_eq!(permission.look(at(104.5), true), Verdict::Ended(Why::Deadline));
    }

    #[test]
    fn it_ends_once_and_says_so_once() {
        let mut permission = armed(3, 104.5);
        permission.look(at(104.6), true);
        assert_eq!(permission.look(at(104.7), true), Verdict::Hold);
        assert_eq!(permission.ended(), Some(Why::Deadline));
    }

    #[test]
    fn it_allows_its_own_term_only() {
        let permission = armed(3, 104.5);
        assert!(!permission.allows(2, 101.0));
        assert!(!permission.allows(4, 101.0));
    }

    #[test]
    fn a_deadline_moves_later() {
        let mut permission = armed(3, 104.5);
        permission.extend(3, 105.5, 101.0).unwrap();
        assert_eq!(permission.look(at(105.4), true), Verdict::Hold);
        assert_eq!(permission.look(at(105.5), true), Verdict::Ended(Why::Deadline));
    }

    #[test]
    fn a_deadline_moves_earlier() {
        let mut permission = armed(3, 104.5);
        permission.extend(3, 102.0, 101.0).unwrap();
        assert_eq!(permission.look(at(102.0), true), Verdict::Ended(Why::Deadline));
    }

    #[test]
    fn a_deadline_moved_into_the_past_ends_the_permission_in_force() {
        let mut permission = armed(3, 104.5);
        permission.extend(3, 100.5, 101.0).unwrap();
        assert_eq!(permission.look(at(101.0), true), Verdict::Ended(Why::Deadline));
    }

    #[test]
    fn a_first_deadline_in_the_past_is_refused() {
        let mut permission = looked();
        let refused = permission.extend(3, 99.0, 100.0);
        assert_eq!(refused, Err(Refusal::Past { late_s: 1.0 }));
        assert_eq!(permission.term(), 0);
        assert_eq!(permission.extend(3, 100.0, 100.0), Err(Refusal::Past { late_s: 0.0 }));
    }

    #[test]
    fn a_past_deadline_of_a_newer_term_changes_nothing() {
        let mut permission = armed(3, 104.5);
        assert!(permission.extend(4, 99.0, 100.0).is_err());
        assert!(permission.allows(3, 104.0));
    }

    #[test]
    fn a_deadline_that_is_no_time_is_refused() {
        let mut permission = armed(3, 104.5);
        for deadline_s in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(permission.extend(3, deadline_s, 101.0), Err(Refusal::NotATime));
        }
        assert!(permission.allows(3, 104.0));
    }

    #[test]
    fn older_terms_are_refused_and_change_nothing() {
        let mut permission = armed(3, 104.5);
        let refused = Err(Refusal::OlderTerm { known: 3 });
        assert_eq!(permission.extend(2, 200.0, 101.0), refused);
        assert_eq!(permission.lift(2), refused);
        assert_eq!(permission.follow(2), refused);
        assert_eq!(permission.grant(), Grant::Until(104.5));
    }

    #[test]
    fn a_newer_term_takes_over() {
        let mut permission = armed(3, 104.5);
        permission.extend(4, 108.0, 103.0).unwrap();
        assert!(permission.allows(4, 107.0));
        assert!(!permission.allows(3, 103.5));
    }

    #[test]
    fn a_lifted_permission_has_no_end() {
        let mut permission = armed(3, 104.5);
        permission.lift(3).unwrap();
        assert_eq!(permission.deadline_s(), None);
        assert_eq!(permission.look(at(1e9), true), Verdict::Hold);
        assert!(permission.allows(3, 1e9));
    }

    #[test]
    fn a_lifted_permission_can_be_armed_again() {
        let mut permission = armed(3, 104.5);
        permission.lift(3).unwrap();
        permission.extend(3, 110.0, 106.0).unwrap();
        assert_eq!(permission.look(at(110.0), true), Verdict::Ended(Why::Deadline));
    }

    #[test]
    fn a_lifted_permission_outlives_a_clock_jump() {
        let mut permission = looked();
        permission.lift(3).unwrap();
        assert_eq!(permission.look(jumped(101.0, 3600.0), true), Verdict::Hold);
        assert!(permission.allows(3, 101.0));
    }

    #[test]
    fn a_clock_jump_voids_an_armed_permission_before_its_deadline() {
        for by_s in [0.6, 30.0, -0.6, -30.0] {
            let mut permission = armed(3, 104.5);
            assert_eq!(permission.look(at(100.5), true), Verdict::Hold);
            let verdict = permission.look(jumped(101.0, by_s), true);
            assert_eq!(verdict, Verdict::Ended(Why::ClockJump), "jump by {by_s}");
            assert!(!permission.allows(3, 101.0));
        }
    }

    #[test]
    fn a_slewed_clock_voids_nothing() {
        let mut permission = armed(3, 1_000.0);
        for step in 1..=100 {
            let step = f64::from(step);
            let look = jumped(100.0 + step, step * 0.4);
            assert_eq!(permission.look(look, true), Verdict::Hold);
        }
    }

    #[test]
    fn a_jump_before_the_first_look_is_not_one() {
        let mut permission = Permission::new();
        permission.extend(1, 110.0, 100.0).unwrap();
        assert_eq!(permission.look(jumped(100.0, 1e6), true), Verdict::Hold);
    }

    #[test]
    fn a_jump_while_lifted_does_not_count_against_a_later_deadline() {
        let mut permission = looked();
        permission.lift(3).unwrap();
        permission.look(jumped(101.0, 10.0), true);
        permission.extend(3, 110.0, 101.0).unwrap();
        assert_eq!(permission.look(jumped(101.1, 10.0), true), Verdict::Hold);
    }

    #[test]
    fn no_grant_revives_a_permission_before_postgres_was_stopped() {
        let mut permission = armed(3, 104.5);
        permission.look(at(104.5), true);
        assert_eq!(permission.extend(3, 120.0, 105.0), Err(Refusal::NotStopped));
        assert_eq!(permission.extend(4, 120.0, 105.0), Err(Refusal::NotStopped));
        assert_eq!(permission.lift(4), Err(Refusal::NotStopped));
        assert_eq!(permission.follow(4), Err(Refusal::NotStopped));
        assert!(!permission.allows(3, 105.0));
    }

    #[test]
    fn that_postgres_was_stopped_revives_nothing_by_itself() {
        let mut permission = armed(3, 104.5);
        permission.look(jumped(101.0, 2.0), true);
        permission.stopped();
        assert!(!permission.allows(3, 102.0));
        assert_eq!(permission.ended(), Some(Why::ClockJump));
    }

    #[test]
    fn a_new_grant_after_the_stop_revives() {
        let mut permission = armed(3, 104.5);
        permission.look(at(104.5), true);
        permission.stopped();
        assert!(permission.extend(3, 104.0, 105.0).is_err());
        permission.extend(3, 109.0, 105.0).unwrap();
        assert!(permission.allows(3, 106.0));
        assert_eq!(permission.ended(), None);
    }

    #[test]
    fn what_ended_with_no_primary_alive_needs_no_stop() {
        let mut permission = armed(3, 104.5);
        assert_eq!(permission.look(at(104.5), false), Verdict::Ended(Why::Deadline));
        permission.extend(5, 109.0, 105.0).unwrap();
        assert!(permission.allows(5, 106.0));
    }

    #[test]
    fn void_ends_a_lifted_permission_too() {
        let mut permission = looked();
        permission.lift(3).unwrap();
        permission.void(true);
        assert!(!permission.allows(3, 101.0));
        assert_eq!(permission.lift(3), Err(Refusal::NotStopped));
        permission.stopped();
        permission.lift(3).unwrap();
        assert!(permission.allows(3, 101.0));
    }

    #[test]
    fn following_in_a_newer_term_ends_what_was_granted_before() {
        let mut permission = armed(3, 104.5);
        permission.follow(4).unwrap();
        assert_eq!(permission.grant(), Grant::Nothing);
        assert!(!permission.allows(3, 101.0));
        assert!(!permission.allows(4, 101.0));
        assert_eq!(permission.look(at(105.0), false), Verdict::Hold);
    }

    #[test]
    fn following_in_the_same_term_keeps_the_grant() {
        let mut permission = armed(3, 104.5);
        permission.follow(3).unwrap();
        assert!(permission.allows(3, 101.0));
    }
}
