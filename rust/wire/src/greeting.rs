//! The order in which a connection may begin, and the one answer to each step.
//!
//! Intuition: before the login a client may ask twice for encryption, once for each kind, and
//! every extra turn is a way in for somebody: loops of requests (CVE-2026-6479), or bytes that a
//! man in the middle puts before the handshake to be read as if they had come after it
//! (CVE-2021-3935).
//!
//! Rule: one request of each kind; nothing may lie in the buffer when TLS begins; once TLS runs,
//! nothing but a cancel or the start-up packet is left to say.

use crate::startup::{CancelKey, Opening, Startup, TLS_FIRST_BYTE};

/// What this side offers before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// There is a certificate.
    pub tls: bool,
    /// Nothing but a request for TLS is heard in plain text.
    pub tls_only: bool,
}

/// What has to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Answer `N` and read the next packet.
    Refuse,
    /// Answer `S` and start TLS.
    AcceptTls,
    /// Forward a cancel and close.
    Cancel(CancelKey),
    /// Go on to the login.
    Login(Startup<'a>),
}

/// Why a connection ends before it began.  The text is for the client and for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A second request of a kind, or one after TLS began.
    #[error("encryption was asked for again")]
    AskedAgain,
    /// Bytes between the request and the handshake.
    #[error("received unencrypted data after SSL request")]
    BytesBeforeTls,
    /// TLS is a must and was not asked for.
    #[error("connection requires TLS; add sslmode=require")]
    PlainText,
    /// TLS at once, and there is no certificate.
    #[error("direct TLS is not available")]
    NoTls,
    /// Direct TLS is only safe when the handshake names the protocol.
    #[error("direct TLS needs the ALPN protocol \"postgresql\"")]
    NoAlpn,
}

/// How far a connection is before its login.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    offer: Offer,
    asked_ssl: bool,
    asked_gss: bool,
    in_tls: bool,
}

impl Greeting {
    /// A fresh connection.
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            asked_ssl: false,
            asked_gss: false,
            in_tls: false,
        }
    }

    /// Whether the very first byte begins a TLS handshake; an error if we can't take it.
    pub fn is_direct_tls(&self, first_byte: u8) -> Result<bool, Refusal> {
        let fresh = !(self.asked_ssl || self.asked_gss || self.in_tls);
        match (fresh && first_byte == TLS_FIRST_BYTE, self.offer.tls) {
            (true, false) => Err(Refusal::NoTls),
            (direct, _) => Ok(direct),
        }
    }

    /// A handshake that was asked for by packet is done.
    pub fn tls_done(&mut self) {
        self.in_tls = true;
    }

    /// A direct handshake is done; `alpn` is what it agreed on.
    pub fn direct_tls_done(&mut self, alpn: Option<&[u8]>) -> Result<(), Refusal> {
        if alpn == Some(b"postgresql") {
            self.in_tls = true;
            Ok(())
        } else {
            Err(Refusal::NoAlpn)
        }
    }

    /// Whether the connection is encrypted.
    pub fn in_tls(&self) -> bool {
        self.in_tls
    }

    /// A packet came, with `more` bytes behind it in the buffer.
    pub fn on<'a>(&mut self, opening: Opening<'a>, more: usize) -> Result<Step<'a>, Refusal> {
        match opening {
            Opening::Ssl => self.on_ssl(more),
            Opening::Gss => self.on_gss(more),
            _ if self.offer.tls_only && !self.in_tls => Err(Refusal::PlainText),
            Opening::Cancel(key) => Ok(Step::Cancel(key)),
            Opening::Startup(startup) => Ok(Step::Login(startup)),
        }
    }

    fn on_ssl<'a>(&mut self, more: usize) -> Result<Step<'a>, Refusal> {
        if self.asked_ssl || self.in_tls {
            return Err(Refusal::AskedAgain);
        }
        if more > 0 {
            return Err(Refusal::BytesBeforeTls);
        }
        self.asked_ssl = true;
        Ok(if self.offer.tls {
            Step::AcceptTls
        } else {
            Step::Refuse
        })
    }

    fn on_gss<'a>(&mut self, more: usize) -> Result<Step<'a>, Refusal> {
        if self.asked_gss || self.in_tls {
            return Err(Refusal::AskedAgain);
        }
        if more > 0 {
            return Err(Refusal::BytesBeforeTls);
        }
        self.asked_gss = true;
        Ok(Step::Refuse)
    }
}
