//! Rules for `[attestation.android_key]`, and for the apps of Android.

use toml::Spanned;

use super::{Rules, entries, file};
use crate::config::{
    AndroidApps, AndroidKey, BootState, KeySecurity, TlsFile,
    file::{AndroidKeySection, Key, List},
    value::{Number, Text},
};

/// What a TOML file can hold.
const MOST_VERSION: u64 = i64::MAX.cast_unsigned();

pub(super) fn android_key(
    section: &Key<AndroidKeySection>,
    has_play: bool,
    rules: &mut Rules<'_, '_>,
) -> Option<AndroidKey> {
    let section = section.as_ref()?.get_ref();
    let mut rules = rules.section("android_key");
    let require_play = section.require_play.as_ref().filter(|one| *one.get_ref());
    if let Some(value) = require_play.filter(|_| !has_play) {
        let problem = "there is no [attestation.play]: nothing could be required of a token";
        rules.refuse(value.span(), "require_play", problem, "add the section, or remove the key");
    }
    Some(AndroidKey {
        apps: apps(&section.packages, &section.certificates, &section.min_version, &mut rules),
        security: section.security.as_ref().map_or(KeySecurity::TrustedEnvironment, |one| *one.get_ref()),
        boot: section.boot.as_ref().map_or(BootState::Verified, |one| *one.get_ref()),
        boot_keys: boot_keys(section, &mut rules),
        min_patch: patch(&section.min_patch, &mut rules),
        expired_factory: section.expired_factory.as_ref().is_some_and(|one| *one.get_ref()),
        require_play: require_play.is_some(),
        revocations: file("revocations", &section.revocations, TlsFile::AndroidRevocations, &mut rules),
        root: file("root", &section.root, TlsFile::AndroidRoots, &mut rules),
    })
}

pub(super) fn apps(
    packages: &List<Text<String>>,
    certificates: &List<Text<String>>,
    min_version: &Key<Number>,
    rules: &mut Rules<'_, '_>,
) -> AndroidApps {
    rules.not_empty("packages", packages, "list packages, like \"com.example.app\"");
    for entry in entries(packages) {
        let name = &entry.get_ref().0;
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_';
        if !name.is_empty() && (name.len() > 255 || !name.contains('.') || !name.bytes().all(good)) {
            let problem = format!("`{}` is no name of a package", name.escape_debug());
            rules.refuse_entry(entry.span(), "packages", problem, "write it like \"com.example.app\"");
        }
    }
    let remedy = "list SHA-256 digests as `apksigner verify --print-certs` and the Play Console show them";
    rules.not_empty("certificates", certificates, remedy);
    AndroidApps {
        packages: rules.texts("packages", packages),
        certificates: digests("certificates", certificates, rules),
        min_version: rules.number("min_version", min_version, 0, 0..=MOST_VERSION),
    }
}

fn digests(key: &str, value: &List<Text<String>>, rules: &mut Rules<'_, '_>) -> Vec<[u8; 32]> {
    let mut digests = Vec::new();
    for entry in entries(value) {
        match sha256(&entry.get_ref().0) {
            Some(digest) => digests.push(digest),
            None => {
                let problem = format!("`{}` is no SHA-256", entry.get_ref().0.escape_debug());
                let remedy = "write 64 hexadecimal digits, with colons or without";
                rules.refuse_entry(entry.span(), key, problem, remedy);
            }
        }
    }
    digests
}

/// Anybody can sign a system for a device of their own and lock its boot loader, so it matters who did.
fn boot_keys(section: &AndroidKeySection, rules: &mut Rules<'_, '_>) -> Vec<[u8; 32]> {
    const KEY: &str = "boot_keys";
    let self_signed = section.boot.as_ref().filter(|one| *one.get_ref() == BootState::SelfSigned);
    match (self_signed, &section.boot_keys) {
        (Some(boot), None) => {
            let problem =
                "without `boot_keys` any system would do that its owner has signed, whatever it does";
            let remedy = "list in boot_keys the keys of the systems that you trust (`verifiedBootKey`, which `enforcer attestation verify android-key` shows), or remove the key";
            rules.refuse(boot.span(), "boot", problem, remedy);
        }
        (None, Some(list)) => {
            let remedy = "write boot = \"self-signed\" beside it, or remove the key";
            rules.refuse(list.span(), KEY, "without effect: only what makers have signed is taken", remedy);
        }
        (Some(_), Some(list)) if list.get_ref().is_empty() => {
            rules.refuse(list.span(), KEY, "empty", "list a key, or remove both keys");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    digests(KEY, &section.boot_keys, rules)
}

/// Year and month, or 0.
fn patch(value: &Key<Number>, rules: &mut Rules<'_, '_>) -> u32 {
    let number = rules.number("min_patch", value, 0, 0..=209_912);
    let is_month = number >= 201_001 && (1..=12).contains(&(number % 100));
    if number != 0 && !is_month {
        let span = value.as_ref().map_or(rules.span.clone(), Spanned::span);
        let problem = format!("{number} is no year and month");
        rules.refuse(span, "min_patch", problem, "write it like 202511, or 0 for any");
    }
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (to, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *to = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}
