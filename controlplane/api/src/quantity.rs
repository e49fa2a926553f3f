//! Quantities: `100m`, `1.5`, `128Mi`, `2e3`. Exact arithmetic in thousandths of a unit and below.
//!
//! A quantity is a decimal number with a suffix that is a power of 1024 (`Ki`...), a power of 1000 (`m`, `k`...) or an
//! exponent. Its canonical text is what Kubernetes writes: no fraction, the largest suffix that keeps it exact. Values
//! finer than a nano are rounded up; beyond what 128 bits hold they are refused.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
/// The largest absolute value: that of a 64-bit integer, as in Kubernetes, in nanos.
const LARGEST: i128 = (i64::MAX as i128) * NANO;

/// The family of suffixes in which a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, ...
    Binary,
    /// `m`, `k`, `M`, ...
    Decimal,
    /// `e3`, `E6`.
    Exponent,
}

/// A parsed quantity. Compared and ordered by value, whatever its suffix.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// So many thousandths, written with decimal suffixes: how CPU is written.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), format: Format::Decimal }
    }

    /// So many units, written with binary suffixes: how memory is written.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// So many units, written with decimal suffixes: how pods are counted.
    pub fn from_count(count: i64) -> Self {
        Self { nanos: i128::from(count) * NANO, format: Format::Decimal }
    }

    /// Reads a JSON string or number.
    ///
    /// # Errors
    /// When it is neither, or no quantity.
    pub fn from_value(value: &Value) -> Result<Self, ParseQuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(ParseQuantityError),
        }
    }

    /// In thousandths, rounded up: CPU.
    pub fn millis(&self) -> i64 {
        saturate(ceiling_divide(self.nanos, NANO / 1000))
    }

    /// In units, rounded up: bytes, or a count.
    pub fn units(&self) -> i64 {
        saturate(ceiling_divide(self.nanos, NANO))
    }

    /// In bytes, rounded up; the same as [`Quantity::units`].
    pub fn bytes(&self) -> i64 {
        self.units()
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The suffixes in which it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum, written like `self` (or like `other` if `self` is zero), at most the largest there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-LARGEST, LARGEST), format }
    }

    /// The difference, written like `self` (or like `other` if `self` is zero).
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-LARGEST, LARGEST), format }
    }

    /// The canonical text; the same as `to_string`.
    pub fn canonical(&self) -> String {
        self.to_string()
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Rounds away from zero, as Kubernetes does when it loses precision.
fn ceiling_divide(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end =
            unsigned.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (format, multiplier, exponent) = scale(suffix)?;
        let nanos = nanos(whole, fraction, multiplier, exponent);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// The suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Result<(Format, i128, i32), ParseQuantityError> {
    if let Some((_, power)) = BINARY.iter().find(|(text, _)| *text == suffix) {
        return Ok((Format::Binary, 1_i128 << (10 * power), 0));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Ok((Format::Decimal, 1, *power));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseQuantityError);
    }
    let exponent: i32 = digits.parse().map_err(|_| ParseQuantityError)?;
    Ok((Format::Exponent, 1, exponent))
}

/// The number in nanos, rounded up, at most [`LARGEST`].
fn nanos(whole: &str, fraction: &str, multiplier: i128, exponent: i32) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let digits = whole.bytes().chain(fraction.bytes()).skip_while(|byte| *byte == b'0');
    let mut value: i128 = 0;
    // What does not fit is more than the largest unless the exponent is very negative, and then rounds up to a nano.
    let mut dropped = 0_i64;
    let mut inexact = false;
    for digit in digits.map(|byte| i128::from(byte - b'0')) {
        if value < 1_000_000_000_000_000_000_000 {
            value = value * 10 + digit;
        } else {
            dropped += 1;
            inexact |= digit != 0;
        }
    }
    let fraction_digits = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let power = i64::from(exponent).saturating_add(9).saturating_sub(fraction_digits).saturating_add(dropped);
    let mut value = value * multiplier.min(1 << 40);
    let extra = multiplier >> 40;
    if extra > 1 {
        value = value.saturating_mul(extra);
    }
    if value == 0 {
        return 0;
    }
    for _ in 0..power.unsigned_abs().min(64) {
        if power > 0 {
            value = value.saturating_mul(10);
        } else {
            inexact |= value % 10 != 0;
            value /= 10;
        }
    }
    value.saturating_add(i128::from(inexact && power < 0)).min(LARGEST)
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return formatter.write_str("0");
        }
        let binary = self.format == Format::Binary && self.nanos % NANO == 0 && (self.nanos / NANO).abs() >= 1024;
        if binary {
            let units = self.nanos / NANO;
            let fits = BINARY.iter().rev().find(|(_, power)| units % (1_i128 << (10 * power)) == 0);
            return match fits {
                Some((suffix, power)) => write!(formatter, "{}{suffix}", units >> (10 * power)),
                None => write!(formatter, "{units}"),
            };
        }
        let (suffix, power) = DECIMAL
            .iter()
            .rev()
            .find(|(_, power)| self.nanos % 10_i128.pow(u32::try_from(power + 9).unwrap_or(0)) == 0)
            .unwrap_or(&("n", -9));
        let mantissa = self.nanos / 10_i128.pow(u32::try_from(power + 9).unwrap_or(0));
        match self.format {
            Format::Exponent if *power != 0 => write!(formatter, "{mantissa}e{power}"),
            _ => write!(formatter, "{mantissa}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_texts_are_those_of_kubernetes() {
        for (text, expected) in [
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            ("100m", "100m"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("1000k", "1M"),
            ("0", "0"),
            ("-1", "-1"),
            ("128Mi", "128Mi"),
            ("2e3", "2e3"),
            ("1500e0", "1500"),
            ("0.5Ki", "512"),
            ("1Ei", "1Ei"),
            ("0.001m", "1u"),
            ("0.0000000001", "1n"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("100Ki", "100Ki"),
            ("1025Ki", "1025Ki"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("1.5").millis(), 1500);
        assert_eq!(quantity("1u").millis(), 1);
        assert_eq!(quantity("1Ki").bytes(), 1024);
        assert_eq!(quantity("500m").units(), 1);
        assert_eq!(quantity("9999999999999E").units(), i64::MAX);
        assert_eq!(quantity("1e-400"), quantity("1n"));
        assert_eq!(quantity("1e400").units(), i64::MAX);
        assert!(quantity("1Gi") > quantity("1G"));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "m", "1 Gi", "1Gii", "a", "1..2", "1e", "--1", "1KI", "1e+", "0x1", ".", "1٣"] {
            assert_eq!(
                text.parse::<Quantity>().map(|quantity| quantity.to_string()),
                Err(ParseQuantityError),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_a_fixed_point(whole in 0_u64..2_000_000_000, fraction in 0_u32..1000, suffix in "(|m|k|M|Ki|Mi|Gi|e2)") {
            let quantity: Quantity = format!("{whole}.{fraction:03}{suffix}").parse().unwrap();
            let again: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), quantity.to_string());
        }

        #[test]
        fn what_is_added_can_be_taken_away(one in -1_000_000_000_i64..1_000_000_000, other in -1_000_000_000_i64..1_000_000_000) {
            let (one, other) = (Quantity::from_millis(one), Quantity::from_millis(other));
            prop_assert_eq!(one.plus(other).minus(other), one);
            prop_assert_eq!(one.cmp(&other), one.millis().cmp(&other.millis()));
        }

        #[test]
        fn parsing_never_panics(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let _ = (quantity.to_string(), quantity.millis(), quantity.units());
            }
        }
    }
}
