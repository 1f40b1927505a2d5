//! What the launcher should hear of: for its log, and to ask the store again.
//!
//! Rules: an event never holds up a client.  Those of which somebody outside can cause as many as
//! they like are dropped if nobody takes them, and how many were dropped is told with the next; the
//! others (the primary is in recovery) are told once, and so never lost.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// As many of those that may be dropped are kept until they are taken.
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
    /// A client was ended, or its statement cancelled, for a limit of time.
    LimitOfTime {
        client: u64,
        user: String,
        database: String,
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

impl Happened {
    /// Whether somebody outside can cause as many as they like.
    fn is_of_many(&self) -> bool {
        match self {
            Self::LoginRefused { .. }
            | Self::PoolWait { .. }
            | Self::LimitOfTime { .. }
            | Self::ServerRefused { .. }
            | Self::CancelUnknown { .. }
            | Self::Dropped { .. } => true,
            Self::FoundInRecovery { .. }
            | Self::ReloadAsked { .. }
            | Self::StopAsked { .. }
            | Self::Drained => false,
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Happened>,
    of_many: usize,
    dropped: u64,
}

impl Queue {
    fn put(&mut self, happened: Happened) {
        if happened.is_of_many() {
            if self.of_many >= KEPT {
                self.dropped += 1;
                return;
            }
            self.of_many += 1;
        } else if self.waiting.contains(&happened) {
            // The launcher has not heard it yet.
            return;
        }
        self.waiting.push_back(happened);
    }

    fn take(&mut self) -> Vec<Happened> {
        self.of_many = 0;
        let mut taken: Vec<_> = self.waiting.drain(..).collect();
        let count = std::mem::take(&mut self.dropped);
        if count > 0 {
            taken.push(Happened::Dropped { count });
        }
        taken
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    has_some: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where shards put them.
#[derive(Clone)]
pub struct Sink(Arc<Shared>);

impl Sink {
    pub fn tell(&self, happened: Happened) {
        self.0.queue().put(happened);
        self.0.has_some.notify_one();
    }
}

/// Where the launcher takes them.
pub struct Source(Arc<Shared>);

pub fn channel() -> (Sink, Source) {
    let shared = Arc::<Shared>::default();
    (Sink(Arc::clone(&shared)), Source(shared))
}

impl Source {
    /// All there are; waits up to `within` for the first.
    pub fn take(&self, within: Duration) -> Vec<Happened> {
        let queue = self.0.queue();
        let is_empty = |queue: &mut Queue| queue.waiting.is_empty();
        let waited = self.0.has_some.wait_timeout_while(queue, within, is_empty);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (sink, source) = channel();
        for client in 0..KEPT + 3 {
            sink.tell(unknown(client));
        }
        let taken = source.take(Duration::ZERO);
        assert_eq!(taken.len(), KEPT + 1);
        assert_eq!(taken.last(), Some(&Happened::Dropped { count: 3 }));
        assert_eq!(source.take(Duration::ZERO), []);
    }

    #[test]
    fn a_crowd_that_is_refused_does_not_hide_a_primary_in_recovery() {
        let (sink, source) = channel();
        let in_recovery = Happened::FoundInRecovery {
            node: "ams".to_owned(),
            term: 7,
        };
        for client in 0..2 * KEPT {
            sink.tell(unknown(client));
        }
        sink.tell(in_recovery.clone());
        sink.tell(in_recovery.clone());
        let taken = source.take(Duration::ZERO);
        assert_eq!(taken.iter().filter(|told| **told == in_recovery).count(), 1);
        sink.tell(in_recovery.clone());
        assert_eq!(source.take(Duration::ZERO), [in_recovery]);
    }

    fn unknown(client: usize) -> Happened {
        Happened::CancelUnknown {
            client: client as u32,
            secret: Vec::new(),
        }
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
