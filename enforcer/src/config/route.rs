//! `[[route]]`: which requests it is for, whose token they need, how many there may be.

use http::{HeaderName, Method};

use super::{AttestationDemand, Bindings, Cors, Demands, GraphQl, OAuth, RateLimit};

/// What happens to some of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// `name` in metrics and logs; by default the path.
    pub name: String,
    /// `hosts` in lower case: names, or `*.` and a name for one more label in front. Empty (default): every host.
    pub hosts: Vec<String>,
    /// `path`: begins with `/`. With a trailing `/` a prefix, otherwise exact.
    pub path: String,
    /// `methods`; empty (default): every method. `GET` brings `HEAD` along.
    pub methods: Vec<Method>,
    /// `headers`: what a request must have besides. Default: nothing.
    pub headers: Vec<HeaderRule>,
    /// `upstream`: a name below `[upstream]`.
    pub upstream: String,
    /// `token`: names below `[token]`, one of which must have issued the token; none only where `public = true`.
    pub tokens: Vec<String>,
    /// What the token must say.
    pub demands: Demands,
    /// `dpop` and `certificate_bound`: what the token must be bound to.
    pub bindings: Bindings,
    /// `signature`: a name below `[signature]`, whose keys must have signed the request. Default: none.
    pub signature: Option<String>,
    /// `payload`: a name below `[payload]`; bodies are encrypted as it says. Default: they are not.
    pub payload: Option<String>,
    /// `attestation`: what the device must have shown that its requests come from. Default: nothing.
    pub attestation: Option<AttestationDemand>,
    /// `required_headers`: fields without which a request is refused. Default: none.
    pub required_headers: Vec<HeaderName>,
    /// `upgrade`: protocols that a request may change to, by their names in lower case. Default: none.
    pub upgrade: Vec<String>,
    /// `limits`, and before them `limit`, which is one by address. Names are distinct.
    pub limits: Vec<Limit>,
    /// `graphql`: what its documents may ask for; `None` for all other routes.
    pub graphql: Option<GraphQl>,
    /// `early_data`: whether its requests with safe methods may come as early data. Default false.
    pub early_data: bool,
    /// `cors`: which pages of other origins may use it. `None`: whatever the upstream says.
    pub cors: Option<Cors>,
    /// `oauth`: an endpoint of an authorization server; `None` for all other routes.
    pub oauth: Option<OAuth>,
}

/// A field that a request must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Its name.
    pub name: HeaderName,
    /// Its value; `None` (`"*"`): any.
    pub value: Option<String>,
}

/// How many requests there may be, as nginx `limit_req` counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `name` in metrics, logs and the fields of answers; by default what stands in `key`.
    pub name: String,
    /// `key`: what is counted together.
    pub key: LimitKey,
    /// `rate` and `burst`.
    pub rate: RateLimit,
    /// `delay`: how many of the burst are let through at once, the others wait for their turn. `None`: all of them.
    pub delay: Option<u64>,
    /// `dry_run`: requests beyond it are counted and pass. Default false.
    pub dry_run: bool,
}

impl Limit {
    /// The limit that `limit = { ... }` is.
    pub fn by_address(rate: RateLimit) -> Self {
        let key = LimitKey::Address;
        Self { name: key.to_string(), key, rate, delay: None, dry_run: false }
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// `"address"`: those of a source.
    Address,
    /// `"subject"`: those with tokens of one `sub`.
    Subject,
    /// `"device"`: those of one device that has shown what it is, else of one client certificate.
    Device,
    /// `"header:NAME"`: those with one value of a field.
    Header(HeaderName),
    /// `"route"`: all of the route.
    Route,
}

impl std::fmt::Display for LimitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Subject => f.write_str("subject"),
            Self::Device => f.write_str("device"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Route => f.write_str("route"),
        }
    }
}

/// What a request meets that no route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unrouted {
    /// 404.
    NotFound,
    /// 403.
    Deny,
}
