//! How many clients there are, in all shards: for limits that hold for the whole proxy.
//!
//! Asked when a client comes in and told when it leaves, and never between: one lock will do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::config::Config;

/// Whom a client is counted under.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// Empty for a client that came by a file.
    pub address: &'a str,
}

#[derive(Default)]
struct Counts {
    all: usize,
    users: HashMap<String, usize>,
    databases: HashMap<String, usize>,
    addresses: HashMap<String, usize>,
}

/// See the module.
#[derive(Default)]
pub struct Census(Mutex<Counts>);

impl Census {
    /// Count one more, if no limit forbids it.  Raises the words of the first that does.
    pub fn enter(&self, who: Who, config: &Config) -> Result<(), String> {
        let mut counts = self.counts();
        if let Some(words) = counts.limit(who, config) {
            return Err(words);
        }
        counts.add(who);
        Ok(())
    }

    /// Count one that was let in elsewhere.
    pub fn enter_anyway(&self, who: Who) {
        self.counts().add(who);
    }

    /// How many of a user are in.
    pub fn of_user(&self, user: &str) -> usize {
        self.counts().users.get(user).map_or(0, |count| *count)
    }

    /// The names of those who are in.
    pub fn users(&self) -> Vec<String> {
        self.counts().users.keys().cloned().collect()
    }

    /// How many are in.
    pub fn all(&self) -> usize {
        self.counts().all
    }

    pub fn leave(&self, who: Who) {
        let mut counts = self.counts();
        counts.all = counts.all.saturating_sub(1);
        less(&mut counts.users, who.user);
        less(&mut counts.databases, who.database);
        less(&mut counts.addresses, who.address);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn add(&mut self, who: Who) {
        self.all += 1;
        more(&mut self.users, who.user);
        more(&mut self.databases, who.database);
        more(&mut self.addresses, who.address);
    }

    fn limit(&self, who: Who, config: &Config) -> Option<String> {
        let limits = &config.limits;
        let of_user = config.users.get(who.user);
        let of_user = of_user.map_or(0, |user| user.max_connections);
        let user = if of_user > 0 {
            of_user
        } else {
            limits.per_user
        };
        let of = |counts: &HashMap<String, usize>, name: &str| counts.get(name).map_or(0, |n| *n);
        if limits.max_clients > 0 && self.all >= limits.max_clients {
            let most = limits.max_clients;
            return Some(format!(
                "no more connections allowed (max_clients is {most})"
            ));
        }
        let own = config.database(who.database);
        let most = match own.map_or(0, |database| database.max_clients) {
            0 => limits.per_database,
            own => own,
        };
        if most > 0 && of(&self.databases, who.database) >= most {
            let name = who.database;
            return Some(format!("database \"{name}\" has its {most} connections"));
        }
        if user > 0 && of(&self.users, who.user) >= user {
            return Some(format!("user \"{}\" has its {user} connections", who.user));
        }
        let most = limits.per_ip;
        if most > 0 && !who.address.is_empty() && of(&self.addresses, who.address) >= most {
            return Some(format!("{} has its {most} connections", who.address));
        }
        None
    }
}

fn more(counts: &mut HashMap<String, usize>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

fn less(counts: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(limits: &str) -> Config {
        let text = format!(r#"{{"listen":[],"nodes":{{}},"limits":{limits}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn who<'a>(user: &'a str, address: &'a str) -> Who<'a> {
        Who {
            user,
            database: "app",
            address,
        }
    }

    #[test]
    fn a_limit_counts_who_is_in_and_forgets_who_has_left() {
        let (census, config) = (
            Census::default(),
            config(r#"{"max_clients":2,"per_user":1}"#),
        );
        assert!(census.enter(who("ada", "::1"), &config).is_ok());
        let refused = census.enter(who("ada", "::1"), &config).unwrap_err();
        assert_eq!(refused, "user \"ada\" has its 1 connections");
        assert!(census.enter(who("bob", "::1"), &config).is_ok());
        assert!(census.enter(who("eve", "::1"), &config).is_err());
        census.leave(who("ada", "::1"));
        assert!(census.enter(who("ada", "::1"), &config).is_ok());
    }

    #[test]
    fn a_database_may_have_a_limit_of_its_own() {
        let text = r#"{"listen":[],"nodes":{},"limits":{"per_database":1},
            "databases":{"app":{"max_clients":2},"other":{}}}"#;
        let (census, config) = (Census::default(), serde_json::from_str(text).unwrap());
        let of = |database| Who {
            database,
            ..who("ada", "::1")
        };
        for (database, most) in [("app", 2), ("other", 1)] {
            for _ in 0..most {
                assert!(census.enter(of(database), &config).is_ok());
            }
            assert!(census.enter(of(database), &config).is_err());
        }
        assert_eq!(census.of_user("ada"), 3);
    }

    #[test]
    fn clients_by_a_file_have_no_address_to_be_counted_under() {
        let (census, config) = (Census::default(), config(r#"{"per_ip":1}"#));
        for _ in 0..3 {
            assert!(census.enter(who("ada", ""), &config).is_ok());
        }
        assert!(census.enter(who("ada", "10.0.0.1"), &config).is_ok());
        assert!(census.enter(who("ada", "10.0.0.1"), &config).is_err());
        assert!(census.enter(who("ada", "10.0.0.2"), &config).is_ok());
    }
}
