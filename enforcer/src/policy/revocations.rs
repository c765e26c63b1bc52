//! What is revoked by a file, and who may revoke by request: `[revocation]` as requests meet it.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA256, digest},
};
use serde_json::{Map, Value};

use crate::strict_json;
use crate::{
    config::{self, Config},
    revoked::{FOREVER, Kind, Listed, Mark, Marker, Revoked, Terms, WHENEVER},
};

/// Bytes of a file, at most: a million lines have less.
const MOST_BYTES: u64 = 256 << 20;
/// Bytes of a line, at most.
const MOST_LINE: usize = 4_096;
/// Bytes of a secret, at least.
const SHORTEST: usize = 16;

/// Who may revoke by request.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's name.
    pub id: String,
    /// SHA-256 of its secret.
    digest: digest::Digest,
}

impl Client {
    /// Reads the secret: the first line of its file.
    pub fn load(config: &config::RevocationClient) -> Result<Self> {
        let path = &config.secret;
        let context = || format!("revocation.secret_file {}", path.display());
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(4_096).read_to_string(&mut text)).with_context(context)?;
        let secret = text.lines().next().unwrap_or_default().trim();
        if secret.len() < SHORTEST {
            bail!(
                "revocation.secret_file {}: less than {SHORTEST} bytes; make one with `openssl rand -hex 32`",
                path.display()
            );
        }
        Ok(Self { id: config.id.clone(), digest: digest(&SHA256, secret.as_bytes()) })
    }

    /// Whether somebody is this client. Takes the same time for every secret.
    pub fn is(&self, id: &str, secret: &str) -> bool {
        let given = digest(&SHA256, secret.as_bytes());
        verify_slices_are_equal(given.as_ref(), self.digest.as_ref()).is_ok() && id == self.id
    }
}

/// Reads the file that lists revocations and puts it in force, unless it is the same as before.
pub(super) fn list(config: &Config, revoked: &Revoked) -> Result<()> {
    let Some(path) = &config.revocation.file else {
        if revoked.listed().count > 0 {
            revoked.list(Listed::new(&[], Vec::new()));
        }
        return Ok(());
    };
    let issuers: BTreeMap<&str, &str> =
        config.tokens.iter().map(|(name, token)| (name.as_str(), token.issuer.as_str())).collect();
    let bytes = read(path).with_context(|| format!("revocation.file {}", path.display()))?;
    let mut state = digest::Context::new(&SHA256);
    state.update(format!("{issuers:?}\0").as_bytes());
    state.update(&bytes);
    let state = state.finish().as_ref().to_vec();
    if revoked.listed().digest == state {
        return Ok(());
    }
    let most = config.revocation.max_entries as usize;
    let entries = entries(&bytes, &issuers, revoked.marker(), most)
        .with_context(|| format!("revocation.file {}", path.display()))?;
    revoked.list(Listed::new(&entries, state));
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MOST_BYTES, "more than {} MiB", MOST_BYTES >> 20);
    Ok(bytes)
}

/// One JSON object per line, as `{"jti": "x", "issuer": "main"}`; empty lines and those that begin with `#` say nothing.
fn entries(
    bytes: &[u8],
    issuers: &BTreeMap<&str, &str>,
    marker: &Marker,
    most: usize,
) -> Result<Vec<(Mark, Terms)>> {
    let mut entries = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let entry = entry(line, issuers, marker).with_context(|| format!("line {}", number + 1))?;
        ensure!(entries.len() < most, "line {}: more than revocation.max_entries ({most})", number + 1);
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(line: &[u8], issuers: &BTreeMap<&str, &str>, marker: &Marker) -> Result<(Mark, Terms)> {
    ensure!(line.len() <= MOST_LINE, "longer than {MOST_LINE} bytes");
    let mut object = strict_json::object(line).context("not a JSON object like {\"jti\": \"...\"}")?;
    let mut named = None;
    for kind in Kind::ALL {
        let Some(value) = object.remove(kind.label()) else { continue };
        ensure!(named.is_none(), "more than one of jti, sid, subject, device, kid, token and every");
        let text = match (kind, value) {
            (Kind::Every, Value::Bool(true)) => String::new(),
            (Kind::Every, _) => bail!("`every` is true, or not there"),
            (_, Value::String(text)) if !text.is_empty() => text,
            _ => bail!("`{}` is no text", kind.label()),
        };
        named = Some((kind, text));
    }
    let (kind, text) = named.context("none of jti, sid, subject, device, kid, token and every")?;
    let mut mark = marker.mark(kind, text.as_bytes());
    match object.remove("issuer") {
        None => {}
        Some(Value::String(name)) => {
            let iss = issuers.get(name.as_str()).with_context(|| format!("there is no [token.{name}]"))?;
            mark = mark.of(marker.issuer(iss));
        }
        Some(_) => bail!("`issuer` is no text: write the NAME of [token.NAME]"),
    }
    let before = second(&mut object, "issued_before")?;
    if before.is_none() && kind.goes_on() {
        bail!("a {} goes on: say with `issued_before` which of its tokens are meant", kind.label());
    }
    let until = second(&mut object, "until")?;
    if let Some(unknown) = object.keys().next() {
        bail!("`{unknown}` means nothing here");
    }
    Ok((mark, Terms { until: until.unwrap_or(FOREVER), before: before.unwrap_or(WHENEVER) }))
}

fn second(object: &mut Map<String, Value>, name: &str) -> Result<Option<u32>> {
    let Some(value) = object.remove(name) else { return Ok(None) };
    let second = value.as_u64().and_then(|second| u32::try_from(second).ok());
    second
        .filter(|second| *second > 0)
        .with_context(|| format!("`{name}` is no time in seconds since 1970"))
        .map(Some)
}
