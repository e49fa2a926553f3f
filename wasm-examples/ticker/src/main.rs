//! A process that runs until it is stopped: prints a line a period, counting, and reads its settings anew each time.
//!
//! PERIOD_MS is the time between two lines (default 1000). A file named by MESSAGE_FILE, usually from a ConfigMap, is what
//! it prints; without one, it prints the value of MESSAGE.

use std::time::Duration;

fn main() {
    let period = std::env::var("PERIOD_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let arguments: Vec<String> = std::env::args().collect();
    println!("ticker started as {arguments:?}");
    for count in 1u64.. {
        println!("{count} {}", message());
        std::thread::sleep(Duration::from_millis(period));
    }
}

fn message() -> String {
    let from_file = std::env::var("MESSAGE_FILE").ok().and_then(|path| match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim_end().to_string()),
        Err(error) => {
            eprintln!("ticker: {path}: {error}");
            None
        }
    });
    from_file.or_else(|| std::env::var("MESSAGE").ok()).unwrap_or_else(|| "tick".to_string())
}
