//! A client comes in: TLS, the start-up packet, and the proof of who it is.
//!
//! Rule: until that proof, a client may make us keep `preauth_bytes` and wait `preauth_s`, no more.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::BytesMut;
use flightmode_wire::client::SaslInitialResponse;
use flightmode_wire::frame::{Rules, Stage, Talker};
use flightmode_wire::greeting::{Greeting, Offer, Step};
use flightmode_wire::report::Report;
use flightmode_wire::scram::{Binding, Credential, Secret, Server as Scram};
use flightmode_wire::server::{Authentication, FromServer};
use flightmode_wire::startup::{CancelKey, Negotiated, Opening};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{Config, Method};
use crate::secrets::{method_for, Known};
use crate::server::{fill, nonce};
use crate::shard::Door;
use crate::stream::Stream;

/// A client that has proved who it is.
pub struct Guest {
    pub stream: Stream,
    pub unread: BytesMut,
    pub user: String,
    pub database: String,
    /// Its start-up parameters that are settings.
    pub settings: Vec<(Vec<u8>, Vec<u8>)>,
    pub credential: Option<Credential>,
    /// What has to be told before the login ends.
    pub negotiation: Vec<u8>,
    pub secret_len: usize,
    /// It wants to replicate, and needs a server of its own.
    pub replication: Option<Vec<u8>>,
}

/// What came of it.
pub enum Arrival {
    Guest(Box<Guest>),
    Cancel(CancelKey),
}

/// Why a client was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("{message}")]
    Told {
        sqlstate: &'static str,
        message: String,
    },
}

fn told(sqlstate: &'static str, message: impl Into<String>) -> Refused {
    Refused::Told {
        sqlstate,
        message: message.into(),
    }
}

/// Receive a client.  The caller puts a limit of time around it.
pub async fn receive(
    mut stream: Stream,
    address: Option<IpAddr>,
    door: &Rc<Door>,
    config: &Config,
) -> Result<Arrival, Refused> {
    let mut unread = BytesMut::with_capacity(1024);
    let outcome = greet(&mut stream, &mut unread, address, door, config).await;
    match outcome {
        Ok(Greeted::Cancel(key)) => Ok(Arrival::Cancel(key)),
        Ok(Greeted::Guest(mut guest)) => {
            guest.stream = stream;
            guest.unread = unread;
            Ok(Arrival::Guest(guest))
        }
        Err(refused) => {
            if let Refused::Told { sqlstate, message } = &refused {
                let mut bytes = Vec::new();
                Report::new("FATAL", sqlstate, message).write_error(&mut bytes);
                // It may have gone already.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
            Err(refused)
        }
    }
}

enum Greeted {
    Guest(Box<Guest>),
    Cancel(CancelKey),
}

async fn greet(
    stream: &mut Stream,
    unread: &mut BytesMut,
    address: Option<IpAddr>,
    door: &Rc<Door>,
    config: &Config,
) -> Result<Greeted, Refused> {
    let mut greeting = Greeting::new(Offer {
        tls: door.acceptor.is_some() && matches!(stream, Stream::Tcp(_)),
        tls_only: door.tls_only && matches!(stream, Stream::Tcp(_)),
    });
    loop {
        more(stream, unread, 1, config).await?;
        if greeting
            .is_direct_tls(unread[0])
            .map_err(|wrong| told("08P01", wrong.to_string()))?
        {
            accept_tls(stream, unread, door).await?;
            let alpn = alpn_of(stream);
            greeting
                .direct_tls_done(alpn.as_deref())
                .map_err(|wrong| told("08P01", wrong.to_string()))?;
            continue;
        }
        let read = Opening::read(unread).map_err(|wrong| told("08P01", wrong.to_string()))?;
        let Some((_, length)) = read else {
            let have = unread.len();
            more(stream, unread, have + 1, config).await?;
            continue;
        };
        let packet = unread.split_to(length);
        let Ok(Some((opening, _))) = Opening::read(&packet) else {
            return Err(told(
                "08P01",
                "a start-up packet that changed while it was read",
            ));
        };
        let step = greeting
            .on(opening, unread.len())
            .map_err(|wrong| told("08P01", wrong.to_string()))?;
        match step {
            Step::Refuse => stream.write_all(b"N").await?,
            Step::AcceptTls => {
                stream.write_all(b"S").await?;
                accept_tls(stream, unread, door).await?;
                greeting.tls_done();
            }
            Step::Cancel(key) => return Ok(Greeted::Cancel(key)),
            Step::Login(startup) => {
                let negotiated = startup.negotiate();
                let guest = guest_of(&startup, &negotiated, config)?;
                let guest = prove(stream, unread, address, door, config, guest).await?;
                return Ok(Greeted::Guest(Box::new(guest)));
            }
        }
    }
}

/// Wait for that many bytes in all.
async fn more(
    stream: &mut Stream,
    unread: &mut BytesMut,
    wanted: usize,
    config: &Config,
) -> Result<(), Refused> {
    while unread.len() < wanted {
        if unread.len() >= config.limits.preauth_bytes {
            return Err(told("08P01", "too much was sent before the login"));
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(())
}

async fn accept_tls(
    stream: &mut Stream,
    unread: &mut BytesMut,
    door: &Rc<Door>,
) -> Result<(), Refused> {
    let (Some(acceptor), Stream::Tcp(_)) = (&door.acceptor, &*stream) else {
        return Err(told("08P01", "TLS is not available here"));
    };
    let plain = std::mem::replace(stream, Stream::Gone);
    let Stream::Tcp(tcp) = plain else {
        return Err(told("08P01", "TLS is not available here"));
    };
    let first = Prefixed {
        front: unread.split().freeze(),
        stream: tcp,
    };
    let secured = acceptor.accept(first).await?;
    *stream = Stream::ClientTls(Box::new(secured));
    Ok(())
}

/// A stream of which some bytes have been read already.
pub struct Prefixed {
    front: bytes::Bytes,
    stream: TcpStream,
}

impl tokio::io::AsyncRead for Prefixed {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context,
        into: &mut tokio::io::ReadBuf,
    ) -> std::task::Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            return std::pin::Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let length = this.front.len().min(into.remaining());
        into.put_slice(&this.front.split_to(length));
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Prefixed {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn alpn_of(stream: &Stream) -> Option<Vec<u8>> {
    match stream {
        Stream::ClientTls(tls) => tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
        _ => None,
    }
}

fn guest_of(
    startup: &flightmode_wire::startup::Startup,
    negotiated: &Negotiated,
    config: &Config,
) -> Result<Guest, Refused> {
    let text = |bytes: &[u8], what: &str| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| told("22021", format!("the name of the {what} is not UTF-8")))
    };
    let user = text(startup.user(), "user")?;
    let database = text(startup.database(), "database")?;
    let mut settings = Vec::new();
    let options = startup
        .options()
        .map_err(|wrong| told("22023", wrong.to_string()))?;
    let own = startup
        .parameters
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()));
    for (name, value) in options.into_iter().chain(own) {
        let lower = name.to_ascii_lowercase();
        let is_ours = matches!(
            lower.as_slice(),
            b"user" | b"database" | b"options" | b"replication"
        );
        let is_ignored = config
            .ignore_startup
            .iter()
            .any(|word| word.as_bytes() == lower);
        if !is_ours && !is_ignored && !lower.starts_with(b"_pq_.") {
            settings.push((lower, value));
        }
    }
    let mut negotiation = Vec::new();
    if negotiated.must_answer {
        FromServer::NegotiateProtocolVersion {
            version: negotiated.version,
            unknown: negotiated.unknown.clone(),
        }
        .write(&mut negotiation);
    }
    let replication = startup.parameter(b"replication").filter(|word| {
        !matches!(
            word.to_ascii_lowercase().as_slice(),
            b"" | b"0" | b"off" | b"false" | b"no"
        )
    });
    Ok(Guest {
        stream: Stream::Gone,
        unread: BytesMut::new(),
        user,
        database,
        settings,
        credential: None,
        negotiation,
        secret_len: negotiated.secret_len(),
        replication: replication.map(<[u8]>::to_vec),
    })
}

async fn prove(
    stream: &mut Stream,
    unread: &mut BytesMut,
    address: Option<IpAddr>,
    door: &Rc<Door>,
    config: &Config,
    mut guest: Guest,
) -> Result<Guest, Refused> {
    let in_tls = stream.is_tls();
    let method = method_for(
        &config.auth.rules,
        address,
        in_tls,
        &guest.database,
        &guest.user,
    );
    let known = door.known(&guest.user, method).await.map_err(|wrong| {
        tracing::warn!(user = guest.user, "auth_query: {wrong}");
        told(
            "57P03",
            "the database can't be asked for this user's secret",
        )
    })?;
    let mut early = std::mem::take(&mut guest.negotiation);
    if !early.is_empty() {
        stream.write_all(&early).await?;
        stream.flush().await?;
        early.clear();
    }
    match method {
        Method::Trust => {
            guest.credential = match known {
                Some(Known::Password { word, .. }) => Some(Credential::Password(word)),
                _ => None,
            };
        }
        // As in Postgres: where it says md5, a secret of SCRAM is asked for by SCRAM.
        Method::Scram | Method::Md5 if method == Method::Scram || is_scram(known.as_ref()) => {
            let proven = scram(stream, unread, &guest.user, known.as_ref(), door, config)
                .await
                .inspect_err(|_| door.doubt(&guest.user))?;
            guest.credential = Some(match known {
                Some(Known::Password { word, .. }) => Credential::Password(word),
                _ => Credential::Keys(proven),
            });
        }
        Method::Scram | Method::Md5 => {
            by_md5(stream, unread, &guest.user, known.as_ref(), config)
                .await
                .inspect_err(|_| door.doubt(&guest.user))?;
            if let Some(Known::Password { word, .. }) = known {
                guest.credential = Some(Credential::Password(word));
            }
        }
        Method::Cert => {
            let name = common_name(stream);
            if name.as_deref() != Some(guest.user.as_str()) {
                let words = format!(
                    "certificate authentication failed for user \"{}\"",
                    guest.user
                );
                return Err(told("28000", words));
            }
            if let Some(Known::Password { word, .. }) = known {
                guest.credential = Some(Credential::Password(word));
            }
        }
        Method::Reject => {
            let words = format!(
                "no rule of [proxy] admits user \"{}\" to database \"{}\"{}",
                guest.user,
                guest.database,
                if in_tls { "" } else { " without TLS" }
            );
            return Err(told("28000", words));
        }
    }
    Ok(guest)
}

fn is_scram(known: Option<&Known>) -> bool {
    matches!(known, Some(Known::Scram(_)))
}

async fn password_message(
    stream: &mut Stream,
    unread: &mut BytesMut,
    config: &Config,
) -> Result<BytesMut, Refused> {
    let rules = Rules::new(Talker::Client, Stage::Login);
    loop {
        let frame = rules
            .peek(unread)
            .map_err(|wrong| told("08P01", wrong.to_string()))?;
        match frame {
            Some(frame) if unread.len() >= frame.len => {
                let mut message = unread.split_to(frame.len);
                return Ok(message.split_off(5));
            }
            _ => {
                let have = unread.len();
                more(stream, unread, have + 1, config).await?;
            }
        }
    }
}

async fn ask(stream: &mut Stream, request: Authentication<'_>) -> Result<(), Refused> {
    let mut bytes = Vec::new();
    FromServer::Authentication(request).write(&mut bytes);
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

async fn scram(
    stream: &mut Stream,
    unread: &mut BytesMut,
    user: &str,
    known: Option<&Known>,
    door: &Rc<Door>,
    config: &Config,
) -> Result<flightmode_wire::scram::KeyPair, Refused> {
    let failed = || {
        told(
            "28P01",
            format!("password authentication failed for user \"{user}\""),
        )
    };
    let secret = match known {
        Some(Known::Scram(secret)) => secret.clone(),
        Some(Known::Password { scram, .. }) => scram.clone(),
        // It takes as long to fail as with a wrong password.
        Some(Known::Md5(_)) | None => Secret::mock(user.as_bytes(), &door.mock_key),
    };
    let binding = match &door.end_point {
        Some(hash) if stream.is_tls() => Binding::EndPoint(hash.clone()),
        _ => Binding::Impossible,
    };
    let offer = Scram::offer(&binding)
        .iter()
        .map(|name| name.as_bytes())
        .collect();
    ask(stream, Authentication::Sasl(offer)).await?;
    let mut exchange = Scram::new(secret, binding, &nonce()).map_err(|_| failed())?;
    let first = password_message(stream, unread, config).await?;
    let first =
        SaslInitialResponse::read(&first).map_err(|wrong| told("08P01", wrong.to_string()))?;
    let challenge = exchange
        .challenge(first.mechanism, first.data.unwrap_or_default())
        .map_err(|wrong| told("08P01", wrong.to_string()))?;
    ask(stream, Authentication::SaslContinue(challenge.as_bytes())).await?;
    let last = password_message(stream, unread, config).await?;
    let proven = exchange.check(&last).map_err(|_| failed())?;
    ask(stream, Authentication::SaslFinal(proven.last.as_bytes())).await?;
    Ok(proven.keys)
}

async fn by_md5(
    stream: &mut Stream,
    unread: &mut BytesMut,
    user: &str,
    known: Option<&Known>,
    config: &Config,
) -> Result<(), Refused> {
    let mut salt = [0; 4];
    fill(&mut salt);
    ask(stream, Authentication::Md5Password(salt)).await?;
    let answer = password_message(stream, unread, config).await?;
    let inner = match known {
        Some(Known::Md5(digest)) => Some(digest[3..].to_owned()),
        Some(Known::Password { word, .. }) => Some(hex(&Md5::new()
            .chain_update(word)
            .chain_update(user)
            .finalize())),
        Some(Known::Scram(_)) | None => None,
    };
    let expected = inner.map(|inner| {
        format!(
            "md5{}",
            hex(&Md5::new().chain_update(inner).chain_update(salt).finalize())
        )
    });
    let given = answer.strip_suffix(&[0]).unwrap_or(&answer);
    let is_right = expected.is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(given)));
    if is_right {
        Ok(())
    } else {
        Err(told(
            "28P01",
            format!("password authentication failed for user \"{user}\""),
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The common name of a certificate that our own CA has signed.  rustls has checked it.
fn common_name(stream: &Stream) -> Option<String> {
    let Stream::ClientTls(tls) = stream else {
        return None;
    };
    let certificate = tls.get_ref().1.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
