//! What can be typed behind `device`.

use clap::{Args, Subcommand};

use super::moment;

/// What devices of a list have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Only {
    /// Only those of a platform: ios or android
    #[arg(long, value_name = "PLATFORM", value_parser = ["ios", "android"])]
    pub platform: Option<String>,
    /// Only those of a level: device or strong
    #[arg(long, value_name = "LEVEL", value_parser = ["device", "strong"])]
    pub level: Option<String>,
    /// Only those of an app, by its identifier
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Only those with this certificate in their chain: its serial number in hexadecimal digits
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// Only those that were not seen since: a date like 2026-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub seen_before: Option<u64>,
}

/// `device ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DeviceVerb {
    /// Devices that have enrolled, in the order of their names, page by page
    List {
        /// Begin behind this one: what the page before says at its end
        #[arg(long, value_name = "DEVICE")]
        after: Option<String>,
        /// Devices of a page, at most 10,000
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
        /// Only those that are blocked
        #[arg(long)]
        blocked: bool,
        /// Only those for which this holds.
        #[command(flatten)]
        only: Only,
    },
    /// Everything that is known of one
    Show {
        /// Its name: 43 characters, as the list and the access log have it
        device: String,
    },
    /// Refuse one from now on, with every session that it has; or all whose key one certificate vouches for
    Block {
        /// Its name
        #[arg(required_unless_present = "serial", conflicts_with = "serial")]
        device: Option<String>,
        /// All with this certificate in their chain: its serial number in hexadecimal digits, as `show` and Google's list have it
        #[arg(long, value_name = "SERIAL")]
        serial: Option<String>,
        /// With --serial: block none where there are more than so many
        #[arg(
            long,
            value_name = "COUNT",
            default_value_t = 1_000,
            requires = "serial",
            conflicts_with = "device"
        )]
        most: usize,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Take that back
    Unblock {
        /// Its name
        device: String,
    },
    /// Know one no longer: it has to enrol anew
    Forget {
        /// Its name
        device: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Args;

    #[test]
    fn whoever_blocks_names_a_device_or_a_certificate() {
        let parse = |words: &[&str]| {
            Args::try_parse_from(["enforcer", "device"].into_iter().chain(words.iter().copied())).is_ok()
        };
        assert!(parse(&["block", "NAME", "--reason", "stolen"]));
        assert!(parse(&["block", "--serial", "C0:FF:EE", "--most", "5000"]));
        assert!(!parse(&["block"]) && !parse(&["block", "NAME", "--serial", "C0"]));
        assert!(!parse(&["block", "NAME", "--most", "5"]), "of one there is only one");
        assert!(parse(&["list", "--platform", "ios", "--seen-before", "2026-01-31T12:00:00Z"]));
        assert!(!parse(&["list", "--platform", "symbian"]) && !parse(&["list", "--level", "best"]));
    }
}
