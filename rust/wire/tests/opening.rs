//! Before the login: packets, their order, versions, options.

use flightmode_wire::greeting::{Greeting, Offer, Refusal, Step};
use flightmode_wire::startup::{CancelKey, Opening, OpeningError, Startup, V3_0, V3_2};
use proptest::prelude::*;

const OFFER: Offer = Offer {
    tls: true,
    tls_only: false,
};

fn startup(version: u32, parameters: &[(&'static str, &'static str)]) -> Startup<'static> {
    let bytes = |(name, value): &(&'static str, &'static str)| (name.as_bytes(), value.as_bytes());
    Startup {
        version,
        parameters: parameters.iter().map(bytes).collect(),
    }
}

fn packet(opening: &Opening) -> Vec<u8> {
    let mut out = Vec::new();
    opening.write(&mut out);
    out
}

#[test]
fn packets_are_read_as_they_were_written_and_waited_for_in_pieces() {
    for opening in [
        Opening::Ssl,
        Opening::Gss,
        Opening::Cancel(CancelKey::new(5, &[1; 4]).unwrap()),
        Opening::Cancel(CancelKey::new(5, &[1; 256]).unwrap()),
        Opening::Startup(startup(V3_0, &[("user", "ada"), ("database", "shop")])),
    ] {
        let bytes = packet(&opening);
        for cut in 0..bytes.len() {
            assert_eq!(Opening::read(&bytes[..cut]), Ok(None));
        }
        assert_eq!(Opening::read(&bytes), Ok(Some((opening, bytes.len()))));
    }
}

#[test]
fn pitfall_34_a_start_up_packet_has_at_most_10_000_bytes() {
    for length in [0u32, 7, 10_001, 0x8000_0000, u32::MAX] {
        assert_eq!(
            Opening::read(&length.to_be_bytes()),
            Err(OpeningError::Length(length))
        );
    }
    assert_eq!(Opening::read(&10_000u32.to_be_bytes()), Ok(None));
    assert!(Opening::read(b"GET / HTTP/1.1").is_err());
}

#[test]
fn pitfall_34_a_packet_that_does_not_end_where_it_says_is_refused() {
    let whole = packet(&Opening::Startup(startup(V3_0, &[("user", "ada")])));
    let mut longer = whole.clone();
    longer.push(0);
    longer[3] += 1;
    assert!(matches!(
        Opening::read(&longer),
        Err(OpeningError::Malformed(_))
    ));
    let mut shorter = whole[..whole.len() - 1].to_vec();
    shorter[3] -= 1;
    assert!(matches!(
        Opening::read(&shorter),
        Err(OpeningError::Malformed(_))
    ));
}

#[test]
fn a_client_without_a_name_or_with_an_old_protocol_is_refused() {
    let nobody = packet(&Opening::Startup(startup(V3_0, &[("database", "shop")])));
    assert_eq!(Opening::read(&nobody), Err(OpeningError::NoUser));
    let old = packet(&Opening::Startup(startup(2 << 16, &[("user", "ada")])));
    let refused = Opening::read(&old).unwrap_err();
    assert_eq!(refused.to_string(), "unsupported frontend protocol 2.0");
}

#[test]
fn the_database_is_the_users_name_unless_said_and_the_last_word_counts() {
    assert_eq!(startup(V3_0, &[("user", "ada")]).database(), b"ada");
    let twice = startup(
        V3_0,
        &[("user", "ada"), ("database", "a"), ("database", "b")],
    );
    assert_eq!(twice.database(), b"b");
}

#[test]
fn pitfall_28_an_unknown_minor_version_or_option_is_negotiated_once() {
    let grease = startup(
        V3_0 + 9999,
        &[("user", "a"), ("_pq_.test_protocol_negotiation", "")],
    );
    let outcome = grease.negotiate();
    assert_eq!((outcome.version, outcome.must_answer), (V3_2, true));
    assert_eq!(outcome.unknown, [b"_pq_.test_protocol_negotiation"]);
    let known = startup(V3_2, &[("user", "a")]).negotiate();
    assert_eq!((known.must_answer, known.secret_len()), (false, 32));
    let option = startup(V3_0, &[("user", "a"), ("_pq_.x", "1")]).negotiate();
    assert_eq!((option.version, option.must_answer), (V3_0, true));
}

#[test]
fn pitfall_26_clients_of_protocol_3_0_get_a_secret_of_4_bytes() {
    assert_eq!(startup(V3_0, &[("user", "a")]).negotiate().secret_len(), 4);
}

#[test]
fn pitfall_29_encryption_is_asked_for_once_of_each_kind() {
    let mut greeting = Greeting::new(Offer {
        tls: false,
        ..OFFER
    });
    assert_eq!(greeting.on(Opening::Gss, 0), Ok(Step::Refuse));
    assert_eq!(greeting.on(Opening::Ssl, 0), Ok(Step::Refuse));
    assert_eq!(greeting.on(Opening::Gss, 0), Err(Refusal::AskedAgain));
    assert_eq!(greeting.on(Opening::Ssl, 0), Err(Refusal::AskedAgain));
}

#[test]
fn pitfall_29_nothing_is_asked_for_inside_tls() {
    let mut greeting = Greeting::new(OFFER);
    assert_eq!(greeting.on(Opening::Ssl, 0), Ok(Step::AcceptTls));
    greeting.tls_done();
    assert_eq!(greeting.on(Opening::Gss, 0), Err(Refusal::AskedAgain));
}

#[test]
fn pitfall_30_no_byte_may_lie_between_the_request_and_the_handshake() {
    for opening in [Opening::Ssl, Opening::Gss] {
        let mut greeting = Greeting::new(OFFER);
        assert_eq!(greeting.on(opening, 1), Err(Refusal::BytesBeforeTls));
    }
}

#[test]
fn pitfall_31_direct_tls_needs_its_protocol_name() {
    let mut greeting = Greeting::new(OFFER);
    assert_eq!(greeting.is_direct_tls(0x16), Ok(true));
    assert_eq!(greeting.is_direct_tls(0x00), Ok(false));
    assert_eq!(greeting.direct_tls_done(None), Err(Refusal::NoAlpn));
    assert_eq!(greeting.direct_tls_done(Some(b"h2")), Err(Refusal::NoAlpn));
    assert!(!greeting.in_tls());
    assert_eq!(greeting.direct_tls_done(Some(b"postgresql")), Ok(()));
    assert!(greeting.in_tls());
    let bare = Greeting::new(Offer {
        tls: false,
        ..OFFER
    });
    assert_eq!(bare.is_direct_tls(0x16), Err(Refusal::NoTls));
}

#[test]
fn pitfall_27_a_cancel_is_heard_in_tls_and_in_plain_text() {
    let key = CancelKey::new(5, &[1; 32]).unwrap();
    let mut plain = Greeting::new(OFFER);
    assert_eq!(
        plain.on(Opening::Cancel(key.clone()), 0),
        Ok(Step::Cancel(key.clone()))
    );
    let mut encrypted = Greeting::new(Offer {
        tls_only: true,
        ..OFFER
    });
    assert_eq!(
        encrypted.on(Opening::Cancel(key.clone()), 0),
        Err(Refusal::PlainText)
    );
    encrypted.direct_tls_done(Some(b"postgresql")).unwrap();
    assert_eq!(
        encrypted.on(Opening::Cancel(key.clone()), 0),
        Ok(Step::Cancel(key))
    );
}

#[test]
fn pitfall_35_options_are_settings_and_never_a_statement() {
    let read = |options: &'static str| startup(V3_0, &[("options", options)]).options();
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(
        read("-c a=1 -cb=2 --c-d=3+4"),
        Ok(vec![pair("a", "1"), pair("b", "2"), pair("c_d", "3+4"),])
    );
    assert_eq!(
        read(r"-c search_path=a\ b,\\c"),
        Ok(vec![pair("search_path", r"a b,\c")])
    );
    assert_eq!(read("-c x='; drop table t"), Err(read("-d 5").unwrap_err()));
    for bad in ["-c", "-c a", "a=1", "-d 5", "-c =1"] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert_eq!(read("  "), Ok(vec![]));
}

proptest! {
    #[test]
    fn any_bytes_are_a_beginning_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((opening, length))) = Opening::read(&bytes) {
            prop_assert!(length <= bytes.len());
            if let Opening::Startup(startup) = opening {
                let _ = startup.options();
            }
        }
    }

    #[test]
    fn any_body_after_a_right_version_is_a_beginning_or_an_error(
        body in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300),
        code in prop_oneof![Just(V3_0), Just(V3_2), Just(80_877_102u32), any::<u32>()],
    ) {
        let length = u32::try_from(body.len() + 8).unwrap();
        let bytes = [&length.to_be_bytes()[..], &code.to_be_bytes(), &body].concat();
        if let Ok(Some((opening, length))) = Opening::read(&bytes) {
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(packet(&opening), bytes);
        }
    }

    #[test]
    fn any_options_are_settings_or_an_error(options in proptest::collection::vec(any::<u8>(), 0..100)) {
        let startup = Startup { version: V3_0, parameters: vec![(b"options", &options)] };
        if let Ok(settings) = startup.options() {
            prop_assert!(settings.iter().all(|(name, _)| !name.is_empty()));
        }
    }
}
