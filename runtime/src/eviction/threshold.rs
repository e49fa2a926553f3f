//! The levels below which the node defends itself: `memory.available<100Mi,nodefs.available<10%`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shoal_api::quantity::Quantity;

/// Something of the node that can run out, by Kubernetes' name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory. First: it is what a node dies of soonest, and Kubernetes defends it before all else.
    MemoryAvailable,
    /// Bytes of the file system with the pods' volumes and logs.
    NodefsAvailable,
    /// Files that it can still take.
    NodefsInodesFree,
    /// Bytes of the file system with the images.
    ImagefsAvailable,
    /// Files that it can still take.
    ImagefsInodesFree,
    /// Processes and threads that the machine can still start.
    PidAvailable,
}

/// All of them with their names.
const SIGNALS: [(Signal, &str); 6] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::NodefsAvailable, "nodefs.available"),
    (Signal::NodefsInodesFree, "nodefs.inodesFree"),
    (Signal::ImagefsAvailable, "imagefs.available"),
    (Signal::ImagefsInodesFree, "imagefs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

impl Signal {
    /// Kubernetes' name.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

    /// The signal of that name.
    ///
    /// # Errors
    /// [`ThresholdError::Signal`].
    pub fn named(name: &str) -> Result<Signal, ThresholdError> {
        let signal = SIGNALS.iter().find(|(_, known)| *known == name);
        signal.map(|(signal, _)| *signal).ok_or_else(|| ThresholdError::Signal(name.to_owned()))
    }

    /// The resource that a pod gives back when it goes.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Now.
    pub available: u64,
    /// In all.
    pub capacity: u64,
}

/// What was read; a signal that could not be read is absent and counts as well.
pub type Readings = BTreeMap<Signal, Reading>;

/// Below this there is too little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    /// So much.
    Quantity(Quantity),
    /// So many hundredths of the capacity.
    Percent(f64),
}

impl Level {
    /// In units of a signal with this capacity.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Level::Quantity(quantity) => u64::try_from(quantity.units()).unwrap_or(0),
            Level::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Quantity(quantity) => write!(formatter, "{quantity}"),
            Level::Percent(percent) => write!(formatter, "{percent}%"),
        }
    }
}

/// Levels by signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thresholds(BTreeMap<Signal, Level>);

/// A text that is no list of thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// It is not of the form `SIGNAL<LEVEL`.
    #[error("{0:?} is not of the form SIGNAL<QUANTITY or SIGNAL<PERCENT%")]
    Form(String),
    /// There is no such signal.
    #[error(
        "{0:?} is no eviction signal; there are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available"
    )]
    Signal(String),
    /// The level is neither a quantity nor a percentage from 0 to 100.
    #[error("{0:?} is neither a quantity such as 100Mi nor a percentage from 0% to 100%")]
    Level(String),
}

impl Default for Thresholds {
    /// Kubernetes' own.
    fn default() -> Thresholds {
        Thresholds(
            [
                (Signal::MemoryAvailable, Level::Quantity(Quantity::from_bytes(100 << 20))),
                (Signal::NodefsAvailable, Level::Percent(10.0)),
                (Signal::NodefsInodesFree, Level::Percent(5.0)),
                (Signal::ImagefsAvailable, Level::Percent(15.0)),
                (Signal::ImagefsInodesFree, Level::Percent(5.0)),
            ]
            .into(),
        )
    }
}

impl Thresholds {
    /// The level of a signal, if it has one.
    pub fn level(&self, signal: Signal) -> Option<Level> {
        self.0.get(&signal).copied()
    }

    /// No threshold at all.
    pub fn none() -> Thresholds {
        Thresholds(BTreeMap::new())
    }

    /// The signals that have one, those first that are the most urgent.
    pub fn signals(&self) -> impl Iterator<Item = Signal> {
        self.0.keys().copied()
    }
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    /// An empty text is no threshold at all.
    fn from_str(text: &str) -> Result<Thresholds, ThresholdError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(threshold).collect::<Result<_, _>>().map(Thresholds)
    }
}

fn threshold(text: &str) -> Result<(Signal, Level), ThresholdError> {
    let (name, value) = text.split_once('<').ok_or_else(|| ThresholdError::Form(text.to_owned()))?;
    Ok((Signal::named(name.trim())?, level(value.trim())?))
}

/// Reads a level.
///
/// # Errors
/// [`ThresholdError::Level`].
pub(super) fn level(text: &str) -> Result<Level, ThresholdError> {
    let wrong = || ThresholdError::Level(text.to_owned());
    let Some(percent) = text.strip_suffix('%') else {
        let quantity: Quantity = text.parse().map_err(|_| wrong())?;
        return if quantity.is_negative() { Err(wrong()) } else { Ok(Level::Quantity(quantity)) };
    };
    let percent: f64 = percent.parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) { Ok(Level::Percent(percent)) } else { Err(wrong()) }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (signal, level)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{}<{level}", signal.name())?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Thresholds {
    type Error = ThresholdError;

    fn try_from(text: String) -> Result<Thresholds, ThresholdError> {
        text.parse()
    }
}

impl From<Thresholds> for String {
    fn from(thresholds: Thresholds) -> String {
        thresholds.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_the_kubelet_reads_them() {
        let text = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";
        assert_eq!(text.parse(), Ok(Thresholds::default()));
        assert_eq!(Thresholds::default().to_string(), text);
        assert_eq!("".parse::<Thresholds>().map(|none| none.to_string()), Ok(String::new()));
        for wrong in
            ["memory.available", "memory<1Mi", "memory.available<x", "nodefs.available<101%", "pid.available<-1"]
        {
            assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn levels_are_of_a_capacity_and_memory_comes_first() {
        let thresholds: Thresholds = "nodefs.available<10%,memory.available<1Ki".parse().expect("thresholds");
        let levels: Vec<_> =
            thresholds.signals().map(|signal| (signal, thresholds.level(signal).map(|l| l.of(10_000)))).collect();
        assert_eq!(levels, [(Signal::MemoryAvailable, Some(1_024)), (Signal::NodefsAvailable, Some(1_000))]);
    }
}
