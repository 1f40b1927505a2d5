//! A queue within one thread: what a client is told by others of its shard.
//!
//! It costs an idle client a few words, where a channel between threads keeps a block of slots.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Inner<T> {
    queue: VecDeque<T>,
    reader: Option<Waker>,
    is_closed: bool,
}

/// Where others put things.
pub struct Sender<T>(Rc<RefCell<Inner<T>>>);

/// Where its owner takes them.
pub struct Receiver<T>(Rc<RefCell<Inner<T>>>);

/// Two ends of a queue without a limit.
pub fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let inner = Rc::new(RefCell::new(Inner {
        queue: VecDeque::new(),
        reader: None,
        is_closed: false,
    }));
    (Sender(Rc::clone(&inner)), Receiver(inner))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Sender<T> {
    /// Raises what was to be sent when nobody takes anything any more.
    pub fn send(&self, value: T) -> Result<(), T> {
        let mut inner = self.0.borrow_mut();
        if inner.is_closed {
            return Err(value);
        }
        inner.queue.push_back(value);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The oldest one; `None` after `close`, when all are taken.
    pub fn poll_recv(&mut self, cx: &mut Context) -> Poll<Option<T>> {
        let mut inner = self.0.borrow_mut();
        match inner.queue.pop_front() {
            Some(value) => Poll::Ready(Some(value)),
            None if inner.is_closed => Poll::Ready(None),
            None => {
                if !inner
                    .reader
                    .as_ref()
                    .is_some_and(|old| old.will_wake(cx.waker()))
                {
                    inner.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// One that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.borrow_mut().queue.pop_front()
    }

    /// Nothing more comes in.
    pub fn close(&mut self) {
        self.0.borrow_mut().is_closed = true;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_taken_in_its_order_until_it_is_closed() {
        let (sender, mut receiver) = inbox();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(receiver.poll_recv(&mut cx).is_pending());
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.clone().send(2), Ok(()));
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(Some(1)));
        receiver.close();
        assert_eq!(sender.send(3), Err(3));
        assert_eq!(receiver.try_recv(), Some(2));
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(None));
    }
}
