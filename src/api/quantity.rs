//! Amounts of a resource, such as `250m`, `1.5`, `64Mi` and `1e3`.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go (`ParseQuantity`, `Value`,
//! `MilliValue`). An amount is exact down to billionths, the smallest unit of upstream; smaller parts round away from zero.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// One whole unit in billionths.
const ONE: i128 = 1_000_000_000;
/// The most digits before the point. A longer number counts as the largest amount, and its product with the suffix is not computed.
const MAX_LENGTH: usize = 64;

/// An amount of a resource.
///
/// ```
/// use daemonset_warden::api::quantity::Quantity;
///
/// let cpu = Quantity::parse("1500m").unwrap();
/// assert_eq!((cpu.milli_value(), cpu.value()), (1500, 2));
/// let memory = Quantity::parse("64Mi").unwrap().plus(Quantity::parse("1e3").unwrap());
/// assert_eq!(memory.value(), 64 * 1024 * 1024 + 1000);
/// assert_eq!(Quantity::parse("64 MB"), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    /// Returns the amount in whole units, rounded away from zero, saturating (`Quantity.Value`).
    pub fn value(self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, ONE))
    }

    /// Returns the amount in thousandths, rounded away from zero, saturating (`Quantity.MilliValue`).
    pub fn milli_value(self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, ONE / 1000))
    }

    /// Returns the sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos) }
    }

    /// Parses the text form, such as `250m`. Returns `None` for a text that upstream refuses.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = digits.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let nanos = scaled(whole, fraction, Suffix::parse(suffix)?);
        Some(Self { nanos: if negative { -nanos } else { nanos } })
    }
}

/// The factor of a suffix: `2^exponent` or `10^exponent`.
enum Suffix {
    Binary(u32),
    Decimal(i32),
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Decimal(0),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            _ => Self::Decimal(text.strip_prefix(['e', 'E'])?.parse().ok()?),
        })
    }
}

/// Returns `whole.fraction` times the suffix in billionths: at least 0, saturating, rounded up.
fn scaled(whole: &str, fraction: &str, suffix: Suffix) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    if whole.len() > MAX_LENGTH {
        return i128::MAX;
    }
    // Later digits are less than a billionth even with the largest suffix.
    let kept = &fraction[..fraction.len().min(30)];
    let Some(mantissa) = format!("{whole}{kept}").parse::<i128>().ok() else { return i128::MAX };
    let (binary, decimal) = match suffix {
        Suffix::Binary(exponent) => (exponent, 0),
        Suffix::Decimal(exponent) => (0, exponent),
    };
    let Some(mantissa) = mantissa.checked_mul(1_i128 << binary) else {
        // The exact product does not fit: the size of the value matters then, its last digits do not.
        let power = 9 + decimal - i32::try_from(kept.len()).unwrap_or(i32::MAX);
        return times_power_of_ten(mantissa, power).saturating_mul(1_i128 << binary);
    };
    let power = decimal.saturating_add(9).saturating_sub(i32::try_from(kept.len()).unwrap_or(i32::MAX));
    times_power_of_ten(mantissa, power)
}

/// Returns `value * 10^power`, rounded up, saturating.
fn times_power_of_ten(value: i128, power: i32) -> i128 {
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(factor) if power >= 0 => value.saturating_mul(factor),
        Some(factor) => divide_away_from_zero(value, factor),
        None if power >= 0 => i128::MAX,
        None => 1,
    }
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 250m or 64Mi")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity { nanos: i128::from(value) * ONE })
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity { nanos: i128::from(value) * ONE })
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                self.visit_str(&value.to_string())
            }
            fn visit_unit<E: de::Error>(self) -> Result<Quantity, E> {
                Ok(Quantity::default())
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_upstream() {
        let cases = [
            ("0", 0, 0),
            ("250m", 1, 250),
            ("1", 1, 1000),
            ("1.5", 2, 1500),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("1e3", 1000, 1_000_000),
            ("1E3", 1000, 1_000_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1n", 1, 1),
            ("0.0000000001", 1, 1),
            ("-1500m", -2, -1500),
            ("+2k", 2000, 2_000_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("99999999999999999999999999", i64::MAX, i64::MAX),
            ("1e999999", i64::MAX, i64::MAX),
            ("1e-999999", 1, 1),
            ("0e999999", 0, 0),
        ];
        for (text, value, milli_value) in cases {
            let quantity = Quantity::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli_value), "{text}");
        }
        for invalid in ["", "-", ".", "1.2.3", "1x", "Mi", "1 Mi", "1ki", "1e", "--1", "1e1.5", "ä"] {
            assert_eq!(Quantity::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn numbers_and_null_decode_as_in_go() {
        let all: Vec<Quantity> = serde_json::from_str(r#"["1", 1, 1.0, null]"#).unwrap();
        assert_eq!(all.iter().map(|quantity| quantity.value()).collect::<Vec<_>>(), [1, 1, 1, 0]);
    }
}
