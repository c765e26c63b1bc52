//! `graphql` of a route: what documents may ask for.

use super::Limit;

/// A GraphQL endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphQl {
    /// `max_body_bytes` of a request, default 128 KiB.
    pub max_body_bytes: u64,
    /// `max_document_bytes`, default 16 KiB.
    pub max_document_bytes: u64,
    /// `max_depth`, default 10.
    pub max_depth: u32,
    /// `max_aliases`, default 20.
    pub max_aliases: u32,
    /// `max_batch`: requests in one, default 0: none.
    pub max_batch: u32,
    /// `introspection`, default false.
    pub introspection: bool,
    /// `kinds`, default queries and mutations.
    pub kinds: Vec<OperationKind>,
    /// `others`: whether operations pass for which nothing in `operations` is meant, default true.
    pub others: bool,
    /// `operations`: more that some operations need.
    pub operations: Vec<Operation>,
}

/// What operations do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Read.
    Query,
    /// Change something.
    Mutation,
    /// Wait for events.
    Subscription,
}

/// What some operations need besides what the route asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Which ones.
    pub meant: Meant,
    /// `scopes`: all of them must be in the token.
    pub scopes: Vec<String>,
    /// `limits`, charged after those of the route.
    pub limits: Vec<Limit>,
}

/// Which operations are meant: a key of `operations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// `mutation`: all of a kind.
    Kind(OperationKind),
    /// `mutation.pay`: all of a kind that begin with a field.
    Field(OperationKind, String),
    /// `GetOrders`: all that their clients call so.
    Name(String),
}

impl Meant {
    /// Reads a key of `operations`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let kind = |text: &str| match text {
            "query" => Some(OperationKind::Query),
            "mutation" => Some(OperationKind::Mutation),
            "subscription" => Some(OperationKind::Subscription),
            _ => None,
        };
        // GraphQL section 2.1.9.
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match text.split_once('.') {
            Some((before, field)) => {
                kind(before).filter(|_| is_name(field)).map(|kind| Self::Field(kind, field.to_owned()))
            }
            None => kind(text).map(Self::Kind).or_else(|| is_name(text).then(|| Self::Name(text.to_owned()))),
        }
    }
}
