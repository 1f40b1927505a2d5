//! The proxy as Python sees it: JSON in, calls that return at once.
//!
//! Threads inside never take the interpreter's lock, so a slow Python costs no client anything.

use std::sync::{Mutex, PoisonError};

use flightmode_proxy::{config, Proxy as Shell, StartError};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tracing_subscriber::EnvFilter;

/// A running proxy; `settings` and `news` are texts of JSON, as `flightmode/proxy` writes them.
#[pyclass(frozen)]
struct Proxy {
    shell: Mutex<Option<Shell>>,
}

#[pymethods]
impl Proxy {
    /// Listen and serve.  Raises `ValueError` for settings that make no sense (a file of users,
    /// a certificate), `OSError` when it can't listen.
    #[new]
    fn new(py: Python<'_>, settings: &str) -> PyResult<Self> {
        let config: config::Config =
            serde_json::from_str(settings).map_err(|wrong| wrong_json(&wrong))?;
        let shell = py
            .detach(|| Shell::start(&config, Vec::new()))
            .map_err(|wrong| not_started(&wrong))?;
        Ok(Self {
            shell: Mutex::new(Some(shell)),
        })
    }

    /// Who is who now.  Raises `RuntimeError` when it was stopped.
    fn topology(&self, news: &str) -> PyResult<()> {
        let news: config::News = serde_json::from_str(news).map_err(|wrong| wrong_json(&wrong))?;
        match &*self.shell.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(shell) => {
                shell.topology(&news);
                Ok(())
            }
            None => Err(PyRuntimeError::new_err("the proxy was stopped")),
        }
    }

    /// Close everything; may be repeated.
    fn stop(&self, py: Python<'_>) {
        let shell = self
            .shell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        py.detach(|| drop(shell));
    }
}

/// Whether these settings can be read.  Raises `ValueError` with the place.
#[pyfunction]
fn check(settings: &str) -> PyResult<()> {
    serde_json::from_str::<config::Config>(settings)
        .map(drop)
        .map_err(|wrong| wrong_json(&wrong))
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

fn wrong_json(wrong: &serde_json::Error) -> PyErr {
    PyValueError::new_err(wrong.to_string())
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
    module.add_function(wrap_pyfunction!(log_to_stderr, module)?)
}
