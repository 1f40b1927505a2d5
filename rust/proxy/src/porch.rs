//! Connections that have not logged in yet: how many there are, in all shards.
//!
//! Intuition: the limits of the census hold for who is in, and come too late for who never tries.
//! What such a crowd takes are descriptors, and without one no session at a server can be opened
//! when a failover needs it.
//!
//! Rules
//! - a part of all descriptors is kept for servers, the console and files: no client gets those;
//! - of the rest, half is enough for who is on the way in, and half of that for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::census::Census;
use crate::config::Config;

/// What Postgres and most services have if nobody says anything.
const USUAL_FILES: usize = 1024;
/// Kept of all descriptors: a quarter, and this at most.
const MOST_RESERVED: usize = 1024;

/// See the module.
pub struct Porch {
    files: usize,
    comers: Mutex<Comers>,
}

#[derive(Default)]
struct Comers {
    all: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// While it lives, a connection counts as on its way in.
pub struct Comer {
    porch: Arc<Porch>,
    address: Option<IpAddr>,
}

impl Default for Porch {
    fn default() -> Self {
        Self::new(files_allowed())
    }
}

impl Porch {
    fn new(files: usize) -> Self {
        let comers = Mutex::default();
        Self { files, comers }
    }

    /// As many clients have room beside what is kept for servers.
    fn room(&self) -> usize {
        self.files - (self.files / 4).min(MOST_RESERVED)
    }

    /// What an operator should hear before it hurts.
    pub fn shortage(&self, config: &Config) -> Option<String> {
        let (files, room, most) = (self.files, self.room(), config.limits.max_clients);
        (most == 0 || most > room).then(|| {
            format!(
                "RLIMIT_NOFILE is {files}, so there is room for {room} clients, and max_clients is \
                 {most}: raise LimitNOFILE= of the unit (ulimit -n), or lower max_clients"
            )
        })
    }

    /// Count one more, if there is room.  Raises the words for the log.
    ///
    /// Without an `address` it came by a file, or by a proxy that has yet to say whom it is from.
    pub fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        census: &Census,
        config: &Config,
    ) -> Result<Comer, String> {
        let (room, in_already) = (self.room(), census.all());
        let mut comers = self.comers.lock().unwrap_or_else(PoisonError::into_inner);
        if comers.all + in_already >= room {
            let files = self.files;
            return Err(format!(
                "no descriptor is left for one more client (RLIMIT_NOFILE is {files})"
            ));
        }
        let most = room / 2;
        if comers.all >= most {
            return Err(format!("{most} connections have not logged in yet"));
        }
        if let Some(address) = address {
            let of_address = comers.addresses.entry(address).or_default();
            let most = match config.limits.per_ip {
                0 => most / 2,
                per_ip => per_ip.min(most / 2),
            };
            if *of_address >= most {
                return Err(format!(
                    "{most} connections of {address} have not logged in yet"
                ));
            }
            *of_address += 1;
        }
        comers.all += 1;
        let porch = Arc::clone(self);
        Ok(Comer { porch, address })
    }
}

impl Drop for Comer {
    fn drop(&mut self) {
        let comers = &self.porch.comers;
        let mut comers = comers.lock().unwrap_or_else(PoisonError::into_inner);
        comers.all -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = comers.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                comers.addresses.remove(&address);
            }
        }
    }
}

/// How many descriptors this process may have.
fn files_allowed() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_files(&limits).unwrap_or(USUAL_FILES)
}

fn soft_files(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    // As many as the kernel can count, or a number.
    if soft == "unlimited" {
        return Some(1 << 20);
    }
    soft.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(limits: &str) -> Config {
        let text = format!(r#"{{"listen":[],"nodes":{{}},"limits":{limits}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_crowd_that_never_logs_in_leaves_descriptors_for_servers_and_for_others() {
        let (porch, census) = (Arc::new(Porch::new(160)), Census::default());
        let config = config("{}");
        let mut crowd = Vec::new();
        for last in [1, 2] {
            while let Ok(comer) = porch.enter(Some(ip(last)), &census, &config) {
                crowd.push(comer);
            }
            assert_eq!(crowd.len(), 30 * usize::from(last));
        }
        assert!(porch.enter(Some(ip(3)), &census, &config).is_err());
        crowd.clear();
        assert!(porch.enter(Some(ip(3)), &census, &config).is_ok());
        assert!(porch.comers.lock().unwrap().addresses.is_empty());
    }

    #[test]
    fn who_is_in_counts_against_what_is_left() {
        let (porch, census) = (Arc::new(Porch::new(16)), Census::default());
        let (config, who) = (
            config("{}"),
            crate::census::Who {
                user: "ada",
                database: "app",
                address: "",
            },
        );
        for _ in 0..12 {
            assert!(porch.enter(None, &census, &config).is_ok());
            census.enter(who, &config).unwrap();
        }
        assert!(porch.enter(None, &census, &config).is_err());
    }

    #[test]
    fn an_address_may_not_have_more_on_their_way_in_than_per_ip() {
        let (porch, census) = (Arc::new(Porch::new(4096)), Census::default());
        let config = config(r#"{"per_ip":1}"#);
        let first = porch.enter(Some(ip(1)), &census, &config);
        assert!(porch.enter(Some(ip(1)), &census, &config).is_err());
        drop(first);
        assert!(porch.enter(Some(ip(1)), &census, &config).is_ok());
    }

    #[test]
    fn too_few_descriptors_are_told_of_with_what_to_do() {
        let porch = Porch::new(1024);
        let words = porch.shortage(&config(r#"{"max_clients":10000}"#)).unwrap();
        assert!(words.contains("room for 768 clients"), "{words}");
        assert!(words.contains("LimitNOFILE"), "{words}");
        assert_eq!(porch.shortage(&config(r#"{"max_clients":768}"#)), None);
    }

    #[test]
    fn the_limit_is_the_one_that_the_kernel_tells() {
        let text = "Limit  Soft  Hard  Units\nMax open files            1024   524288   files\n";
        assert_eq!(soft_files(text), Some(1024));
        assert_eq!(
            soft_files("Max open files  unlimited unlimited files"),
            Some(1 << 20)
        );
        assert_eq!(soft_files(""), None);
        assert!(files_allowed() > 0);
    }
}
