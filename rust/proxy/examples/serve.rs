//! The data path without its launcher: settings from a file, then lines of JSON on standard
//! input: news, `{"config": …}`, `{"command": …}`.  Ends with its input, or when it is asked to.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use flightmode_proxy::config::{Config, News};
use flightmode_proxy::events::Happened;
use flightmode_proxy::orders::Command;
use flightmode_proxy::Proxy;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Config { config: Box<Config> },
    Command(Command),
    News(News),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: serve CONFIG.json < NEWS")?;
    if path == "--version" {
        println!("Flightmode {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let proxy = Arc::new(Proxy::start(&read(&path)?, Vec::new())?);
    let (watched, from) = (Arc::clone(&proxy), path.clone());
    std::thread::spawn(move || watch(&watched, &from));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match serde_json::from_str(&line) {
            Ok(Line::News(news)) => proxy.topology(&news),
            Ok(Line::Command(command)) => println!("{:?}", proxy.command(&command)),
            Ok(Line::Config { config }) => {
                match proxy.reload(&config) {
                    // Each shard answers after it has taken them.
                    Ok(()) => println!("reloaded, for {} clients", proxy.stats().clients),
                    Err(wrong) => println!("not reloaded: {wrong}"),
                }
            }
            Err(wrong) if line.contains("\"config\"") => println!("not reloaded: {wrong}"),
            Err(wrong) => eprintln!("no news: {wrong}"),
        }
    }
    Ok(())
}

fn read(path: &str) -> Result<Config, Box<dyn std::error::Error>> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Tells what happens, and does what the console leaves to the launcher.
fn watch(proxy: &Proxy, path: &str) {
    loop {
        for happened in proxy.events(Duration::from_secs(60)) {
            println!("{}", serde_json::json!(happened));
            match happened {
                Happened::ReloadAsked { .. } => {
                    let done = read(path).and_then(|config| Ok(proxy.reload(&config)?));
                    if let Err(wrong) = done {
                        eprintln!("not reloaded: {wrong}");
                    }
                }
                Happened::StopAsked { .. } => std::process::exit(0),
                _ => (),
            }
        }
    }
}
