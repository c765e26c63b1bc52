//! Listening sockets, one per worker on the same address; or those that the service manager has kept (sd_listen_fds(3)), with
//! the connections that wait in them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::fault;

/// Connections that the kernel holds until they are accepted; it caps this by `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Bound {
    /// With the real port.
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
    /// Whether they were there before.
    pub(super) adopted: bool,
}

/// Takes the sockets of `address` out of `kept`, and at least one for each of `count` workers: workers share what they must.
/// Where there is none they are bound.
pub(super) fn adopt(address: SocketAddr, count: usize, kept: &mut Vec<TcpListener>) -> Result<Bound> {
    let is_ours = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|own| own == address);
    let mut sockets: Vec<TcpListener> = kept.extract_if(.., is_ours).collect();
    if sockets.is_empty() {
        let (address, sockets) = listen(address, count)?;
        return Ok(Bound { address, sockets, adopted: false });
    }
    let context = || format!("listener {address}: a socket of the service manager cannot be used");
    for socket in &sockets {
        socket.set_nonblocking(true).with_context(context)?;
        SockRef::from(socket).set_tcp_nodelay(true).with_context(context)?;
    }
    for number in 0..count.saturating_sub(sockets.len()) {
        let shared = sockets.get(number).map(TcpListener::try_clone);
        sockets.extend(shared.transpose().with_context(context)?);
    }
    Ok(Bound { address, sockets, adopted: true })
}

/// Binds `count` sockets to `address`; port 0 becomes one free port for all. `[::]` takes IPv4 too.
fn listen(address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>)> {
    bind_all(address, count).map_err(|error| explain(address, error))
}

fn bind_all(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // With SO_REUSEPORT two daemons would share the port and each get half of the connections; without it the second one
    // learns that the port is taken.
    drop(bind(address, false)?);
    let mut actual = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind(actual, true)?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        actual = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((actual, sockets))
}

fn bind(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of a former process in TIME_WAIT do not count.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    // Connections inherit it (Linux). Answers are written whole; waiting for more to send would only delay them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if !share {
        // Only a listener shows whether somebody else listens: Linux lets two bound sockets share an address
        // under SO_REUSEADDR until one of them listens.
        socket.listen(1)?;
    }
    Ok(socket)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn explain(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "listener {address}: another program listens on port {port} (`ss -ltnp 'sport = :{port}'` shows which); stop it or change `address`"
        ),
        io::ErrorKind::PermissionDenied => fault::permission(format!(
            "listener {address}: no permission for port {port}; run as root or with CAP_NET_BIND_SERVICE, or take a port from 1024 up"
        )),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!(
                "listener {address}: no interface of this machine has the address; `ip address` lists those that exist"
            )
        }
        _ => anyhow::Error::new(error).context(format!("listener {address}: cannot listen")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_that_nobody_else_may_take() {
        let (address, sockets) = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let error = listen(address, 1).unwrap_err().to_string();
        assert!(error.contains("another program listens on port"), "{error}");
    }

    #[test]
    fn sockets_that_were_kept_are_used_again_and_no_others() {
        let kept = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, other) = (kept(), kept());
        let (address, stranger) = (ours.local_addr().unwrap(), other.local_addr().unwrap());
        let mut all = vec![other, ours];
        let bound = adopt(address, 3, &mut all).unwrap();
        assert!(bound.adopted && bound.sockets.len() == 3 && bound.address == address);
        assert!(bound.sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].local_addr().unwrap(), stranger);
        let bound = adopt("127.0.0.1:0".parse().unwrap(), 2, &mut all).unwrap();
        assert!(!bound.adopted && bound.sockets.len() == 2);
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let error = listen("198.18.255.254:0".parse().unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains("no interface"), "{error}");
    }
}
