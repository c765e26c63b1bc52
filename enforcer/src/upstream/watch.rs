//! Asks servers whether they are well, where the configuration says how: each at its own pace, on a connection of its own, so
//! that a server that accepts nothing more is found out too.
//!
//! One worker runs it for all. What it finds is kept in the policy's `Health`, which every worker reads.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{HOST, USER_AGENT},
    uri::{Authority, PathAndQuery},
};

use super::{
    body::RequestBody,
    connect::{Connected, Connector},
};
use crate::{
    config::HealthCheck,
    policy::{SharedPolicy, Upstream, health::State, upstream::Servers},
};

/// Between two looks for upstreams that are new.
const LOOK: Duration = Duration::from_secs(1);

/// Watches over the servers of every policy that comes, until it is dropped.
pub async fn watch(policy: SharedPolicy) {
    let known: Rc<RefCell<Vec<Weak<Upstream>>>> = Rc::default();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut known = known.borrow_mut();
        known.retain(|upstream| upstream.strong_count() > 0);
        for upstream in policy.load().upstreams() {
            let is_known = known.iter().any(|one| Weak::as_ptr(one) == Arc::as_ptr(upstream));
            let Some(check) = upstream.config.health.clone().filter(|_| !is_known) else { continue };
            known.push(Arc::downgrade(upstream));
            for server in 0..upstream.config.servers.len() {
                let (origin, check) = (Arc::downgrade(upstream), check.clone());
                tokio::task::spawn_local(ask(origin, Arc::clone(upstream.servers()), server, check));
            }
        }
    }
}

/// Asks one server for as long as it is configured.
async fn ask(origin: Weak<Upstream>, upstream: Arc<Servers>, server: usize, check: HealthCheck) {
    let Some(address) = upstream.config.servers.get(server) else { return };
    let connector = Connector::new(&upstream);
    while origin.strong_count() > 0 {
        let asked = tokio::time::timeout(check.timeout, once(&connector, &upstream, address, &check.path));
        let outcome = asked.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match upstream.health.checked(server, outcome.is_ok(), &check) {
            Some(State::Up) => {
                tracing::warn!(upstream = upstream.name, server = %address, "upstream server is well again");
            }
            Some(_) => {
                let why = outcome.err();
                tracing::warn!(upstream = upstream.name, server = %address, why, "upstream server is not well");
            }
            None => {}
        }
        tokio::time::sleep(check.interval).await;
    }
}

async fn once(connector: &Connector, upstream: &Servers, address: &Uri, path: &str) -> Result<(), String> {
    let connected = connector.connect(upstream, address, false, ()).await?;
    let target: PathAndQuery = path.parse().map_err(|error| format!("{path}: {error}"))?;
    let (body, _) = RequestBody::new(None, 0);
    let mut request = Request::new(body);
    let agent = concat!("enforcer/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
    let answered = match connected {
        Connected::Http1(mut sender) => {
            let host = address.authority().map(Authority::as_str).unwrap_or_default();
            let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = Uri::from(target);
            sender.send_request(request).await
        }
        Connected::Http2(mut sender, _) => {
            let mut parts = address.clone().into_parts();
            parts.path_and_query = Some(target);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
            sender.send_request(request).await
        }
    };
    let status = answered.map_err(|error| super::chain(&error))?.status();
    if status < StatusCode::BAD_REQUEST { Ok(()) } else { Err(format!("status {status}")) }
}
