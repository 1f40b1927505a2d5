//! Buffers that a shard lends to whoever has something to put into one.
//!
//! Intuition: a client has bytes under way for a moment of its time.  What is idle keeps nothing,
//! and what is not takes the buffer that somebody else has just given back: its memory is warm, and
//! nobody asks the allocator.

use std::cell::RefCell;

use bytes::BytesMut;

/// In bytes; most of what clients and servers say at once is shorter.
const SIZE: usize = 4 << 10;
/// One that has grown beyond this is not kept.
const LARGEST: usize = 4 * SIZE;
/// Kept at most.
const MOST: usize = 32;

thread_local! {
    /// A thread is a shard.
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// See to it that a buffer has room.
pub fn lend(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        *buffer = spare.unwrap_or_else(|| BytesMut::with_capacity(SIZE));
    }
}

/// Give back the memory of a buffer, if there is nothing in it.
///
/// It may have some even without any capacity: what was read is gone from its front.
pub fn release(buffer: &mut BytesMut) {
    if !buffer.is_empty() {
        return;
    }
    let mut own = std::mem::take(buffer);
    // With its front again, unless others have a share of that.
    let is_large = own.try_reclaim(LARGEST + 1);
    if !is_large && own.try_reclaim(SIZE) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(own);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn what_was_read_empty_is_lent_to_the_next_and_what_is_not_stays() {
        let mut buffer = BytesMut::new();
        lend(&mut buffer);
        let place = buffer.as_ptr();
        buffer.extend_from_slice(&[1; SIZE]);
        release(&mut buffer);
        assert_eq!((buffer.len(), spare()), (SIZE, 0));
        buffer.advance(SIZE);
        release(&mut buffer);
        assert_eq!((buffer.capacity(), spare()), (0, 1));
        lend(&mut buffer);
        assert_eq!(
            (buffer.as_ptr(), buffer.capacity(), spare()),
            (place, SIZE, 0)
        );
    }

    #[test]
    fn no_more_is_kept_than_a_few_of_the_usual_size() {
        release(&mut BytesMut::new());
        release(&mut BytesMut::with_capacity(LARGEST + 1));
        assert_eq!(spare(), 0);
        let mut all: Vec<_> = (0..=MOST).map(|_| BytesMut::with_capacity(SIZE)).collect();
        all.iter_mut().for_each(release);
        assert_eq!(spare(), MOST);
    }
}
