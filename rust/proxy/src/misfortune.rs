//! What a server says that no client asked for: nonsense, plans gone stale, settings refused.

use flightmode_wire::report::Report;

use crate::relay::Relay;

/// As many servers may have a stale plan of one statement before its client hears of it.
const MOST_STALE_PLANS: u32 = 20;

impl Relay {
    /// The server does not keep to the protocol: as good as lost.
    pub fn on_nonsense(&mut self, wrong: &str) {
        let node = self
            .held
            .as_ref()
            .and_then(|held| self.pool.node_of(held.id));
        tracing::error!(?node, "a server is given up: {wrong}");
        self.on_server_gone(true);
    }

    /// A table is not what it was when somebody prepared a statement that the client shares.
    /// Whether what it sent goes to another server; else it hears the error.
    pub fn on_stale_plan(&mut self) -> bool {
        self.pool.forget_prepared();
        let Some(held) = &mut self.held else {
            return false;
        };
        held.server.prepared.clear();
        self.pool.machine.borrow_mut().close_after(held.id);
        if self.stale_plans >= MOST_STALE_PLANS {
            return false;
        }
        let again = self.session.on_refused(&mut self.hub.ledger.borrow_mut());
        let Some(messages) = again else { return false };
        self.stale_plans += 1;
        self.forget_server(true);
        self.source.again(messages);
        true
    }

    pub fn on_settings_refused(&mut self, report: &Report) {
        let code = report.sqlstate().unwrap_or("22023").to_owned();
        let words = String::from_utf8_lossy(report.field(b'M').unwrap_or_default()).into_owned();
        self.on_server_gone(true);
        // Its user wanted the statement stopped, which had not even begun.
        if code == "57014" {
            self.fail(&code, &words);
        } else {
            self.end_with(&code, &words);
        }
    }
}

/// "cached plan must not change result type", in whatever language.
pub fn is_stale_plan(report: &Report) -> bool {
    report.sqlstate() == Some("0A000") && report.field(b'R') == Some(b"RevalidateCachedQuery")
}
