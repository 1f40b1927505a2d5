//! Secrets of users that the list does not have: asked of the database, by a session of its own.
//!
//! Rules
//! - that session is nobody else's and its `search_path` is `pg_catalog` alone: no client can
//!   put a function of its own in the way (CVE-2025-12819), and so the query has to qualify the
//!   names of its own;
//! - the name goes as a value, never into the text;
//! - an answer is believed for a short time, and for a shorter one after it did not fit; for
//!   longer only while nobody can be asked, so that a client that comes in an outage is held like
//!   the others, and at once no more when a server refuses what was made of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use flightmode_pooler::topology::NodeId;
use flightmode_wire::client::{Bind, FromClient, Parse};
use flightmode_wire::frame::{Rules, Stage, Talker};
use flightmode_wire::scram::Credential;
use flightmode_wire::server::FromServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::config::{AuthQuery, Config, Method};
use crate::hub::Hub;
use crate::secrets::{known_of, private, Known};
use crate::server::{connect, Identity, Server};
use crate::shard::Door;

const BELIEVED_S: f64 = 10.0;
const DOUBTED_S: f64 = 1.0;
/// Nobody has so many users; somebody may guess so many names.
const KEPT: usize = 10_000;
/// A secret has some two hundred bytes.
const LONGEST: usize = 64 << 10;
const WITHIN: Duration = Duration::from_secs(5);

struct Answer {
    at_s: f64,
    known: Option<Known>,
    doubted: bool,
}

impl Answer {
    fn holds(&self, now_s: f64) -> bool {
        let for_s = if self.doubted || self.known.is_none() {
            DOUBTED_S
        } else {
            BELIEVED_S
        };
        now_s < self.at_s + for_s
    }
}

/// See the module.
pub struct Asked {
    query: AuthQuery,
    hub: Weak<Hub>,
    mock_key: [u8; 32],
    answers: RefCell<HashMap<String, Answer>>,
    session: tokio::sync::Mutex<Option<(NodeId, Server)>>,
    /// When it last could not be asked.
    failed_s: Cell<f64>,
}

impl Door {
    /// What is known of a user.  Raises when it can't be asked.
    pub async fn known(&self, user: &str, method: Method) -> Result<Option<Known>, String> {
        let listed = self.users.get(user.as_bytes()).cloned();
        match (&self.asked, method) {
            (Some(asked), Method::Scram | Method::Md5) if listed.is_none() => asked.get(user).await,
            _ => Ok(listed),
        }
    }

    /// A server refused what was made of the answer.
    pub fn forget(&self, user: &str) {
        if let Some(asked) = &self.asked {
            asked.answers.borrow_mut().remove(user);
        }
    }

    /// What a user said did not fit to what is known: it may have changed.
    pub fn doubt(&self, user: &str) {
        if let Some(asked) = &self.asked {
            if let Some(answer) = asked.answers.borrow_mut().get_mut(user) {
                answer.doubted = true;
            }
        }
    }
}

impl Asked {
    pub fn new(config: &Config, mock_key: [u8; 32], hub: &Rc<Hub>) -> Option<Self> {
        Some(Self {
            query: config.auth.query.clone()?,
            hub: Rc::downgrade(hub),
            mock_key,
            answers: RefCell::default(),
            session: tokio::sync::Mutex::default(),
            failed_s: Cell::new(f64::NEG_INFINITY),
        })
    }

    async fn get(&self, user: &str) -> Result<Option<Known>, String> {
        let hub = self.hub.upgrade().ok_or("the proxy ends")?;
        let kept = |hub: &Hub| {
            let answers = self.answers.borrow();
            let answer = answers.get(user)?;
            answer.holds(hub.now_s()).then(|| answer.known.clone())
        };
        if let Some(known) = kept(&hub) {
            return Ok(known);
        }
        let mut session = self.session.lock().await;
        // Somebody may have asked for the same while we waited for our turn.
        if let Some(known) = kept(&hub) {
            return Ok(known);
        }
        let old = self.old(user);
        // Those who waited for their turn do not each wait for a host that is gone.
        if old.is_some() && hub.now_s() < self.failed_s.get() + DOUBTED_S {
            return Ok(old);
        }
        let asked = tokio::time::timeout(WITHIN, self.ask(&hub, &mut session, user)).await;
        let asked = asked.unwrap_or_else(|_| {
            *session = None;
            Err("no answer in time".to_owned())
        });
        let secret = match asked {
            Ok(secret) => secret,
            Err(wrong) if old.is_some() => {
                tracing::warn!(user, "auth_query: {wrong}; the last answer has to do");
                self.failed_s.set(hub.now_s());
                return Ok(old);
            }
            Err(wrong) => return Err(wrong),
        };
        let answer = Answer {
            at_s: hub.now_s(),
            known: secret.and_then(|secret| known_of(secret, user.as_bytes(), &self.mock_key)),
            doubted: false,
        };
        let known = answer.known.clone();
        let mut answers = self.answers.borrow_mut();
        if answers.len() >= KEPT {
            answers.clear();
        }
        answers.insert(user.to_owned(), answer);
        Ok(known)
    }

    /// What was last known of a user, however long ago.
    fn old(&self, user: &str) -> Option<Known> {
        let answers = self.answers.borrow();
        answers.get(user).and_then(|answer| answer.known.clone())
    }

    async fn ask(
        &self,
        hub: &Rc<Hub>,
        session: &mut Option<(NodeId, Server)>,
        user: &str,
    ) -> Result<Option<String>, String> {
        let node = node(hub).ok_or("no server can be asked")?;
        if let Some((of, mut server)) = session.take().filter(|(of, _)| *of == node) {
            // It may have died while it was idle: then another one is asked.
            if let Ok(answer) = run(&mut server, &self.query.sql, user).await {
                return keep(session, of, server, answer);
            }
        }
        let mut server = self.open(hub, node).await?;
        let answer = run(&mut server, &self.query.sql, user).await?;
        keep(session, node, server, answer)
    }

    async fn open(&self, hub: &Rc<Hub>, node: NodeId) -> Result<Server, String> {
        let target = hub.target_of(node);
        let target = target.ok_or("no server can be asked")?;
        let secret = private(&self.query.secret_file).map_err(|wrong| wrong.to_string())?;
        let word = secret
            .lines()
            .next()
            .unwrap_or_default()
            .as_bytes()
            .to_vec();
        let identity = Identity {
            user: self.query.user.clone().into_bytes(),
            database: self.query.database.clone().into_bytes(),
            credential: Some(Credential::Password(Zeroizing::new(word))),
            startup: vec![
                (b"search_path".to_vec(), b"pg_catalog".to_vec()),
                (
                    b"application_name".to_vec(),
                    b"flightmode auth_query".to_vec(),
                ),
            ],
        };
        connect(&target, &identity, WITHIN, 0)
            .await
            .map_err(|wrong| wrong.to_string())
    }
}

/// What the database said: an error of its own leaves the session usable.
type Answered = Result<Option<String>, String>;

fn keep(
    session: &mut Option<(NodeId, Server)>,
    node: NodeId,
    server: Server,
    answer: Answered,
) -> Answered {
    *session = Some((node, server));
    answer
}

/// The primary; without one, a standby knows the users as well.
fn node(hub: &Hub) -> Option<NodeId> {
    let topology = hub.topology.borrow();
    let standby = topology.standbys.first().map(|standby| standby.node);
    topology.writable().or(standby)
}

/// Ask.  Raises when the session is of no more use.
async fn run(server: &mut Server, sql: &str, user: &str) -> Result<Answered, String> {
    let mut bytes = Vec::new();
    let text = 25_u32.to_be_bytes();
    FromClient::Parse(Parse {
        name: b"",
        sql: sql.as_bytes(),
        types: &text,
    })
    .write(&mut bytes);
    // No formats; one value; no formats of the result.
    let mut values = vec![0, 0, 0, 1];
    values.extend_from_slice(&(user.len() as i32).to_be_bytes());
    values.extend_from_slice(user.as_bytes());
    values.extend_from_slice(&[0, 0]);
    FromClient::Bind(Bind {
        portal: b"",
        statement: b"",
        values: &values,
    })
    .write(&mut bytes);
    FromClient::Execute {
        portal: b"",
        max_rows: 0,
    }
    .write(&mut bytes);
    FromClient::Sync.write(&mut bytes);
    let broken = |wrong: std::io::Error| wrong.to_string();
    server.stream.write_all(&bytes).await.map_err(broken)?;
    server.stream.flush().await.map_err(broken)?;
    let mut rules = Rules::new(Talker::Server, Stage::Session);
    rules.longest = LONGEST;
    let mut answer = Ok(None);
    loop {
        let frame = rules
            .peek(&server.unread)
            .map_err(|wrong| wrong.to_string())?;
        let Some(frame) = frame.filter(|frame| server.unread.len() >= frame.len) else {
            if server
                .stream
                .read_buf(&mut server.unread)
                .await
                .map_err(broken)?
                == 0
            {
                return Err("its session was closed".to_owned());
            }
            continue;
        };
        let message = server.unread.split_to(frame.len);
        let read = FromServer::read(frame.tag, &message[5..]);
        match read.map_err(|wrong| wrong.to_string())? {
            FromServer::DataRow(body) => answer = Ok(last_of(body)),
            FromServer::Error(report) if report.is_fatal() => {
                return Err("its session was ended".to_owned());
            }
            FromServer::Error(report) => {
                let words = report.field(b'M').unwrap_or_default();
                answer = Err(String::from_utf8_lossy(words).into_owned());
            }
            FromServer::ReadyForQuery(_) => return Ok(answer),
            _ => (),
        }
    }
}

/// The last value of a row: the query gives the secret alone, or the name before it.
fn last_of(body: &[u8]) -> Option<String> {
    let mut rest = body.get(2..)?;
    let mut last = None;
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let value = length.map_or(Some(&[][..]), |length| more.get(..length))?;
        last = length.map(|_| value);
        rest = &more[value.len()..];
    }
    last.map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_row_is_the_secret() {
        let row = b"\0\x02\0\0\0\x03app\0\0\0\x02pw";
        assert_eq!(last_of(row).as_deref(), Some("pw"));
        assert_eq!(last_of(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"), None);
        assert_eq!(last_of(b"\0\x01\0\0\0\x09short"), None);
        assert_eq!(last_of(b"\0"), None);
    }

    #[test]
    fn an_answer_that_did_not_fit_is_asked_for_again_sooner() {
        let mut answer = Answer {
            at_s: 100.0,
            known: known_of("word".to_owned(), b"app", b"key"),
            doubted: false,
        };
        assert!(answer.holds(109.0));
        assert!(!answer.holds(110.0));
        answer.doubted = true;
        assert!(answer.holds(100.5));
        assert!(!answer.holds(101.0));
    }
}
