//! A server that is to take writes refuses one as a standby does (25006): the news are wrong.
//!
//! Whoever says of itself that it is no standby has refused for a reason of the client's own: a
//! transaction that is read-only.  So this is for servers that say nothing of it (before Postgres
//! 14), and for those that said that they are one; of all others it is known before they hear of
//! a client (`Relay::on_settled`).

use flightmode_pooler::route::Target;
use flightmode_pooler::session::Session;
use flightmode_wire::report::Report;

use crate::relay::Relay;

impl Relay {
    pub fn is_refused_by_standby(&self, report: &Report) -> bool {
        let is_primary_to_us = self.wish.target == Target::Primary;
        is_primary_to_us
            && report.sqlstate() == Some("25006")
            && self.held.as_ref().is_some_and(|held| {
                let said = held.server.reported.get(&b"in_hot_standby"[..]);
                !held.is_stale && said.is_none_or(|said| said != b"off")
            })
    }

    /// News for all: nobody gets a server there until the store has been asked.  The client hears
    /// nothing of a statement that has run nowhere, or that its transaction is to be retried.
    pub fn on_write_refused(&mut self) {
        let Some(held) = &self.held else { return };
        self.pool.clone().on_found_in_recovery(&self.hub, held.id);
        self.lose_server(true, Session::on_write_refused);
    }
}
