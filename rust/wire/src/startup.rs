//! What comes before the first typed message.
//!
//! Rule: a start-up packet is at most 10 000 bytes, as in Postgres, and its length is checked
//! before a byte of it is waited for.
//!
//! Source: Postgres manual, "Message Flow: Start-up", "Canceling Requests", "SSL Session
//! Encryption", "GSSAPI Session Encryption"; protocol 3.2 of Postgres 18.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::cursor::{text, untyped, Cursor, Malformed};

/// Protocol 3.0.
pub const V3_0: u32 = 3 << 16;
/// Protocol 3.2: cancel keys of up to 256 bytes.
pub const V3_2: u32 = V3_0 + 2;
/// The greatest start-up packet, in bytes, with its length.
pub const LONGEST: usize = 10_000;
/// The first byte of a TLS handshake: a client that starts TLS at once (Postgres 17).
pub const TLS_FIRST_BYTE: u8 = 0x16;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 4..=256;

/// Who may cancel what: a number and a secret of 4 (3.0) to 256 bytes (3.2).
///
/// It compares in constant time and does not show its secret.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct CancelKey {
    pid: u32,
    secret: Vec<u8>,
}

impl CancelKey {
    /// `None` if the secret is not of 4 to 256 bytes.
    pub fn new(pid: u32, secret: &[u8]) -> Option<Self> {
        SECRET_LENGTH.contains(&secret.len()).then(|| Self {
            pid,
            secret: secret.to_vec(),
        })
    }

    /// The number; for servers, that of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// For the process that may know whose it is, and for no log.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The secret's length in bytes.
    pub fn secret_len(&self) -> usize {
        self.secret.len()
    }

    pub(crate) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(body, "cancel key");
        let pid = at.u32()?;
        Self::new(pid, at.rest()).ok_or(at.malformed())
    }

    pub(crate) fn write_fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pid.to_be_bytes());
        out.extend_from_slice(&self.secret);
    }
}

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        self.pid == other.pid && bool::from(self.secret.ct_eq(&other.secret))
    }
}

impl Eq for CancelKey {}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "CancelKey {{ pid: {}, .. }}", self.pid)
    }
}

/// A setting's name and value.
pub type Setting = (Vec<u8>, Vec<u8>);

/// A packet of the time before the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening<'a> {
    /// May we speak TLS?
    Ssl,
    /// May we speak GSS encryption?
    Gss,
    /// Cancel what this key's session runs.
    Cancel(CancelKey),
    /// Let me in.
    Startup(Startup<'a>),
}

/// The version and parameters that a client comes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// Major version in the upper sixteen bits, minor in the lower.
    pub version: u32,
    /// Names and values, in their order.
    pub parameters: Vec<(&'a [u8], &'a [u8])>,
}

/// A packet that can't be a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Not a length that a start-up packet can have (HTTP, SSH and TLS end here).
    #[error("invalid length of startup packet: {0}")]
    Length(u32),
    /// A protocol that we don't speak.
    #[error("unsupported frontend protocol {}.{}", .0 >> 16, .0 & 0xffff)]
    Version(u32),
    /// The length was right and the content was not.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Nobody says who they are.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
}

impl<'a> Opening<'a> {
    /// Read a packet from the front of `bytes`: it and its length; `None` while it is incomplete.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, OpeningError> {
        let Some(&[a, b, c, d]) = bytes.get(..4) else {
            return Ok(None);
        };
        let declared = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(declared)
            .ok()
            .filter(|length| (8..=LONGEST).contains(length))
            .ok_or(OpeningError::Length(declared))?;
        let Some(body) = bytes.get(4..length) else {
            return Ok(None);
        };
        Self::read_body(body).map(|opening| Some((opening, length)))
    }

    fn read_body(body: &'a [u8]) -> Result<Self, OpeningError> {
        let mut at = Cursor::new(body, "startup packet");
        let opening = match at.u32()? {
            SSL => Self::Ssl,
            GSS => Self::Gss,
            CANCEL => return Ok(Self::Cancel(CancelKey::read(at.rest())?)),
            version if version >> 16 == 3 => {
                return Startup::read(version, at).map(Self::Startup);
            }
            version => return Err(OpeningError::Version(version)),
        };
        at.end()?;
        Ok(opening)
    }

    /// Append the packet.
    pub fn write(&self, out: &mut Vec<u8>) {
        untyped(out, |out| match self {
            Self::Ssl => out.extend_from_slice(&SSL.to_be_bytes()),
            Self::Gss => out.extend_from_slice(&GSS.to_be_bytes()),
            Self::Cancel(key) => {
                out.extend_from_slice(&CANCEL.to_be_bytes());
                key.write_fields(out);
            }
            Self::Startup(startup) => {
                out.extend_from_slice(&startup.version.to_be_bytes());
                for (name, value) in &startup.parameters {
                    text(out, name);
                    text(out, value);
                }
                out.push(0);
            }
        });
    }
}

impl<'a> Startup<'a> {
    fn read(version: u32, mut at: Cursor<'a>) -> Result<Self, OpeningError> {
        let mut parameters = Vec::new();
        loop {
            match at.text()? {
                b"" => break,
                name => parameters.push((name, at.text()?)),
            }
        }
        at.end()?;
        let startup = Self {
            version,
            parameters,
        };
        match startup.parameter(b"user") {
            None | Some(b"") => Err(OpeningError::NoUser),
            Some(_) => Ok(startup),
        }
    }

    /// A parameter by its name; the last one, if it is there twice, as in Postgres.
    pub fn parameter(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.parameters
            .iter()
            .rev()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    }

    /// Who wants in.
    pub fn user(&self) -> &'a [u8] {
        self.parameter(b"user").unwrap_or_default()
    }

    /// Where to; the user's name if nothing is said.
    pub fn database(&self) -> &'a [u8] {
        self.parameter(b"database")
            .filter(|name| !name.is_empty())
            .unwrap_or(self.user())
    }

    /// What is spoken from here on, and what has to be answered first, once.
    pub fn negotiate(&self) -> Negotiated<'a> {
        let unknown: Vec<_> = self
            .parameters
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with(b"_pq_."))
            .collect();
        Negotiated {
            version: self.version.min(V3_2),
            must_answer: self.version > V3_2 || !unknown.is_empty(),
            unknown,
        }
    }

    /// The settings in `options`, as `-c name=value`, `-cname=value` or `--name=value`.
    ///
    /// They are values for a list of allowed names, never a part of a statement.
    pub fn options(&self) -> Result<Vec<Setting>, Malformed> {
        read_options(self.parameter(b"options").unwrap_or_default())
    }
}

/// The outcome of [`Startup::negotiate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated<'a> {
    /// What both speak.
    pub version: u32,
    /// Whether a `NegotiateProtocolVersion` with `version` and `unknown` is due, before anything
    /// else is sent.
    pub must_answer: bool,
    /// The `_pq_.` options that we don't know.
    pub unknown: Vec<&'a [u8]>,
}

impl Negotiated<'_> {
    /// How long a cancel key's secret this client can keep, in bytes.
    pub fn secret_len(&self) -> usize {
        if self.version >= V3_2 {
            32
        } else {
            4
        }
    }
}

fn read_options(options: &[u8]) -> Result<Vec<Setting>, Malformed> {
    const BAD: Malformed = Malformed {
        what: "options in startup packet",
    };
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == b"-c" {
            words.next().ok_or(BAD)?
        } else if let Some(rest) = word.strip_prefix(b"--").or(word.strip_prefix(b"-c")) {
            rest.to_vec()
        } else {
            return Err(BAD);
        };
        let equals = setting.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
        // Postgres reads `-` in a name as `_` (guc.c, ParseLongOption).
        let name: Vec<u8> = setting[..equals]
            .iter()
            .map(|byte| if *byte == b'-' { b'_' } else { *byte })
            .collect();
        if name.is_empty() {
            return Err(BAD);
        }
        settings.push((name, setting[equals + 1..].to_vec()));
    }
    Ok(settings)
}

/// Words between spaces; a backslash keeps the next byte as it is (`pg_split_opts`).
fn split_words(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.get_or_insert_with(Vec::new).extend(bytes.next()),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            byte => word.get_or_insert_with(Vec::new).push(*byte),
        }
    }
    words.extend(word);
    words
}
