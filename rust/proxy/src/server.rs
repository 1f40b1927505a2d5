//! A session at a Postgres server: connect, log in, cancel.
//!
//! Rule: nothing here waits without a deadline, and nothing a server says makes us keep more than
//! the table in `wire::frame` allows.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use flightmode_pooler::guc::Values;
use flightmode_pooler::prepared::Prepared;
use flightmode_wire::frame::{Rules, Stage, Talker};
use flightmode_wire::scram::{Binding, Client as Scram, Credential};
use flightmode_wire::server::{Authentication, FromServer};
use flightmode_wire::startup::{CancelKey, Opening, Startup, V3_0};
use flightmode_wire::{client, report::Report};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::stream::{read_now, Stream};

/// Where a server is and how it is spoken to.
#[derive(Clone)]
pub struct Target {
    /// A name or address; with a leading `/` the directory of its Unix socket.
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Without TLS is better than not at all.
    pub tls_optional: bool,
}

/// Who logs in.
#[derive(Clone)]
pub struct Identity {
    pub user: Vec<u8>,
    pub database: Vec<u8>,
    pub credential: Option<Credential>,
    pub startup: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A session that is logged in and idle.
pub struct Server {
    pub stream: Stream,
    /// What came and was not read yet.
    pub unread: BytesMut,
    /// What is still to be sent.
    pub unsent: BytesMut,
    pub reported: Rc<Values>,
    /// It said last that it is one (`in_hot_standby`).
    pub is_standby: bool,
    pub key: Option<Rc<CancelKey>>,
    /// The settings that were given to it for its clients.
    pub settings: Rc<Values>,
    pub prepared: Prepared,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("it can't be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("it did not answer in time")]
    Timeout,
    #[error("it refused: {message}")]
    Refused { sqlstate: String, message: String },
    #[error("it speaks something else: {0}")]
    Protocol(String),
}

impl ConnectError {
    /// What the server said of this user or database, if it will say so again: not that it starts
    /// up, ends, or is full.
    pub fn verdict(&self) -> Option<(&str, &str)> {
        match self {
            Self::Refused { sqlstate, message }
                if matches!(sqlstate.as_str(), "3D000" | "28000" | "28P01" | "42501") =>
            {
                Some((sqlstate, message))
            }
            _ => None,
        }
    }
}

/// Log in.  Raises within `within` whatever the server does.
pub async fn connect(
    target: &Target,
    identity: &Identity,
    within: Duration,
    most_prepared: usize,
) -> Result<Server, ConnectError> {
    let login = async {
        let mut stream = open(target).await?;
        let binding = binding_of(&stream);
        send_startup(&mut stream, identity).await?;
        log_in(stream, identity, binding, most_prepared).await
    };
    let done = tokio::time::timeout(within, login).await;
    done.unwrap_or(Err(ConnectError::Timeout))
}

/// Ask the server to stop what the session runs.  Returns when the server has closed, so that it
/// has struck or never will.
pub async fn cancel(
    target: &Target,
    key: &CancelKey,
    within: Duration,
) -> Result<(), ConnectError> {
    let ask = async {
        let mut stream = open(target).await?;
        let mut request = Vec::new();
        Opening::Cancel(key.clone()).write(&mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut nothing = [0; 64];
        while stream.read(&mut nothing).await? > 0 {}
        Ok(())
    };
    let done = tokio::time::timeout(within, ask).await;
    done.unwrap_or(Err(ConnectError::Timeout))
}

async fn open(target: &Target) -> Result<Stream, ConnectError> {
    if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
        return Ok(Stream::Unix(UnixStream::connect(path).await?));
    }
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    tune(&stream)?;
    match &target.tls {
        None => Ok(Stream::Tcp(stream)),
        Some(tls) => secure(stream, target, Arc::clone(tls)).await,
    }
}

/// A host that vanished is noticed in seconds, not in a quarter of an hour.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(3)))
}

async fn secure(
    mut stream: TcpStream,
    target: &Target,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Stream, ConnectError> {
    let mut request = Vec::new();
    Opening::Ssl.write(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => (),
        b'N' if target.tls_optional => return Ok(Stream::Tcp(stream)),
        b'N' => return Err(ConnectError::Protocol("it has no TLS".to_owned())),
        other => {
            let words = format!("0x{other:02x} as answer to a request for TLS");
            return Err(ConnectError::Protocol(words));
        }
    }
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| ConnectError::Protocol(format!("{} is no name of a host", target.host)))?;
    let secured = TlsConnector::from(tls).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(secured)))
}

fn binding_of(stream: &Stream) -> Binding {
    let Stream::Tls(tls) = stream else {
        return Binding::Impossible;
    };
    let (_, connection) = tls.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    // Whoever can't bind must not say that it could: Postgres takes that for an offer that
    // somebody changed, and refuses.
    let hash = certificate.and_then(|found| crate::tls::end_point(found));
    hash.map_or(Binding::Impossible, Binding::EndPoint)
}

async fn send_startup(stream: &mut Stream, identity: &Identity) -> io::Result<()> {
    let mut parameters: Vec<(&[u8], &[u8])> =
        vec![(b"user", &identity.user), (b"database", &identity.database)];
    parameters.extend(
        identity
            .startup
            .iter()
            .map(|(name, value)| (&**name, &**value)),
    );
    let startup = Startup {
        version: V3_0,
        parameters,
    };
    let mut bytes = Vec::new();
    Opening::Startup(startup).write(&mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn log_in(
    mut stream: Stream,
    identity: &Identity,
    binding: Binding,
    most_prepared: usize,
) -> Result<Server, ConnectError> {
    let mut unread = BytesMut::with_capacity(4096);
    let mut reported = Values::new();
    let mut key = None;
    let mut exchange = None;
    let rules = Rules::new(Talker::Server, Stage::Login);
    loop {
        let frame = loop {
            match rules.peek(&unread).map_err(|wrong| protocol(&wrong))? {
                Some(frame) if unread.len() >= frame.len => break frame,
                _ => (),
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        let bytes = unread.split_to(frame.len);
        let body = &bytes[5..];
        match FromServer::read(frame.tag, body).map_err(|wrong| protocol(&wrong))? {
            FromServer::Authentication(request) => {
                let mut answer = Vec::new();
                authenticate(&request, identity, &binding, &mut exchange, &mut answer)?;
                stream.write_all(&answer).await?;
                stream.flush().await?;
            }
            FromServer::BackendKeyData(found) => key = Some(Rc::new(found)),
            FromServer::ParameterStatus { name, value } => {
                reported.insert(name.to_vec(), value.to_vec());
            }
            FromServer::ReadyForQuery(_) => break,
            FromServer::Error(report) => return Err(refused(&report)),
            FromServer::Notice(_) | FromServer::NegotiateProtocolVersion { .. } => (),
            other => {
                return Err(ConnectError::Protocol(format!(
                    "{other:?} during the login"
                )))
            }
        }
    }
    Ok(Server {
        stream,
        unread,
        unsent: BytesMut::new(),
        is_standby: reported.get(STANDBY).is_some_and(|said| said == b"on"),
        reported: Rc::new(reported),
        key,
        settings: Rc::default(),
        prepared: Prepared::new(most_prepared),
    })
}

fn authenticate(
    request: &Authentication,
    identity: &Identity,
    binding: &Binding,
    exchange: &mut Option<Scram>,
    answer: &mut Vec<u8>,
) -> Result<(), ConnectError> {
    let lacking = || ConnectError::Refused {
        sqlstate: "28P01".to_owned(),
        message: "it wants a password, and there is none for this user".to_owned(),
    };
    match request {
        Authentication::Ok => (),
        Authentication::Sasl(offer) => {
            let credential = identity.credential.clone().ok_or_else(lacking)?;
            let mechanism = Scram::choose(offer, binding)
                .ok_or_else(|| ConnectError::Protocol("it offers no SCRAM-SHA-256".to_owned()))?;
            let started = Scram::new(mechanism, credential, binding.clone(), &nonce())
                .map_err(|wrong| protocol(&wrong))?;
            let first = started.first();
            client::SaslInitialResponse {
                mechanism: mechanism.as_bytes(),
                data: Some(first.as_bytes()),
            }
            .write(answer);
            *exchange = Some(started);
        }
        Authentication::SaslContinue(challenge) => {
            let started = exchange.as_mut().ok_or_else(lacking)?;
            let last = started
                .answer(challenge)
                .map_err(|wrong| protocol(&wrong))?;
            client::write_sasl_response(answer, last.as_bytes());
        }
        Authentication::SaslFinal(proof) => {
            let started = exchange.as_mut().ok_or_else(lacking)?;
            started.finish(proof).map_err(|wrong| protocol(&wrong))?;
        }
        Authentication::CleartextPassword | Authentication::Md5Password(_) => {
            // It will say so each time: nobody waits for another answer.
            return Err(ConnectError::Refused {
                sqlstate: "28P01".to_owned(),
                message: "it wants a password in a form that is not safe; use scram-sha-256"
                    .to_owned(),
            });
        }
        Authentication::Other { number, .. } => {
            return Err(ConnectError::Protocol(format!(
                "authentication method {number}"
            )));
        }
    }
    Ok(())
}

/// Eighteen random bytes in printable form.
pub fn nonce() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0; 24];
    fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte & 63)]))
        .collect()
}

/// Random bytes of the system.
pub fn fill(bytes: &mut [u8]) {
    // Linux gives them or the machine is not able to do anything safely.
    if getrandom::fill(bytes).is_err() {
        std::process::abort();
    }
}

fn protocol(wrong: &dyn std::error::Error) -> ConnectError {
    ConnectError::Protocol(wrong.to_string())
}

fn refused(report: &Report) -> ConnectError {
    ConnectError::Refused {
        sqlstate: report.sqlstate().unwrap_or("XX000").to_owned(),
        message: String::from_utf8_lossy(report.field(b'M').unwrap_or_default()).into_owned(),
    }
}

/// For a log line.
pub fn peer(address: Option<SocketAddr>) -> String {
    address.map_or_else(
        || "a local client".to_owned(),
        |address| address.to_string(),
    )
}

/// What servers report since version 14.
const STANDBY: &[u8] = b"in_hot_standby";

impl Server {
    /// It reports a setting.
    pub fn on_status(&mut self, name: &[u8], value: &[u8]) {
        Rc::make_mut(&mut self.reported).insert(name.to_vec(), value.to_vec());
        if name == STANDBY {
            self.is_standby = value == b"on";
        }
    }

    /// Whether it is still there and has nothing to say.  Settings that it reports are taken note
    /// of; anything else that nobody asked for ends it.
    pub fn is_quiet(&mut self) -> bool {
        loop {
            match read_now(&mut self.stream, &mut self.unread) {
                Ok(length) if length > 0 => (),
                Err(wrong) if wrong.kind() == io::ErrorKind::WouldBlock => {
                    return self.take_settings();
                }
                _ => return false,
            }
        }
    }

    fn take_settings(&mut self) -> bool {
        let rules = Rules::new(Talker::Server, Stage::Session);
        while let Ok(Some(frame)) = rules.peek(&self.unread) {
            if self.unread.len() < frame.len {
                break;
            }
            let bytes = self.unread.split_to(frame.len);
            match FromServer::read(frame.tag, &bytes[5..]) {
                Ok(FromServer::ParameterStatus { name, value }) => {
                    self.on_status(name, value);
                }
                Ok(FromServer::Notice(_)) => (),
                _ => return false,
            }
        }
        true
    }
}
