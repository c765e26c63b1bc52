//! Whether the machine has what a valid configuration names: interfaces, files, keys that fit. Called by
//! `enforcer check` and before the start; reads files, changes nothing.

use std::{fmt, fs, path::Path};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Certificate, Config};

/// Something that the configuration names and the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The key that names it, as in [`super::Error::key`].
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.problem, self.remedy)
    }
}

/// Everything that is amiss; empty is good.
pub fn check_environment(config: &Config) -> Vec<Finding> {
    let mut findings = interfaces(config);
    for (i, listener) in config.listeners.iter().enumerate() {
        for (c, certificate) in listener.certificates.iter().enumerate() {
            findings.extend(check_certificate(&format!("listener[{i}].certificates[{c}]"), certificate));
        }
    }
    for (name, token) in &config.tokens {
        findings.extend(check_key_set(&format!("token.{name}.jwks"), &token.jwks));
    }
    if let Some(group) = &config.control.group
        && !matches!(nix::unistd::Group::from_name(group), Ok(Some(_)))
    {
        findings.push(Finding {
            key: "control.group".to_owned(),
            problem: format!("there is no group `{group}`"),
            remedy: "make it with `groupadd --system`, or name another".to_owned(),
        });
    }
    findings
}

fn interfaces(config: &Config) -> Vec<Finding> {
    let Ok(present) = nix::net::if_::if_nameindex() else {
        let (problem, remedy) = ("interfaces cannot be listed".to_owned(), "run as root".to_owned());
        return vec![Finding { key: "kernel.interfaces".to_owned(), problem, remedy }];
    };
    let present: Vec<String> =
        present.iter().map(|entry| entry.name().to_string_lossy().into_owned()).collect();
    let absent = config.kernel.interfaces.iter().enumerate().filter(|(_, name)| !present.contains(name));
    let finding = |(i, name): (usize, &String)| Finding {
        key: format!("kernel.interfaces[{i}]"),
        problem: format!("there is no interface `{name}`"),
        remedy: format!("there are: {}", present.join(", ")),
    };
    absent.map(finding).collect()
}

fn check_certificate(key: &str, certificate: &Certificate) -> Option<Finding> {
    let finding = |part: &str, path: &Path, problem: String, remedy: &str| {
        Some(Finding {
            key: format!("{key}.{part}"),
            problem: format!("{}: {problem}", path.display()),
            remedy: remedy.to_owned(),
        })
    };
    let (chain_path, key_path) = (&certificate.chain, &certificate.key);
    let chain_pem = match fs::read(chain_path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return finding("chain", chain_path, error.to_string(), "name a file that this user may read");
        }
    };
    let key_pem = match fs::read(key_path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return finding("key", key_path, error.to_string(), "name a file that this user may read");
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        _ => {
            return finding(
                "chain",
                chain_path,
                "holds no PEM certificate".to_owned(),
                "put the leaf first, then its issuers",
            );
        }
    };
    let Ok(private) = PrivateKeyDer::from_pem_slice(&key_pem) else {
        return finding(
            "key",
            key_path,
            "holds no PEM private key".to_owned(),
            "use PKCS#8, PKCS#1 or SEC1, without a passphrase",
        );
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, private, &provider) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => finding(
            "key",
            key_path,
            format!("does not belong to the certificate in {}", chain_path.display()),
            "name the key that the certificate was issued for",
        ),
        Err(error) => finding("chain", chain_path, error.to_string(), "replace the certificate or the key"),
    }
}

fn check_key_set(key: &str, path: &Path) -> Option<Finding> {
    let finding = |problem: String, remedy: &str| {
        let problem = format!("{}: {problem}", path.display());
        Some(Finding { key: key.to_owned(), problem, remedy: remedy.to_owned() })
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return finding(error.to_string(), "name a file that this user may read"),
    };
    let remedy = "fetch the issuer's JWK set (RFC 7517 section 5)";
    match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Err(error) => finding(format!("is not JSON: {error}"), remedy),
        Ok(set) => match set.get("keys").and_then(|keys| keys.as_array()) {
            None => finding("has no list `keys`".to_owned(), remedy),
            Some(keys) if keys.is_empty() => finding("holds no key".to_owned(), remedy),
            Some(_) => None,
        },
    }
}
