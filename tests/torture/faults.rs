//! What happens to the servers.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use shoal_tests::Cluster;

use crate::relay::Ways;

/// Freezes, kills and cuts off servers for `duration`, one or two at a time, and leaves all of them running and within reach; answers
/// how often.
pub fn inflict(cluster: &Cluster, ways: &Ways, duration: Duration, seed: u64) -> anyhow::Result<usize> {
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
        match random.random_range(0..4) {
            0 => {
                signal(cluster, &victims, Signal::KILL)?;
                pause(&mut random, 100, 3_000);
                victims.iter().try_for_each(|name| cluster.restart_member(name))?;
            }
            1 => {
                signal(cluster, &victims, Signal::STOP)?;
                pause(&mut random, 100, 3_000);
                signal(cluster, &victims, Signal::CONT)?;
            }
            2 => {
                // From all others, in one direction or both.
                let (speaks, hears) = [(false, true), (true, false), (false, false)][random.random_range(0..3)];
                for other in (0..names.len()).filter(|other| *other != first) {
                    if !speaks {
                        ways.cut(first, other);
                    }
                    if !hears {
                        ways.cut(other, first);
                    }
                }
                // Longer than a connection may be silent.
                pause(&mut random, 300, 6_000);
                ways.heal();
            }
            _ => {
                // Two that do not reach each other, though a third reaches both.
                let other = (first + 1) % names.len();
                ways.cut(first, other);
                ways.cut(other, first);
                pause(&mut random, 300, 6_000);
                ways.heal();
            }
        }
        faults += 1;
        pause(&mut random, 300, 2_500);
    }
    Ok(faults)
}

fn signal(cluster: &Cluster, names: &[&String], signal: Signal) -> anyhow::Result<()> {
    names.iter().try_for_each(|name| cluster.signal(name, signal))
}

fn pause(random: &mut StdRng, least: u64, most: u64) {
    std::thread::sleep(Duration::from_millis(random.random_range(least..most)));
}
