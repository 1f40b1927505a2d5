//! What an operator asks of a pool: how it is, other limits, another name for its servers.

use super::{Act, ClientId, Limits, Pool, ServerId, State};
use crate::topology::NodeId;

/// How many servers are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Serving a client.
    pub active: usize,
    /// Free.
    pub idle: usize,
    /// Free, but for a cancel that may still strike.
    pub shielded: usize,
    /// Logging in.
    pub connecting: usize,
}

/// A server as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub server: ServerId,
    pub node: NodeId,
    pub client: Option<ClientId>,
    pub connecting: bool,
    /// It is closed when it is given back.
    pub closing: bool,
    /// When it last came back.
    pub idle_since_s: f64,
}

impl Pool {
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for server in self.servers.values() {
            match server.state {
                State::Busy(_) => census.active += 1,
                State::Idle => census.idle += 1,
                State::Shielded => census.shielded += 1,
                State::Connecting => census.connecting += 1,
            }
        }
        census
    }

    /// Every server, in the order of their opening.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen: Vec<_> = self
            .servers
            .iter()
            .map(|(id, server)| Seen {
                server: *id,
                node: server.node,
                client: match server.state {
                    State::Busy(client) => Some(client),
                    _ => None,
                },
                connecting: server.state == State::Connecting,
                closing: server.closing,
                idle_since_s: server.idle_since_s,
            })
            .collect();
        seen.sort_unstable_by_key(|seen| seen.server);
        seen
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Since when the first in the queue waits.
    pub fn oldest_wait_s(&self) -> Option<f64> {
        self.queue.front().map(|waiter| waiter.since_s)
    }

    /// Other limits.  A pool that has become too large shrinks as its servers come back.
    pub fn set_limits(&mut self, limits: Limits, now_s: f64) -> Vec<Act> {
        self.limits = limits;
        let mut acts = Vec::new();
        for node in self.nodes() {
            let mut surplus = self.count(node).saturating_sub(limits.size);
            let of_node = |idle: bool| {
                self.sorted(|server| {
                    server.node == node
                        && !server.closing
                        && matches!(server.state, State::Idle) == idle
                })
            };
            let (idle, others) = (of_node(true), of_node(false));
            for server in idle {
                if surplus > 0 {
                    self.drop_server(server, &mut acts);
                    surplus -= 1;
                }
            }
            for server in others.into_iter().take(surplus) {
                if let Some(found) = self.servers.get_mut(&server) {
                    found.closing = true;
                }
            }
        }
        self.serve(&mut acts);
        self.open(now_s, &mut acts);
        acts
    }

    /// One server is of no more use: closed now if nobody uses it, else when it is given back.
    pub fn retire(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        match self.servers.get_mut(&server) {
            Some(found) if matches!(found.state, State::Busy(_)) => found.closing = true,
            Some(_) => {
                self.drop_server(server, &mut acts);
                self.open(now_s, &mut acts);
            }
            None => (),
        }
        acts
    }

    /// Close every server at once, used or not; who waits goes on waiting.
    pub fn kill(&mut self, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        for server in self.sorted(|_| true) {
            self.drop_server(server, &mut acts);
        }
        self.open(now_s, &mut acts);
        acts
    }

    /// Another pool has found the primary of this term in recovery.
    pub fn doubt(&mut self, term: u64) -> bool {
        self.topology.doubt(term)
    }

    fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.servers.values().map(|server| server.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Target, Wish};
    use crate::topology::{Lsn, Topology};

    const WRITER: Wish = Wish {
        target: Target::Primary,
        seen: Lsn(0),
        stale_ok: false,
    };

    fn pool(size: usize) -> Pool {
        let limits = Limits {
            size,
            warm: 0,
            ..Limits::default()
        };
        let topology = Topology {
            term: 1,
            revision: 1,
            primary: Some(NodeId(1)),
            ..Topology::default()
        };
        Pool::new(limits, topology)
    }

    /// A pool in which the clients 1 to `count` have a server each.
    fn busy(size: usize, count: u64) -> (Pool, Vec<ServerId>) {
        let mut pool = pool(size);
        let mut servers = Vec::new();
        for client in 1..=count {
            let acts = pool.checkout(ClientId(client), WRITER, 0.0, 60.0);
            let [Act::Connect { server, .. }] = acts[..] else {
                panic!("{acts:?}");
            };
            pool.connected(server, 0.0);
            servers.push(server);
        }
        (pool, servers)
    }

    #[test]
    fn a_census_counts_each_server_once() {
        let (mut pool, servers) = busy(5, 3);
        pool.checkin(servers[0], 1.0);
        assert!(pool.cancel_begins(servers[1], ClientId(2)));
        pool.checkin(servers[1], 1.0);
        let expected = Census {
            active: 1,
            idle: 1,
            shielded: 1,
            connecting: 0,
        };
        assert_eq!(pool.census(), expected);
        assert_eq!(pool.seen()[2].client, Some(ClientId(3)));
    }

    #[test]
    fn a_smaller_pool_closes_the_idle_and_takes_nothing_from_those_who_work() {
        let (mut pool, servers) = busy(4, 3);
        pool.checkin(servers[2], 1.0);
        let limits = Limits {
            size: 1,
            warm: 0,
            ..Limits::default()
        };
        let acts = pool.set_limits(limits, 2.0);
        assert_eq!(acts, [Act::Close { server: servers[2] }]);
        assert_eq!(pool.census().active, 2);
        let acts = pool.checkin(servers[0], 3.0);
        assert_eq!(acts, [Act::Close { server: servers[0] }]);
        assert_eq!(pool.checkin(servers[1], 3.0), []);
        assert_eq!(pool.census().idle, 1);
    }

    #[test]
    fn a_larger_pool_serves_at_once_who_waits() {
        let (mut pool, _) = busy(1, 1);
        assert_eq!(pool.checkout(ClientId(9), WRITER, 1.0, 60.0), []);
        let limits = Limits {
            size: 2,
            warm: 0,
            ..Limits::default()
        };
        let acts = pool.set_limits(limits, 2.0);
        assert!(matches!(acts[..], [Act::Connect { .. }]), "{acts:?}");
    }

    #[test]
    fn killing_closes_also_what_is_used_and_its_client_hears_of_it() {
        let (mut pool, servers) = busy(2, 1);
        let acts = pool.kill(1.0);
        let server = servers[0];
        let lost = Act::Lost {
            client: ClientId(1),
            server,
        };
        assert_eq!(acts, [Act::Close { server }, lost]);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_paused_pool_opens_nothing_not_even_what_is_to_be_kept_warm() {
        let mut pool = Pool::new(
            Limits {
                warm: 2,
                ..Limits::default()
            },
            pool(5).topology().clone(),
        );
        pool.pause();
        assert_eq!(pool.checkout(ClientId(1), WRITER, 0.0, 60.0), []);
        assert_eq!(pool.reconnect(1.0), []);
        assert_eq!(pool.resume(2.0).len(), 2);
    }

    #[test]
    fn a_retired_server_that_works_is_closed_when_it_comes_back() {
        let (mut pool, servers) = busy(2, 2);
        pool.checkin(servers[0], 1.0);
        assert_eq!(
            pool.retire(servers[0], 2.0),
            [Act::Close { server: servers[0] }]
        );
        assert_eq!(pool.retire(servers[1], 2.0), []);
        let acts = pool.checkin(servers[1], 3.0);
        assert_eq!(acts, [Act::Close { server: servers[1] }]);
    }
}
