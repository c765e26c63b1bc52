//! Rules for `[revocation]`.

use super::Rules;
use crate::config::{Bans, Metrics, Revocation, RevocationClient, file::RevocationSection};

pub(super) fn revocation(
    section: &RevocationSection,
    bans: &Bans,
    metrics: &Metrics,
    rules: &mut Rules<'_, '_>,
) -> Revocation {
    let mut rules = rules.section("revocation");
    let store = match &section.store {
        None => bans.store.as_ref().map(|path| path.with_file_name("revocations.redb")),
        Some(value) if value.get_ref().0 == "off" => None,
        Some(_) => Some(rules.file("store", &section.store, "write a path, or \"off\"")),
    };
    if let Some(value) = &section.store
        && store.is_some()
        && store == bans.store
    {
        rules.refuse(value.span(), "store", "is bans.store", "name another file");
    }
    let most = rules.number("max_entries", &section.max_entries, 1_000_000, 1..=50_000_000);
    let refresh = rules.number("max_refresh_tokens", &section.max_refresh_tokens, 1_000_000, 1..=50_000_000);
    let file =
        section.file.as_ref().map(|_| rules.file("file", &section.file, "name a file, or remove the key"));
    Revocation {
        store,
        max_entries: u32::try_from(most).unwrap_or(u32::MAX),
        max_refresh_tokens: u32::try_from(refresh).unwrap_or(u32::MAX),
        file,
        client: client(section, metrics, &mut rules),
    }
}

/// Both keys or none; and nobody's secret goes over a network in the clear.
fn client(
    section: &RevocationSection,
    metrics: &Metrics,
    rules: &mut Rules<'_, '_>,
) -> Option<RevocationClient> {
    let (id, secret) = (&section.client_id, &section.secret_file);
    let written = id.as_ref().or(secret.as_ref())?;
    if let (Some(value), None) = (id, secret) {
        let problem = "needs a `secret_file` beside it: nobody revokes without a secret";
        rules.refuse(value.span(), "client_id", problem, "name the file with its secret");
    }
    if let (None, Some(value)) = (id, secret) {
        rules.refuse(
            value.span(),
            "secret_file",
            "needs a `client_id` beside it",
            "write whose secret it is",
        );
    }
    match metrics.address {
        None => {
            let problem = "POST /revoke is served on the metrics listener, and metrics.address is \"off\"";
            rules.refuse(written.span(), "client_id", problem, "set metrics.address to one of loopback");
        }
        Some(address) if !address.ip().is_loopback() => {
            let problem = "POST /revoke would be served without TLS on an address that others reach";
            rules.refuse(written.span(), "client_id", problem, "set metrics.address to one of loopback");
        }
        Some(_) => {}
    }
    let id = id.as_ref().map(|_| rules.text("client_id", id, "write the client's name"));
    let secret = secret.as_ref().map(|_| rules.file("secret_file", secret, "name the file with the secret"));
    Some(RevocationClient { id: id?, secret: secret? })
}
