//! What can be typed behind `attestation`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::moment;

mod google;

pub use google::{AndroidKey, Play, Signed};

use crate::attestation::app_attest::{AppId, BundleVersion, Category, Environment};

/// `attestation ...`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AttestationVerb {
    /// Go the way of what a device sends, and show each step; without a daemon and without a network
    #[command(subcommand)]
    Verify(AttestationVerify),
}

/// `attestation verify ...`: one for each kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AttestationVerify {
    /// An attestation object of Apple App Attest, as `attestKey` returns it
    AppAttest(AppAttest),
    /// An assertion of Apple App Attest, as `generateAssertion` returns it
    Assertion(Assertion),
    /// A receipt of Apple App Attest, as it stands in an attestation object, or as Apple gives it for an older one
    Receipt(Receipt),
    /// A token of Google Play Integrity, or what Google said of one
    Play(Play),
    /// The certificates of a key of Android's key store, as `getCertificateChain` returns them
    AndroidKey(AndroidKey),
}

impl AttestationVerify {
    /// What is judged: a file, the thing itself in base64, or `-`.
    pub fn object(&self) -> &str {
        match self {
            Self::AppAttest(verb) => &verb.object,
            Self::Assertion(verb) => &verb.object,
            Self::Receipt(verb) => &verb.object,
            Self::Play(verb) => &verb.object,
            Self::AndroidKey(verb) => &verb.object,
        }
    }
}

/// `attestation verify app-attest ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct AppAttest {
    /// The object: a file with its bytes or their base64, the base64 itself, or `-` for standard input
    #[arg(value_name = "OBJECT")]
    pub object: String,
    /// What is expected of the app.
    #[command(flatten)]
    pub app: App,
    /// What the app gave to `attestKey`.
    #[command(flatten)]
    pub challenge: Challenge,
    /// The key id that the app sent, in base64 [default: any]
    #[arg(long, value_name = "BASE64")]
    pub key_id: Option<String>,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
    /// Root of the certificates, in PEM form [default: Apple's]
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// Root of the receipt's certificates, in PEM form [default: Apple's]
    #[arg(long, value_name = "FILE")]
    pub receipt_root: Option<PathBuf>,
    /// Leave the receipt unread
    #[arg(long)]
    pub without_receipt: bool,
}

/// `attestation verify assertion ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Assertion {
    /// The assertion: a file with its bytes or their base64, the base64 itself, or `-` for standard input
    #[arg(value_name = "OBJECT")]
    pub object: String,
    /// What is expected of the app.
    #[command(flatten)]
    pub app: App,
    /// What the app made its clientDataHash of.
    #[command(flatten)]
    pub client_data: ClientData,
    /// The attested key: in base64 as `verify app-attest` shows it, or a file with it, also in PEM form
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The highest counter so far
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub counter: u32,
}

/// `attestation verify receipt ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Receipt {
    /// The receipt: a file with its bytes or their base64, the base64 itself, or `-` for standard input
    #[arg(value_name = "OBJECT")]
    pub object: String,
    /// The app: the team's ten characters, a dot and the bundle identifier; repeat it for several
    #[arg(long = "app-id", value_name = "ID", required = true)]
    pub apps: Vec<AppId>,
    /// production or development
    #[arg(long, value_name = "ENVIRONMENT", default_value_t = Environment::Production)]
    pub environment: Environment,
    /// The attested key: in base64 as `verify app-attest` shows it, or a file with it, also in PEM form
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
    /// Root of the certificates, in PEM form [default: Apple's]
    #[arg(long, value_name = "FILE")]
    pub receipt_root: Option<PathBuf>,
}

/// What is expected of an app of Apple's platforms.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct App {
    /// The app: the team's ten characters, a dot and the bundle identifier; repeat it for several
    #[arg(long = "app-id", value_name = "ID", required = true)]
    pub apps: Vec<AppId>,
    /// production or development
    #[arg(long, value_name = "ENVIRONMENT", default_value_t = Environment::Production)]
    pub environment: Environment,
    /// How the app may have come to the device, like app-store or testflight; repeat it for several [default: all of the environment]
    #[arg(long = "category", value_name = "CATEGORY")]
    pub categories: Vec<Category>,
    /// The oldest bundle version that is accepted
    #[arg(long, value_name = "VERSION")]
    pub minimum_version: Option<BundleVersion>,
    /// Refuse what comes from systems that do not say category and version
    #[arg(long)]
    pub require_category: bool,
}

/// What `attestKey` was given: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[group(required = true, multiple = false, id = "of")]
pub struct Challenge {
    /// The challenge, as text: its SHA-256 is the clientDataHash
    #[arg(long, value_name = "TEXT")]
    pub challenge: Option<String>,
    /// The challenge's bytes in base64: their SHA-256 is the clientDataHash
    #[arg(long, value_name = "BASE64")]
    pub challenge_base64: Option<String>,
    /// The clientDataHash itself, in base64 or as 64 hexadecimal digits
    #[arg(long, value_name = "HASH")]
    pub client_data_hash: Option<String>,
}

/// What `generateAssertion` was given: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[group(required = true, multiple = false, id = "of")]
pub struct ClientData {
    /// The client data, as text: its SHA-256 is the clientDataHash
    #[arg(long, value_name = "TEXT")]
    pub client_data: Option<String>,
    /// The client data's bytes in base64: their SHA-256 is the clientDataHash
    #[arg(long, value_name = "BASE64")]
    pub client_data_base64: Option<String>,
    /// The clientDataHash itself, in base64 or as 64 hexadecimal digits
    #[arg(long, value_name = "HASH")]
    pub client_data_hash: Option<String>,
}
