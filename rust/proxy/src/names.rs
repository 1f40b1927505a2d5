//! A client's prepared statements, on their way to whichever server it has.

use std::collections::VecDeque;

use flightmode_pooler::guc::Change;
use flightmode_pooler::notices::told;
use flightmode_pooler::prepared::{Content, Names, StatementId, Under};
use flightmode_wire::client::Parse;

use crate::hub::Hub;

/// A Parse or Close of the client that is not answered yet.
enum Pending {
    Parse {
        name: Vec<u8>,
        /// None: the unnamed one, or a name that is taken.
        id: Option<StatementId>,
        /// The server was asked; else it has the statement already.
        asked: bool,
    },
    /// Of a statement with a name, or of anything else: that has no name here, and its turn.
    Close(Option<Vec<u8>>),
}

/// See the module.
#[derive(Default)]
pub struct Statements {
    /// Its Parse; empty: there is none.
    unnamed: Vec<u8>,
    /// Only of a client that has prepared anything: most of those that are idle have not.
    known: Option<Box<Known>>,
}

#[derive(Default)]
struct Known {
    names: Names,
    pending: VecDeque<Pending>,
    /// Those that we asked the server to parse, in the client's place.
    injected: VecDeque<Option<StatementId>>,
}

impl Statements {
    fn known(&mut self) -> &mut Known {
        self.known.get_or_insert_with(Box::default)
    }

    /// Where a client's name leads, also before its Parse is answered.
    pub fn find(&self, name: &[u8]) -> Option<StatementId> {
        let known = self.known.as_ref()?;
        let last = known
            .pending
            .iter()
            .rev()
            .find_map(|pending| match pending {
                Pending::Parse {
                    name: found,
                    id: Some(id),
                    ..
                } if found == name => Some(Some(*id)),
                Pending::Close(Some(found)) if found == name => Some(None),
                _ => None,
            });
        last.unwrap_or_else(|| known.names.get(name))
    }

    /// What the client has names for, to be carried to another process.
    pub fn contents(&self, hub: &Hub) -> Vec<(Vec<u8>, Content)> {
        let catalog = hub.catalog.borrow();
        let named = self.known.iter().flat_map(|known| known.names.iter());
        named
            .filter_map(|(name, id)| Some((name.to_vec(), Content::clone(catalog.content(id)?))))
            .collect()
    }

    /// The same, in that process.
    pub fn carried(kept: Vec<(Vec<u8>, Content)>, unnamed: Vec<u8>, hub: &Hub) -> Self {
        let mut statements = Self {
            unnamed,
            known: None,
        };
        for (name, content) in kept {
            let id = hub.catalog.borrow_mut().keep(content);
            statements.lead(&name, id, hub);
        }
        statements
    }

    pub fn unnamed(&self) -> Option<&[u8]> {
        Some(self.unnamed.as_slice()).filter(|parse| !parse.is_empty())
    }

    /// The unnamed statement lives until the next one or the next simple query.
    pub fn set_unnamed(&mut self, parse: Option<&[u8]>) {
        match parse {
            Some(parse) => {
                // Mostly the same again, or one like it; but a long one is not paid for ever.
                let is_much = self.unnamed.capacity() > (4 << 10).max(2 * parse.len());
                if is_much {
                    self.unnamed = Vec::new();
                }
                self.unnamed.clear();
                self.unnamed.extend_from_slice(parse);
            }
            None => self.unnamed = Vec::new(),
        }
    }

    /// A name of the client leads to the same text under other settings.
    pub fn lead(&mut self, name: &[u8], id: StatementId, hub: &Hub) {
        let names = &mut self.known().names;
        names.on_parsed(name, id, &mut hub.catalog.borrow_mut());
    }

    pub fn on_parse_sent(&mut self, name: &[u8], id: Option<StatementId>, asked: bool) {
        let name = name.to_vec();
        let pending = Pending::Parse { name, id, asked };
        self.known().pending.push_back(pending);
    }

    /// `name`: of a statement that has one.
    pub fn on_close_sent(&mut self, name: Option<&[u8]>) {
        let pending = Pending::Close(name.map(<[u8]>::to_vec));
        self.known().pending.push_back(pending);
    }

    pub fn on_injected(&mut self, id: Option<StatementId>) {
        self.known().injected.push_back(id);
    }

    /// The oldest Parse or Close of the client is done.
    pub fn on_named(&mut self, hub: &Hub) {
        match self.known().pending.pop_front() {
            Some(Pending::Parse {
                name, id: Some(id), ..
            }) => self.lead(&name, id, hub),
            Some(Pending::Close(Some(name))) => self.close(&name, hub),
            _ => (),
        }
    }

    /// The oldest Parse of ours is done.
    pub fn on_injected_done(&mut self) {
        self.known().injected.pop_front();
    }

    /// The oldest Parse or Close of the client will never be: a name that was to be closed leads
    /// where it did.  What the server does not have after all.
    pub fn on_dropped(&mut self, hub: &Hub) -> Option<StatementId> {
        let Some(Pending::Parse { name, id, asked }) = self.known().pending.pop_front() else {
            return None;
        };
        if name.is_empty() {
            self.set_unnamed(None);
        }
        let id = id?;
        hub.catalog.borrow_mut().release(id);
        asked.then_some(id)
    }

    pub fn on_injected_dropped(&mut self) -> Option<StatementId> {
        self.known().injected.pop_front().flatten()
    }

    pub fn is_taken(&self, name: &[u8]) -> bool {
        let Some(known) = &self.known else {
            return false;
        };
        let last = known
            .pending
            .iter()
            .rev()
            .find_map(|pending| match pending {
                Pending::Parse { name: found, .. } if found == name => Some(true),
                Pending::Close(Some(found)) if found == name => Some(false),
                _ => None,
            });
        last.unwrap_or_else(|| known.names.is_taken(name))
    }

    pub fn close(&mut self, name: &[u8], hub: &Hub) {
        if let Some(known) = &mut self.known {
            known.names.close(name, &mut hub.catalog.borrow_mut());
        }
    }

    pub fn close_all(&mut self, hub: &Hub) {
        if let Some(known) = &mut self.known {
            known.names.close_all(&mut hub.catalog.borrow_mut());
        }
    }

    /// What was under way is not any more; the names stay.
    pub fn on_server_lost(&mut self, hub: &Hub) {
        let Some(known) = &mut self.known else { return };
        for pending in known.pending.drain(..) {
            if let Pending::Parse { id: Some(id), .. } = pending {
                hub.catalog.borrow_mut().release(id);
            }
        }
        known.injected.clear();
    }

    /// The client has gone.
    pub fn forget(&mut self, hub: &Hub) {
        self.on_server_lost(hub);
        self.close_all(hub);
    }
}

/// What makes a Parse the same as another.
pub fn content(parse: &Parse, under: Under) -> Content {
    Content {
        sql: parse.sql.to_vec(),
        types: parse.types.to_vec(),
        under,
    }
}

/// The statements that bring a server to a client's settings, one text or two: the encoding of a
/// text is that which holds when it comes, so what changes it goes ahead of everything else.
pub fn set_all(changes: &[Change]) -> Vec<Vec<u8>> {
    let (encoding, others): (Vec<_>, Vec<_>) = changes
        .iter()
        .partition(|(name, _)| name == b"client_encoding");
    let texts = [encoding, others].into_iter();
    texts
        .filter(|changes| !changes.is_empty())
        .map(set_in_one)
        .collect()
}

fn set_in_one(changes: Vec<&Change>) -> Vec<u8> {
    let mut sql = Vec::new();
    for (name, value) in changes {
        let Some(value) = value else {
            reset(name, &mut sql);
            continue;
        };
        sql.extend_from_slice(b"SELECT pg_catalog.set_config(");
        literal(name, &mut sql);
        sql.push(b',');
        literal(told(name, value), &mut sql);
        sql.extend_from_slice(b",false);");
    }
    sql
}

fn reset(name: &[u8], sql: &mut Vec<u8>) {
    sql.extend_from_slice(b"RESET ");
    for part in name.split(|byte| *byte == b'.') {
        if sql.last() == Some(&b'"') {
            sql.push(b'.');
        }
        identifier(part, sql);
    }
    sql.push(b';');
}

/// A text that means the same whatever `standard_conforming_strings` says.
fn literal(text: &[u8], sql: &mut Vec<u8>) {
    if text.contains(&b'\\') {
        sql.push(b'E');
    }
    sql.push(b'\'');
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            sql.push(*byte);
        }
        sql.push(*byte);
    }
    sql.push(b'\'');
}

/// In double quotes.
pub fn identifier(name: &[u8], sql: &mut Vec<u8>) {
    sql.push(b'"');
    for byte in name {
        if *byte == b'"' {
            sql.push(b'"');
        }
        sql.push(*byte);
    }
    sql.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_so_that_they_mean_themselves() {
        let changes = [
            (b"app.x".to_vec(), None),
            (b"search_path".to_vec(), Some(b"\"a'b\", c\\d".to_vec())),
        ];
        let expected =
            r#"RESET "app"."x";SELECT pg_catalog.set_config('search_path',E'"a''b", c\\d',false);"#;
        assert_eq!(set_all(&changes), [expected.as_bytes()]);
    }

    #[test]
    fn a_server_is_never_told_to_keep_its_warnings() {
        let changes = [(b"client_min_messages".to_vec(), Some(b"error".to_vec()))];
        let expected = b"SELECT pg_catalog.set_config('client_min_messages','warning',false);";
        assert_eq!(set_all(&changes), [expected]);
    }

    #[test]
    fn an_encoding_holds_before_any_text_in_it_comes() {
        let changes = [
            (b"app.x".to_vec(), Some("José".as_bytes().to_vec())),
            (b"client_encoding".to_vec(), None),
        ];
        let texts = set_all(&changes);
        assert_eq!(texts[0], br#"RESET "client_encoding";"#);
        assert_eq!(texts.len(), 2);
        assert!(!set_all(&changes[..1])[0].starts_with(b"RESET"));
    }
}
