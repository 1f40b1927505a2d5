//! A client for tests: it speaks, hears, and loses its server.

use flightmode_pooler::flow::{Sent, Whose};
use flightmode_pooler::guc::Values;
use flightmode_pooler::session::{Heard, Lost, Mode, Session};
use flightmode_pooler::unit::Ledger;
use flightmode_wire::client::{Bind, FromClient, Parse};
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};
use flightmode_wire::{Rules, Stage, Talker};

/// A session, and what was kept for it.
pub struct Client {
    pub session: Session,
    pub ledger: Ledger,
}

impl Client {
    pub fn new() -> Self {
        let session = Session::new(Mode::Transaction, Values::new());
        Self {
            session,
            ledger: Ledger::new(10_000, 10_000),
        }
    }

    pub fn says(&mut self, message: &FromClient) -> Sent {
        let mut raw = Vec::new();
        message.write(&mut raw);
        self.session
            .on_message(message, &raw, Whose::Clients, &mut self.ledger)
    }

    pub fn asks(&mut self, sql: &str) {
        assert_eq!(self.says(&FromClient::Query(sql.as_bytes())), Sent::Forward);
    }

    /// Parse, Bind and Execute by the unnamed statement, without a Sync.
    pub fn runs(&mut self, sql: &str) {
        let parse = Parse {
            name: b"",
            sql: sql.as_bytes(),
            types: b"",
        };
        let bind = Bind {
            portal: b"",
            statement: b"",
            values: &[0; 6],
        };
        self.says(&FromClient::Parse(parse));
        self.says(&FromClient::Bind(bind));
        self.says(&FromClient::Execute {
            portal: b"",
            max_rows: 0,
        });
    }

    pub fn hears(&mut self, message: &FromServer) -> Heard {
        self.session.on_reply(message, &mut self.ledger).unwrap()
    }

    pub fn done(&mut self, tag: &str) -> Heard {
        self.hears(&FromServer::CommandComplete(tag.as_bytes()))
    }

    pub fn ready(&mut self, status: TxStatus) {
        self.hears(&FromServer::ReadyForQuery(status));
    }

    /// A query, its tag and the state after it.
    pub fn query(&mut self, sql: &str, tag: &str, status: TxStatus) {
        self.asks(sql);
        self.done(tag);
        self.ready(status);
    }

    /// A LISTEN that no shared listener could take.
    pub fn listens_itself(&mut self, sql: &str) {
        self.asks(sql);
        self.session.listens_itself();
        self.done("LISTEN");
        self.ready(TxStatus::Idle);
    }

    pub fn fails(&mut self) {
        self.hears(&FromServer::Error(Report::new(
            "ERROR",
            "23505",
            "duplicate",
        )));
    }

    pub fn setting(&self, name: &str) -> Option<&[u8]> {
        self.session.settings().get(name.as_bytes())
    }

    pub fn loses(&mut self) -> Lost {
        let lost = self.session.on_server_lost(&mut self.ledger);
        assert_eq!(self.ledger.used(), 0, "what was kept is given back");
        lost
    }

    /// The codes and states that a client is told at the loss of its server.
    pub fn is_told(&mut self) -> Vec<String> {
        match self.loses() {
            Lost::Tell(bytes) => words(&bytes),
            other => panic!("{other:?}"),
        }
    }
}

/// Codes, states and tags, in their order.
pub fn words(mut rest: &[u8]) -> Vec<String> {
    let rules = Rules::new(Talker::Server, Stage::Session);
    let mut words = Vec::new();
    while let Some(frame) = rules.peek(rest).unwrap() {
        words.push(
            match FromServer::read(frame.tag, frame.body(rest).unwrap()).unwrap() {
                FromServer::Error(report) => report.sqlstate().unwrap().to_owned(),
                FromServer::ReadyForQuery(status) => format!("{status:?}"),
                FromServer::CommandComplete(tag) => String::from_utf8(tag.to_vec()).unwrap(),
                other => format!("{other:?}"),
            },
        );
        rest = &rest[frame.len..];
    }
    words
}
