//! A computation that ends: counts the primes below its first argument (default 1,000,000) and exits 0.
//!
//! An argument that is no number ends it with exit code 1 and a message.

use std::process::ExitCode;

fn main() -> ExitCode {
    let limit = match std::env::args().nth(1).as_deref().map(str::parse::<usize>) {
        None => 1_000_000,
        Some(Ok(limit)) => limit,
        Some(Err(error)) => {
            eprintln!("batch: the limit must be a number: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("there are {} primes below {limit}", primes_below(limit));
    ExitCode::SUCCESS
}

/// The sieve of Eratosthenes.
fn primes_below(limit: usize) -> usize {
    let mut composite = vec![false; limit.max(2)];
    for candidate in (2..).take_while(|candidate| candidate * candidate < limit) {
        if !composite[candidate] {
            for multiple in (candidate * candidate..limit).step_by(candidate) {
                composite[multiple] = true;
            }
        }
    }
    (2..limit).filter(|&number| !composite[number]).count()
}
