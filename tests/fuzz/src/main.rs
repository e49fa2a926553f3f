//! Throws changed bytes at everything that reads a disk or another process. See `run`.
//!
//! Each target begins with whole inputs and the corpus, changes them at random, and goes on from some of what it made, so that changes
//! add up; there is no coverage to guide it. An input that makes a target panic is written into the corpus, from where every later run
//! replays it.

mod images;
mod streams;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shoal_store::targets::{self, Target};

/// How large an input gets, in bytes.
const LARGEST: usize = 8 << 10;

/// How many inputs are kept to go on from.
const POOL: usize = 256;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|word| word.parse::<u64>().ok());
    let (seconds, seed) = (number(0).unwrap_or(20), number(1).unwrap_or_else(rand::random));
    if arguments.first().is_some_and(|word| word == "--write-seeds") {
        return write_seeds();
    }
    println!("{seconds} s, seed {seed}");
    // A panic is a finding, and is told below.
    std::panic::set_hook(Box::new(|_| {}));
    let share = Duration::from_secs(seconds) / u32::try_from(all().count()).unwrap_or(1);
    let (mut passed, mut failed) = (0, 0);
    for target in all() {
        match fuzz(target, share, seed) {
            Ok(count) => {
                println!("{}: {count} inputs", target.name);
                passed += 1;
            }
            Err(path) => {
                eprintln!("{}: it panicked with {}", target.name, path.display());
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every target.
fn all() -> impl Iterator<Item = &'static Target> {
    targets::ALL.iter().chain(streams::ALL).chain(images::ALL)
}

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The inputs of the corpus, by name.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(corpus(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Writes what each target begins with, so that later versions read what this one wrote.
fn write_seeds() -> ExitCode {
    for target in all() {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            let path = corpus(target).join(format!("seed-{number}"));
            let written = std::fs::create_dir_all(corpus(target)).and_then(|()| std::fs::write(&path, seed));
            if let Err(error) = written {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn fuzz(target: &Target, duration: Duration, seed: u64) -> Result<u64, PathBuf> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pool = (target.seeds)();
    pool.extend(kept(target));
    for input in &pool {
        attempt(target, input)?;
    }
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < duration {
        for _ in 0..64 {
            let mut input = pool[random.random_range(0..pool.len())].clone();
            for _ in 0..random.random_range(1..5) {
                let other = random.random_range(0..pool.len());
                change(&mut input, &pool[other], &mut random);
            }
            input.truncate(LARGEST);
            attempt(target, &input)?;
            count += 1;
            if random.random_ratio(1, 50) {
                let place = random.random_range(0..POOL);
                if pool.len() < POOL {
                    pool.push(input);
                } else if place > 16 {
                    pool[place] = input;
                }
            }
        }
    }
    Ok(count)
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), PathBuf> {
    if std::panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return Ok(());
    }
    let sum = input.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let path = corpus(target).join(format!("panic-{sum:016x}"));
    // When it cannot be kept it is told at least.
    let written = std::fs::create_dir_all(corpus(target)).and_then(|()| std::fs::File::create(&path)?.write_all(input));
    if let Err(error) = written {
        eprintln!("{error}: {input:?}");
    }
    Err(path)
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let place = random.random_range(0..=input.len());
    match random.random_range(0..7) {
        0 if place < input.len() => input[place] ^= 1 << random.random_range(0..8),
        1 if place < input.len() => input[place] = random.random(),
        2 => input.truncate(place),
        3 => input.insert(place, random.random()),
        4 => {
            let start = random.random_range(0..=other.len());
            let end = random.random_range(start..=other.len());
            input.splice(place..place, other[start..end].iter().copied());
        }
        5 => {
            let end = random.random_range(place..=input.len());
            input.drain(place..end);
        }
        // Numbers that lengths and counts do not like.
        _ => {
            let number: &[u8] =
                [&[0xff; 9][..], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0; 8], &[0x7f]][random.random_range(0..4)];
            input.splice(place..(place + number.len()).min(input.len()), number.iter().copied());
        }
    }
}
