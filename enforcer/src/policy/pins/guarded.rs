//! Listeners as the pin guard lets them be: their certificates, and what stays where it refuses.
//!
//! Called for every policy, before anything else of it is in force. Who asks for a reload gets all or an error. Where files changed by
//! themselves, what is shown for the hosts of a set stays as it was if the guard refuses anything of it; what is for other hosts is
//! taken over.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Result;

use super::{Door, Pins, Switched, guard, switched};
use crate::{
    config::{self, ServerName},
    policy::{Listener, faults::Faults},
};

/// Every listener, by its configured address.
pub(in crate::policy) type Listeners = BTreeMap<SocketAddr, Listener>;

/// Reads the pins and what the listeners show, by `listen`: which gets what is switched, and the hosts for which everything stays as it was.
pub(in crate::policy) fn serve(
    config: &config::Pins,
    old: Option<&Pins>,
    now: u64,
    faults: &mut Faults,
    listen: impl Fn(&[Switched], &[ServerName], &mut Faults) -> Result<Listeners>,
) -> Result<(Listeners, Pins)> {
    let mut pins = faults.or_kept(Pins::load(config, now, old), old.cloned())?;
    let mut stays: Vec<ServerName> = Vec::new();
    let mut listeners = listen(&switched(&pins.sets), &stays, faults)?;
    loop {
        let refused = guard(&mut pins.sets, listeners.iter().map(Door::new), now);
        let mut again = false;
        for refused in refused {
            let Some(set) = pins.sets.iter_mut().find(|set| set.name == refused.set) else { continue };
            if set.hosts.iter().all(|host| stays.contains(host)) {
                // What is served was judged before, and stays whatever the guard would say of it now.
                continue;
            }
            let before = old.and_then(|old| old.sets.iter().find(|old| old.name == set.name));
            faults.or_kept(Err(refused.into()), before.map(|_| ()))?;
            set.is_switched = before.is_some_and(|before| before.is_switched);
            stays.extend_from_slice(&set.hosts);
            again = true;
        }
        if !again {
            return Ok((listeners, pins));
        }
        // What else is bad has been said.
        listeners = listen(&switched(&pins.sets), &stays, &mut Faults::forgiven())?;
    }
}
