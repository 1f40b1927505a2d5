//! Statements of clients under names that every server can have.
//!
//! Intuition: two clients call different statements `s1`, and one client's `s1` must be there
//! whichever server it gets.  So a statement's name at a server follows from its content, and
//! each client's own names are kept here.
//!
//! Rules
//! - content is text, parameter types, and the settings that it was parsed under: with another
//!   search path the same text means another table, with another time zone another instant;
//! - a name counts from its `ParseComplete`; a Parse that fails leaves nothing behind;
//! - a server forgets the statement that it has not used for longest; a client never notices;
//! - no name of ours is given twice to one server while an old one may still be there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::numbers::ByNumber;

/// What makes two statements the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    pub sql: Vec<u8>,
    /// As in `Parse`: four bytes each.
    pub types: Vec<u8>,
    pub under: Under,
}

/// The settings of the moment at which a text was parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Under {
    /// As `Settings::meaning` has them.
    Known(Vec<u8>),
    /// Nobody knows, so it is the same as no other.
    Unknown(u64),
}

impl Under {
    pub fn known(&self) -> Option<&[u8]> {
        match self {
            Self::Known(meaning) => Some(meaning),
            Self::Unknown(_) => None,
        }
    }
}

/// A content's number in this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

/// All contents that some client has a name for.
#[derive(Debug, Default)]
pub struct Catalog {
    ids: HashMap<Arc<Content>, StatementId>,
    contents: ByNumber<StatementId, (Arc<Content>, usize)>,
    next: u64,
    unknown: u64,
}

impl Catalog {
    /// What `Session::meaning` says, so that two unknown ones are never the same.
    pub fn under(&mut self, meaning: Option<Vec<u8>>) -> Under {
        meaning.map_or_else(
            || {
                self.unknown += 1;
                Under::Unknown(self.unknown)
            },
            Under::Known,
        )
    }

    /// The number of a content; every call needs its `release`.
    pub fn keep(&mut self, content: Content) -> StatementId {
        let content = Arc::new(content);
        let id = *self.ids.entry(Arc::clone(&content)).or_insert_with(|| {
            self.next += 1;
            StatementId(self.next)
        });
        self.contents.entry(id).or_insert((content, 0)).1 += 1;
        id
    }

    /// One client fewer has a name for it.
    pub fn release(&mut self, id: StatementId) {
        if let Some((_, users)) = self.contents.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                if let Some((content, _)) = self.contents.remove(&id) {
                    self.ids.remove(&content);
                }
            }
        }
    }

    /// What to send in a Parse.
    pub fn content(&self, id: StatementId) -> Option<&Arc<Content>> {
        self.contents.get(&id).map(|(content, _)| content)
    }

    /// Contents that are kept.
    pub fn len(&self) -> usize {
        self.contents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }
}

/// One client's names.
#[derive(Debug, Default)]
pub struct Names {
    named: BTreeMap<Vec<u8>, StatementId>,
}

impl Names {
    /// Where `name` leads.  The unnamed statement is the empty name.
    pub fn get(&self, name: &[u8]) -> Option<StatementId> {
        self.named.get(name).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], StatementId)> {
        self.named.iter().map(|(name, id)| (name.as_slice(), *id))
    }

    /// Whether a Parse under this name is an error (42P05): only the unnamed one may be replaced.
    pub fn is_taken(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.named.contains_key(name)
    }

    /// `ParseComplete` came for it.
    pub fn on_parsed(&mut self, name: &[u8], id: StatementId, catalog: &mut Catalog) {
        if let Some(before) = self.named.insert(name.to_vec(), id) {
            catalog.release(before);
        }
    }

    /// Close, or DEALLOCATE; to close what is not there is no error in the protocol.
    pub fn close(&mut self, name: &[u8], catalog: &mut Catalog) -> bool {
        let found = self.named.remove(name);
        found.inspect(|id| catalog.release(*id)).is_some()
    }

    /// DEALLOCATE ALL, DISCARD ALL, or the client has gone.
    pub fn close_all(&mut self, catalog: &mut Catalog) {
        for (_, id) in std::mem::take(&mut self.named) {
            catalog.release(id);
        }
    }
}

/// What has to be sent before a Bind can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// The statement's name at this server.
    pub name: String,
    /// Parse it first, under that name.
    pub parse: bool,
    /// Close this one before, to make room.
    pub close: Option<String>,
}

/// What one server has.
#[derive(Debug)]
pub struct Prepared {
    /// The round of each name, and when it was last used.
    known: ByNumber<StatementId, (u64, u64)>,
    by_use: BTreeMap<u64, StatementId>,
    uses: u64,
    rounds: u64,
    most: usize,
}

impl Prepared {
    /// A fresh server, which is to have at most `most` statements of ours.
    pub fn new(most: usize) -> Self {
        Self {
            known: ByNumber::default(),
            by_use: BTreeMap::new(),
            uses: 0,
            rounds: 0,
            most: most.max(1),
        }
    }

    /// Whether it is here already.
    pub fn has(&self, id: StatementId) -> bool {
        self.known.contains_key(&id)
    }

    /// Somebody wants to use the statement here.
    pub fn prepare(&mut self, id: StatementId) -> Preparation {
        self.uses += 1;
        if let Some((round, used)) = self.known.get_mut(&id) {
            if *used + 1 < self.uses {
                self.by_use.remove(used);
                *used = self.uses;
                self.by_use.insert(self.uses, id);
            } else {
                // It was used last, and its place is the last already.
                self.uses = *used;
            }
            return Preparation {
                name: name(id, *round),
                parse: false,
                close: None,
            };
        }
        let close = if self.known.len() >= self.most {
            self.evict()
        } else {
            None
        };
        self.rounds += 1;
        self.known.insert(id, (self.rounds, self.uses));
        self.by_use.insert(self.uses, id);
        Preparation {
            name: name(id, self.rounds),
            parse: true,
            close,
        }
    }

    /// Its Parse failed or was skipped after an error: it is not here.
    pub fn on_failed(&mut self, id: StatementId) {
        self.forget(id);
    }

    /// "cached plan must not change result type" (0A000): the next use parses it anew under
    /// another name.  The old name, to be closed.
    pub fn on_stale_plan(&mut self, id: StatementId) -> Option<String> {
        self.forget(id)
    }

    /// DEALLOCATE ALL or DISCARD ALL ran at this server.
    pub fn clear(&mut self) {
        self.known.clear();
        self.by_use.clear();
    }

    fn evict(&mut self) -> Option<String> {
        let (_, oldest) = self.by_use.pop_first()?;
        let (round, _) = self.known.remove(&oldest)?;
        Some(name(oldest, round))
    }

    fn forget(&mut self, id: StatementId) -> Option<String> {
        let (round, used) = self.known.remove(&id)?;
        self.by_use.remove(&used);
        Some(name(id, round))
    }
}

/// The round keeps a name that is parsed again apart from one that may still be there.
fn name(id: StatementId, round: u64) -> String {
    format!("fm_{:x}_{round:x}", id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(sql: &str, settings: &str) -> Content {
        Content {
            sql: sql.as_bytes().to_vec(),
            types: Vec::new(),
            under: Under::Known(settings.as_bytes().to_vec()),
        }
    }

    #[test]
    fn pitfall_09_one_name_of_two_clients_is_two_statements_and_one_content_is_one() {
        let mut catalog = Catalog::default();
        let (mut ada, mut bob) = (Names::default(), Names::default());
        let (one, two) = (
            catalog.keep(content("1", "")),
            catalog.keep(content("2", "")),
        );
        ada.on_parsed(b"s", one, &mut catalog);
        bob.on_parsed(b"s", two, &mut catalog);
        assert_ne!(ada.get(b"s"), bob.get(b"s"));
        assert_eq!(catalog.keep(content("1", "")), one);
    }

    #[test]
    fn pitfall_11_the_same_text_under_other_settings_or_types_is_another() {
        let mut catalog = Catalog::default();
        let same = content("select * from t", "a");
        let others = [
            Content {
                under: Under::Known(b"b".to_vec()),
                ..same.clone()
            },
            Content {
                types: vec![0, 0, 0, 23],
                ..same.clone()
            },
            Content {
                under: catalog.under(None),
                ..same.clone()
            },
            Content {
                under: catalog.under(None),
                ..same.clone()
            },
        ];
        let first = catalog.keep(same);
        for other in others {
            assert_ne!(catalog.keep(other), first);
        }
        assert_eq!(
            catalog.len(),
            5,
            "and two of which nothing is known are two"
        );
    }

    #[test]
    fn pitfall_10_close_and_deallocate_all_leave_nothing_behind() {
        let mut catalog = Catalog::default();
        let mut names = Names::default();
        for name in [&b"a"[..], b"b", b""] {
            let id = catalog.keep(content("x", ""));
            names.on_parsed(name, id, &mut catalog);
        }
        assert!(names.close(b"a", &mut catalog));
        assert!(!names.close(b"a", &mut catalog));
        assert_eq!(catalog.len(), 1, "two names still lead to it");
        names.close_all(&mut catalog);
        assert!(catalog.is_empty());
    }

    #[test]
    fn pitfall_14_the_unnamed_statement_is_replaced_and_others_are_not() {
        let mut catalog = Catalog::default();
        let mut names = Names::default();
        for sql in ["1", "2"] {
            assert!(!names.is_taken(b""));
            let id = catalog.keep(content(sql, ""));
            names.on_parsed(b"", id, &mut catalog);
        }
        assert_eq!(catalog.len(), 1);
        let id = names.get(b"").unwrap();
        assert_eq!(catalog.content(id).unwrap().sql, b"2");
        names.on_parsed(b"s", catalog.keep(content("3", "")), &mut catalog);
        assert!(names.is_taken(b"s"));
    }

    #[test]
    fn a_server_parses_a_statement_once_and_forgets_the_one_unused_for_longest() {
        let mut catalog = Catalog::default();
        let ids: Vec<_> = ["1", "2", "3"]
            .map(|sql| catalog.keep(content(sql, "")))
            .into();
        let mut server = Prepared::new(2);
        let first = server.prepare(ids[0]);
        let second = server.prepare(ids[1]);
        assert!(first.parse && second.parse);
        assert!(!server.prepare(ids[0]).parse);
        assert_eq!(server.prepare(ids[2]).close, Some(second.name));
        assert!(!server.prepare(ids[0]).parse, "it was used last");
    }

    #[test]
    fn pitfall_13_a_parse_that_failed_is_sent_again_next_time() {
        let mut catalog = Catalog::default();
        let id = catalog.keep(content("selct", ""));
        let mut server = Prepared::new(2);
        let failed = server.prepare(id);
        server.on_failed(id);
        let again = server.prepare(id);
        assert!(again.parse);
        assert_ne!(again.name, failed.name);
    }

    #[test]
    fn pitfall_12_a_stale_plan_is_parsed_anew_under_another_name() {
        let mut catalog = Catalog::default();
        let id = catalog.keep(content("select * from t", ""));
        let mut server = Prepared::new(2);
        let old = server.prepare(id);
        assert_eq!(server.on_stale_plan(id), Some(old.name.clone()));
        let new = server.prepare(id);
        assert!(new.parse && new.name != old.name);
    }
}
