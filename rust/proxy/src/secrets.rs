//! Who may come in: the list of users, and the rules in the order of `pg_hba.conf`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use flightmode_wire::scram::Secret;
use zeroize::Zeroizing;

use crate::config::{Method, Rule, RuleType};

/// What is known of a user.
#[derive(Clone)]
pub enum Known {
    /// The password itself, and what its user is asked: derived once, because whoever names the
    /// user can make us ask.
    Password {
        word: Zeroizing<Vec<u8>>,
        scram: Secret,
    },
    Scram(Secret),
    /// Of older lists: `md5` and the digest of password and name.
    Md5(String),
}

/// The list of users, one a line: `"name" "secret"`, as poolers have it.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<Vec<u8>, Known>,
}

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("{path}: {wrong}")]
    Unreadable { path: String, wrong: std::io::Error },
    #[error("{path}, line {line}: not `\"name\" \"secret\"`")]
    Line { path: String, line: usize },
    #[error("{path} can be read by others than its owner: chmod 600 {path}")]
    Modes { path: String },
}

impl Users {
    /// Raises when the file is not there, not private, or has a line that is none.
    /// A name whose secret is empty, or can't be read, is as one that is not listed: no password
    /// is its own.
    pub fn load(path: &Path, process_key: &[u8]) -> Result<Self, UsersError> {
        let shown = path.display().to_string();
        let text = private(path)?;
        let mut by_name = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(';') || line.starts_with('#') {
                continue;
            }
            let wrong = || UsersError::Line {
                path: shown.clone(),
                line: number + 1,
            };
            let (name, rest) = quoted(line).ok_or_else(wrong)?;
            let (secret, _) = quoted(rest.trim_start()).ok_or_else(wrong)?;
            let Some(known) = known_of(secret, name.as_bytes(), process_key) else {
                let line = number + 1;
                tracing::warn!(
                    user = name,
                    "{shown}, line {line}: no secret that can be used"
                );
                continue;
            };
            by_name.insert(name.into_bytes(), known);
        }
        Ok(Self { by_name })
    }

    pub fn names(&self) -> Vec<String> {
        let names = self.by_name.keys();
        names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    pub fn get(&self, user: &[u8]) -> Option<&Known> {
        self.by_name.get(user)
    }
}

/// What a secret says; `None`: nothing that anybody could prove.
pub fn known_of(secret: String, user: &[u8], process_key: &[u8]) -> Option<Known> {
    let secret = Zeroizing::new(secret);
    if secret.is_empty() {
        return None;
    }
    // One that is broken is not a password that happens to look so.
    if secret.starts_with("SCRAM-SHA-256$") {
        return Secret::from_str(&secret).ok().map(Known::Scram);
    }
    let is_md5 = secret.len() == 35 && secret.starts_with("md5");
    if is_md5 && secret[3..].bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Known::Md5(secret.to_string()));
    }
    let scram = Secret::of_user(user, secret.as_bytes(), process_key);
    let word = Zeroizing::new(secret.as_bytes().to_vec());
    Some(Known::Password { word, scram })
}

/// A text in quotes, in which two quotes are one, and what follows it.
fn quoted(line: &str) -> Option<(String, &str)> {
    let mut rest = line.strip_prefix('"')?;
    let mut text = String::new();
    loop {
        let end = rest.find('"')?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Some((text, rest)),
        }
    }
}

/// What a file says that nobody else may read.
pub fn private(path: &Path) -> Result<Zeroizing<String>, UsersError> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display().to_string();
    let unreadable = |wrong| UsersError::Unreadable {
        path: shown.clone(),
        wrong,
    };
    let mode = std::fs::metadata(path)
        .map_err(unreadable)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(UsersError::Modes { path: shown });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(Zeroizing::new(text))
}

/// How a client has to prove who it is.  Without any rule: by password from everywhere.
pub fn method_for(
    rules: &[Rule],
    address: Option<IpAddr>,
    in_tls: bool,
    database: &str,
    user: &str,
) -> Method {
    if rules.is_empty() {
        return Method::Scram;
    }
    let fits = |rule: &&Rule| {
        let of_kind = match (rule.kind, address) {
            (RuleType::Local, address) => address.is_none(),
            (_, None) => false,
            (RuleType::Host, _) => true,
            (RuleType::HostSsl, _) => in_tls,
            (RuleType::HostNoSsl, _) => !in_tls,
        };
        let named = |list: &str, name: &str| {
            list.split(',')
                .map(str::trim)
                .any(|word| word == "all" || word == name)
        };
        let within = match (address, &rule.address) {
            (Some(address), Some(network)) => is_within(address, network),
            _ => true,
        };
        of_kind && within && named(&rule.database, database) && named(&rule.user, user)
    };
    rules
        .iter()
        .find(fits)
        .map_or(Method::Reject, |rule| rule.method)
}

/// Whether an address is in a network such as `10.0.0.0/8`, `::1` or `all`.
fn is_within(address: IpAddr, network: &str) -> bool {
    if network == "all" {
        return true;
    }
    let (base, bits) = network.split_once('/').unwrap_or((network, "128"));
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let address = address.to_canonical();
    match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            same(u32::from(address).into(), u32::from(base).into(), 32, bits)
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            same(u128::from(address), u128::from(base), 128, bits)
        }
        _ => false,
    }
}

fn same(left: u128, right: u128, width: u32, bits: u32) -> bool {
    let ignored = width - bits.min(width);
    ignored >= 128 || (left ^ right) >> ignored == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: RuleType, address: Option<&str>, method: Method) -> Rule {
        Rule {
            kind,
            database: "all".to_owned(),
            user: "all".to_owned(),
            address: address.map(str::to_owned),
            method,
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_none_is_a_refusal() {
        let rules = [
            rule(RuleType::HostSsl, Some("10.0.0.0/8"), Method::Scram),
            rule(RuleType::Host, Some("127.0.0.1/32"), Method::Trust),
        ];
        let from = |text: &str, tls| method_for(&rules, text.parse().ok(), tls, "app", "app");
        assert_eq!(from("10.9.9.9", true), Method::Scram);
        assert_eq!(from("10.9.9.9", false), Method::Reject);
        assert_eq!(from("127.0.0.1", false), Method::Trust);
        assert_eq!(from("::ffff:127.0.0.1", false), Method::Trust);
        assert_eq!(
            method_for(&rules, None, false, "app", "app"),
            Method::Reject
        );
    }

    #[test]
    fn a_secret_that_is_empty_or_broken_lets_nobody_in() {
        let known = |secret: &str| known_of(secret.to_owned(), b"bob", b"key");
        assert!(known("").is_none());
        assert!(known("SCRAM-SHA-256$4096:x$y:z").is_none());
        assert!(matches!(known("word"), Some(Known::Password { .. })));
    }

    #[test]
    fn who_is_listed_is_asked_with_the_same_salt_each_time_as_who_is_not() {
        let salt = |line: String| line.split(['$', ':']).nth(2).map(str::to_owned);
        let asked = || match known_of("word".to_owned(), b"bob", b"key") {
            Some(Known::Password { scram, .. }) => salt(scram.to_line()),
            _ => None,
        };
        assert!(asked().is_some());
        assert_eq!(asked(), asked());
        assert_eq!(asked(), salt(Secret::mock(b"bob", b"key").to_line()));
    }

    #[test]
    fn quotes_in_a_list_of_users_are_doubled() {
        assert_eq!(
            quoted(r#""a""b" "x""#),
            Some((r#"a"b"#.to_owned(), r#" "x""#))
        );
        assert_eq!(quoted("a"), None);
    }
}
