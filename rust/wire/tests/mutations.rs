//! A bounded fuzz driver that runs wherever the tests run: real conversations, spoiled.
//!
//! It says its seed when it fails; `FLIGHTMODE_FUZZ_ROUNDS` or `_SECONDS` makes it run longer.

use flightmode_wire::client::{Bind, FromClient, Object, Parse};
use flightmode_wire::report::Report;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use flightmode_wire::startup::{CancelKey, Opening, Startup, V3_2};
use flightmode_wire::{Rules, Scan, Scanner, Stage, Talker};

/// xorshift64*: good enough to spoil bytes, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides.max(1)
    }
}

fn client_talk() -> Vec<u8> {
    let mut out = Vec::new();
    for message in [
        FromClient::Query(b"begin; select 1"),
        FromClient::Parse(Parse {
            name: b"s1",
            sql: b"select $1",
            types: &[0, 0, 0, 23],
        }),
        FromClient::Bind(Bind {
            portal: b"",
            statement: b"s1",
            values: &[0, 0, 0, 1, 0, 0, 0, 1, 55, 0, 0],
        }),
        FromClient::Describe(Object::Portal(b"")),
        FromClient::Execute {
            portal: b"",
            max_rows: 0,
        },
        FromClient::Flush,
        FromClient::Close(Object::Statement(b"s1")),
        FromClient::Sync,
        FromClient::CopyData(&[9; 90]),
        FromClient::CopyDone,
        FromClient::Terminate,
    ] {
        message.write(&mut out);
    }
    out
}

fn server_talk() -> Vec<u8> {
    let mut out = Vec::new();
    for message in [
        FromServer::ParseComplete,
        FromServer::RowDescription(&[0, 0]),
        FromServer::DataRow(&[0, 1, 0, 0, 0, 1, 55]),
        FromServer::CommandComplete(b"SELECT 1"),
        FromServer::Notice(Report::new("NOTICE", "00000", "careful")),
        FromServer::ParameterStatus {
            name: b"TimeZone",
            value: b"UTC",
        },
        FromServer::Notification {
            pid: 1,
            channel: b"c",
            payload: b"p",
        },
        FromServer::Error(Report::new("ERROR", "40001", "again")),
        FromServer::ReadyForQuery(TxStatus::Idle),
    ] {
        message.write(&mut out);
    }
    out
}

fn login_talk() -> Vec<u8> {
    let mut out = Vec::new();
    for message in [
        FromServer::NegotiateProtocolVersion {
            version: V3_2,
            unknown: vec![b"_pq_.a"],
        },
        FromServer::Authentication(Authentication::Sasl(vec![b"SCRAM-SHA-256"])),
        FromServer::Authentication(Authentication::SaslContinue(b"r=a,s=b,i=1")),
        FromServer::Authentication(Authentication::Ok),
        FromServer::ParameterStatus {
            name: b"server_version",
            value: b"15.20",
        },
    ] {
        message.write(&mut out);
    }
    FromServer::BackendKeyData(CancelKey::new(1, &[2; 32]).unwrap()).write(&mut out);
    out
}

fn opening_talk() -> Vec<u8> {
    let mut out = Vec::new();
    Opening::Gss.write(&mut out);
    Opening::Cancel(CancelKey::new(1, &[2; 4]).unwrap()).write(&mut out);
    let parameters = vec![(&b"user"[..], &b"ada"[..]), (b"options", b"-c a=b")];
    Opening::Startup(Startup {
        version: V3_2,
        parameters,
    })
    .write(&mut out);
    out
}

fn spoil(talk: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = talk.to_vec();
    for _ in 0..=dice.roll(6) {
        let at = dice.roll(bytes.len());
        match dice.roll(5) {
            0 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
            1 => bytes[at] ^= 1 << dice.roll(8),
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, [0, 1, 0x7f, 0xff][dice.roll(4)]),
            _ => {
                let end = (at + dice.roll(12)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

/// Walks a stream to its end or first error, and reads every whole message.
fn walk(bytes: &[u8], rules: Rules) -> usize {
    let mut scanner = Scanner::new(rules, 48);
    let (mut rest, mut read) = (bytes, 0);
    while let Ok(scan) = scanner.scan(rest) {
        let step = match scan {
            Scan::Need(_) => break,
            Scan::Whole(frame) => {
                let body = frame.body(rest).unwrap();
                let is_message = match rules.talker {
                    Talker::Client => FromClient::read(frame.tag, body).is_ok(),
                    Talker::Server => FromServer::read(frame.tag, body).is_ok(),
                };
                read += usize::from(is_message);
                frame.len
            }
            Scan::Part { ready, .. } => ready,
        };
        assert!(step > 0 && step <= rest.len());
        rest = &rest[step..];
    }
    read
}

fn walk_openings(mut rest: &[u8]) {
    while let Ok(Some((opening, length))) = Opening::read(rest) {
        if let Opening::Startup(startup) = opening {
            let _ = (startup.options(), startup.negotiate());
        }
        rest = &rest[length..];
    }
}

#[test]
fn unspoiled_conversations_are_read_to_their_end() {
    let client = Rules::new(Talker::Client, Stage::Session);
    assert_eq!(
        walk(&client_talk(), client),
        10,
        "one of eleven comes in parts"
    );
    assert_eq!(
        walk(&server_talk(), Rules::new(Talker::Server, Stage::Session)),
        9
    );
    assert_eq!(
        walk(&login_talk(), Rules::new(Talker::Server, Stage::Login)),
        6
    );
}

#[test]
fn spoiled_conversations_never_panic_or_stand_still() {
    let rounds: u64 = std::env::var("FLIGHTMODE_FUZZ_ROUNDS").map_or(200_000, |text| {
        text.parse().expect("FLIGHTMODE_FUZZ_ROUNDS is a number")
    });
    let seconds: f64 = std::env::var("FLIGHTMODE_FUZZ_SECONDS").map_or(0.0, |text| {
        text.parse()
            .expect("FLIGHTMODE_FUZZ_SECONDS is a number of seconds")
    });
    let began = std::time::Instant::now();
    let talks = [
        (client_talk(), Rules::new(Talker::Client, Stage::Session)),
        (server_talk(), Rules::new(Talker::Server, Stage::Session)),
        (login_talk(), Rules::new(Talker::Server, Stage::Login)),
    ];
    let openings = opening_talk();
    let mut seed = 0;
    while seed < rounds || began.elapsed().as_secs_f64() < seconds {
        seed += 1;
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (talk, rules) = &talks[dice.roll(talks.len())];
        let spoiled = spoil(talk, &mut dice);
        let opening = spoil(&openings, &mut dice);
        let outcome = std::panic::catch_unwind(|| {
            walk(&spoiled, *rules);
            walk_openings(&opening);
        });
        assert!(outcome.is_ok(), "seed {seed}: {spoiled:?} {opening:?}");
    }
    eprintln!("{seed} spoiled conversations");
}
