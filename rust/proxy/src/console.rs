//! The console: a database of our own that answers operators in the words of `PgBouncer`.
//!
//! Only the simple protocol is spoken here, as psql does.  What is shown is the sum of all shards.

mod listeners;
mod show;
mod table;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use flightmode_wire::client::FromClient;
use flightmode_wire::frame::{Rules, Stage, Talker};
use flightmode_wire::report::Report;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{Admin, Config, Method, Rule, RuleType};
use crate::events::Happened;
use crate::hub::{Hub, Operator};
use crate::listen::Kind;
use crate::login::Guest;
use crate::orders::{Command, Outcome};
use crate::server::peer;
use crate::shard::{about, refuse};
use crate::stats;
use crate::stream::Stream;

/// The name that clients ask for.
pub const DATABASE: &str = "flightmode";
/// Nobody types more.
const LONGEST: usize = 16 << 10;
/// How often a PAUSE looks whether everything has ended.
const LOOK: Duration = Duration::from_millis(20);
const DRAIN_WITHIN_S: f64 = 60.0;

const HELP: &str = "
  SHOW HELP|POOLS|CLIENTS|SERVERS|STATS|DATABASES|USERS|CONFIG|TOPOLOGY
  SHOW LISTENERS|LISTS|MEM|STATE|VERSION
  PAUSE [db]      let what runs end, then keep no server; clients wait
  RESUME [db]
  RECONNECT [db]  replace each server when nobody uses it
  KILL [db]       close clients and servers at once; new clients wait for RESUME
  KILL_CLIENT id  close one client, by its number in SHOW CLIENTS
  DRAIN [seconds] let nobody in; send each client away between two transactions
  RELOAD          read the settings again
  SHUTDOWN        end";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Admin,
    /// SHOW, and nothing else.
    Stats,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Asked {
    Nothing,
    Show(String),
    Do(&'static str, Command),
    Reload,
    Shutdown,
}

/// An error of the console.
#[derive(Debug, PartialEq)]
struct Wrong {
    sqlstate: &'static str,
    message: String,
}

fn wrong(sqlstate: &'static str, message: impl Into<String>) -> Wrong {
    Wrong {
        sqlstate,
        message: message.into(),
    }
}

/// Whether a client that asks for this database asks for the console.
pub fn is_console(config: &Config, database: &str) -> bool {
    database == DATABASE || config.admin.names.iter().any(|name| name == database)
}

/// The settings for a login by the file of the console: whoever may open it may do everything.
pub fn by_file(config: &Config) -> Config {
    let mut open = config.clone();
    open.auth.rules = vec![Rule {
        kind: RuleType::Local,
        database: [&config.admin.names[..], &[DATABASE.to_owned()]]
            .concat()
            .join(","),
        user: "all".to_owned(),
        address: None,
        method: Method::Trust,
    }];
    open
}

fn rights(admin: &Admin, user: &str, kind: Kind) -> Option<Rights> {
    let named = |users: &[String]| users.iter().any(|name| name == user);
    match (kind.admin || named(&admin.users), named(&admin.stats_users)) {
        (true, _) => Some(Rights::Admin),
        (false, true) => Some(Rights::Stats),
        (false, false) => None,
    }
}

/// Until the operator leaves.
pub async fn serve(
    guest: Guest,
    hub: &Rc<Hub>,
    config: &Config,
    kind: Kind,
    address: Option<SocketAddr>,
) {
    let who = peer(address);
    let Some(rights) = rights(&config.admin, &guest.user, kind) else {
        let words = format!(
            "user \"{}\" is neither in admin.users nor in admin.stats_users",
            guest.user
        );
        return refuse(guest.stream, hub, "42501", &words, &who).await;
    };
    let id = hub.client_id();
    let operator = Operator {
        database: guest.database.clone(),
        address: address
            .map(|address| address.ip().to_string())
            .unwrap_or_default(),
        about: about(&guest, hub, address),
    };
    hub.operators.borrow_mut().insert(id, operator);
    let mut console = Console {
        stream: guest.stream,
        unread: guest.unread,
        user: guest.user,
        hub: Rc::clone(hub),
        rights,
        skipping: false,
    };
    if let Err(wrong) = console.run().await {
        tracing::debug!(client = who, "the console ended: {wrong}");
    }
    hub.operators.borrow_mut().remove(&id);
}

struct Console {
    stream: Stream,
    unread: BytesMut,
    user: String,
    hub: Rc<Hub>,
    rights: Rights,
    /// The rest of a group of the extended protocol goes on to its Sync.
    skipping: bool,
}

impl Console {
    async fn run(&mut self) -> std::io::Result<()> {
        let mut rules = Rules::new(Talker::Client, Stage::Session);
        rules.longest = LONGEST;
        self.greet().await?;
        loop {
            let frame = match rules.peek(&self.unread) {
                Ok(frame) => frame,
                Err(wrong) => return self.farewell(&wrong.to_string()).await,
            };
            let whole = frame.filter(|frame| self.unread.len() >= frame.len);
            let Some(frame) = whole else {
                if self.stream.read_buf(&mut self.unread).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            let message = self.unread.split_to(frame.len);
            let Ok(message) = FromClient::read(frame.tag, &message[5..]) else {
                return self.farewell("malformed message").await;
            };
            let mut out = Vec::new();
            match message {
                FromClient::Terminate => return Ok(()),
                FromClient::Query(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    if let Err(wrong) = self.query(&text, &mut out).await {
                        let report = Report::new("ERROR", wrong.sqlstate, &wrong.message);
                        report.with(b'H', "Try SHOW HELP.").write_error(&mut out);
                    }
                    ready(&mut out);
                }
                FromClient::Sync => {
                    self.skipping = false;
                    ready(&mut out);
                }
                _ if !std::mem::replace(&mut self.skipping, true) => {
                    let words = "the console speaks the simple protocol only";
                    Report::new("ERROR", "0A000", words).write_error(&mut out);
                }
                _ => (),
            }
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
        }
    }

    async fn greet(&mut self) -> std::io::Result<()> {
        let mut out = Vec::new();
        FromServer::Authentication(Authentication::Ok).write(&mut out);
        let version = format!("{}-flightmode", env!("CARGO_PKG_VERSION"));
        let told = [
            ("server_version", version.as_str()),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
            ("standard_conforming_strings", "on"),
            ("integer_datetimes", "on"),
            ("is_superuser", "on"),
        ];
        for (name, value) in told {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            FromServer::ParameterStatus { name, value }.write(&mut out);
        }
        ready(&mut out);
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    async fn farewell(&mut self, words: &str) -> std::io::Result<()> {
        let mut out = Vec::new();
        Report::new("FATAL", "08P01", words).write_error(&mut out);
        self.stream.write_all(&out).await?;
        self.stream.shutdown().await
    }

    async fn query(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let asked = read(text)?;
        if self.rights == Rights::Stats && !matches!(asked, Asked::Show(_) | Asked::Nothing) {
            return Err(wrong("42501", "a user of admin.stats_users may only SHOW"));
        }
        let tag = match asked {
            Asked::Nothing => {
                FromServer::EmptyQueryResponse.write(out);
                return Ok(());
            }
            Asked::Show(what) if what == "help" => {
                Report::new("NOTICE", "00000", HELP).write_notice(out);
                "SHOW"
            }
            Asked::Show(what) => {
                let table = show::table(&self.hub, &what).await;
                let table = table
                    .ok_or_else(|| wrong("42601", format!("nothing is known of SHOW {what}")))?;
                table.write(out);
                "SHOW"
            }
            Asked::Do(tag, command) => {
                self.carry_out(&command).await?;
                tag
            }
            Asked::Reload => {
                let by = self.user.clone();
                self.hub.sink.tell(Happened::ReloadAsked { by });
                "RELOAD"
            }
            Asked::Shutdown => {
                let by = self.user.clone();
                self.hub.sink.tell(Happened::StopAsked { by });
                "SHUTDOWN"
            }
        };
        FromServer::CommandComplete(tag.as_bytes()).write(out);
        Ok(())
    }

    async fn carry_out(&mut self, command: &Command) -> Result<(), Wrong> {
        tracing::info!(user = self.user, ?command, "an operator's command");
        let shards = self.hub.shards.clone();
        let answers = shards.ask(shards.prepared(command)).await;
        let outcome = Outcome::sum(answers);
        if let Some(words) = outcome.wrong {
            return Err(wrong("3D000", words));
        }
        if let (Command::KillClient { id }, 0) = (command, outcome.clients) {
            return Err(wrong("42704", format!("no client has the number {id}")));
        }
        if let Command::Pause { database } = command {
            self.wait_for_end(database.as_deref()).await?;
        }
        Ok(())
    }

    /// Until nothing runs any more, or the operator leaves.
    async fn wait_for_end(&mut self, database: Option<&str>) -> Result<(), Wrong> {
        let shards = self.hub.shards.clone();
        let ended = async {
            loop {
                let stats = stats::Stats::sum(shards.ask(stats::of).await);
                let of = stats
                    .pools
                    .iter()
                    .filter(|pool| database.is_none_or(|name| name == pool.database));
                if of.map(stats::PoolStats::servers).sum::<usize>() == 0 {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let gone = async {
            while self.unread.len() < LONGEST {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => (),
                }
            }
        };
        tokio::select! {
            () = ended => Ok(()),
            () = gone => Err(wrong("57014", "it is paused; something still runs")),
        }
    }
}

fn ready(out: &mut Vec<u8>) {
    FromServer::ReadyForQuery(TxStatus::Idle).write(out);
}

/// Read a command.  Names of databases may be quoted as in SQL.
fn read(text: &str) -> Result<Asked, Wrong> {
    let text = text.trim().trim_end_matches(';').trim_end();
    let (verb, rest) = text
        .split_once(char::is_whitespace)
        .map_or((text, ""), |(verb, rest)| (verb, rest.trim()));
    let of = || (!rest.is_empty()).then(|| unquoted(rest));
    Ok(match verb.to_ascii_lowercase().as_str() {
        "" => Asked::Nothing,
        "show" => Asked::Show(rest.to_ascii_lowercase()),
        "pause" => Asked::Do("PAUSE", Command::Pause { database: of() }),
        "resume" => Asked::Do("RESUME", Command::Resume { database: of() }),
        "reconnect" => Asked::Do("RECONNECT", Command::Reconnect { database: of() }),
        "kill" => Asked::Do("KILL", Command::Kill { database: of() }),
        "drain" => {
            let within_s = match rest {
                "" => DRAIN_WITHIN_S,
                _ => rest
                    .parse()
                    .ok()
                    .filter(|s: &f64| s.is_finite() && *s >= 0.0)
                    .ok_or_else(|| wrong("22023", format!("{rest} is no number of seconds")))?,
            };
            Asked::Do("DRAIN", Command::Drain { within_s })
        }
        "kill_client" => {
            let id = rest
                .parse()
                .map_err(|_| wrong("22023", format!("{rest} is no number of SHOW CLIENTS")))?;
            Asked::Do("KILL_CLIENT", Command::KillClient { id })
        }
        "reload" => Asked::Reload,
        "shutdown" => Asked::Shutdown,
        "set" => {
            let words = "settings are changed in flightmode.toml, and then with RELOAD";
            return Err(wrong("0A000", words));
        }
        _ => return Err(wrong("42601", format!("the console has no command {verb}"))),
    })
}

fn unquoted(name: &str) -> String {
    let inner = name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.map_or_else(|| name.to_owned(), |inner| inner.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_typed() {
        let database = Some("My \"app".to_owned());
        assert_eq!(
            read(" pause \"My \"\"app\" ; "),
            Ok(Asked::Do("PAUSE", Command::Pause { database }))
        );
        assert_eq!(read("Show  Pools;"), Ok(Asked::Show("pools".to_owned())));
        assert_eq!(read(";"), Ok(Asked::Nothing));
        let within_s = 2.5;
        let drain = Asked::Do("DRAIN", Command::Drain { within_s });
        assert_eq!(read("DRAIN 2.5"), Ok(drain));
        let one = Asked::Do("KILL_CLIENT", Command::KillClient { id: 7 });
        assert_eq!(read("KILL_CLIENT 7"), Ok(one));
    }

    #[test]
    fn what_is_not_known_is_an_error_that_says_so() {
        assert_eq!(read("DRAIN soon").unwrap_err().sqlstate, "22023");
        assert_eq!(read("DROP TABLE x").unwrap_err().sqlstate, "42601");
        assert_eq!(read("SET x = 1").unwrap_err().sqlstate, "0A000");
    }

    #[test]
    fn rights_come_from_the_lists_and_from_the_file() {
        let admin = Admin {
            unix: None,
            users: vec!["ops".to_owned()],
            stats_users: vec!["watch".to_owned(), "ops".to_owned()],
            names: Vec::new(),
        };
        let file = Kind {
            admin: true,
            ..Kind::default()
        };
        let tcp = Kind::default();
        assert_eq!(rights(&admin, "ops", tcp), Some(Rights::Admin));
        assert_eq!(rights(&admin, "watch", tcp), Some(Rights::Stats));
        assert_eq!(rights(&admin, "app", tcp), None);
        assert_eq!(rights(&admin, "app", file), Some(Rights::Admin));
    }
}
