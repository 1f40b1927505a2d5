//! Errors and notices: the same fields under two tags.
//!
//! Rule: every field may be missing, any may be there twice, unknown ones are kept.  A hostile
//! server gets no further than a report without a code.
//!
//! Source: Postgres manual, "Error and Notice Message Fields".

use crate::cursor::{message, text, Cursor, Malformed};

/// The fields as they came, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    fields: Vec<(u8, &'a [u8])>,
}

impl<'a> Report<'a> {
    /// Read the body of an `ErrorResponse` or `NoticeResponse`.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(body, "ErrorResponse or NoticeResponse");
        let mut fields = Vec::new();
        loop {
            match at.u8()? {
                0 => break,
                kind => fields.push((kind, at.text()?)),
            }
        }
        at.end()?;
        Ok(Self { fields })
    }

    /// One of our own: severity, SQLSTATE and message.
    pub fn new(severity: &'a str, code: &'a str, message: &'a str) -> Self {
        let severity = severity.as_bytes();
        Self {
            fields: vec![
                (b'S', severity),
                (b'V', severity),
                (b'C', code.as_bytes()),
                (b'M', message.as_bytes()),
            ],
        }
    }

    /// The same with one more field (`D` detail, `H` hint).
    #[must_use]
    pub fn with(mut self, kind: u8, value: &'a str) -> Self {
        self.fields.push((kind, value.as_bytes()));
        self
    }

    /// A field by its letter; the first, if it is there twice.
    pub fn field(&self, kind: u8) -> Option<&'a [u8]> {
        self.fields
            .iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| *value)
    }

    /// The five letters of the code, if it is one.
    pub fn sqlstate(&self) -> Option<&'a str> {
        let code = self.field(b'C')?;
        let is_code = code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric);
        if is_code {
            std::str::from_utf8(code).ok()
        } else {
            None
        }
    }

    /// Whether the server ends the session after this.  Read from the severity that is never
    /// translated (since 9.6).
    pub fn is_fatal(&self) -> bool {
        matches!(self.field(b'V'), Some(b"FATAL" | b"PANIC"))
    }

    /// Whether this notice says that a commit did not wait for its standby.
    ///
    /// What follows it looks like success and is not one.  Its text is translated and its code
    /// is a general one; the name of the routine is neither.
    pub fn is_unconfirmed_commit(&self) -> bool {
        self.field(b'R') == Some(b"SyncRepWaitForLSN")
    }

    /// Append it as an error.
    pub fn write_error(&self, out: &mut Vec<u8>) {
        self.write(out, b'E');
    }

    /// Append it as a notice.
    pub fn write_notice(&self, out: &mut Vec<u8>) {
        self.write(out, b'N');
    }

    fn write(&self, out: &mut Vec<u8>, tag: u8) {
        message(out, tag, |out| {
            for (kind, value) in &self.fields {
                out.push(*kind);
                text(out, value);
            }
            out.push(0);
        });
    }
}
