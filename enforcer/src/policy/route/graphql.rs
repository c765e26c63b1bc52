//! What the documents of a GraphQL route may ask for, and what some operations need besides.

use std::{collections::BTreeSet, ops::Range};

use anyhow::Result;
use http::HeaderValue;

use crate::{
    config::{self, Meant, OperationKind},
    policy::issuer::Issuer,
};

/// A GraphQL endpoint.
#[derive(Debug)]
pub struct GraphQl {
    /// Bounds and switches.
    pub config: config::GraphQl,
    needs: Box<[Needs]>,
}

/// What some operations need besides what the route asks for.
#[derive(Debug)]
pub struct Needs {
    meant: Meant,
    /// Scopes that the token must have, all of them.
    pub scopes: Box<[Box<str>]>,
    /// `WWW-Authenticate` for requests whose token lacks one of them.
    pub challenge: Option<HeaderValue>,
    /// The numbers of its limits among those of the route.
    pub limits: Range<usize>,
}

impl GraphQl {
    /// The numbers of operations' limits begin at `first`.
    pub fn new(config: &config::GraphQl, issuer: Option<&Issuer>, mut first: usize) -> Result<Self> {
        let mut needs = Vec::with_capacity(config.operations.len());
        for operation in &config.operations {
            let challenge = match issuer {
                Some(issuer) => Some(super::challenge(issuer, &operation.scopes)?),
                None => None,
            };
            let limits = first..first + operation.limits.len();
            first = limits.end;
            let scopes = operation.scopes.iter().map(|scope| scope.as_str().into()).collect();
            needs.push(Needs { meant: operation.meant.clone(), scopes, challenge, limits });
        }
        Ok(Self { config: config.clone(), needs: needs.into() })
    }

    /// What an operation needs: every entry that means it.
    pub fn needs(
        &self,
        kind: OperationKind,
        name: Option<&str>,
        roots: &BTreeSet<String>,
    ) -> impl Iterator<Item = &Needs> {
        self.needs.iter().filter(move |needs| match &needs.meant {
            Meant::Kind(meant) => *meant == kind,
            Meant::Field(meant, field) => *meant == kind && roots.contains(field),
            Meant::Name(meant) => Some(meant.as_str()) == name,
        })
    }

    /// Whether an operation is meant as a whole: by its kind, by its name, or by every field that it begins with.
    pub fn knows(&self, kind: OperationKind, name: Option<&str>, roots: &BTreeSet<String>) -> bool {
        let is_field = |root: &String| {
            let meant = |needs: &Needs| matches!(&needs.meant, Meant::Field(of, field) if *of == kind && field == root);
            self.needs.iter().any(meant)
        };
        let whole = |needs: &&Needs| !matches!(needs.meant, Meant::Field(..));
        self.needs(kind, name, roots).any(|needs| whole(&needs)) || roots.iter().all(is_field)
    }
}
