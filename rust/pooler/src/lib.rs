//! Who serves, who waits, and what a client is told when a server is lost.
//!
//! Everything here is pure: events and times come in, values go out.  Sockets, TLS and timers
//! belong to the shell that is built on top.
//!
//! # Layout
//!
//! - [`topology`]: who is primary in which term; news, ordered
//! - [`route`]: which node serves a wish
//! - [`session`]: a client: what it has, what binds it to its server, what a lost server means
//! - [`pool`]: servers and the queue of one user of one database
//! - [`hold`]: the table of what a client is told, and the budget of waiting
//! - [`lexer`], [`statement`]: what SQL says that matters to a session
//! - [`listening`]: what a client listens to; [`channels`]: what the clients of a pool do, and what
//!   their listener has been told of it
//! - [`notices`]: warnings that a client does not want and the proxy has to hear
//! - [`texts`]: texts of prepared statements that were read before
//! - [`guc`]: a session's settings, with the semantics of transactions
//! - [`prepared`]: statements of clients under names that every server can have
//! - [`flow`]: which replies are owed to whom
//! - [`aftermath`]: a client in a transaction that a failover has ended
//! - [`unit`]: what one client has at stake at a server
//! - [`numbers`]: maps by numbers of our own

#![forbid(unsafe_code)]

pub mod aftermath;
pub mod channels;
pub mod flow;
pub mod guc;
pub mod hold;
pub mod lexer;
pub mod listening;
pub mod notices;
pub mod numbers;
pub mod pool;
pub mod prepared;
pub mod route;
pub mod session;
pub mod started;
pub mod statement;
pub mod texts;
pub mod topology;
pub mod unit;
