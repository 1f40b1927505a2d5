//! How hard Postgres is asked to end, and when harder.  Pure.

/// S5: an immediate stop takes some 40 ms; what is left after this is not going to end itself.
const QUIT_PATIENCE_S: f64 = 2.0;
/// A fast stop before the fence itself ends.
const FAST_PATIENCE_S: f64 = 10.0;
/// SIGKILL ends everything that does not hang in the kernel; what does must lose its network.
const KILL_PATIENCE_S: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SIGINT: clients are disconnected, a checkpoint is written.
    Fast,
    /// SIGQUIT: everything ends at once, as in a crash.
    Quit,
    /// SIGKILL for everything of it.
    Kill,
    /// Cut its port.
    Cut,
}

/// Steps that lie ahead, each with its instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Escalation {
    fencing: bool,
    ahead: Vec<(f64, Step)>,
}

impl Escalation {
    /// The permission has ended (S4).
    pub fn fencing(now_s: f64) -> Self {
        Self::from_quit(now_s)
    }

    /// The fence was asked to end: it never leaves Postgres without a guardian.
    pub fn leaving(now_s: f64) -> Self {
        let mut steps = Self::from_quit(now_s + FAST_PATIENCE_S);
        steps.ahead.insert(0, (now_s, Step::Fast));
        steps.fencing = false;
        steps
    }

    fn from_quit(quit_s: f64) -> Self {
        let kill_s = quit_s + QUIT_PATIENCE_S;
        let cut_s = kill_s + KILL_PATIENCE_S;
        Self {
            fencing: true,
            ahead: vec![(quit_s, Step::Quit), (kill_s, Step::Kill), (cut_s, Step::Cut)],
        }
    }

    /// Postgres has no permission to live (or else it is merely asked to end).
    pub fn is_fencing(&self) -> bool {
        self.fencing
    }

    /// The next step whose time has come; call until `None`.
    pub fn due(&mut self, now_s: f64) -> Option<Step> {
        let (at_s, step) = *self.ahead.first()?;
        if at_s > now_s {
            return None;
        }
        self.ahead.remove(0);
        Some(step)
    }

    pub fn next_s(&self) -> Option<f64> {
        self.ahead.first().map(|(at_s, _)| *at_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_due(escalation: &mut Escalation, now_s: f64) -> Vec<Step> {
        std::iter::from_fn(|| escalation.due(now_s)).collect()
    }

    #[test]
    fn fencing_quits_at_once_and_kills_two_seconds_later() {
        let mut fencing = Escalation::fencing(100.0);
        assert_eq!(all_due(&mut fencing, 100.0), [Step::Quit]);
        assert_eq!(fencing.next_s(), Some(102.0));
        assert_eq!(all_due(&mut fencing, 101.9), []);
        assert_eq!(all_due(&mut fencing, 102.0), [Step::Kill]);
        assert_eq!(all_due(&mut fencing, 102.5), [Step::Cut]);
        assert_eq!(fencing.next_s(), None);
    }

    #[test]
    fn a_late_look_takes_every_step_in_order() {
        let mut fencing = Escalation::fencing(100.0);
        assert_eq!(all_due(&mut fencing, 200.0), [Step::Quit, Step::Kill, Step::Cut]);
    }

    #[test]
    fn leaving_begins_gently() {
        let mut leaving = Escalation::leaving(100.0);
        assert_eq!(all_due(&mut leaving, 109.9), [Step::Fast]);
        assert_eq!(all_due(&mut leaving, 110.0), [Step::Quit]);
        assert_eq!(all_due(&mut leaving, 112.0), [Step::Kill]);
    }
}
