//! LISTEN where the listener is shared: what counts, and when.

use flightmode_pooler::guc::Values;
use flightmode_pooler::session::{Lost, Mode, Session};
use flightmode_pooler::statement::Pin;
use flightmode_wire::client::FromClient;
use flightmode_wire::server::{FromServer, TxStatus};

use crate::client::Client;

fn hears(client: &Client, channel: &str) -> bool {
    let listening = client.session.listening();
    listening.is_some_and(|listening| listening.hears(channel.as_bytes()))
}

#[test]
fn pitfall_07_a_listen_is_asked_for_when_it_is_sent_and_pins_nothing() {
    let mut client = Client::new();
    client.asks("LISTEN Jobs; listen \"Jobs\"");
    let asked = client.session.take_asked();
    assert_eq!(asked, [b"jobs".to_vec(), b"Jobs".to_vec()]);
    assert!(client.session.take_asked().is_empty());
    client.done("LISTEN");
    assert!(!hears(&client, "jobs"));
    client.done("LISTEN");
    client.ready(TxStatus::Idle);
    assert!(hears(&client, "jobs") && hears(&client, "Jobs"));
    assert!(client.session.may_release());
    assert_eq!(client.session.carried(), None, "it can't be handed over");
}

#[test]
fn pitfall_07_an_error_takes_back_the_listens_of_its_transaction() {
    let mut client = Client::new();
    client.asks("listen a; select 1/0");
    client.session.take_asked();
    client.done("LISTEN");
    client.fails();
    client.ready(TxStatus::Idle);
    assert!(client.session.listening().is_none());
    client.runs("listen a");
    client.runs("select 1/0");
    client.says(&FromClient::Sync);
    client.session.take_asked();
    client.hears(&FromServer::ParseComplete);
    client.hears(&FromServer::BindComplete);
    client.done("LISTEN");
    client.hears(&FromServer::ParseComplete);
    client.fails();
    client.ready(TxStatus::Idle);
    assert!(client.session.listening().is_none());
}

#[test]
fn pitfall_07_a_listen_takes_effect_with_its_commit() {
    let mut client = Client::new();
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("savepoint s", "SAVEPOINT", TxStatus::Open);
    client.query("listen a", "LISTEN", TxStatus::Open);
    client.query("rollback to s", "ROLLBACK", TxStatus::Open);
    client.query("listen b", "LISTEN", TxStatus::Open);
    assert!(!hears(&client, "b"));
    client.session.take_asked();
    client.query("commit", "COMMIT", TxStatus::Idle);
    assert!(hears(&client, "b") && !hears(&client, "a"));
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("unlisten b", "UNLISTEN", TxStatus::Open);
    client.query("commit", "ROLLBACK", TxStatus::Idle);
    assert!(hears(&client, "b"), "the commit was none");
    client.query("discard all", "DISCARD ALL", TxStatus::Idle);
    assert!(client.session.listening().is_none());
}

#[test]
fn pitfall_07_the_loss_of_a_server_takes_nothing_from_who_listens_elsewhere() {
    let mut client = Client::new();
    client.query("listen a", "LISTEN", TxStatus::Idle);
    client.session.take_asked();
    client.query("begin", "BEGIN", TxStatus::Open);
    client.query("listen b", "LISTEN", TxStatus::Open);
    client.session.take_asked();
    assert!(matches!(client.loses(), Lost::Tell(_)));
    assert!(hears(&client, "a") && !hears(&client, "b"));
}

#[test]
fn pitfall_07_a_listen_whose_server_is_lost_is_sent_again() {
    let mut client = Client::new();
    client.asks("listen a");
    assert!(matches!(client.loses(), Lost::RunAgain(_)));
}

#[test]
fn pitfall_07_who_listens_at_its_server_has_all_of_it_there() {
    let mut client = Client::new();
    client.query("do 'begin listen a; end'", "DO", TxStatus::Idle);
    client.query("listen b", "LISTEN", TxStatus::Idle);
    assert!(client.session.take_asked().is_empty());
    assert!(client.session.may_listen_itself() && !client.session.may_release());
    client.query("unlisten *", "UNLISTEN", TxStatus::Idle);
    assert!(client.session.may_release());
    let mut client = Client::new();
    client.session = Session::new(Mode::Session, Values::new());
    client.query("listen b", "LISTEN", TxStatus::Idle);
    assert!(client.session.take_asked().is_empty());
    assert_eq!(client.session.pins().collect::<Vec<_>>(), [Pin::Listen]);
}
