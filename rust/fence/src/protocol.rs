//! What clients say and hear: one JSON object a packet.
//!
//! A request has an `id` and a `cmd`; its reply has the same `id` and either `ok` or
//! `error: {code, message}`.  A packet with `event` is news for subscribers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::deadline::Refusal;

/// No packet is longer; the environment of a postmaster is far from it.
pub const PACKET_MAX: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
pub struct Request {
    pub id: u64,
    #[serde(flatten)]
    pub command: Command,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Command {
    Start(Start),
    Extend { term: u64, deadline_s: f64 },
    Lift { term: u64 },
    SetRole { role: Role, term: u64 },
    Stop { mode: StopMode },
    Void,
    Kill,
    Status,
    Subscribe,
    Heartbeat { to: Vec<std::net::SocketAddr> },
}

#[derive(Debug, Deserialize)]
pub struct Start {
    pub argv: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub directory: PathBuf,
    pub log: PathBuf,
    pub role: Role,
    pub term: u64,
    /// A primary's permission; `None`: what was granted before holds.
    pub deadline_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    Standby,
}

/// Postgres manual, 19.5 "Shutting Down the Server".
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    Smart,
    Fast,
    Immediate,
}

impl StopMode {
    pub fn signal(self) -> libc::c_int {
        match self {
            Self::Smart => libc::SIGTERM,
            Self::Fast => libc::SIGINT,
            Self::Immediate => libc::SIGQUIT,
        }
    }
}

/// Why a request was not carried out; `code` is for programs and stable.
#[derive(Debug)]
pub struct Refused {
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OlderTerm { known } => {
                Self::new("older_term", format!("term {known} is known here"))
            }
            Refusal::NotStopped => Self::new(
                "not_stopped",
                "the last permission has ended, and what ran under it is not gone yet",
            ),
            Refusal::Past { late_s } => Self::new(
                "past_deadline",
                format!("that deadline was {late_s:.3} s ago, and nothing else is in force"),
            ),
            Refusal::NotATime => Self::new("bad_request", "the deadline is no finite number"),
        }
    }
}

pub type Answer = Result<Value, Refused>;

/// Reads a packet; the error is a reply already.
pub fn parse(packet: &[u8]) -> Result<Request, Value> {
    serde_json::from_slice(packet).map_err(|error| {
        let id = serde_json::from_slice::<Value>(packet)
            .ok()
            .and_then(|value| value.get("id").cloned())
            .unwrap_or(Value::Null);
        json!({"id": id, "error": {"code": "bad_request", "message": error.to_string()}})
    })
}

pub fn reply(id: u64, answer: Answer) -> Value {
    match answer {
        Ok(value) => json!({"id": id, "ok": value}),
        Err(refused) => {
            json!({"id": id, "error": {"code": refused.code, "message": refused.message}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let request = parse(br#"{"id": 7, "cmd": "extend", "term": 3, "deadline_s": 1.5}"#);
        let Ok(Request { id: 7, command: Command::Extend { term: 3, deadline_s } }) = request
        else {
            panic!("not read: {request:?}");
        };
        assert!((deadline_s - 1.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_no_request_is_answered_with_its_id() {
        let reply = parse(br#"{"id": 7, "cmd": "explode"}"#).unwrap_err();
        assert_eq!(reply["id"], 7);
        assert_eq!(reply["error"]["code"], "bad_request");
    }

    #[test]
    fn garbage_is_answered_too() {
        assert_eq!(parse(b"\xff").unwrap_err()["error"]["code"], "bad_request");
    }

    #[test]
    fn heartbeats_go_to_numeric_addresses_only() {
        assert!(parse(br#"{"id":1,"cmd":"heartbeat","to":["10.0.0.2:8009","[::1]:1"]}"#).is_ok());
        assert!(parse(br#"{"id":1,"cmd":"heartbeat","to":["fra.example:8009"]}"#).is_err());
    }
}
