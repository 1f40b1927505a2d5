//! SHOW LISTENERS: what listens for the clients of a pool.

use std::rc::Rc;

use super::show::{ago, Columns};
use super::table::Type::{Int, Text};
use super::table::{Cell, Row};
use crate::hub::{Hub, PoolOf};

pub const LISTENERS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("state", Text),
    ("channels", Int),
    ("clients", Int),
    ("node", Text),
    ("remote_pid", Int),
    ("connect_time", Text),
    ("notifications", Int),
    ("notifications_sent", Int),
    ("gaps", Int),
];

/// Those that are there or wanted.
pub fn listeners(hub: &Rc<Hub>) -> Vec<Row> {
    let now_s = hub.now_s();
    let row = |pool: &Rc<PoolOf>| {
        let (seen, at) = (pool.listener.stats(), pool.listener.told.at.get());
        let state = match (at, seen.listening_clients) {
            (None, 0) => return None,
            (None, _) => "login",
            (Some(_), _) => "listening",
        };
        Some(vec![
            pool.key.database.as_str().into(),
            pool.key.user.as_str().into(),
            state.into(),
            seen.listened_channels.into(),
            seen.listening_clients.into(),
            at.map(|(node, ..)| hub.name_of(node)).into(),
            at.map_or(Cell::Null, |(_, pid, _)| u64::from(pid).into()),
            at.map(|(.., since_s)| ago(now_s - since_s)).into(),
            seen.notifications.into(),
            seen.notifications_sent.into(),
            seen.listen_gaps.into(),
        ])
    };
    hub.all_pools().iter().filter_map(row).collect()
}
