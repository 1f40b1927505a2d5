//! Who serves, who waits, and what a client is told when a server is lost.
//!
//! Everything here is pure: events and times come in, values go out.  Sockets, TLS and timers
//! belong to the shell that is built on top.
//!
//! # Layout
//!
//! - [`topology`]: who is primary in which term; news, ordered
//! - [`route`]: which node serves a wish
//! - [`pool`]: servers and the queue of one user of one database
//! - [`hold`]: the table of what a client is told, and the budget of waiting
//! - [`unit`]: what one client has at stake at a server

#![forbid(unsafe_code)]

pub mod hold;
pub mod pool;
pub mod route;
pub mod topology;
pub mod unit;
