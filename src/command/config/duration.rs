//! Durations as Go writes them: `90s`, `10m`, `1h30m`. kube's `Duration` also parses them, but accepts `+-5s`.

use std::time::Duration;

/// The longest duration that a field accepts; it keeps sums far from overflow.
const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses a duration, after go1.26 src/time/format.go (`ParseDuration`). Fails if the text has another syntax, is negative, or is
/// longer than a year. The error is a message for the user.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let syntax = || format!("{text:?} is no duration; write it like 90s, 10m or 1h30m");
    if text.starts_with('-') && text.len() > 1 {
        return Err(format!("{text:?} is negative"));
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(syntax());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(syntax)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(syntax()),
        };
        total += number.parse::<f64>().map_err(|_| syntax())? * seconds;
        rest = after;
    }
    if total > MAX.as_secs_f64() {
        return Err(format!("{text:?} is longer than a year"));
    }
    Ok(Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let good = [
            ("0", 0),
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("+.5s", 500),
            ("1h0m0s", 3_600_000),
        ];
        for (text, milliseconds) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "10 m", "m", "-5s", "1d", "1h30", "1..5s", "+", "-", "99999h", "1e3s", "."] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }
}
