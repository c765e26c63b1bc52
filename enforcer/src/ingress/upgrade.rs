//! Requests to speak another protocol from then on: HTTP/1.1's `Upgrade` (RFC 9110 section 7.8) and HTTP/2's extended CONNECT
//! (RFC 8441), which is asked of servers as the former.
//!
//! `request` asks before the checks, and gives the connection its tunnel once a server has agreed. Whether a route allows it is
//! the policy's business.

use std::rc::Rc;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
    },
    request,
    uri::Authority,
};
use hyper::{ext::Protocol, upgrade::OnUpgrade};

use super::connection::Connection;
use crate::{
    checks::Grant,
    denial::Denial,
    random,
    upstream::{AnswerBody, ClientBody, Clients, Forwarded, Terms},
};

const WEBSOCKET: &str = "websocket";
/// RFC 6455 section 4.2.2.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client asked for.
pub(super) struct Asked {
    /// The protocol's name.
    pub(super) protocol: HeaderValue,
    /// The client's end.
    pub(super) client: OnUpgrade,
    /// For extended CONNECT: what the server has to answer its key with, if it is about WebSocket.
    extended: Option<Option<HeaderValue>>,
}

impl Asked {
    /// Takes the wish out of a request; extended CONNECT becomes the GET that it stands for.
    pub(super) fn take(head: &mut request::Parts) -> Option<Self> {
        match head.version {
            Version::HTTP_11 => {
                let protocol = head.headers.get(UPGRADE)?.clone();
                let named = |value: &HeaderValue| value.to_str().is_ok_and(names_upgrade);
                let has_body =
                    [CONTENT_LENGTH, TRANSFER_ENCODING].map(|name| head.headers.contains_key(name));
                if has_body.contains(&true) || !head.headers.get_all(CONNECTION).iter().any(named) {
                    return None;
                }
                let client = head.extensions.remove::<OnUpgrade>()?;
                Some(Self { protocol, client, extended: None })
            }
            Version::HTTP_2 if head.method == Method::CONNECT => {
                let protocol = head.extensions.remove::<Protocol>()?;
                let client = head.extensions.remove::<OnUpgrade>()?;
                // Without randomness it stays CONNECT, which has no route.
                let expected = match protocol.as_str() == WEBSOCKET {
                    true => Some(give_key(&mut head.headers)?),
                    false => None,
                };
                head.method = Method::GET;
                let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
                Some(Self { protocol, client, extended: Some(expected) })
            }
            _ => None,
        }
    }

    /// Whether a list of protocols has this one.
    pub(super) fn is_among(&self, allowed: &[Box<str>]) -> bool {
        allowed.iter().any(|one| self.protocol.as_bytes().eq_ignore_ascii_case(one.as_bytes()))
    }

    /// Whether a request that is not upgraded could be answered: extended CONNECT has no other meaning.
    pub(super) const fn is_optional(&self) -> bool {
        self.extended.is_none()
    }

    /// Turns a server's consent into what the client has to be told; `None` if it is no consent.
    pub(super) fn agree<B>(&self, response: &mut Response<B>) -> Option<()> {
        let headers = response.headers_mut();
        match &self.extended {
            None => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, self.protocol.clone());
            }
            Some(expected) => {
                let answered = headers.remove(SEC_WEBSOCKET_ACCEPT);
                if expected.is_some() && *expected != answered {
                    return None;
                }
                *response.status_mut() = StatusCode::OK;
            }
        }
        Some(())
    }
}

fn names_upgrade(value: &str) -> bool {
    value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// Sets what HTTP/1.1 servers want and HTTP/2 has no use for, and says what they answer to it (RFC 8441 section 5); `None` if there is
/// no randomness, for it has to be new each time (RFC 6455 section 10.3).
fn give_key(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let key = STANDARD.encode(random::bytes::<16>()?);
    let mut accept = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    accept.update(key.as_bytes());
    accept.update(GUID);
    let accept = STANDARD.encode(accept.finish());
    set(headers, SEC_WEBSOCKET_KEY, &key);
    HeaderValue::from_str(&accept).ok()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Base64 is always a header value.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Has a request forwarded, and what it was upgraded to run. Tells which server answered.
pub(super) async fn forward(
    clients: &Clients,
    connection: &Rc<Connection>,
    grant: Grant,
    request: Request<ClientBody>,
    mut terms: Terms,
    asked: Option<Asked>,
) -> Result<(Response<AnswerBody>, Option<Authority>), Denial> {
    let Some(asked) = asked else {
        let Forwarded { response, server, .. } = clients.forward(grant, request, terms).await?;
        return Ok((response, server));
    };
    if asked.is_among(&grant.route().upgrades) {
        terms.upgrade = Some(asked.protocol.clone());
    } else if !asked.is_optional() {
        return Err(Denial::UpgradeRefused);
    }
    let Forwarded { mut response, tunnel, server } = clients.forward(grant, request, terms).await?;
    match tunnel {
        Some(tunnel) => {
            asked.agree(&mut response).ok_or(Denial::UpstreamProtocol)?;
            connection.run_tunnel(tunnel.run(asked.client));
        }
        // A server that answers instead of agreeing would be taken to have agreed.
        None if !asked.is_optional() && response.status().is_success() => {
            return Err(Denial::UpstreamProtocol);
        }
        None => {}
    }
    Ok((response, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_extended_connect_is_answered_as_rfc_6455_says() {
        let mut headers = HeaderMap::new();
        let expected = give_key(&mut headers);
        let mut accept = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        accept.update(b"dGhlIHNhbXBsZSBub25jZQ==");
        accept.update(GUID);
        assert_eq!(STANDARD.encode(accept.finish()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 section 1.3");
        assert_eq!(STANDARD.decode(headers[SEC_WEBSOCKET_KEY].as_bytes()).unwrap().len(), 16);
        assert_eq!(STANDARD.decode(expected.as_ref().unwrap().as_bytes()).unwrap().len(), 20);
        assert_ne!(give_key(&mut headers), expected);
    }

    #[test]
    fn a_connection_field_names_the_upgrade_among_others() {
        for (value, expected) in [
            ("upgrade", true),
            ("Upgrade", true),
            ("keep-alive, Upgrade", true),
            ("close", false),
            ("x-upgrade", false),
        ] {
            assert_eq!(names_upgrade(value), expected, "{value}");
        }
    }
}
