//! What a server says before it has answered anything, kept until something comes behind it.
//!
//! Intuition: a server describes the rows of a statement before it makes the first of them, and
//! keeps that in its buffer.  One that is stopped sends it out with its farewell.  A client that
//! had seen it could not be given the same read from another server; so it sees it together with
//! what comes next, and not at all if that is the end of the server.
//!
//! Rule: only what is behind a message that ends its group or is a query is kept.  Who has asked
//! by a Flush waits for just this.  Nor is much kept: a server could go on opening for ever.

use flightmode_wire::frame::{Frame, Rules, HEADER};
use flightmode_wire::server::FromServer;

use crate::exchange::WHOLE;
use crate::relay::Relay;

/// What becomes of the opening of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is followed by something, so many bytes after its beginning.
    GoesOn(usize),
    /// Nothing that tells has come behind it.
    Waits,
    /// The server says farewell behind it.
    Void,
}

/// `ParseComplete`, `BindComplete`, `ParameterDescription`, `RowDescription` and `NoData`.
pub(super) fn opens(tag: u8) -> bool {
    matches!(tag, b'1' | b'2' | b't' | b'T' | b'n')
}

impl Relay {
    /// What becomes of the opening that begins `bytes`.
    pub(super) fn opening(&self, rules: Rules, bytes: &[u8], first: Frame) -> Opening {
        let found = opening(rules, bytes, first);
        if matches!(found, Opening::GoesOn(_)) || self.session.flow().ready_owed() > 0 {
            found
        } else {
            Opening::GoesOn(first.len)
        }
    }
}

/// `bytes` begin with `first`, which opens an answer and is here as a whole.
pub(super) fn opening(rules: Rules, bytes: &[u8], first: Frame) -> Opening {
    let mut at = first.len;
    if bytes.len() > WHOLE {
        return Opening::GoesOn(at);
    }
    loop {
        let rest = &bytes[at..];
        match rest.first() {
            None => return Opening::Waits,
            Some(b'E' | b'N') => return at_report(rules, rest, at),
            Some(tag) if !opens(*tag) => return Opening::GoesOn(at),
            Some(_) => (),
        }
        match rules.peek(rest) {
            Ok(Some(frame)) if frame.len <= rest.len() => at += frame.len,
            Ok(_) => return Opening::Waits,
            // Whoever reads it will say what is wrong with it.
            Err(_) => return Opening::GoesOn(at),
        }
    }
}

fn at_report(rules: Rules, rest: &[u8], at: usize) -> Opening {
    let frame = match rules.peek(rest) {
        Ok(Some(frame)) if frame.len <= rest.len() => frame,
        Ok(_) => return Opening::Waits,
        Err(_) => return Opening::GoesOn(at),
    };
    match FromServer::read(frame.tag, &rest[HEADER..frame.len]) {
        Ok(FromServer::Error(report)) if report.is_fatal() => Opening::Void,
        // A server that is stopped at once says so by a warning, and ends.
        Ok(FromServer::Notice(report))
            if matches!(report.sqlstate(), Some("57P01" | "57P02")) && rest.len() == frame.len =>
        {
            Opening::Waits
        }
        _ => Opening::GoesOn(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flightmode_wire::frame::{Stage, Talker};
    use flightmode_wire::report::Report;

    fn after(messages: &[FromServer], cut: usize) -> Opening {
        let mut bytes = Vec::new();
        for message in messages {
            message.write(&mut bytes);
        }
        bytes.truncate(bytes.len() - cut);
        let rules = Rules::new(Talker::Server, Stage::Session);
        let first = rules.peek(&bytes).unwrap().unwrap();
        assert!(opens(first.tag));
        opening(rules, &bytes, first)
    }

    const ROWS: FromServer = FromServer::RowDescription(&[0, 0]);

    fn error(severity: &'static str, code: &'static str) -> FromServer<'static> {
        FromServer::Error(Report::new(severity, code, "words"))
    }

    fn notice(code: &'static str) -> FromServer<'static> {
        FromServer::Notice(Report::new("WARNING", code, "words"))
    }

    #[test]
    fn an_opening_waits_for_what_comes_behind_it_and_goes_with_that() {
        assert_eq!(after(&[ROWS], 0), Opening::Waits);
        let row = FromServer::DataRow(&[0, 0]);
        assert_eq!(after(&[ROWS, row], 0), Opening::GoesOn(7));
        let row = FromServer::DataRow(&[0, 0]);
        assert_eq!(after(&[ROWS, row], 5), Opening::GoesOn(7), "a part of it");
        let both = [FromServer::ParseComplete, FromServer::BindComplete, ROWS];
        assert_eq!(after(&both, 0), Opening::Waits);
        assert_eq!(after(&both, 3), Opening::Waits);
    }

    #[test]
    fn an_opening_without_an_end_is_not_waited_for() {
        let some = vec![FromServer::ParseComplete; WHOLE / 5];
        assert_eq!(after(&some, 0), Opening::Waits);
        let more = vec![FromServer::ParseComplete; WHOLE / 5 + 1];
        assert_eq!(after(&more, 0), Opening::GoesOn(5));
    }

    #[test]
    fn an_opening_is_void_when_the_server_ends_and_not_when_a_statement_fails() {
        for code in ["57P01", "57P02", "XX000"] {
            let ends = [FromServer::BindComplete, ROWS, error("FATAL", code)];
            assert_eq!(after(&ends, 0), Opening::Void);
            let ends = [FromServer::BindComplete, ROWS, error("FATAL", code)];
            assert_eq!(after(&ends, 1), Opening::Waits, "nobody knows yet");
        }
        assert_eq!(
            after(&[ROWS, error("ERROR", "22012")], 0),
            Opening::GoesOn(7)
        );
    }

    #[test]
    fn a_warning_that_the_server_stops_waits_for_its_end_and_no_other_notice_does() {
        assert_eq!(after(&[ROWS, notice("57P01")], 0), Opening::Waits);
        assert_eq!(after(&[ROWS, notice("57P02")], 0), Opening::Waits);
        assert_eq!(after(&[ROWS, notice("01000")], 0), Opening::GoesOn(7));
        // Somebody else's words, then: the server goes on.
        let row = FromServer::DataRow(&[0, 0]);
        let raised = [ROWS, notice("57P01"), row];
        assert_eq!(after(&raised, 0), Opening::GoesOn(7));
    }
}
