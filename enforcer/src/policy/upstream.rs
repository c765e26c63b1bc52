//! A group of servers as requests meet it: the configuration, what connections are encrypted with, and how the servers are.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use anyhow::{Context as _, Result};
use http::uri::Scheme;

use super::{
    faults::Faults,
    health::Health,
    tls::servers::{self, Encryption},
};
use crate::config;

/// A group of servers as a policy holds it: gone with the last policy that has it, while requests under way and connections
/// hold the servers themselves.
#[derive(Debug)]
pub struct Upstream(Arc<Servers>);

impl Upstream {
    /// The servers themselves.
    pub const fn servers(&self) -> &Arc<Servers> {
        &self.0
    }
}

impl Deref for Upstream {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.0
    }
}

/// Servers that do the same, with the name that logs use.
#[derive(Debug)]
pub struct Servers {
    /// As below `[upstream]`.
    pub name: String,
    /// Servers and time limits.
    pub config: config::Upstream,
    /// For servers with `https://`; there is none without it.
    pub encryption: Option<Encryption>,
    /// How the servers are.
    pub health: Arc<Health>,
}

/// Makes all of them. One that did not change is kept, with the connections that workers have for it; the state of its
/// servers is kept as long as those are the same.
pub(super) fn build(
    configured: &BTreeMap<String, config::Upstream>,
    old: Option<&BTreeMap<String, Arc<Upstream>>>,
    faults: &mut Faults,
) -> Result<BTreeMap<String, Arc<Upstream>>> {
    let mut built = BTreeMap::new();
    for (name, config) in configured {
        let encrypted = config.servers.iter().any(|server| server.scheme() == Some(&Scheme::HTTPS));
        let kept = old.and_then(|old| old.get(name));
        let encryption = match encrypted {
            true => {
                let read = servers::connect(&config.tls).with_context(|| format!("upstream.{name}.tls"));
                faults.or_kept(read.map(Some), kept.map(|kept| kept.encryption.clone()))?
            }
            false => None,
        };
        let identity = |encryption: &Option<Encryption>| encryption.as_ref().map(|one| one.identity);
        let upstream = match kept {
            Some(kept) if kept.config == *config && identity(&kept.encryption) == identity(&encryption) => {
                Arc::clone(kept)
            }
            _ => {
                let same = kept.filter(|kept| kept.config.servers == config.servers);
                let health = same.map_or_else(
                    || Arc::new(Health::new(config.servers.len())),
                    |kept| Arc::clone(&kept.health),
                );
                let servers = Servers { name: name.clone(), config: config.clone(), encryption, health };
                Arc::new(Upstream(Arc::new(servers)))
            }
        };
        built.insert(name.clone(), upstream);
    }
    Ok(built)
}
