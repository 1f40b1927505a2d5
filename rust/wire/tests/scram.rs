//! SCRAM, each side against the other and against one that others wrote.

use std::str::FromStr;
use std::sync::LazyLock;

use flightmode_wire::scram::{
    Binding, Client, Credential, EndPointHash, KeyPair, ScramError, Secret, Server, PLAIN, PLUS,
};
use postgres_protocol::authentication::sasl;
use proptest::prelude::*;

const NONCE: &str = "fixedservernonce";

/// Made once: 4096 rounds take a while in an unoptimised build.
fn secret() -> Secret {
    static SECRET: LazyLock<Secret> =
        LazyLock::new(|| Secret::from_password(b"pencil", b"saltsaltsaltsalt", 4096));
    SECRET.clone()
}

fn password(word: &[u8]) -> Credential {
    Credential::Password(word.to_vec().into())
}

fn end_point() -> Binding {
    Binding::EndPoint(EndPointHash::Sha256.of(b"a certificate"))
}

fn run(
    mechanism: &str,
    credential: Credential,
    of_client: Binding,
    of_server: Binding,
) -> Result<KeyPair, ScramError> {
    let mut client = Client::new(mechanism, credential, of_client, "clientnonce")?;
    let mut server = Server::new(secret(), of_server, NONCE)?;
    let challenge = server.challenge(mechanism.as_bytes(), client.first().as_bytes())?;
    let proven = server.check(client.answer(challenge.as_bytes())?.as_bytes())?;
    client.finish(proven.last.as_bytes())?;
    Ok(proven.keys.clone())
}

#[test]
fn the_example_of_rfc_7677_is_met_to_the_letter() {
    // The RFC's user has a name; Postgres ignores it, so only our server can play this example.
    let salt = [
        91, 109, 153, 104, 157, 18, 53, 142, 236, 160, 75, 20, 18, 54, 250, 129,
    ];
    let secret = Secret::from_password(b"pencil", &salt, 4096);
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let mut server = Server::new(secret, Binding::Impossible, nonce).unwrap();
    let challenge = server
        .challenge(b"SCRAM-SHA-256", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        .unwrap();
    assert_eq!(
        challenge,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let proven = server
        .check(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        proven.last,
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

fn against_their_client(word: &[u8], theirs: sasl::ChannelBinding, ours: Binding, mechanism: &str) {
    let secret = Secret::from_password(word, b"saltsaltsaltsalt", 4096);
    let mut client = sasl::ScramSha256::new(word, theirs);
    let mut server = Server::new(secret, ours, NONCE).unwrap();
    let challenge = server
        .challenge(mechanism.as_bytes(), client.message())
        .unwrap();
    client.update(challenge.as_bytes()).unwrap();
    let proven = server.check(client.message()).unwrap();
    client.finish(proven.last.as_bytes()).unwrap();
}

#[test]
fn a_client_that_others_wrote_is_let_in() {
    let hash = EndPointHash::Sha384.of(b"a certificate");
    for word in ["pencil", "I\u{ad}X", "\u{7}bell", "p\u{e4}ss"] {
        let plain = sasl::ChannelBinding::unsupported();
        against_their_client(word.as_bytes(), plain, end_point(), PLAIN);
        let unasked = sasl::ChannelBinding::unrequested();
        against_their_client(word.as_bytes(), unasked, Binding::Impossible, PLAIN);
        let bound = sasl::ChannelBinding::tls_server_end_point(hash.clone());
        against_their_client(
            word.as_bytes(),
            bound,
            Binding::EndPoint(hash.clone()),
            PLUS,
        );
    }
    against_their_client(
        b"\xff\xfe",
        sasl::ChannelBinding::unsupported(),
        end_point(),
        PLAIN,
    );
}

#[test]
fn pitfall_32_plus_is_offered_where_the_channel_can_be_bound() {
    assert_eq!(Server::offer(&end_point()), [PLUS, PLAIN]);
    assert_eq!(Server::offer(&Binding::Impossible), [PLAIN]);
    let both: [&[u8]; 2] = [PLUS.as_bytes(), PLAIN.as_bytes()];
    assert_eq!(Client::choose(&both, &end_point()), Some(PLUS));
    assert_eq!(Client::choose(&both, &Binding::Impossible), Some(PLAIN));
    assert_eq!(Client::choose(&[b"OAUTHBEARER"], &end_point()), None);
    assert!(run(PLUS, password(b"pencil"), end_point(), end_point()).is_ok());
}

#[test]
fn pitfall_32_an_offer_without_plus_that_we_did_not_make_is_a_downgrade() {
    // The man in the middle took PLUS away: a client that could bind says so with "y".
    let seen = run(PLAIN, password(b"pencil"), end_point(), end_point());
    assert_eq!(seen, Err(ScramError::Downgrade));
    assert!(run(PLAIN, password(b"pencil"), end_point(), Binding::Impossible).is_ok());
}

#[test]
fn pitfall_32_two_certificates_are_not_one_channel() {
    let other = Binding::EndPoint(EndPointHash::Sha256.of(b"another certificate"));
    let seen = run(PLUS, password(b"pencil"), other, end_point());
    assert_eq!(seen, Err(ScramError::Binding));
    let seen = run(PLUS, password(b"pencil"), end_point(), Binding::Impossible);
    assert_eq!(seen, Err(ScramError::Mechanism));
}

#[test]
fn pitfall_33_the_keys_that_a_proof_reveals_log_in_to_the_server() {
    let keys = run(
        PLAIN,
        password(b"pencil"),
        Binding::Impossible,
        Binding::Impossible,
    )
    .unwrap();
    assert!(secret().fits(&keys));
    let again = Credential::Keys(keys.clone());
    assert_eq!(run(PLUS, again, end_point(), end_point()), Ok(keys));
}

#[test]
fn pitfall_33_keys_of_an_old_password_no_longer_fit() {
    let old = KeyPair::from_password(b"pencil", b"saltsaltsaltsalt", 4096);
    let new = Secret::from_password(b"crayon", b"saltsaltsaltsalt", 4096);
    assert!(!new.fits(&old));
    let salted_anew = Secret::from_password(b"pencil", b"anothersaltanoth", 4096);
    assert!(!salted_anew.fits(&old));
    let seen = run(
        PLAIN,
        password(b"crayon"),
        Binding::Impossible,
        Binding::Impossible,
    );
    assert_eq!(seen, Err(ScramError::Proof));
}

#[test]
fn pitfall_33_secrets_do_not_show_themselves() {
    let keys = KeyPair::from_password(b"pencil", b"salt", 1);
    assert_eq!(format!("{keys:?}"), "KeyPair { .. }");
    assert_eq!(format!("{:?}", secret()), "Secret { iterations: 4096, .. }");
}

#[test]
fn a_line_of_pg_authid_is_read_as_it_was_written() {
    let line = secret().to_line();
    assert!(line.starts_with("SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$"));
    assert_eq!(Secret::from_str(&line), Ok(secret()));
    let bad = [
        "",
        "md5abc",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$4096:c2Fs$AA==:AA==",
    ];
    for line in bad {
        assert_eq!(Secret::from_str(line), Err(ScramError::Malformed), "{line}");
    }
    let endless = line.replace("$4096:", "$4000000000:");
    assert_eq!(Secret::from_str(&endless), Err(ScramError::Iterations));
}

#[test]
fn a_user_that_does_not_exist_is_asked_like_one_who_does() {
    let mock = || Secret::mock(b"nobody", b"key of this process");
    let mut exchange = Server::new(mock(), Binding::Impossible, NONCE).unwrap();
    let first = exchange
        .challenge(PLAIN.as_bytes(), b"n,,n=,r=abc")
        .unwrap();
    let mut again = Server::new(mock(), Binding::Impossible, NONCE).unwrap();
    assert_eq!(
        again.challenge(PLAIN.as_bytes(), b"n,,n=,r=abc").unwrap(),
        first
    );
    assert_ne!(mock(), Secret::mock(b"somebody", b"key of this process"));
    let mut client = Client::new(PLAIN, password(b""), Binding::Impossible, "abc").unwrap();
    let answer = client.answer(first.as_bytes()).unwrap();
    assert_eq!(
        exchange.check(answer.as_bytes()).unwrap_err(),
        ScramError::Proof
    );
}

#[test]
fn a_server_that_does_not_know_the_secret_is_not_believed() {
    let mut client = Client::new(PLAIN, password(b"x"), Binding::Impossible, "abc").unwrap();
    client.answer(b"r=abcdef,s=c2FsdA==,i=1").unwrap();
    let last = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(client.finish(last), Err(ScramError::ServerSignature));
    let mut early = Client::new(PLAIN, password(b"x"), Binding::Impossible, "abc").unwrap();
    assert_eq!(early.finish(last), Err(ScramError::Malformed));
}

#[test]
fn challenges_of_other_exchanges_and_endless_counts_are_refused() {
    let answer = |challenge: &[u8]| {
        Client::new(PLAIN, password(b"x"), Binding::Impossible, "abc")
            .unwrap()
            .answer(challenge)
    };
    assert_eq!(answer(b"r=xyzabc,s=c2FsdA==,i=1"), Err(ScramError::Nonce));
    assert_eq!(answer(b"r=abc,s=c2FsdA==,i=1"), Err(ScramError::Nonce));
    assert_eq!(
        answer(b"r=abcd,s=c2FsdA==,i=4000000000"),
        Err(ScramError::Iterations)
    );
    assert_eq!(
        answer(b"r=abcd,s=c2FsdA==,i=0"),
        Err(ScramError::Iterations)
    );
    assert_eq!(answer(b"e=other-error"), Err(ScramError::Malformed));
}

#[test]
fn an_exchange_goes_forward_only() {
    let mut server = Server::new(secret(), Binding::Impossible, NONCE).unwrap();
    assert!(server.check(b"c=biws,r=x,p=AAAA").is_err());
    let mut server = Server::new(secret(), Binding::Impossible, NONCE).unwrap();
    server.challenge(PLAIN.as_bytes(), b"n,,n=,r=abc").unwrap();
    assert!(server.challenge(PLAIN.as_bytes(), b"n,,n=,r=abc").is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(
        first in proptest::collection::vec(any::<u8>(), 0..80),
        last in "c=[a-zA-Z0-9=]{0,9},r=[a-z]{0,20},?(p=[a-zA-Z0-9=+/]{0,60})?",
        challenge in "r=abc[!-~]{0,9},s=[a-zA-Z=]{0,8},i=[0-9]{0,1}",
    ) {
        let mut server = Server::new(secret(), end_point(), NONCE).unwrap();
        if server.challenge(PLAIN.as_bytes(), &first).is_err() {
            server = Server::new(secret(), end_point(), NONCE).unwrap();
            server.challenge(PLAIN.as_bytes(), b"n,,n=,r=abc").unwrap();
        }
        prop_assert!(server.check(last.as_bytes()).is_err());
        let mut client = Client::new(PLAIN, password(b"x"), Binding::Impossible, "abc").unwrap();
        if client.answer(challenge.as_bytes()).is_ok() {
            prop_assert!(client.finish(last.as_bytes()).is_err());
        }
    }
}
