//! Limits of time of clients: one look at all of them now and then, and no timer for each.

use std::rc::Rc;
use std::time::Duration;

use crate::config::Times;
use crate::hub::{Entry, Event, Hub};
use crate::pace::Doing;
use crate::shard::strike;

/// How often clients are looked at: often enough for the smallest limit; `None`: there is none.
fn period(times: &Times) -> Option<Duration> {
    let limits = [
        times.client_idle_s,
        times.idle_in_transaction_s,
        times.query_s,
    ];
    let smallest = limits.into_iter().filter(|s| *s > 0.0).reduce(f64::min)?;
    Some(Duration::from_secs_f64((smallest / 8.0).clamp(0.02, 1.0)))
}

/// For as long as the shard lives.
pub async fn keep(hub: Rc<Hub>) {
    loop {
        match period(&hub.config().times) {
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
    let times = &config.times;
    let is_over = |limit_s: f64, for_s: f64| limit_s > 0.0 && for_s >= limit_s;
    let leave = |entry: &Entry, sqlstate, words| {
        let at_once = true;
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
        match entry.at.pace.doing() {
            Doing::Idle if is_over(times.client_idle_s, for_s) => {
                leave(
                    entry,
                    "57P05",
                    "terminating connection: idle for client_idle_s",
                );
            }
            Doing::InTransaction if is_over(times.idle_in_transaction_s, for_s) => {
                let words = "terminating connection: idle in a transaction for \
                             idle_in_transaction_s";
                leave(entry, "25P03", words);
            }
            Doing::Running if is_over(times.query_s, for_s) && entry.at.pace.strike() => {
                let key = entry.at.key.borrow().clone();
                if let (Some(server), Some(key)) = (entry.at.server.get(), key) {
                    let (hub, id, pool) = (Rc::clone(hub), *id, Rc::clone(&entry.pool));
                    tracing::info!(client = id.0, "cancelled: it runs for query_s");
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
        let times = |idle, query| Times {
            client_idle_s: idle,
            query_s: query,
            ..Times::default()
        };
        assert_eq!(period(&times(0.0, 0.0)), None);
        assert_eq!(period(&times(60.0, 0.8)), Some(Duration::from_millis(100)));
        assert_eq!(period(&times(600.0, 0.0)), Some(Duration::from_secs(1)));
        assert_eq!(period(&times(0.01, 0.0)), Some(Duration::from_millis(20)));
    }
}
