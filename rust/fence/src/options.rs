//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::log::Level;

pub const USAGE: &str = "\
flightmode-fence: the parent of Postgres; it stops it when its permission to run ends.

usage: flightmode-fence --socket PATH --node NAME [OPTION…]

  --socket PATH         where it listens (Unix, SOCK_SEQPACKET, mode 0600)
  --node NAME           this node's name, for heartbeats
  --postgres-uid UID    whom Postgres runs as; needed as root, else it is our own
  --cgroup PATH         a directory of cgroup2 for Postgres alone; made if need be
  --nft-table NAME      cut Postgres' port by a table of nftables when SIGKILL is not enough
  --nft-port PORT       the port to cut
  --watchdog PATH       a watchdog device, left to bite when all else fails
  --watchdog-timeout S  after how many seconds it bites (5)
  --heartbeat-key PATH  a file with the key that heartbeats are signed with
  --log-level LEVEL     debug, info, warning or error (info)
  --version, --help
";

#[derive(Debug)]
pub struct Options {
    pub socket: PathBuf,
    pub node: String,
    pub postgres_uid: Option<u32>,
    pub cgroup: Option<PathBuf>,
    pub nft: Option<(String, u16)>,
    pub watchdog: Option<(PathBuf, u16)>,
    pub heartbeat_key: Option<PathBuf>,
    pub log_level: Level,
}

pub enum Asked {
    Run(Box<Options>),
    Print(String),
}

#[derive(Default)]
struct Given {
    socket: Option<PathBuf>,
    node: Option<String>,
    postgres_uid: Option<u32>,
    cgroup: Option<PathBuf>,
    nft_table: Option<String>,
    nft_port: Option<u16>,
    watchdog: Option<PathBuf>,
    watchdog_timeout_s: Option<u16>,
    heartbeat_key: Option<PathBuf>,
    log_level: Option<Level>,
}

pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut given = Given::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("socket") => given.socket = Some(parser.value()?.into()),
            Long("node") => given.node = Some(parser.value()?.parse_with(node)?),
            Long("postgres-uid") => given.postgres_uid = Some(parser.value()?.parse()?),
            Long("cgroup") => given.cgroup = Some(parser.value()?.into()),
            Long("nft-table") => given.nft_table = Some(parser.value()?.parse_with(word)?),
            Long("nft-port") => given.nft_port = Some(parser.value()?.parse()?),
            Long("watchdog") => given.watchdog = Some(parser.value()?.into()),
            Long("watchdog-timeout") => given.watchdog_timeout_s = Some(parser.value()?.parse()?),
            Long("heartbeat-key") => given.heartbeat_key = Some(parser.value()?.into()),
            Long("log-level") => given.log_level = Some(parser.value()?.parse_with(level)?),
            Long("help") => return Ok(Asked::Print(USAGE.into())),
            Long("version") => {
                let version = concat!("flightmode-fence ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Asked::Print(version.into()));
            }
            _ => return Err(arg.unexpected()),
        }
    }
    given.finish().map(|options| Asked::Run(Box::new(options)))
}

impl Given {
    fn finish(self) -> Result<Options, lexopt::Error> {
        let nft = match (self.nft_table, self.nft_port) {
            (None, None) => None,
            (Some(table), Some(port)) => Some((table, port)),
            _ => return Err("--nft-table and --nft-port go together".into()),
        };
        let timeout_s = self.watchdog_timeout_s.unwrap_or(5).max(2);
        Ok(Options {
            socket: self.socket.ok_or("--socket is missing")?,
            node: self.node.ok_or("--node is missing")?,
            postgres_uid: self.postgres_uid,
            cgroup: self.cgroup,
            nft,
            watchdog: self.watchdog.map(|path| (path, timeout_s)),
            heartbeat_key: self.heartbeat_key,
            log_level: self.log_level.unwrap_or(Level::Info),
        })
    }
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| "it is debug, info, warning or error".into())
}

fn node(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len());
    fits.then(|| text.to_owned()).ok_or_else(|| "a name has 1 to 63 bytes".into())
}

/// A name that can stand in a ruleset as it is.
fn word(text: &str) -> Result<String, String> {
    let letters =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let fits =
        letters && text.len() <= 31 && text.starts_with(|first: char| first.is_ascii_alphabetic());
    fits.then(|| text.to_owned())
        .ok_or_else(|| "a table has up to 31 letters, digits, - and _".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Asked::Run(options)) => Ok(*options),
            Ok(Asked::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_socket_and_a_name_are_enough() {
        let options = options("--socket /run/f --node=ams").unwrap();
        assert_eq!(options.node, "ams");
        assert!(options.nft.is_none());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(options("--node ams").unwrap_err(), "--socket is missing");
    }

    #[test]
    fn half_a_cut_is_refused() {
        assert!(options("--socket s --node n --nft-table t").is_err());
        assert!(options("--socket s --node n --nft-table t --nft-port 5432").is_ok());
    }

    #[test]
    fn a_table_can_not_smuggle_rules() {
        assert!(options("--socket s --node n --nft-port 1 --nft-table a;flush").is_err());
    }

    #[test]
    fn a_watchdog_bites_after_five_seconds_unless_told() {
        let options = options("--socket s --node n --watchdog /dev/watchdog").unwrap();
        assert_eq!(options.watchdog, Some(("/dev/watchdog".into(), 5)));
    }
}
