//! Whether what a GraphQL request asks for is permitted: bounds, kinds, and what single operations need.
//!
//! Comes after the checks of the route, because the body has to be read for it. A grant for a GraphQL route is worth nothing before
//! [`judge`] has said yes. The body goes on to the server as it came.

mod document;
mod request;

use http::{HeaderValue, Method, header::ALLOW};

use super::{Grant, Refusal, demands, facts::RequestFacts, limit, limit::Payer, token::binding};
use crate::{clock::KernelTime, config::OperationKind, denial::Denial, policy::route::graphql::GraphQl};
use document::Operation;

/// Judges the body of a request that the checks of its route let through; `query` is that of its target.
pub fn judge(
    grant: &mut Grant,
    facts: &RequestFacts<'_>,
    query: Option<&str>,
    body: &[u8],
    now: KernelTime,
) -> Result<(), Refusal> {
    let route = std::sync::Arc::clone(&grant.route);
    let Some(graphql) = &route.graphql else { return Ok(()) };
    match pass(grant, graphql, facts, query, body, now) {
        Ok(()) => {
            grant.is_judged = true;
            Ok(())
        }
        Err(refusal) => {
            let refusal = match &route.tokens {
                Some(tokens) => binding::challenge(refusal, tokens, facts.headers),
                None => refusal,
            };
            Err(refusal.at(&route, std::mem::take(&mut grant.standing)))
        }
    }
}

fn pass(
    grant: &mut Grant,
    graphql: &GraphQl,
    facts: &RequestFacts<'_>,
    query: Option<&str>,
    body: &[u8],
    now: KernelTime,
) -> Result<(), Refusal> {
    let by_url = *facts.method == Method::GET || *facts.method == Method::HEAD;
    let most = graphql.config.max_batch as usize;
    let asked = if by_url {
        // Servers may read a body that nobody expects.
        let asked = request::of_url(query)
            .and_then(|asked| if body.is_empty() { Ok(vec![asked]) } else { Err(Denial::GraphqlMalformed) });
        asked.map_err(Refusal::plain)?
    } else if *facts.method == Method::POST {
        request::of_body(facts.headers, query, body, most).map_err(Refusal::plain)?
    } else {
        return Err(not_allowed("GET, HEAD, POST"));
    };
    for one in asked {
        if one.document.len() as u64 > graphql.config.max_document_bytes {
            return Err(Refusal::plain(Denial::GraphqlTooLarge));
        }
        let operation = document::read(&one.document, one.operation.as_deref()).map_err(Refusal::plain)?;
        // What may be linked to must not change anything (GraphQL over HTTP section 6.2).
        if by_url && operation.kind != OperationKind::Query {
            return Err(not_allowed("POST"));
        }
        bounds(graphql, &operation).map_err(Refusal::plain)?;
        needs(grant, graphql, facts, &operation, now)?;
    }
    Ok(())
}

fn not_allowed(methods: &'static str) -> Refusal {
    let allow = Some((ALLOW, HeaderValue::from_static(methods)));
    Refusal::plain(Denial::MethodNotAllowed).with(allow)
}

fn bounds(graphql: &GraphQl, operation: &Operation) -> Result<(), Denial> {
    let config = &graphql.config;
    if operation.depth > config.max_depth as usize {
        return Err(Denial::GraphqlDepth);
    }
    if operation.aliases > config.max_aliases as usize {
        return Err(Denial::GraphqlAliases);
    }
    if operation.introspects && !config.introspection {
        return Err(Denial::GraphqlIntrospection);
    }
    let known = || graphql.knows(operation.kind, operation.name.as_deref(), &operation.roots);
    if !config.kinds.contains(&operation.kind) || !config.others && !known() {
        return Err(Denial::GraphqlOperation);
    }
    Ok(())
}

/// Scopes of every entry that means the operation first, so that whoever lacks one pays for nothing.
fn needs(
    grant: &mut Grant,
    graphql: &GraphQl,
    facts: &RequestFacts<'_>,
    operation: &Operation,
    now: KernelTime,
) -> Result<(), Refusal> {
    let meant = || graphql.needs(operation.kind, operation.name.as_deref(), &operation.roots);
    for needs in meant() {
        if let (Some(demands), Some(claims)) = (&needs.demands, &grant.claims) {
            demands::scopes(demands, facts.method, claims)?;
        }
    }
    let claims = grant.claims.clone();
    let subject = claims.as_deref().and_then(|claims| claims.subject.as_deref());
    let device: Option<Box<str>> = grant.device().map(Into::into);
    let payer = Payer { v6_mask: grant.v6_mask, facts, subject, device: device.as_deref() };
    let route = std::sync::Arc::clone(&grant.route);
    for needs in meant() {
        limit::check(route.limits.some(&needs.limits), &route, &payer, now, &mut grant.standing)?;
    }
    Ok(())
}
