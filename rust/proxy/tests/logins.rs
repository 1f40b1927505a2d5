//! Who is logging in when the proxy stops or hands over is told, and not cut off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flightmode_proxy::{config, Proxy};
use flightmode_wire::startup::{Opening, Startup, V3_0};

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy, and a connection to it that has said nothing yet but is known to it.
fn proxy_with_a_visitor() -> (Proxy, TcpStream) {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = probe.local_addr().expect("its own port").port();
    drop(probe);
    let text = format!(
        r#"{{"listen":[{{"host":"127.0.0.1","port":{port}}}],"nodes":{{}},
           "auth":{{"rules":[{{"type":"host","method":"trust"}}]}}}}"#
    );
    let config: config::Config = serde_json::from_str(&text).expect("settings");
    let proxy = Proxy::start(&config, Vec::new()).expect("it starts");
    let mut visitor = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    visitor.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut asks = Vec::new();
    Opening::Ssl.write(&mut asks);
    visitor.write_all(&asks).expect("it reads");
    let mut answer = [0];
    visitor.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"N");
    (proxy, visitor)
}

fn log_in(visitor: &mut TcpStream) {
    let parameters = vec![(&b"user"[..], &b"ada"[..]), (b"database", b"db")];
    let mut said = Vec::new();
    Opening::Startup(Startup {
        version: V3_0,
        parameters,
    })
    .write(&mut said);
    visitor.write_all(&said).expect("it reads");
}

#[test]
fn who_logs_in_while_the_proxy_stops_is_told_so() {
    let (proxy, mut visitor) = proxy_with_a_visitor();
    let stops = std::thread::spawn(move || proxy.stop_within(PATIENCE));
    // Nobody gets in by now, so it has begun.
    let address = visitor.peer_addr().expect("its address");
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < until, "it goes on listening");
        std::thread::yield_now();
    }
    log_in(&mut visitor);
    let mut told = Vec::new();
    visitor.read_to_end(&mut told).expect("it is not cut off");
    let told = String::from_utf8_lossy(&told);
    assert!(
        told.contains("57P03") && told.contains("shutting down"),
        "{told}"
    );
    stops.join().expect("it stops");
}

#[test]
fn a_proxy_is_not_given_away_while_somebody_logs_in() {
    let (proxy, visitor) = proxy_with_a_visitor();
    proxy.give_away();
    assert!(!proxy.is_given_away(), "somebody logs in");
    drop(visitor);
    let until = Instant::now() + PATIENCE;
    while !proxy.is_given_away() {
        assert!(Instant::now() < until, "nobody is here any more");
    }
}
