//! Which node serves.  The one place that answers this.
//!
//! Rule: a client that may write gets the writable primary or waits; it never gets a node that
//! only was one, and no primary that is about to stop.  A client that asked for a standby gets one
//! within its bound of lag and with everything that it has already seen (read your writes), else
//! the primary.  Data that are older than asked for are given only to who said that they will do,
//! and are named so.

use crate::topology::{Lsn, NodeId, Standby, Topology};

/// What a client asks of the node that serves it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    pub target: Target,
    /// The client has seen the log up to here.
    pub seen: Lsn,
    /// Old data will do while there is no primary.
    pub stale_ok: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    Primary,
    /// A node whose data are at most this many seconds old.
    Standby {
        max_lag_s: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Route {
    Serve(NodeId),
    /// The degraded mode: data this old, to be said by a notice and a parameter.
    ServeStale {
        node: NodeId,
        lag_s: f64,
    },
    /// Nobody can serve now; news will change that.
    Hold,
}

impl Route {
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Serve(node) | Self::ServeStale { node, .. } => Some(node),
            Self::Hold => None,
        }
    }
}

/// The node for a wish.  `turn` spreads readers over standbys that are equally good.
pub fn route(topology: &Topology, wish: &Wish, turn: usize) -> Route {
    let fit = match wish.target {
        Target::Primary => None,
        Target::Standby { max_lag_s } => standby(topology, wish, max_lag_s, turn),
    };
    match fit.or(topology.serving()) {
        Some(node) => Route::Serve(node),
        None if wish.stale_ok => freshest(topology),
        None => Route::Hold,
    }
}

fn standby(topology: &Topology, wish: &Wish, max_lag_s: f64, turn: usize) -> Option<NodeId> {
    let fits = |standby: &&Standby| standby.lag_s <= max_lag_s && standby.replayed >= wish.seen;
    let count = topology.standbys.iter().filter(fits).count();
    let chosen = turn.checked_rem(count)?;
    topology
        .standbys
        .iter()
        .filter(fits)
        .nth(chosen)
        .map(|standby| standby.node)
}

fn freshest(topology: &Topology) -> Route {
    topology
        .standbys
        .iter()
        .filter(|standby| standby.lag_s.is_finite())
        .min_by(|left, right| left.lag_s.total_cmp(&right.lag_s))
        .map_or(Route::Hold, |best| Route::ServeStale {
            node: best.node,
            lag_s: best.lag_s,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITER: Wish = Wish {
        target: Target::Primary,
        seen: Lsn(0),
        stale_ok: false,
    };

    fn standby_of(node: u32, lag_s: f64, replayed: u64) -> Standby {
        Standby {
            node: NodeId(node),
            lag_s,
            replayed: Lsn(replayed),
        }
    }

    fn topology(primary: Option<u32>, standbys: &[Standby]) -> Topology {
        Topology {
            term: 1,
            primary: primary.map(NodeId),
            standbys: standbys.to_vec(),
            ..Topology::default()
        }
    }

    fn reader(max_lag_s: f64, seen: u64) -> Wish {
        Wish {
            target: Target::Standby { max_lag_s },
            seen: Lsn(seen),
            ..WRITER
        }
    }

    #[test]
    fn a_writer_waits_while_nobody_is_primary() {
        let nobody = topology(None, &[standby_of(2, 0.0, 9)]);
        assert_eq!(route(&nobody, &WRITER, 0), Route::Hold);
        let fenced = Topology {
            fenced: true,
            ..topology(Some(1), &[])
        };
        assert_eq!(route(&fenced, &WRITER, 0), Route::Hold);
        let parting = Topology {
            parting: true,
            ..topology(Some(1), &[])
        };
        assert_eq!(route(&parting, &WRITER, 0), Route::Hold);
    }

    #[test]
    fn readers_take_turns_on_standbys_that_are_fresh_enough() {
        let standbys = [
            standby_of(2, 0.1, 9),
            standby_of(3, 9.0, 9),
            standby_of(4, 0.2, 9),
        ];
        let known = topology(Some(1), &standbys);
        let nodes: Vec<_> = (0..3)
            .map(|turn| route(&known, &reader(1.0, 0), turn).node().unwrap().0)
            .collect();
        assert_eq!(nodes, [2, 4, 2]);
    }

    #[test]
    fn a_reader_sees_its_own_writes() {
        let known = topology(Some(1), &[standby_of(2, 0.0, 9)]);
        assert_eq!(route(&known, &reader(1.0, 9), 0), Route::Serve(NodeId(2)));
        assert_eq!(route(&known, &reader(1.0, 10), 0), Route::Serve(NodeId(1)));
    }

    #[test]
    fn old_data_go_only_to_who_said_that_they_will_do_and_are_named_so() {
        let known = topology(None, &[standby_of(2, 8.0, 9), standby_of(3, 5.0, 9)]);
        assert_eq!(route(&known, &reader(1.0, 0), 0), Route::Hold);
        let patient = Wish {
            stale_ok: true,
            ..reader(1.0, 0)
        };
        let stale = Route::ServeStale {
            node: NodeId(3),
            lag_s: 5.0,
        };
        assert_eq!(route(&known, &patient, 0), stale);
    }

    proptest! {
        #[test]
        fn a_writer_is_served_by_the_writable_primary_and_by_nobody_else(
            primary in proptest::option::of(0u32..4),
            fenced: bool,
            parting: bool,
            lags in proptest::collection::vec((4u32..8, 0.0..20.0f64, 0u64..9), 0..4),
            turn: usize,
        ) {
            let standbys: Vec<_> =
                lags.iter().map(|(node, lag_s, at)| standby_of(*node, *lag_s, *at)).collect();
            let known = Topology { fenced, parting, ..topology(primary, &standbys) };
            let served = primary.filter(|_| !fenced && !parting).map(NodeId);
            let expected = served.map_or(Route::Hold, Route::Serve);
            prop_assert_eq!(route(&known, &WRITER, turn), expected);
        }

        #[test]
        fn no_reader_gets_data_that_are_older_than_asked_for_without_being_told(
            primary in proptest::option::of(0u32..4),
            lags in proptest::collection::vec((4u32..8, 0.0..20.0f64, 0u64..9), 0..4),
            max_lag_s in 0.0..20.0f64,
            seen in 0u64..9,
            stale_ok: bool,
            turn: usize,
        ) {
            let standbys: Vec<_> =
                lags.iter().map(|(node, lag_s, at)| standby_of(*node, *lag_s, *at)).collect();
            let known = topology(primary, &standbys);
            let wish = Wish { stale_ok, ..reader(max_lag_s, seen) };
            match route(&known, &wish, turn) {
                Route::Serve(node) => prop_assert!(
                    Some(node) == known.writable()
                        || standbys.iter().any(|standby| standby.node == node
                            && standby.lag_s <= max_lag_s
                            && standby.replayed >= Lsn(seen))
                ),
                Route::ServeStale { .. } => {
                    prop_assert!(stale_ok && known.writable().is_none());
                }
                Route::Hold => prop_assert!(known.writable().is_none()),
            }
        }
    }
}
