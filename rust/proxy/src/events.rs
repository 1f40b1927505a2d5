//! What the launcher should hear of: for its log, and to ask the store again.
//!
//! Rule: an event never holds up a client.  If nobody takes them they are dropped, and how many
//! were dropped is told with the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// As many are kept until they are taken.
const KEPT: usize = 1024;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// The supposed primary of this term is in recovery.  Writers are held until it says that it
    /// no longer is, or there are news of a later revision: ask the store.
    FoundInRecovery { node: String, term: u64 },
    /// A client was not let in.
    LoginRefused {
        client: String,
        sqlstate: String,
        reason: String,
    },
    /// A client waits for a server for long.
    PoolWait {
        database: String,
        user: String,
        ahead: usize,
    },
    /// A login to a server failed.
    ServerRefused {
        node: String,
        database: String,
        user: String,
        reason: String,
    },
    /// The console asks for the settings to be read again: `Proxy::reload`.
    ReloadAsked { by: String },
    /// The console asks for the end.
    StopAsked { by: String },
    /// A cancel for nobody here: of a client that another process still has, if one hands over
    /// to us.
    CancelUnknown { client: u32, secret: Vec<u8> },
    /// Every client has left.
    Drained,
    /// So many events were not taken in time.
    Dropped { count: u64 },
}

/// Where shards put them.
#[derive(Clone)]
pub struct Sink {
    sender: SyncSender<Happened>,
    dropped: Arc<AtomicU64>,
}

impl Sink {
    pub fn tell(&self, happened: Happened) {
        if self.sender.try_send(happened).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where the launcher takes them.
pub struct Source {
    receiver: Mutex<Receiver<Happened>>,
    dropped: Arc<AtomicU64>,
}

pub fn channel() -> (Sink, Source) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(KEPT);
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = Sink {
        sender,
        dropped: Arc::clone(&dropped),
    };
    let receiver = Mutex::new(receiver);
    (sink, Source { receiver, dropped })
}

impl Source {
    /// All there are; waits up to `within` for the first.
    pub fn take(&self, within: Duration) -> Vec<Happened> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = match receiver.recv_timeout(within) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        };
        taken.extend(receiver.try_iter());
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            taken.push(Happened::Dropped { count });
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (sink, source) = channel();
        for _ in 0..KEPT + 3 {
            sink.tell(Happened::Drained);
        }
        let taken = source.take(Duration::ZERO);
        assert_eq!(taken.len(), KEPT + 1);
        assert_eq!(taken.last(), Some(&Happened::Dropped { count: 3 }));
        assert_eq!(source.take(Duration::ZERO), []);
    }

    #[test]
    fn an_event_is_told_by_its_name() {
        let told = serde_json::to_string(&Happened::ReloadAsked {
            by: "admin".to_owned(),
        });
        assert_eq!(
            told.ok().as_deref(),
            Some(r#"{"event":"reload_asked","by":"admin"}"#)
        );
    }
}
