//! How a wait, a statement or the client itself comes to its end.

use super::{
    on_budget_over, server, Event, FromServer, Held, Listens, Rc, Relay, Report, TxStatus,
    CANCEL_ABANDONED,
};

impl Relay {
    /// Nobody could serve in time.
    pub(super) fn on_expired(&mut self) {
        let now_s = self.hub.now_s();
        let held_s = now_s - self.held_since_s.take().unwrap_or(now_s);
        self.hub.on_waited(held_s, false);
        let failure = on_budget_over(self.source.has_again(), held_s);
        let message = match self.pool.failure.borrow().as_ref() {
            Some(words) => format!("{} ({words})", failure.message),
            None if self.hub.topology.borrow().writable().is_some() => {
                format!("all servers of this pool have been in use for {held_s:.0} s")
            }
            None => failure.message.to_string(),
        };
        self.fail(failure.sqlstate, &message);
    }

    /// The statement (or group) that waits for a server fails; the connection stays.
    pub fn fail(&mut self, sqlstate: &str, message: &str) {
        self.waiting = None;
        self.held_since_s = None;
        self.was_held_s = 0.0;
        let mut bytes = Vec::new();
        Report::new("ERROR", sqlstate, message)
            .with(
                b'H',
                "Try again; `flightmode status` says what the cluster waits for.",
            )
            .write_error(&mut bytes);
        if self.source.drop_statement() {
            FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
        } else {
            self.skipping = true;
        }
        self.to_client.extend_from_slice(&bytes);
        self.at.pace.on_over(TxStatus::Idle, self.hub.now_s());
    }

    pub(super) fn leave(&mut self) {
        self.pool.leave(self.id);
        self.forget_hearing();
        self.statements.forget(&self.hub);
        if let Some(held) = self.held.take() {
            self.abandon(held);
        }
        self.events.close();
        while let Some(event) = self.events.try_recv() {
            if let Event::Granted { id, server, .. } = event {
                self.pool.checkin(&self.hub, id, server);
            }
        }
        let _ = self
            .session
            .on_server_lost(&mut self.hub.ledger.borrow_mut());
        self.hub.memory.account(self.kept, 0);
        self.hub.on_left(self.id);
    }

    /// Whatever the client had under way ends with its server: at once, and not when the server
    /// next has a row to send.
    pub(super) fn abandon(&self, held: Held) {
        let (hub, pool) = (Rc::clone(&self.hub), Rc::clone(&self.pool));
        let target = pool.node_of(held.id).and_then(|node| hub.target_of(node));
        let (Some(target), Some(key), true) =
            (target, &held.server.key, self.session.flow().is_running())
        else {
            return pool.lost(&hub, held.id);
        };
        let key = key.clone();
        tokio::task::spawn_local(async move {
            // It is closed in any case.
            if let Err(wrong) = server::cancel(&target, &key, CANCEL_ABANDONED).await {
                tracing::debug!("what a lost client ran was not cancelled: {wrong}");
            }
            pool.lost(&hub, held.id);
            drop(held);
        });
    }

    /// A client that says goodbye between transactions leaves its server to the others.
    pub fn on_terminate(&mut self) {
        self.ending = true;
        self.to_client.clear();
        let is_clean = self.session.flow().is_free() && self.session.pins().next().is_none();
        let is_quiet = |held: &Held| held.server.unsent.is_empty() && held.listens != Listens::Yes;
        if is_clean && !self.settling && self.held.as_ref().is_some_and(is_quiet) {
            self.check_in();
        }
    }
}
