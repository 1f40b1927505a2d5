//! The clock of a shard.
//!
//! Intuition: while one client is worked for, the time is asked for again and again, by its pace,
//! its pool and its counts, and nobody waits in between.  So the clock stands still for as long
//! as that lasts, and is read at most once.

use std::cell::Cell;
use std::time::Instant;

/// See the module.
pub struct Clock {
    began: Instant,
    stands: Cell<bool>,
    at_s: Cell<Option<f64>>,
}

/// While it lives, the clock stands still: never across a wait.
pub struct Standing<'a>(&'a Clock);

impl Clock {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            stands: Cell::new(false),
            at_s: Cell::new(None),
        }
    }

    /// Since the shard began.
    pub fn now_s(&self) -> f64 {
        if let Some(at_s) = self.at_s.get() {
            return at_s;
        }
        let now_s = self.began.elapsed().as_secs_f64();
        if self.stands.get() {
            self.at_s.set(Some(now_s));
        }
        now_s
    }

    pub fn stand_still(&self) -> Standing<'_> {
        self.stands.set(true);
        Standing(self)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.stands.set(false);
        self.0.at_s.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until the clock of the machine has gone on.
    fn later() {
        let before = Instant::now();
        while Instant::now() == before {
            std::hint::spin_loop();
        }
    }

    fn differs(clock: &Clock) -> bool {
        let first_s = clock.now_s();
        later();
        clock.now_s().total_cmp(&first_s).is_gt()
    }

    #[test]
    fn it_stands_still_as_long_as_somebody_holds_it_and_goes_on_after_that() {
        let clock = Clock::new();
        assert!(differs(&clock));
        let standing = clock.stand_still();
        assert!(!differs(&clock));
        drop(standing);
        assert!(differs(&clock));
    }

    #[test]
    fn it_goes_on_when_the_work_for_a_client_has_panicked() {
        let clock = Clock::new();
        let work = std::panic::AssertUnwindSafe(|| {
            let _standing = clock.stand_still();
            clock.now_s();
            panic!("of a test");
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert!(differs(&clock));
    }
}
