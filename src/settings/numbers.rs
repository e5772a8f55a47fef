//! Numbers with a unit and with bounds, as they are written in the settings.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, Expected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number of things, from 1 up to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MOST: u32>(pub u32);

impl<'de, const MOST: u32> Deserialize<'de> for Count<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match u32::try_from(number) {
            Ok(count) if (1..=MOST).contains(&count) => Ok(Self(count)),
            Ok(_) | Err(_) => {
                Err(D::Error::custom(format!("{number} is not a number from 1 to {MOST}")))
            }
        }
    }
}

/// A duration of at least `LEAST` seconds, written as a number with a unit: `"600s"`, `"10m"`, `"2h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const LEAST: u64>(pub Duration);

impl<'de, const LEAST: u64> Deserialize<'de> for Span<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const LEAST: u64>;
        impl<const LEAST: u64> Visitor<'_> for Text<LEAST> {
            type Value = Span<LEAST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"90s\", \"10m\", \"2h\", \"7d\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span<LEAST>, E> {
                match duration(text) {
                    Some(span) if span.as_secs() >= LEAST => Ok(Span(span)),
                    Some(_) => Err(E::custom(format!("{text:?} is too short, at least {LEAST} s"))),
                    None => {
                        let expected: &dyn Expected = &self;
                        Err(E::custom(format!("{text:?} is not {expected}")))
                    }
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads a duration such as `"90s"`, `"10m"`, `"2h"`, `"7d"`; `None` when it is none, or too long.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    // A year is longer than anything here can sensibly last.
    with_unit(text, &units, 365 * 86_400).map(Duration::from_secs)
}

/// A number of octets, as a number or such as `"2G"`, or none at all: `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub Option<u64>);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 500000000, \"500M\", \"2G\", \"unlimited\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number)
                    .map(|octets| Size(Some(octets)))
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                let units = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1_u64 << 40)];
                if text == "unlimited" {
                    return Ok(Size(None));
                }
                with_unit(text, &units, u64::MAX)
                    .map(|octets| Size(Some(octets)))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Reads "12m": a whole number, and a unit whose worth `units` knows, together at most `most`.
fn with_unit(text: &str, units: &[(&str, u64)], most: u64) -> Option<u64> {
    let (unit, worth) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    if !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(*worth).filter(|value| *value <= most)
}
