//! Room for servers beyond one pool: the limits of a database and of a user, and the reserve of a pool.

use std::rc::Rc;

use flightmode_pooler::pool::operate::Seen;
use flightmode_pooler::pool::ServerId;

use crate::hub::{limits_of, Hub, PoolOf};

/// A pool gets its reserve when somebody has waited for so long.
const RESERVE_AFTER_S: f64 = 5.0;

impl PoolOf {
    /// Whether this login may be begun: neither its database nor its user has all its servers.
    pub fn has_room(self: &Rc<Self>, hub: &Rc<Hub>, server: ServerId) -> bool {
        let config = hub.config();
        let of_database = config.database(&self.key.database);
        let most = of_database.map_or(0, |database| database.max_db_connections);
        let is_of_database = |pool: &PoolOf| pool.key.database == self.key.database;
        let of_user = config.users.get(&self.key.user);
        let most_of_user = of_user.map_or(0, |user| user.max_servers);
        let is_of_user = |pool: &PoolOf| pool.key.user == self.key.user;
        self.is_within(hub, server, ("max_db_connections", most), is_of_database)
            && self.is_within(hub, server, ("max_servers", most_of_user), is_of_user)
    }

    /// At the limit it may if another of those pools has a server that nobody uses, which is
    /// closed for it.
    fn is_within(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        server: ServerId,
        (limit, most): (&str, usize),
        is_counted: impl Fn(&PoolOf) -> bool,
    ) -> bool {
        if most == 0 {
            return true;
        }
        let share = hub.shards.share(most).max(1);
        let mut pools = hub.all_pools();
        pools.retain(|pool| is_counted(pool));
        let open: usize = pools.iter().map(|pool| pool.machine.borrow().len()).sum();
        if open <= share {
            return true;
        }
        let idle = pools.iter().find_map(|pool| {
            let seen = pool.machine.borrow().seen();
            let free =
                |seen: &&Seen| seen.client.is_none() && !seen.connecting && seen.server != server;
            let longest = seen
                .iter()
                .filter(free)
                .min_by(|left, right| left.idle_since_s.total_cmp(&right.idle_since_s))?;
            Some((Rc::clone(pool), longest.server))
        });
        let Some((pool, idle)) = idle else {
            let words = format!("{limit} leaves it no server: it is {most}");
            *self.failure.borrow_mut() = Some(words);
            return false;
        };
        let acts = pool.machine.borrow_mut().retire(idle, hub.now_s());
        pool.carry_out(hub, acts);
        true
    }

    /// More servers while somebody waits for long, and no more than usual when nobody does.
    pub fn look_at_reserve(self: &Rc<Self>, hub: &Rc<Hub>) {
        let config = hub.config();
        let Some(database) = config.database(&self.key.database) else {
            return;
        };
        let now_s = hub.now_s();
        let waited_s = self
            .machine
            .borrow()
            .oldest_wait_s()
            .map_or(0.0, |since_s| now_s - since_s);
        let (_, reserve) = config.size_of(&database, &self.key.user);
        let had = self.in_reserve.get();
        let has = reserve > 0 && (waited_s >= RESERVE_AFTER_S || (had && waited_s > 0.0));
        if self.in_reserve.replace(has) == has {
            return;
        }
        let mut limits = limits_of(&database, &self.key.user, hub);
        if has {
            limits.size += hub.shards.share(reserve);
        }
        let acts = self.machine.borrow_mut().set_limits(limits, now_s);
        self.carry_out(hub, acts);
    }
}
