//! What servers say.
//!
//! Rows and their descriptions stay ranges: a proxy hands them on and never looks inside.

use crate::cursor::{message, text, Cursor, Malformed};
use crate::report::Report;
use crate::startup::CancelKey;

/// Where the session stands, as `ReadyForQuery` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TxStatus {
    /// `I`: in no transaction.
    #[default]
    Idle,
    /// `T`: in a transaction.
    Open,
    /// `E`: in a failed transaction; only its end is accepted.
    Failed,
}

impl TxStatus {
    /// The letter on the wire.
    pub fn letter(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What the server wants before it lets a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more.
    Ok,
    /// The password itself.
    CleartextPassword,
    /// Its MD5 with this salt.
    Md5Password([u8; 4]),
    /// SASL by one of these mechanisms.
    Sasl(Vec<&'a [u8]>),
    /// The next message of the exchange.
    SaslContinue(&'a [u8]),
    /// The last one.
    SaslFinal(&'a [u8]),
    /// A kind that we do not speak (Kerberos, GSS, SSPI).
    Other {
        /// Its number.
        number: u32,
        /// What comes with it.
        data: &'a [u8],
    },
}

/// A message from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// `R`.
    Authentication(Authentication<'a>),
    /// `K`: how to cancel.
    BackendKeyData(CancelKey),
    /// `S`: a setting that is reported.
    ParameterStatus {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `v`: what of the start-up packet was not accepted.
    NegotiateProtocolVersion {
        /// Major version in the upper sixteen bits, minor in the lower.
        version: u32,
        /// The options that the server does not know.
        unknown: Vec<&'a [u8]>,
    },
    /// `Z`.
    ReadyForQuery(TxStatus),
    /// `C`: the tag, as `INSERT 0 1`.
    CommandComplete(&'a [u8]),
    /// `E`.
    Error(Report<'a>),
    /// `N`.
    Notice(Report<'a>),
    /// `A`.
    Notification {
        /// The process that notifies.
        pid: u32,
        /// The channel.
        channel: &'a [u8],
        /// The payload, maybe empty.
        payload: &'a [u8],
    },
    /// `1`.
    ParseComplete,
    /// `2`.
    BindComplete,
    /// `3`.
    CloseComplete,
    /// `n`.
    NoData,
    /// `s`: a portal has more rows.
    PortalSuspended,
    /// `I`.
    EmptyQueryResponse,
    /// `T`: unread.
    RowDescription(&'a [u8]),
    /// `t`: unread.
    ParameterDescription(&'a [u8]),
    /// `D`: unread.
    DataRow(&'a [u8]),
    /// `V`: unread.
    FunctionCallResponse(&'a [u8]),
    /// `G`: the client may send rows; formats unread.
    CopyIn(&'a [u8]),
    /// `H`: rows follow; formats unread.
    CopyOut(&'a [u8]),
    /// `W`: both ways (replication); formats unread.
    CopyBoth(&'a [u8]),
    /// `d`.
    CopyData(&'a [u8]),
    /// `c`.
    CopyDone,
}

impl<'a> FromServer<'a> {
    /// Read the body of a message; the frame was checked by [`crate::Rules`].
    pub fn read(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(body, name_of(tag));
        let message = match tag {
            b'1' => Self::ParseComplete,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'n' => Self::NoData,
            b's' => Self::PortalSuspended,
            b'I' => Self::EmptyQueryResponse,
            b'c' => Self::CopyDone,
            b'T' => return Ok(Self::RowDescription(body)),
            b't' => return Ok(Self::ParameterDescription(body)),
            b'D' => return Ok(Self::DataRow(body)),
            b'V' => return Ok(Self::FunctionCallResponse(body)),
            b'G' => return Ok(Self::CopyIn(body)),
            b'H' => return Ok(Self::CopyOut(body)),
            b'W' => return Ok(Self::CopyBoth(body)),
            b'd' => return Ok(Self::CopyData(body)),
            b'E' => return Report::read(body).map(Self::Error),
            b'N' => return Report::read(body).map(Self::Notice),
            b'R' => return read_authentication(at).map(Self::Authentication),
            b'K' => return CancelKey::read(body).map(Self::BackendKeyData),
            b'S' => Self::ParameterStatus {
                name: at.text()?,
                value: at.text()?,
            },
            b'Z' => Self::ReadyForQuery(read_status(&mut at)?),
            b'C' => Self::CommandComplete(at.text()?),
            b'A' => Self::Notification {
                pid: at.u32()?,
                channel: at.text()?,
                payload: at.text()?,
            },
            b'v' => read_negotiation(&mut at)?,
            _ => return Err(at.malformed()),
        };
        at.end()?;
        Ok(message)
    }

    /// Append the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Authentication(request) => write_authentication(out, request),
            Self::BackendKeyData(key) => message(out, b'K', |out| key.write_fields(out)),
            Self::ParameterStatus { name, value } => message(out, b'S', |out| {
                text(out, name);
                text(out, value);
            }),
            Self::NegotiateProtocolVersion { version, unknown } => message(out, b'v', |out| {
                out.extend_from_slice(&version.to_be_bytes());
                let count = u32::try_from(unknown.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&count.to_be_bytes());
                for name in unknown {
                    text(out, name);
                }
            }),
            Self::ReadyForQuery(status) => message(out, b'Z', |out| out.push(status.letter())),
            Self::CommandComplete(tag) => message(out, b'C', |out| text(out, tag)),
            Self::Error(report) => report.write_error(out),
            Self::Notice(report) => report.write_notice(out),
            Self::Notification {
                pid,
                channel,
                payload,
            } => message(out, b'A', |out| {
                out.extend_from_slice(&pid.to_be_bytes());
                text(out, channel);
                text(out, payload);
            }),
            Self::ParseComplete => message(out, b'1', |_| ()),
            Self::BindComplete => message(out, b'2', |_| ()),
            Self::CloseComplete => message(out, b'3', |_| ()),
            Self::NoData => message(out, b'n', |_| ()),
            Self::PortalSuspended => message(out, b's', |_| ()),
            Self::EmptyQueryResponse => message(out, b'I', |_| ()),
            Self::CopyDone => message(out, b'c', |_| ()),
            Self::RowDescription(body) => raw(out, b'T', body),
            Self::ParameterDescription(body) => raw(out, b't', body),
            Self::DataRow(body) => raw(out, b'D', body),
            Self::FunctionCallResponse(body) => raw(out, b'V', body),
            Self::CopyIn(body) => raw(out, b'G', body),
            Self::CopyOut(body) => raw(out, b'H', body),
            Self::CopyBoth(body) => raw(out, b'W', body),
            Self::CopyData(body) => raw(out, b'd', body),
        }
    }
}

fn raw(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    message(out, tag, |out| out.extend_from_slice(body));
}

fn read_status(at: &mut Cursor) -> Result<TxStatus, Malformed> {
    match at.u8()? {
        b'I' => Ok(TxStatus::Idle),
        b'T' => Ok(TxStatus::Open),
        b'E' => Ok(TxStatus::Failed),
        _ => Err(at.malformed()),
    }
}

fn read_negotiation<'a>(at: &mut Cursor<'a>) -> Result<FromServer<'a>, Malformed> {
    let version = at.u32()?;
    let count = at.u32()?;
    let mut unknown = Vec::new();
    for _ in 0..count {
        // Each takes a byte at least, so a wrong count ends with the body.
        unknown.push(at.text()?);
    }
    Ok(FromServer::NegotiateProtocolVersion { version, unknown })
}

fn read_authentication(mut at: Cursor) -> Result<Authentication, Malformed> {
    let request = match at.u32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => {
            let mut salt = [0; 4];
            salt.copy_from_slice(at.take(4)?);
            Authentication::Md5Password(salt)
        }
        10 => Authentication::Sasl(read_mechanisms(&mut at)?),
        11 => return Ok(Authentication::SaslContinue(at.rest())),
        12 => return Ok(Authentication::SaslFinal(at.rest())),
        number => {
            return Ok(Authentication::Other {
                number,
                data: at.rest(),
            })
        }
    };
    at.end()?;
    Ok(request)
}

fn read_mechanisms<'a>(at: &mut Cursor<'a>) -> Result<Vec<&'a [u8]>, Malformed> {
    let mut mechanisms = Vec::new();
    loop {
        match at.text()? {
            b"" => return Ok(mechanisms),
            name => mechanisms.push(name),
        }
    }
}

fn write_authentication(out: &mut Vec<u8>, request: &Authentication) {
    message(out, b'R', |out| {
        let number: u32 = match request {
            Authentication::Ok => 0,
            Authentication::CleartextPassword => 3,
            Authentication::Md5Password(_) => 5,
            Authentication::Sasl(_) => 10,
            Authentication::SaslContinue(_) => 11,
            Authentication::SaslFinal(_) => 12,
            Authentication::Other { number, .. } => *number,
        };
        out.extend_from_slice(&number.to_be_bytes());
        match request {
            Authentication::Md5Password(salt) => out.extend_from_slice(salt),
            Authentication::Sasl(mechanisms) => {
                for name in mechanisms {
                    text(out, name);
                }
                out.push(0);
            }
            Authentication::SaslContinue(data)
            | Authentication::SaslFinal(data)
            | Authentication::Other { data, .. } => {
                out.extend_from_slice(data);
            }
            _ => (),
        }
    });
}

fn name_of(tag: u8) -> &'static str {
    match tag {
        b'R' => "Authentication",
        b'S' => "ParameterStatus",
        b'Z' => "ReadyForQuery",
        b'C' => "CommandComplete",
        b'A' => "NotificationResponse",
        b'v' => "NegotiateProtocolVersion",
        b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => "message without a body",
        _ => "message of an unknown type",
    }
}
