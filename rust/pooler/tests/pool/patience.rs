//! How long who is waited for, and who is asked again.

use super::*;

#[test]
fn a_full_pool_is_waited_for_longer_than_a_primary_that_is_not_there() {
    let limits = Limits {
        full_s: 120.0,
        ..limits(1, 0)
    };
    let mut pool = Pool::new(limits, topology(1, Some(1), &[]));
    let acts = checkout(&mut pool, 1, 0.0);
    log_in(&mut pool, &acts, 0.0);
    assert_eq!(pool.checkout(ClientId(2), WRITER, 0.0, 30.0), []);
    let expired = Act::Expired {
        client: ClientId(2),
    };
    let until = |pool: &mut Pool, end_s: f64| loop {
        let at_s = pool.next_tick_s().expect("somebody waits");
        if at_s > end_s {
            return None;
        }
        if pool.tick(at_s).contains(&expired) {
            return Some(at_s);
        }
    };
    assert_eq!(until(&mut pool, 100.0), None, "its servers serve others");
    pool.tick(100.0);
    pool.on_topology(topology(2, None, &[]), 100.0);
    assert_eq!(until(&mut pool, 200.0), Some(130.0), "nobody takes writes");
}

#[test]
fn a_full_pool_is_waited_for_to_the_end_of_that_patience_and_no_longer() {
    let limits = Limits {
        full_s: 120.0,
        ..limits(1, 0)
    };
    let mut pool = Pool::new(limits, topology(1, Some(1), &[]));
    let acts = checkout(&mut pool, 1, 0.0);
    log_in(&mut pool, &acts, 0.0);
    pool.checkout(ClientId(2), WRITER, 0.0, 30.0);
    let mut last_s = 0.0;
    while pool.waiting() > 0 {
        last_s = pool.next_tick_s().expect("somebody waits");
        pool.tick(last_s);
    }
    assert!((last_s - 120.0).abs() < 1e-6, "{last_s}");
}

#[test]
fn who_is_unknown_to_the_primary_is_asked_for_only_while_somebody_waits() {
    let mut pool = Pool::new(limits(4, 2), topology(1, Some(1), &[2]));
    let acts = pool.tick(0.0);
    assert_eq!(acts.len(), 4, "two on each node");
    for act in acts {
        if let Act::Connect { server, .. } = act {
            pool.denied(server, 0.0);
        }
    }
    assert!(pool.is_unwelcome());
    for step in 1..100 {
        assert_eq!(pool.tick(f64::from(step)), [], "nobody waits");
    }
    let acts = checkout(&mut pool, 1, 100.0);
    assert!(
        matches!(
            acts[..],
            [Act::Connect {
                node: NodeId(1),
                ..
            }]
        ),
        "{acts:?}"
    );
    log_in(&mut pool, &acts, 100.0);
    assert!(!pool.is_unwelcome());
    assert_eq!(pool.len(), 4, "warm again, here and there");
}

#[test]
fn a_standby_that_has_not_heard_of_a_user_is_asked_again_seldom() {
    let mut pool = Pool::new(limits(4, 1), topology(1, Some(1), &[2]));
    let acts = pool.tick(0.0);
    for act in acts {
        match act {
            Act::Connect {
                server,
                node: NodeId(2),
            } => drop(pool.denied(server, 0.0)),
            Act::Connect { server, .. } => drop(pool.connected(server, 0.0)),
            _ => panic!("{act:?}"),
        }
    }
    assert_eq!(pool.tick(0.9), []);
    assert!(matches!(
        pool.tick(1.1)[..],
        [Act::Connect {
            node: NodeId(2),
            ..
        }]
    ));
}
