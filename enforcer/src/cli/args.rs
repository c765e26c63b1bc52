//! What can be typed.

mod attestation;
mod device;
mod pins;
mod token;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::exit;
use crate::{control::span, prefix::Prefix};
pub use attestation::{
    AndroidKey, App, AppAttest, Assertion, AttestationVerb, AttestationVerify, Challenge, ClientData, Play,
    Receipt, Signed,
};
pub use device::{DeviceVerb, Only};
pub use pins::{PinsFor, PinsOf, PinsVerb};
pub use token::{Names, TokenRevoke, What};

/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/enforcer/control.sock";

/// Where the packaged unit has its configuration.
pub const CONFIG: &str = "/etc/enforcer/enforcer.toml";

/// Ingress enforcer for mobile APIs: XDP, TLS, tokens, bans.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "enforcer", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Args {
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The daemon's control socket
    #[arg(long, global = true, value_name = "PATH", env = "ENFORCER_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground
    Run {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read a configuration and everything it names, and report every error
    Check {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show lines of the access log
    Log(Log),
    /// Judge every packet of a capture as the program would, without a daemon and without privilege
    Explain(Explain),
    /// Judge access tokens as the daemon would, and take them back before their time
    #[command(subcommand)]
    Token(TokenVerb),
    /// Judge what devices and apps send to show that they are genuine, as the daemon would
    #[command(subcommand)]
    Attestation(AttestationVerb),
    /// Pins of the keys that are served, for apps; and the switch to a backup key
    #[command(subcommand)]
    Pins(PinsVerb),
    /// Take away what a daemon left in the kernel: program, bans, limits, pins
    Detach {
        /// As kernel.pin_directory [default: what the configuration file says]
        #[arg(long, value_name = "DIR")]
        pin_directory: Option<PathBuf>,
        /// Configuration file that names kernel.pin_directory; where it cannot be read, the default directory is meant
        #[arg(short, long, value_name = "FILE", default_value = CONFIG, conflicts_with = "pin_directory")]
        config: PathBuf,
        /// Even while a daemon runs on it, which judges no packet then
        #[arg(long)]
        force: bool,
    },
    /// Asks a running daemon.
    #[command(flatten)]
    Remote(Remote),
}

/// What a running daemon can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Remote {
    /// How the daemon is: interfaces, listeners, bans, drops, the last reload
    Status,
    /// Ban sources in the kernel
    #[command(subcommand)]
    Ban(BanVerb),
    /// Exempt sources from bans and limits
    #[command(subcommand)]
    Allow(AllowVerb),
    /// Give sources the budgets of another tier
    #[command(subcommand)]
    Tier(TierVerb),
    /// Devices that have shown what they are
    #[command(subcommand)]
    Device(DeviceVerb),
    /// What would happen to a packet from an address now, and why
    Why {
        /// IPv4 or IPv6 address
        address: IpAddr,
        /// Port that the packet goes to [default: the first listener's]
        #[arg(long)]
        port: Option<u16>,
        /// A new TCP connection, or a UDP datagram
        #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
        proto: Proto,
    },
    /// Refused packets, as they come in: samples, at most as many as kernel.events says
    Events(Events),
    /// Read the configuration again; a wrong one changes nothing
    Reload,
    /// The metrics, as Prometheus reads them
    Metrics,
}

/// `why --proto`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proto {
    /// A new TCP connection.
    Tcp,
    /// A UDP datagram.
    Udp,
}

/// `events ...`
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
pub struct Events {
    /// Only packets that were refused for this reason
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only packets from this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub source: Option<Prefix>,
    /// End after so many
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Write the packets to this file as pcapng, the reason as each packet's comment; `-` is standard output
    #[arg(long, short = 'w', value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// `log ...`
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
pub struct Log {
    /// Only requests over this client certificate (x5t#S256)
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Only requests that were refused with this code
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Only requests of the route of this name
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Only requests from this address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub source: Option<Prefix>,
    /// Only answers of this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<u16>,
    /// Only requests of this subject, as the log has it: by default a hash
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Only the request of this id
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// The log itself; `-` is standard input [default: what the configuration file says]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Configuration file that names the log
    #[arg(long, short, value_name = "FILE", default_value = CONFIG, conflicts_with = "file")]
    pub config: PathBuf,
}

/// `explain ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Explain {
    /// Capture, pcap or pcapng; `-` is standard input
    #[arg(long, short = 'r', value_name = "FILE")]
    pub pcap: PathBuf,
    /// Configuration file [default: defaults, with port 443 protected]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Banned addresses and prefixes: one per line, or what `enforcer --json ban list` prints [default: none]
    #[arg(long, value_name = "FILE")]
    pub bans: Option<PathBuf>,
    /// Judge only packets to this address or prefix: a capture holds the answers too
    #[arg(long, value_name = "PREFIX")]
    pub to: Option<Prefix>,
    /// Print the summary alone
    #[arg(long, short)]
    pub quiet: bool,
}

/// `token ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TokenVerb {
    /// Go the way of a request's token, and show each step; without a daemon and without a network, unless --ask
    Verify(TokenVerify),
    /// Have the daemon refuse tokens from now on
    Revoke(TokenRevoke),
    /// Take that back
    Restore(What),
    /// How much is revoked, or whether this is
    Revoked(What),
}

/// `token verify ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct TokenVerify {
    /// The token, with or without "Bearer "; `-` is standard input, where it stays out of the history and the process list
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// The JWK set of issuers that publish theirs: it is not fetched here
    #[arg(long, value_name = "FILE")]
    pub jwks: Option<PathBuf>,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
    /// Ask the daemon besides whether it is revoked
    #[arg(long)]
    pub ask: bool,
    /// Judge it for requests of this path, with what its route demands [default: by every issuer, without demands]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// The method of such a request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: http::Method,
    /// The proof that comes with the token in the field `DPoP`, for a request of this method to --url
    #[arg(long, value_name = "PROOF", requires = "url")]
    pub dpop: Option<String>,
    /// The URL of such a request, as its client has it
    #[arg(long, value_name = "URL", requires = "dpop")]
    pub url: Option<String>,
    /// The host of such a request, for routes that tell hosts apart
    #[arg(long, value_name = "HOST", requires = "path")]
    pub host: Option<String>,
}

/// RFC 3339, or seconds since 1970.
fn moment(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| "that is too far ahead".to_owned());
    }
    let date = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "write a date like 2026-01-31T12:00:00Z, or seconds since 1970".to_owned())?;
    u64::try_from(date.unix_timestamp()).map_err(|_| "that is before 1970".to_owned())
}

/// `ban ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum BanVerb {
    /// Ban an address or a prefix, or all that a file lists
    Add(BanAdd),
    /// Lift the ban of exactly this address or prefix
    #[command(visible_alias = "delete")]
    Del(Whom),
    /// Every ban, with origin, cause and remaining time
    List,
}

/// One, or a list.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Whom {
    /// Address or prefix, like 192.0.2.7 or 2001:db8::/48
    #[arg(required_unless_present = "file")]
    pub prefix: Option<Prefix>,
    /// All that this file lists, one address or prefix per line, with comments behind `#`; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prefix")]
    pub file: Option<PathBuf>,
    /// Report lines of the file that cannot be read, and go on; otherwise they keep all of it from being done
    #[arg(long, requires = "file", conflicts_with = "prefix")]
    pub skip_invalid: bool,
}

/// `ban add ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct BanAdd {
    /// Whom.
    #[command(flatten)]
    pub whom: Whom,
    /// How long, like 90s, 10m, 2h, 7d, at most 365d [default: bans.duration]
    #[arg(long = "for", value_name = "DURATION", value_parser = span::parse, conflicts_with = "forever")]
    pub duration: Option<Duration>,
    /// Until it is lifted
    #[arg(long)]
    pub forever: bool,
    /// Why, for those who come after you
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// However wide the prefix is, and even if it holds your own session, this machine or an upstream server
    #[arg(long)]
    pub force: bool,
}

/// `allow ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AllowVerb {
    /// Exempt an address or a prefix until that is taken back
    Add {
        /// Address or prefix
        prefix: Prefix,
        /// Why, for those who come after you
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// However wide the prefix is
        #[arg(long)]
        force: bool,
    },
    /// Take back what `allow add` did
    #[command(visible_alias = "delete")]
    Del {
        /// Address or prefix
        prefix: Prefix,
    },
    /// Every exemption, the configuration's included
    List,
}

/// `tier ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TierVerb {
    /// Give an address or a prefix the budgets of a tier until that is taken back
    Set {
        /// Address or prefix
        prefix: Prefix,
        /// A name from [kernel.tier.NAME], or `default`
        tier: String,
        /// Why, for those who come after you
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Take back what `tier set` did
    #[command(visible_alias = "delete")]
    Del {
        /// Address or prefix
        prefix: Prefix,
    },
    /// Everybody who is in a tier, by the configuration or by an operator
    List,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let Verb::Remote(Remote::Ban(BanVerb::Add(add))) =
            parse("enforcer ban add 198.18.0.0/24 --for 10m --reason scan --json --socket s").unwrap().verb
        else {
            panic!("something else")
        };
        assert_eq!(add.duration, Some(Duration::from_secs(600)));
        assert_eq!((add.reason.as_str(), add.forever, add.force), ("scan", false, false));
        let args = parse("enforcer --json why 2001:db8::1 --port 8443").unwrap();
        assert!(args.json);
        let address = "2001:db8::1".parse().unwrap();
        let why = Remote::Why { address, port: Some(8443), proto: Proto::Tcp };
        assert_eq!(args.verb, Verb::Remote(why));
        assert_eq!(parse("enforcer run -c f").unwrap().verb, Verb::Run { config: "f".into() });
    }

    #[test]
    fn nonsense_is_a_usage_error_that_says_what_is_wrong() {
        for (line, says) in [
            ("enforcer", "Usage"),
            ("enforcer bann", "unrecognized subcommand"),
            ("enforcer ban add 198.18.0.7/24", "did you mean 198.18.0.0/24"),
            ("enforcer ban add 198.18.0.7 --for 10", "is not a duration"),
            ("enforcer ban add 198.18.0.7 --for 1m --forever", "cannot be used with"),
            ("enforcer why example.com", "invalid"),
            ("enforcer check", "--config"),
            ("enforcer ban add", "required"),
            ("enforcer ban del 198.18.0.7 --file f", "cannot be used with"),
            ("enforcer ban add 198.18.0.7 --skip-invalid", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), i32::from(exit::USAGE.0), "{line}");
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = parse("enforcer --help").unwrap_err();
        assert_eq!(help.exit_code(), 0);
        for code in
            [exit::OK, exit::FAILED, exit::USAGE, exit::UNREACHABLE, exit::PERMISSION, exit::CONFIGURATION]
        {
            assert!(
                help.to_string().lines().any(|line| line.trim_start().starts_with(&format!("{} ", code.0)))
            );
        }
    }
}
