//! What happens to the servers.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use shoal_tests::Cluster;

/// Freezes and kills servers for `duration`, one or two at a time, and leaves all of them running; answers how often.
pub fn inflict(cluster: &Cluster, duration: Duration, seed: u64) -> anyhow::Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let names = cluster.names("server")?;
    let end = Instant::now() + duration;
    let mut faults = 0;
    pause(&mut random, 500, 1_500);
    while Instant::now() < end {
        let first = random.random_range(0..names.len());
        // Two of three: nothing can be acknowledged meanwhile, and nothing may be lost by it.
        let count = if random.random_ratio(1, 4) { 2 } else { 1 };
        let victims: Vec<&String> = names.iter().cycle().skip(first).take(count).collect();
        let kill = random.random_bool(0.5);
        for name in &victims {
            cluster.signal(name, if kill { Signal::KILL } else { Signal::STOP })?;
        }
        pause(&mut random, 100, 3_000);
        for name in &victims {
            if kill {
                cluster.restart_member(name)?;
            } else {
                cluster.signal(name, Signal::CONT)?;
            }
        }
        faults += 1;
        pause(&mut random, 300, 2_500);
    }
    Ok(faults)
}

fn pause(random: &mut StdRng, least: u64, most: u64) {
    std::thread::sleep(Duration::from_millis(random.random_range(least..most)));
}
