//! Listening sockets, one per worker on the same address.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fault;

/// Connections that the kernel holds until they are accepted; it caps this by `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to `address`; port 0 becomes one free port for all. `[::]` takes IPv4 too.
pub(super) fn listen(address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>)> {
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
    fn an_address_that_is_not_ours_is_named() {
        let error = listen("198.18.255.254:0".parse().unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains("no interface"), "{error}");
    }
}
