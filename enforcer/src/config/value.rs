//! Values as people write them in the file: durations, sizes, rates, addresses. Each is refused with what to write
//! instead. Called by serde while it reads [`super::file::File`]; decides nothing about ranges.

use std::{fmt, marker::PhantomData, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Unexpected, Visitor},
};

use super::{Feature, LimitKey, RateLimit};
use crate::prefix::Prefix;

/// A value that is written as a string.
pub(super) trait Written: Sized {
    /// What to write, for people; ends a sentence that begins with "write".
    const EXPECTED: &'static str;
    /// Reads it; nothing more than `EXPECTED` is said of a failure unless the error says more.
    fn read(text: &str) -> Result<Self, String>;
}

/// Reads `T` from a TOML string.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<T>(PhantomData<T>);
        impl<T: Written> Visitor<'_> for TextVisitor<T> {
            type Value = Text<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                T::read(text).map(Text).map_err(|said| match said.is_empty() {
                    true => E::invalid_value(Unexpected::Str(text), &self),
                    false => E::custom(said),
                })
            }
        }
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// One name, or a list of names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name in quotes, or a list of names")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = access.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

/// One value, or a list of values any of which will do: strings, whole numbers, `true` and `false`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alternatives(pub(super) Vec<serde_json::Value>);

impl<'de> Deserialize<'de> for Alternatives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AlternativesVisitor;
        impl<'de> Visitor<'de> for AlternativesVisitor {
            type Value = Alternatives;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false, or a list of such")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Alternatives, E> {
                Ok(Alternatives(vec![text.into()]))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Alternatives, E> {
                Ok(Alternatives(vec![value.into()]))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Alternatives, E> {
                Ok(Alternatives(vec![value.into()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Alternatives, A::Error> {
                let mut values = Vec::new();
                while let Some(Alternatives(value)) = access.next_element()? {
                    values.extend(value);
                }
                Ok(Alternatives(values))
            }
        }
        deserializer.deserialize_any(AlternativesVisitor)
    }
}

/// A whole number, not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, 0 or more, without quotes")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                let refusal = || E::invalid_value(Unexpected::Signed(value), &self);
                u64::try_from(value).map(Number).map_err(|_| refusal())
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// A number of bytes: `"10MiB"`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"10MiB\" (units B, KiB, MiB, GiB), or a number of bytes")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
                let refusal = || E::invalid_value(Unexpected::Signed(value), &self);
                u64::try_from(value).map(Size).map_err(|_| refusal())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                quantity(text, &SIZES).map(Size).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// Units of sizes.
const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// Digits and a unit, multiplied; `None` for anything else and for what does not fit.
pub(super) fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl Written for String {
    const EXPECTED: &'static str = "a string in quotes";
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Written for Duration {
    const EXPECTED: &'static str = "a duration like \"10s\" (units ms, s, m, h)";
    fn read(text: &str) -> Result<Self, String> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
        quantity(text, &units).map(Duration::from_millis).ok_or_else(String::new)
    }
}

impl Written for Prefix {
    const EXPECTED: &'static str = "an address or a prefix, like \"192.0.2.7\" or \"2001:db8::/32\"";
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Written for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, like \"[::]:443\" or \"192.0.2.1:443\"";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }
}

/// An address and a port, or `"off"`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AddressOrOff(pub(super) Option<SocketAddr>);

impl Written for AddressOrOff {
    const EXPECTED: &'static str = "an address and a port, like \"127.0.0.1:9464\", or \"off\"";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => SocketAddr::read(text).map(|address| Self(Some(address))),
        }
    }
}

/// A duration, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DurationOrOff(pub(super) Option<Duration>);

impl Written for DurationOrOff {
    const EXPECTED: &'static str = "a duration like \"1m\" (units ms, s, m, h), or \"off\"";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => Duration::read(text).map(|duration| Self(Some(duration))),
        }
    }
}

impl Written for Feature {
    const EXPECTED: &'static str = "the name of a feature, like \"bans\"";
    fn read(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|feature| format!("{:?}", feature.label())).join(", ");
        let found = Self::ALL.into_iter().find(|feature| feature.label() == text);
        found.ok_or_else(|| format!("`{text}` is nothing that can be rehearsed; write some of {}", known()))
    }
}

impl Written for LimitKey {
    const EXPECTED: &'static str = "\"address\", \"subject\", \"device\", \"route\" or \"header:NAME\"";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "address" => Ok(Self::Address),
            "subject" => Ok(Self::Subject),
            "device" => Ok(Self::Device),
            "route" => Ok(Self::Route),
            _ => {
                let name = text.strip_prefix("header:").and_then(|name| name.parse().ok());
                name.map(Self::Header).ok_or_else(String::new)
            }
        }
    }
}

/// Events per period, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    /// Not limited.
    Off,
    /// So many events in a second, a minute or an hour.
    Per { events: u64, period: Duration },
}

impl Written for Rate {
    const EXPECTED: &'static str = "a rate like \"5/s\", \"300/m\" or \"1000/h\"";
    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let read = || {
            let (events, unit) = text.split_once('/')?;
            let events = events.strip_suffix('r').unwrap_or(events);
            // `parse` alone would take a leading plus sign.
            if !events.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            Some(Self::Per { events: events.parse().ok()?, period: Duration::from_secs(seconds) })
        };
        read().ok_or_else(String::new)
    }
}

/// How many bytes are allowed in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ByteRate {
    /// As many as come.
    Off,
    /// So many.
    PerSecond(u64),
}

impl Written for ByteRate {
    const EXPECTED: &'static str = "a rate like \"10MiB/s\" (units B, KiB, MiB, GiB), or \"off\"";
    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let bytes = text.strip_suffix("/s").and_then(|size| quantity(size, &SIZES));
        bytes.map(Self::PerSecond).ok_or_else(String::new)
    }
}

impl Written for http::Uri {
    const EXPECTED: &'static str = "a server like \"http://127.0.0.1:9000\"";
    fn read(text: &str) -> Result<Self, String> {
        let uri: Self = text.parse().map_err(|_| String::new())?;
        match uri.scheme_str() {
            Some("http" | "https" | "h2c") => {}
            _ => return Err(String::new()),
        }
        let authority = uri.authority().ok_or_else(String::new)?;
        if authority.as_str().contains('@') {
            return Err(
                "a server carries no user name or password; remove what stands before the @".to_owned()
            );
        }
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or(":");
        let good_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if authority.host().is_empty() || !port.is_empty() && !port.strip_prefix(':').is_some_and(good_port) {
            return Err(format!("`{text}` has no usable host and port; write {}", Self::EXPECTED));
        }
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(format!(
                "`{text}` has a path or a query; write only the server, requests keep their own path"
            ));
        }
        Ok(uri)
    }
}

/// A duration as it is written in the file.
pub(super) fn spell_duration(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

impl RateLimit {
    /// So many events per second, and at once.
    pub(super) const fn per_second(events: u64, burst: u64) -> Self {
        Self { events, period: Duration::from_secs(1), burst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_nothing_else() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(Duration::read(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", "10S", "99999999999999999999s", "9999999999999999h"]
        {
            assert!(Duration::read(text).is_err(), "{text}");
        }
        let per = |events, seconds| Ok(Rate::Per { events, period: Duration::from_secs(seconds) });
        assert_eq!(Rate::read("5/s"), per(5, 1));
        assert_eq!(Rate::read("5r/s"), per(5, 1));
        assert_eq!(Rate::read("300/m"), per(300, 60));
        assert_eq!(Rate::read("7/h"), per(7, 3600));
        assert_eq!(Rate::read("off"), Ok(Rate::Off));
        assert_eq!(ByteRate::read("10MiB/s"), Ok(ByteRate::PerSecond(10 << 20)));
        for text in ["", "10/s", "10MiB", "MiB/s", "10Mbit/s", "10MiB/m", "+1B/s"] {
            assert!(ByteRate::read(text).is_err(), "{text}");
        }
        for text in ["", "5", "/s", "+5/s", "-5/s", "5/d", "5/s/s", "5 /s", "r/s"] {
            assert!(Rate::read(text).is_err(), "{text}");
        }
        for text in [
            "ftp://h:1",
            "h:1",
            "http://",
            "http://h:0",
            "http://h:99999",
            "http://u@h",
            "http://h/a",
            "http://h?a",
        ] {
            assert!(http::Uri::read(text).is_err(), "{text}");
        }
        for text in
            ["http://127.0.0.1:9000", "http://[::1]:80/", "http://api.internal", "https://a", "h2c://a:1"]
        {
            assert!(http::Uri::read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn durations_come_back_as_written() {
        for text in ["500ms", "10s", "5m", "24h", "90s"] {
            assert_eq!(spell_duration(Duration::read(text).unwrap()), text);
        }
    }
}
