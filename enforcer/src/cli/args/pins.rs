//! What can be typed behind `pins`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{CONFIG, moment};

/// `pins ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum PinsVerb {
    /// Every pin: its key's part, since when it is out, from when its key may be served
    Show(PinsOf),
    /// Judge the keys that would be served as the guard does, and warn ahead; exit code 1: a start or a reload would be refused
    Check(PinsOf),
    /// Write network_security_config.xml for Android
    Android(PinsFor),
    /// Write NSPinnedDomains for an Info.plist (iOS 14 or newer; it has no expiration)
    Ios(PinsOf),
    /// Write a CertificatePinner of OkHttp, Kotlin
    Okhttp(PinsOf),
    /// Write TSKConfiguration for an Info.plist with TrustKit
    Trustkit(PinsFor),
    /// Everything, as one JSON document
    Json(PinsOf),
    /// Show the fingerprints (JA4) that apps are declared to have, and those that came besides, as the daemon has seen them
    Seen,
    /// Have the daemon serve the hosts of a set by its backup certificate, also after a restart
    Switch {
        /// The NAME of [pins.set.NAME]
        set: String,
        /// Serve them by their own certificate again
        #[arg(long)]
        back: bool,
    },
}

/// Which configuration is meant, and when.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct PinsOf {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
}

/// The same for what runs out.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct PinsFor {
    /// Of what.
    #[command(flatten)]
    pub of: PinsOf,
    /// From when the app shall not ask for pins any more, so that one that is never updated goes on [default: a year later]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub expires: Option<u64>,
}
