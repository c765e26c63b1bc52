//! What the documents of a GraphQL route may ask for, and what some operations need besides.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Result, bail};

use crate::{
    config::{self, Meant, OperationKind},
    policy::{demands::Demands, issuer::Issuer},
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
    /// What the token must say; only where the route needs one.
    pub demands: Option<Demands>,
    /// The numbers of its limits among those of the route.
    pub limits: Range<usize>,
}

impl GraphQl {
    /// The numbers of operations' limits begin at `first`.
    pub fn new(config: &config::GraphQl, issuer: Option<&Issuer>, mut first: usize) -> Result<Self> {
        let mut needs = Vec::with_capacity(config.operations.len());
        for operation in &config.operations {
            let demands = config::Demands { scopes: operation.scopes.clone(), ..Default::default() };
            let demands = match issuer {
                Some(issuer) => Some(Demands::new(&demands, issuer)?),
                None if demands.is_empty() => None,
                None => bail!("`scopes` of an operation without `token`: nothing could carry them"),
            };
            let limits = first..first + operation.limits.len();
            first = limits.end;
            needs.push(Needs { meant: operation.meant.clone(), demands, limits });
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
