//! The pool: who serves and who waits, through faults.

mod parting;
mod patience;

use std::collections::{BTreeMap, BTreeSet};

use flightmode_pooler::pool::{Act, ClientId, Limits, Pool, ServerId};
use flightmode_pooler::route::{Target, Wish};
use flightmode_pooler::topology::{Change, Lsn, NodeId, Standby, Topology};
use proptest::prelude::*;

const WRITER: Wish = Wish {
    target: Target::Primary,
    seen: Lsn(0),
    stale_ok: false,
};
const READER: Wish = Wish {
    target: Target::Standby { max_lag_s: 1.0 },
    ..WRITER
};
const LATER: f64 = 1_000.0;

fn limits(size: usize, warm: usize) -> Limits {
    Limits {
        size,
        warm,
        waiting: 100,
        ..Limits::default()
    }
}

fn topology(term: u64, primary: Option<u32>, standbys: &[u32]) -> Topology {
    let standby = |node: &u32| Standby {
        node: NodeId(*node),
        lag_s: 0.0,
        replayed: Lsn(0),
    };
    Topology {
        term,
        revision: 0,
        primary: primary.map(NodeId),
        standbys: standbys.iter().map(standby).collect(),
        fenced: false,
        parting: false,
    }
}

/// Log in wherever the pool wants to.
fn log_in(pool: &mut Pool, acts: &[Act], now_s: f64) -> Vec<Act> {
    let mut more = Vec::new();
    for act in acts {
        if let Act::Connect { server, .. } = act {
            let next = pool.connected(*server, now_s);
            more.extend(log_in(pool, &next, now_s));
            more.extend(next);
        }
    }
    more
}

fn granted(acts: &[Act]) -> Vec<(u64, ServerId)> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Grant { client, server, .. } => Some((client.0, *server)),
            _ => None,
        })
        .collect()
}

fn checkout(pool: &mut Pool, client: u64, now_s: f64) -> Vec<Act> {
    pool.checkout(ClientId(client), WRITER, now_s, now_s + LATER)
}

/// A pool of `size` on node 1, whose servers are all busy with clients 0, 1, ….
fn busy(size: u64) -> (Pool, Vec<ServerId>) {
    let mut pool = Pool::new(
        limits(usize::try_from(size).unwrap(), 0),
        topology(1, Some(1), &[]),
    );
    let mut servers = Vec::new();
    for client in 0..size {
        let acts = checkout(&mut pool, client, 0.0);
        servers.push(granted(&log_in(&mut pool, &acts, 0.0))[0].1);
    }
    (pool, servers)
}

#[test]
fn pitfall_55_a_freed_server_goes_to_the_first_who_waits() {
    let (mut pool, servers) = busy(1);
    for client in 10..15 {
        assert_eq!(checkout(&mut pool, client, 0.0), []);
    }
    for client in 10..15 {
        let acts = pool.checkin(servers[0], 0.0);
        assert_eq!(granted(&acts), [(client, servers[0])]);
    }
}

#[test]
fn a_pool_opens_no_more_than_its_size_and_its_logins() {
    let mut pool = Pool::new(
        Limits {
            logins: 2,
            ..limits(3, 0)
        },
        topology(1, Some(1), &[]),
    );
    for client in 0..10 {
        checkout(&mut pool, client, 0.0);
    }
    assert_eq!(pool.len(), 2, "two logins at a time");
    for server in 0..3 {
        pool.connected(ServerId(server), 0.0);
    }
    assert_eq!((pool.len(), pool.waiting()), (3, 7));
}

#[test]
fn pitfall_51_clients_are_held_from_the_start_while_there_is_no_server() {
    let mut pool = Pool::new(limits(2, 0), Topology::default());
    assert_eq!(checkout(&mut pool, 1, 0.0), []);
    let (change, acts) = pool.on_topology(topology(1, Some(1), &[]), 5.0);
    assert_eq!(change, Change::NewTerm);
    assert_eq!(granted(&log_in(&mut pool, &acts, 5.0)).len(), 1);
}

#[test]
fn a_warm_standby_serves_writers_the_moment_it_is_promoted() {
    let mut pool = Pool::new(limits(4, 2), topology(1, Some(1), &[2]));
    let acts = pool.tick(0.0);
    assert_eq!(acts.len(), 4, "two on each node");
    log_in(&mut pool, &acts, 0.0);
    let on_old = granted(&checkout(&mut pool, 7, 1.0))[0].1;

    let (_, acts) = pool.on_topology(topology(2, None, &[2]), 2.0);
    assert!(acts.contains(&Act::Close { server: on_old }));
    assert!(acts.contains(&Act::Lost {
        client: ClientId(7),
        server: on_old
    }));
    assert_eq!(
        acts.iter()
            .filter(|act| matches!(act, Act::Close { .. }))
            .count(),
        2
    );
    assert_eq!(checkout(&mut pool, 8, 2.1), []);

    let promoted = Topology {
        revision: 1,
        ..topology(2, Some(2), &[])
    };
    let (_, acts) = pool.on_topology(promoted, 2.5);
    assert_eq!(granted(&acts).len(), 1, "no login was needed");
    assert_eq!(granted(&acts)[0].0, 8);
}

#[test]
fn a_session_of_the_old_term_is_never_handed_out_even_if_the_node_leads_again() {
    let mut pool = Pool::new(limits(1, 1), topology(1, Some(1), &[]));
    let acts = pool.tick(0.0);
    log_in(&mut pool, &acts, 0.0);
    let (_, acts) = pool.on_topology(topology(2, Some(1), &[]), 1.0);
    assert!(matches!(
        acts[..],
        [
            Act::Close {
                server: ServerId(0)
            },
            Act::Connect { .. }
        ]
    ));
}

#[test]
fn a_fenced_primary_loses_its_sessions_in_its_own_term() {
    let (mut pool, servers) = busy(1);
    let fenced = Topology {
        fenced: true,
        revision: 1,
        ..topology(1, Some(1), &[])
    };
    let (change, acts) = pool.on_topology(fenced, 1.0);
    assert_eq!(change, Change::PrimaryGone);
    let lost = Act::Lost {
        client: ClientId(0),
        server: servers[0],
    };
    assert_eq!(acts, [Act::Close { server: servers[0] }, lost]);
}

#[test]
fn a_login_to_a_dead_primary_is_given_up_when_the_news_come() {
    let mut pool = Pool::new(limits(1, 0), topology(1, Some(1), &[]));
    assert!(matches!(
        checkout(&mut pool, 1, 0.0)[..],
        [Act::Connect { .. }]
    ));
    let (_, acts) = pool.on_topology(topology(2, Some(2), &[]), 0.5);
    assert!(matches!(
        acts[..],
        [
            Act::Close {
                server: ServerId(0)
            },
            Act::Connect {
                node: NodeId(2),
                ..
            }
        ]
    ));
    assert_eq!(pool.connected(ServerId(0), 0.6), [], "too late");
}

#[test]
fn pitfall_42_a_server_that_died_idle_is_never_handed_out_and_nobody_is_told() {
    let (mut pool, servers) = busy(2);
    pool.checkin(servers[0], 1.0);
    assert_eq!(pool.closed(servers[0], 2.0), []);
    let acts = checkout(&mut pool, 9, 3.0);
    assert!(granted(&acts).is_empty());
    assert!(matches!(acts[..], [Act::Connect { .. }]));
}

#[test]
fn a_failed_login_is_tried_again_after_a_moment_or_at_once_on_news() {
    let mut pool = Pool::new(limits(1, 0), topology(1, Some(1), &[]));
    checkout(&mut pool, 1, 0.0);
    assert_eq!(pool.closed(ServerId(0), 0.0), []);
    assert_eq!(pool.next_tick_s(), Some(0.1));
    assert_eq!(pool.tick(0.05), []);
    assert!(matches!(pool.tick(0.1)[..], [Act::Connect { .. }]));
    pool.closed(ServerId(1), 0.1);
    let (_, acts) = pool.on_topology(
        Topology {
            revision: 1,
            ..topology(1, Some(1), &[])
        },
        0.11,
    );
    assert!(matches!(acts[..], [Act::Connect { .. }]));
}

#[test]
fn pitfall_23_a_server_is_not_reused_while_a_cancel_for_it_is_under_way() {
    let (mut pool, servers) = busy(1);
    assert!(pool.cancel_begins(servers[0], ClientId(0)));
    checkout(&mut pool, 5, 0.0);
    assert_eq!(
        pool.checkin(servers[0], 1.0),
        [],
        "the next client would be hit"
    );
    assert_eq!(
        granted(&pool.cancel_ends(servers[0], 2.0)),
        [(5, servers[0])]
    );
}

#[test]
fn pitfall_23_a_cancel_is_not_sent_to_a_server_that_serves_another() {
    let (mut pool, servers) = busy(1);
    checkout(&mut pool, 5, 0.0);
    pool.checkin(servers[0], 1.0);
    assert!(!pool.cancel_begins(servers[0], ClientId(0)));
    assert!(pool.cancel_begins(servers[0], ClientId(5)));
}

#[test]
fn pitfall_24_a_cancel_waits_for_no_login() {
    let mut pool = Pool::new(
        Limits {
            logins: 1,
            ..limits(3, 0)
        },
        topology(1, Some(1), &[]),
    );
    let acts = checkout(&mut pool, 0, 0.0);
    let server = granted(&log_in(&mut pool, &acts, 0.0))[0].1;
    checkout(&mut pool, 1, 0.0);
    checkout(&mut pool, 2, 0.0);
    assert_eq!(pool.len(), 2, "the one login is under way");
    assert!(pool.cancel_begins(server, ClientId(0)));
}

#[test]
fn pitfall_52_a_primary_found_in_recovery_holds_everybody_until_there_are_news() {
    let (mut pool, servers) = busy(2);
    pool.checkin(servers[1], 0.5);
    assert!(pool.on_found_in_recovery(servers[0]));
    assert_eq!(
        checkout(&mut pool, 9, 1.0),
        [],
        "the idle one is of the same node"
    );
    assert_eq!(
        pool.checkin(servers[0], 1.0),
        [Act::Close { server: servers[0] }]
    );
    let (_, acts) = pool.on_topology(topology(2, Some(2), &[]), 2.0);
    assert!(acts.contains(&Act::Close { server: servers[1] }));
    assert_eq!(granted(&log_in(&mut pool, &acts, 2.0)).len(), 1);
}

#[test]
fn pitfall_56_who_waits_long_is_told_once_how_many_are_ahead() {
    let (mut pool, _) = busy(1);
    for client in [5, 6] {
        checkout(&mut pool, client, 0.0);
    }
    let notice = |client, ahead| Act::Notice {
        client: ClientId(client),
        ahead,
    };
    assert_eq!(pool.tick(5.0), [notice(5, 0), notice(6, 1)]);
    assert_eq!(pool.tick(6.0), []);
}

#[test]
fn a_budget_that_is_over_ends_the_wait_and_not_before() {
    let mut pool = Pool::new(limits(1, 0), Topology::default());
    pool.checkout(ClientId(1), WRITER, 0.0, 30.0);
    assert!(!pool.tick(29.9).contains(&Act::Expired {
        client: ClientId(1)
    }));
    assert_eq!(
        pool.tick(30.0),
        [Act::Expired {
            client: ClientId(1)
        }]
    );
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn a_full_queue_refuses_and_a_client_that_leaves_makes_room() {
    let mut pool = Pool::new(
        Limits {
            waiting: 1,
            ..limits(1, 0)
        },
        Topology::default(),
    );
    checkout(&mut pool, 1, 0.0);
    assert_eq!(
        checkout(&mut pool, 2, 0.0),
        [Act::Refuse {
            client: ClientId(2)
        }]
    );
    pool.leave(ClientId(1));
    assert_eq!(checkout(&mut pool, 2, 0.0), []);
}

#[test]
fn a_paused_pool_grants_nothing_until_it_is_resumed() {
    let (mut pool, servers) = busy(1);
    pool.pause();
    checkout(&mut pool, 5, 0.0);
    assert_eq!(pool.checkin(servers[0], 1.0), []);
    assert_eq!(granted(&pool.resume(2.0)), [(5, servers[0])]);
}

#[test]
fn reconnect_closes_idle_servers_at_once_and_busy_ones_when_they_come_back() {
    let (mut pool, servers) = busy(2);
    pool.checkin(servers[1], 0.0);
    assert_eq!(pool.reconnect(1.0), [Act::Close { server: servers[1] }]);
    assert_eq!(
        pool.checkin(servers[0], 2.0),
        [Act::Close { server: servers[0] }]
    );
    assert!(pool.is_empty());
}

#[test]
fn servers_that_nobody_uses_are_closed_down_to_the_warm_ones() {
    let mut pool = Pool::new(limits(3, 1), topology(1, Some(1), &[]));
    let mut servers = Vec::new();
    for client in 0..3 {
        let acts = checkout(&mut pool, client, 0.0);
        let more = log_in(&mut pool, &acts, 0.0);
        servers.extend(
            granted(&acts)
                .into_iter()
                .chain(granted(&more))
                .map(|(_, server)| server),
        );
    }
    for server in servers {
        pool.checkin(server, 1.0);
    }
    assert_eq!(pool.next_tick_s(), Some(601.0));
    let closed = pool.tick(601.0);
    assert_eq!(closed.len(), 2);
    assert_eq!((pool.len(), pool.next_tick_s()), (1, None));
}

#[test]
fn a_reader_takes_any_standby_that_has_a_server_free() {
    let mut pool = Pool::new(limits(1, 1), topology(1, Some(1), &[2, 3]));
    let acts = pool.tick(0.0);
    log_in(&mut pool, &acts, 0.0);
    for client in 0..2 {
        let acts = pool.checkout(ClientId(client), READER, 0.0, LATER);
        assert_eq!(granted(&acts).len(), 1, "{client}");
    }
    assert_eq!(pool.checkout(ClientId(2), READER, 0.0, LATER), []);
}

/// What the pool has said so far, as the owner of the sockets knows it.
#[derive(Default)]
struct World {
    node_of: BTreeMap<ServerId, NodeId>,
    held: BTreeMap<ServerId, ClientId>,
    connecting: BTreeSet<ServerId>,
    waiting: Vec<ClientId>,
}

impl World {
    fn apply(&mut self, acts: &[Act], topology: &Topology) {
        for act in acts {
            match *act {
                Act::Connect { server, node } => {
                    assert!(
                        self.node_of.insert(server, node).is_none(),
                        "a number used twice"
                    );
                    self.connecting.insert(server);
                }
                Act::Close { server } => {
                    assert!(self.node_of.remove(&server).is_some(), "closed twice");
                    self.connecting.remove(&server);
                }
                Act::Grant { client, server, .. } => {
                    assert!(!self.connecting.contains(&server), "not logged in");
                    let node = self.node_of[&server];
                    assert_eq!(topology.serving(), Some(node), "not the primary");
                    assert!(self.held.insert(server, client).is_none(), "two clients");
                    if let Some(at) = self.waiting.iter().position(|waits| *waits == client) {
                        assert_eq!(at, 0, "{client:?} overtook {:?}", self.waiting);
                        self.waiting.remove(at);
                    }
                }
                Act::Lost { client, server } => {
                    assert_eq!(self.held.remove(&server), Some(client));
                }
                Act::Expired { client } | Act::Refuse { client } => {
                    self.waiting.retain(|waits| *waits != client);
                }
                Act::Notice { .. } => (),
            }
        }
    }

    fn any_idle_on(&self, node: NodeId) -> bool {
        self.node_of.iter().any(|(server, on)| {
            *on == node && !self.held.contains_key(server) && !self.connecting.contains(server)
        })
    }
}

#[derive(Clone, Debug)]
enum Event {
    Checkout,
    Checkin(usize),
    LoggedIn(usize),
    Closed(usize),
    News {
        primary: Option<u32>,
        fenced: bool,
        parting: bool,
        new_term: bool,
    },
    Tick(f64),
    Leave(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Checkout),
        4 => (0usize..50).prop_map(Event::Checkin),
        4 => (0usize..50).prop_map(Event::LoggedIn),
        1 => (0usize..50).prop_map(Event::Closed),
        1 => (proptest::option::of(0u32..3), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(primary, fenced, parting, new_term)| {
                Event::News { primary, fenced, parting, new_term }
            }),
        1 => (0.0..3.0f64).prop_map(Event::Tick),
        1 => (0usize..50).prop_map(Event::Leave),
    ]
}

fn pick<T: Copy>(from: impl Iterator<Item = T>, at: usize) -> Option<T> {
    let all: Vec<T> = from.collect();
    all.get(at.checked_rem(all.len())?).copied()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn through_any_events_the_pool_keeps_its_rules(
        events in proptest::collection::vec(any_event(), 1..120),
        size in 1usize..4,
        warm in 0usize..3,
    ) {
        let mut pool = Pool::new(limits(size, warm.min(size)), Topology::default());
        let mut world = World::default();
        let (mut now_s, mut term, mut revision, mut next) = (0.0, 0, 0, 0);
        for event in events {
            let acts = match event {
                Event::Checkout => {
                    next += 1;
                    let acts = checkout(&mut pool, next, now_s);
                    if granted(&acts).is_empty() {
                        world.waiting.push(ClientId(next));
                    }
                    acts
                }
                Event::Checkin(at) => match pick(world.held.keys().copied(), at) {
                    Some(server) => {
                        world.held.remove(&server);
                        pool.checkin(server, now_s)
                    }
                    None => continue,
                },
                Event::LoggedIn(at) => match pick(world.connecting.iter().copied(), at) {
                    Some(server) => {
                        world.connecting.remove(&server);
                        pool.connected(server, now_s)
                    }
                    None => continue,
                },
                Event::Closed(at) => match pick(world.node_of.keys().copied(), at) {
                    Some(server) => {
                        world.node_of.remove(&server);
                        world.connecting.remove(&server);
                        pool.closed(server, now_s)
                    }
                    None => continue,
                },
                Event::News { primary, fenced, parting, new_term } => {
                    term += u64::from(new_term);
                    revision += 1;
                    let standbys: Vec<u32> = (0..3).filter(|n| Some(*n) != primary).collect();
                    let known = topology(term, primary, &standbys);
                    let news = Topology { fenced, parting, revision, ..known };
                    pool.on_topology(news, now_s).1
                }
                Event::Tick(by_s) => {
                    now_s += by_s;
                    let acts = pool.tick(now_s);
                    let next_s = pool.next_tick_s();
                    prop_assert!(next_s.is_none_or(|at_s| at_s > now_s), "it would spin");
                    acts
                }
                Event::Leave(at) => match pick(world.waiting.iter().copied(), at) {
                    Some(client) => {
                        world.waiting.retain(|waits| *waits != client);
                        pool.leave(client);
                        Vec::new()
                    }
                    None => continue,
                },
            };
            world.apply(&acts, pool.topology());
            prop_assert_eq!(pool.len(), world.node_of.len());
            prop_assert_eq!(pool.waiting(), world.waiting.len());
            for node in (0..3).map(NodeId) {
                let open = world.node_of.values().filter(|on| **on == node).count();
                prop_assert!(open <= size, "more than its size");
            }
            if let Some(primary) = pool.topology().serving() {
                let strands = !world.waiting.is_empty() && world.any_idle_on(primary);
                prop_assert!(!strands, "somebody waits beside an idle server");
                let open = world.node_of.values().filter(|on| **on == primary).count();
                let hopeless = !world.waiting.is_empty() && open == 0
                    && pool.next_tick_s().is_none();
                prop_assert!(!hopeless, "somebody waits and nobody is logging in");
            }
        }
    }
}
