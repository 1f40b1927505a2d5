//! The proxy as Python sees it: JSON in, calls that return at once.
//!
//! Threads inside never take the interpreter's lock, so a slow Python costs no client anything.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use flightmode_proxy::orders::Command;
use flightmode_proxy::{config, Parcel, Proxy as Shell, StartError};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde::de::DeserializeOwned;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// A running proxy; settings, news, orders and answers are texts of JSON.
#[pyclass(frozen)]
struct Proxy {
    shell: RwLock<Option<Shell>>,
}

impl Proxy {
    /// Raises `RuntimeError` when it was stopped.
    fn with<T: Send>(&self, py: Python<'_>, run: impl FnOnce(&Shell) -> T + Send) -> PyResult<T> {
        py.detach(|| {
            let shell = self.shell.read().unwrap_or_else(PoisonError::into_inner);
            shell.as_ref().map(run)
        })
        .ok_or_else(|| PyRuntimeError::new_err("the proxy was stopped"))
    }

    fn take(&self) -> Option<Shell> {
        let mut shell = self.shell.write().unwrap_or_else(PoisonError::into_inner);
        shell.take()
    }
}

#[pymethods]
impl Proxy {
    /// Listen and serve.  `sockets`: numbers of descriptors that listen already; they are this
    /// one's from now on.  Raises `ValueError` for settings that make no sense (a file of users,
    /// a certificate), `OSError` when it can't listen.
    #[new]
    #[pyo3(signature = (settings, sockets = Vec::new()))]
    fn new(py: Python<'_>, settings: &str, sockets: Vec<i32>) -> PyResult<Self> {
        let config: config::Config = read(settings)?;
        // SAFETY: the caller gives them away, as the documentation of the class says.
        let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let sockets = sockets.into_iter().map(owned).collect();
        let shell = py
            .detach(|| Shell::start(&config, sockets))
            .map_err(|wrong| not_started(&wrong))?;
        Ok(Self {
            shell: RwLock::new(Some(shell)),
        })
    }

    /// Who is who now.
    fn topology(&self, py: Python<'_>, news: &str) -> PyResult<()> {
        let news: config::News = read(news)?;
        self.with(py, |shell| shell.topology(&news))
    }

    /// Other settings, for who is in too.  Raises `ValueError`; then nothing has changed.
    fn reload(&self, py: Python<'_>, settings: &str) -> PyResult<()> {
        let config: config::Config = read(settings)?;
        self.with(py, |shell| shell.reload(&config))?
            .map_err(|wrong| not_started(&wrong))
    }

    /// Carry out an order; what came of it.
    fn command(&self, py: Python<'_>, order: &str) -> PyResult<String> {
        let command: Command = read(order)?;
        self.with(py, |shell| write(&shell.command(&command)))?
    }

    /// How it is.  Takes less than a second.
    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |shell| write(&shell.stats()))?
    }

    /// What has happened since the last call; waits up to `within_s` if nothing has.
    fn events(&self, py: Python<'_>, within_s: f64) -> PyResult<String> {
        let within = duration(within_s)?;
        self.with(py, |shell| write(&shell.events(within)))?
    }

    /// Copies of the sockets that listen, for the process that takes this one's place.
    fn sockets(&self, py: Python<'_>) -> PyResult<Vec<i32>> {
        let sockets = self.with(py, Shell::sockets)??;
        Ok(sockets.into_iter().map(IntoRawFd::into_raw_fd).collect())
    }

    /// Hand every client over: each is to be taken with `parcel`.
    fn give_away(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Shell::give_away)
    }

    /// Whether nobody is left, beside those that `parcel` gives.
    fn is_given_away(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, Shell::is_given_away)
    }

    /// The next client to hand over: its socket, and what is known of it.
    fn parcel(&self, py: Python<'_>, within_s: f64) -> PyResult<Option<(i32, Vec<u8>)>> {
        let within = duration(within_s)?;
        let parcel = self.with(py, |shell| shell.parcel(within))?;
        Ok(parcel.map(|parcel| (parcel.socket.into_raw_fd(), parcel.state)))
    }

    /// Serve a client of another process.  `stays`: it is not handed over again.  The socket is
    /// this one's from now on.  Raises `ValueError` for what is no client.
    #[pyo3(signature = (socket, state, stays = false))]
    fn adopt(&self, py: Python<'_>, socket: i32, state: Vec<u8>, stays: bool) -> PyResult<()> {
        // SAFETY: the caller gives it away, as the documentation says.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let parcel = Parcel { socket, state };
        self.with(py, |shell| shell.adopt(parcel, stays))?
            .map_err(PyValueError::new_err)
    }

    /// Cancel what a client runs, as its own request would.
    fn cancel(&self, py: Python<'_>, client: u32, secret: &[u8]) -> PyResult<()> {
        self.with(py, |shell| shell.cancel(client, secret))
    }

    /// Nothing is handed over any more, and who is here stays: listen again.
    fn keep(&self, py: Python<'_>, settings: &str) -> PyResult<()> {
        let config: config::Config = read(settings)?;
        self.with(py, |shell| shell.keep(&config))?
            .map_err(|wrong| not_started(&wrong))
    }

    /// Let clients leave between two transactions, for up to `grace_s`; then close everything.
    /// May be repeated.
    #[pyo3(signature = (grace_s = 0.0))]
    fn stop(&self, py: Python<'_>, grace_s: f64) -> PyResult<()> {
        let grace = duration(grace_s)?;
        py.detach(|| match self.take() {
            Some(shell) if !grace.is_zero() => shell.stop_within(grace),
            shell => drop(shell),
        });
        Ok(())
    }
}

fn read<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|wrong| PyValueError::new_err(wrong.to_string()))
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|wrong| PyValueError::new_err(wrong.to_string()))
}

fn write(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|wrong| PyRuntimeError::new_err(wrong.to_string()))
}

/// Whether these settings can be read.  Raises `ValueError` with the place.
#[pyfunction]
fn check(settings: &str) -> PyResult<()> {
    read::<config::Config>(settings).map(drop)
}

/// Whether this is a client that could be adopted.  Raises `ValueError` with what is wrong.
#[pyfunction]
fn check_parcel(state: &[u8]) -> PyResult<()> {
    flightmode_proxy::check_parcel(state).map_err(PyValueError::new_err)
}

/// Write what happens to standard error, one JSON object a line, from `level` on.
#[pyfunction]
fn log_to_stderr(level: &str) {
    // A second call changes nothing: the first one's subscriber stays.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .try_init();
}

fn not_started(wrong: &StartError) -> PyErr {
    let words = wrong.to_string();
    match wrong {
        StartError::Listen { .. } => PyOSError::new_err(words),
        StartError::Users(_) | StartError::Tls(_) => PyValueError::new_err(words),
        StartError::Thread(_) => PyRuntimeError::new_err(words),
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Proxy>()?;
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(check_parcel, module)?)?;
    module.add_function(wrap_pyfunction!(log_to_stderr, module)?)
}
