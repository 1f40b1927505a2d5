//! A client's messages about prepared statements: they get the names that its server knows.

use flightmode_pooler::flow::{Sent, Whose};
use flightmode_pooler::prepared::{Content, StatementId};
use flightmode_pooler::statement::{read, Said};
use flightmode_wire::client::{Bind, FromClient, Object, Parse};
use flightmode_wire::server::TxStatus;

use crate::names::content;
use crate::relay::Relay;

impl Relay {
    pub(super) fn on_unnamed_parse(&mut self, parse: &Parse, raw: &[u8]) {
        let message = FromClient::Parse(*parse);
        if self.tell_session(&message, raw, Whose::Clients) != Sent::Forward {
            return;
        }
        let louder = self.session.with_warnings(parse.sql).map(|sql| {
            let mut bytes = Vec::new();
            FromClient::Parse(Parse {
                sql: &sql,
                ..*parse
            })
            .write(&mut bytes);
            bytes
        });
        let raw = louder.as_deref().unwrap_or(raw);
        self.forward(raw);
        self.statements.set_unnamed(Some(raw));
        self.statements.on_parse_sent(b"", None, true);
        if let Some(held) = &mut self.held {
            held.has_unnamed = true;
        }
    }

    pub(super) fn on_parse(&mut self, parse: &Parse, raw: &[u8]) {
        let message = FromClient::Parse(*parse);
        if self.session.flow().is_skipping() {
            self.tell_session(&message, raw, Whose::Clients);
            return;
        }
        let louder = self.session.with_warnings(parse.sql);
        let parse = &Parse {
            sql: louder.as_deref().unwrap_or(parse.sql),
            ..*parse
        };
        let taken = self
            .statements
            .is_taken(parse.name)
            .then(|| self.statements.find(parse.name));
        let meaning = self.session.meaning();
        let found = content(parse, self.hub.catalog.borrow_mut().under(meaning));
        let id = match taken.flatten() {
            // The server says that this is an error, for it has one of that name.
            Some(id) => id,
            None => self.hub.catalog.borrow_mut().keep(found),
        };
        let is_taken = taken.is_some();
        let Some((name, known)) = self.prepare(id, is_taken) else {
            return;
        };
        if known && !is_taken {
            self.statements.on_parse_sent(parse.name, Some(id), false);
            self.send_local(&message, raw);
            return;
        }
        if self.tell_session(&message, raw, Whose::Clients) == Sent::Forward {
            let mut bytes = Vec::new();
            let renamed = Parse {
                name: name.as_bytes(),
                ..*parse
            };
            renamed.write(&mut bytes);
            self.forward(&bytes);
            let kept = (!is_taken).then_some(id);
            self.statements.on_parse_sent(parse.name, kept, true);
        }
    }

    /// A statement that has a name is closed here; what else there is, at the server.
    pub(super) fn on_close(&mut self, object: Object, message: &FromClient, raw: &[u8]) {
        let name = match object {
            Object::Statement(name) if !name.is_empty() => Some(name),
            _ => None,
        };
        if self.session.flow().is_skipping() {
            self.tell_session(message, raw, Whose::Clients);
            return;
        }
        self.statements.on_close_sent(name);
        if name.is_some() {
            self.send_local(message, raw);
        } else if self.tell_session(message, raw, Whose::Clients) == Sent::Forward {
            self.forward(raw);
        }
    }

    /// A Parse or Close that was answered in an aftermath: the next server is given what it says.
    pub(super) fn on_prepared_without_server(&mut self, message: &FromClient, raw: &[u8]) {
        match *message {
            FromClient::Parse(parse) if parse.name.is_empty() => {
                self.statements.set_unnamed(Some(raw));
            }
            FromClient::Parse(parse) => {
                let meaning = self.session.meaning();
                let mut catalog = self.hub.catalog.borrow_mut();
                let under = catalog.under(meaning);
                let id = catalog.keep(content(&parse, under));
                drop(catalog);
                self.statements.lead(parse.name, id, &self.hub);
            }
            FromClient::Close(Object::Statement(b"")) => self.statements.set_unnamed(None),
            FromClient::Close(Object::Statement(name)) => self.statements.close(name, &self.hub),
            _ => (),
        }
    }

    /// The name of a statement at the server that we have, and whether it is there.  With
    /// `inject`, and for every use but its Parse, it is made so.
    fn prepare(&mut self, id: StatementId, inject: bool) -> Option<(String, bool)> {
        let prepared = self.held.as_mut()?.server.prepared.prepare(id);
        if let Some(old) = &prepared.close {
            self.send_ours(&FromClient::Close(Object::Statement(old.as_bytes())));
        }
        if prepared.parse && inject {
            let found = self.hub.catalog.borrow().content(id).cloned();
            let Some(found) = found else {
                // Nobody has a name for it any more.
                return Some((prepared.name, false));
            };
            self.statements.on_injected(Some(id));
            self.send_ours(&FromClient::Parse(Parse {
                name: prepared.name.as_bytes(),
                sql: &found.sql,
                types: &found.types,
            }));
            return Some((prepared.name, true));
        }
        Some((prepared.name, !prepared.parse))
    }

    pub(super) fn on_bind(&mut self, bind: &Bind, raw: &[u8]) {
        let message = FromClient::Bind(*bind);
        if self.session.flow().is_skipping() {
            self.tell_session(&message, raw, Whose::Clients);
            return;
        }
        let name = self.name_at_server(bind.statement);
        if self.tell_session(&message, raw, Whose::Clients) != Sent::Forward {
            return;
        }
        match name {
            Some(name) => {
                let mut bytes = Vec::new();
                let renamed = Bind {
                    statement: name.as_bytes(),
                    ..*bind
                };
                renamed.write_head(&mut bytes);
                self.forward(&bytes);
                self.forward(bind.values);
            }
            None => self.forward(raw),
        }
    }

    pub(super) fn on_describe(&mut self, name: &[u8], message: &FromClient, raw: &[u8]) {
        if self.session.flow().is_skipping() {
            self.tell_session(message, raw, Whose::Clients);
            return;
        }
        let renamed = self.name_at_server(name);
        if self.tell_session(message, raw, Whose::Clients) != Sent::Forward {
            return;
        }
        match renamed {
            Some(renamed) => {
                let mut bytes = Vec::new();
                FromClient::Describe(Object::Statement(renamed.as_bytes())).write(&mut bytes);
                self.forward(&bytes);
            }
            None => self.forward(raw),
        }
    }

    /// The statement of the protocol that a DEALLOCATE names: some drivers have no other way.
    pub(super) fn deallocated_by(&self, sql: &[u8]) -> Option<StatementId> {
        let front = sql.trim_ascii_start();
        if !front
            .get(..10)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"deallocate"))
        {
            return None;
        }
        match read(sql, true).ok()?.as_slice() {
            [only] => match &only.said {
                Said::Deallocate(Some(name)) => self.statements.find(name),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn on_deallocate(&mut self, id: StatementId, message: &FromClient, raw: &[u8]) {
        let Some((name, known)) = self.prepare(id, false) else {
            return;
        };
        if !known && self.session.flow().status() != TxStatus::Failed {
            // By its own text it might fail, and then nothing would answer the client.
            let sql = format!("PREPARE {name} AS SELECT");
            self.send_ours(&FromClient::Query(sql.as_bytes()));
        }
        if self.tell_session(message, raw, Whose::Clients) == Sent::Forward {
            let mut bytes = Vec::new();
            FromClient::Query(format!("DEALLOCATE {name}").as_bytes()).write(&mut bytes);
            self.forward(&bytes);
            self.forget_at_server(Some(id));
        }
    }

    /// The statement that a name leads to at this server.  One that has to be parsed here first
    /// will mean what the settings of this moment make of it, and is shared with nobody else.
    fn as_parsed_here(&mut self, name: &[u8], id: StatementId) -> StatementId {
        if self
            .held
            .as_ref()
            .is_none_or(|held| held.server.prepared.has(id))
        {
            return id;
        }
        let meaning = self.session.meaning();
        let mut catalog = self.hub.catalog.borrow_mut();
        let Some(found) = catalog.content(id).cloned() else {
            return id;
        };
        if meaning.is_some() && found.under.known() == meaning.as_deref() {
            return id;
        }
        let again = Content {
            under: catalog.under(meaning),
            ..Content::clone(&found)
        };
        let again = catalog.keep(again);
        drop(catalog);
        self.statements.lead(name, again, &self.hub);
        again
    }

    /// What the server calls a client's statement, which it has after this.
    fn name_at_server(&mut self, name: &[u8]) -> Option<String> {
        if !name.is_empty() {
            return match self.statements.find(name) {
                Some(id) => {
                    let id = self.as_parsed_here(name, id);
                    self.prepare(id, true).map(|(name, _)| name)
                }
                // It has none, and our own names are not for it to guess.
                None => name
                    .starts_with(b"fm_")
                    .then(|| format!("no_{}", String::from_utf8_lossy(name))),
            };
        }
        if self.held.as_ref().is_none_or(|held| held.has_unnamed) {
            return None;
        }
        match self.statements.unnamed().map(<[u8]>::to_vec) {
            Some(parse) => {
                if let Ok(message) = FromClient::read(b'P', &parse[5..]) {
                    self.statements.on_injected(None);
                    self.send_ours(&message);
                }
            }
            // What the server has is another client's.
            None => self.send_ours(&FromClient::Close(Object::Statement(b""))),
        }
        if let Some(held) = &mut self.held {
            held.has_unnamed = true;
        }
        None
    }
}
