//! What a client hears on the channels that it listens to, by the listener of its pool.
//!
//! Intuition: its LISTEN waits here until the listener has the channel, and then runs at the
//! client's own server like any other statement.  What it hears comes by its mail and is put
//! between two messages of its stream, where Postgres would put it: before the `ReadyForQuery`
//! that ends a transaction, or while it is idle outside of one.
//!
//! Rules
//! - while its LISTEN waits nothing goes to the client's server: what it sends behind it sees the
//!   database no earlier than that;
//! - what comes before the commit of its LISTEN is not for it;
//! - its own server listens too, from the commit on: it is told UNLISTEN before it serves another,
//!   and what it hears meanwhile goes nowhere;
//! - of what it notifies itself it hears before its commit is told, and under the number that it
//!   knows as its own.  That the server's number stood for this client and for no other is known
//!   between two fences: what others had notified there has come before the first, and what this
//!   client has before the second.

use std::collections::BTreeSet;
use std::rc::Rc;

use flightmode_pooler::channels::Has;
use flightmode_pooler::listening::Channel;
use flightmode_wire::client::FromClient;
use flightmode_wire::frame::HEADER;
use flightmode_wire::report::Report;

use super::Relay;
use crate::mail::{Gap, Mail};

const LOST: &str = "the connection that listened for this one was lost, and notifications with it";
const UNREAD: &str = "more notifications than are kept for a client that does not take them";

/// Whether the client's own server listens too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    No,
    /// It is told LISTEN, and must be told UNLISTEN before it serves another client.
    Yes,
    /// It has been told that as well.
    NoMore,
}

/// What a client wants when notifications may have been lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// To be ended, as by a server that is lost: it connects again and looks for itself.
    #[default]
    End,
    /// To be told by a warning.
    Warn,
}

/// Whether what its server notifies of is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Unknown,
    /// What notifies waits for the first fence.
    Before,
    Yes,
    /// A commit waits until so many fences are passed.
    After(u32),
    /// It has waited.
    Passed,
}

/// A client that listens.
pub struct Hearing {
    mail: Rc<Mail>,
    /// What the listener knows that it wants.
    channels: BTreeSet<Channel>,
    /// What its LISTEN waits for.
    awaited: Vec<Channel>,
    /// What goes to its server waits until so many fences are passed.
    cork: Option<u32>,
    /// What has come by then on channels that it does not listen to yet was before its LISTEN.
    drops_early: bool,
    own: Own,
}

impl Hearing {
    /// What is kept for it, in bytes.
    pub fn bytes(&self) -> usize {
        self.mail.bytes()
    }

    /// Nothing goes to its server yet.
    pub fn is_corked(&self) -> bool {
        !self.awaited.is_empty() || self.cork.is_some()
    }

    /// Nothing that comes from its server is taken yet.
    pub fn withholds(&self) -> bool {
        matches!(self.own, Own::After(_))
    }

    /// What was to go there is gone with it.
    pub fn on_server_lost(&mut self) {
        self.awaited.clear();
        self.cork = None;
        self.drops_early = false;
        self.on_own_over();
    }

    fn on_own_over(&mut self) {
        self.own = Own::Unknown;
        self.mail.own.set(None);
    }
}

impl Relay {
    /// A message was taken for the client's server.  If it listens or notifies it waits for the
    /// listener.
    pub(crate) fn look_for_listen(&mut self, message: &FromClient) {
        let asked = self.session.take_asked();
        let listens = !asked.is_empty() || self.session.take_commits();
        let notifies = self.session.take_notifies();
        if !asked.is_empty() {
            self.ask_to_listen(asked);
        }
        let Some(hearing) = self.hearing.as_mut() else {
            return;
        };
        let begins_own = notifies && hearing.own == Own::Unknown;
        // Who has no channel there listens at its own server, and nobody would tell it of a fence.
        if hearing.channels.is_empty() || (!listens && !begins_own) {
            return;
        }
        let Some(fence) = self.pool.fence(self.id, &hearing.mail) else {
            return;
        };
        hearing.cork = Some(fence);
        // If it has sent something ahead, that may be committing.
        let is_query = matches!(message, FromClient::Query(_));
        hearing.drops_early = self.session.flow().ready_owed() == usize::from(is_query);
        if begins_own {
            hearing.own = Own::Before;
        }
    }

    fn ask_to_listen(&mut self, asked: Vec<Channel>) {
        if let Some(held) = &mut self.held {
            held.listens = Listens::Yes;
        }
        let is_known = self.session.encoding() == self.pool.encoding().as_deref();
        let hearing = self.hearing.get_or_insert_with(|| {
            Box::new(Hearing {
                mail: Mail::new(self.events_in.clone()),
                channels: BTreeSet::new(),
                awaited: Vec::new(),
                cork: None,
                drops_early: false,
                own: Own::Unknown,
            })
        });
        for channel in asked {
            // In another encoding its names and payloads would be others.
            let has = if is_known {
                self.pool
                    .listen(&self.hub, self.id, &hearing.mail, &channel)
            } else {
                Has::Never
            };
            match has {
                Has::Never => self.session.listens_itself(),
                Has::NotYet => {
                    hearing.awaited.push(channel.clone());
                    hearing.channels.insert(channel);
                }
                Has::Yes => drop(hearing.channels.insert(channel)),
            }
        }
    }

    /// Whether what its own server has heard on this channel is for the client, and not the
    /// listener's to tell.
    pub(crate) fn hears_itself(&mut self, channel: &[u8]) -> bool {
        let shared = self.hearing.as_ref();
        let is_shared = shared.is_some_and(|hearing| hearing.channels.contains(channel));
        if self.session.may_listen_itself() {
            return !is_shared;
        }
        if let Some(held) = self.held.as_ref() {
            if held.listens == Listens::No {
                // It was told to listen by what nobody could read, maybe for another client.
                self.pool.machine.borrow_mut().close_after(held.id);
            }
        }
        false
    }

    /// Everything that there is to hear, as far as it is time for it.
    pub(super) fn hear(&mut self) {
        self.drop_early();
        let is_between = self.session.flow().is_free()
            && !self.session.is_in_aftermath()
            && !self.skipping
            && self.held.as_ref().is_none_or(|held| held.passing.is_none());
        if is_between && !self.ending {
            self.give_up_channels();
            self.deliver();
            self.look_at_gap();
        }
    }

    /// What it listens to at this moment, to the client.
    pub(crate) fn deliver(&mut self) {
        let (Some(hearing), Some(listening)) = (&self.hearing, self.session.listening()) else {
            return;
        };
        let (limit, own) = (self.limit(), self.id.0 as u32);
        while self.to_client.len() < limit {
            let Some((note, is_own)) = hearing.mail.take() else {
                return;
            };
            if listening.hears(&note.channel) {
                let pid = match note.pid {
                    _ if is_own => own,
                    // It would be taken for the client's own.
                    pid if pid == own => 0,
                    pid => pid,
                };
                note.write(pid, &mut self.to_client);
            }
        }
    }

    /// Whether the end of a transaction, which `ready` begins with, is not told yet: what it has
    /// notified of goes ahead.
    pub(crate) fn withholds(&mut self, ready: &[u8]) -> bool {
        let Some(hearing) = self.hearing.as_mut() else {
            return false;
        };
        if ready.get(HEADER) != Some(&b'I') {
            return false;
        }
        match hearing.own {
            Own::Yes => match self.pool.fence(self.id, &hearing.mail) {
                Some(fence) => {
                    hearing.own = Own::After(fence);
                    true
                }
                None => false,
            },
            Own::After(_) => true,
            Own::Passed => {
                // What it has sent ahead may notify too.
                hearing.own = Own::Yes;
                false
            }
            Own::Unknown | Own::Before => false,
        }
    }

    /// Something has come, or is to be said of that.
    pub(super) fn look_at_mail(&mut self) {
        let Some(hearing) = self.hearing.as_mut() else {
            return;
        };
        hearing.mail.on_looked();
        let passed = hearing.mail.passed.get();
        if matches!(hearing.own, Own::After(fence) if fence <= passed) {
            hearing.own = Own::Passed;
        }
        if hearing.cork.is_some_and(|fence| fence <= passed) {
            hearing.cork = None;
            if std::mem::take(&mut hearing.drops_early) {
                let listening = self.session.listening();
                let hears = |channel: &[u8]| listening.is_some_and(|all| all.hears(channel));
                hearing.mail.keep(|note| hears(&note.channel));
            }
            if hearing.own == Own::Before {
                let key = self.held.as_ref().and_then(|held| held.server.key.as_ref());
                hearing.own = Own::Yes;
                hearing.mail.own.set(key.map(|key| key.pid()));
            }
        }
        self.look_at_awaited();
    }

    /// What its LISTEN waits for, if that has come or never will.
    fn look_at_awaited(&mut self) {
        let Some(hearing) = self.hearing.as_mut() else {
            return;
        };
        let refused = hearing.mail.refused.take();
        let (pool, id) = (&self.pool, self.id);
        let mut listens_itself = false;
        let channels = &mut hearing.channels;
        hearing.awaited.retain(|channel| {
            let has = pool.listener.channels.borrow().has(channel);
            let is_lost = has == Has::Never || (has == Has::NotYet && refused);
            if is_lost {
                pool.unlisten(id, channel);
                channels.remove(channel);
                listens_itself = true;
            }
            has == Has::NotYet && !is_lost
        });
        if listens_itself {
            self.session.listens_itself();
        }
    }

    /// Nothing is under way, so nothing of it is committed yet: what has come on channels that the
    /// client is about to listen to was before that.
    fn drop_early(&self) {
        let is_running = self.session.flow().is_running();
        let listening = self.session.listening().filter(|all| all.is_changing());
        if let (Some(hearing), Some(listening), false) = (&self.hearing, listening, is_running) {
            hearing.mail.keep(|note| listening.hears(&note.channel));
        }
    }

    /// What its transactions have come to.
    fn give_up_channels(&mut self) {
        let Some(hearing) = &mut self.hearing else {
            return;
        };
        hearing.on_own_over();
        let (listening, pool, id) = (self.session.listening(), &self.pool, self.id);
        hearing.channels.retain(|channel| {
            let hears = listening.is_some_and(|all| all.hears(channel));
            if !hears {
                pool.unlisten(id, channel);
            }
            hears
        });
        if hearing.channels.is_empty() {
            self.forget_hearing();
        }
    }

    fn look_at_gap(&mut self) {
        let Some(hearing) = &self.hearing else {
            return;
        };
        let gap = hearing.mail.gap.get();
        let channels = self.pool.listener.channels.borrow();
        let is_refused = |channel: &Channel| channels.has(channel) == Has::Never;
        let is_deaf = gap == Gap::Over && hearing.channels.iter().any(is_refused);
        drop(channels);
        if hearing.mail.is_over() {
            self.end_with("53200", UNREAD);
        } else if gap != Gap::No && (is_deaf || self.on_gap == OnGap::End) {
            self.on_leave("57P01", LOST, false);
        } else if gap == Gap::Over {
            hearing.mail.gap.set(Gap::No);
            let mut bytes = Vec::new();
            Report::new("WARNING", "01000", LOST)
                .with(b'H', "Look at what they would have told.")
                .write_notice(&mut bytes);
            self.to_client.extend_from_slice(&bytes);
        }
    }

    /// It listens no more, or has gone.
    pub(super) fn forget_hearing(&mut self) {
        if let Some(hearing) = self.hearing.take() {
            for channel in &hearing.channels {
                self.pool.unlisten(self.id, channel);
            }
            self.pool.forget_listener(self.id);
        }
    }

    /// Before the server goes to another client.  Whether it has to answer first.
    pub(super) fn unlistens(&mut self) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        if held.listens != Listens::Yes {
            return false;
        }
        held.listens = Listens::NoMore;
        self.send_ours(&FromClient::Query(b"UNLISTEN *"));
        true
    }
}
