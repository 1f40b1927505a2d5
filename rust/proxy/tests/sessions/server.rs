//! A small server: it logs anybody in, and says every text that it runs back as a row.
//!
//! When it is told to, it spoils what it answers.  What the proxy sends it must always be whole
//! messages of the protocol; anything else is a fault that it counts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use flightmode_wire::client::{FromClient, Object};
use flightmode_wire::report::Report;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use flightmode_wire::startup::{CancelKey, Opening};
use flightmode_wire::{Rules, Stage, Talker};

use crate::dice::{spoil, Dice};

/// How a server behaves, and what it has met.
#[derive(Default)]
pub struct Sham {
    pub hostile: AtomicBool,
    pub seed: AtomicU64,
    /// Bytes of the proxy that are no message.
    pub faults: AtomicUsize,
    pub sessions: AtomicUsize,
}

impl Sham {
    /// Serve on a port of its own, for as long as the process lives.
    pub fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its own port").port();
        let sham = Arc::new(Self::default());
        let served = Arc::clone(&sham);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sham = Arc::clone(&served);
                std::thread::spawn(move || {
                    // A connection that breaks has ended; that is all that there is to it.
                    let _ = sham.serve(stream);
                });
            }
        });
        (sham, port)
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        loop {
            match Opening::read(&unread) {
                Ok(Some((Opening::Startup(_), length))) => {
                    unread.drain(..length);
                    break;
                }
                Ok(None) => more(&mut stream, &mut unread)?,
                _ => return Ok(()),
            }
        }
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) as u64;
        let mut dice = Dice::new(self.seed.load(Ordering::Relaxed) ^ (number << 20));
        let mut out = greeting(number);
        let mut session = Session::default();
        loop {
            if !out.is_empty() {
                let spoils = self.hostile.load(Ordering::Relaxed) && dice.roll(8) == 0;
                if spoils {
                    out = spoil(&out, &mut dice);
                }
                stream.write_all(&out)?;
                out.clear();
                // Some stop in the middle.
                if spoils && dice.roll(3) == 0 {
                    return Ok(());
                }
            }
            let rules = Rules::new(Talker::Client, Stage::Session);
            match rules.peek(&unread) {
                Ok(Some(frame)) if unread.len() >= frame.len => {
                    let bytes: Vec<u8> = unread.drain(..frame.len).collect();
                    match FromClient::read(bytes[0], &bytes[5..]) {
                        Ok(FromClient::Terminate) => return Ok(()),
                        Ok(message) => session.answer(&message, &mut out),
                        Err(_) => self.fault(),
                    }
                }
                Ok(_) => more(&mut stream, &mut unread)?,
                Err(_) => {
                    self.fault();
                    return Ok(());
                }
            }
        }
    }

    fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }
}

fn more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<()> {
    let mut space = [0; 16384];
    let length = stream.read(&mut space)?;
    if length == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    unread.extend_from_slice(&space[..length]);
    Ok(())
}

fn greeting(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    FromServer::Authentication(Authentication::Ok).write(&mut out);
    for (name, value) in [
        ("server_version", "15.0"),
        ("in_hot_standby", "off"),
        ("standard_conforming_strings", "on"),
        ("client_encoding", "UTF8"),
    ] {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        FromServer::ParameterStatus { name, value }.write(&mut out);
    }
    let key = CancelKey::new(number as u32, &[7; 4]).expect("four bytes are a key");
    FromServer::BackendKeyData(key).write(&mut out);
    FromServer::ReadyForQuery(TxStatus::Idle).write(&mut out);
    out
}

/// As much of a server's state as its answers need.
struct Session {
    status: TxStatus,
    skipping: bool,
    copying: bool,
    sql: Vec<u8>,
    statements: std::collections::HashMap<Vec<u8>, Vec<u8>>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            status: TxStatus::Idle,
            skipping: false,
            copying: false,
            sql: Vec::new(),
            statements: std::collections::HashMap::default(),
        }
    }
}

impl Session {
    fn answer(&mut self, message: &FromClient, out: &mut Vec<u8>) {
        if self.skipping && *message != FromClient::Sync {
            return;
        }
        match *message {
            FromClient::Query(sql) => {
                self.copying = sql.starts_with(b"copy");
                if self.copying {
                    FromServer::CopyIn(&[0, 0, 0]).write(out);
                    return;
                }
                if sql.starts_with(b"fail") {
                    self.fail(out);
                    self.skipping = false;
                } else {
                    if sql.starts_with(b"select") {
                        FromServer::RowDescription(&[0, 0]).write(out);
                    }
                    self.run(sql, out);
                }
                FromServer::ReadyForQuery(self.status).write(out);
            }
            FromClient::Parse(parse) if parse.sql.starts_with(b"fail") => self.fail(out),
            FromClient::Parse(parse) => {
                self.statements
                    .insert(parse.name.to_vec(), parse.sql.to_vec());
                FromServer::ParseComplete.write(out);
            }
            FromClient::Bind(bind) => match self.statements.get(bind.statement) {
                Some(sql) => {
                    self.sql.clone_from(sql);
                    FromServer::BindComplete.write(out);
                }
                None => self.fail(out),
            },
            FromClient::Describe(Object::Portal(_)) => FromServer::NoData.write(out),
            FromClient::Describe(Object::Statement(_)) => {
                FromServer::ParameterDescription(&[0, 0]).write(out);
                FromServer::NoData.write(out);
            }
            FromClient::Execute { .. } => {
                let sql = std::mem::take(&mut self.sql);
                self.run(&sql, out);
            }
            FromClient::Close(_) => FromServer::CloseComplete.write(out),
            FromClient::Sync => {
                self.skipping = false;
                if !self.copying {
                    FromServer::ReadyForQuery(self.status).write(out);
                }
            }
            FromClient::FunctionCall(_) => {
                FromServer::FunctionCallResponse(&[0xff; 4]).write(out);
                FromServer::ReadyForQuery(self.status).write(out);
            }
            FromClient::CopyDone | FromClient::CopyFail(_) if self.copying => {
                self.copying = false;
                FromServer::CommandComplete(b"COPY 1").write(out);
                FromServer::ReadyForQuery(self.status).write(out);
            }
            _ => (),
        }
    }

    fn run(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        let (tag, status) = match sql {
            b"begin" => (&b"BEGIN"[..], TxStatus::Open),
            b"commit" => (&b"COMMIT"[..], TxStatus::Idle),
            b"rollback" => (&b"ROLLBACK"[..], TxStatus::Idle),
            _ => (&b"SELECT 1"[..], self.status),
        };
        if tag == b"SELECT 1" {
            FromServer::DataRow(sql).write(out);
        }
        self.status = status;
        FromServer::CommandComplete(tag).write(out);
    }

    fn fail(&mut self, out: &mut Vec<u8>) {
        self.skipping = true;
        if self.status == TxStatus::Open {
            self.status = TxStatus::Failed;
        }
        Report::new("ERROR", "22012", "division by zero").write_error(out);
    }
}
