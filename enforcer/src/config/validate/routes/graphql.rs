//! Rules for `graphql` of a route.

use std::collections::HashSet;

use super::{Rules, entries, limits, quote, tokens};
use crate::config::{
    GraphQl, Limit, Meant, Operation, OperationKind,
    file::{GraphQlSection, RouteSection},
};

/// Limits of a route and of its operations at most.
const MOST_LIMITS: usize = 64;
/// Nesting that is followed at all.
const DEEPEST: u64 = 100;

/// `certified`: some listener asks for client certificates; `of_route`: the limits of the route.
pub(super) fn graphql(
    section: &RouteSection,
    certified: bool,
    of_route: &[Limit],
    rules: &mut Rules<'_, '_>,
) -> Option<GraphQl> {
    let value = section.graphql.as_ref()?;
    let has_token = section.token.is_some();
    if let Some(upgrade) = section.upgrade.as_ref().filter(|upgrade| !upgrade.get_ref().is_empty()) {
        let problem = "what is sent after an upgrade cannot be judged";
        rules.refuse(upgrade.span(), "upgrade", problem, "remove `upgrade` or `graphql`");
    }
    let section = value.get_ref();
    let prefix = rules.path("graphql");
    let mut rules = rules.within(prefix, value.span());
    let u32_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut kinds: Vec<_> = entries(&section.kinds).map(|kind| *kind.get_ref()).collect();
    if section.kinds.is_some() {
        rules.not_empty("kinds", &section.kinds, "list a kind, or remove the key for queries and mutations");
    } else {
        kinds = vec![OperationKind::Query, OperationKind::Mutation];
    }
    let max_document =
        rules.size("max_document_bytes", &section.max_document_bytes, 16 << 10, 64..=256 << 10);
    let graphql = GraphQl {
        max_body_bytes: rules.size("max_body_bytes", &section.max_body_bytes, 128 << 10, 64..=16 << 20),
        max_document_bytes: max_document,
        max_depth: u32_of(rules.number("max_depth", &section.max_depth, 10, 1..=DEEPEST)),
        max_aliases: u32_of(rules.number("max_aliases", &section.max_aliases, 20, 0..=10_000)),
        max_batch: u32_of(rules.number("max_batch", &section.max_batch, 0, 0..=100)),
        introspection: section.introspection.as_ref().is_some_and(|told| *told.get_ref()),
        kinds,
        others: section.others.as_ref().is_none_or(|told| *told.get_ref()),
        operations: operations(section, has_token, certified, &mut rules),
    };
    let of_operations = graphql.operations.iter().flat_map(|operation| &operation.limits);
    let (mut names, mut count) = (HashSet::new(), 0);
    for limit in of_route.iter().chain(of_operations) {
        count += 1;
        if !names.insert(&limit.name) {
            let problem = format!("two limits of this route are called `{}`", limit.name);
            rules.refuse(value.span(), "operations", problem, "give one of them another `name`");
        }
    }
    if count > MOST_LIMITS {
        let problem = format!("{count} limits are too many for one route");
        rules.refuse(value.span(), "operations", problem, format!("stay within {MOST_LIMITS}"));
    }
    Some(graphql)
}

fn operations(
    section: &GraphQlSection,
    has_token: bool,
    certified: bool,
    rules: &mut Rules<'_, '_>,
) -> Vec<Operation> {
    let mut read = Vec::new();
    for (key, value) in section.operations.iter().flat_map(|operations| operations.get_ref()) {
        let prefix = rules.path(&format!("operations.{}", quote(key)));
        let mut rules = rules.within(prefix, value.span());
        let Some(meant) = Meant::read(key) else {
            let remedy = "write a kind (\"mutation\"), a kind and the field that it begins with (\"mutation.pay\"), or a name";
            rules.refuse(value.span(), "", "means no operation", remedy);
            continue;
        };
        let operation = value.get_ref();
        let scopes = tokens::scopes_of("scopes", &operation.scopes, &mut rules);
        if let Some(list) = operation.scopes.as_ref().filter(|_| !has_token && !scopes.is_empty()) {
            let problem = "scopes are read from a token, and this route asks for none";
            rules.refuse(list.span(), "scopes", problem, "add `token` or remove `scopes`");
        }
        let mut limits = Vec::new();
        limits::stacked(&operation.limits, &format!("{key}:"), has_token, certified, &mut limits, &mut rules);
        read.push(Operation { meant, scopes, limits });
    }
    read
}
