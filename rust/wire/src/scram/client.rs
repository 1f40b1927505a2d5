//! We log in to a server.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::keys::{decode, encode, iterations_of, mac, xor, KEY};
use super::{attribute, is_nonce, utf8, Binding, KeyPair, ScramError, PLAIN, PLUS};

/// What we log in with.
#[derive(Clone)]
pub enum Credential {
    /// A password; keys are made of it when the salt is known.
    Password(zeroize::Zeroizing<Vec<u8>>),
    /// Keys that were made with the server's own salt and count.
    Keys(KeyPair),
}

enum State {
    First,
    Proven {
        server: [u8; KEY],
        auth_message: String,
    },
    Done,
}

/// One exchange.
pub struct Client {
    credential: Credential,
    binding: Binding,
    bare: String,
    nonce: String,
    state: State,
}

impl Client {
    /// The best of what a server offers: PLUS where the channel can be bound.  `None` if the
    /// server offers neither.
    pub fn choose(offer: &[&[u8]], binding: &Binding) -> Option<&'static str> {
        let has = |name: &str| offer.contains(&name.as_bytes());
        match binding {
            Binding::EndPoint(_) if has(PLUS) => Some(PLUS),
            _ if has(PLAIN) => Some(PLAIN),
            _ => None,
        }
    }

    /// An exchange with `mechanism`, of [`Client::choose`]; `nonce` must be fresh, printable and
    /// without a comma.
    pub fn new(
        mechanism: &str,
        credential: Credential,
        binding: Binding,
        nonce: &str,
    ) -> Result<Self, ScramError> {
        if !is_nonce(nonce) {
            return Err(ScramError::Nonce);
        }
        let binding = match (mechanism, binding) {
            // We could bind and the offer says that the server can't: say so, for the server
            // knows whether that is true.
            (PLAIN, Binding::EndPoint(_)) => Binding::Unused,
            (PLUS, binding @ Binding::EndPoint(_)) | (PLAIN, binding) => binding,
            _ => return Err(ScramError::Mechanism),
        };
        // Postgres takes the name of the start-up packet and ignores this one.
        let bare = format!("n=,r={nonce}");
        Ok(Self {
            credential,
            binding,
            bare,
            nonce: nonce.to_owned(),
            state: State::First,
        })
    }

    /// The first message.
    pub fn first(&self) -> String {
        format!("{}{}", self.binding.header(), self.bare)
    }

    /// The server's challenge came: the final message, with the proof.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<String, ScramError> {
        if !matches!(self.state, State::First) {
            return Err(ScramError::Malformed);
        }
        self.state = State::Done;
        let challenge = utf8(challenge)?;
        let (nonce, rest) = attribute(challenge, "r=")?;
        let (salt, rest) = attribute(rest, "s=")?;
        let (iterations, _) = attribute(rest, "i=")?;
        if !is_nonce(nonce) || !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let (salt, iterations) = (decode(salt)?, iterations_of(iterations)?);
        let keys = match &self.credential {
            Credential::Password(word) => KeyPair::from_password(word, &salt, iterations),
            Credential::Keys(keys) => keys.clone(),
        };
        let without_proof = format!("c={},r={nonce}", encode(&self.binding.input()));
        let auth_message = format!("{},{challenge},{without_proof}", self.bare);
        let stored: [u8; KEY] = Sha256::digest(keys.client).into();
        let proof = xor(keys.client, &mac(&stored, auth_message.as_bytes()));
        self.state = State::Proven {
            server: keys.server,
            auth_message,
        };
        Ok(format!("{without_proof},p={}", encode(&proof)))
    }

    /// The server's last word came: it must prove that it knows the secret too.
    pub fn finish(&mut self, last: &[u8]) -> Result<(), ScramError> {
        let State::Proven {
            server,
            auth_message,
        } = std::mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::Malformed);
        };
        let signature = utf8(last)?
            .strip_prefix("v=")
            .ok_or(ScramError::ServerSignature)?;
        let expected = mac(&server, auth_message.as_bytes());
        if bool::from(decode(signature)?.ct_eq(&expected)) {
            Ok(())
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}
