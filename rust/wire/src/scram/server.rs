//! A client logs in to us.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::keys::{decode, encode, key, mac, xor, KEY};
use super::{attribute, is_nonce, utf8, Binding, KeyPair, ScramError, Secret, PLAIN, PLUS};

enum State {
    First,
    Challenged {
        input: Vec<u8>,
        auth_front: String,
        nonce: String,
    },
    Done,
}

/// What a client has shown.
#[derive(Debug)]
pub struct Proven {
    /// Our last message: proof that we know the secret too.
    pub last: String,
    /// The client's keys: what we log in to the server with, as this client.
    pub keys: KeyPair,
}

/// One exchange.
pub struct Server {
    secret: Secret,
    binding: Binding,
    nonce: String,
    state: State,
}

impl Server {
    /// What to offer on this channel: PLUS first, and only where there is something to bind to.
    pub fn offer(binding: &Binding) -> &'static [&'static str] {
        match binding {
            Binding::EndPoint(_) => &[PLUS, PLAIN],
            Binding::Impossible | Binding::Unused => &[PLAIN],
        }
    }

    /// An exchange; `nonce` is our half: fresh, printable and without a comma.
    pub fn new(secret: Secret, binding: Binding, nonce: &str) -> Result<Self, ScramError> {
        if !is_nonce(nonce) {
            return Err(ScramError::Nonce);
        }
        Ok(Self {
            secret,
            binding,
            nonce: nonce.to_owned(),
            state: State::First,
        })
    }

    /// The client's first message came: our challenge.
    pub fn challenge(&mut self, mechanism: &[u8], first: &[u8]) -> Result<String, ScramError> {
        if !matches!(self.state, State::First) {
            return Err(ScramError::Malformed);
        }
        self.state = State::Done;
        let first = utf8(first)?;
        let (flag, rest) = first.split_once(',').ok_or(ScramError::Malformed)?;
        let input = self.expected_input(mechanism, flag)?;
        // An authorisation name is not supported, as in Postgres.
        let bare = rest.strip_prefix(',').ok_or(ScramError::Malformed)?;
        let (_name, rest) = attribute(bare, "n=")?;
        let (nonce, _) = attribute(rest, "r=")?;
        if !is_nonce(nonce) {
            return Err(ScramError::Nonce);
        }
        let nonce = format!("{nonce}{}", self.nonce);
        let challenge = format!(
            "r={nonce},s={},i={}",
            encode(&self.secret.salt),
            self.secret.iterations
        );
        self.state = State::Challenged {
            input,
            auth_front: format!("{bare},{challenge}"),
            nonce,
        };
        Ok(challenge)
    }

    /// The client's final message came: our last word and the client's keys.
    pub fn check(&mut self, last: &[u8]) -> Result<Proven, ScramError> {
        let State::Challenged {
            input,
            auth_front,
            nonce,
        } = std::mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::Malformed);
        };
        let (without_proof, proof) = utf8(last)?
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed)?;
        let (bound, rest) = attribute(without_proof, "c=")?;
        let (answered, _) = attribute(rest, "r=")?;
        if !bool::from(decode(bound)?.ct_eq(&input)) {
            return Err(ScramError::Binding);
        }
        if answered != nonce {
            return Err(ScramError::Nonce);
        }
        let auth_message = format!("{auth_front},{without_proof}");
        let client = xor(
            key(proof)?,
            &mac(&self.secret.stored, auth_message.as_bytes()),
        );
        let stored: [u8; KEY] = Sha256::digest(client).into();
        // A user that does not exist fails here and takes as long as one who does.
        if !bool::from(stored.ct_eq(&self.secret.stored)) || self.secret.is_mock {
            return Err(ScramError::Proof);
        }
        let signature = mac(&self.secret.server, auth_message.as_bytes());
        let keys = KeyPair {
            client,
            server: self.secret.server,
        };
        Ok(Proven {
            last: format!("v={}", encode(&signature)),
            keys,
        })
    }

    /// What the client must repeat in `c=`, after its flag.
    fn expected_input(&self, mechanism: &[u8], flag: &str) -> Result<Vec<u8>, ScramError> {
        let can_bind = matches!(self.binding, Binding::EndPoint(_));
        match (mechanism == PLUS.as_bytes(), flag) {
            (true, "p=tls-server-end-point") if can_bind => Ok(self.binding.input()),
            (true, flag) if can_bind && flag.starts_with("p=") => Err(ScramError::Binding),
            (true, _) => Err(ScramError::Mechanism),
            (false, _) if mechanism != PLAIN.as_bytes() => Err(ScramError::Mechanism),
            (false, "n") => Ok(Binding::Impossible.input()),
            (false, "y") if can_bind => Err(ScramError::Downgrade),
            (false, "y") => Ok(Binding::Unused.input()),
            (false, _) => Err(ScramError::Malformed),
        }
    }
}
