//! A client: what binds it to its server, and what it hears when that is lost.

mod client;
mod doubt;
mod listen;
mod loss;

use std::rc::Rc;

use flightmode_pooler::flow::{Sent, Whose};
use flightmode_pooler::guc::Values;
use flightmode_pooler::session::{Deallocated, Lost, Mode, Session};
use flightmode_pooler::statement::Pin;
use flightmode_pooler::unit::Ledger;
use flightmode_wire::client::{Bind, FromClient, Object, Parse};
use flightmode_wire::server::{FromServer, TxStatus};

use client::{words, Client};

#[test]
fn a_server_is_given_back_after_each_transaction() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    assert!(!client.session.may_release());
    client.query("commit", "COMMIT", TxStatus::Idle);
    assert!(client.session.may_release());
    let mut session = Session::new(Mode::Session, Values::new());
    assert!(!session.may_release());
    assert_eq!(
        session.on_server_lost(&mut Ledger::new(1, 1)),
        Lost::Nothing
    );
}

#[test]
fn pitfall_03_a_setting_is_kept_when_its_transaction_is() {
    let mut client = Client::new();
    client.query("set a to 1", "SET", TxStatus::Idle);
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("set a to 2", "SET", TxStatus::Open);
    assert_eq!(client.setting("a"), Some(&b"2"[..]));
    client.query("rollback", "ROLLBACK", TxStatus::Idle);
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
}

#[test]
fn pitfall_03_a_commit_that_is_a_rollback_takes_settings_back() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("set a to 2", "SET", TxStatus::Open);
    client.asks("select 1/0");
    client.fails();
    client.ready(TxStatus::Failed);
    client.query("commit", "ROLLBACK", TxStatus::Idle);
    assert_eq!(client.setting("a"), None);
}

#[test]
fn pitfall_03_an_error_takes_back_what_the_same_text_or_group_has_set() {
    let mut client = Client::new();
    client.asks("set a to 1; select 1/0");
    client.done("SET");
    client.fails();
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), None);

    client.runs("set a to 1");
    client.runs("select 1/0");
    client.says(&FromClient::Sync);
    client.hears(&FromServer::ParseComplete);
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
    client.fails();
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), None);
    assert!(client.session.may_release());
}

#[test]
fn pitfall_02_a_setting_by_the_extended_protocol_is_seen() {
    let mut client = Client::new();
    let parse = Parse {
        name: b"s",
        sql: b"set a to 1",
        types: b"",
    };
    client.says(&FromClient::Parse(parse));
    client.says(&FromClient::Sync);
    client.hears(&FromServer::ParseComplete);
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), None, "it only was prepared");
    let bind = Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    };
    client.says(&FromClient::Bind(bind));
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Sync);
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
}

#[test]
fn pitfall_13_a_parse_that_failed_does_not_take_the_name_of_a_good_one() {
    let mut client = Client::new();
    for sql in [&b"set a to 1"[..], b"selct"] {
        client.says(&FromClient::Parse(Parse {
            name: b"s",
            sql,
            types: b"",
        }));
    }
    client.says(&FromClient::Sync);
    client.hears(&FromServer::ParseComplete);
    client.fails();
    client.ready(TxStatus::Idle);
    let bind = Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    };
    client.says(&FromClient::Bind(bind));
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Sync);
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
}

#[test]
fn pitfall_06_a_pin_keeps_the_server_until_it_is_undone() {
    let mut client = Client::new();
    client.query("create temp table t ()", "CREATE TABLE", TxStatus::Idle);
    assert!(!client.session.may_release());
    assert_eq!(client.session.pins().collect::<Vec<_>>(), [Pin::Temporary]);
    client.query("discard temp", "DISCARD TEMP", TxStatus::Idle);
    assert!(client.session.may_release());
    client.listens_itself("listen a");
    client.asks("discard all");
    assert_eq!(
        client.done("DISCARD ALL").deallocated,
        Some(Deallocated::All)
    );
    client.ready(TxStatus::Idle);
    assert!(client.session.may_release());
}

#[test]
fn pitfall_06_a_rollback_brings_back_what_pinned() {
    for (pins, tag, unpins) in [
        ("create temp table t ()", "CREATE TABLE", "discard temp"),
        ("listen a", "LISTEN", "unlisten *"),
    ] {
        let mut client = Client::new();
        client.query(pins, tag, TxStatus::Idle);
        if pins.starts_with("listen") {
            client.session.listens_itself();
        }
        client.query("begin", "BEGIN", TxStatus::Open);
        client.query(unpins, "X", TxStatus::Open);
        client.query("rollback", "ROLLBACK", TxStatus::Idle);
        assert!(!client.session.may_release(), "{unpins}; rollback");
        client.query("begin", "BEGIN", TxStatus::Open);
        client.query("savepoint a", "SAVEPOINT", TxStatus::Open);
        client.query(unpins, "X", TxStatus::Open);
        client.query("rollback to a", "ROLLBACK", TxStatus::Open);
        client.query("commit", "COMMIT", TxStatus::Idle);
        assert!(!client.session.may_release(), "{unpins}; rollback to");
        client.asks(&format!("{unpins}; select 1/0"));
        client.done("X");
        client.fails();
        client.ready(TxStatus::Idle);
        assert!(!client.session.may_release(), "{unpins}; an error");
        client.query("begin", "BEGIN", TxStatus::Open);
        client.query(unpins, "X", TxStatus::Open);
        client.query("commit", "ROLLBACK", TxStatus::Idle);
        assert!(
            !client.session.may_release(),
            "{unpins}; a commit that is none"
        );
        client.query("begin", "BEGIN", TxStatus::Open);
        client.query(unpins, "X", TxStatus::Open);
        client.query("commit", "COMMIT", TxStatus::Idle);
        assert!(client.session.may_release(), "{unpins}; commit");
    }
}

#[test]
fn pitfall_06_what_undoes_a_pin_undoes_none_that_comes_behind_it() {
    for (sql, pin) in [
        ("discard temp; create temp table t ()", Pin::Temporary),
        ("unlisten *; listen a", Pin::Listen),
        ("deallocate all; prepare a as select 1", Pin::SqlPrepare),
        (
            "close all; declare c cursor with hold for select 1",
            Pin::HeldCursor,
        ),
        (
            "select pg_advisory_unlock_all(); select pg_advisory_lock(1)",
            Pin::AdvisoryLock,
        ),
    ] {
        let mut client = Client::new();
        client.asks(sql);
        if pin == Pin::Listen {
            client.session.listens_itself();
        }
        client.done("X");
        client.done("Y");
        client.ready(TxStatus::Idle);
        assert_eq!(client.session.pins().collect::<Vec<_>>(), [pin], "{sql}");
    }
    let mut ahead = Client::new();
    ahead.asks("discard all");
    ahead.asks("create temp table t ()");
    ahead.done("DISCARD ALL");
    ahead.ready(TxStatus::Idle);
    ahead.done("CREATE TABLE");
    ahead.ready(TxStatus::Idle);
    assert!(!ahead.session.may_release());
}

#[test]
fn pitfall_11_what_a_text_means_is_not_known_while_a_setting_is_under_way() {
    let mut client = Client::new();
    let plain = client.session.meaning();
    assert!(plain.is_some());
    client.asks("set timezone to 'UTC'");
    assert_eq!(
        client.session.meaning(),
        None,
        "it may be parsed before or after"
    );
    client.done("SET");
    let utc = client.session.meaning();
    assert!(utc.is_some() && utc != plain);
    client.ready(TxStatus::Idle);
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("set local timezone to 'Asia/Tokyo'", "SET", TxStatus::Open);
    let tokyo = client.session.meaning();
    assert!(tokyo.is_some() && tokyo != utc);
    client.asks("commit");
    assert_eq!(client.session.meaning(), None);
    client.done("COMMIT");
    client.ready(TxStatus::Idle);
    assert_eq!(client.session.meaning(), utc);
    client.asks("begin");
    client.asks("commit");
    assert_eq!(client.session.meaning(), utc, "they change no setting");
    client.asks("select set_config('timezone', $1, false)");
    assert_eq!(client.session.meaning(), None);
}

#[test]
fn what_is_prepared_and_closed_in_an_aftermath_counts_after_it() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    assert_eq!(client.is_told(), [""; 0]);
    let parse = |sql| {
        FromClient::Parse(Parse {
            name: b"s",
            sql,
            types: b"",
        })
    };
    let mut out = Vec::new();
    let session = &mut client.session;
    assert!(
        !session.on_aftermath(&parse(b"select 1"), &mut out),
        "it fails"
    );
    assert!(
        !session.on_aftermath(&parse(b"rollback"), &mut out),
        "it is skipped"
    );
    session.on_aftermath(&FromClient::Sync, &mut out);
    assert!(session.on_aftermath(&parse(b"rollback"), &mut out));
    session.on_aftermath(&FromClient::Query(b"rollback"), &mut out);
    assert!(!session.is_in_aftermath());
    client.query("begin", "BEGIN", TxStatus::Open);
    client.says(&FromClient::Bind(Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    }));
    assert_eq!(client.session.pins().count(), 0);
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    assert_eq!(
        client.session.pins().count(),
        0,
        "it is known for a ROLLBACK"
    );
}

#[test]
fn pitfall_17_a_close_that_an_error_has_dropped_hides_no_setting() {
    let mut client = Client::new();
    client.says(&FromClient::Parse(Parse {
        name: b"s",
        sql: b"set a to 1",
        types: b"",
    }));
    client.says(&FromClient::Sync);
    client.hears(&FromServer::ParseComplete);
    client.ready(TxStatus::Idle);
    client.says(&FromClient::Parse(Parse {
        name: b"",
        sql: b"selct",
        types: b"",
    }));
    client.says(&FromClient::Close(Object::Statement(b"s")));
    client.says(&FromClient::Sync);
    client.fails();
    client.ready(TxStatus::Idle);
    assert!(client.session.may_release());
    client.says(&FromClient::Bind(Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    }));
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Sync);
    assert_eq!(client.session.pins().count(), 0, "it is known what it does");
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
}

#[test]
fn pitfall_17_a_close_counts_in_its_turn_among_what_gives_names() {
    let mut client = Client::new();
    let parse = |sql| {
        FromClient::Parse(Parse {
            name: b"s",
            sql,
            types: b"",
        })
    };
    let close = FromClient::Close(Object::Statement(b"s"));
    for message in [
        parse(b"set a to 1"),
        close,
        parse(b"set a to 2"),
        FromClient::Close(Object::Portal(b"p")),
        FromClient::Sync,
    ] {
        client.says(&message);
    }
    for message in [
        FromServer::ParseComplete,
        FromServer::CloseComplete,
        FromServer::ParseComplete,
        FromServer::CloseComplete,
        FromServer::ReadyForQuery(TxStatus::Idle),
    ] {
        client.hears(&message);
    }
    let bind = FromClient::Bind(Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    });
    let execute = FromClient::Execute {
        portal: b"",
        max_rows: 0,
    };
    for message in [&bind, &execute, &FromClient::Sync] {
        client.says(message);
    }
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    client.ready(TxStatus::Idle);
    assert_eq!(client.setting("a"), Some(&b"2"[..]), "the second was meant");
    for message in [&close, &bind, &execute] {
        client.says(message);
    }
    let pins: Vec<_> = client.session.pins().collect();
    assert_eq!(pins, [Pin::Unreadable], "a Close under way hides the name");
}

#[test]
fn pitfall_10_deallocate_is_heard_when_it_is_done() {
    let mut client = Client::new();
    client.asks("deallocate p");
    let heard = client.done("DEALLOCATE");
    assert_eq!(heard.deallocated, Some(Deallocated::One(b"p".to_vec())));
}

#[test]
fn pitfall_03_a_text_in_an_ambiguous_encoding_is_not_read() {
    let mut client = Client::new();
    let sjis = Values::from([(b"client_encoding".to_vec(), b"SJIS".to_vec())]);
    assert_eq!(client.session.on_server(&Rc::new(sjis)).len(), 1);
    client.query("set a to 1", "SET", TxStatus::Idle);
    assert_eq!(client.session.pins().collect::<Vec<_>>(), [Pin::Unreadable]);
}
