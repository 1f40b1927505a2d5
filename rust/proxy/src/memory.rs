//! What a shard keeps in memory for its clients, and what happens above the cap.
//!
//! Intuition: what is kept gets less when it goes on its way.  So above the cap nobody comes in,
//! who has something to send is not read from until it is sent, and a long message whose rest has
//! no place ends its client.  Everybody else goes on, and so the cap is left again.

use std::cell::Cell;

use crate::hub::Hub;

/// Above the cap, a client that keeps less than this goes on as before.
pub const FREE: usize = 16 << 10;
/// What a client costs that says nothing: its state and its empty buffers.
const PER_CLIENT: usize = 4 << 10;

/// See the module.
#[derive(Default)]
pub struct Memory {
    buffered: Cell<usize>,
    /// Zero: none.
    cap: Cell<usize>,
}

impl Memory {
    /// `memory_mb` is that of the whole process.
    pub fn set_cap(&self, memory_mb: usize, shards: usize) {
        self.cap.set((memory_mb << 20) / shards.max(1));
    }

    /// In bytes.
    pub fn used(&self, hub: &Hub) -> usize {
        let clients = hub.clients.borrow().len();
        self.buffered.get() + hub.ledger.borrow().used() + clients * PER_CLIENT
    }

    pub fn is_over(&self, hub: &Hub) -> bool {
        let cap = self.cap.get();
        cap > 0 && self.used(hub) >= cap
    }

    /// A client keeps `now` bytes and kept `before`.
    pub fn account(&self, before: usize, now: usize) {
        let buffered = self.buffered.get() + now;
        self.buffered.set(buffered.saturating_sub(before));
    }
}
