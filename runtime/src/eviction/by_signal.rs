//! Settings with a value for each signal: `memory.available=1m30s,nodefs.available=2m`. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::threshold::{Level, Signal, ThresholdError, level};

/// Values by signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "V: Value")]
pub struct BySignal<V>(BTreeMap<Signal, V>);

/// What may stand behind a signal.
pub trait Value: Copy + fmt::Debug + PartialEq {
    /// What is to stand there, for whoever wrote something else.
    const FORM: &str;

    /// Reads it; none if it is not of the form.
    fn read(text: &str) -> Option<Self>;

    /// As it is read again.
    fn write(self) -> String;
}

/// A text that is no such list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BySignalError {
    /// It is not of the form `SIGNAL=VALUE`.
    #[error("{0:?} is not of the form SIGNAL=VALUE")]
    Form(String),
    /// There is no such signal.
    #[error(transparent)]
    Signal(#[from] ThresholdError),
    /// The value is none.
    #[error("{text:?} is not {form}")]
    Value {
        /// What stands there.
        text: String,
        /// What should.
        form: &'static str,
    },
}

impl<V> Default for BySignal<V> {
    /// No value for any.
    fn default() -> BySignal<V> {
        BySignal(BTreeMap::new())
    }
}

impl<V: Copy> BySignal<V> {
    /// The value of a signal, if it has one.
    pub fn get(&self, signal: Signal) -> Option<V> {
        self.0.get(&signal).copied()
    }
}

impl<V: Value> FromStr for BySignal<V> {
    type Err = BySignalError;

    /// An empty text is no value at all.
    fn from_str(text: &str) -> Result<BySignal<V>, BySignalError> {
        let pair = |part: &str| {
            let (signal, value) = part.split_once('=').ok_or_else(|| BySignalError::Form(part.to_owned()))?;
            let read = V::read(value.trim());
            let value = read.ok_or_else(|| BySignalError::Value { text: value.to_owned(), form: V::FORM })?;
            Ok((Signal::named(signal.trim())?, value))
        };
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect::<Result<_, _>>().map(BySignal)
    }
}

impl<V: Value> fmt::Display for BySignal<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(signal, v)| format!("{}={}", signal.name(), v.write())).collect();
        formatter.write_str(&pairs.join(","))
    }
}

impl<V: Value> TryFrom<String> for BySignal<V> {
    type Error = BySignalError;

    fn try_from(text: String) -> Result<BySignal<V>, BySignalError> {
        text.parse()
    }
}

impl<V: Value> From<BySignal<V>> for String {
    fn from(values: BySignal<V>) -> String {
        values.to_string()
    }
}

impl Value for SignedDuration {
    const FORM: &str = "a duration such as 30s or 1m30s";

    fn read(text: &str) -> Option<SignedDuration> {
        text.parse().ok().filter(|duration: &SignedDuration| !duration.is_negative())
    }

    fn write(self) -> String {
        format!("{self:#}")
    }
}

impl Value for Level {
    const FORM: &str = "a quantity such as 500Mi nor a percentage from 0% to 100%";

    fn read(text: &str) -> Option<Level> {
        level(text).ok()
    }

    fn write(self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_kubelet_reads_them() {
        let text = "memory.available=1m30s, nodefs.available=2m";
        let periods: BySignal<SignedDuration> = text.parse().expect("periods");
        assert_eq!(periods.get(Signal::MemoryAvailable), Some(SignedDuration::from_secs(90)));
        assert_eq!(periods.get(Signal::PidAvailable), None);
        assert_eq!(periods.to_string().parse(), Ok(periods));
        let reclaims: BySignal<Level> = "nodefs.available=2Gi,imagefs.available=5%".parse().expect("levels");
        assert_eq!(reclaims.to_string(), "nodefs.available=2Gi,imagefs.available=5%");
        assert_eq!("".parse(), Ok(BySignal::<Level>::default()));
        for wrong in
            ["memory.available", "memory.available<1m", "memory=1m", "memory.available=-1s", "pid.available=soon"]
        {
            assert!(wrong.parse::<BySignal<SignedDuration>>().is_err(), "{wrong}");
        }
        assert!("nodefs.available=101%".parse::<BySignal<Level>>().is_err());
    }
}
