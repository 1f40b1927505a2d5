//! Limits of time of clients: one look at all of them now and then, and no timer for each.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, Times};
use crate::events::Happened;
use crate::hub::{Entry, Event, Hub};
use crate::pace::Doing;
use crate::shard::strike;

use flightmode_pooler::pool::ClientId;

/// How often clients are looked at: often enough for the smallest limit; `None`: there is none.
fn period(config: &Config) -> Option<Duration> {
    let of_users = config.users.keys().map(|user| config.times_of(user));
    let limits = of_users.chain([config.times.clone()]).flat_map(|times| {
        [
            times.client_idle_s,
            times.idle_in_transaction_s,
            times.query_s,
        ]
    });
    let smallest = limits.filter(|s| *s > 0.0).reduce(f64::min)?;
    Some(Duration::from_secs_f64((smallest / 8.0).clamp(0.02, 1.0)))
}

/// For as long as the shard lives.
pub async fn keep(hub: Rc<Hub>) {
    loop {
        match period(&hub.config()) {
            None => hub.timed.notified().await,
            Some(period) => {
                tokio::time::sleep(period).await;
                look(&hub);
            }
        }
    }
}

fn look(hub: &Rc<Hub>) {
    let (config, now_s) = (hub.config(), hub.now_s());
    let of_users = config.users.keys();
    let of_users: BTreeMap<&str, Times> = of_users
        .map(|user| (user.as_str(), config.times_of(user)))
        .collect();
    let is_over = |limit_s: f64, for_s: f64| limit_s > 0.0 && for_s >= limit_s;
    let tell = |id: ClientId, entry: &Entry, words: &str| {
        hub.sink.tell(Happened::LimitOfTime {
            client: id.0,
            user: entry.about.user.clone(),
            database: entry.pool.key.database.clone(),
            reason: words.to_owned(),
        });
    };
    let leave = |id: ClientId, entry: &Entry, sqlstate, words| {
        let at_once = true;
        tell(id, entry, words);
        // It may be on its way out already.
        let _ = entry.events.send(Event::Leave {
            sqlstate,
            words,
            at_once,
        });
    };
    let clients = hub.clients.borrow();
    for (id, entry) in clients.iter().filter(|(_, entry)| !entry.replicates) {
        let for_s = entry.at.pace.for_s(now_s);
        let own = of_users.get(entry.about.user.as_str());
        let times = own.unwrap_or(&config.times);
        match entry.at.pace.doing() {
            Doing::Idle if is_over(times.client_idle_s, for_s) => {
                let words = "terminating connection: idle for client_idle_s";
                leave(*id, entry, "57P05", words);
            }
            Doing::InTransaction if is_over(times.idle_in_transaction_s, for_s) => {
                let words = "terminating connection: idle in a transaction for \
                             idle_in_transaction_s";
                leave(*id, entry, "25P03", words);
            }
            Doing::Running if is_over(times.query_s, for_s) && entry.at.pace.strike() => {
                let key = entry.at.key.borrow().clone();
                if let (Some(server), Some(key)) = (entry.at.server.get(), key) {
                    let (hub, id, pool) = (Rc::clone(hub), *id, Rc::clone(&entry.pool));
                    tell(id, entry, "cancelled: it runs for query_s");
                    tokio::task::spawn_local(async move {
                        strike(&hub, id, &pool, server, &key).await;
                    });
                }
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_looked_at_as_often_as_the_smallest_limit_needs() {
        let times = |idle: f64, query: f64| {
            let text = format!(
                r#"{{"listen":[],"nodes":{{}},"times":{{"client_idle_s":{idle},"query_s":{query}}}}}"#
            );
            serde_json::from_str::<Config>(&text).unwrap()
        };
        assert_eq!(period(&times(0.0, 0.0)), None);
        assert_eq!(period(&times(60.0, 0.8)), Some(Duration::from_millis(100)));
        assert_eq!(period(&times(600.0, 0.0)), Some(Duration::from_secs(1)));
        assert_eq!(period(&times(0.01, 0.0)), Some(Duration::from_millis(20)));
        let mut own = times(0.0, 0.0);
        own.users.entry("ada".to_owned()).or_default().query_s = Some(0.8);
        assert_eq!(period(&own), Some(Duration::from_millis(100)));
        assert!((own.times_of("ada").query_s - 0.8).abs() < 1e-9);
        assert!(own.times_of("bob").query_s.abs() < 1e-9);
    }
}
