//! The sockets that clients come in by: opened here, or handed over already open.
//!
//! Rule: all of them are opened before any shard starts, so that what is wrong is told once.  Of
//! TCP each shard has one of its own and the kernel spreads the clients; one that was handed
//! over, or is a file, is shared by all shards.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::config::{Config, Listen};
use crate::hub::Hub;
use crate::server::peer;
use crate::shard::serve;
use crate::stream::Stream;
use crate::StartError;

/// Who comes in by a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// Each connection begins with a header that says whom it is from.
    pub proxied: bool,
    /// The console, for who may open the file.
    pub admin: bool,
}

/// A socket that listens.
pub struct Opened {
    socket: Socket,
    kind: Kind,
}

impl Opened {
    fn share(&self) -> io::Result<Self> {
        let (socket, kind) = (self.socket.try_clone()?, self.kind);
        Ok(Self { socket, kind })
    }

    pub fn hand_over(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }
}

/// For each shard its sockets.  Of `handed` those come first that are in the settings too; one
/// that is not is for clients as well.
pub fn open_all(config: &Config, handed: Vec<OwnedFd>) -> Result<Vec<Vec<Opened>>, StartError> {
    let shards = config.shards.max(1);
    let mut all: Vec<Vec<Opened>> = (0..shards).map(|_| Vec::new()).collect();
    let mut known = Vec::new();
    for socket in handed.into_iter().map(Socket::from) {
        let place = place_of(&socket).map_err(|wrong| not_open("a socket handed over", wrong))?;
        let kind = kind_of(config, &place);
        socket
            .set_nonblocking(true)
            .map_err(|wrong| not_open("a socket handed over", wrong))?;
        share(&Opened { socket, kind }, &mut all)?;
        known.push(place);
    }
    // Files before TCP: whoever sees the port open finds the console there as well.
    if let Some(path) = &config.admin.unix {
        file(config, path, 0o600, &known, &mut all)?;
    }
    for listen in &config.listen {
        if let Listen::Unix { unix: path, mode } = listen {
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o660);
            file(config, path, mode, &known, &mut all)?;
        }
    }
    for listen in &config.listen {
        if let Listen::Tcp { host, port, .. } = listen {
            addresses(config, host, *port, &known, &mut all)?;
        }
    }
    Ok(all)
}

fn addresses(
    config: &Config,
    host: &str,
    port: u16,
    known: &[Place],
    all: &mut [Vec<Opened>],
) -> Result<(), StartError> {
    let failed = |wrong| not_open(&format!("{host}:{port}"), wrong);
    let found = (host, port).to_socket_addrs().map_err(failed)?;
    for address in found.filter(|address| !known.contains(&Place::Tcp(*address))) {
        let kind = kind_of(config, &Place::Tcp(address));
        for of_shard in &mut *all {
            let socket = tcp(address).map_err(failed)?;
            of_shard.push(Opened { socket, kind });
        }
    }
    Ok(())
}

fn not_open(what: &str, wrong: io::Error) -> StartError {
    let what = what.to_owned();
    StartError::Listen { what, wrong }
}

#[derive(PartialEq)]
enum Place {
    Tcp(SocketAddr),
    File(std::path::PathBuf),
}

fn place_of(socket: &Socket) -> io::Result<Place> {
    let address = socket.local_addr()?;
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => Ok(Place::Tcp(address)),
        (None, Some(path)) => Ok(Place::File(path.to_owned())),
        (None, None) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither TCP nor a file",
        )),
    }
}

fn kind_of(config: &Config, place: &Place) -> Kind {
    let is_it = |listen: &&Listen| match (listen, place) {
        (Listen::Tcp { host, port, .. }, Place::Tcp(address)) => (host.as_str(), *port)
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|found| found == *address)),
        _ => false,
    };
    let of_listen = config.listen.iter().find(is_it);
    let own = matches!(
        of_listen,
        Some(Listen::Tcp {
            proxy_protocol: true,
            ..
        })
    );
    Kind {
        proxied: matches!(place, Place::Tcp(_)) && (own || config.proxy_protocol),
        admin: match (place, &config.admin.unix) {
            (Place::File(path), Some(admin)) => path == admin,
            _ => false,
        },
    }
}

fn share(opened: &Opened, all: &mut [Vec<Opened>]) -> Result<(), StartError> {
    for of_shard in all {
        let copy = opened.share();
        of_shard.push(copy.map_err(|wrong| not_open("a socket of all shards", wrong))?);
    }
    Ok(())
}

fn file(
    config: &Config,
    path: &Path,
    mode: u32,
    known: &[Place],
    all: &mut [Vec<Opened>],
) -> Result<(), StartError> {
    let place = Place::File(path.to_owned());
    if known.contains(&place) {
        return Ok(());
    }
    let kind = kind_of(config, &place);
    let failed = |wrong| not_open(&path.display().to_string(), wrong);
    let socket = unix(path, mode).map_err(failed)?;
    share(&Opened { socket, kind }, all)
}

fn unix(path: &Path, mode: u32) -> io::Result<Socket> {
    // Left by one that was killed: nobody answers there.
    if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // Nobody gets in before the file has its mode, for nobody listens yet.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(4096)?;
    Ok(socket)
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket)
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Self> {
        Ok(
            if socket.local_addr()?.is_ipv4() || socket.local_addr()?.is_ipv6() {
                Self::Tcp(TcpListener::from_std(socket.into())?)
            } else {
                Self::Unix(UnixListener::from_std(OwnedFd::from(socket).into())?)
            },
        )
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                tune(&stream)?;
                Ok((Stream::Tcp(stream), Some(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

/// A client whose host vanished while it had the turn leaves its server within a minute.
///
/// No limit for what was sent and not taken (`TCP_USER_TIMEOUT`): the kernel would also cut off
/// who is there and does not read for a while, as one that works on each row of a long answer.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Let clients in, until it is aborted.
pub fn begin(opened: Opened, hub: &Rc<Hub>) -> io::Result<()> {
    let (listener, kind) = (Listener::new(opened.socket)?, opened.kind);
    let for_task = Rc::clone(hub);
    let task = tokio::task::spawn_local(async move {
        let hub = for_task;
        loop {
            match listener.accept().await {
                Ok((stream, address)) => let_in(stream, address, &hub, kind),
                Err(wrong) => {
                    // Out of descriptors, mostly: those who are in go on, and some will leave.
                    tracing::error!("no client can be let in: {wrong}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    let listeners = if kind.admin {
        &hub.moving.admin_listeners
    } else {
        &hub.listeners
    };
    listeners.borrow_mut().push(task.abort_handle());
    Ok(())
}

/// To the login, if there is room for one more that has not logged in.  Else it is closed at once:
/// it has not said yet in which way it could be told why.
fn let_in(stream: Stream, address: Option<SocketAddr>, hub: &Rc<Hub>, kind: Kind) {
    // Whoever may open the file of the console gets in when nobody else does.
    if kind.admin {
        tokio::task::spawn_local(serve(stream, address, Rc::clone(hub), kind, None));
        return;
    }
    let ip = address
        .filter(|_| !kind.proxied)
        .map(|address| address.ip().to_canonical());
    let (porch, census) = (&hub.shards.porch, &hub.shards.census);
    match porch.enter(ip, census, &hub.config()) {
        Ok(comer) => {
            tokio::task::spawn_local(serve(stream, address, Rc::clone(hub), kind, Some(comer)));
        }
        Err(words) => hub.on_refused(&peer(address), "53300", &words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        let text = format!(r#"{{"listen":{listen},"nodes":{{}},"shards":2}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_socket_that_was_handed_over_is_not_opened_again() {
        let first = open_all(&config(r#"[{"host":"127.0.0.1","port":0}]"#), vec![]).unwrap();
        let fd = first[0][0].hand_over().unwrap();
        let port = first[0][0]
            .socket
            .local_addr()
            .unwrap()
            .as_socket()
            .unwrap()
            .port();
        let text = format!(r#"[{{"host":"127.0.0.1","port":{port},"proxy_protocol":true}}]"#);
        let all = open_all(&config(&text), vec![fd]).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(all[1][0].kind.proxied);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_client_that_is_let_in_is_asked_whether_it_is_still_there() {
        let all = open_all(&config(r#"[{"host":"127.0.0.1","port":0}]"#), vec![]).unwrap();
        let opened = all.into_iter().flatten().next().unwrap();
        let address = opened.socket.local_addr().unwrap().as_socket().unwrap();
        let listener = Listener::new(opened.socket).unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (Stream::Tcp(accepted), _) = listener.accept().await.unwrap() else {
            panic!("not TCP");
        };
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(30)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(5)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[test]
    fn a_file_is_shared_by_all_shards() {
        let path = std::env::temp_dir().join(format!("fm-listen-{}", std::process::id()));
        let text = format!(r#"[{{"unix":"{}","mode":"0600"}}]"#, path.display());
        let all = open_all(&config(&text), vec![]).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
    }
}
