//! What can be typed behind `attestation verify play` and `android-key`.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;

use crate::{
    attestation::{
        android_key::description::{Boot, Security},
        play::verdict::{AppAccess, Label, PlayProtect, digest},
    },
    cli::args::moment,
    control::span,
};

/// An app of Google Play, as its publisher knows it.
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Signed {
    /// The app's package; repeat it for several
    #[arg(long = "package", value_name = "PACKAGE", required = true)]
    pub packages: Vec<String>,
    /// SHA-256 of a certificate that it is signed with, as the Play Console or `apksigner` shows it: hexadecimal digits, with colons or
    /// without, or base64; repeat it for several
    #[arg(long = "certificate", value_name = "DIGEST", required = true, value_parser = certificate)]
    pub certificates: Vec<Sha256>,
    /// The oldest version (versionCode) that is accepted
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_version: u64,
}

/// 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

fn certificate(text: &str) -> Result<Sha256, String> {
    let digits: String = text.chars().filter(|letter| *letter != ':').collect();
    let of_digits =
        |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16).unwrap_or(0);
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Sha256(std::array::from_fn(|at| of_digits(at * 2))));
    }
    let url_safe = text.replace('+', "-").replace('/', "_");
    digest(&url_safe)
        .map(Sha256)
        .ok_or_else(|| "write 64 hexadecimal digits, or base64 of 32 bytes".to_owned())
}

/// `attestation verify play ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct Play {
    /// A classic token, or a verdict in JSON as `decodeIntegrityToken` answers it: a file, the token itself, or `-` for standard input
    #[arg(value_name = "TOKEN")]
    pub object: String,
    /// The app.
    #[command(flatten)]
    pub app: Signed,
    /// The file with the app's keys, TOML with `decryption_key` and `verification_key` from the Play Console; for tokens
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// What the request was bound to.
    #[command(flatten)]
    pub bound: Bound,
    /// A label that the device has to have, like device or strong; repeat it for several; `none` for none
    #[arg(long = "label", value_name = "LABEL", default_value = "device", value_parser = label)]
    pub labels: Vec<Wanted>,
    /// Accept users who have the app from elsewhere than Google Play
    #[arg(long)]
    pub unlicensed: bool,
    /// How old the verdict may be
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = span::parse)]
    pub max_age: Duration,
    /// Accept answers that were chosen for testers
    #[arg(long)]
    pub testing: bool,
    /// The highest level of activity that is accepted, 1 to 4 [default: any]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub max_activity: Option<u8>,
    /// What Play Protect may not say, like HIGH_RISK; repeat it for several
    #[arg(long, value_name = "WORD", value_parser = play_protect)]
    pub refuse_play_protect: Vec<PlayProtect>,
    /// What other apps may not be able to do, like UNKNOWN_CONTROLLING; repeat it for several
    #[arg(long, value_name = "WORD", value_parser = access)]
    pub refuse_access: Vec<AppAccess>,
    /// Accept verdicts in which Google has not evaluated what is refused by these
    #[arg(long)]
    pub unevaluated: bool,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
}

/// One of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[group(required = true, multiple = false, id = "bound")]
pub struct Bound {
    /// The nonce of a classic request, as it was issued
    #[arg(long, value_name = "TEXT")]
    pub nonce: Option<String>,
    /// The hash of a standard request
    #[arg(long, value_name = "TEXT")]
    pub request_hash: Option<String>,
}

/// A label, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(pub Option<Label>);

fn label(text: &str) -> Result<Wanted, String> {
    if text == "none" {
        return Ok(Wanted(None));
    }
    let short = |label: &&Label| label.name() == format!("MEETS_{}_INTEGRITY", text.to_ascii_uppercase());
    let found = Label::of_name(text).or_else(|| Label::ALL.iter().find(short).copied());
    found
        .map(|label| Wanted(Some(label)))
        .ok_or_else(|| "write basic, device, strong, virtual, or none".to_owned())
}

fn play_protect(text: &str) -> Result<PlayProtect, String> {
    PlayProtect::of_name(text).ok_or_else(|| names(PlayProtect::ALL.iter().map(|word| word.name())))
}

fn access(text: &str) -> Result<AppAccess, String> {
    AppAccess::of_name(text).ok_or_else(|| names(AppAccess::ALL.iter().map(|word| word.name())))
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    format!("write one of {}", names.collect::<Vec<_>>().join(", "))
}

/// `attestation verify android-key ...`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct AndroidKey {
    /// The chain, leaf first: certificates in PEM form, or in base64 and each on a line of its own; a file, or `-` for standard input
    #[arg(value_name = "CHAIN")]
    pub object: String,
    /// The app.
    #[command(flatten)]
    pub app: Signed,
    /// What the key was asked for with.
    #[command(flatten)]
    pub challenge: KeyChallenge,
    /// Where the key has to live: software, trusted_environment or strong_box
    #[arg(long, value_name = "WHERE", default_value = "trusted_environment", value_parser = security)]
    pub security: Security,
    /// The worst that may have been started: verified, self_signed, unverified or failed
    #[arg(long, value_name = "STATE", default_value = "verified", value_parser = boot)]
    pub boot: Boot,
    /// A key (`verifiedBootKey`) that owners may have signed their system with, 64 hexadecimal digits; may be repeated [default: any]
    #[arg(long = "boot-key", value_name = "SHA256", value_parser = certificate)]
    pub boot_keys: Vec<Sha256>,
    /// Accept devices whose boot loader is unlocked
    #[arg(long)]
    pub unlocked: bool,
    /// The oldest patch level that is accepted, like 202511 [default: any]
    #[arg(long, value_name = "YYYYMM", default_value_t = 0)]
    pub min_patch: u32,
    /// Accept keys that are not for signatures
    #[arg(long)]
    pub any_purpose: bool,
    /// Accept certificates that makers put into devices and that have run out
    #[arg(long)]
    pub expired_factory: bool,
    /// Google's list of revoked certificates, as android.googleapis.com/attestation/status has it
    #[arg(long, value_name = "FILE")]
    pub revocations: Option<PathBuf>,
    /// Roots in PEM form [default: Google's two]
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// When: a date like 2026-01-31T12:00:00Z, or seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<u64>,
}

/// One of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[group(required = true, multiple = false, id = "key_challenge")]
pub struct KeyChallenge {
    /// What was given to `setAttestationChallenge`, as text
    #[arg(long, value_name = "TEXT")]
    pub challenge: Option<String>,
    /// The same in base64
    #[arg(long, value_name = "BASE64")]
    pub challenge_base64: Option<String>,
}

fn security(text: &str) -> Result<Security, String> {
    Security::of_name(text).ok_or_else(|| "write software, trusted_environment or strong_box".to_owned())
}

fn boot(text: &str) -> Result<Boot, String> {
    Boot::of_name(text).ok_or_else(|| "write verified, self_signed, unverified or failed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_tools_show_them() {
        let plain = "3C".repeat(32);
        let colons = vec!["3c"; 32].join(":");
        for text in [
            plain.as_str(),
            &colons,
            "PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw",
            "PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw=",
        ] {
            assert_eq!(certificate(text), Ok(Sha256([0x3c; 32])), "{text}");
        }
        for text in ["", "3c", &plain[..62], "é"] {
            assert!(certificate(text).is_err(), "{text}");
        }
        assert_eq!(label("strong"), Ok(Wanted(Some(Label::Strong))));
        assert_eq!(label("MEETS_BASIC_INTEGRITY"), Ok(Wanted(Some(Label::Basic))));
        assert!(label("best").is_err() && label("none") == Ok(Wanted(None)));
    }
}
