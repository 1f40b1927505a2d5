//! A client in a transaction that a failover has ended.
//!
//! Intuition: its server is gone and so is its transaction, but the client has not heard of it or
//! has not ended it yet.  Postgres has a state for that, the failed transaction, and every driver
//! knows how to leave it; so we play it, without any server.
//!
//! Rules
//! - the first statement is answered by the error of the table in `hold`, the others by 25P02;
//! - ROLLBACK ends it, and so does COMMIT: with the tag `ROLLBACK` if the error was told before,
//!   with the error itself if not.  A driver that looks at no tag would take it for success;
//! - nothing else ends it, and nothing is ever sent to a server;
//! - a group outside of a transaction whose answers were all heard (by a Flush) when its server was
//!   lost is such a state too: the next message of it hears of it, and its end ends it.
//!
//! Source: `postgres.c`, `exec_simple_query`, `IsTransactionExitStmt`.

use std::collections::HashMap;

use flightmode_wire::client::{FromClient, Object};
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};

use crate::hold::Failure;
use crate::lexer::tokens;
use crate::statement::{read, Said};

/// How a statement leaves a failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Commit,
    Rollback,
}

/// See the module.
#[derive(Debug)]
pub struct Aftermath {
    /// The error that the client has not heard yet.
    untold: Option<Failure>,
    /// Statements and portals that end it, by their names.
    statements: HashMap<Vec<u8>, Exit>,
    portals: HashMap<Vec<u8>, Exit>,
    skipping: bool,
    over: bool,
    /// It is the rest of a group outside of a transaction, and over with its first `ReadyForQuery`.
    is_group: bool,
}

impl Aftermath {
    /// `untold`: the error, if nobody was waiting for a reply that it could be told in.
    /// `skipping`: it was told in a group whose Sync has not come (see `flow`).
    /// `status`: what the client's transaction is in now; Idle for a group outside of one.
    pub fn new(untold: Option<Failure>, skipping: bool, status: TxStatus) -> Self {
        Self {
            untold,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping,
            over: false,
            is_group: status == TxStatus::Idle,
        }
    }

    /// A statement that the client had prepared before, and that ends a transaction.
    pub fn knows(&mut self, name: &[u8], exit: Exit) {
        self.statements.insert(name.to_vec(), exit);
    }

    /// Whether the client has left its transaction and heard so.
    pub fn is_over(&self) -> bool {
        self.over && !self.skipping
    }

    /// A message of the client; the answer is appended.  Whether it was a Parse or Close that is
    /// done.
    pub fn on_message(&mut self, message: &FromClient, out: &mut Vec<u8>) -> bool {
        if self.skipping && *message != FromClient::Sync {
            return false;
        }
        if self.is_group {
            self.on_rest_of_group(message, out);
            return false;
        }
        self.answer(message, out);
        matches!(message, FromClient::Parse(_) | FromClient::Close(_)) && !self.skipping
    }

    fn answer(&mut self, message: &FromClient, out: &mut Vec<u8>) {
        match *message {
            FromClient::Query(sql) => self.on_query(sql, out),
            FromClient::FunctionCall(_) => {
                self.refuse(out);
                self.ready(out);
            }
            FromClient::Parse(parse) => match exit_of(parse.sql) {
                Some(exit) => {
                    self.statements.insert(parse.name.to_vec(), exit);
                    FromServer::ParseComplete.write(out);
                }
                None => self.fail_group(out),
            },
            FromClient::Bind(bind) => match self.statements.get(bind.statement) {
                Some(exit) => {
                    self.portals.insert(bind.portal.to_vec(), *exit);
                    FromServer::BindComplete.write(out);
                }
                None => self.fail_group(out),
            },
            FromClient::Describe(object) => self.on_describe(object, out),
            FromClient::Execute { portal, .. } => match self.portals.get(portal).copied() {
                Some(exit) if !self.over => self.leave(exit, out),
                _ => self.fail_group(out),
            },
            FromClient::Close(object) => {
                match object {
                    Object::Statement(name) => self.statements.remove(name),
                    Object::Portal(name) => self.portals.remove(name),
                };
                FromServer::CloseComplete.write(out);
            }
            FromClient::Sync => {
                self.skipping = false;
                self.ready(out);
            }
            FromClient::Flush
            | FromClient::CopyData(_)
            | FromClient::CopyDone
            | FromClient::CopyFail(_)
            | FromClient::Terminate => (),
        }
    }

    fn on_rest_of_group(&mut self, message: &FromClient, out: &mut Vec<u8>) {
        match message {
            FromClient::Sync | FromClient::Query(_) | FromClient::FunctionCall(_) => {
                // The group has not committed: its Sync is not answered as if it had.
                if !self.skipping {
                    self.refuse(out);
                }
                self.skipping = false;
                self.over = true;
                self.ready(out);
            }
            FromClient::Flush
            | FromClient::CopyData(_)
            | FromClient::CopyDone
            | FromClient::CopyFail(_)
            | FromClient::Terminate => (),
            FromClient::Parse(_)
            | FromClient::Bind(_)
            | FromClient::Describe(_)
            | FromClient::Execute { .. }
            | FromClient::Close(_) => self.fail_group(out),
        }
    }

    fn on_query(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        if matches!(read(sql, true).as_deref(), Ok([])) {
            FromServer::EmptyQueryResponse.write(out);
        } else if let Some(exit) = exit_of(sql) {
            self.leave(exit, out);
            // An error inside a simple query drops nothing that comes after it.
            self.skipping = false;
        } else {
            self.refuse(out);
        }
        self.ready(out);
    }

    fn on_describe(&mut self, object: Object, out: &mut Vec<u8>) {
        let is_known = match object {
            Object::Statement(name) => self.statements.contains_key(name),
            Object::Portal(name) => self.portals.contains_key(name),
        };
        match (is_known, object) {
            (false, _) => return self.fail_group(out),
            (true, Object::Statement(_)) => FromServer::ParameterDescription(&[0, 0]).write(out),
            (true, Object::Portal(_)) => (),
        }
        FromServer::NoData.write(out);
    }

    fn leave(&mut self, exit: Exit, out: &mut Vec<u8>) {
        self.over = true;
        if exit == Exit::Commit && self.untold.is_some() {
            self.fail_group(out);
        } else {
            FromServer::CommandComplete(b"ROLLBACK").write(out);
        }
    }

    fn fail_group(&mut self, out: &mut Vec<u8>) {
        self.skipping = true;
        self.refuse(out);
    }

    fn refuse(&mut self, out: &mut Vec<u8>) {
        match self.untold.take() {
            Some(failure) => failure.report().write_error(out),
            None => Report::new(
                "ERROR",
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .write_error(out),
        }
    }

    fn ready(&self, out: &mut Vec<u8>) {
        let status = if self.over {
            TxStatus::Idle
        } else {
            TxStatus::Failed
        };
        FromServer::ReadyForQuery(status).write(out);
    }
}

/// How a text leaves a failed transaction, if it is that one statement.
pub fn exit_of(sql: &[u8]) -> Option<Exit> {
    // Its end is the beginning of another transaction, which only a server has.
    let all = tokens(sql, true).ok()?;
    let chain = all.iter().position(|token| token.is("chain"));
    if chain.is_some_and(|at| at == 0 || !all[at - 1].is("no")) {
        return None;
    }
    match read(sql, true).ok()?.as_slice() {
        [only] if only.said == Said::Commit => Some(Exit::Commit),
        [only] if only.said == Said::Rollback => Some(Exit::Rollback),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::{on_server_lost, Moment, Verdict};
    use flightmode_wire::client::{Bind, Parse};
    use flightmode_wire::{Rules, Stage, Talker};

    fn failure() -> Failure {
        match on_server_lost(Moment::Transaction) {
            Verdict::Tell(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// The answers to some messages, as words.
    fn answers(aftermath: &mut Aftermath, messages: &[FromClient]) -> Vec<String> {
        let mut out = Vec::new();
        for message in messages {
            aftermath.on_message(message, &mut out);
        }
        let rules = Rules::new(Talker::Server, Stage::Session);
        let (mut rest, mut words) = (&out[..], Vec::new());
        while let Some(frame) = rules.peek(rest).unwrap() {
            let body = frame.body(rest).unwrap();
            words.push(match FromServer::read(frame.tag, body).unwrap() {
                FromServer::Error(report) => report.sqlstate().unwrap().to_owned(),
                FromServer::ReadyForQuery(status) => format!("{status:?}"),
                FromServer::CommandComplete(tag) => String::from_utf8(tag.to_vec()).unwrap(),
                other => format!("{other:?}"),
            });
            rest = &rest[frame.len..];
        }
        words
    }

    fn query(sql: &str) -> FromClient<'_> {
        FromClient::Query(sql.as_bytes())
    }

    fn extended(sql: &str) -> [FromClient<'_>; 5] {
        [
            FromClient::Parse(Parse {
                name: b"",
                sql: sql.as_bytes(),
                types: b"",
            }),
            FromClient::Bind(Bind {
                portal: b"",
                statement: b"",
                values: &[0; 6],
            }),
            FromClient::Describe(Object::Portal(b"")),
            FromClient::Execute {
                portal: b"",
                max_rows: 0,
            },
            FromClient::Sync,
        ]
    }

    #[test]
    fn the_first_statement_hears_of_the_failover_and_the_others_wait_for_the_end() {
        let mut aftermath = Aftermath::new(Some(failure()), false, TxStatus::Failed);
        let seen = answers(&mut aftermath, &[query("select 1"), query("select 2")]);
        assert_eq!(seen, ["40001", "Failed", "25P02", "Failed"]);
        assert!(!aftermath.is_over());
        assert_eq!(
            answers(&mut aftermath, &[query("ROLLBACK")]),
            ["ROLLBACK", "Idle"]
        );
        assert!(aftermath.is_over());
    }

    #[test]
    fn a_commit_is_never_taken_for_success() {
        let mut untold = Aftermath::new(Some(failure()), false, TxStatus::Failed);
        assert_eq!(answers(&mut untold, &[query("commit")]), ["40001", "Idle"]);
        assert!(untold.is_over());
        let mut told = Aftermath::new(None, false, TxStatus::Failed);
        assert_eq!(answers(&mut told, &[query("end")]), ["ROLLBACK", "Idle"]);
        let mut untold = Aftermath::new(Some(failure()), false, TxStatus::Failed);
        let seen = answers(&mut untold, &extended("commit"));
        let spoken: Vec<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(
            spoken,
            ["ParseComplete", "BindComplete", "NoData", "40001", "Idle"]
        );
        assert!(untold.is_over());
    }

    #[test]
    fn a_rollback_by_the_extended_protocol_ends_it_too() {
        let mut aftermath = Aftermath::new(Some(failure()), false, TxStatus::Failed);
        let seen = answers(&mut aftermath, &extended("rollback"));
        let spoken: Vec<_> = seen.iter().map(String::as_str).collect();
        assert_eq!(
            spoken,
            [
                "ParseComplete",
                "BindComplete",
                "NoData",
                "ROLLBACK",
                "Idle"
            ]
        );
        assert!(aftermath.is_over());
    }

    #[test]
    fn pitfall_17_an_error_of_ours_drops_the_rest_of_its_group_and_no_more() {
        let mut aftermath = Aftermath::new(Some(failure()), false, TxStatus::Failed);
        let group = extended("insert into t values (1)");
        assert_eq!(answers(&mut aftermath, &group), ["40001", "Failed"]);
        assert_eq!(answers(&mut aftermath, &group), ["25P02", "Failed"]);
        let mut in_group = Aftermath::new(None, true, TxStatus::Failed);
        let rest = [query("rollback"), FromClient::Sync, query("rollback")];
        assert_eq!(
            answers(&mut in_group, &rest),
            ["Failed", "ROLLBACK", "Idle"]
        );
    }

    #[test]
    fn a_savepoint_cannot_be_gone_back_to_and_a_chain_of_statements_does_not_end_it() {
        let mut aftermath = Aftermath::new(None, false, TxStatus::Failed);
        let tries = [
            query("rollback to s"),
            query("rollback; select 1"),
            query(""),
        ];
        let seen = answers(&mut aftermath, &tries);
        assert_eq!(
            seen,
            [
                "25P02",
                "Failed",
                "25P02",
                "Failed",
                "EmptyQueryResponse",
                "Failed"
            ]
        );
    }

    #[test]
    fn an_end_that_begins_another_transaction_is_refused_for_there_is_no_server_to_begin_it() {
        let mut aftermath = Aftermath::new(None, false, TxStatus::Failed);
        let chained = [query("rollback and chain"), query("commit and chain")];
        let seen = answers(&mut aftermath, &chained);
        assert_eq!(seen, ["25P02", "Failed", "25P02", "Failed"]);
        let plain = [query("rollback and no chain")];
        assert_eq!(answers(&mut aftermath, &plain), ["ROLLBACK", "Idle"]);
    }

    #[test]
    fn the_rest_of_a_group_hears_of_it_once_and_is_over_with_its_sync() {
        let idle = || Aftermath::new(Some(failure()), false, TxStatus::Idle);
        let mut group = idle();
        assert_eq!(answers(&mut group, &[FromClient::Flush]), [""; 0]);
        let seen = answers(&mut group, &extended("commit"));
        assert_eq!(seen, ["40001", "Idle"]);
        assert!(group.is_over());
        let mut synced = idle();
        assert_eq!(answers(&mut synced, &[FromClient::Sync]), ["40001", "Idle"]);
        assert!(synced.is_over());
        let mut asked = idle();
        assert_eq!(answers(&mut asked, &[query("select 1")]), ["40001", "Idle"]);
        assert!(asked.is_over());
    }

    #[test]
    fn a_rollback_that_was_prepared_before_ends_it() {
        let mut aftermath = Aftermath::new(None, false, TxStatus::Failed);
        aftermath.knows(b"r", Exit::Rollback);
        let seen = answers(
            &mut aftermath,
            &[
                FromClient::Bind(Bind {
                    portal: b"",
                    statement: b"r",
                    values: &[0; 6],
                }),
                FromClient::Execute {
                    portal: b"",
                    max_rows: 0,
                },
                FromClient::Sync,
            ],
        );
        assert_eq!(seen, ["BindComplete", "ROLLBACK", "Idle"]);
    }
}
