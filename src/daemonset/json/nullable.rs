//! Values that may be `null`, which is what is empty, as Go reads them.

use std::borrow::Cow;

use super::{Fault, Scanner, Text};

/// An object.
pub(crate) fn optional_object<'a>(
    scanner: &mut Scanner<'a>,
    member: impl FnMut(&mut Scanner<'a>, Text<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    scanner.optional_object(member).map(drop)
}

/// A list.
pub(crate) fn optional_array<'a>(
    scanner: &mut Scanner<'a>,
    item: impl FnMut(&mut Scanner<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if scanner.null() { Ok(()) } else { scanner.array(item) }
}

/// A string.
pub(crate) fn optional_text<'a>(scanner: &mut Scanner<'a>) -> Result<Cow<'a, str>, Fault> {
    if scanner.null() {
        return Ok(Cow::Borrowed(""));
    }
    let text = scanner.string()?;
    text.decode().ok_or_else(|| scanner.fault("half a surrogate pair in a string"))
}

/// A truth value.
pub(crate) fn optional_bool(scanner: &mut Scanner<'_>) -> Result<bool, Fault> {
    match scanner.value()? {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(scanner.fault("expected true or false")),
    }
}

/// Whether there is an integer.
pub(crate) fn optional_integer(scanner: &mut Scanner<'_>) -> Result<bool, Fault> {
    match scanner.value()? {
        "null" => Ok(false),
        number if number.parse::<i64>().is_ok() => Ok(true),
        _ => Err(scanner.fault("expected an integer")),
    }
}
