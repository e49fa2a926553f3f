//! The disks in the kubelet's `/stats/summary`. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::disk_use::{PodDisk, Used};
use crate::eviction::threshold::{Readings, Signal};
use crate::usage::text;

/// What somebody uses of the node's disk, beside what there is.
pub fn used(used: Used, readings: &Readings, at: Timestamp) -> Value {
    let mut told = file_system(readings, Signal::NodefsAvailable, Signal::NodefsInodesFree, at);
    told["usedBytes"] = used.bytes.into();
    told["inodesUsed"] = used.inodes.into();
    told
}

/// A pod's volumes.
pub fn volumes(disk: &PodDisk, readings: &Readings, at: Timestamp) -> Value {
    let told = disk.volumes.iter().map(|(name, volume)| {
        let mut told = used(*volume, readings, at);
        told["name"] = name.as_str().into();
        told
    });
    told.collect()
}

/// What the node has: memory, disks, processes.
pub fn add_node(node: &mut Value, readings: &Readings, at: Timestamp) {
    if let Some(memory) = readings.get(&Signal::MemoryAvailable) {
        node["memory"]["availableBytes"] = memory.available.into();
    }
    if let Some(processes) = readings.get(&Signal::PidAvailable) {
        let running = processes.capacity.saturating_sub(processes.available);
        node["rlimit"] = json!({"time": text(at), "maxpid": processes.capacity, "curproc": running});
    }
    node["fs"] = file_system(readings, Signal::NodefsAvailable, Signal::NodefsInodesFree, at);
    node["runtime"] =
        json!({"imageFs": file_system(readings, Signal::ImagefsAvailable, Signal::ImagefsInodesFree, at)});
}

fn file_system(readings: &Readings, bytes: Signal, inodes: Signal, at: Timestamp) -> Value {
    let mut told = json!({"time": text(at)});
    if let Some(bytes) = readings.get(&bytes) {
        told["availableBytes"] = bytes.available.into();
        told["capacityBytes"] = bytes.capacity.into();
        told["usedBytes"] = bytes.capacity.saturating_sub(bytes.available).into();
    }
    if let Some(inodes) = readings.get(&inodes) {
        told["inodesFree"] = inodes.available.into();
        told["inodes"] = inodes.capacity.into();
        told["inodesUsed"] = inodes.capacity.saturating_sub(inodes.available).into();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::threshold::Reading;

    #[test]
    fn what_a_pod_uses_stands_beside_what_the_disk_has() {
        let readings = [
            (Signal::NodefsAvailable, Reading { available: 40, capacity: 100 }),
            (Signal::MemoryAvailable, Reading { available: 7, capacity: 9 }),
        ]
        .into();
        let own = used(Used { bytes: 3, inodes: 2 }, &readings, Timestamp::UNIX_EPOCH);
        let time = "1970-01-01T00:00:00Z";
        assert_eq!(
            own,
            json!({"time": time, "availableBytes": 40, "capacityBytes": 100, "usedBytes": 3, "inodesUsed": 2})
        );
        let mut node = json!({"memory": {}});
        add_node(&mut node, &readings, Timestamp::UNIX_EPOCH);
        let fs = json!({"time": time, "availableBytes": 40, "capacityBytes": 100, "usedBytes": 60});
        let expected = json!({"memory": {"availableBytes": 7}, "fs": fs, "runtime": {"imageFs": {"time": time}}});
        assert_eq!(node, expected);
    }
}
