//! What a shard takes note of: that there is no primary, who was held for it, who was refused.

use std::rc::Rc;

use flightmode_pooler::topology::NodeId;

use crate::events::Happened;
use crate::hub::{Event, Hub, PoolOf};
use crate::server::ConnectError;

impl PoolOf {
    /// Clients that wait for the end of their login are told what a server said for good; those
    /// that are in are held, for they were let in before.  Only the primary knows: a standby may
    /// not have heard yet of a role or database that is there.
    pub fn deny_logins(&self, hub: &Hub, node: NodeId, failure: &ConnectError) {
        let is_primarys = hub.topology.borrow().writable() == Some(node);
        let Some((sqlstate, message)) = failure.verdict().filter(|_| is_primarys) else {
            return;
        };
        for events in self.waiting.borrow().values() {
            let (sqlstate, message) = (sqlstate.to_owned(), message.to_owned());
            let _ = events.send(Event::Denied(sqlstate, message));
        }
    }
}

impl Hub {
    /// There is a primary now, or there is none any more, or it begins nothing more.
    pub fn on_primary(&self) {
        let serving = self.topology.borrow().serving();
        self.serving
            .send_if_modified(|known| std::mem::replace(known, serving) != serving);
        let (now_s, is_there) = (self.now_s(), self.topology.borrow().writable().is_some());
        match (self.no_primary_since_s.get(), is_there) {
            (Some(_), true) => {
                self.no_primary_since_s.set(None);
                self.no_primary_until_s.set(now_s);
            }
            (None, false) => self.no_primary_since_s.set(Some(now_s)),
            _ => (),
        }
    }

    /// A client has waited; counted as held if there was no primary for a part of that time.
    pub fn on_waited(&self, waited_s: f64, served: bool) {
        let began_s = self.now_s() - waited_s;
        let held =
            self.no_primary_since_s.get().is_some() || self.no_primary_until_s.get() > began_s;
        if held {
            let mut holds = self.holds.borrow_mut();
            *(if served {
                &mut holds.resumed
            } else {
                &mut holds.expired
            }) += 1;
            holds.longest_s = holds.longest_s.max(waited_s);
        }
    }

    /// A session of a supposed primary is in recovery: nobody gets one there until there are news.
    pub fn on_primary_in_recovery(self: &Rc<Self>, node: NodeId) {
        let term = self.topology.borrow().term;
        if !self.topology.borrow_mut().doubt(term) {
            return;
        }
        self.on_primary();
        for pool in self.all_pools() {
            pool.machine.borrow_mut().doubt(term);
        }
        self.tell_in_recovery(node);
    }

    /// Writers meet a server in recovery where the news have a primary.  Told once a term.
    pub fn tell_in_recovery(&self, node: NodeId) {
        let term = self.topology.borrow().term;
        if self.told_in_recovery.replace(Some((term, node))) == Some((term, node)) {
            return;
        }
        let node = self.name_of(node);
        tracing::warn!(
            node,
            term,
            "the supposed primary is in recovery: writers are held"
        );
        self.sink.tell(Happened::FoundInRecovery { node, term });
    }

    /// A client was not let in.
    pub fn on_refused(&self, client: &str, sqlstate: &str, reason: &str) {
        tracing::info!(client, sqlstate, "refused: {reason}");
        let mut logins = self.logins.borrow_mut();
        *logins.refused.entry(sqlstate.to_owned()).or_default() += 1;
        self.sink.tell(Happened::LoginRefused {
            client: client.to_owned(),
            sqlstate: sqlstate.to_owned(),
            reason: reason.to_owned(),
        });
    }
}
