//! Misbehaves on purpose, as its first argument says, so that one can watch the limits hold while the neighbours answer.
//!
//! `spin` burns CPU for ever; `eat` allocates until its memory limit ends it; `trap` reaches an unreachable instruction;
//! `exit N` ends with that success or failure; `shout` prints as fast as it can; `sleep` does nothing for ever.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("spin") => spin(),
        Some("eat") => eat(),
        Some("trap") => panic!("asked to trap"),
        Some("exit") => std::process::exit(arguments.get(1).and_then(|code| code.parse().ok()).unwrap_or(1)),
        Some("shout") => shout(),
        Some("sleep") => sleep(),
        other => {
            eprintln!("unruly: say spin, eat, trap, exit N, shout or sleep, not {other:?}");
            std::process::exit(1);
        }
    }
}

fn spin() {
    println!("spinning");
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn eat() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 1024 * 1024]);
        println!("ate {} MiB", eaten.len());
    }
}

fn shout() {
    for count in 0u64.. {
        println!("{count} is a number, and so is the next one");
    }
}

fn sleep() {
    println!("sleeping");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3_600));
    }
}
