//! Whatever may have committed unheard is always named so.

use flightmode_pooler::session::Lost;
use flightmode_wire::server::TxStatus;
use proptest::prelude::*;

use crate::client::{words, Client};

/// One simple query each: text, and what it does to a server's transaction.
const QUERIES: [&str; 13] = [
    "begin",
    "commit",
    "rollback",
    "select 1",
    "insert into t values (1)",
    "set a to 1",
    "begin; insert into t values (1)",
    "begin; insert into t values (1); rollback",
    "begin; insert into t values (1); rollback; insert into t values (1)",
    "insert into t values (1); begin; insert into t values (1); commit",
    "create rule r as on insert to t do (delete from u;delete from v); begin; select 1",
    "insert into t values (1); create function f() begin atomic select 1;end; commit; select 1",
    "create function f() begin atomic select 1;end; begin; select 1",
];

/// Where such a body ends is not known, so who sends one keeps its server.
fn has_body(sql: &&str) -> bool {
    sql.contains("atomic")
}

/// What a server answers to a query, its state after it, and whether it has then committed
/// something that a client could miss or do twice.
#[derive(Clone, Copy, Default)]
struct Database {
    open: bool,
    wrote: bool,
}

impl Database {
    fn runs(&mut self, sql: &str) -> (Vec<&'static str>, bool) {
        let all: Vec<_> = sql.split("; ").map(|one| self.runs_one(one)).collect();
        let commits = all.iter().any(|(_, commits)| *commits);
        (all.into_iter().map(|(tag, _)| tag).collect(), commits)
    }

    fn runs_one(&mut self, sql: &str) -> (&'static str, bool) {
        let (tag, commits) = match sql {
            "begin" => ("BEGIN", false),
            "commit" => ("COMMIT", self.wrote),
            "rollback" => ("ROLLBACK", false),
            "select 1" => ("SELECT 1", false),
            "set a to 1" => ("SET", false),
            _ => ("INSERT 0 1", !self.open),
        };
        match sql {
            "begin" => self.open = true,
            "commit" | "rollback" => *self = Self::default(),
            "select 1" | "set a to 1" => (),
            _ => self.wrote = self.open,
        }
        (tag, commits)
    }

    fn status(self) -> TxStatus {
        if self.open {
            TxStatus::Open
        } else {
            TxStatus::Idle
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Whatever was sent ahead and however much was answered: what may have committed unheard is
    /// never run again, never passed over, and never called safe to retry.
    #[test]
    fn pitfall_53_what_may_have_committed_is_always_named_so(
        queries in proptest::collection::vec(proptest::sample::select(&QUERIES[..]), 1..10),
        ahead in 1usize..6,
        answered in 0usize..10,
        tag_seen: bool,
    ) {
        let mut client = Client::new();
        let mut database = Database::default();
        let mut sent = 0;
        let answered = answered.min(queries.len());
        for sql in &queries[..answered] {
            while sent < queries.len() && !client.session.flow().is_running()
                || sent < queries.len() && client.session.flow().ready_owed() < ahead
            {
                client.asks(queries[sent]);
                sent += 1;
            }
            for tag in database.runs(sql).0 {
                client.done(tag);
            }
            client.ready(database.status());
        }
        while sent < queries.len() && client.session.flow().ready_owed() < ahead {
            client.asks(queries[sent]);
            sent += 1;
        }
        let was_open = database.open;
        let mut unheard = database;
        let in_doubt = queries[answered..sent]
            .iter()
            .map(|sql| unheard.runs(sql).1)
            .fold(false, |any, commits| any | commits);
        if tag_seen && sent > answered {
            client.done(database.runs(queries[answered]).0[0]);
        }
        match client.loses() {
            Lost::Nothing => prop_assert!(sent == answered && !was_open),
            Lost::RunAgain(again) => {
                prop_assert!(!in_doubt && !was_open && !tag_seen);
                prop_assert_eq!(again.len(), sent - answered);
            }
            Lost::Tell(bytes) => {
                let told = words(&bytes);
                let readies = told.iter().filter(|word| ["Idle", "Failed"].contains(&&***word));
                prop_assert_eq!(readies.count(), sent - answered, "one for each query");
                let is_safe = told.iter().any(|word| word == "40001");
                prop_assert!(!(in_doubt && is_safe), "{:?} {:?}", queries, told);
                prop_assert!(!in_doubt || told.iter().any(|word| word == "08007"));
            }
            Lost::End(bytes) => {
                prop_assert!(queries[..sent].iter().any(has_body), "nothing else is pinned");
                prop_assert!(!in_doubt || words(&bytes) == ["08007"]);
            }
        }
        prop_assert!(client.session.settings().get(b"a").is_none_or(|value| value == b"1"));
    }
}
