//! What a client hears when its server is lost.

use super::*;

#[test]
fn an_idle_client_hears_nothing_of_a_lost_server() {
    let mut client = Client::new();
    assert_eq!(client.loses(), Lost::Nothing);
    client.query("select 1", "SELECT 1", TxStatus::Idle);
    assert_eq!(client.loses(), Lost::Nothing);
}

#[test]
fn a_read_of_its_own_runs_again_with_all_that_was_sent() {
    let mut client = Client::new();
    client.runs("select * from t");
    client.says(&FromClient::Sync);
    let Lost::RunAgain(sent) = client.loses() else {
        panic!("it only read")
    };
    assert_eq!(
        sent.iter().map(|message| message[0]).collect::<Vec<_>>(),
        b"PBES"
    );
    assert!(client.session.may_release());
}

#[test]
fn a_read_whose_answer_was_begun_is_told_that_it_is_safe_to_retry() {
    let mut client = Client::new();
    client.asks("select * from t");
    client.hears(&FromServer::RowDescription(&[0, 0]));
    assert_eq!(client.is_told(), ["40001", "Idle"]);
    assert!(client.session.may_release());
}

/// Parse and Describe of a named statement, and a Flush: the server has answered.
fn prepares(client: &mut Client, sql: &str) {
    client.says(&FromClient::Parse(Parse {
        name: b"s",
        sql: sql.as_bytes(),
        types: b"",
    }));
    client.says(&FromClient::Describe(Object::Statement(b"s")));
    client.says(&FromClient::Flush);
    client.hears(&FromServer::ParseComplete);
    client.hears(&FromServer::ParameterDescription(&[0, 0]));
    client.hears(&FromServer::NoData);
}

fn binds(client: &mut Client) {
    client.says(&FromClient::Bind(Bind {
        portal: b"",
        statement: b"s",
        values: &[0; 6],
    }));
}

#[test]
fn a_group_that_has_only_prepared_goes_on_at_another_server() {
    let mut client = Client::new();
    prepares(&mut client, "select 1");
    assert!(!client.session.may_release(), "its group is not over");
    assert_eq!(client.loses(), Lost::Nothing);
    assert!(!client.session.is_in_aftermath() && !client.session.may_release());
    binds(&mut client);
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Sync);
    let Lost::RunAgain(sent) = client.loses() else {
        panic!("it only read, and has seen nothing of it")
    };
    let tags: Vec<_> = sent.iter().map(|message| message[0]).collect();
    assert_eq!(tags, b"BES");
}

#[test]
fn a_write_behind_what_was_prepared_is_in_doubt() {
    let mut client = Client::new();
    prepares(&mut client, "insert into t values (1)");
    binds(&mut client);
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Sync);
    assert_eq!(client.is_told(), ["08007", "Idle"]);
}

#[test]
fn a_group_that_has_run_anything_does_not_go_on_as_if_it_had_not() {
    let mut client = Client::new();
    prepares(&mut client, "set a to 1");
    binds(&mut client);
    client.says(&FromClient::Execute {
        portal: b"",
        max_rows: 0,
    });
    client.says(&FromClient::Close(Object::Portal(b"")));
    client.says(&FromClient::Flush);
    client.hears(&FromServer::BindComplete);
    client.done("SET");
    client.hears(&FromServer::CloseComplete);
    assert_eq!(client.is_told(), [""; 0]);
    assert!(client.session.is_in_aftermath());
    assert_eq!(client.setting("a"), None);
}

#[test]
fn nobody_is_told_what_nobody_has_asked_for() {
    let mut bound = Client::new();
    prepares(&mut bound, "select 1");
    binds(&mut bound);
    bound.hears(&FromServer::BindComplete);
    assert_eq!(
        bound.is_told(),
        [""; 0],
        "an error now would answer nothing"
    );
    assert!(bound.session.is_in_aftermath());
    let mut out = Vec::new();
    let execute = FromClient::Execute {
        portal: b"",
        max_rows: 0,
    };
    for message in [execute, FromClient::Sync] {
        bound.session.on_aftermath(&message, &mut out);
    }
    assert_eq!(words(&out), ["40001", "Idle"]);
    assert!(bound.session.may_release());

    let mut open = Client::new();
    open.query("begin", "BEGIN", TxStatus::Open);
    prepares(&mut open, "insert into t values (1)");
    assert_eq!(open.is_told(), [""; 0]);
    let mut out = Vec::new();
    for message in [FromClient::Sync, FromClient::Query(b"rollback")] {
        open.session.on_aftermath(&message, &mut out);
    }
    assert_eq!(words(&out), ["Failed", "ROLLBACK", "Idle"]);
}

#[test]
fn a_write_of_its_own_is_in_doubt_even_when_its_tag_was_seen() {
    let mut client = Client::new();
    client.asks("insert into t values (1)");
    assert_eq!(client.is_told(), ["08007", "Idle"]);
    client.runs("insert into t values (1)");
    client.says(&FromClient::Sync);
    client.hears(&FromServer::ParseComplete);
    client.hears(&FromServer::BindComplete);
    client.done("INSERT 0 1");
    assert_eq!(client.is_told(), ["08007", "Idle"]);
}

#[test]
fn a_text_that_opens_a_transaction_and_does_not_end_it_has_had_no_effect() {
    let mut client = Client::new();
    client.asks("begin; insert into t values (1)");
    assert_eq!(client.is_told(), ["40001", "Failed"]);
    for sql in [
        "begin; insert into t values (1); commit",
        "begin; insert into t values (1); rollback; insert into t values (2)",
        "insert into t values (1); begin; insert into t values (2)",
    ] {
        let mut client = Client::new();
        client.asks(sql);
        assert_eq!(client.is_told(), ["08007", "Idle"], "{sql}");
    }
}

#[test]
fn a_text_behind_one_that_opens_a_transaction_may_be_on_its_own() {
    let mut client = Client::new();
    client.asks("begin isolation level nonsense; insert into t values (1)");
    client.asks("insert into t values (2)");
    assert_eq!(client.is_told()[0], "08007");
}

#[test]
fn a_transaction_fails_at_its_next_statement_if_nobody_was_waiting() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("insert into t values (1)", "INSERT 0 1", TxStatus::Open);
    assert_eq!(client.is_told(), [""; 0]);
    assert!(client.session.is_in_aftermath());
    let mut out = Vec::new();
    client
        .session
        .on_aftermath(&FromClient::Query(b"commit"), &mut out);
    assert_eq!(words(&out), ["40001", "Idle"]);
    assert!(!client.session.is_in_aftermath());
    assert!(client.session.may_release());
}

#[test]
fn a_transaction_fails_in_the_statement_that_was_waiting_and_stays_failed() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    client.asks("insert into t values (1)");
    assert_eq!(client.is_told(), ["40001", "Failed"]);
    let mut out = Vec::new();
    client
        .session
        .on_aftermath(&FromClient::Query(b"select 1"), &mut out);
    client
        .session
        .on_aftermath(&FromClient::Query(b"rollback"), &mut out);
    assert_eq!(words(&out), ["25P02", "Failed", "ROLLBACK", "Idle"]);
}

#[test]
fn a_commit_in_flight_is_in_doubt_however_it_was_sent() {
    let mut plain = Client::new();
    plain.query("begin", "BEGIN", TxStatus::Open);
    plain.asks("commit");
    assert_eq!(plain.is_told(), ["08007", "Idle"]);

    let mut ahead = Client::new();
    for sql in ["begin", "insert into t values (1)", "commit"] {
        ahead.asks(sql);
    }
    ahead.done("BEGIN");
    ahead.ready(TxStatus::Open);
    assert_eq!(ahead.is_told(), ["08007", "Idle", "08007", "Idle"]);

    let mut behind = Client::new();
    for sql in ["insert into t values (1)", "begin", "commit"] {
        behind.asks(sql);
    }
    behind.done("INSERT 0 1");
    behind.ready(TxStatus::Idle);
    behind.done("BEGIN");
    behind.ready(TxStatus::Open);
    assert_eq!(behind.is_told(), ["08007", "Idle"]);
}

#[test]
fn a_rollback_in_flight_has_nothing_to_lose_unless_more_was_sent_behind_it() {
    for (sql, code) in [
        ("rollback", "40001"),
        ("rollback; insert into t values (1)", "08007"),
    ] {
        let mut client = Client::new();
        client.query("begin", "BEGIN", TxStatus::Open);
        client.asks(sql);
        assert_eq!(client.is_told(), [code, "Idle"], "{sql}");
    }
}

#[test]
fn pitfall_53_a_second_statement_sent_ahead_does_not_run_again() {
    let mut client = Client::new();
    client.asks("select 1");
    client.asks("select 2");
    client.done("SELECT 1");
    client.ready(TxStatus::Idle);
    assert_eq!(client.is_told(), ["40001", "Idle"]);
}

#[test]
fn who_had_what_only_the_server_knew_is_the_one_who_must_notice() {
    for (sql, busy, code) in [
        ("select pg_advisory_lock(1)", "select 1", "57P01"),
        (
            "create temp table t ()",
            "insert into u values (1)",
            "08007",
        ),
    ] {
        let mut client = Client::new();
        client.query(sql, "OK", TxStatus::Idle);
        client.asks(busy);
        let Lost::End(bytes) = client.loses() else {
            panic!("{sql}")
        };
        assert_eq!(words(&bytes), [code], "{sql}");
    }
}

#[test]
fn settings_of_a_lost_transaction_are_taken_back() {
    let mut client = Client::new();
    client.query("set a to 1", "SET", TxStatus::Idle);
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("set a to 2", "SET", TxStatus::Open);
    client.loses();
    assert_eq!(client.setting("a"), Some(&b"1"[..]));
}

#[test]
fn a_standby_makes_no_statement_harmless_for_it_may_be_promoted_before_it_reads_it() {
    let mut client = Client::new();
    let standby = Values::from([(b"in_hot_standby".to_vec(), b"on".to_vec())]);
    client.session.on_server(&Rc::new(standby));
    client.asks("insert into t values (1)");
    assert_eq!(client.is_told(), ["08007", "Idle"]);
}

#[test]
fn a_setting_that_is_reported_is_no_part_of_a_reads_answer() {
    let mut client = Client::new();
    client.asks("select 1");
    client.hears(&FromServer::ParameterStatus {
        name: b"application_name",
        value: b"mine",
    });
    assert!(matches!(client.loses(), Lost::RunAgain(_)));
}

#[test]
fn pitfall_12_a_group_that_is_refused_as_a_whole_is_sent_once_more_and_no_other() {
    let mut client = Client::new();
    client.runs("select 1");
    client.says(&FromClient::Sync);
    let blind = client.session.on_stale_plan(&mut client.ledger);
    assert_eq!(blind, None, "it goes by what its rows looked like");
    let sent = client.session.on_refused(&mut client.ledger);
    assert_eq!(sent.map(|sent| sent.len()), Some(4));
    client.runs("select 1");
    client.says(&FromClient::Describe(Object::Portal(b"")));
    client.says(&FromClient::Sync);
    let sent = client.session.on_stale_plan(&mut client.ledger);
    assert_eq!(sent.map(|sent| sent.len()), Some(5));
    assert_eq!(client.ledger.used(), 0);
    client.runs("insert into t values (1)");
    client.says(&FromClient::Sync);
    client.asks("insert into t values (2)");
    let behind = client.session.on_refused(&mut client.ledger);
    assert_eq!(behind, None, "what is behind it may have been carried out");
    let mut seen = Client::new();
    seen.runs("select 1");
    seen.hears(&FromServer::ParseComplete);
    assert_eq!(seen.session.on_refused(&mut seen.ledger), None);
}

#[test]
fn a_read_that_has_run_often_enough_is_told_that_it_may_be_retried() {
    let mut client = Client::new();
    client.asks("select 1");
    client.session.on_enough(&mut client.ledger);
    assert_eq!(client.is_told(), ["40001", "Idle"]);
}

#[test]
fn rows_that_come_after_their_copy_was_lost_make_nothing_of_a_read() {
    let mut client = Client::new();
    let rows = FromClient::CopyData(b"1\n");
    let raw = b"d\0\0\0\x061\n";
    let sent = client
        .session
        .on_message(&rows, raw, Whose::Clients, &mut client.ledger);
    assert_eq!(sent, Sent::Drop);
    client.asks("select 1");
    assert!(matches!(client.loses(), Lost::RunAgain(_)));
}

#[test]
fn the_rest_of_a_group_that_was_told_needs_no_server() {
    let mut client = Client::new();
    client.runs("insert into t values (1)");
    assert_eq!(client.is_told(), ["08007"]);
    assert!(client.session.flow().is_skipping());
    let sync = FromClient::Sync;
    let raw = b"S\0\0\0\x04";
    let sent = client
        .session
        .on_message(&sync, raw, Whose::Local, &mut client.ledger);
    assert_eq!(sent, Sent::Answer);
    assert_eq!(client.session.flow().status(), TxStatus::Idle);
    assert!(client.session.may_release());
    assert_eq!(client.loses(), Lost::Nothing);
}
