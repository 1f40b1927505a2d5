//! A primary that is about to be stopped on purpose.

use super::*;

#[test]
fn what_is_under_way_at_a_primary_that_parts_may_end_and_whoever_comes_waits_for_the_next_one() {
    let (mut pool, servers) = busy(2);
    pool.checkin(servers[1], 0.5);
    let parting = Topology {
        parting: true,
        revision: 1,
        ..topology(1, Some(1), &[])
    };
    let (change, acts) = pool.on_topology(parting, 1.0);
    assert_eq!(
        (change, acts),
        (Change::Updated, Vec::new()),
        "nobody is cut off"
    );
    assert_eq!(checkout(&mut pool, 7, 1.1), [], "beside an idle server");
    assert_eq!(pool.checkin(servers[0], 1.2), [], "it ended in peace");
    let stayed = Topology {
        revision: 2,
        ..topology(1, Some(1), &[])
    };
    let (_, acts) = pool.on_topology(stayed, 2.0);
    assert_eq!(granted(&acts).len(), 1, "the primary stayed after all");
}
