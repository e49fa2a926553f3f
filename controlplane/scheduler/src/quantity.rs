//! Quantities, as far as placing needs them: thousandths, as whole numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in thousandths, rounded up; 0 if it is none (the API refuses those).
pub(crate) fn thousandths(quantity: &Quantity) -> i128 {
    parse(&quantity.0).unwrap_or_default()
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && !".+-".contains(letter)).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_negative = whole.starts_with('-');
    let digits: String = whole.trim_start_matches(['+', '-']).chars().chain(part.chars().take(9)).collect();
    let digits: i128 = digits.parse().ok()?;
    let divisor = 10_i128.pow(u32::try_from(part.len().min(9)).ok()?);
    let (factor, shrink): (i128, i128) = match unit {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (10_i128.pow(12), 1),
        "T" => (10_i128.pow(15), 1),
        "P" => (10_i128.pow(18), 1),
        "E" => (10_i128.pow(21), 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.unsigned_abs() < 19)?;
            if power < 0 { (1_000, scale) } else { (1_000 * scale, 1) }
        }
    };
    let divisor = divisor * shrink;
    let scaled = digits.checked_mul(factor)?;
    let rounded = scaled / divisor + i128::from(scaled % divisor != 0);
    Some(if is_negative { -rounded } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities_are_read_in_all_their_spellings() {
        let expected = [
            ("1", 1_000),
            ("100m", 100),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
        ];
        for (text, thousandths) in expected {
            assert_eq!(parse(text), Some(thousandths), "{text}");
        }
        assert_eq!((parse("1n"), parse("x"), parse("")), (Some(1), None, None));
    }
}
