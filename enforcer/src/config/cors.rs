//! `cors` of a route: which pages of other origins may use it in a browser (Fetch standard, section 3.2).

use std::time::Duration;

use http::{HeaderName, Method};

/// What a browser is told of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `origins`: scheme, host and port, as browsers write them; empty (`["*"]`): every one.
    pub origins: Vec<String>,
    /// `methods` that a page may use; by default those of the route, or all common ones.
    pub methods: Vec<Method>,
    /// `headers` that a page may set, default `Authorization` and `Content-Type`.
    pub headers: Vec<HeaderName>,
    /// `expose`: fields of answers that a page may read besides those that are set here. Default: none.
    pub expose: Vec<HeaderName>,
    /// `credentials`: whether cookies and client certificates go along. Default false.
    pub credentials: bool,
    /// `max_age`: how long a browser remembers it, default 10 min.
    pub max_age: Duration,
}
