//! Room for servers beyond one pool: the limit of a database, and the reserve of a pool.

use std::rc::Rc;

use flightmode_pooler::pool::ServerId;

use crate::hub::{limits_of, Hub, PoolOf};

/// A pool gets its reserve when somebody has waited for so long.
const RESERVE_AFTER_S: f64 = 5.0;

impl PoolOf {
    /// Whether this login may be begun.  At the limit of the database it may if another of its
    /// pools has a server that nobody uses, which is closed for it.
    pub fn has_room(self: &Rc<Self>, hub: &Rc<Hub>, server: ServerId) -> bool {
        let config = hub.config();
        let most = config
            .database(&self.key.database)
            .map_or(0, |database| database.max_db_connections);
        if most == 0 {
            return true;
        }
        let most = hub.shards.share(most).max(1);
        let mut pools = hub.all_pools();
        pools.retain(|pool| pool.key.database == self.key.database);
        let open: usize = pools.iter().map(|pool| pool.machine.borrow().len()).sum();
        if open <= most {
            return true;
        }
        let idle = pools.iter().find_map(|pool| {
            let seen = pool.machine.borrow().seen();
            let free = |seen: &&flightmode_pooler::pool::operate::Seen| {
                seen.client.is_none() && !seen.connecting && seen.server != server
            };
            let longest = seen
                .iter()
                .filter(free)
                .min_by(|left, right| left.idle_since_s.total_cmp(&right.idle_since_s))?;
            Some((Rc::clone(pool), longest.server))
        });
        let Some((pool, idle)) = idle else {
            let words = format!("max_db_connections leaves it no server: it is {most}");
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
        let had = self.in_reserve.get();
        let has = database.reserve > 0 && (waited_s >= RESERVE_AFTER_S || (had && waited_s > 0.0));
        if self.in_reserve.replace(has) == has {
            return;
        }
        let mut limits = limits_of(&database, hub);
        if has {
            limits.size += hub.shards.share(database.reserve);
        }
        let acts = self.machine.borrow_mut().set_limits(limits, now_s);
        self.carry_out(hub, acts);
    }
}
