//! What SHOW shows.  A column has `PgBouncer`'s name where it means the same.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use flightmode_pooler::pool::ClientId;
use serde_json::Value;

use super::listeners::{listeners, LISTENERS};
use super::table::Type::{Float, Int, Text};
use super::table::{Cell, Row, Table, Type};
use crate::config::{Config, PoolMode};
use crate::hub::{Hub, Operator, PoolOf};
use crate::pace::Doing;
use crate::stats::{PoolStats, Stats};

pub type Columns = &'static [(&'static str, Type)];

/// `None`: nothing of that name is shown.
pub async fn table(hub: &Rc<Hub>, what: &str) -> Option<Table> {
    let shards = hub.shards.clone();
    let (columns, rows) = match what {
        "pools" => (POOLS, pools(&shards.stats().await)),
        "stats" | "stats_totals" => (STATS, stats(&shards.stats().await)),
        "databases" => (DATABASES, databases(hub, &shards.stats().await)),
        "users" => (USERS, users(hub, &shards.stats().await)),
        "topology" => (TOPOLOGY, topology(hub, &shards.stats().await)),
        "lists" => (LISTS, lists(hub, &shards.stats().await)),
        "mem" => (MEM, mem(hub, &shards.stats().await)),
        "state" => (STATE, state(hub, &shards.stats().await)),
        "clients" => (SOCKETS, shards.ask(clients).await.concat()),
        "servers" => (SOCKETS, shards.ask(servers).await.concat()),
        "listeners" => (LISTENERS, shards.ask(listeners).await.concat()),
        "config" => (CONFIG, config(&hub.config())),
        "version" => (
            &[("version", Text)] as Columns,
            vec![vec![
                format!("Flightmode {}", env!("CARGO_PKG_VERSION")).into()
            ]],
        ),
        _ => return None,
    };
    Some(Table { columns, rows })
}

fn mode(mode: PoolMode) -> Cell {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
        PoolMode::Statement => "statement",
    }
    .into()
}

const POOLS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int),
    ("cl_waiting", Int),
    ("sv_active", Int),
    ("sv_being_canceled", Int),
    ("sv_idle", Int),
    ("sv_used", Int),
    ("sv_login", Int),
    ("maxwait", Int),
    ("maxwait_us", Int),
    ("pool_mode", Text),
    ("paused", Int),
    ("failure", Text),
];

fn pools(stats: &Stats) -> Vec<Row> {
    let row = |pool: &PoolStats| {
        let wait_us = (pool.oldest_wait_s * 1e6) as u64;
        vec![
            pool.database.as_str().into(),
            pool.user.as_str().into(),
            // As there: everybody who does not wait.
            (pool.clients_active + pool.clients_idle).into(),
            pool.clients_waiting.into(),
            pool.servers_active.into(),
            pool.servers_cancelled.into(),
            pool.servers_idle.into(),
            // We never keep a server from clients because it was idle.
            0_usize.into(),
            pool.servers_login.into(),
            (wait_us / 1_000_000).into(),
            (wait_us % 1_000_000).into(),
            mode(pool.mode),
            pool.paused.into(),
            pool.failure.clone().into(),
        ]
    };
    stats.pools.iter().map(row).collect()
}

const STATS: Columns = &[
    ("database", Text),
    ("total_xact_count", Int),
    ("total_query_count", Int),
    ("total_received", Int),
    ("total_sent", Int),
    ("total_xact_time", Int),
    ("total_query_time", Int),
    ("total_wait_time", Int),
];

fn stats(stats: &Stats) -> Vec<Row> {
    let mut sums: BTreeMap<&str, [u64; 7]> = BTreeMap::new();
    let micros = |s: f64| (s * 1e6) as u64;
    for pool in &stats.pools {
        let own = &pool.sums;
        let more = [
            own.transactions,
            own.queries,
            own.received_bytes,
            own.sent_bytes,
            micros(own.transaction_s),
            micros(own.query_s),
            micros(own.wait_s),
        ];
        let sum = sums.entry(&pool.database).or_default();
        for (total, more) in sum.iter_mut().zip(more) {
            *total += more;
        }
    }
    sums.into_iter()
        .map(|(database, totals)| {
            let totals = totals.into_iter().map(Cell::from);
            std::iter::once(database.into()).chain(totals).collect()
        })
        .collect()
}

const DATABASES: Columns = &[
    ("name", Text),
    ("host", Text),
    ("port", Int),
    ("database", Text),
    ("pool_size", Int),
    ("min_pool_size", Int),
    ("reserve_pool_size", Int),
    ("pool_mode", Text),
    ("max_connections", Int),
    ("current_connections", Int),
    ("max_client_connections", Int),
    ("current_client_connections", Int),
    ("paused", Int),
];

fn databases(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let config = hub.config();
    let listed = config.databases.keys().map(String::as_str);
    let used = stats.pools.iter().map(|pool| pool.database.as_str());
    let names: BTreeSet<&str> = listed.chain(used).collect();
    let primary = stats.topology.primary.as_ref();
    let node = primary.and_then(|name| config.nodes.get(name));
    let row = |name: &str| {
        let database = config.database(name).unwrap_or_default();
        let of: Vec<_> = stats.pools.iter().filter(|p| p.database == name).collect();
        vec![
            name.into(),
            node.map(|node| node.host.clone()).into(),
            node.map_or(Cell::Null, |node| usize::from(node.port).into()),
            database.dbname.as_deref().unwrap_or(name).into(),
            database.pool_size.into(),
            database.min_pool_size.into(),
            database.reserve.into(),
            mode(database.pool_mode.unwrap_or_default()),
            database.max_db_connections.into(),
            of.iter().map(|p| p.servers()).sum::<usize>().into(),
            match database.max_clients {
                0 => config.limits.per_database.into(),
                own => own.into(),
            },
            of.iter().map(|p| p.clients()).sum::<usize>().into(),
            hub.is_paused(name).into(),
        ]
    };
    names.into_iter().map(row).collect()
}

const USERS: Columns = &[
    ("name", Text),
    ("pool_size", Text),
    ("reserve_pool_size", Text),
    ("pool_mode", Text),
    ("max_user_connections", Int),
    ("current_connections", Int),
    ("max_user_client_connections", Int),
    ("current_client_connections", Int),
];

fn users(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let config = hub.config();
    let listed = hub.door().map(|door| door.users.names());
    let listed = listed.unwrap_or_default();
    let used = stats.pools.iter().map(|pool| pool.user.clone());
    let used = used.chain(hub.shards.census.users());
    let limited = config.users.keys().cloned();
    let names: BTreeSet<String> = listed.into_iter().chain(used).chain(limited).collect();
    let row = |name: &String| {
        let settings = config.users.get(name).cloned().unwrap_or_default();
        let most = match settings.max_connections {
            0 => config.limits.per_user,
            most => most,
        };
        let of: Vec<_> = stats.pools.iter().filter(|p| p.user == *name).collect();
        vec![
            name.as_str().into(),
            // As there: a text, and an empty one where it is as the database says.
            settings
                .pool_size
                .map_or_else(String::new, |n| n.to_string())
                .into(),
            settings
                .reserve
                .map_or_else(String::new, |n| n.to_string())
                .into(),
            settings.pool_mode.map_or(Cell::Null, mode),
            settings.max_servers.into(),
            of.iter().map(|p| p.servers()).sum::<usize>().into(),
            most.into(),
            hub.shards.census.of_user(name).into(),
        ]
    };
    names.iter().map(row).collect()
}

const TOPOLOGY: Columns = &[
    ("node", Text),
    ("role", Text),
    ("host", Text),
    ("port", Int),
    ("usable", Int),
    ("lag_s", Float),
    ("replayed", Text),
    ("term", Int),
    ("revision", Int),
];

fn topology(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let known = &stats.topology;
    let row = |(name, node): (&String, &crate::config::Node)| {
        let is_primary = known.primary.as_ref() == Some(name);
        let standby = known.standbys.iter().find(|standby| standby.node == *name);
        let role = match (is_primary, standby) {
            (true, _) => "primary",
            (false, Some(_)) => "standby",
            (false, None) => "unknown",
        };
        let usable = (is_primary && !known.fenced) || standby.is_some();
        vec![
            name.as_str().into(),
            role.into(),
            node.host.as_str().into(),
            usize::from(node.port).into(),
            usable.into(),
            standby.map_or(Cell::Null, |standby| standby.lag_s.into()),
            standby.map(|standby| standby.replayed.clone()).into(),
            known.term.into(),
            known.revision.into(),
        ]
    };
    hub.config().nodes.iter().map(row).collect()
}

const LISTS: Columns = &[("list", Text), ("items", Int)];

fn lists(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let sum = |of: fn(&PoolStats) -> usize| stats.pools.iter().map(of).sum::<usize>();
    let refused = stats.logins.refused.values().sum::<u64>();
    let rows: [(&str, Cell); 10] = [
        ("databases", databases(hub, stats).len().into()),
        ("users", users(hub, stats).len().into()),
        ("pools", stats.pools.len().into()),
        ("used_clients", stats.clients.into()),
        ("held_clients", stats.holds.now.into()),
        ("free_servers", sum(|pool| pool.servers_idle).into()),
        ("used_servers", sum(|pool| pool.servers_active).into()),
        ("login_servers", sum(|pool| pool.servers_login).into()),
        ("accepted_logins", stats.logins.accepted.into()),
        ("refused_logins", refused.into()),
    ];
    rows.into_iter()
        .map(|(name, items)| vec![name.into(), items])
        .collect()
}

const MEM: Columns = &[("name", Text), ("memtotal", Int)];

fn mem(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let cap = hub.config().limits.memory_mb << 20;
    vec![
        vec!["kept for clients".into(), stats.memory_bytes.into()],
        vec!["cap (memory_mb)".into(), cap.into()],
    ]
}

const STATE: Columns = &[("key", Text), ("value", Text)];

fn state(hub: &Rc<Hub>, stats: &Stats) -> Vec<Row> {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let paused = hub.paused.borrow().contains(&None);
    let held = stats.topology.primary.is_none() || stats.topology.fenced;
    vec![
        vec!["active".into(), yes(!paused && !stats.draining).into()],
        vec!["paused".into(), yes(paused).into()],
        vec!["draining".into(), yes(stats.draining).into()],
        vec!["held".into(), yes(held).into()],
        vec!["shards".into(), stats.shards.to_string().into()],
        vec!["uptime_s".into(), format!("{:.0}", stats.uptime_s).into()],
    ]
}

const CONFIG: Columns = &[
    ("key", Text),
    ("value", Text),
    ("default", Text),
    ("changeable", Text),
];

fn config(config: &Config) -> Vec<Row> {
    let flat = |config: &Config| {
        let mut rows = BTreeMap::new();
        flatten("", &serde_json::json!(config), &mut rows);
        rows
    };
    let plain = serde_json::from_str::<Config>(r#"{"listen":[],"nodes":{}}"#);
    let defaults = plain.map(|config| flat(&config)).unwrap_or_default();
    let row = |(key, value): (String, Option<String>)| {
        let at_start = key.starts_with("listen") || key == "shards" || key == "admin.unix";
        vec![
            key.as_str().into(),
            value.into(),
            defaults.get(&key).cloned().flatten().into(),
            (if at_start { "no" } else { "yes" }).into(),
        ]
    };
    flat(config).into_iter().map(row).collect()
}

fn flatten(name: &str, value: &Value, rows: &mut BTreeMap<String, Option<String>>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                flatten(&name, value, rows);
            }
        }
        Value::Null => drop(rows.insert(name.to_owned(), None)),
        Value::String(text) => drop(rows.insert(name.to_owned(), Some(text.clone()))),
        other => drop(rows.insert(name.to_owned(), Some(other.to_string()))),
    }
}

const SOCKETS: Columns = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int),
    ("connect_time", Text),
    ("wait", Int),
    ("wait_us", Int),
    ("close_needed", Int),
    ("link", Text),
    ("remote_pid", Int),
    ("tls", Text),
    ("application_name", Text),
    ("id", Int),
    ("node", Text),
    ("state_s", Float),
];

fn clients(hub: &Rc<Hub>) -> Vec<Row> {
    let now_s = hub.now_s();
    let mut rows = Vec::new();
    for (id, entry) in &*hub.clients.borrow() {
        let doing = entry.at.pace.doing();
        let for_s = entry.at.pace.for_s(now_s);
        let wait_us = if doing == Doing::Waiting {
            (for_s * 1e6) as u64
        } else {
            0
        };
        let local = entry.address.is_empty();
        let state = match doing {
            Doing::Waiting => "waiting",
            Doing::Idle => "idle",
            Doing::Running | Doing::InTransaction => "active",
        };
        let server = entry.at.server.get();
        let node = server.and_then(|server| entry.pool.node_of(server));
        rows.push(vec![
            "C".into(),
            entry.about.user.as_str().into(),
            entry.pool.key.database.as_str().into(),
            state.into(),
            (if local { "unix" } else { &entry.address }).into(),
            usize::from(entry.about.port).into(),
            ago(now_s - entry.about.since_s).into(),
            (wait_us / 1_000_000).into(),
            (wait_us % 1_000_000).into(),
            hub.draining.get().into(),
            server.map(|server| server.0.to_string()).into(),
            pid(entry.at.key.borrow().as_deref()),
            entry.about.tls.clone().unwrap_or_default().into(),
            entry.about.application.as_str().into(),
            id.0.into(),
            node.map(|node| hub.name_of(node)).into(),
            for_s.into(),
        ]);
    }
    for (id, operator) in &*hub.operators.borrow() {
        rows.push(operator_row(*id, operator, now_s));
    }
    rows.sort_by(|left, right| format!("{:?}", left[14]).cmp(&format!("{:?}", right[14])));
    rows
}

/// Who looks is listed too, as there.
fn operator_row(id: ClientId, operator: &Operator, now_s: f64) -> Row {
    let (about, address) = (&operator.about, &operator.address);
    let for_s = now_s - about.since_s;
    vec![
        "C".into(),
        about.user.as_str().into(),
        operator.database.as_str().into(),
        "active".into(),
        (if address.is_empty() { "unix" } else { address }).into(),
        usize::from(about.port).into(),
        ago(for_s).into(),
        0_usize.into(),
        0_usize.into(),
        false.into(),
        Cell::Null,
        Cell::Null,
        about.tls.clone().unwrap_or_default().into(),
        about.application.as_str().into(),
        id.0.into(),
        Cell::Null,
        for_s.into(),
    ]
}

fn pid(key: Option<&flightmode_wire::startup::CancelKey>) -> Cell {
    key.map_or(Cell::Null, |key| u64::from(key.pid()).into())
}

fn servers(hub: &Rc<Hub>) -> Vec<Row> {
    let pools = hub.all_pools();
    pools
        .iter()
        .flat_map(|pool| servers_of(hub, pool))
        .collect()
}

fn servers_of(hub: &Rc<Hub>, pool: &Rc<PoolOf>) -> Vec<Row> {
    let now_s = hub.now_s();
    let clients = hub.clients.borrow();
    let row = |seen: flightmode_pooler::pool::operate::Seen| {
        let target = hub.target_of(seen.node);
        let state = match (seen.connecting, seen.client) {
            (true, _) => "login",
            (false, Some(_)) => "active",
            (false, None) => "idle",
        };
        let entry = seen.client.and_then(|client| clients.get(&client));
        let key = match entry {
            Some(entry) => pid(entry.at.key.borrow().as_deref()),
            None => pid(pool.key_of(seen.server).as_deref()),
        };
        let born_s = pool.born_of(seen.server).unwrap_or(now_s);
        vec![
            "S".into(),
            pool.key.user.as_str().into(),
            pool.key.database.as_str().into(),
            state.into(),
            target.as_ref().map(|target| target.host.clone()).into(),
            target
                .as_ref()
                .map_or(0, |target| usize::from(target.port))
                .into(),
            ago(now_s - born_s).into(),
            0_usize.into(),
            0_usize.into(),
            seen.closing.into(),
            seen.client.map(|client| client.0.to_string()).into(),
            key,
            Cell::from(
                target
                    .filter(|target| target.tls.is_some())
                    .map(|_| "TLS".to_owned()),
            ),
            entry
                .map(|entry| entry.about.application.clone())
                .unwrap_or_default()
                .into(),
            seen.server.0.into(),
            hub.name_of(seen.node).into(),
            match entry {
                Some(entry) => entry.at.pace.for_s(now_s).into(),
                None => (now_s - seen.idle_since_s).into(),
            },
        ]
    };
    pool.machine.borrow().seen().into_iter().map(row).collect()
}

/// A moment so many seconds ago, as `2026-01-31 12:00:00 UTC`.
pub fn ago(s: f64) -> String {
    let now = std::time::SystemTime::now();
    let then = now
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64() - s);
    moment(then as i64)
}

/// Days to a date after Howard Hinnant's `civil_from_days`.
fn moment(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let second = second % 60;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_also_around_leap_days() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_735_689_599), "2024-12-31 23:59:59 UTC");
    }

    #[test]
    fn settings_are_shown_by_their_path_with_their_default() {
        let text = r#"{"listen":[],"nodes":{},"limits":{"max_clients":7}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let rows = super::config(&config);
        let row = rows
            .iter()
            .find(|row| row[0] == "limits.max_clients".into());
        let expected: Row = ["limits.max_clients", "7", "10000", "yes"]
            .map(Cell::from)
            .into();
        assert_eq!(row, Some(&expected));
    }
}
