//! What is known of a request before any check.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, request};

use super::target;
use crate::denial::Denial;

/// Where a connection comes from; IPv4-mapped addresses are IPv4, so that an address has one spelling everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// The canonical form of a peer's address.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    pub const fn get(self) -> IpAddr {
        self.0
    }
}

/// A request as the checks see it.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// Who sent it.
    pub source: ClientAddr,
    /// The decoded path, known to have one reading only.
    pub path: Cow<'a, str>,
    /// Its header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestFacts<'a> {
    /// Reads a head; refuses one that two parties could understand differently.
    pub fn read(source: ClientAddr, head: &'a request::Parts) -> Result<Self, Denial> {
        let path = target::check(head)?;
        Ok(Self { source, path, headers: &head.headers })
    }
}
