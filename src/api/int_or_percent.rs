//! Numbers that may be written as percentages, such as `maxSurge: 10%`.
//!
//! After kubernetes v1.36.3 pkg/apis/apps/validation/validation.go (`getPercentValue`,
//! `getIntOrPercentValue`) and staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go (`IsValidPercent`).

use std::num::IntErrorKind;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Returns true if upstream counts the value as zero (`getIntOrPercentValue`): also a text that is neither a number nor a
/// percentage. A number that does not fit into 64 bits is not zero.
pub fn is_zero(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(count) => *count == 0,
        IntOrString::String(text) => match percent(text) {
            Some(percent) => percent == 0,
            None => match text.parse::<i64>() {
                Ok(count) => count == 0,
                Err(error) => !matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow),
            },
        },
    }
}

/// Returns the number of a text of the form `[0-9]+%`, at most `u64::MAX`. Returns `None` for any other text, such as `5` or `+5%`.
pub fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_percentage_a_number_or_nothing() {
        for (text, number, zero) in [
            ("0%", Some(0), true),
            ("00%", Some(0), true),
            ("007%", Some(7), false),
            ("99999999999999999999%", Some(u64::MAX), false),
            ("0", None, true),
            ("5", None, false),
            ("-99999999999999999999", None, false),
            ("+5%", None, true),
            ("5x%", None, true),
            ("5%%", None, true),
            ("%", None, true),
            ("", None, true),
        ] {
            assert_eq!(percent(text), number, "{text:?}");
            assert_eq!(is_zero(&IntOrString::String(text.to_owned())), zero, "{text:?}");
        }
        assert!(is_zero(&IntOrString::Int(0)) && !is_zero(&IntOrString::Int(-1)));
    }
}
