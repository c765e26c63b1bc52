//! Instants as people and scripts read them, in UTC. Pure: the time is an argument.

/// Seconds of a day.
const DAY: u64 = 86_400;
const NANOS: u64 = 1_000_000_000;

/// `14:03:07.123456`, of nanoseconds since 1970.
pub fn clock(unix_ns: u64) -> String {
    let (seconds, micros) = (unix_ns / NANOS % DAY, unix_ns % NANOS / 1_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `2026-01-31T14:03:07.123456789Z` (RFC 3339 section 5.6).
pub fn timestamp(unix_ns: u64) -> String {
    let (days, seconds, nanos) = (unix_ns / NANOS / DAY, unix_ns / NANOS % DAY, unix_ns % NANOS);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `31/Jan/2026:14:03:07 +0000`, as web servers write it into their logs.
pub fn common(unix_ns: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ns / NANOS % DAY;
    let (year, month, day) = date(unix_ns / NANOS / DAY);
    let month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"");
    format!(
        "{day:02}/{month}/{year:04}:{:02}:{:02}:{:02} +0000",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The day of the Gregorian calendar, so many days after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // The calendar repeats itself every 400 years, which have 146,097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_come_out_right() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400 * NANOS), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(timestamp(1_700_000_000 * NANOS + 7), "2023-11-14T22:13:20.000000007Z");
        assert_eq!(timestamp(4_107_542_399 * NANOS), "2100-02-28T23:59:59.000000000Z");
        assert_eq!(common(1_700_000_000 * NANOS), "14/Nov/2023:22:13:20 +0000");
        assert_eq!(clock(1_700_000_000 * NANOS + 123_456_789), "22:13:20.123456");
        let _ = timestamp(u64::MAX);
    }
}
