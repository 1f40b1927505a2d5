//! What the client says, read: which statements are under way, and what they can do.

use super::{
    commits, prepared, queried, Effect, FromClient, Listening, Naming, Object, Pin, Rc, Running,
    Said, Session, Statement, Text, Values,
};

/// How a client's texts are to be read, as its server says.  Asked for each text, so it is looked
/// up when the server says something and not then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub standard_strings: bool,
    /// A text in an encoding whose second bytes may look like a quote or backslash is not read.
    pub is_possible: bool,
}

impl Reading {
    pub fn of(reported: &Values) -> Self {
        const AMBIGUOUS: [&[u8]; 7] = [
            b"SJIS",
            b"SHIFT_JIS_2004",
            b"BIG5",
            b"GBK",
            b"UHC",
            b"GB18030",
            b"JOHAB",
        ];
        let reported = |name: &[u8]| reported.get(name).map(Vec::as_slice);
        let encoding = reported(b"client_encoding");
        Self {
            standard_strings: reported(b"standard_conforming_strings") != Some(b"off"),
            // Not even a standby makes a statement harmless: it may be promoted before it reads it.
            is_possible: !encoding.is_some_and(|found| AMBIGUOUS.contains(&found)),
        }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self::of(&Values::new())
    }
}

impl Session {
    /// What the message will do, and that it is under way.
    pub(super) fn note(&mut self, message: &FromClient) -> Effect {
        match *message {
            FromClient::Query(sql) => {
                let text = self.read(sql);
                if opens_first(&text.statements) {
                    self.unit.on_begin_sent();
                }
                self.on_running(text)
            }
            FromClient::Parse(parse) => {
                let text = self.read_prepared(parse.sql);
                self.naming
                    .push_back(Naming::Parse(parse.name.into(), text));
                Effect::ReadOnly
            }
            FromClient::Bind(bind) => {
                let text = self.statement(bind.statement);
                self.portals.insert(bind.portal, text);
                Effect::ReadOnly
            }
            FromClient::Execute { portal, .. } => {
                let text = self.portals.get(portal).map(Rc::clone);
                self.on_running(text.unwrap_or_else(|| alone(Said::Other)))
            }
            FromClient::Close(object) => {
                self.naming.push_back(match object {
                    Object::Statement(name) => Naming::Close(name.into()),
                    Object::Portal(name) => {
                        self.portals.remove(name);
                        Naming::OfPortal
                    }
                });
                Effect::ReadOnly
            }
            FromClient::FunctionCall(_) => self.on_running(alone(Said::Other)),
            _ => Effect::ReadOnly,
        }
    }

    pub(super) fn statement(&self, name: &[u8]) -> Rc<Text> {
        let mut before = self.naming.iter().rev();
        let last = before.find_map(|naming| match naming {
            Naming::Parse(found, text) if **found == *name => Some(Some(text)),
            Naming::Close(found) if **found == *name => Some(None),
            _ => None,
        });
        match last.unwrap_or_else(|| self.statements.get(name)) {
            Some(text) => Rc::clone(text),
            // The server knows it if an error drops what closes it, and it may be a SET.
            None => alone(Said::Pins(Pin::Unreadable)),
        }
    }

    pub(super) fn read(&self, sql: &[u8]) -> Rc<Text> {
        match queried(sql, self.reading.standard_strings) {
            Ok(text) if self.reading.is_possible => text,
            _ => Rc::new(unreadable()),
        }
    }

    pub(super) fn read_prepared(&self, sql: &[u8]) -> Rc<Text> {
        match prepared(sql, self.reading.standard_strings) {
            Ok(text) if self.reading.is_possible => text,
            _ => Rc::new(unreadable()),
        }
    }

    pub(super) fn on_running(&mut self, text: Rc<Text>) -> Effect {
        let mut effect = Effect::ReadOnly;
        for statement in &text.statements {
            match &statement.said {
                Said::Pins(pin) => self.pins.insert(*pin),
                // Who has listened at its server has it all there.
                Said::Listen(_) if self.may_listen_itself() => self.listens_itself(),
                Said::Listen(channel) => {
                    let listening = self.listening.get_or_insert_default();
                    listening.on_sent(channel.clone());
                }
                Said::Notify => self.on_listening(Listening::on_notify_sent),
                Said::Rollback => self.unit.on_rollback_sent(),
                said if commits(said) => {
                    self.unit.on_commit_sent();
                    self.on_listening(Listening::on_commit_sent);
                }
                _ => (),
            }
            effect = effect.max(statement.effect);
        }
        self.running.push_back(Running { text, done: 0 });
        effect
    }
}

/// Whether a text opens a transaction before anything in it can have an effect.
fn opens_first(all: &[Statement]) -> bool {
    let first = all
        .iter()
        .find(|one| one.said == Said::Begin || one.effect == Effect::MayWrite);
    first.is_some_and(|one| one.said == Said::Begin)
}

/// A text of one statement that may write.
fn alone(said: Said) -> Rc<Text> {
    Rc::new(of_one(said))
}

fn unreadable() -> Text {
    of_one(Said::Pins(Pin::Unreadable))
}

fn of_one(said: Said) -> Text {
    let effect = Effect::MayWrite;
    Text {
        statements: vec![Statement { said, effect }],
        exit: None,
    }
}
