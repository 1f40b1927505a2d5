//! What is said to shards, and how somebody asks all of them.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::census::Census;
use crate::config::News;
use crate::hub::Hub;
use crate::porch::Porch;
use crate::stats::{self, Stats};

/// A shard that does not answer in this time is busy with something that has no end.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// Done by a shard, on its thread.
pub type Job = Box<dyn FnOnce(&Rc<Hub>) + Send>;

pub enum Order {
    News(News),
    Do(Job),
    Stop,
}

/// What an operator asks for.  Without a database: all of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Grant no server until `Resume`; what runs ends on its own.
    Pause {
        #[serde(default)]
        database: Option<String>,
    },
    Resume {
        #[serde(default)]
        database: Option<String>,
    },
    /// Servers are replaced, each when nobody uses it.
    Reconnect {
        #[serde(default)]
        database: Option<String>,
    },
    /// Nobody comes in any more; each client is sent away between two transactions, and whoever
    /// is left after `within_s` in the middle of one.
    Drain { within_s: f64 },
    /// One client is sent away at once; its number is that of SHOW CLIENTS.
    KillClient { id: u64 },
    /// Clients and servers are closed at once, and new ones wait for `Resume`.
    Kill {
        #[serde(default)]
        database: Option<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Clients and servers that it concerned.
    pub clients: usize,
    pub servers: usize,
    /// Why it was not done.
    pub wrong: Option<String>,
}

impl Outcome {
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            clients: sum.clients + one.clients,
            servers: sum.servers + one.servers,
            wrong: sum.wrong.or(one.wrong),
        })
    }
}

/// All shards of a proxy.
#[derive(Clone)]
pub struct Shards {
    inboxes: Arc<[mpsc::UnboundedSender<Order>]>,
    /// The listening sockets, for who takes over; none once nobody is to come in any more.
    sockets: Arc<Mutex<Vec<OwnedFd>>>,
    pub census: Arc<Census>,
    pub porch: Arc<Porch>,
    /// Whose copy this is.
    number: usize,
}

impl Shards {
    pub fn new(inboxes: Vec<mpsc::UnboundedSender<Order>>) -> Self {
        Self {
            inboxes: inboxes.into(),
            sockets: Arc::default(),
            census: Arc::default(),
            porch: Arc::default(),
            number: 0,
        }
    }

    /// The copy of one of them.
    #[must_use]
    pub fn of(&self, number: usize) -> Self {
        Self {
            number,
            ..self.clone()
        }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    /// Its part of what all of them may have together.
    pub fn share(&self, total: usize) -> usize {
        total / self.count() + usize::from(self.number < total % self.count())
    }

    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    pub fn sockets(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tell(&self, make: impl Fn() -> Order) {
        for inbox in &*self.inboxes {
            // A shard that has ended serves nobody.
            let _ = inbox.send(make());
        }
    }

    pub fn each(&self, job: impl Fn(&Rc<Hub>) + Clone + Send + 'static) {
        self.tell(|| Order::Do(Box::new(job.clone())));
    }

    /// One of them does it; `number` may be any.
    pub fn one(&self, number: usize, job: impl FnOnce(&Rc<Hub>) + Send + 'static) {
        let inbox = &self.inboxes[number % self.count()];
        let _ = inbox.send(Order::Do(Box::new(job)));
    }

    /// The answers of all, for a task.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Rc<Hub>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.each(move |hub| {
            let _ = sender.send(question(hub));
        });
        let mut answers = Vec::new();
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
        }
        answers
    }

    /// The same for a thread; without those that do not answer in time.
    pub fn ask_now<T: Send + 'static>(
        &self,
        question: impl Fn(&Rc<Hub>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.each(move |hub| {
            let _ = sender.send(question(hub));
        });
        let until = Instant::now() + ANSWER_WITHIN;
        let left = || until.saturating_duration_since(Instant::now());
        let mut answers = Vec::new();
        while let Ok(answer) = receiver.recv_timeout(left()) {
            answers.push(answer);
        }
        answers
    }

    pub async fn stats(&self) -> Stats {
        Stats::sum(self.ask(stats::of).await)
    }

    /// What every shard has to do for a command.
    pub fn prepared(&self, command: &Command) -> impl Fn(&Rc<Hub>) -> Outcome + Clone + Send {
        if let Command::Drain { .. } = command {
            self.sockets().clear();
        }
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(self.count()));
        let command = command.clone();
        move |hub: &Rc<Hub>| hub.carry_out(&command, &left)
    }
}
