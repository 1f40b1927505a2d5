//! What clients say after the start-up packet.
//!
//! Names and texts are borrowed from the buffer; a `Bind` keeps its values as one range, so that
//! a statement can be renamed without touching them.

use crate::cursor::{message, text, Cursor, Malformed};

/// A prepared statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// `S` and its name; empty is the unnamed one.
    Statement(&'a [u8]),
    /// `P` and its name.
    Portal(&'a [u8]),
}

/// `Parse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty is the unnamed one.
    pub name: &'a [u8],
    /// Its text.
    pub sql: &'a [u8],
    /// The types of its parameters as they were sent: four bytes each, without the count.
    pub types: &'a [u8],
}

/// `Bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty is the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Formats and values as they were sent; checked.
    pub values: &'a [u8],
}

/// `FunctionCall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The function.
    pub oid: u32,
    /// Formats, values and the result's format as they were sent; checked.
    pub values: &'a [u8],
}

/// A message from a client in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// A simple query; any number of statements.
    Query(&'a [u8]),
    /// Prepare a statement.
    Parse(Parse<'a>),
    /// Make a portal of a statement and values.
    Bind(Bind<'a>),
    /// Ask for the shape of a statement or portal.
    Describe(Object<'a>),
    /// Run a portal; at most `max_rows`, 0 for all.
    Execute {
        /// The portal's name.
        portal: &'a [u8],
        /// Rows before the portal is suspended; 0 or less for all.
        max_rows: i32,
    },
    /// Forget a statement or portal.
    Close(Object<'a>),
    /// End of a group: the server answers `ReadyForQuery`.
    Sync,
    /// Send what is ready, without an end of the group.
    Flush,
    /// Rows of a COPY.
    CopyData(&'a [u8]),
    /// End of a COPY.
    CopyDone,
    /// End of a COPY with an error; the reason.
    CopyFail(&'a [u8]),
    /// Call a function by its number (large objects).
    FunctionCall(FunctionCall<'a>),
    /// Goodbye.
    Terminate,
}

impl<'a> FromClient<'a> {
    /// Read the body of a message; the frame was checked by [`crate::Rules`].
    pub fn read(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(body, name_of(tag));
        let message = match tag {
            b'Q' => Self::Query(at.text()?),
            b'P' => Self::Parse(read_parse(&mut at)?),
            b'B' => Self::Bind(read_bind(&mut at)?),
            b'D' => Self::Describe(read_object(&mut at)?),
            b'C' => Self::Close(read_object(&mut at)?),
            b'E' => Self::Execute {
                portal: at.text()?,
                max_rows: at.i32()?,
            },
            b'F' => Self::FunctionCall(read_function_call(&mut at)?),
            b'd' => return Ok(Self::CopyData(body)),
            b'f' => Self::CopyFail(at.text()?),
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            b'c' => Self::CopyDone,
            b'X' => Self::Terminate,
            _ => return Err(at.malformed()),
        };
        at.end()?;
        Ok(message)
    }

    /// Append the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Query(sql) => message(out, b'Q', |out| text(out, sql)),
            Self::Parse(parse) => parse.write(out),
            Self::Bind(bind) => message(out, b'B', |out| {
                text(out, bind.portal);
                text(out, bind.statement);
                out.extend_from_slice(bind.values);
            }),
            Self::Describe(object) => message(out, b'D', |out| write_object(out, object)),
            Self::Close(object) => message(out, b'C', |out| write_object(out, object)),
            Self::Execute { portal, max_rows } => message(out, b'E', |out| {
                text(out, portal);
                out.extend_from_slice(&max_rows.to_be_bytes());
            }),
            Self::FunctionCall(call) => message(out, b'F', |out| {
                out.extend_from_slice(&call.oid.to_be_bytes());
                out.extend_from_slice(call.values);
            }),
            Self::CopyData(rows) => message(out, b'd', |out| out.extend_from_slice(rows)),
            Self::CopyFail(reason) => message(out, b'f', |out| text(out, reason)),
            Self::Sync => message(out, b'S', |_| ()),
            Self::Flush => message(out, b'H', |_| ()),
            Self::CopyDone => message(out, b'c', |_| ()),
            Self::Terminate => message(out, b'X', |_| ()),
        }
    }
}

impl Parse<'_> {
    /// Append the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.types.len() / 4).unwrap_or(u16::MAX);
        message(out, b'P', |out| {
            text(out, self.name);
            text(out, self.sql);
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&self.types[..usize::from(count) * 4]);
        });
    }
}

impl Bind<'_> {
    /// Append everything before the values, with their length counted in; the values follow from
    /// where they are, uncopied.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        let at = out.len();
        message(out, b'B', |out| {
            text(out, self.portal);
            text(out, self.statement);
        });
        let length = u32::try_from(out.len() - at - 1 + self.values.len()).unwrap_or(u32::MAX);
        out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
    }
}

/// The portal's and the statement's name of a `Bind` whose values have not all come yet.
pub fn bind_names(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut at = Cursor::new(body, name_of(b'B'));
    Ok((at.text()?, at.text()?))
}

fn read_parse<'a>(at: &mut Cursor<'a>) -> Result<Parse<'a>, Malformed> {
    let (name, sql) = (at.text()?, at.text()?);
    let count = at.count()?;
    Ok(Parse {
        name,
        sql,
        types: at.take(count * 4)?,
    })
}

fn read_bind<'a>(at: &mut Cursor<'a>) -> Result<Bind<'a>, Malformed> {
    let (portal, statement, values) = (at.text()?, at.text()?, at.rest());
    skip_formats(at)?;
    skip_values(at)?;
    skip_formats(at)?;
    Ok(Bind {
        portal,
        statement,
        values,
    })
}

fn read_function_call<'a>(at: &mut Cursor<'a>) -> Result<FunctionCall<'a>, Malformed> {
    let (oid, values) = (at.u32()?, at.rest());
    skip_formats(at)?;
    skip_values(at)?;
    at.take(2)?;
    Ok(FunctionCall { oid, values })
}

fn skip_formats(at: &mut Cursor) -> Result<(), Malformed> {
    let count = at.count()?;
    at.take(count * 2).map(drop)
}

fn skip_values(at: &mut Cursor) -> Result<(), Malformed> {
    for _ in 0..at.count()? {
        at.value()?;
    }
    Ok(())
}

fn read_object<'a>(at: &mut Cursor<'a>) -> Result<Object<'a>, Malformed> {
    match at.u8()? {
        b'S' => Ok(Object::Statement(at.text()?)),
        b'P' => Ok(Object::Portal(at.text()?)),
        _ => Err(at.malformed()),
    }
}

fn write_object(out: &mut Vec<u8>, object: Object) {
    let (kind, name) = match object {
        Object::Statement(name) => (b'S', name),
        Object::Portal(name) => (b'P', name),
    };
    out.push(kind);
    text(out, name);
}

fn name_of(tag: u8) -> &'static str {
    match tag {
        b'Q' => "Query",
        b'P' => "Parse",
        b'B' => "Bind",
        b'D' => "Describe",
        b'C' => "Close",
        b'E' => "Execute",
        b'F' => "FunctionCall",
        b'f' => "CopyFail",
        b'S' => "Sync",
        b'H' => "Flush",
        b'c' => "CopyDone",
        b'X' => "Terminate",
        _ => "message of an unknown type",
    }
}

/// What a client answers to a request for authentication (`p`): which of these it is, the
/// request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a [u8],
    /// Its first message, if there is one.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Read the body of the first `p` of a SASL exchange.  The later ones are bare data.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(body, "SASLInitialResponse");
        let response = Self {
            mechanism: at.text()?,
            data: at.value()?,
        };
        at.end()?;
        Ok(response)
    }

    /// Append the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let length = match self.data {
            Some(data) => i32::try_from(data.len()).unwrap_or(i32::MAX),
            None => -1,
        };
        message(out, b'p', |out| {
            text(out, self.mechanism);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(self.data.unwrap_or_default());
        });
    }
}

/// Append a later `p` of a SASL exchange.
pub fn write_sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, b'p', |out| out.extend_from_slice(data));
}
