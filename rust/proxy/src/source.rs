//! What a client has sent and we have not taken yet, message by message.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use flightmode_wire::frame::{Frame, FrameError, Rules, Stage, Talker};

/// A longer row of a COPY goes on in parts.
const WHOLE: usize = 64 << 10;
/// A longer message is split off from where it is; a copy of a shorter one costs less than that.
const COPIED: usize = 4 << 10;

/// See the module.
pub struct Source {
    pub unread: BytesMut,
    /// Messages that are to be taken once more, before the others.
    again: VecDeque<Bytes>,
    rules: Rules,
    /// What is left of a message of which a part was taken, and whether anybody wants it.
    part: Option<(usize, bool)>,
}

/// What comes next.
pub enum Next {
    Whole {
        tag: u8,
        body_first: Option<u8>,
        length: usize,
    },
    /// A row of a COPY that is longer than what is here.
    Long,
}

impl Source {
    pub fn new(unread: BytesMut, longest: usize) -> Self {
        let mut rules = Rules::new(Talker::Client, Stage::Session);
        rules.longest = longest;
        Self {
            unread,
            again: VecDeque::new(),
            rules,
            part: None,
        }
    }

    /// Whether there is room, or need, for more bytes of the client.
    pub fn wants_more(&self, limit: usize) -> bool {
        let needed = match self.frame() {
            Ok(Some(frame)) if !is_row(frame) => frame.len,
            _ => 0,
        };
        self.unread.len() < limit.max(needed)
    }

    /// What can be taken now.  Raises when it is not the protocol.
    pub fn next(&self) -> Result<Option<Next>, FrameError> {
        if let Some(message) = self.again.front() {
            return Ok(Some(whole(message, message.len())));
        }
        Ok(match self.frame()? {
            Some(frame) if self.unread.len() >= frame.len => Some(whole(&self.unread, frame.len)),
            Some(frame) if is_row(frame) => Some(Next::Long),
            _ => None,
        })
    }

    /// The whole message that `next` has found, so long, in the place of what is in `into`.
    pub fn take(&mut self, length: usize, into: &mut BytesMut) {
        into.clear();
        if let Some(message) = self.again.pop_front() {
            into.extend_from_slice(&message);
        } else if length > COPIED {
            *into = self.unread.split_to(length);
        } else {
            into.extend_from_slice(&self.unread[..length]);
            self.unread.advance(length);
        }
    }

    /// The front of a long row; the rest comes by `take_part`.
    pub fn take_long(&mut self, wanted: bool) -> Bytes {
        let length = self.frame().ok().flatten().map_or(0, |frame| frame.len);
        let bytes = self.unread.split().freeze();
        self.part = Some((length.saturating_sub(bytes.len()), wanted));
        bytes
    }

    /// More of a long row, and whether anybody wants it; `None`: no row is under way.
    pub fn take_part(&mut self) -> Option<(Bytes, bool)> {
        let (left, wanted) = self.part?;
        let bytes = self.unread.split_to(left.min(self.unread.len())).freeze();
        let left = left - bytes.len();
        self.part = (left > 0).then_some((left, wanted));
        Some((bytes, wanted))
    }

    /// The server is gone: nobody wants the rest of the row.
    pub fn forget_part(&mut self) {
        if let Some((_, wanted)) = &mut self.part {
            *wanted = false;
        }
    }

    /// A long message that has to be whole before it can go on, and is not.
    pub fn is_inside_long(&self) -> bool {
        let frame = self.frame().ok().flatten();
        frame.is_some_and(|frame| {
            !is_row(frame) && frame.len > WHOLE && self.unread.len() < frame.len
        })
    }

    pub fn is_inside(&self) -> bool {
        self.part.is_some()
    }

    pub fn has_whole(&self) -> bool {
        let is_empty = self.again.is_empty() && self.unread.is_empty();
        !is_empty && matches!(self.next(), Ok(Some(_)))
    }

    /// Whether something is to be taken once more.
    pub fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Take these once more.
    pub fn again(&mut self, messages: Vec<Bytes>) {
        for message in messages.into_iter().rev() {
            self.again.push_front(message);
        }
    }

    /// The statement that waited is not to be carried out.  Whether it ended with it (a simple
    /// query), else its group goes on.
    pub fn drop_statement(&mut self) -> bool {
        let Ok(Some(Next::Whole { tag, length, .. })) = self.next() else {
            return true;
        };
        if self.again.pop_front().is_none() {
            self.unread.advance(length);
        }
        match tag {
            b'Q' | b'F' | b'S' => true,
            _ => {
                // The rest of its group may be here already; the Sync is answered when it comes.
                false
            }
        }
    }

    fn frame(&self) -> Result<Option<Frame>, FrameError> {
        self.rules.peek(&self.unread)
    }
}

fn whole(message: &[u8], length: usize) -> Next {
    Next::Whole {
        tag: message[0],
        body_first: message.get(5).copied(),
        length,
    }
}

fn is_row(frame: Frame) -> bool {
    frame.tag == b'd' && frame.len > WHOLE
}

/// A client that talks about nothing needs no server.
pub fn needs_server(tag: u8, body_first: Option<u8>) -> bool {
    match tag {
        b'X' | b'H' | b'd' | b'c' | b'f' | b'S' => false,
        b'C' => body_first != Some(b'S'),
        _ => true,
    }
}
