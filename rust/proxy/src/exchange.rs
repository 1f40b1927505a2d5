//! What a client says, and what its server answers: one message at a time.

mod opening;
mod prepared;

use std::rc::Rc;

use bytes::{Buf, BytesMut};
use flightmode_pooler::flow::{Failed, Reply, Sent, Step, Whose};
use flightmode_pooler::pool::ServerId;
use flightmode_pooler::prepared::StatementId;
use flightmode_pooler::session::Deallocated;
use flightmode_wire::client::{FromClient, Object};
use flightmode_wire::frame::{Frame, Rules, Stage, Talker, HEADER};
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};

use crate::buffers::{lend, release};
use crate::config::PoolMode;
use crate::relay::{Relay, Unconfirmed};
use crate::source::{needs_server, Next};
use opening::{opens, Opening};

/// A longer row of a server goes on in parts.
const WHOLE: usize = 64 << 10;
/// As many servers may have a stale plan of one statement before its client hears of it.
const MOST_STALE_PLANS: u32 = 20;

impl Relay {
    // ------------------------------------------------------------------ the client

    /// As much as can be done with what the client has sent.
    pub fn take_from_client(&mut self) {
        let limit = self.limit();
        // The message at hand.
        let mut raw = BytesMut::new();
        while !self.ending && !self.settling && self.has_room(limit) {
            if self.source.is_inside() {
                if !self.take_part() {
                    break;
                }
                continue;
            }
            match self.source.next() {
                Ok(None) => break,
                Ok(Some(next)) => {
                    if !self.take_next(&next, &mut raw) {
                        break;
                    }
                }
                Err(wrong) => {
                    self.end_with("08P01", &wrong.to_string());
                    break;
                }
            }
        }
        if !raw.is_empty() {
            raw.clear();
            release(&mut raw);
        }
    }

    /// What we answer ourselves counts as well: no server slows a client down that only says Sync.
    fn has_room(&self, limit: usize) -> bool {
        self.to_client.len() < limit
            && self
                .held
                .as_ref()
                .is_none_or(|held| held.server.unsent.len() < limit)
    }

    /// Whether it was taken; if not, it waits for a server.
    fn take_next(&mut self, next: &Next, raw: &mut BytesMut) -> bool {
        let &Next::Whole {
            tag,
            body_first,
            length,
        } = next
        else {
            return self.take_long();
        };
        if self.skipping || self.session.is_in_aftermath() {
            self.take(length, raw);
            self.take_without_server(raw);
            return true;
        }
        let is_dropped = self.session.flow().is_skipping();
        if self.held.is_none() && !is_dropped && needs_server(tag, body_first) {
            self.get_server();
            return self.waiting.is_none();
        }
        // A clock costs more than to ask whether it is needed.
        if self.held.is_some() && !self.at.pace.is_under_way() {
            self.at.pace.on_sent(self.hub.now_s());
        }
        self.take(length, raw);
        self.on_message(raw);
        true
    }

    fn take(&mut self, length: usize, into: &mut BytesMut) {
        lend(into);
        self.source.take(length, into);
    }

    fn take_long(&mut self) -> bool {
        let wanted = self.held.is_some() && !self.skipping && !self.session.is_in_aftermath();
        let bytes = self.source.take_long(wanted);
        if let (true, Some(held)) = (wanted, &mut self.held) {
            let mut ledger = self.hub.ledger.borrow_mut();
            let row = FromClient::CopyData(&[]);
            self.session
                .on_message(&row, &[], Whose::Clients, &mut ledger);
            held.server.unsent.extend_from_slice(&bytes);
        }
        true
    }

    /// More of a long row; whether there was any.
    fn take_part(&mut self) -> bool {
        let Some((bytes, wanted)) = self.source.take_part() else {
            return false;
        };
        if let (true, Some(held)) = (wanted, &mut self.held) {
            held.server.unsent.extend_from_slice(&bytes);
        }
        !bytes.is_empty()
    }

    fn take_without_server(&mut self, raw: &[u8]) {
        let Ok(message) = FromClient::read(raw[0], &raw[5..]) else {
            return self.end_with("08P01", "malformed message");
        };
        let mut bytes = Vec::new();
        if message == FromClient::Terminate {
            self.on_terminate();
        } else if !self.skipping {
            if self.session.on_aftermath(&message, &mut bytes) {
                self.on_prepared_without_server(&message, raw);
            }
        } else if message == FromClient::Sync {
            self.skipping = false;
            self.tell_session(&message, raw, Whose::Local);
            FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
        }
        self.to_client.extend_from_slice(&bytes);
    }

    fn on_message(&mut self, raw: &[u8]) {
        let message = match FromClient::read(raw[0], &raw[5..]) {
            Ok(message) => message,
            Err(wrong) => return self.end_with("08P01", &wrong.to_string()),
        };
        if self.pool.mode.get() == PoolMode::Statement && self.refuse_block(&message) {
            return;
        }
        match message {
            FromClient::Terminate => self.on_terminate(),
            FromClient::Parse(parse) if !parse.name.is_empty() => self.on_parse(&parse, raw),
            FromClient::Parse(parse) => self.on_unnamed_parse(&parse, raw),
            FromClient::Bind(bind) => self.on_bind(&bind, raw),
            FromClient::Describe(Object::Statement(name)) => self.on_describe(name, &message, raw),
            FromClient::Close(object) => self.on_close(object, &message, raw),
            FromClient::Sync if self.held.is_none() => {
                self.send_local(&message, raw);
            }
            FromClient::Flush => self.forward(raw),
            _ => {
                if let FromClient::Query(sql) = message {
                    self.statements.set_unnamed(None);
                    if let Some(id) = self.deallocated_by(sql) {
                        return self.on_deallocate(id, &message, raw);
                    }
                }
                if self.tell_session(&message, raw, Whose::Clients) == Sent::Forward {
                    self.forward_text(&message, raw);
                }
            }
        }
    }

    fn tell_session(&mut self, message: &FromClient, raw: &[u8], whose: Whose) -> Sent {
        let mut ledger = self.hub.ledger.borrow_mut();
        let sent = self.session.on_message(message, raw, whose, &mut ledger);
        drop(ledger);
        if self.session.listening().is_some() {
            self.look_for_listen(message);
        }
        sent
    }

    fn forward(&mut self, bytes: &[u8]) {
        if let Some(held) = &mut self.held {
            let unsent = &mut held.server.unsent;
            if unsent.is_empty() {
                // Room for the whole group, so that it does not grow with each message.
                unsent.reserve(bytes.len() + self.source.unread.len().min(WHOLE));
            }
            unsent.extend_from_slice(bytes);
        }
    }

    /// A query, or anything else; but no text that makes the server keep its warnings.
    fn forward_text(&mut self, message: &FromClient, raw: &[u8]) {
        let louder = match message {
            FromClient::Query(sql) => self.session.with_warnings(sql),
            _ => None,
        };
        let Some(sql) = louder else {
            return self.forward(raw);
        };
        let mut bytes = Vec::new();
        FromClient::Query(&sql).write(&mut bytes);
        self.forward(&bytes);
    }

    /// Something that the proxy asks of the server for its client.
    pub fn send_ours(&mut self, message: &FromClient) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        if self.tell_session(message, &[], Whose::Ours) == Sent::Forward {
            self.forward(&bytes);
        }
    }

    /// Something that the server need not hear of.
    fn send_local(&mut self, message: &FromClient, raw: &[u8]) {
        if self.tell_session(message, raw, Whose::Local) != Sent::Answer {
            return;
        }
        let mut bytes = Vec::new();
        match message {
            FromClient::Parse(_) => FromServer::ParseComplete.write(&mut bytes),
            FromClient::Close(_) => FromServer::CloseComplete.write(&mut bytes),
            _ => FromServer::ReadyForQuery(self.session.flow().status()).write(&mut bytes),
        }
        if matches!(message, FromClient::Parse(_) | FromClient::Close(_)) {
            self.session.on_named();
            self.statements.on_named(&self.hub);
        }
        self.to_client.extend_from_slice(&bytes);
    }

    // ------------------------------------------------------------------ the server

    /// As much as can be done with what the server has sent.
    pub fn take_from_server(&mut self) {
        let Some(held) = &mut self.held else { return };
        let id = held.id;
        // The messages are read where they are.
        let mut unread = std::mem::take(&mut held.server.unread);
        lend(&mut self.to_client);
        self.to_client.reserve(unread.len());
        let taken = self.take_replies(id, &unread);
        if let Some(held) = self.held.as_mut().filter(|held| held.id == id) {
            unread.advance(taken);
            held.server.unread = unread;
        }
    }

    /// How much of it was taken; it is of no use any more when the server is not ours any more.
    fn take_replies(&mut self, id: ServerId, unread: &[u8]) -> usize {
        let rules = Rules::new(Talker::Server, Stage::Session);
        let (mut at, mut cleared) = (0, 0);
        while let Some(held) = self.held.as_mut().filter(|held| held.id == id) {
            let rest = &unread[at..];
            if let Some((left, forward)) = held.passing {
                let length = left.min(rest.len());
                if length == 0 {
                    break;
                }
                if forward {
                    self.to_client.extend_from_slice(&rest[..length]);
                }
                at += length;
                held.passing = (left > length).then_some((left - length, forward));
                continue;
            }
            let frame = match rules.peek(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(wrong) => {
                    self.on_nonsense(&wrong.to_string());
                    break;
                }
            };
            if rest.len() >= frame.len {
                if at >= cleared && opens(frame.tag) {
                    match self.opening(rules, rest, frame) {
                        Opening::GoesOn(length) => cleared = at + length,
                        Opening::Waits => break,
                        Opening::Void => {
                            self.on_server_gone(true);
                            break;
                        }
                    }
                }
                if frame.tag == b'Z' && self.hearing.is_some() && self.withholds(rest) {
                    break;
                }
                let length = match frame.tag {
                    b'D' => rows(rules, rest, frame.len),
                    _ => frame.len,
                };
                at += length;
                match self.session.on_passing(frame.tag) {
                    Some(true) if self.unconfirmed != Unconfirmed::Told => {
                        self.to_client.extend_from_slice(&rest[..length]);
                    }
                    Some(_) => (),
                    None => self.on_reply(&rest[..length], frame),
                }
            } else if let (true, Some(long)) = (frame.len > WHOLE, long(frame.tag)) {
                self.on_long_reply(&long, frame.len);
            } else if frame.len > WHOLE && self.hub.memory.is_over(&self.hub) {
                self.on_nonsense("a message with no room for its rest (memory_mb)");
                break;
            } else {
                break;
            }
        }
        at
    }

    fn on_long_reply(&mut self, message: &FromServer, length: usize) {
        let heard = self
            .session
            .on_reply(message, &mut self.hub.ledger.borrow_mut());
        match (heard, &mut self.held) {
            (Ok(heard), Some(held)) => held.passing = Some((length, heard.reply.forward)),
            _ => self.on_nonsense("an answer that nobody asked for"),
        }
    }

    /// A message, or rows of which the first is `frame`: what is true of one is of all.
    fn on_reply(&mut self, bytes: &[u8], frame: Frame) {
        let message = match FromServer::read(frame.tag, &bytes[HEADER..frame.len]) {
            Ok(message) => message,
            Err(wrong) => return self.on_nonsense(&wrong.to_string()),
        };
        match &message {
            FromServer::Error(report) if report.is_fatal() => {
                return self.on_server_gone(true);
            }
            FromServer::Notice(report) if report.is_unconfirmed_commit() => {
                self.unconfirmed = Unconfirmed::Noted;
            }
            FromServer::Notification { channel, .. } if !self.hears_itself(channel) => return,
            FromServer::ParameterStatus { name, value } => {
                if let Some(held) = &mut self.held {
                    held.server.on_status(name, value);
                    held.server.reported = self.pool.variants.shared(&held.server.reported);
                    if *name == b"in_hot_standby" && *value == b"on" {
                        let (pool, id) = (Rc::clone(&self.pool), held.id);
                        pool.on_found_in_recovery(&self.hub, id);
                    }
                }
            }
            _ => (),
        }
        if let FromServer::Error(report) = &message {
            if self.is_refused_by_standby(report) {
                return self.on_write_refused();
            }
            if is_stale_plan(report) && self.on_stale_plan() {
                return;
            }
        }
        let heard = self
            .session
            .on_reply(&message, &mut self.hub.ledger.borrow_mut());
        let Ok(heard) = heard else {
            return self.on_nonsense("an answer that nobody asked for");
        };
        if let (FromServer::Error(report), false, true) =
            (&message, heard.reply.forward, self.settling)
        {
            // Its settings can't be given to this server: no statement of its may run here.
            return self.on_settings_refused(report);
        }
        if heard.reply.forward && !self.is_unwanted(&message) {
            if self.hearing.is_some() && message == FromServer::ReadyForQuery(TxStatus::Idle) {
                self.deliver();
            }
            self.pass_on(&message, bytes);
            if let FromServer::ReadyForQuery(status) = message {
                self.on_client_ready(status);
            }
        }
        self.on_steps(&heard.reply);
        let is_answered = matches!(heard.reply.done, Some(Step::Query | Step::Sync));
        if self.settling && is_answered && self.session.flow().ready_owed() == 0 {
            self.on_settled();
        }
        match heard.deallocated {
            Some(Deallocated::One(name)) => self.statements.close(&name, &self.hub),
            Some(Deallocated::All) => {
                self.statements.close_all(&self.hub);
                if let Some(held) = &mut self.held {
                    held.server.prepared.clear();
                    held.has_unnamed = false;
                }
            }
            None => (),
        }
    }

    /// To the client; but a commit that its standby did not confirm is not called done.
    ///
    /// The server says so before the tag of what commits; but of a group that commits by its Sync
    /// the tags are out by then, and the error comes behind them, as a constraint's would.
    fn pass_on(&mut self, message: &FromServer, bytes: &[u8]) {
        let is_ready = matches!(message, FromServer::ReadyForQuery(_));
        let is_news = matches!(
            message,
            FromServer::Notice(_)
                | FromServer::ParameterStatus { .. }
                | FromServer::Notification { .. }
        );
        if self.unconfirmed == Unconfirmed::Told && !is_ready && !is_news {
            return;
        }
        let is_tag = matches!(message, FromServer::CommandComplete(_));
        if self.unconfirmed == Unconfirmed::Noted && (is_tag || is_ready) {
            self.unconfirmed = Unconfirmed::Told;
            let mut told = Vec::new();
            Report::new(
                "ERROR",
                "08007",
                "it is committed here, and no standby has confirmed it: it may or may not last",
            )
            .with(b'H', "Check whether the change is there before you retry.")
            .write_error(&mut told);
            self.to_client.extend_from_slice(&told);
        } else if !is_ready {
            self.to_client.extend_from_slice(bytes);
        }
        if is_ready {
            self.unconfirmed = Unconfirmed::No;
            self.stale_plans = 0;
            self.reruns = 0;
            self.to_client.extend_from_slice(bytes);
        }
    }

    /// A notice that the client has turned off, and the server was told to send all the same.
    fn is_unwanted(&self, message: &FromServer) -> bool {
        let FromServer::Notice(report) = message else {
            return false;
        };
        // An INFO is what the client has asked for, and can't be turned off.
        report.field(b'V') != Some(b"INFO") && self.session.is_deaf()
    }

    fn on_steps(&mut self, reply: &Reply) {
        match reply.done {
            Some(Step::Parse | Step::Close) if reply.forward => self.statements.on_named(&self.hub),
            Some(Step::Parse) => self.statements.on_injected_done(),
            _ => (),
        }
        if let Some(failed) = &reply.failed {
            self.on_dropped(failed);
        }
        if !reply.then.is_empty() {
            self.answer_in_turn(&reply.then);
        }
        let in_doubt = reply.failed.as_ref().is_some_and(|failed| failed.in_doubt);
        if let (true, Some(held)) = (in_doubt, &self.held) {
            self.pool.machine.borrow_mut().close_after(held.id);
        }
    }

    fn on_dropped(&mut self, failed: &Failed) {
        for step in &failed.dropped {
            if matches!(step, Step::Parse | Step::Close) {
                let failed = self.statements.on_dropped(&self.hub);
                self.forget_at_server(failed);
            }
        }
        let ours = failed.dropped_ours.iter();
        for _ in ours.filter(|step| **step == Step::Parse) {
            let failed = self.statements.on_injected_dropped();
            self.forget_at_server(failed);
        }
    }

    /// What the server need not hear of, after what was owed before it.
    fn answer_in_turn(&mut self, steps: &[Step]) {
        let mut bytes = Vec::new();
        let is_told = self.unconfirmed == Unconfirmed::Told;
        for step in steps {
            match step {
                Step::Parse | Step::Close => {
                    self.statements.on_named(&self.hub);
                    match step {
                        _ if is_told => (),
                        Step::Parse => FromServer::ParseComplete.write(&mut bytes),
                        _ => FromServer::CloseComplete.write(&mut bytes),
                    }
                }
                _ => FromServer::ReadyForQuery(self.session.flow().status()).write(&mut bytes),
            }
        }
        self.to_client.extend_from_slice(&bytes);
    }

    fn forget_at_server(&mut self, failed: Option<StatementId>) {
        if let (Some(id), Some(held)) = (failed, &mut self.held) {
            held.server.prepared.on_failed(id);
        }
    }

    /// The server does not keep to the protocol: as good as lost.
    fn on_nonsense(&mut self, wrong: &str) {
        let node = self
            .held
            .as_ref()
            .and_then(|held| self.pool.node_of(held.id));
        tracing::error!(?node, "a server is given up: {wrong}");
        self.on_server_gone(true);
    }

    /// A table is not what it was when somebody prepared a statement that the client shares.
    /// Whether what it sent goes to another server; else it hears the error.
    fn on_stale_plan(&mut self) -> bool {
        self.pool.forget_prepared();
        let Some(held) = &mut self.held else {
            return false;
        };
        held.server.prepared.clear();
        self.pool.machine.borrow_mut().close_after(held.id);
        if self.stale_plans >= MOST_STALE_PLANS {
            return false;
        }
        let again = self
            .session
            .on_stale_plan(&mut self.hub.ledger.borrow_mut());
        let Some(messages) = again else { return false };
        self.stale_plans += 1;
        self.forget_server(true);
        self.source.again(messages);
        true
    }

    fn on_settings_refused(&mut self, report: &Report) {
        let code = report.sqlstate().unwrap_or("22023").to_owned();
        let words = String::from_utf8_lossy(report.field(b'M').unwrap_or_default()).into_owned();
        let undoes = self.held.as_ref().is_some_and(|held| held.undoes);
        self.on_server_gone(true);
        // Its user wanted the statement stopped, which had not even begun.
        if code == "57014" {
            self.fail(&code, &words);
        } else if undoes {
            // It may be the last client's setting that can't be taken back: that costs the server,
            // and this client asks for one that has no such settings.
            tracing::warn!(
                code,
                "a server is given up, its settings can't be changed: {words}"
            );
        } else {
            self.end_with(&code, &words);
        }
    }
}

/// How long the rows are that begin `bytes`, the whole ones in one stretch; `first`: of the first.
fn rows(rules: Rules, bytes: &[u8], first: usize) -> usize {
    let mut end = first;
    while let Ok(Some(frame)) = rules.peek(&bytes[end..]) {
        if frame.tag != b'D' || bytes.len() - end < frame.len {
            break;
        }
        end += frame.len;
    }
    end
}

/// What goes on in parts if it is long: nothing has to be read in it, and no step ends with it.
fn long(tag: u8) -> Option<FromServer<'static>> {
    Some(match tag {
        b'D' => FromServer::DataRow(&[]),
        b'd' => FromServer::CopyData(&[]),
        b'V' => FromServer::FunctionCallResponse(&[]),
        b'N' => FromServer::Notice(Report::new("NOTICE", "00000", "")),
        _ => return None,
    })
}

/// "cached plan must not change result type", in whatever language.
fn is_stale_plan(report: &Report) -> bool {
    report.sqlstate() == Some("0A000") && report.field(b'R') == Some(b"RevalidateCachedQuery")
}
