//! Both sides of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.
//!
//! Why not a ready-made client: it starts from a password.  A proxy that keeps no passwords
//! starts from keys: what `pg_authid` holds lets us check a client, and the key that the client's
//! own proof reveals lets us log in to the server as that client (key passthrough).
//!
//! Nonces come in as arguments; secrets are wiped when dropped and never shown.
//!
//! Source: RFC 5802, 7677, 5929; Postgres manual, "SASL Authentication".

mod client;
mod keys;
mod server;

pub use client::{Client, Credential};
pub use keys::{KeyPair, Secret};
pub use server::{Proven, Server};

/// Without channel binding.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// With the server's certificate bound in.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not what the RFC says.
    #[error("malformed SCRAM message")]
    Malformed,
    /// Neither of the two, or one that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// Somebody between us took PLUS out of the offer.
    #[error("the client believes that this side can't bind channels: the offer was changed")]
    Downgrade,
    /// The two ends see different certificates.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// The other side answers to another exchange.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// More rounds than anybody configures: a way to keep us busy.
    #[error("SCRAM iteration count is out of range")]
    Iterations,
    /// The password is wrong, or nobody has this name.
    #[error("SCRAM proof does not match")]
    Proof,
    /// The server refuses, or can't prove that it knows the secret.
    #[error("the server did not prove that it knows the secret")]
    ServerSignature,
}

/// What the channel offers to bind to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No TLS, or this side does not bind.
    Impossible,
    /// This side can bind and the offer did not name PLUS.
    Unused,
    /// `tls-server-end-point`: the hash of the server's certificate.
    EndPoint(Vec<u8>),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Impossible => "n,,",
            Self::Unused => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// What `c=` must hold.
    fn input(&self) -> Vec<u8> {
        let mut input = self.header().as_bytes().to_vec();
        if let Self::EndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        input
    }
}

/// The hash that a certificate is bound by, after the hash of its signature (RFC 5929, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndPointHash {
    /// SHA-224.
    Sha224,
    /// Also where the signature uses MD5 or SHA-1.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl EndPointHash {
    /// The binding data of a certificate in DER.
    pub fn of(self, certificate: &[u8]) -> Vec<u8> {
        use sha2::Digest;
        match self {
            Self::Sha224 => sha2::Sha224::digest(certificate).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(certificate).to_vec(),
            Self::Sha384 => sha2::Sha384::digest(certificate).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(certificate).to_vec(),
        }
    }
}

/// A nonce's text must be printable and free of commas.
fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce
            .bytes()
            .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b',')
}

/// `name=value`, cut at the next comma: the value and what follows the comma.
fn attribute<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str), ScramError> {
    let value = text.strip_prefix(name).ok_or(ScramError::Malformed)?;
    Ok(value.split_once(',').unwrap_or((value, "")))
}

fn utf8(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}
