//! What browsers are told of a route that pages of other origins use (Fetch standard, section 3.2), as fields of answers.

use http::{
    HeaderMap, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use crate::config;

/// Fields that are set here, and that a page needs to do what they ask for: without being told, browsers show none of them (Fetch standard,
/// section 3.2.6).
const OWN: [&str; 6] =
    ["dpop-nonce", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id"];

/// `cors` of a route.
#[derive(Debug)]
pub struct Cors {
    /// Empty: every one.
    origins: Box<[Box<str>]>,
    methods: HeaderValue,
    headers: HeaderValue,
    exposed: HeaderValue,
    credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    /// Spells it out.
    pub fn new(config: &config::Cors) -> Self {
        // Methods and names of fields are tokens, which are good values.
        let list = |texts: Vec<&str>| {
            HeaderValue::try_from(texts.join(", ")).unwrap_or(HeaderValue::from_static(""))
        };
        let further = config.expose.iter().map(http::HeaderName::as_str).filter(|name| !OWN.contains(name));
        let exposed = OWN.into_iter().chain(further).collect();
        Self {
            origins: config.origins.iter().map(|origin| origin.as_str().into()).collect(),
            methods: list(config.methods.iter().map(http::Method::as_str).collect()),
            headers: list(config.headers.iter().map(http::HeaderName::as_str).collect()),
            exposed: list(exposed),
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    /// The value that lets a page of this origin read an answer, if it may.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        self.origins.iter().any(|one| one.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// Says whether a page may read an answer. What the upstream says of it goes: the route decides.
    pub fn share(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if !self.origins.is_empty() {
            // A cache must not give one page what another one was told.
            headers.append(VARY, HeaderValue::from(ORIGIN));
        }
        if let Some(allowed) = self.allowed(origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            // An upstream may have said more, which stays.
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.clone());
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }

    /// Says what a page may ask for, besides what [`Cors::share`] says; nothing, if it may not ask.
    pub fn permit(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from(ACCESS_CONTROL_REQUEST_METHOD));
        headers.append(VARY, HeaderValue::from(ACCESS_CONTROL_REQUEST_HEADERS));
        if self.allowed(origin).is_some() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
    }
}
