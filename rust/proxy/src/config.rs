//! What the proxy is told to be, as the launcher writes it.  Every setting but `listen` and
//! `nodes` has a default; an unknown one is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flightmode_pooler::topology::Lsn;
use serde::{Deserialize, Serialize};

/// The whole of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: Vec<Listen>,
    #[serde(default = "one")]
    pub shards: usize,
    #[serde(default)]
    pub client_tls: ClientTls,
    #[serde(default)]
    pub server_tls: ServerTls,
    pub nodes: BTreeMap<String, Node>,
    #[serde(default)]
    pub databases: BTreeMap<String, Database>,
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    #[serde(default)]
    pub auth: Auth,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub times: Times,
    #[serde(default = "two_hundred")]
    pub max_prepared: usize,
    #[serde(default = "ignored_at_start")]
    pub ignore_startup: Vec<String>,
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// Where clients come in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Listen {
    Tcp {
        host: String,
        port: u16,
        /// Each connection begins with a header that says whom it is from.
        #[serde(default)]
        proxy_protocol: bool,
    },
    Unix {
        unix: PathBuf,
        #[serde(default = "socket_mode")]
        mode: String,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientTlsMode {
    #[default]
    Disable,
    Allow,
    Require,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerTlsMode {
    #[default]
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    pub mode: ServerTlsMode,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// A database node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    #[default]
    Transaction,
    Session,
    Statement,
}

/// A database as clients name it; `*` is every other.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    pub pool_mode: Option<PoolMode>,
    pub pool_size: usize,
    pub min_pool_size: usize,
    pub reserve: usize,
    /// Its name at the server, if that is another.
    pub dbname: Option<String>,
    pub settings: BTreeMap<String, String>,
    pub max_db_connections: usize,
    /// Instead of that of `times`.
    pub query_wait_s: Option<f64>,
    /// Its clients at once; 0: `limits.per_database`.
    pub max_clients: usize,
    /// Who logs in at the server, whoever the client is: all of its clients share that pool.
    pub user: Option<String>,
    /// That user's password, on one line; without it what the users file says.
    pub secret_file: Option<PathBuf>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            pool_mode: None,
            pool_size: 20,
            min_pool_size: 0,
            reserve: 0,
            dbname: None,
            settings: BTreeMap::new(),
            max_db_connections: 0,
            query_wait_s: None,
            max_clients: 0,
            user: None,
            secret_file: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    pub pool_mode: Option<PoolMode>,
    pub max_connections: usize,
    /// Its servers at once, in all databases; 0: no limit.
    pub max_servers: usize,
    /// Its own limits of time, instead of those of `times`.
    pub query_wait_s: Option<f64>,
    pub client_idle_s: Option<f64>,
    pub idle_in_transaction_s: Option<f64>,
    pub query_s: Option<f64>,
    /// The size of its pools and their reserve, instead of a database's.
    pub pool_size: Option<usize>,
    pub reserve: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    pub rules: Vec<Rule>,
    pub users_file: Option<PathBuf>,
    pub query: Option<AuthQuery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleType {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    #[serde(rename = "scram-sha-256")]
    Scram,
    Md5,
    Cert,
    Trust,
    Reject,
}

/// A line as in `pg_hba.conf`; the first that fits decides.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "type")]
    pub kind: RuleType,
    #[serde(default = "all")]
    pub database: String,
    #[serde(default = "all")]
    pub user: String,
    #[serde(default)]
    pub address: Option<String>,
    pub method: Method,
}

/// Where secrets of users that the file does not have are asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthQuery {
    pub user: String,
    pub secret_file: PathBuf,
    pub database: String,
    pub sql: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub unix: Option<PathBuf>,
    pub users: Vec<String>,
    pub stats_users: Vec<String>,
    /// Other names of the console's database, for tools that know it by one.
    pub names: Vec<String>,
}

/// Zero: no limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_clients: usize,
    pub per_user: usize,
    pub per_database: usize,
    pub per_ip: usize,
    pub preauth_bytes: usize,
    pub preauth_s: f64,
    pub max_message: usize,
    pub buffer: usize,
    pub memory_mb: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            per_user: 0,
            per_database: 0,
            per_ip: 0,
            preauth_bytes: 10_240,
            preauth_s: 10.0,
            max_message: 1 << 30,
            buffer: 65_536,
            memory_mb: 256,
        }
    }
}

/// In seconds; zero: no limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    pub hold_for_s: f64,
    pub query_wait_s: f64,
    pub server_connect_s: f64,
    pub server_idle_s: f64,
    pub server_lifetime_s: f64,
    pub client_idle_s: f64,
    pub idle_in_transaction_s: f64,
    pub query_s: f64,
}

impl Times {
    /// Longest that a login at a server may take.
    pub fn server_connect(&self) -> Duration {
        Duration::from_secs_f64(self.server_connect_s.max(0.1))
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            hold_for_s: 30.0,
            query_wait_s: 120.0,
            server_connect_s: 1.0,
            server_idle_s: 600.0,
            server_lifetime_s: 3600.0,
            client_idle_s: 0.0,
            idle_in_transaction_s: 0.0,
            query_s: 0.0,
        }
    }
}

/// Who is who now, by the names of `nodes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct News {
    pub term: u64,
    pub revision: u64,
    pub primary: Option<String>,
    #[serde(default)]
    pub fenced: bool,
    #[serde(default)]
    pub parting: bool,
    #[serde(default)]
    pub standbys: Vec<StandbyNews>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandbyNews {
    pub node: String,
    #[serde(default)]
    pub lag_bytes: u64,
    pub lag_s: f64,
    /// As Postgres writes it: `0/3000000`.
    pub replayed: String,
}

impl StandbyNews {
    /// Zero for what is none.
    pub fn lsn(&self) -> Lsn {
        let parse = |part: &str| u64::from_str_radix(part, 16).ok();
        let both = self.replayed.split_once('/');
        let value = both.and_then(|(high, low)| Some((parse(high)? << 32) | parse(low)?));
        Lsn(value.unwrap_or(0))
    }
}

impl Config {
    /// The settings of a database as clients name it.
    pub fn database(&self, name: &str) -> Option<Database> {
        if self.databases.is_empty() {
            return Some(Database::default());
        }
        let found = self.databases.get(name).or(self.databases.get("*"));
        found.cloned()
    }

    /// The limits of time that hold for a user's clients.
    pub fn times_of(&self, user: &str) -> Times {
        let mut times = self.times.clone();
        if let Some(own) = self.users.get(user) {
            times.client_idle_s = own.client_idle_s.unwrap_or(times.client_idle_s);
            times.idle_in_transaction_s = own
                .idle_in_transaction_s
                .unwrap_or(times.idle_in_transaction_s);
            times.query_s = own.query_s.unwrap_or(times.query_s);
        }
        times
    }

    /// How long clients of a user's pool wait while its servers serve others.
    pub fn query_wait_of(&self, database: &Database, user: &str) -> f64 {
        let own = self.users.get(user).and_then(|user| user.query_wait_s);
        let own = own.or(database.query_wait_s);
        own.unwrap_or(self.times.query_wait_s)
    }

    /// The size of a user's pool of a database, and its reserve.
    pub fn size_of(&self, database: &Database, user: &str) -> (usize, usize) {
        let own = self.users.get(user);
        let size = own.and_then(|user| user.pool_size);
        let reserve = own.and_then(|user| user.reserve);
        (
            size.unwrap_or(database.pool_size),
            reserve.unwrap_or(database.reserve),
        )
    }

    /// How a user of a database is pooled.
    pub fn mode_of(&self, database: &Database, user: &str) -> PoolMode {
        let of_user = self.users.get(user).and_then(|user| user.pool_mode);
        of_user.or(database.pool_mode).unwrap_or_default()
    }
}

fn one() -> usize {
    1
}

fn two_hundred() -> usize {
    200
}

fn ignored_at_start() -> Vec<String> {
    vec!["extra_float_digits".to_owned()]
}

fn socket_mode() -> String {
    "0660".to_owned()
}

fn all() -> String {
    "all".to_owned()
}
