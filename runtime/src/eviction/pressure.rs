//! The node's pressure conditions, and which pods a node under pressure takes. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::EVICTED;
use super::threshold::Signal;
use crate::pod::observed::Refusal;
use crate::pod::{resources, spec};

/// A condition of the Node that says that something runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Memory.
    Memory,
    /// Disk, in bytes or files.
    Disk,
    /// Processes.
    Pid,
}

/// What the kubelet says of a condition: its type, and reason, message and event for both states, that of trouble first.
pub struct Words {
    /// The condition's type.
    pub condition: &'static str,
    /// The reasons.
    pub reasons: [&'static str; 2],
    /// The messages.
    pub messages: [&'static str; 2],
    /// The events' reasons.
    pub events: [&'static str; 2],
}

impl Pressure {
    /// All of them, in the order in which the Node's conditions stand.
    pub const ALL: [Pressure; 3] = [Pressure::Memory, Pressure::Disk, Pressure::Pid];

    /// What a signal's shortage is called.
    pub fn of(signal: Signal) -> Pressure {
        match signal {
            Signal::MemoryAvailable => Pressure::Memory,
            Signal::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    /// What is said of it.
    pub fn words(self) -> Words {
        match self {
            Pressure::Memory => Words {
                condition: "MemoryPressure",
                reasons: ["KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"],
                messages: ["kubelet has insufficient memory available", "kubelet has sufficient memory available"],
                events: ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"],
            },
            Pressure::Disk => Words {
                condition: "DiskPressure",
                reasons: ["KubeletHasDiskPressure", "KubeletHasNoDiskPressure"],
                messages: ["kubelet has disk pressure", "kubelet has no disk pressure"],
                events: ["NodeHasDiskPressure", "NodeHasNoDiskPressure"],
            },
            Pressure::Pid => Words {
                condition: "PIDPressure",
                reasons: ["KubeletHasInsufficientPID", "KubeletHasSufficientPID"],
                messages: ["kubelet has insufficient PID available", "kubelet has sufficient PID available"],
                events: ["NodeHasInsufficientPID", "NodeHasSufficientPID"],
            },
        }
    }
}

/// When each shortage was seen last.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeMap<Pressure, Timestamp>);

impl Seen {
    /// Takes note of the signals that are short now.
    pub fn note(&mut self, met: impl IntoIterator<Item = Signal>, now: Timestamp) {
        self.0.extend(met.into_iter().map(|signal| (Pressure::of(signal), now)));
    }

    /// What the node is under. A condition lasts for `transition` after its shortage, so that it does not flap.
    pub fn pressures(&self, transition: SignedDuration, now: Timestamp) -> Vec<Pressure> {
        let lasts = |seen: &Timestamp| *seen == now || now.duration_since(*seen) < transition;
        self.0.iter().filter(|(_, seen)| lasts(seen)).map(|(pressure, _)| *pressure).collect()
    }
}

/// Why a node under these pressures does not take a new pod (Kubernetes: the eviction manager's `Admit`).
pub fn refusal(pod: &Pod, pressures: &[Pressure]) -> Option<Refusal> {
    if pressures.is_empty() || spec::is_critical(pod) {
        return None;
    }
    if pressures == [Pressure::Memory] && (!resources::is_best_effort(pod) || tolerates_memory_pressure(pod)) {
        return None;
    }
    let names: Vec<&str> = pressures.iter().map(|pressure| pressure.words().condition).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Some(Refusal { reason: EVICTED.to_owned(), message })
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| {
        let is_any = toleration.operator.as_deref() == Some("Exists");
        let value = toleration.value.as_deref().unwrap_or_default();
        toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoSchedule")
            && match toleration.key.as_deref().unwrap_or_default() {
                "" => is_any,
                "node.kubernetes.io/memory-pressure" => is_any || value.is_empty(),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_pressure_lasts_for_the_transition_period() {
        let mut seen = Seen::default();
        let transition = SignedDuration::from_secs(30);
        assert_eq!(seen.pressures(transition, at(0)), []);
        seen.note([Signal::ImagefsInodesFree, Signal::NodefsAvailable], at(10));
        assert_eq!(seen.pressures(transition, at(39)), [Pressure::Disk]);
        assert_eq!(seen.pressures(transition, at(40)), []);
        assert_eq!(seen.pressures(SignedDuration::ZERO, at(10)), [Pressure::Disk]);
    }

    fn refused(spec: &Value, pressures: &[Pressure]) -> bool {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        refusal(&pod, pressures).is_some()
    }

    #[test]
    fn memory_pressure_keeps_out_only_those_that_were_promised_nothing() {
        let bare = json!({"containers": [{"name": "c"}]});
        let promised = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerant = json!({"containers": [{"name": "c"}], "tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]});
        let critical = json!({"containers": [{"name": "c"}], "priority": 2_000_001_000});
        assert!(!refused(&bare, &[]));
        assert!(refused(&bare, &[Pressure::Memory]));
        assert!(!refused(&promised, &[Pressure::Memory]) && !refused(&tolerant, &[Pressure::Memory]));
        assert!(refused(&promised, &[Pressure::Disk]) && refused(&promised, &[Pressure::Memory, Pressure::Disk]));
        assert!(!refused(&critical, &Pressure::ALL));
    }
}
