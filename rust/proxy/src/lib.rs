//! The shell around the pooler: sockets, TLS and timers.
//!
//! # Layout, from the outside in
//!
//! - [`Proxy`]: started, told news, asked, stopped; each shard is a thread of its own
//! - [`config`]: what it is told to be; [`orders`]: what it is told to do
//! - [`stats`], [`events`]: what it tells of itself
//! - `listen`: sockets; `shard`: clients on their way in (`login`, `secrets`, `auth_query`,
//!   `tls`, `proxy_protocol`)
//! - `console`: what operators type
//! - `relay`: one client at work: `exchange` (messages), `source`, `names`, `limits`, `pace`,
//!   `times`, `refused`
//! - `listener`: the connection that listens for all clients of a pool; `mail`: what has come for
//!   one of them
//! - `moving`: clients go to the process that takes this one's place
//! - `replication`: a client with a server of its own
//! - `hub`: pools and who holds what; carries out what `pooler::pool` decides; `operate`: what
//!   an operator asks for; `memory`: what is kept; `room`, `census`,
//!   `porch`: limits beyond one pool; `notes`: what is counted
//! - `server`: a session at a Postgres server; `stream`: any connection

#![forbid(unsafe_code)]

mod auth_query;
mod buffers;
mod census;
mod clock;
pub mod config;
mod console;
pub mod events;
mod exchange;
mod hub;
mod inbox;
mod limits;
mod listen;
mod listener;
mod login;
mod mail;
mod memory;
mod moving;
mod names;
mod notes;
mod operate;
pub mod orders;
mod pace;
mod porch;
mod proxy_protocol;
mod refused;
mod relay;
mod replication;
mod room;
mod secrets;
mod server;
mod shard;
mod source;
pub mod stats;
mod stream;
mod times;
mod tls;
mod variants;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flightmode_wire::startup::CancelKey;
use tokio::sync::mpsc;

use config::{Config, News};
use events::{Happened, Sink};
use hub::Hub;
use listen::Opened;
pub use moving::check as check_parcel;
pub use moving::Parcel;
use moving::{unpack, Parcels};
use operate::Fresh;
use orders::{Command, Order, Outcome, Shards};
use stats::Stats;

/// Why the proxy did not start, or did not take other settings.
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

/// A running proxy.  It is stopped when it is dropped.
pub struct Proxy {
    shards: Shards,
    threads: Vec<JoinHandle<()>>,
    happened: events::Source,
    mock_key: [u8; 32],
    parcels: Parcels,
    next: AtomicUsize,
}

impl Proxy {
    /// Listen and serve.  `sockets` listen already (systemd, or a proxy that hands over); one
    /// that is in the settings is not opened again.  Raises when it can't listen, or its files
    /// are not as they must be.
    pub fn start(config: &Config, sockets: Vec<OwnedFd>) -> Result<Self, StartError> {
        let mut mock_key = [0; 32];
        server::fill(&mut mock_key);
        let fresh = Arc::new(Fresh::read(config, mock_key)?);
        let opened = listen::open_all(config, sockets)?;
        let (inboxes, outboxes): (Vec<_>, Vec<_>) =
            opened.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let shards = Shards::new(inboxes);
        for socket in opened.iter().flatten() {
            let copy = socket.hand_over();
            shards
                .sockets()
                .push(copy.map_err(|wrong| StartError::Listen {
                    what: "a copy of a socket".to_owned(),
                    wrong,
                })?);
        }
        if let Some(words) = shards.porch.shortage(config) {
            tracing::warn!("{words}");
        }
        let (sink, happened) = events::channel();
        let mut proxy = Self {
            shards,
            threads: Vec::new(),
            happened,
            mock_key,
            parcels: Parcels::default(),
            next: AtomicUsize::new(0),
        };
        for (number, (inbox, opened)) in outboxes.into_iter().zip(opened).enumerate() {
            let shard = Shard {
                fresh: Arc::clone(&fresh),
                opened,
                inbox,
                shards: proxy.shards.of(number),
                sink: sink.clone(),
            };
            proxy.spawn(number, shard)?;
        }
        Ok(proxy)
    }

    fn spawn(&mut self, number: usize, shard: Shard) -> Result<(), StartError> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || shard.run(&ready))
            .map_err(|wrong| StartError::Thread(wrong.to_string()))?;
        self.threads.push(thread);
        let started = is_ready.recv();
        started.map_err(|wrong| StartError::Thread(wrong.to_string()))?
    }

    /// Who is who now.  Returns at once.
    pub fn topology(&self, news: &News) {
        self.shards.tell(|| Order::News(news.clone()));
    }

    /// From now on these settings, for those who are in too where that can be: users, rules,
    /// limits, times, databases, nodes and certificates.  Where it listens and its shards stay.
    /// Raises when a file is not as it must be; then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        let fresh = Arc::new(Fresh::read(config, self.mock_key)?);
        self.shards.each(move |hub| hub.reload(&fresh));
        Ok(())
    }

    /// Do this.  It has begun when this returns; `stats` and `events` tell of the rest.
    pub fn command(&self, command: &Command) -> Outcome {
        Outcome::sum(self.shards.ask_now(self.shards.prepared(command)))
    }

    /// How it is.  Less than a second, also if a shard does not answer.
    pub fn stats(&self) -> Stats {
        Stats::sum(self.shards.ask_now(stats::of))
    }

    /// What has happened since the last call; waits up to `within` if nothing has.
    pub fn events(&self, within: Duration) -> Vec<Happened> {
        self.happened.take(within)
    }

    /// Copies of the listening sockets, for the one that takes over; none after a drain.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let sockets = self.shards.sockets();
        sockets
            .iter()
            .map(|socket| socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// Hand every client over: nobody comes in any more, and each is to be taken with `parcel`
    /// when it is between two transactions, until `is_given_away`.
    pub fn give_away(&self) {
        let heir = self.parcels.sender();
        self.shards.each(move |hub| hub.give_away(heir.clone()));
    }

    /// Whether nobody is left, beside the parcels that were not taken.
    pub fn is_given_away(&self) -> bool {
        let all = self.shards.ask_now(Hub::is_given_away);
        all.len() == self.shards.count() && all.into_iter().all(|is_done| is_done)
    }

    /// The next client to hand over; waits up to `within`.
    pub fn parcel(&self, within: Duration) -> Option<Parcel> {
        self.parcels.take(within)
    }

    /// Serve a client that another process had, or (`stays`) one that nobody else wanted.  Raises
    /// what is wrong with it; whoever had it has it still.
    pub fn adopt(&self, parcel: Parcel, stays: bool) -> Result<(), String> {
        let unpacked = unpack(parcel, stays)?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards.one(turn, move |hub| unpacked.welcome(hub));
        Ok(())
    }

    /// Cancel what the client with this key runs, as its own request would.
    pub fn cancel(&self, client: u32, secret: &[u8]) {
        if let Some(key) = CancelKey::new(client, secret) {
            self.shards.one(0, move |hub| {
                let hub = std::rc::Rc::clone(hub);
                tokio::task::spawn_local(async move { shard::cancel(&hub, &key).await });
            });
        }
    }

    /// It is not handed over after all: listen again.  `config`: where, as at the start.
    pub fn keep(&self, config: &Config) -> Result<(), StartError> {
        let sockets = self.sockets().map_err(|wrong| StartError::Listen {
            what: "a copy of a socket".to_owned(),
            wrong,
        })?;
        for (number, opened) in listen::open_all(config, sockets)?.into_iter().enumerate() {
            self.shards.one(number, move |hub| {
                hub.keep();
                for socket in opened {
                    if let Err(wrong) = listen::begin(socket, hub) {
                        tracing::error!("it does not listen again: {wrong}");
                    }
                }
            });
        }
        Ok(())
    }

    /// Nobody comes in any more; clients leave between two transactions, at the latest after
    /// `grace`, and then everything is closed.
    pub fn stop_within(self, grace: Duration) {
        let until = Instant::now() + grace;
        let within_s = grace.as_secs_f64();
        self.command(&Command::Drain { within_s });
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.events(left).contains(&Happened::Drained) {
                return;
            }
        }
    }

    /// Close everything.
    pub fn stop(&mut self) {
        self.shards.tell(|| Order::Stop);
        for thread in self.threads.drain(..) {
            // One that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a shard's thread begins with.
struct Shard {
    fresh: Arc<Fresh>,
    opened: Vec<Opened>,
    inbox: mpsc::UnboundedReceiver<Order>,
    shards: Shards,
    sink: Sink,
}

impl Shard {
    fn run(self, ready: &std::sync::mpsc::Sender<Result<(), StartError>>) {
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
        local.block_on(&runtime, self.serve(ready));
    }

    async fn serve(mut self, ready: &std::sync::mpsc::Sender<Result<(), StartError>>) {
        let hub = hub::Hub::new(&self.fresh, self.shards, self.sink);
        tokio::task::spawn_local(times::keep(std::rc::Rc::clone(&hub)));
        hub.open_ahead();
        for opened in self.opened {
            if let Err(wrong) = listen::begin(opened, &hub) {
                let what = "a listening socket".to_owned();
                let _ = ready.send(Err(StartError::Listen { what, wrong }));
                return;
            }
        }
        let _ = ready.send(Ok(()));
        while let Some(order) = self.inbox.recv().await {
            match order {
                Order::News(news) => hub.on_news(&news),
                Order::Do(job) => job(&hub),
                Order::Stop => break,
            }
        }
    }
}
