//! What is kept instead of a password.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{Engine, BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ScramError;

pub(super) const KEY: usize = 32;
/// Postgres itself sets no limit; a hostile server could make us count for minutes.
/// As Postgres derives them.
const ITERATIONS: u32 = 4096;
pub(super) const MOST_ITERATIONS: u32 = 1_000_000;

/// What proves a user and what proves a server.  Enough to log in as this user.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyPair {
    pub(super) client: [u8; KEY],
    pub(super) server: [u8; KEY],
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("KeyPair { .. }")
    }
}

impl KeyPair {
    /// For the process that takes this one's place, and nobody else.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.client, self.server].concat())
    }

    /// What `to_bytes` gave; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (client, server) = bytes.split_at_checked(KEY)?;
        Some(Self {
            client: client.try_into().ok()?,
            server: server.try_into().ok()?,
        })
    }

    /// From a password.  Takes milliseconds by design: `iterations` hashes.
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut prepared = prepare(password);
        let mut salted = [0; KEY];
        pbkdf2::pbkdf2_hmac::<Sha256>(&prepared, salt, iterations, &mut salted);
        let pair = Self {
            client: mac(&salted, b"Client Key"),
            server: mac(&salted, b"Server Key"),
        };
        prepared.zeroize();
        salted.zeroize();
        pair
    }
}

/// A line of `pg_authid.rolpassword`: enough to check a user, not enough to be one.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored: [u8; KEY],
    pub(super) server: [u8; KEY],
    /// Of a user that does not exist: no proof fits.
    #[zeroize(skip)]
    pub(super) is_mock: bool,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Secret {{ iterations: {}, .. }}", self.iterations)
    }
}

impl Secret {
    /// What a server would store for this password.
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let keys = KeyPair::from_password(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored: Sha256::digest(keys.client).into(),
            server: keys.server,
            is_mock: false,
        }
    }

    /// What a user whose password is known in clear is asked.  Its salt is made as a `mock`'s: the
    /// same for the same name, so that nobody learns by asking twice who is known.
    pub fn of_user(user: &[u8], password: &[u8], process_key: &[u8]) -> Self {
        Self::from_password(password, &salt_of(user, process_key), ITERATIONS)
    }

    /// What a user that does not exist is asked, so that nobody learns who does: the same salt
    /// for the same name as long as `process_key` lives, and no proof fits.
    pub fn mock(user: &[u8], process_key: &[u8]) -> Self {
        let salt = salt_of(user, process_key);
        Self {
            iterations: ITERATIONS,
            stored: mac(&salt, b"no stored key"),
            server: mac(&salt, b"no server key"),
            salt,
            is_mock: true,
        }
    }

    /// The line as `pg_authid` has it.  Who has it can check passwords against it offline: for
    /// files of mode 0600, never for logs.
    pub fn to_line(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64_STANDARD.encode(&self.salt),
            BASE64_STANDARD.encode(self.stored),
            BASE64_STANDARD.encode(self.server)
        )
    }

    /// Whether keys belong to this secret.  When they no longer do, the password was changed.
    pub fn fits(&self, keys: &KeyPair) -> bool {
        let stored: [u8; KEY] = Sha256::digest(keys.client).into();
        bool::from(stored.ct_eq(&self.stored) & keys.server.ct_eq(&self.server)) && !self.is_mock
    }
}

impl FromStr for Secret {
    type Err = ScramError;

    fn from_str(line: &str) -> Result<Self, ScramError> {
        let rest = line
            .strip_prefix("SCRAM-SHA-256$")
            .ok_or(ScramError::Malformed)?;
        let (front, keys) = rest.split_once('$').ok_or(ScramError::Malformed)?;
        let (iterations, salt) = front.split_once(':').ok_or(ScramError::Malformed)?;
        let (stored, server) = keys.split_once(':').ok_or(ScramError::Malformed)?;
        Ok(Self {
            iterations: iterations_of(iterations)?,
            salt: decode(salt)?,
            stored: key(stored)?,
            server: key(server)?,
            is_mock: false,
        })
    }
}

pub(super) fn iterations_of(text: &str) -> Result<u32, ScramError> {
    let count: u32 = text.parse().map_err(|_| ScramError::Malformed)?;
    if (1..=MOST_ITERATIONS).contains(&count) {
        Ok(count)
    } else {
        Err(ScramError::Iterations)
    }
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, ScramError> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| ScramError::Malformed)
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(super) fn key(text: &str) -> Result<[u8; KEY], ScramError> {
    decode(text)?.try_into().map_err(|_| ScramError::Malformed)
}

fn salt_of(user: &[u8], process_key: &[u8]) -> Vec<u8> {
    mac(process_key, user)[..16].to_vec()
}

pub(super) fn mac(key: &[u8], message: &[u8]) -> [u8; KEY] {
    // HMAC takes keys of any length, so there is no error to hand on.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(message).finalize().into_bytes().into())
        .unwrap_or_default()
}

pub(super) fn xor(mut left: [u8; KEY], right: &[u8; KEY]) -> [u8; KEY] {
    left.iter_mut()
        .zip(right)
        .for_each(|(left, right)| *left ^= right);
    left
}

/// `SASLprep`, or the bytes as they are where it does not apply, as Postgres does.
fn prepare(password: &[u8]) -> Vec<u8> {
    std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes())
}
