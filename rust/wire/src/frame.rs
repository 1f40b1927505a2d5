//! Where a message begins and ends, without reading it.
//!
//! Intuition: on the hot path a proxy needs five bytes of each message and the range that
//! follows.  What those five bytes may say is a short table: every type has a least and a
//! greatest length, and most types may not come at all before the login is done.
//!
//! Rule: a length is checked before a byte of the body is waited for, so that neither side can
//! make us keep more than the table allows.  Long messages are handed on in parts.
//!
//! Source: Postgres manual, "Message Formats"; limits of `libpq-be.h` (`PQ_SMALL_MESSAGE_LIMIT`,
//! `PQ_LARGE_MESSAGE_LIMIT`) and of libpq's own check of short messages (30000 bytes).

/// Type and length: one byte and four.
pub const HEADER: usize = 5;

/// The greatest body that Postgres itself can hold, in bytes (`MaxAllocSize`).
pub const LARGEST: usize = 0x3fff_fffe;

const SMALL_FROM_CLIENT: usize = 10_000 - 4;
const PASSWORD: usize = 8_192;
const SMALL_FROM_SERVER: usize = 30_000;
/// An error is read whole before it goes on, and so are the names of 1664 columns at most.
const WHOLE_FROM_SERVER: usize = 1 << 20;
const CANCEL_KEY: std::ops::RangeInclusive<usize> = 8..=4 + 256;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talker {
    /// What a client sends.
    Client,
    /// What a server sends.
    Server,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the start-up packet to the first `ReadyForQuery`.
    Login,
    /// After it.
    Session,
}

/// What may come, and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Who speaks.
    pub talker: Talker,
    /// How far the connection is.
    pub stage: Stage,
    /// The greatest body of the types that may be long, in bytes; at most [`LARGEST`] counts.
    pub longest: usize,
}

/// A message's type and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first byte.
    pub tag: u8,
    /// Bytes of the whole message with its header.
    pub len: usize,
}

impl Frame {
    /// The bytes after the header, of a message that begins `bytes`; `None` if they are fewer.
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(HEADER..self.len)
    }
}

/// Bytes that can't be the protocol.  The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such message from this side at this stage.
    #[error("unexpected message type 0x{tag:02x}")]
    Unexpected {
        /// The first byte.
        tag: u8,
    },
    /// A length that this type can't have.
    #[error("message type 0x{tag:02x} with {len} bytes, of which {least} to {most} are allowed")]
    Length {
        /// The first byte.
        tag: u8,
        /// The length as it was sent; it counts itself.
        len: u32,
        /// The least that is allowed.
        least: usize,
        /// The most that is allowed.
        most: usize,
    },
}

impl Rules {
    /// The rules for one side at one stage, with Postgres' own limit for long messages.
    pub fn new(talker: Talker, stage: Stage) -> Self {
        Self {
            talker,
            stage,
            longest: LARGEST,
        }
    }

    /// The message that begins `bytes`; `None` while its header is incomplete.
    ///
    /// A wrong type is an error at its first byte already.
    #[inline]
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some(&tag) = bytes.first() else {
            return Ok(None);
        };
        let (least, most) = self.body_range(tag).ok_or(FrameError::Unexpected { tag })?;
        let Some(&[a, b, c, d]) = bytes.get(1..HEADER) else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]);
        let (least, most) = (least + 4, most + 4);
        match usize::try_from(len) {
            Ok(size) if (least..=most).contains(&size) => Ok(Some(Frame { tag, len: size + 1 })),
            _ => Err(FrameError::Length {
                tag,
                len,
                least,
                most,
            }),
        }
    }

    /// Least and greatest body of a type; `None` if it may not come.
    fn body_range(&self, tag: u8) -> Option<(usize, usize)> {
        let longest = self.longest.min(LARGEST);
        match (self.talker, self.stage) {
            (Talker::Client, Stage::Login) => (tag == b'p').then_some((1, PASSWORD)),
            (Talker::Client, Stage::Session) => from_client(tag, longest),
            (Talker::Server, Stage::Login) => in_servers_login(tag),
            (Talker::Server, Stage::Session) => from_server(tag, longest),
        }
    }
}

fn from_client(tag: u8, longest: usize) -> Option<(usize, usize)> {
    Some(match tag {
        b'S' | b'H' | b'X' | b'c' => (0, 0),
        b'D' | b'C' => (2, SMALL_FROM_CLIENT),
        b'E' => (5, SMALL_FROM_CLIENT),
        b'f' => (1, SMALL_FROM_CLIENT),
        b'Q' => (1, longest),
        b'P' => (4, longest),
        b'B' => (8, longest),
        b'F' => (10, longest),
        b'd' => (0, longest),
        _ => return None,
    })
}

fn in_servers_login(tag: u8) -> Option<(usize, usize)> {
    Some(match tag {
        b'R' => (4, SMALL_FROM_SERVER),
        b'K' => (*CANCEL_KEY.start(), *CANCEL_KEY.end()),
        b'S' => (2, SMALL_FROM_SERVER),
        b'v' => (8, SMALL_FROM_SERVER),
        b'E' | b'N' => (1, SMALL_FROM_SERVER),
        b'Z' => (1, 1),
        _ => return None,
    })
}

fn from_server(tag: u8, longest: usize) -> Option<(usize, usize)> {
    Some(match tag {
        b'1' | b'2' | b'3' | b'n' | b'I' | b's' | b'c' => (0, 0),
        b'Z' => (1, 1),
        b'C' => (1, SMALL_FROM_SERVER),
        b'S' => (2, SMALL_FROM_SERVER),
        b't' => (2, 2 + 4 * 65_535),
        b'G' | b'H' | b'W' => (3, 3 + 2 * 65_535),
        b'T' => (2, longest.min(WHOLE_FROM_SERVER)),
        b'D' => (2, longest),
        b'd' => (0, longest),
        b'V' => (4, longest),
        b'N' => (1, longest),
        b'E' => (1, longest.min(WHOLE_FROM_SERVER)),
        b'A' => (6, SMALL_FROM_SERVER),
        _ => return None,
    })
}

/// What the bytes at hand hold next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Nothing yet: at least this many more bytes must come.
    Need(usize),
    /// A whole message: step over `len` bytes.
    Whole(Frame),
    /// A stretch of a long message: step over `ready` bytes.
    Part {
        /// The message it belongs to.
        frame: Frame,
        /// Bytes that may go on now.
        ready: usize,
        /// Bytes that are still to come after them.
        left: usize,
        /// Whether this is the first stretch; it begins with the header.
        first: bool,
    },
}

/// Walks over a stream of messages, wherever the network has cut it.
///
/// The caller shows the bytes that it has not stepped over yet, and steps as it is told.
#[derive(Clone, Debug)]
pub struct Scanner {
    rules: Rules,
    whole_up_to: usize,
    under_way: Option<(Frame, usize)>,
}

impl Scanner {
    /// Messages of more than `whole_up_to` bytes come in parts, the first of at least that length,
    /// so that names at the front of a long message can be read.
    pub fn new(rules: Rules, whole_up_to: usize) -> Self {
        Self {
            rules,
            whole_up_to: whole_up_to.max(HEADER),
            under_way: None,
        }
    }

    /// Use other rules from the next message on (the login is done).
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether a long message has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.under_way.is_some()
    }

    /// What `bytes` begin with.  After an error the stream is of no more use.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scan, FrameError> {
        if let Some((frame, left)) = self.under_way {
            return Ok(self.part(frame, left, bytes.len(), false));
        }
        let Some(frame) = self.rules.peek(bytes)? else {
            return Ok(Scan::Need(HEADER - bytes.len()));
        };
        let wanted = frame.len.min(self.whole_up_to);
        Ok(if bytes.len() < wanted {
            Scan::Need(wanted - bytes.len())
        } else if frame.len <= self.whole_up_to {
            Scan::Whole(frame)
        } else {
            self.part(frame, frame.len, bytes.len(), true)
        })
    }

    fn part(&mut self, frame: Frame, left: usize, at_hand: usize, first: bool) -> Scan {
        if at_hand == 0 {
            return Scan::Need(1);
        }
        let ready = left.min(at_hand);
        let left = left - ready;
        self.under_way = (left > 0).then_some((frame, left));
        Scan::Part {
            frame,
            ready,
            left,
            first,
        }
    }
}
