//! Keeps a journal in a file that outlives it: adds its arguments as a line to JOURNAL_FILE (default /data/journal) and prints all
//! that is in it.
//!
//! With STAY=1 it then waits until it is stopped; otherwise it ends. Where the file cannot be written it says why, and ends with 1.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let path = std::env::var("JOURNAL_FILE").unwrap_or_else(|_| "/data/journal".to_string());
    let line = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    match add(&path, &line).and_then(|()| std::fs::read_to_string(&path)) {
        Ok(text) => print!("{text}"),
        Err(error) => {
            eprintln!("journal: {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    while std::env::var("STAY").is_ok_and(|stay| stay == "1") {
        std::thread::sleep(Duration::from_secs(1));
    }
    ExitCode::SUCCESS
}

fn add(path: &str, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")
}
