//! The data path without its launcher: settings from a file, news as lines on standard input.

use std::io::BufRead;

use flightmode_proxy::{config, Proxy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: serve CONFIG.json < NEWS")?;
    let config: config::Config = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut proxy = Proxy::start(&config)?;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?) {
            Ok(news) => proxy.topology(&news),
            Err(wrong) => eprintln!("no news: {wrong}"),
        }
    }
    proxy.stop();
    Ok(())
}
