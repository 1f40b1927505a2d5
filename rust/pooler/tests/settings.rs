//! From the text of a statement to the settings of a session.

use std::rc::Rc;

use flightmode_pooler::guc::{Reported, Settings, Values};
use flightmode_pooler::statement::{read, Pin, Said, Statement};
use flightmode_pooler::unit::Effect;
use proptest::prelude::*;

fn only(sql: &str) -> Statement {
    let mut all = read(sql.as_bytes(), true).unwrap();
    assert_eq!(all.len(), 1, "{sql}");
    all.remove(0)
}

fn said(sql: &str) -> Said {
    only(sql).said
}

fn set_to(name: &str, value: Option<&str>) -> Said {
    Said::Set {
        name: name.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

#[test]
fn pitfall_02_settings_are_read_in_all_their_forms() {
    for (sql, name, value) in [
        (
            "SET statement_timeout TO '5s'",
            "statement_timeout",
            Some("5s"),
        ),
        ("set SESSION Work_Mem = 64", "work_mem", Some("64")),
        ("SET x.y = on", "x.y", Some("on")),
        (
            "SET extra_float_digits = -1",
            "extra_float_digits",
            Some("-1"),
        ),
        ("SET DateStyle TO ISO, MDY", "datestyle", Some("iso, mdy")),
        (
            "SET TIME ZONE 'Europe/Bern'",
            "timezone",
            Some("Europe/Bern"),
        ),
        ("SET TIME ZONE LOCAL", "timezone", None),
        ("SET NAMES 'UTF8'", "client_encoding", Some("UTF8")),
        ("SET ROLE app", "role", Some("app")),
        ("SET ROLE NONE", "role", None),
        ("SET role TO app", "role", Some("app")),
        (
            "SET SESSION AUTHORIZATION DEFAULT",
            "session_authorization",
            None,
        ),
        ("SET lock_timeout TO DEFAULT", "lock_timeout", None),
        ("RESET lock_timeout", "lock_timeout", None),
        ("RESET TIME ZONE", "timezone", None),
    ] {
        assert_eq!(said(sql), set_to(name, value), "{sql}");
    }
    assert_eq!(said("RESET ALL"), Said::ResetAll);
    assert_eq!(said("DISCARD ALL"), Said::DiscardAll);
}

#[test]
fn pitfall_03_a_search_path_keeps_its_names_apart_and_its_capitals() {
    let path = |sql| said(sql);
    let quoted = |value| set_to("search_path", Some(value));
    assert_eq!(
        path("SET search_path TO Tenant, \"B\"\"c\""),
        quoted(r#""tenant", "B""c""#)
    );
    assert_eq!(path("SET search_path = 'a, b'"), quoted(r#""a, b""#));
    assert_eq!(path("SET SCHEMA 'x'"), quoted(r#""x""#));
}

#[test]
fn pitfall_03_what_ends_with_the_transaction_is_not_kept() {
    for sql in [
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET transaction_isolation = 'serializable'",
        "SET transaction_read_only TO on",
        "SET LOCAL transaction_deferrable TO on",
        "RESET transaction_isolation",
        "SELECT set_config('transaction_read_only', 'on', false)",
    ] {
        assert_eq!(said(sql), Said::SetTransaction, "{sql}");
    }
    for sql in [
        "SET LOCAL work_mem = 64",
        "SELECT set_config('work_mem', '64', true)",
    ] {
        assert_eq!(said(sql), local("work_mem", "64"), "{sql}");
    }
    assert_eq!(said("SET LOCAL TIME ZONE 'UTC'"), local("timezone", "UTC"));
}

fn local(name: &str, value: &str) -> Said {
    Said::SetLocal {
        name: name.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    }
}

#[test]
fn pitfall_11_what_a_text_means_follows_the_settings_of_its_moment() {
    let set = |settings: &mut Settings, name: &str, value: &str| {
        settings.set(name.as_bytes(), Some(value.as_bytes()));
    };
    let mut plain = Settings::default();
    let nothing = plain.meaning();
    for name in ["application_name", "statement_timeout", "app.tenant"] {
        set(&mut plain, name, "x");
        plain.set_local(name.as_bytes(), Some(b"y"));
    }
    assert_eq!(plain.meaning(), nothing, "the parser reads none of them");
    plain.commit();
    for name in [
        "timezone",
        "datestyle",
        "client_encoding",
        "search_path",
        "role",
    ] {
        let mut other = plain.clone();
        set(&mut other, name, "x");
        assert_ne!(other.meaning(), nothing, "{name}");
    }
    set(&mut plain, "timezone", "UTC");
    plain.commit();
    let utc = plain.meaning();
    plain.savepoint(b"a");
    plain.set_local(b"timezone", Some(b"Asia/Tokyo"));
    let mut tokyo = Settings::default();
    set(&mut tokyo, "timezone", "Asia/Tokyo");
    assert_eq!(plain.meaning(), tokyo.meaning(), "however it was set");
    set(&mut plain, "timezone", "Europe/Bern");
    let bern = plain.meaning();
    assert!(
        bern != utc && bern != tokyo.meaning(),
        "the last word counts"
    );
    plain.set_local(b"timezone", Some(b"Asia/Tokyo"));
    let mut committed = plain.clone();
    committed.commit();
    assert_eq!(committed.meaning(), bern);
    plain.rollback_to(b"a");
    assert_eq!(plain.meaning(), utc);
    plain.set_local(b"timezone", None);
    assert_eq!(plain.meaning(), nothing);
    plain.reset_all();
    plain.rollback();
    assert_eq!(plain.meaning(), utc);
}

#[test]
fn pitfall_02_a_setting_that_cannot_be_followed_pins_the_session() {
    for sql in [
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TIME ZONE INTERVAL '1' HOUR TO MINUTE",
        "SET x FROM CURRENT",
        r"SET x TO E'\x41'",
        "SET seed = 0.5",
        "RESET seed",
        "SET LOCAL x FROM CURRENT",
        "SELECT set_config('x', 'y', false), 1",
        "SELECT set_config('x', 'y', false) FROM t",
        "SELECT set_config('x', 'y' || 'z', false)",
        "SELECT set_config('x', NULL, false)",
        "SELECT pg_catalog.\"set_config\"($1, $2, $3)",
    ] {
        assert_eq!(said(sql), Said::Pins(Pin::Setting), "{sql}");
    }
}

#[test]
fn pitfall_02_a_setting_by_a_call_is_a_setting() {
    for sql in [
        "SELECT set_config('TimeZone', 'UTC', false)",
        "select pg_catalog.set_config('timezone', 'UTC', FALSE);",
    ] {
        let setting = Said::Set {
            name: b"timezone".to_vec(),
            value: Some(b"UTC".to_vec()),
        };
        assert_eq!(said(sql), setting, "{sql}");
    }
    assert_eq!(said("SELECT set_config('x', 'y', true)"), local("x", "y"));
}

#[test]
fn pitfall_06_what_lives_in_the_session_pins_it() {
    for (sql, pin) in [
        ("CREATE TEMP TABLE t ()", Pin::Temporary),
        ("create local temporary view v as select 1", Pin::Temporary),
        ("CREATE TABLE pg_temp.t ()", Pin::Temporary),
        ("CREATE TABLE \"pg_temp\".t ()", Pin::Temporary),
        ("SELECT * INTO TEMP t FROM u", Pin::Temporary),
        ("DO $$ BEGIN CREATE TEMP TABLE t (); END $$", Pin::Temporary),
        ("DO LANGUAGE plpgsql 'BEGIN LISTEN a; END'", Pin::Listen),
        (
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            Pin::AdvisoryLock,
        ),
        ("DO $$ BEGIN SET x TO 1; END $$", Pin::Setting),
        ("DO $$ BEGIN EXECUTE a; END $$", Pin::Unreadable),
        (r"DO E'\x41'", Pin::Unreadable),
        ("SELECT pg_advisory_lock(1)", Pin::AdvisoryLock),
        (
            "SELECT x, pg_try_advisory_lock_shared(1) FROM t",
            Pin::AdvisoryLock,
        ),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Pin::HeldCursor),
        ("PREPARE p AS SELECT 1", Pin::SqlPrepare),
        ("LOAD 'auto_explain'", Pin::Library),
        ("LISTEN é", Pin::Listen),
        ("LISTEN a, b", Pin::Listen),
    ] {
        assert_eq!(said(sql), Said::Pins(pin), "{sql}");
    }
    assert_eq!(said("DO $$ BEGIN UPDATE t SET n = 1; END $$"), Said::Other);
    assert_eq!(said("SELECT pg_advisory_xact_lock(1)"), Said::Other);
    assert_eq!(said("SELECT 'pg_advisory_lock'"), Said::Other);
    assert_eq!(said("INSERT INTO weather (temp) VALUES (1)"), Said::Other);
    assert_eq!(said("CREATE TABLE weather (temp int)"), Said::Other);
    assert_eq!(said("INSERT INTO temp VALUES (1)"), Said::Other);
    assert_eq!(said("DECLARE c CURSOR FOR SELECT 1"), Said::Other);
}

#[test]
fn pitfall_07_a_channel_is_named_as_the_server_names_it() {
    let long = "C".repeat(70);
    for (name, channel) in [
        ("Jobs", "jobs"),
        ("\"Jobs\"", "Jobs"),
        ("\"a\"\"b\"", "a\"b"),
        ("\"ü\"", "ü"),
        (long.as_str(), &"c".repeat(63)),
    ] {
        let channel = channel.as_bytes().to_vec();
        assert_eq!(
            said(&format!("listen {name};")),
            Said::Listen(channel.clone())
        );
        assert_eq!(
            said(&format!("UNLISTEN {name}")),
            Said::Unlisten(Some(channel))
        );
    }
    assert_eq!(said("unlisten *"), Said::Unlisten(None));
    assert_eq!(said("NOTIFY a, 'b'"), Said::Notify);
    assert_eq!(said("SELECT pg_notify($1, $2)"), Said::Notify);
}

#[test]
fn pitfall_06_asyncpgs_release_undoes_every_pin_that_it_can() {
    let script = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    let all = read(script.as_bytes(), true).unwrap();
    let said: Vec<_> = all.into_iter().map(|statement| statement.said).collect();
    assert_eq!(
        said,
        [
            Said::Unpins(Pin::AdvisoryLock),
            Said::Unpins(Pin::HeldCursor),
            Said::Unlisten(None),
            Said::ResetAll,
        ]
    );
}

#[test]
fn pitfall_10_deallocate_is_read_in_all_its_forms() {
    assert_eq!(said("DEALLOCATE ALL"), Said::Deallocate(None));
    assert_eq!(
        said("deallocate prepare \"P1\""),
        Said::Deallocate(Some(b"P1".to_vec()))
    );
    assert_eq!(said("DEALLOCATE p"), Said::Deallocate(Some(b"p".to_vec())));
}

#[test]
fn transactions_are_read_in_all_their_forms() {
    for (sql, expected) in [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", Said::Begin),
        ("start transaction read only", Said::Begin),
        ("END", Said::Commit),
        ("COMMIT AND CHAIN", Said::Commit),
        ("ABORT", Said::Rollback),
        (
            "ROLLBACK WORK TO SAVEPOINT \"S\"",
            Said::RollbackTo(b"S".to_vec()),
        ),
        ("ROLLBACK TO s", Said::RollbackTo(b"s".to_vec())),
        ("SAVEPOINT s", Said::Savepoint(b"s".to_vec())),
        ("RELEASE SAVEPOINT s", Said::Release(b"s".to_vec())),
        ("PREPARE TRANSACTION 'x'", Said::PrepareTransaction),
        ("COMMIT PREPARED 'x'", Said::Other),
        ("ROLLBACK PREPARED 'x'", Said::Other),
    ] {
        assert_eq!(said(sql), expected, "{sql}");
    }
    assert_eq!(only("COMMIT PREPARED 'x'").effect, Effect::MayWrite);
}

#[test]
fn semicolons_end_statements_only_where_postgres_says_so() {
    assert_eq!(read(b" ; ;", true), Ok(vec![]));
    assert_eq!(
        read(b"select ';'; /* ; */ select $$;$$", true)
            .unwrap()
            .len(),
        2
    );
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END";
    assert_eq!(
        only(body),
        Statement {
            said: Said::Pins(Pin::Unreadable),
            effect: Effect::MayWrite
        },
        "whether it ends there, nobody here can say"
    );
    let rule = b"CREATE RULE r AS ON DELETE TO t DO (NOTIFY a; SELECT f(1)); SET x TO 1";
    assert_eq!(read(rule, true).unwrap()[1].said, set_to("x", Some("1")));
}

#[test]
fn only_what_calls_nothing_unknown_looks_like_a_read() {
    for sql in [
        "SELECT * FROM t WHERE id = $1",
        "select count(*), max(x) from t where a in (1, 2) and lower(b) = 'x'",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1)",
        "SELECT 'insert into'",
    ] {
        assert_eq!(only(sql).effect, Effect::LooksRead, "{sql}");
    }
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SELECT nextval('s')",
        "SELECT my_function(1)",
        "SELECT app.count(1)",
        "SELECT \"count\"(1)",
        "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
        "SELECT * INTO u FROM t",
        "SELECT * FROM t FOR UPDATE",
        "EXPLAIN ANALYZE DELETE FROM t",
        "CALL p()",
        "COMMIT",
    ] {
        assert_eq!(only(sql).effect, Effect::MayWrite, "{sql}");
    }
    assert_eq!(only("SHOW work_mem").effect, Effect::ReadOnly);
}

fn settings() -> Settings {
    Settings::new(Values::from([(b"a".to_vec(), b"1".to_vec())]))
}

#[test]
fn pitfall_03_a_rollback_takes_settings_back() {
    let mut known = settings();
    known.set(b"a", Some(b"2"));
    known.set(b"b", Some(b"3"));
    known.set(b"a", None);
    known.rollback();
    assert_eq!(known, settings());
}

#[test]
fn pitfall_03_savepoints_take_back_what_came_after_them() {
    let mut known = settings();
    known.set(b"a", Some(b"2"));
    known.savepoint(b"s");
    known.set(b"a", Some(b"3"));
    known.savepoint(b"s");
    known.set(b"a", Some(b"4"));
    known.rollback_to(b"s");
    assert_eq!(
        known.get(b"a"),
        Some(&b"3"[..]),
        "the inner one of that name"
    );
    known.release(b"s");
    known.rollback_to(b"s");
    assert_eq!(
        known.get(b"a"),
        Some(&b"2"[..]),
        "the outer one of that name"
    );
    known.commit();
    known.rollback();
    assert_eq!(known.get(b"a"), Some(&b"2"[..]));
}

#[test]
fn pitfall_04_a_server_is_rid_of_the_last_clients_settings() {
    let server = Values::from([
        (b"role".to_vec(), b"boss".to_vec()),
        (b"statement_timeout".to_vec(), b"1ms".to_vec()),
        (b"a".to_vec(), b"1".to_vec()),
    ]);
    let changes = settings().changes_from(&server);
    assert_eq!(
        changes,
        [
            (b"role".to_vec(), None),
            (b"statement_timeout".to_vec(), None)
        ]
    );
}

#[test]
fn pitfall_04_a_role_is_taken_after_everything_else() {
    let mut known = settings();
    known.set(b"role", Some(b"app"));
    known.set(b"zone", Some(b"x"));
    let names: Vec<_> = known
        .changes_from(&Values::new())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [&b"a"[..], b"zone", b"role"]);
}

#[test]
fn reset_all_leaves_the_role_as_postgres_does() {
    let mut known = settings();
    known.set(b"role", Some(b"app"));
    known.reset_all();
    assert_eq!(known.values().keys().collect::<Vec<_>>(), [b"role"]);
    known.rollback();
    assert_eq!(known, settings());
    known.discard_all();
    assert!(known.values().is_empty());
}

#[test]
fn pitfall_01_a_client_hears_what_differs_at_its_next_server() {
    let mut told = Reported::default();
    told.on_status(b"TimeZone", b"UTC");
    let server = Values::from([
        (b"TimeZone".to_vec(), b"UTC".to_vec()),
        (b"server_version".to_vec(), b"16.1".to_vec()),
    ]);
    let news = [(b"server_version".to_vec(), b"16.1".to_vec())];
    assert_eq!(told.news_from(&Rc::new(server.clone())), news);
    assert_eq!(told.news_from(&Rc::new(server.clone())), []);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Option<u8>),
    ResetAll,
    Savepoint(u8),
    RollbackTo(u8),
    Release(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, proptest::option::of(0u8..4)).prop_map(|(name, value)| Step::Set(name, value)),
        1 => Just(Step::ResetAll),
        2 => (0u8..3).prop_map(Step::Savepoint),
        2 => (0u8..3).prop_map(Step::RollbackTo),
        1 => (0u8..3).prop_map(Step::Release),
    ]
}

proptest! {
    /// Against the plain model: a savepoint is a copy of everything.
    #[test]
    fn pitfall_03_savepoints_are_copies(
        steps in proptest::collection::vec(any_step(), 0..60),
        commits: bool,
    ) {
        let mut known = settings();
        let mut model = known.values().clone();
        let mut copies: Vec<(u8, Values)> = Vec::new();
        for step in steps {
            match step {
                Step::Set(name, value) => {
                    known.set(&[name], value.map(|value| [value]).as_ref().map(|v| &v[..]));
                    match value {
                        Some(value) => model.insert(vec![name], vec![value]),
                        None => model.remove(&vec![name]),
                    };
                }
                Step::ResetAll => {
                    known.reset_all();
                    model.clear();
                }
                Step::Savepoint(name) => {
                    known.savepoint(&[name]);
                    copies.push((name, model.clone()));
                }
                Step::RollbackTo(name) => {
                    known.rollback_to(&[name]);
                    if let Some(at) = copies.iter().rposition(|(found, _)| *found == name) {
                        model = copies[at].1.clone();
                        copies.truncate(at + 1);
                    }
                }
                Step::Release(name) => {
                    known.release(&[name]);
                    if let Some(at) = copies.iter().rposition(|(found, _)| *found == name) {
                        copies.truncate(at);
                    }
                }
            }
            prop_assert_eq!(known.values(), &model);
        }
        if commits {
            known.commit();
            known.rollback();
            prop_assert_eq!(known.values(), &model);
        } else {
            known.rollback();
            prop_assert_eq!(known, settings());
        }
    }

    #[test]
    fn changes_bring_any_server_to_the_clients_settings(
        client in proptest::collection::btree_map(0u8..6, 0u8..3, 0..6),
        server in proptest::collection::btree_map(0u8..6, 0u8..3, 0..6),
    ) {
        let values = |map: std::collections::BTreeMap<u8, u8>| -> Values {
            map.into_iter().map(|(name, value)| (vec![name], vec![value])).collect()
        };
        let (client, mut server) = (Settings::new(values(client)), values(server));
        for (name, value) in client.changes_from(&server) {
            match value {
                Some(value) => server.insert(name, value),
                None => server.remove(&name),
            };
        }
        prop_assert_eq!(client.values(), &server);
    }

    #[test]
    fn any_text_is_read_or_unreadable(sql in "[a-z'\"$;,.=() -]{0,80}", standard: bool) {
        let _ = read(sql.as_bytes(), standard);
    }
}
