//! The settings of a session, with the semantics of transactions.
//!
//! Intuition: a client's settings are its own, and any server may serve it next.  So they are
//! kept here, changed when the server says that a SET was done, taken back when its transaction
//! is, and given to a server when it differs.
//!
//! Rule: a change counts from its `CommandComplete`, is undone by ROLLBACK (to a savepoint), and
//! what SET LOCAL says is kept apart, for it ends with its transaction.  A server that can't be brought to the same state is not used.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Names in small letters and values as `set_config` takes them.  What is not there has its
/// default.
pub type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// What has to be done to a server; `None`: RESET.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Shared by clients that came in with the same.
    now: Rc<Values>,
    /// What to put back, last first.
    undo: Vec<Change>,
    /// What holds until the end of the transaction, last last.
    local: Vec<Change>,
    /// Savepoints: their names and how long `undo` and `local` were.
    savepoints: Vec<(Vec<u8>, usize, usize)>,
}

/// Settings that change nothing of what a text means when it is parsed.
const WITHOUT_MEANING: [&[u8]; 8] = [
    b"application_name",
    b"client_min_messages",
    b"idle_in_transaction_session_timeout",
    b"idle_session_timeout",
    b"lock_timeout",
    b"statement_timeout",
    b"synchronous_commit",
    b"transaction_timeout",
];

impl Settings {
    /// Those of the start-up packet: what RESET goes back to is the server's own affair.
    pub fn new(start: impl Into<Rc<Values>>) -> Self {
        Self {
            now: start.into(),
            ..Self::default()
        }
    }

    pub fn values(&self) -> &Values {
        &self.now
    }

    /// The same, for who keeps it.
    pub fn shared(&self) -> &Rc<Values> {
        &self.now
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.now.get(name).map(Vec::as_slice)
    }

    /// What holds at this moment, by SET or by SET LOCAL.
    pub fn holding(&self, name: &[u8]) -> Option<&[u8]> {
        let local = self.local.iter().rev().find(|(found, _)| found == name);
        local.map_or_else(|| self.get(name), |(_, value)| value.as_deref())
    }

    /// SET, or RESET of one.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        let now = Rc::make_mut(&mut self.now);
        let before = match value {
            Some(value) => now.insert(name.to_vec(), value.to_vec()),
            None => now.remove(name),
        };
        self.undo.push((name.to_vec(), before));
        if !self.local.is_empty() {
            // It is the last word, also over what SET LOCAL said before.
            self.set_local(name, value);
        }
    }

    /// SET LOCAL.
    pub fn set_local(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.local.push((name.to_vec(), value.map(<[u8]>::to_vec)));
    }

    /// Whether the end of the transaction may change what holds now.
    pub fn is_touched(&self) -> bool {
        !self.undo.is_empty() || !self.local.is_empty()
    }

    /// What a text depends on when it is parsed: a constant means what the time zone, the date
    /// style or the encoding of that moment makes of it.
    ///
    /// An application's own settings (`app.tenant`) are not in it: the parser reads none of them,
    /// and their values are as many as there are tenants.
    pub fn meaning(&self) -> Vec<u8> {
        let of_local = |name: &[u8]| self.local.iter().rev().find(|(found, _)| found == name);
        let not_local = self.now.iter().filter(|(name, _)| of_local(name).is_none());
        let mut holding: Values = not_local
            .filter(|(name, _)| has_meaning(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (name, _) in self.local.iter().filter(|(name, _)| has_meaning(name)) {
            if let Some((_, Some(value))) = of_local(name) {
                holding.insert(name.clone(), value.clone());
            }
        }
        let mut bytes = Vec::new();
        for text in holding.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        bytes
    }

    /// RESET ALL: every setting but the role and the session's user, as in Postgres.
    pub fn reset_all(&mut self) {
        let names: Vec<_> = self
            .now
            .keys()
            .chain(self.local.iter().map(|(name, _)| name))
            .filter(|name| !matches!(name.as_slice(), b"role" | b"session_authorization"))
            .cloned()
            .collect();
        for name in names {
            self.set(&name, None);
        }
    }

    /// DISCARD ALL; it can't be in a transaction.
    pub fn discard_all(&mut self) {
        self.now = Rc::default();
        self.commit();
    }

    pub fn savepoint(&mut self, name: &[u8]) {
        let lengths = (self.undo.len(), self.local.len());
        self.savepoints.push((name.to_vec(), lengths.0, lengths.1));
    }

    /// The savepoint stays, those after it are gone.
    pub fn rollback_to(&mut self, name: &[u8]) {
        if let Some(at) = self.find(name) {
            let (undo, local) = (self.savepoints[at].1, self.savepoints[at].2);
            self.undo_to(undo);
            self.local.truncate(local);
            self.savepoints.truncate(at + 1);
        }
    }

    /// The savepoint and those after it are gone, what was done since then stays.
    pub fn release(&mut self, name: &[u8]) {
        if let Some(at) = self.find(name) {
            self.savepoints.truncate(at);
        }
    }

    /// The transaction (or the statement of its own) is committed.
    pub fn commit(&mut self) {
        self.undo.clear();
        self.local.clear();
        self.savepoints.clear();
    }

    /// The transaction is rolled back, or its server is lost.
    pub fn rollback(&mut self) {
        self.undo_to(0);
        self.local.clear();
        self.savepoints.clear();
    }

    /// What brings a server from `server` to these settings, role last: the settings before it may
    /// need the rights of the session's own user.
    pub fn changes_from(&self, server: &Values) -> Vec<Change> {
        // Mostly it is the same client's server again, or one of a client that came in like it.
        if std::ptr::eq(server, Rc::as_ptr(&self.now)) || *server == *self.now {
            return Vec::new();
        }
        let gone = server.keys().filter(|name| !self.now.contains_key(*name));
        let mut changes: Vec<Change> = gone.map(|name| (name.clone(), None)).collect();
        for (name, value) in &*self.now {
            if server.get(name) != Some(value) {
                changes.push((name.clone(), Some(value.clone())));
            }
        }
        changes.sort_by_key(|(name, value)| rank(name, value.is_some()));
        changes
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.savepoints
            .iter()
            .rposition(|(found, ..)| found == name)
    }

    fn undo_to(&mut self, length: usize) {
        for (name, before) in self.undo.drain(length.min(self.undo.len())..).rev() {
            let now = Rc::make_mut(&mut self.now);
            match before {
                Some(value) => now.insert(name, value),
                None => now.remove(&name),
            };
        }
    }
}

fn has_meaning(name: &[u8]) -> bool {
    !WITHOUT_MEANING.contains(&name) && !name.contains(&b'.')
}

/// A role is given up first and taken last.
fn rank(name: &[u8], is_set: bool) -> u8 {
    match (name, is_set) {
        (b"role", false) => 0,
        (b"session_authorization", false) => 1,
        (b"session_authorization", true) => 3,
        (b"role", true) => 4,
        _ => 2,
    }
}

/// What a client was told about the reported settings (`ParameterStatus`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    told: Rc<Values>,
}

impl Reported {
    /// A client that was told this by the process whose place we took.
    pub fn new(told: Values) -> Self {
        let told = Rc::new(told);
        Self { told }
    }

    pub fn told(&self) -> &Values {
        &self.told
    }

    /// The server says so and it goes on to the client.
    pub fn on_status(&mut self, name: &[u8], value: &[u8]) {
        Rc::make_mut(&mut self.told).insert(name.to_vec(), value.to_vec());
    }

    /// What the client has to be told because this server differs from the last one.
    ///
    /// Most clients were told the same, so most share it.
    pub fn news_from(&mut self, server: &Rc<Values>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let differs = |(name, value): &(&Vec<u8>, &Vec<u8>)| self.told.get(*name) != Some(*value);
        let news: Vec<_> = server
            .iter()
            .filter(differs)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !news.is_empty() {
            Rc::make_mut(&mut self.told).extend(news.iter().cloned());
        }
        if self.told == *server {
            self.told = Rc::clone(server);
        }
        news
    }
}
