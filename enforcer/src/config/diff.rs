//! What a reload would change: which keys take effect at once, and which need a restart. Pure; called by the
//! daemon's reload and by `enforcer check`.

use std::collections::BTreeSet;

use super::{Config, Listener};

/// Keys that differ, like `kernel.interfaces` or `route`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Take effect with the reload. Files that are named (certificates, key sets) are read again in any case.
    pub live: Vec<String>,
    /// Stay as they were until the daemon starts anew.
    pub restart: Vec<String>,
}

impl Changes {
    /// Whether the two files mean the same.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

/// Compares two configurations.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    // Destructured in full: a new key does not compile before somebody has decided on which side it belongs.
    let Config { kernel, listeners, upstreams, tokens, routes, http, bans, metrics, control, log } = old;
    macro_rules! compare {
        ($section:ident: $type:ident, live: [$($live:ident),*], restart: [$($restart:ident),*]) => {{
            let super::$type { $($live,)* $($restart,)* } = $section;
            $(if *$live != new.$section.$live {
                changes.live.push(concat!(stringify!($section), ".", stringify!($live)).to_owned());
            })*
            $(if *$restart != new.$section.$restart {
                changes.restart.push(concat!(stringify!($section), ".", stringify!($restart)).to_owned());
            })*
        }};
    }
    compare!(kernel: Kernel,
        live: [allow, management_ports, protected_ports, minimum_tls],
        restart: [mode, interfaces, ipv6_prefix, limits, log]);
    // The size of the tables is fixed when they are made; rates are settings.
    if kernel.limits != new.kernel.limits {
        changes.restart.retain(|key| key != "kernel.limits");
        if kernel.limits.max_sources != new.kernel.limits.max_sources {
            changes.restart.push("kernel.limits.max_sources".to_owned());
        }
        let rates = |limits: &super::KernelLimits| {
            (limits.packets, limits.connections, limits.hellos, limits.when_full)
        };
        if rates(&kernel.limits) != rates(&new.kernel.limits) {
            changes.live.push("kernel.limits".to_owned());
        }
    }
    compare_listeners(listeners, &new.listeners, &mut changes);
    for (key, differs) in [
        ("upstream", *upstreams != new.upstreams),
        ("token", *tokens != new.tokens),
        ("route", *routes != new.routes),
    ] {
        if differs {
            changes.live.push(key.to_owned());
        }
    }
    compare!(http: Http,
        live: [strict_transport_security, max_header_bytes, max_body_bytes, header_timeout, idle_timeout, drain_timeout],
        restart: [max_connections, max_connections_per_source, max_sources, workers]);
    compare!(bans: Bans,
        live: [threshold, window, duration, max_duration, dry_run],
        restart: [max_entries]);
    compare!(metrics: Metrics, live: [], restart: [address]);
    compare!(control: Control, live: [], restart: [socket, group]);
    compare!(log: Log, live: [level], restart: [format]);
    changes
}

/// Addresses are bound once; what is served there may change.
fn compare_listeners(old: &[Listener], new: &[Listener], changes: &mut Changes) {
    let addresses = |listeners: &[Listener]| listeners.iter().map(|l| l.address).collect::<BTreeSet<_>>();
    if addresses(old) != addresses(new) {
        changes.restart.push("listener.address".to_owned());
    }
    let of = |listeners: &[Listener], address| listeners.iter().find(|l| l.address == address).cloned();
    for before in old {
        if of(new, before.address).is_some_and(|after| after != *before) {
            changes.live.push("listener".to_owned());
            return;
        }
    }
}
