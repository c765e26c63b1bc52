//! Listening sockets that outlive the daemon: the service manager keeps them (sd_notify(3), `FDSTORE=1`) and gives them to the next
//! one (sd_listen_fds(3)), with the connections that came meanwhile. Without a service manager, or with one that keeps
//! nothing, they end with the daemon. A socket unit's are taken the same way.

use std::{net::TcpListener, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// What was kept for this process.
pub(super) fn kept() -> Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(given.len());
    for number in 0..given.len() {
        let socket = given.take_tcp_listener(number).with_context(|| {
            format!("descriptor {number} of the service manager is no listening TCP socket; remove it from the socket unit")
        })?;
        sockets.extend(socket);
    }
    debug!(sockets = sockets.len(), "sockets that the service manager kept");
    Ok(sockets)
}

/// Has them kept for the next process.
pub(super) fn keep(sockets: &[TcpListener]) {
    for socket in sockets {
        let Some(name) = name(socket) else { continue };
        let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify_with_fds(&states, &[socket.as_fd()]) {
            warn!(%error, "the service manager cannot be given a listening socket");
            return;
        }
    }
}

/// Nobody listens there any more: connections to them shall be refused, not wait.
pub(super) fn let_go(sockets: Vec<TcpListener>) {
    for socket in sockets {
        let Some(name) = name(&socket) else { continue };
        warn!(socket = name, "a socket that was kept belongs to no listener: it is closed");
        let states = [NotifyState::FdStoreRemove, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify(&states) {
            warn!(%error, "the service manager cannot be told");
        }
    }
}

/// The name of a socket in the store, in which a colon is none of its characters.
fn name(socket: &TcpListener) -> Option<String> {
    let address = socket.local_addr().ok()?;
    Some(format!("listener-{}", address.to_string().replace(':', "_")))
}
