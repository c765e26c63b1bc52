//! Rules for whose tokens are accepted: `[token.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{Rules, entries, quote};
use crate::config::{Token, TokenAlgorithm, file::File, named::Named};

pub(super) fn tokens(file: &File, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Token> {
    let read = |(name, token): (&String, &Spanned<_>)| {
        let section: &crate::config::file::TokenSection = token.get_ref();
        let mut rules = rules.within(format!("token.{}", quote(name)), token.span());
        rules.name(name);
        rules.not_empty("audience", &section.audience, "list what `aud` must contain one of, like [\"api\"]");
        let mut algorithms: Vec<_> = entries(&section.algorithms).map(|name| *name.get_ref()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        if section.algorithms.is_some() {
            rules.not_empty("algorithms", &section.algorithms, "list one, or remove the key to accept both");
        } else {
            algorithms = vec![TokenAlgorithm::Rs256, TokenAlgorithm::Es256];
        }
        if let Some((place, path)) = rules.named_file("jwks", &section.jwks) {
            rules.errors.named.push((place, Named::KeySet(path, algorithms.clone())));
        }
        let day = Duration::from_secs(86_400);
        let token = Token {
            issuer: rules.text("issuer", &section.issuer, "write what `iss` must be"),
            audience: rules.texts("audience", &section.audience),
            jwks: rules.file("jwks", &section.jwks, "name the file with the JWK set"),
            algorithms,
            leeway: rules.duration("leeway", &section.leeway, Duration::from_secs(60), 0..=300_000),
            max_lifetime: rules.duration("max_lifetime", &section.max_lifetime, day, 1_000..=31_536_000_000),
        };
        (name.clone(), token)
    };
    file.token.iter().map(read).collect()
}
