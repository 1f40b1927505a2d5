//! A client between two transactions, as it is carried to the process that takes this one's place.

use std::rc::Rc;

use flightmode_wire::server::TxStatus;

use super::reading::Reading;
use super::{Mode, Session};
use crate::guc::{Reported, Settings, Values};

/// All that a session is while nothing is under way.  Its statements are not in it: who keeps
/// their contents carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub settings: Values,
    /// What the client was told of its servers.
    pub told: Values,
    /// What the last of its servers said of itself.
    pub reported: Values,
}

impl Session {
    /// What there is to carry; `None` while anything is under way, or something binds the client
    /// to its server, or it listens: what comes while another process begins to do so would be
    /// lost.
    pub fn carried(&self) -> Option<Carried> {
        let is_between = self.flow.is_free()
            && self.flow.status() == TxStatus::Idle
            && self.pins.is_empty()
            && self.naming.is_empty()
            && self.running.is_empty()
            && !self.failed
            && self.aftermath.is_none()
            && self.listening.is_none();
        is_between.then(|| Carried {
            settings: self.settings.values().clone(),
            told: self.told.told().clone(),
            reported: Values::clone(&self.reported),
        })
    }

    /// The same session in another process.  `statements`: the client's names and their texts.
    pub fn of_carried(
        mode: Mode,
        carried: Carried,
        statements: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let mut session = Self::new(mode, Values::new());
        session.settings = Settings::new(carried.settings);
        session.told = Reported::new(carried.told);
        session.reported = Rc::new(carried.reported);
        session.reading = Reading::of(&session.reported);
        for (name, sql) in statements {
            let text = session.read_prepared(&sql);
            session.statements.insert(&name, text);
        }
        session
    }
}
