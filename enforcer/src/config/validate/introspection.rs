//! Rules for `introspection` of `[token.NAME]`.

use std::time::Duration;

use super::Rules;
use crate::config::{
    Introspection, TlsFile,
    file::{IntrospectionSection, Key},
    named::Named,
};

pub(super) fn introspection(
    value: &Key<IntrospectionSection>,
    rules: &mut Rules<'_, '_>,
) -> Option<Introspection> {
    let value = value.as_ref()?;
    let section = value.get_ref();
    let prefix = rules.path("introspection");
    let mut rules = rules.within(prefix, value.span());
    let url = rules.text("url", &section.url, "write where tokens are asked about, by https");
    let address = match url.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") && !url.contains(['@', '#']) => uri,
        Ok(_) | Err(_) => {
            if let Some(value) = section.url.as_ref().filter(|_| !url.is_empty()) {
                let problem = format!("`{}` is no https address", url.escape_debug());
                let remedy = "write one like \"https://id.example.com/introspect\"";
                rules.refuse(value.span(), "url", problem, remedy);
            }
            http::Uri::default()
        }
    };
    let authorities = section.authorities.as_ref().map(|_| {
        if let Some((place, path)) = rules.named_file("authorities", &section.authorities) {
            rules.errors.named.push((place, Named::TlsFile(path, TlsFile::ServerAuthorities)));
        }
        rules.file("authorities", &section.authorities, "name a PEM file with roots")
    });
    let u32_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let seconds = Duration::from_secs;
    let is = |key: &Key<bool>| key.as_ref().is_some_and(|value| *value.get_ref());
    Some(Introspection {
        address,
        client_id: rules.text(
            "client_id",
            &section.client_id,
            "write the name that the server knows this client by",
        ),
        secret: rules.file("secret_file", &section.secret_file, "name the file with the client's secret"),
        authorities,
        private_addresses: is(&section.private_addresses),
        timeout: rules.duration("timeout", &section.timeout, seconds(2), 100..=10_000),
        positive: rules.duration("cache", &section.cache, seconds(60), 1_000..=3_600_000),
        negative: rules.duration("negative_cache", &section.negative_cache, seconds(10), 1_000..=3_600_000),
        max_entries: u32_of(rules.number("max_entries", &section.max_entries, 65_536, 16..=16_777_216)),
        max_calls: u32_of(rules.number("max_calls", &section.max_calls, 64, 1..=10_000)),
        without_audience: is(&section.without_audience),
    })
}
