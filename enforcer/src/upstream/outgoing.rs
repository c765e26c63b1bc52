//! A request as a server gets it, in whichever protocol its connection speaks.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, HOST, TE, UPGRADE},
    request,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{Terms, body::RequestBody, headers, trace};
use crate::{checks::Grant, denial::Denial};

/// What does not depend on the connection.
pub(super) struct Outgoing {
    pub(super) method: Method,
    target: PathAndQuery,
    /// As the client said it; HTTP/2 says it in `:authority` (RFC 9113 section 8.3.1).
    host: Option<HeaderValue>,
    /// What is said of the request here, in fields that nobody else may set.
    own: Vec<(HeaderName, HeaderValue)>,
    /// Whether the client reads trailers.
    trailers: bool,
    /// What the client wants to speak from then on.
    pub(super) upgrade: Option<HeaderValue>,
}

impl Outgoing {
    /// Prepares a request, and its fields.
    pub(super) fn new(mut head: request::Parts, grant: &Grant, terms: &Terms) -> (Self, HeaderMap) {
        let reads = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("trailers"));
        let trailers = head.headers.get_all(TE).iter().any(reads);
        let (host, mut own) = headers::to_upstream(&mut head, grant, terms);
        own.extend(trace::continue_or_begin(&mut head.headers, &terms.id));
        let target = head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let upgrade = terms.upgrade.clone();
        (Self { method: head.method, target, host, own, trailers, upgrade }, head.headers)
    }

    /// The request for a connection to `server`.
    pub(super) fn dress(
        &self,
        mut headers: HeaderMap,
        body: RequestBody,
        server: &Uri,
        is_http2: bool,
    ) -> Result<Request<RequestBody>, Denial> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        headers.reserve(self.own.len() + 3);
        for (name, value) in &self.own {
            headers.insert(name.clone(), value.clone());
        }
        if is_http2 {
            if self.trailers {
                // The one value that it may have there (RFC 9113 section 8.2.2).
                headers.insert(TE, HeaderValue::from_static("trailers"));
            }
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = self.absolute(server)?;
        } else {
            let host = match &self.host {
                Some(host) => host.clone(),
                // Only HTTP/1.0 goes without.
                None => own_host(server)?,
            };
            headers.insert(HOST, host);
            if let Some(protocol) = &self.upgrade {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, protocol.clone());
            }
            *request.uri_mut() = Uri::from(self.target.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Takes away what [`Outgoing::dress`] has given: the next connection may be of another kind.
    pub(super) fn undress(&self, mut headers: HeaderMap) -> HeaderMap {
        for name in [HOST, TE, CONNECTION, UPGRADE].iter().chain(self.own.iter().map(|(name, _)| name)) {
            headers.remove(name);
        }
        headers
    }

    /// The head of a request without a body, as HTTP/1.1 has it.
    pub(super) fn spell(&self, headers: &HeaderMap, server: &Uri) -> Result<Vec<u8>, Denial> {
        let own = if self.host.is_none() { Some(own_host(server)?) } else { None };
        let host = self.host.as_ref().or(own.as_ref()).map_or(&b""[..], HeaderValue::as_bytes);
        let mut text = Vec::with_capacity(1024);
        let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
        put(&[
            self.method.as_str().as_bytes(),
            b" ",
            self.target.as_str().as_bytes(),
            b" HTTP/1.1\r\nhost: ",
            host,
        ]);
        for (name, value) in headers.iter().chain(self.own.iter().map(|(name, value)| (name, value))) {
            put(&[b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()]);
        }
        put(&[b"\r\n\r\n"]);
        Ok(text)
    }

    fn absolute(&self, server: &Uri) -> Result<Uri, Denial> {
        let own = || server.authority().cloned();
        let authority = match &self.host {
            Some(host) => Authority::try_from(host.as_bytes()).ok(),
            None => own(),
        };
        let encrypted = server.scheme() == Some(&Scheme::HTTPS);
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if encrypted { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = authority;
        parts.path_and_query = Some(self.target.clone());
        // `checks` has found the host to be one.
        Uri::from_parts(parts).map_err(|_| Denial::RequestMalformed)
    }
}

fn own_host(server: &Uri) -> Result<HeaderValue, Denial> {
    let authority = server.authority().map(Authority::as_str).unwrap_or_default();
    HeaderValue::from_str(authority).map_err(|_| Denial::UpstreamUnreachable)
}
