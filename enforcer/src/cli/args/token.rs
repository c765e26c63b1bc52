//! What can be typed behind `token` beside `verify`: what is revoked, and by what.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::control::span;

/// `token revoke ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct TokenRevoke {
    /// Which.
    #[command(flatten)]
    pub what: What,
    /// Only tokens that were issued before this time, in seconds since 1970-01-01T00:00:00Z, as `date +%s` prints them [default: now
    /// for --subject, --device and --every; any time otherwise]
    #[arg(long, value_name = "TIME", conflicts_with = "whenever")]
    pub issued_before: Option<u64>,
    /// Whenever they were issued, or will be
    #[arg(long)]
    pub whenever: bool,
    /// How long, like 90s, 10m, 2h, 7d, at most 365d [default: as long as such tokens may live; for --kid until it is restored]
    #[arg(long = "for", value_name = "DURATION", value_parser = span::parse, conflicts_with = "forever")]
    pub duration: Option<Duration>,
    /// Until it is restored
    #[arg(long)]
    pub forever: bool,
}

/// What of tokens is named: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[group(multiple = false, id = "named")]
pub struct Names {
    /// The token of this id
    #[arg(long, value_name = "ID")]
    pub jti: Option<String>,
    /// Tokens with this `sid`
    #[arg(long, value_name = "ID")]
    pub sid: Option<String>,
    /// Tokens of this subject (`sub`)
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Tokens of this device, as the issuer's `device_claim` names it
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Tokens that this key signed
    #[arg(long, value_name = "ID")]
    pub kid: Option<String>,
    /// This token; `-` is standard input, where it stays out of the history and the process list
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Every token
    #[arg(long)]
    pub every: bool,
}

/// What of tokens is named, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
pub struct What {
    /// One of them.
    #[command(flatten)]
    pub names: Names,
    /// Only of this issuer: the NAME of [token.NAME] [default: of any]
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
}
