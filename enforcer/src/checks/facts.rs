//! What is known of a client and of its request before any check.

use std::{borrow::Cow, fmt, net::IpAddr};

use http::{HeaderMap, Method, request};

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

/// Who is at the other end of a connection. Kept as long as the connection is, so it is small.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it comes from.
    pub address: ClientAddr,
    /// The server name that its handshake asked for (SNI, RFC 6066 section 3), in lower case.
    pub server_name: Option<Box<str>>,
    /// What its ClientHello said besides; absent for one too long to be kept.
    pub hello: Option<Box<Hello>>,
    /// Whom its certificate names, if it showed one. Always verified.
    pub identity: Option<Box<Identity>>,
}

impl Client {
    /// A client of which nothing but the address is known.
    pub const fn at(address: ClientAddr) -> Self {
        Self { address, server_name: None, hello: None, identity: None }
    }
}

/// What a ClientHello says: claims of the client, good for statistics and for telling programs apart, never for trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest version that it offers, as on the wire: 0x0304 is TLS 1.3.
    pub version: u16,
    /// The protocols that it offers (RFC 7301), separated by commas; whatever is not visible ASCII is escaped.
    pub alpn: Box<str>,
    /// Its fingerprint.
    pub ja4: Ja4,
}

/// A JA4 fingerprint: 36 characters of ASCII in three parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; 36]);

impl Ja4 {
    /// A fingerprint of exactly this text; `None` unless it has 36 characters of ASCII.
    pub fn new(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().filter(|_| text.is_ascii()).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a verified client certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the certificate in base64url, as `x5t#S256` has it (RFC 8705 section 3.1).
    pub thumbprint: Box<str>,
    /// The subject's distinguished name.
    pub subject: Box<str>,
    /// The subject's alternative names, of the kinds below.
    pub names: Box<[SubjectName]>,
}

/// One of a certificate's alternative names (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A DNS name, in lower case.
    Dns(Box<str>),
    /// An address of mail.
    Email(Box<str>),
    /// A URI, like a SPIFFE id.
    Uri(Box<str>),
    /// An IP address.
    Address(IpAddr),
}

/// A request as the checks see it.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// Who sent it.
    pub client: &'a Client,
    /// Whose request it is: the client's, or that of whom a trusted proxy speaks for.
    pub address: ClientAddr,
    /// Its method.
    pub method: &'a Method,
    /// The decoded path, known to have one reading only.
    pub path: Cow<'a, str>,
    /// What stands behind the `?` of its target.
    pub query: Option<&'a str>,
    /// The host that it names, as it is written there.
    pub named: Option<&'a str>,
    /// Its header fields.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestFacts<'a> {
    /// Reads a head; refuses one that two parties could understand differently, and one that is for another server than
    /// its connection.
    pub fn read(client: &'a Client, address: ClientAddr, head: &'a request::Parts) -> Result<Self, Denial> {
        let path = target::check(head)?;
        if !target::is_for(head, client.server_name.as_deref()) {
            return Err(Denial::Misdirected);
        }
        let named = target::named(head);
        let query = head.uri.query();
        Ok(Self { client, address, method: &head.method, path, query, named, headers: &head.headers })
    }

    /// The host that it names, in lower case.
    pub fn host(&self) -> Option<Cow<'a, str>> {
        let named = self.named?;
        let upper = named.bytes().any(|byte| byte.is_ascii_uppercase());
        Some(if upper { named.to_ascii_lowercase().into() } else { named.into() })
    }
}
