//! Apple App Attest: whether a key lives in the Secure Enclave of a genuine device and belongs to a genuine copy of an app
//! ([`attestation::verify`], once for each key), and whether a request was made with it ([`assertion::verify`]).
//!
//! Apple signs all that is needed, so nobody is asked. The steps are those of Apple's "Validating apps that connect to your server",
//! and those that the bytes demand besides. What has to be remembered is the caller's: that a challenge is used once, and that a
//! counter only grows.

pub mod assertion;
pub mod attestation;
mod auth_data;
pub mod chain;
pub mod exchange;
mod leaf;
pub mod receipt;

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};

use super::Refused;
use crate::denial::Denial;
pub use auth_data::Extensions;
pub use leaf::{FULL_SECURITY, System};

/// A point of P-256, uncompressed: 0x04, x, y.
pub type Point = [u8; 65];

/// SHA-256 of some bytes.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Which of Apple's two worlds a key was made in: development for builds that Xcode runs, production for all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Environment {
    /// App Store, TestFlight, enterprise.
    #[default]
    Production,
    /// Builds with the entitlement `com.apple.developer.devicecheck.appattest-environment` = `development`.
    Development,
}

impl Environment {
    /// As the entitlement and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }

    /// The `aaguid` of its keys.
    fn aaguid(self) -> &'static [u8; 16] {
        match self {
            Self::Production => b"appattest\0\0\0\0\0\0\0",
            Self::Development => b"appattestdevelop",
        }
    }

    /// As receipts name it.
    fn in_receipts(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "sandbox",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Environment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "production" => Ok(Self::Production),
            "development" => Ok(Self::Development),
            _ => Err("write production or development".to_owned()),
        }
    }
}

/// An app: the team's ten characters, a dot, and the bundle identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppId {
    text: String,
    hash: [u8; 32],
}

impl AppId {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// SHA-256 of it: the `rpIdHash` of what its keys sign.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for AppId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (team, bundle) = text.split_once('.').unwrap_or((text, ""));
        let is_team = team.len() == 10 && team.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let is_bundle = !bundle.is_empty()
            && bundle.len() <= 155
            && bundle.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if is_team && is_bundle {
            return Ok(Self { text: text.to_owned(), hash: sha256(text.as_bytes()) });
        }
        Err("write the team's ten characters, a dot and the bundle identifier, like A1B2C3D4E5.com.example.app".to_owned())
    }
}

/// A bundle version (`CFBundleVersion`): numbers with dots between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleVersion(Vec<u64>);

impl FromStr for BundleVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let is_one = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|_| is_one)
        };
        let mut numbers: Vec<u64> = text
            .split('.')
            .map(number)
            .collect::<Option<_>>()
            .ok_or("write numbers with dots between, like 1.20.3")?;
        // 1.2.0 is 1.2.
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for BundleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// How an app came to its device, as systems since iOS and macOS 27 say (`apple_validation_category_01`): by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Category(pub u32);

impl Category {
    const DEVELOPMENT: Self = Self(3);
    const NONE: Self = Self(10);

    /// What the number means.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "platform",
            2 => "testflight",
            3 => "development",
            4 => "app-store",
            5 => "enterprise",
            6 => "developer-id",
            10 => "none",
            _ => "unknown",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.name())
    }
}

/// By name, or by number; one that Apple has not given a meaning is none.
impl FromStr for Category {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [1, 2, 3, 4, 5, 6, 10].map(Self);
        let is_meant = |category: &Self| category.name() == text || category.0.to_string() == text;
        known.into_iter().find(is_meant).ok_or_else(|| {
            let names = known.map(Self::name).join(", ");
            format!("write one of {names}, or its number")
        })
    }
}

/// What is expected of the way that an app came to its device, and of its version. Systems before iOS and macOS 27 say neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// The categories that are accepted; where there are none, all in development, and in production all but development, none
    /// and unknown ones.
    pub categories: Vec<Category>,
    /// The oldest version that is accepted.
    pub minimum_version: Option<BundleVersion>,
    /// Whether devices are refused whose system does not say what is asked here.
    pub required: bool,
}

impl Distribution {
    /// Whether what `extensions` say is accepted.
    pub fn judge(&self, extensions: &Extensions, environment: Environment) -> Result<(), Refused> {
        const STEP: &str = "distribution";
        let silent = |what: &str| {
            Refused::new(Denial::AppDistribution, STEP, format!("the system does not say the {what}"))
        };
        match extensions.category {
            None if self.required => return Err(silent("category")),
            Some(category) if !self.takes(category, environment) => {
                let why = format!("category {category} is not accepted in {environment}");
                return Err(Refused::new(Denial::AppDistribution, STEP, why));
            }
            None | Some(_) => {}
        }
        let Some(least) = &self.minimum_version else { return Ok(()) };
        let Some(version) = &extensions.bundle_version else {
            return if self.required { Err(silent("bundle version")) } else { Ok(()) };
        };
        if version.parse::<BundleVersion>().is_ok_and(|version| version >= *least) {
            return Ok(());
        }
        let why = format!("bundle version {version:?} is not {least} or later");
        Err(Refused::new(Denial::AppOutdated, STEP, why))
    }

    fn takes(&self, category: Category, environment: Environment) -> bool {
        if !self.categories.is_empty() {
            return self.categories.contains(&category);
        }
        let is_distributed = ![Category::DEVELOPMENT, Category::NONE].contains(&category);
        environment == Environment::Development || (is_distributed && category.name() != "unknown")
    }
}

/// The app among `apps` whose hash this is.
fn app<'a>(apps: &'a [AppId], hash: &[u8; 32]) -> Result<&'a AppId, Refused> {
    let hex = || hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    apps.iter().find(|app| app.hash == *hash).ok_or_else(|| {
        let names: Vec<&str> = apps.iter().map(AppId::as_str).collect();
        let why = format!("rpIdHash {} is of no app among: {}", hex(), names.join(", "));
        Refused::new(Denial::AppNotRecognised, "app", why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_versions_and_categories_are_read() {
        assert!("A1B2C3D4E5.com.example.app".parse::<AppId>().is_ok());
        for wrong in
            ["", "com.example.app", "A1B2C3D4E5.", "a1b2c3d4e5.com.example", "A1B2C3D4E5.com example"]
        {
            assert!(wrong.parse::<AppId>().is_err(), "{wrong}");
        }
        let version = |text: &str| text.parse::<BundleVersion>();
        assert!(version("1.10").unwrap() > version("1.9.9").unwrap());
        assert_eq!(version("1.2.0"), version("1.2"));
        assert_eq!(
            (version("0").unwrap().to_string(), version("2.0").unwrap().to_string()),
            ("0".into(), "2".into())
        );
        for wrong in ["", "1.", "1.2a", "-1", "+1", "99999999999999999999"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
        assert_eq!("app-store".parse::<Category>(), Ok(Category(4)));
        assert_eq!("10".parse::<Category>(), Ok(Category(10)));
        for wrong in ["store", "77", "04", "+4", ""] {
            assert!(wrong.parse::<Category>().is_err(), "{wrong}");
        }
        assert_eq!(Environment::Development.name().parse(), Ok(Environment::Development));
    }

    #[test]
    fn how_an_app_came_is_judged() {
        let says = |category: Option<u32>, version: Option<&str>| Extensions {
            category: category.map(Category),
            bundle_version: version.map(str::to_owned),
            ..Extensions::default()
        };
        let (production, development) = (Environment::Production, Environment::Development);
        let any = Distribution::default();
        let store = Distribution { categories: vec![Category(4)], ..any.clone() };
        let new = Distribution { minimum_version: Some("1.10".parse().unwrap()), ..any.clone() };
        let strict = Distribution { required: true, ..new.clone() };
        let refused = |denial| Some(denial);
        for (distribution, environment, extensions, expected) in [
            (&any, production, says(None, None), None),
            (&any, production, says(Some(4), None), None),
            (&any, production, says(Some(3), None), refused(Denial::AppDistribution)),
            (&any, production, says(Some(10), None), refused(Denial::AppDistribution)),
            (&any, production, says(Some(11), None), refused(Denial::AppDistribution)),
            (&any, development, says(Some(3), None), None),
            (&store, production, says(Some(2), None), refused(Denial::AppDistribution)),
            (&store, development, says(Some(3), None), refused(Denial::AppDistribution)),
            (&new, production, says(Some(4), Some("1.9")), refused(Denial::AppOutdated)),
            (&new, production, says(Some(4), Some("1.10")), None),
            (&new, production, says(Some(4), Some("beta")), refused(Denial::AppOutdated)),
            (&new, production, says(Some(4), None), None),
            (&strict, production, says(Some(4), None), refused(Denial::AppDistribution)),
            (&strict, production, says(None, Some("2")), refused(Denial::AppDistribution)),
            (&strict, production, says(Some(4), Some("2")), None),
        ] {
            let denial = distribution.judge(&extensions, environment).err().map(|refused| refused.denial);
            assert_eq!(denial, expected, "{distribution:?} {environment} {extensions:?}");
        }
    }
}
