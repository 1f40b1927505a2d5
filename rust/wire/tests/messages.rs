//! Messages in both directions: what is written is read back, and what is not right is refused.

use flightmode_wire::client::{bind_names, Bind, FromClient, FunctionCall, Object, Parse};
use flightmode_wire::client::{write_sasl_response, SaslInitialResponse};
use flightmode_wire::report::Report;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use flightmode_wire::startup::CancelKey;
use flightmode_wire::{Frame, Rules, Stage, Talker};
use proptest::prelude::*;

/// The one whole message in `bytes`, which must be a frame by the rules.
fn framed(bytes: &[u8], talker: Talker, stage: Stage) -> (Frame, &[u8]) {
    let frame = Rules::new(talker, stage).peek(bytes).unwrap().unwrap();
    assert_eq!(frame.len, bytes.len());
    (frame, frame.body(bytes).unwrap())
}

fn client_round(message: FromClient) {
    let mut out = Vec::new();
    message.write(&mut out);
    let (frame, body) = framed(&out, Talker::Client, Stage::Session);
    assert_eq!(FromClient::read(frame.tag, body), Ok(message));
}

fn server_round(message: &FromServer, stage: Stage) {
    let mut out = Vec::new();
    message.write(&mut out);
    let (frame, body) = framed(&out, Talker::Server, stage);
    assert_eq!(FromServer::read(frame.tag, body).as_ref(), Ok(message));
}

/// One format, two values of which one is NULL, one result format.
const VALUES: &[u8] = &[
    0, 1, 0, 0, 0, 2, 0, 0, 0, 2, b'4', b'2', 255, 255, 255, 255, 0, 1, 0, 1,
];

#[test]
fn every_message_of_a_client_is_read_as_it_was_written() {
    let types = [0, 0, 0, 23, 0, 0, 0, 25];
    for message in [
        FromClient::Query(b"select 1"),
        FromClient::Parse(Parse {
            name: b"s",
            sql: b"select $1",
            types: &types,
        }),
        FromClient::Bind(Bind {
            portal: b"",
            statement: b"s",
            values: VALUES,
        }),
        FromClient::Describe(Object::Statement(b"s")),
        FromClient::Describe(Object::Portal(b"")),
        FromClient::Execute {
            portal: b"p",
            max_rows: 10,
        },
        FromClient::Close(Object::Portal(b"p")),
        FromClient::Sync,
        FromClient::Flush,
        FromClient::CopyData(b"1\t\0"),
        FromClient::CopyDone,
        FromClient::CopyFail(b"no more"),
        FromClient::Terminate,
    ] {
        client_round(message);
    }
}

#[test]
fn pitfall_45_a_function_call_is_read_and_written() {
    let values = &VALUES[..16];
    client_round(FromClient::FunctionCall(FunctionCall {
        oid: 952,
        values: &[values, &[0, 1]].concat(),
    }));
}

#[test]
fn every_message_of_a_server_is_read_as_it_was_written() {
    let report = Report::new("ERROR", "40001", "rolled back by a failover").with(b'H', "retry");
    for message in [
        FromServer::ParameterStatus {
            name: b"TimeZone",
            value: b"UTC",
        },
        FromServer::ReadyForQuery(TxStatus::Failed),
        FromServer::CommandComplete(b"INSERT 0 1"),
        FromServer::Error(report.clone()),
        FromServer::Notice(report),
        FromServer::Notification {
            pid: 7,
            channel: b"jobs",
            payload: b"",
        },
        FromServer::ParseComplete,
        FromServer::BindComplete,
        FromServer::CloseComplete,
        FromServer::NoData,
        FromServer::PortalSuspended,
        FromServer::EmptyQueryResponse,
        FromServer::CopyDone,
        FromServer::RowDescription(&[0, 0]),
        FromServer::ParameterDescription(&[0, 0]),
        FromServer::DataRow(&[0, 0]),
        FromServer::FunctionCallResponse(&[255; 4]),
        FromServer::CopyIn(&[0, 0, 0]),
        FromServer::CopyOut(&[0, 0, 0]),
        FromServer::CopyBoth(&[0, 0, 0]),
        FromServer::CopyData(b"x"),
    ] {
        server_round(&message, Stage::Session);
    }
    for message in [
        FromServer::Authentication(Authentication::Ok),
        FromServer::Authentication(Authentication::CleartextPassword),
        FromServer::Authentication(Authentication::Md5Password([1, 2, 3, 4])),
        FromServer::Authentication(Authentication::Sasl(vec![b"A", b"B"])),
        FromServer::Authentication(Authentication::SaslContinue(b"r=")),
        FromServer::Authentication(Authentication::SaslFinal(b"v=")),
        FromServer::Authentication(Authentication::Other {
            number: 8,
            data: b"gss",
        }),
        FromServer::BackendKeyData(CancelKey::new(9, &[3; 32]).unwrap()),
        FromServer::NegotiateProtocolVersion {
            version: 3 << 16,
            unknown: vec![b"_pq_.x"],
        },
    ] {
        server_round(&message, Stage::Login);
    }
}

#[test]
fn pitfall_26_a_cancel_key_has_4_to_256_bytes() {
    for (length, fits) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        assert_eq!(
            CancelKey::new(1, &vec![0; length]).is_some(),
            fits,
            "{length}"
        );
    }
}

#[test]
fn pitfall_33_keys_do_not_show_their_secret() {
    let key = CancelKey::new(1, b"hush").unwrap();
    assert_eq!(format!("{key:?}"), "CancelKey { pid: 1, .. }");
}

#[test]
fn pitfall_38_a_report_may_lack_every_field() {
    let report = Report::read(&[0]).unwrap();
    assert_eq!((report.sqlstate(), report.is_fatal()), (None, false));
    let odd = Report::read(b"Cno\0Vx\0\0").unwrap();
    assert_eq!(odd.sqlstate(), None);
    assert!(Report::read(b"C00000\0").is_err(), "no end");
    assert!(Report::read(b"").is_err());
    assert!(Report::read(b"\0more").is_err());
}

#[test]
fn a_commit_that_did_not_wait_is_known_in_any_language() {
    let notice = b"SWARNUNG\0VWARNING\0C01000\0Mabgebrochen\0Fsyncrep.c\0RSyncRepWaitForLSN\0\0";
    assert!(Report::read(notice).unwrap().is_unconfirmed_commit());
    assert!(!Report::new("WARNING", "01000", "SyncRepWaitForLSN").is_unconfirmed_commit());
}

#[test]
fn pitfall_09_a_bind_is_renamed_without_touching_its_values() {
    let bind = Bind {
        portal: b"p",
        statement: b"renamed",
        values: VALUES,
    };
    let (mut whole, mut head) = (Vec::new(), Vec::new());
    FromClient::Bind(bind).write(&mut whole);
    bind.write_head(&mut head);
    assert_eq!([&head[..], VALUES].concat(), whole);
    assert_eq!(bind_names(&whole[5..16]), Ok((&b"p"[..], &b"renamed"[..])));
}

#[test]
fn a_nul_in_a_text_cannot_smuggle_a_second_field() {
    let mut out = Vec::new();
    FromClient::Query(b"select 1\0; drop table t").write(&mut out);
    assert_eq!(
        FromClient::read(b'Q', &out[5..]),
        Ok(FromClient::Query(b"select 1"))
    );
}

#[test]
fn counts_that_promise_more_than_the_body_holds_are_refused() {
    assert!(FromClient::read(b'P', b"\0\0\xff\xff").is_err());
    assert!(FromClient::read(b'B', b"\0\0\xff\xff\0\0\0\0").is_err());
    assert!(FromClient::read(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0").is_err());
    assert!(FromClient::read(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").is_err());
    assert!(FromServer::read(b'v', &[0, 3, 0, 0, 255, 255, 255, 255, 0]).is_err());
    assert!(FromClient::read(b'S', b"x").is_err());
    assert!(FromClient::read(b'D', b"Xs\0").is_err());
    assert!(FromServer::read(b'Z', b"Q").is_err());
}

#[test]
fn a_sasl_answer_is_read_as_it_was_written() {
    for data in [None, Some(&b"n,,n=,r=abc"[..])] {
        let answer = SaslInitialResponse {
            mechanism: b"SCRAM-SHA-256",
            data,
        };
        let mut out = Vec::new();
        answer.write(&mut out);
        let (_, body) = framed(&out, Talker::Client, Stage::Login);
        assert_eq!(SaslInitialResponse::read(body), Ok(answer));
    }
    let mut out = Vec::new();
    write_sasl_response(&mut out, b"c=biws");
    assert_eq!(framed(&out, Talker::Client, Stage::Login).1, b"c=biws");
}

proptest! {
    /// Any body is a message or the one error, and a message is written as it was read.
    #[test]
    fn pitfall_38_any_body_is_a_message_or_the_one_error(
        tag in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut out = Vec::new();
        if let Ok(message) = FromClient::read(tag, &body) {
            message.write(&mut out);
            prop_assert_eq!(&out[5..], &body[..]);
        }
        out.clear();
        if let Ok(message) = FromServer::read(tag, &body) {
            message.write(&mut out);
            prop_assert_eq!(&out[5..], &body[..]);
        }
        let _ = SaslInitialResponse::read(&body);
    }
}
