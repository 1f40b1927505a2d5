//! The shell around the pooler: sockets, TLS and timers.
//!
//! # Layout, from the outside in
//!
//! - [`Proxy`]: started, told news, stopped; each shard is a thread of its own
//! - [`config`]: what it is told to be
//! - `shard`: listeners, and clients on their way in (`login`, `secrets`, `tls`)
//! - `relay`: one client at work: `exchange` (messages), `source`, `names`
//! - `replication`: a client with a server of its own
//! - `hub`: pools and who holds what; carries out what `pooler::pool` decides
//! - `server`: a session at a Postgres server; `stream`: any connection

#![forbid(unsafe_code)]

pub mod config;
mod exchange;
mod hub;
mod login;
mod names;
mod relay;
mod replication;
mod secrets;
mod server;
mod shard;
mod source;
mod stream;
mod tls;

use std::cell::RefCell;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use config::{ClientTlsMode, Config, Listen, News};
use secrets::Users;
use shard::{Door, Listener};

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{what}: {wrong}")]
    Listen { what: String, wrong: io::Error },
    #[error("{0}")]
    Users(#[from] secrets::UsersError),
    #[error("{0}")]
    Tls(io::Error),
    #[error("its thread ended: {0}")]
    Thread(String),
}

enum Order {
    News(News),
    Stop,
}

/// A running proxy.  It is stopped when it is dropped.
pub struct Proxy {
    shards: Vec<(mpsc::UnboundedSender<Order>, Option<JoinHandle<()>>)>,
}

impl Proxy {
    /// Listen and serve.  Raises when it can't listen, or its files are not as they must be.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let mut shards = Vec::new();
        for number in 0..config.shards.max(1) {
            let (orders, inbox) = mpsc::unbounded_channel();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let config = config.clone();
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || run(&config, inbox, &ready))
                .map_err(|wrong| StartError::Thread(wrong.to_string()))?;
            let started = is_ready.recv();
            shards.push((orders, Some(thread)));
            started.map_err(|wrong| StartError::Thread(wrong.to_string()))??;
        }
        Ok(Self { shards })
    }

    /// Who is who now.  Returns at once.
    pub fn topology(&self, news: &News) {
        for (orders, _) in &self.shards {
            // A shard that has ended serves nobody.
            let _ = orders.send(Order::News(news.clone()));
        }
    }

    /// Close everything.
    pub fn stop(&mut self) {
        for (orders, _) in &self.shards {
            let _ = orders.send(Order::Stop);
        }
        for (_, thread) in &mut self.shards {
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(
    config: &Config,
    mut inbox: mpsc::UnboundedReceiver<Order>,
    ready: &std::sync::mpsc::Sender<Result<(), StartError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(wrong) => {
            let _ = ready.send(Err(StartError::Thread(wrong.to_string())));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let hub = match open(config) {
            Ok(hub) => {
                let _ = ready.send(Ok(()));
                hub
            }
            Err(wrong) => {
                let _ = ready.send(Err(wrong));
                return;
            }
        };
        while let Some(order) = inbox.recv().await {
            match order {
                Order::News(news) => hub.on_news(&news),
                Order::Stop => break,
            }
        }
    });
}

fn open(config: &Config) -> Result<Rc<hub::Hub>, StartError> {
    let users = match &config.auth.users_file {
        Some(path) => Users::load(path)?,
        None => Users::default(),
    };
    let (acceptor, end_point) = match config.client_tls.mode {
        ClientTlsMode::Disable => (None, None),
        _ => shard::acceptor(config).map_err(StartError::Tls)?,
    };
    let mut mock_key = [0; 32];
    server::fill(&mut mock_key);
    let door = Rc::new(Door {
        acceptor,
        tls_only: config.client_tls.mode == ClientTlsMode::Require,
        end_point,
        users: RefCell::new(users),
        mock_key,
    });
    let to_servers = tls::client_settings(&config.server_tls).map_err(StartError::Tls)?;
    let listeners: Result<Vec<_>, _> = config.listen.iter().map(listener).collect();
    let hub = hub::Hub::new(config.clone(), to_servers.as_ref());
    for listener in listeners?.into_iter().flatten() {
        let (hub, door) = (Rc::clone(&hub), Rc::clone(&door));
        tokio::task::spawn_local(shard::listen(listener, hub, door));
    }
    Ok(hub)
}

fn listener(listen: &Listen) -> Result<Vec<Listener>, StartError> {
    match listen {
        Listen::Tcp { host, port } => {
            let what = format!("{host}:{port}");
            let failed = |wrong| StartError::Listen {
                what: what.clone(),
                wrong,
            };
            let found = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
            found.map(|address| tcp(address).map_err(failed)).collect()
        }
        Listen::Unix { unix, mode } => {
            let failed = |wrong| StartError::Listen {
                what: unix.display().to_string(),
                wrong,
            };
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o660);
            // Left by one that was killed; a living one has its own directory's lock on it.
            if std::os::unix::net::UnixStream::connect(unix).is_err() && unix.exists() {
                std::fs::remove_file(unix).map_err(failed)?;
            }
            let listener = tokio::net::UnixListener::bind(unix).map_err(failed)?;
            std::fs::set_permissions(unix, std::fs::Permissions::from_mode(mode))
                .map_err(failed)?;
            Ok(vec![Listener::Unix(listener)])
        }
    }
}

fn tcp(address: std::net::SocketAddr) -> io::Result<Listener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Each shard listens for itself, and the kernel spreads the clients.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(Listener::Tcp(tokio::net::TcpListener::from_std(
        socket.into(),
    )?))
}
