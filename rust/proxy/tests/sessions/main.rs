//! Whole sessions through the proxy, spoiled on either side.
//!
//! Three things hold whatever anybody says: nothing panics, whoever talks sense is answered in
//! time and with its own rows, and servers hear nothing but the protocol.
//!
//! `FLIGHTMODE_FUZZ_SECONDS` makes it run longer; it says its seed when it fails.

mod dice;
mod server;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flightmode_proxy::{config, Proxy};
use flightmode_wire::client::{Bind, FromClient, FunctionCall, Object, Parse};
use flightmode_wire::server::FromServer;
use flightmode_wire::startup::{CancelKey, Opening, Startup, V3_0};
use flightmode_wire::{Rules, Stage, Talker};

use dice::{spoil, Dice};
use server::Sham;

static PANICS: AtomicUsize = AtomicUsize::new(0);
const VISITORS: u64 = 4;
const VISITS: u64 = 25;
const PATIENCE: Duration = Duration::from_secs(10);

fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    probe.local_addr().expect("its own port").port()
}

struct Bench {
    proxy: Proxy,
    port: u16,
    shams: Vec<std::sync::Arc<Sham>>,
    term: u64,
}

impl Bench {
    fn new() -> Self {
        let (ams, at_ams) = Sham::start();
        let (fra, at_fra) = Sham::start();
        let port = free_port();
        let text = format!(
            r#"{{"listen":[{{"host":"127.0.0.1","port":{port}}}],
               "nodes":{{"ams":{{"host":"127.0.0.1","port":{at_ams}}},
                         "fra":{{"host":"127.0.0.1","port":{at_fra}}}}},
               "databases":{{"*":{{"pool_size":4}}}},
               "auth":{{"rules":[{{"type":"host","database":"all","user":"all",
                                   "address":"127.0.0.1/32","method":"trust"}}]}},
               "limits":{{"preauth_s":2}},
               "times":{{"hold_for_s":1,"query_wait_s":0,"server_connect_s":0.2}}}}"#
        );
        let config: config::Config = serde_json::from_str(&text).expect("a config");
        let proxy = Proxy::start(&config, Vec::new()).expect("it starts");
        let mut stage = Self {
            proxy,
            port,
            shams: vec![ams, fra],
            term: 0,
        };
        stage.elect();
        stage
    }

    /// The other node is the primary.
    fn elect(&mut self) {
        self.term += 1;
        let (primary, other) = if self.term % 2 == 1 {
            ("ams", "fra")
        } else {
            ("fra", "ams")
        };
        let news = format!(
            r#"{{"term":{0},"revision":{0},"primary":"{primary}","fenced":false,
                "standbys":[{{"node":"{other}","lag_bytes":0,"lag_s":0.0,"replayed":"0/0"}}]}}"#,
            self.term
        );
        self.proxy
            .topology(&serde_json::from_str(&news).expect("news"));
    }

    fn hostile(&self, seed: Option<u64>) {
        for sham in &self.shams {
            sham.hostile.store(seed.is_some(), Ordering::Relaxed);
            sham.seed.store(seed.unwrap_or(0), Ordering::Relaxed);
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream
    }
}

fn opening() -> Vec<u8> {
    let parameters = vec![(&b"user"[..], &b"ada"[..]), (b"database", b"db")];
    let mut out = Vec::new();
    Opening::Startup(Startup {
        version: V3_0,
        parameters,
    })
    .write(&mut out);
    out
}

/// Something that a client may say, which names itself in every text.
fn talk(dice: &mut Dice, token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let text = format!("select '{token}'");
    let setting = format!("set application_name = '{token}'");
    let long = vec![b'r'; 70_000];
    for _ in 0..=dice.roll(6) {
        let query = |sql: &str, out: &mut Vec<u8>| FromClient::Query(sql.as_bytes()).write(out);
        match dice.roll(9) {
            0 => query(&text, &mut out),
            1 => {
                query("begin", &mut out);
                query(&text, &mut out);
                query(["commit", "rollback", "fail"][dice.roll(3)], &mut out);
            }
            2 => query(&setting, &mut out),
            3 => {
                query("copy t from stdin", &mut out);
                FromClient::CopyData(if dice.roll(4) == 0 { &long } else { b"1\n" })
                    .write(&mut out);
                FromClient::CopyDone.write(&mut out);
            }
            4 => {
                let (oid, values) = (1, &[0; 6][..]);
                FromClient::FunctionCall(FunctionCall { oid, values }).write(&mut out);
            }
            5 => query("deallocate s", &mut out),
            _ => group(dice, &text, &mut out),
        }
    }
    out
}

fn group(dice: &mut Dice, text: &str, out: &mut Vec<u8>) {
    let name: &[u8] = [&b""[..], b"s", b"fm_0_0"][dice.roll(3)];
    let sql = if dice.roll(5) == 0 { "fail" } else { text };
    if dice.roll(4) > 0 {
        FromClient::Parse(Parse {
            name,
            sql: sql.as_bytes(),
            types: &[],
        })
        .write(out);
    }
    FromClient::Bind(Bind {
        portal: b"",
        statement: name,
        values: &[0; 6],
    })
    .write(out);
    FromClient::Describe(Object::Statement(name)).write(out);
    let max_rows = 0;
    FromClient::Execute {
        portal: b"",
        max_rows,
    }
    .write(out);
    if dice.roll(4) == 0 {
        FromClient::Close(Object::Statement(name)).write(out);
    }
    match dice.roll(4) {
        0 => FromClient::Flush.write(out),
        _ => FromClient::Sync.write(out),
    }
}

/// A client that says something, spoiled or not, listens for a moment and goes.
fn visit(stage: &Bench, dice: &mut Dice, token: &str) {
    let mut stream = stage.connect();
    let mut said = opening();
    if dice.roll(16) == 0 {
        said.clear();
        Opening::Cancel(CancelKey::new(1, &[0; 4]).expect("a key")).write(&mut said);
    }
    if dice.roll(6) == 0 {
        said = spoil(&said, dice);
    }
    let mut words = talk(dice, token);
    if dice.roll(3) > 0 {
        words = spoil(&words, dice);
    }
    said.extend(words);
    // Whoever is turned away is closed before it has said everything.
    if stream.write_all(&said).is_err() {
        return;
    }
    if dice.roll(2) == 0 {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let wait = Duration::from_millis(1 + dice.roll(4) as u64);
    stream.set_read_timeout(Some(wait)).expect("a timeout");
    let mut space = [0; 4096];
    while matches!(stream.read(&mut space), Ok(1..)) {}
}

/// The rows of a client that talks sense; an error of its servers' ends the asking.
fn ask(stage: &Bench, token: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut stream = stage.connect();
    let mut said = opening();
    let sql = format!("select '{token}'");
    FromClient::Query(sql.as_bytes()).write(&mut said);
    FromClient::Parse(Parse {
        name: b"mine",
        sql: sql.as_bytes(),
        types: &[],
    })
    .write(&mut said);
    FromClient::Bind(Bind {
        portal: b"",
        statement: b"mine",
        values: &[0; 6],
    })
    .write(&mut said);
    FromClient::Execute {
        portal: b"",
        max_rows: 0,
    }
    .write(&mut said);
    FromClient::Sync.write(&mut said);
    stream.write_all(&said).map_err(|wrong| wrong.to_string())?;
    let (mut unread, mut rows, mut ready) = (Vec::new(), Vec::new(), 0);
    let mut rules = Rules::new(Talker::Server, Stage::Login);
    while ready < 3 {
        let mut space = [0; 4096];
        let length = stream.read(&mut space).map_err(|wrong| wrong.to_string())?;
        if length == 0 {
            return Err("closed".to_owned());
        }
        unread.extend_from_slice(&space[..length]);
        while let Some(frame) = rules.peek(&unread).map_err(|wrong| wrong.to_string())? {
            if unread.len() < frame.len {
                break;
            }
            let bytes: Vec<u8> = unread.drain(..frame.len).collect();
            match FromServer::read(bytes[0], &bytes[5..]) {
                Ok(FromServer::DataRow(row)) => rows.push(row.to_vec()),
                Ok(FromServer::Error(report)) => return Err(format!("{report:?}")),
                Ok(FromServer::ReadyForQuery(_)) => {
                    rules = Rules::new(Talker::Server, Stage::Session);
                    ready += 1;
                }
                Ok(_) => (),
                Err(wrong) => return Err(wrong.to_string()),
            }
        }
    }
    Ok(rows)
}

/// Once its servers behave, a client that talks sense gets its own rows, and soon.
fn is_well(stage: &Bench, seed: u64) {
    stage.hostile(None);
    let until = Instant::now() + PATIENCE;
    let token = format!("well-{seed}");
    let expected = format!("select '{token}'").into_bytes();
    loop {
        match ask(stage, &token) {
            // A server that was spoiled before may give one last answer of its own.
            Ok(rows) if rows == [expected.clone(), expected.clone()] => return,
            other => assert!(Instant::now() < until, "seed {seed}: {other:?}"),
        }
    }
}

fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let text = line.and_then(|line| line.split_whitespace().nth(1));
    text.and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn pitfall_38_spoiled_sessions_never_panic_hang_or_reach_a_server() {
    let seconds: f64 = std::env::var("FLIGHTMODE_FUZZ_SECONDS").map_or(4.0, |text| {
        text.parse()
            .expect("FLIGHTMODE_FUZZ_SECONDS is a number of seconds")
    });
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let mut stage = Bench::new();
    is_well(&stage, 0);
    let (began, at_first_kb) = (Instant::now(), resident_kb());
    let first: u64 = std::env::var("FLIGHTMODE_FUZZ_SEED")
        .map_or(1, |text| text.parse().expect("FLIGHTMODE_FUZZ_SEED"));
    let mut seed = first;
    while began.elapsed().as_secs_f64() < seconds {
        // Of three rounds one spoils what clients say alone: then servers must hear sense.
        stage.hostile((seed % 3 != 0).then_some(seed));
        std::thread::scope(|scope| {
            for visitor in 0..VISITORS {
                let stage = &stage;
                scope.spawn(move || {
                    for number in 0..VISITS {
                        let mut dice = Dice::new(seed * 1000 + visitor * 100 + number);
                        visit(stage, &mut dice, &format!("t{seed}-{visitor}-{number}"));
                    }
                });
            }
        });
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "seed {seed}");
        if seed % 5 == 0 {
            stage.elect();
        }
        is_well(&stage, seed);
        seed += 1;
    }
    let faults: usize = stage
        .shams
        .iter()
        .map(|sham| sham.faults.load(Ordering::Relaxed))
        .sum();
    let rounds = seed - first;
    eprintln!("{} sessions, {rounds} rounds", rounds * VISITORS * VISITS);
    assert!(rounds > 0);
    assert_eq!(faults, 0, "servers heard what is no message");
    let grown_kb = resident_kb().saturating_sub(at_first_kb);
    assert!(grown_kb < 150_000, "it grew by {grown_kb} kB");
}
