//! What has come for one client on the channels that it listens to, until it can be told.
//!
//! Intuition: one connection hears for many, so a client that does not read must not hold it up.
//! What comes for such a client is kept up to a bound; beyond that nothing is, and the client is
//! ended, for it would go on believing that it has heard everything.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use flightmode_wire::frame::HEADER;

use crate::hub::{Event, Hub};
use crate::inbox;
use crate::memory::FREE;

/// What is kept for a client that is in a transaction or does not read, in bytes.
const MOST: usize = 1 << 20;
/// What one costs beside its message.
const EACH: usize = 64;

/// A notification, one for all who get it.
pub struct Note {
    /// The server's process that has notified.
    pub pid: u32,
    pub channel: Vec<u8>,
    /// The whole message.
    message: Bytes,
}

impl Note {
    /// `message`: a whole one that was read as this.
    pub fn new(pid: u32, channel: &[u8], message: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            pid,
            channel: channel.to_vec(),
            message: Bytes::copy_from_slice(message),
        })
    }

    fn cost(&self) -> usize {
        self.message.len() + EACH
    }

    /// The message as one of another process.
    pub fn write(&self, pid: u32, out: &mut BytesMut) {
        let (head, rest) = self.message.split_at(HEADER);
        out.extend_from_slice(head);
        out.put_u32(pid);
        out.extend_from_slice(&rest[4..]);
    }
}

/// What the client has to hear of the listener itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gap {
    #[default]
    No,
    /// Something may have been lost, and more may be.
    Open,
    /// The listener has everything again.
    Over,
}

/// See the module.
pub struct Mail {
    events: inbox::Sender<Event>,
    /// With whether the client itself has notified.
    notes: RefCell<VecDeque<(Rc<Note>, bool)>>,
    /// The server's process that works for this client and for no other.
    pub own: Cell<Option<u32>>,
    bytes: Cell<usize>,
    is_over: Cell<bool>,
    pub gap: Cell<Gap>,
    /// What it waits for will not come soon.
    pub refused: Cell<bool>,
    /// How often it has asked to hear when all that was notified of before that has come, and how
    /// often that has come to pass.
    pub fences: Cell<u32>,
    pub passed: Cell<u32>,
    /// It was woken, and has not looked yet.
    woken: Cell<bool>,
}

impl Mail {
    pub fn new(events: inbox::Sender<Event>) -> Rc<Self> {
        Rc::new(Self {
            events,
            notes: RefCell::default(),
            own: Cell::new(None),
            bytes: Cell::new(0),
            is_over: Cell::new(false),
            gap: Cell::default(),
            refused: Cell::new(false),
            fences: Cell::new(0),
            passed: Cell::new(0),
            woken: Cell::new(false),
        })
    }

    /// The client is to look.
    pub fn wake(&self) {
        if !self.woken.replace(true) {
            // One that has gone does not.
            let _ = self.events.send(Event::Mail);
        }
    }

    pub fn on_looked(&self) {
        self.woken.set(false);
    }

    pub fn put(&self, note: &Rc<Note>, hub: &Hub) {
        let bytes = self.bytes.get() + note.cost();
        let is_full = bytes > MOST || (bytes > FREE && hub.memory.is_over(hub));
        if is_full {
            self.clear();
            self.is_over.set(true);
        }
        if !self.is_over.get() {
            self.bytes.set(bytes);
            let is_own = self.own.get() == Some(note.pid);
            let kept = (Rc::clone(note), is_own);
            self.notes.borrow_mut().push_back(kept);
        }
        self.wake();
    }

    /// The oldest, and whether it is the client's own.
    pub fn take(&self) -> Option<(Rc<Note>, bool)> {
        let (note, is_own) = self.notes.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - note.cost());
        Some((note, is_own))
    }

    /// Those for which this does not hold were never there.
    pub fn keep(&self, is_kept: impl Fn(&Note) -> bool) {
        let mut notes = self.notes.borrow_mut();
        notes.retain(|(note, _)| is_kept(note));
        self.bytes
            .set(notes.iter().map(|(note, _)| note.cost()).sum());
    }

    /// There was more than is kept: what came is lost.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    fn clear(&self) {
        self.notes.borrow_mut().clear();
        self.bytes.set(0);
    }
}
