//! Durations as people read and write them: `9m 41s`, `10m`.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The two largest units of a duration in seconds: `41s`, `9m 41s`, `2h 5m`, `3d 4h`.
pub fn human(seconds: u64) -> String {
    let two = |large: u64, big: char, rest: u64, small: char| {
        if rest == 0 { format!("{large}{big}") } else { format!("{large}{big} {rest}{small}") }
    };
    match seconds {
        DAY.. => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        HOUR.. => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        MINUTE.. => two(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        _ => format!("{seconds}s"),
    }
}

/// The same for time that is left: rounded up, so that it is never over before.
pub fn remaining(seconds: u64) -> String {
    let step = match seconds {
        DAY.. => HOUR,
        HOUR.. => MINUTE,
        _ => 1,
    };
    human(seconds.div_ceil(step).saturating_mul(step))
}

/// Reads `90s`, `10m`, `2h`, `7d`, and sums like `1h30m`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write 90s, 10m, 2h, 7d or 1h30m");
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let mut letters = tail.chars();
        let unit = match letters.next() {
            Some('s') => 1,
            Some('m') => MINUTE,
            Some('h') => HOUR,
            Some('d') => DAY,
            Some(_) | None => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = letters.as_str();
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0, "0s"),
            (41, "41s"),
            (60, "1m"),
            (581, "9m 41s"),
            (7_500, "2h 5m"),
            (7_203, "2h"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn what_is_left_is_rounded_up() {
        for (seconds, text) in [
            (41, "41s"),
            (3_599, "59m 59s"),
            (3_601, "1h 1m"),
            (7_199, "2h"),
            (86_399, "1d"),
            (86_401, "1d 1h"),
        ] {
            assert_eq!(remaining(seconds), text);
        }
    }

    #[test]
    fn durations_are_read_strictly() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "10",
            "m",
            "10 m",
            "-1s",
            "0s",
            "1.5h",
            "99999999999999999999d",
            "999999999999999999d",
            "10ms",
        ] {
            assert!(parse(wrong).unwrap_err().contains("is not a duration"), "{wrong}");
        }
    }
}
