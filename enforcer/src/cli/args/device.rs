//! What can be typed behind `device`.

use clap::Subcommand;

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
    },
    /// Everything that is known of one
    Show {
        /// Its name: 43 characters, as the list and the access log have it
        device: String,
    },
    /// Refuse one from now on, with every session that it has
    Block {
        /// Its name
        device: String,
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
