//! What is counted, and how it is told.
//!
//! Each shard counts for itself, without locks; who asks gets an answer from each, and the sum.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use crate::config::PoolMode;
use crate::hub::Hub;
use crate::listener::ListenerStats;
use crate::pace::Doing;

/// Upper bounds of what a time is counted under, in seconds; beyond them there is one more.
pub const BOUNDS_S: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
const KINDS: usize = BOUNDS_S.len() + 1;

/// How many took how long; `counts[i]` are those of at most `BOUNDS_S[i]` and above the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    pub counts: [u64; KINDS],
}

/// Counters of one pool: cells, for only one thread touches them.
#[derive(Default)]
pub struct Counts {
    transactions: Cell<u64>,
    queries: Cell<u64>,
    received: Cell<u64>,
    sent: Cell<u64>,
    wait_us: Cell<u64>,
    query_us: Cell<u64>,
    transaction_us: Cell<u64>,
    waits: [Cell<u64>; KINDS],
    lasted: [Cell<u64>; KINDS],
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

fn micros(s: f64) -> u64 {
    (s.max(0.0) * 1e6) as u64
}

fn kind(s: f64) -> usize {
    BOUNDS_S.partition_point(|bound| *bound < s)
}

impl Counts {
    pub fn on_query(&self, s: f64) {
        add(&self.queries, 1);
        add(&self.query_us, micros(s));
    }

    pub fn on_transaction(&self, s: f64) {
        add(&self.transactions, 1);
        add(&self.transaction_us, micros(s));
        add(&self.lasted[kind(s)], 1);
    }

    pub fn on_waited(&self, s: f64) {
        add(&self.wait_us, micros(s));
        add(&self.waits[kind(s)], 1);
    }

    pub fn on_received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    pub fn on_sent(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
    }

    pub fn sums(&self) -> Sums {
        let seconds = |cell: &Cell<u64>| cell.get() as f64 / 1e6;
        let told = |cells: &[Cell<u64>; KINDS]| Histogram {
            counts: std::array::from_fn(|at| cells[at].get()),
        };
        Sums {
            transactions: self.transactions.get(),
            queries: self.queries.get(),
            received_bytes: self.received.get(),
            sent_bytes: self.sent.get(),
            wait_s: seconds(&self.wait_us),
            query_s: seconds(&self.query_us),
            transaction_s: seconds(&self.transaction_us),
            waits: told(&self.waits),
            lasted: told(&self.lasted),
        }
    }
}

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sums {
    pub transactions: u64,
    /// Groups of messages that a server was done with: simple queries and Syncs.
    pub queries: u64,
    /// From clients.
    pub received_bytes: u64,
    /// To clients.
    pub sent_bytes: u64,
    pub wait_s: f64,
    pub query_s: f64,
    pub transaction_s: f64,
    /// How long clients waited for a server.
    pub waits: Histogram,
    /// How long transactions took.
    pub lasted: Histogram,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.wait_s += other.wait_s;
        self.query_s += other.query_s;
        self.transaction_s += other.transaction_s;
        let pairs = [
            (&mut self.waits, &other.waits),
            (&mut self.lasted, &other.lasted),
        ];
        for (own, others) in pairs {
            for (count, more) in own.counts.iter_mut().zip(others.counts) {
                *count += more;
            }
        }
    }
}

/// One pool: a user of a database.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolStats {
    pub database: String,
    pub user: String,
    pub mode: PoolMode,
    /// A server works for them, or is kept for their transaction.
    pub clients_active: usize,
    pub clients_idle: usize,
    pub clients_waiting: usize,
    pub servers_active: usize,
    pub servers_idle: usize,
    /// Free, but for a cancel that may still strike.
    pub servers_cancelled: usize,
    pub servers_login: usize,
    /// How long the first in the queue waits now.
    pub oldest_wait_s: f64,
    pub paused: bool,
    /// Why the last login to a server failed, if it did.
    pub failure: Option<String>,
    #[serde(flatten)]
    pub sums: Sums,
    #[serde(flatten)]
    pub listener: ListenerStats,
}

impl PoolStats {
    /// Open, or being opened, with those that listen.
    pub fn servers(&self) -> usize {
        self.listener.listeners
            + self.servers_active
            + self.servers_idle
            + self.servers_cancelled
            + self.servers_login
    }

    pub fn clients(&self) -> usize {
        self.clients_active + self.clients_idle + self.clients_waiting
    }

    fn add(&mut self, other: &Self) {
        self.clients_active += other.clients_active;
        self.clients_idle += other.clients_idle;
        self.clients_waiting += other.clients_waiting;
        self.servers_active += other.servers_active;
        self.servers_idle += other.servers_idle;
        self.servers_cancelled += other.servers_cancelled;
        self.servers_login += other.servers_login;
        self.oldest_wait_s = self.oldest_wait_s.max(other.oldest_wait_s);
        self.paused |= other.paused;
        if other.failure.is_some() {
            self.failure.clone_from(&other.failure);
        }
        self.sums.add(&other.sums);
        self.listener.add(&other.listener);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StandbyStats {
    pub node: String,
    pub lag_s: f64,
    pub replayed: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TopologyStats {
    pub term: u64,
    pub revision: u64,
    pub primary: Option<String>,
    /// The primary must not be used: its permission has ended, or it was found in recovery.
    pub fenced: bool,
    /// It is about to be stopped on purpose: whoever comes waits.
    pub parting: bool,
    pub standbys: Vec<StandbyStats>,
}

/// Logins of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Logins {
    pub accepted: u64,
    /// By SQLSTATE.
    pub refused: BTreeMap<String, u64>,
}

/// Waits that a missing primary caused.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Holds {
    /// Clients held now.
    pub now: usize,
    /// Waits that ended well.
    pub resumed: u64,
    /// Waits that ended with an error.
    pub expired: u64,
    pub longest_s: f64,
}

/// All of it, of one shard or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub version: &'static str,
    pub shards: usize,
    pub uptime_s: f64,
    pub clients: usize,
    /// What is kept for clients: buffers, and statements that may have to run again.
    pub memory_bytes: usize,
    pub draining: bool,
    pub bounds_s: Vec<f64>,
    pub topology: TopologyStats,
    pub logins: Logins,
    pub holds: Holds,
    pub pools: Vec<PoolStats>,
}

impl Stats {
    /// The sum of what the shards have told.
    pub fn sum(all: Vec<Self>) -> Self {
        let mut all = all.into_iter();
        let Some(mut sum) = all.next() else {
            return Self::default();
        };
        for one in all {
            sum.shards += one.shards;
            sum.uptime_s = sum.uptime_s.max(one.uptime_s);
            sum.clients += one.clients;
            sum.memory_bytes += one.memory_bytes;
            sum.draining |= one.draining;
            let known = |seen: &TopologyStats| (seen.term, seen.revision);
            if known(&one.topology) > known(&sum.topology) {
                sum.topology = one.topology;
            }
            sum.logins.accepted += one.logins.accepted;
            for (reason, count) in one.logins.refused {
                *sum.logins.refused.entry(reason).or_default() += count;
            }
            sum.holds.now += one.holds.now;
            sum.holds.resumed += one.holds.resumed;
            sum.holds.expired += one.holds.expired;
            sum.holds.longest_s = sum.holds.longest_s.max(one.holds.longest_s);
            for pool in one.pools {
                sum.add_pool(pool);
            }
        }
        sum
    }

    fn add_pool(&mut self, pool: PoolStats) {
        let place = |own: &PoolStats| (&own.database, &own.user).cmp(&(&pool.database, &pool.user));
        match self.pools.binary_search_by(place) {
            Ok(at) => self.pools[at].add(&pool),
            Err(at) => self.pools.insert(at, pool),
        }
    }
}

/// How a shard is now.
pub fn of(hub: &Rc<Hub>) -> Stats {
    let now_s = hub.now_s();
    let mut pools: BTreeMap<_, PoolStats> = BTreeMap::new();
    for (key, pool) in &*hub.pools.borrow() {
        let machine = pool.machine.borrow();
        let census = machine.census();
        let stats = PoolStats {
            database: key.database.clone(),
            user: key.user.clone(),
            mode: pool.mode.get(),
            servers_active: census.active,
            servers_idle: census.idle,
            servers_cancelled: census.shielded,
            servers_login: census.connecting,
            oldest_wait_s: machine
                .oldest_wait_s()
                .map_or(0.0, |since_s| now_s - since_s),
            paused: machine.is_paused(),
            failure: pool.failure.borrow().clone(),
            sums: pool.counts.sums(),
            listener: pool.listener.stats(),
            ..PoolStats::default()
        };
        pools.insert(key.clone(), stats);
    }
    let is_held = hub.topology.borrow().serving().is_none();
    let mut holds = hub.holds.borrow().clone();
    for entry in hub.clients.borrow().values() {
        let Some(pool) = pools.get_mut(&entry.pool.key) else {
            continue;
        };
        match entry.at.pace.doing() {
            Doing::Waiting => {
                pool.clients_waiting += 1;
                if is_held {
                    holds.now += 1;
                    holds.longest_s = holds.longest_s.max(entry.at.pace.for_s(now_s));
                }
            }
            Doing::Running | Doing::InTransaction => pool.clients_active += 1,
            Doing::Idle => pool.clients_idle += 1,
        }
    }
    Stats {
        version: env!("CARGO_PKG_VERSION"),
        shards: 1,
        uptime_s: now_s,
        clients: hub.clients.borrow().len(),
        memory_bytes: hub.memory.used(hub),
        draining: hub.draining.get(),
        bounds_s: BOUNDS_S.to_vec(),
        topology: topology_of(hub),
        logins: hub.logins.borrow().clone(),
        holds,
        pools: pools.into_values().collect(),
    }
}

fn topology_of(hub: &Hub) -> TopologyStats {
    let known = hub.topology.borrow();
    TopologyStats {
        term: known.term,
        revision: known.revision,
        primary: known.primary.map(|node| hub.name_of(node)),
        fenced: known.fenced,
        parting: known.parting,
        standbys: known
            .standbys
            .iter()
            .map(|standby| StandbyStats {
                node: hub.name_of(standby.node),
                lag_s: standby.lag_s,
                replayed: format!(
                    "{:X}/{:X}",
                    standby.replayed.0 >> 32,
                    standby.replayed.0 & 0xffff_ffff
                ),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(user: &str, transactions: u64, refused: u64) -> Stats {
        Stats {
            shards: 1,
            clients: 2,
            logins: Logins {
                accepted: 1,
                refused: [("28P01".to_owned(), refused)].into(),
            },
            pools: vec![PoolStats {
                database: "app".to_owned(),
                user: user.to_owned(),
                clients_idle: 2,
                oldest_wait_s: transactions as f64,
                sums: Sums {
                    transactions,
                    ..Sums::default()
                },
                ..PoolStats::default()
            }],
            ..Stats::default()
        }
    }

    #[test]
    fn shards_are_summed_pool_by_pool() {
        let sum = Stats::sum(vec![shard("a", 3, 1), shard("b", 5, 0), shard("a", 4, 2)]);
        assert_eq!((sum.shards, sum.clients), (3, 6));
        assert_eq!(sum.logins.refused["28P01"], 3);
        let told: Vec<_> = sum
            .pools
            .iter()
            .map(|pool| {
                (
                    pool.user.as_str(),
                    pool.sums.transactions,
                    pool.clients_idle,
                )
            })
            .collect();
        assert_eq!(told, [("a", 7, 4), ("b", 5, 2)]);
        assert!((sum.pools[0].oldest_wait_s - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_time_is_counted_under_the_first_bound_that_it_does_not_pass() {
        let counts = Counts::default();
        for s in [0.0, 0.000_5, 0.000_6, 61.0] {
            counts.on_waited(s);
        }
        let told = counts.sums().waits.counts;
        assert_eq!((told[0], told[1], told[KINDS - 1]), (2, 1, 1));
        assert_eq!(told.iter().sum::<u64>(), 4);
    }
}
