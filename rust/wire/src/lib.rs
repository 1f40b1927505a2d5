//! Bytes to Postgres messages and back, protocol 3.0 and 3.2.
//!
//! This crate has no sockets, no clock and no dice: bytes, lengths and nonces come in as
//! arguments, values go out.  What it refuses, it refuses by a value; nothing panics.
//!
//! # Layout
//!
//! - [`frame`]: where a message begins and ends, with a hard limit for each type; no copies
//! - [`startup`]: what comes before the first typed message: TLS, GSS, cancel, parameters
//! - [`greeting`]: the order in which those may come, and the one answer to each
//! - [`client`]: what clients say
//! - [`server`]: what servers say
//! - [`report`]: the fields of errors and notices
//! - [`scram`]: both sides of SCRAM-SHA-256 and -PLUS, from passwords or from keys
//!
//! Source: Postgres manual, "Frontend/Backend Protocol".  Texts stay bytes, for their encoding
//! is the client's own affair.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cursor;

pub mod client;
pub mod frame;
pub mod greeting;
pub mod report;
pub mod scram;
pub mod server;
pub mod startup;

pub use cursor::Malformed;
pub use frame::{Frame, FrameError, Rules, Scan, Scanner, Stage, Talker};
