//! Calls that ask an authorization server about a token (RFC 7662): by the same way as keys are fetched, over connections that are kept.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::fetch;
use crate::{
    clock::{self, KernelTime},
    metrics::Metrics,
    policy::introspection::{Call, Introspector, Unfit},
    secret::Secret,
};

/// Bytes of an answer, at most.
const MOST_BYTES: usize = 64 << 10;
/// Connections that are kept.
const MOST_IDLE: usize = 16;
/// How long roots are believed that were read.
const ROOTS: Duration = Duration::from_secs(600);

type Sender = SendRequest<Full<Bytes>>;

/// What calls have in common.
struct Caller {
    introspector: Arc<Introspector>,
    authorization: Secret<String>,
    tls: Mutex<Option<(Arc<ClientConfig>, KernelTime)>>,
    idle: Mutex<Vec<Sender>>,
    driving: Mutex<JoinSet<()>>,
}

/// Makes the calls that an introspector wants, until it is dropped.
pub(super) async fn tend(name: String, introspector: Arc<Introspector>, metrics: Metrics) {
    let secret = introspector.secret.expose();
    // RFC 6749 section 2.3.1: both parts are form-encoded.
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(&introspector.config.client_id), encoded(secret));
    let caller = Arc::new(Caller {
        authorization: Secret::new(format!("Basic {}", STANDARD.encode(pair))),
        introspector: Arc::clone(&introspector),
        tls: Mutex::default(),
        idle: Mutex::default(),
        driving: Mutex::default(),
    });
    let was_good = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut calls = JoinSet::new();
    loop {
        let call = introspector.next().await;
        while calls.try_join_next().is_some() {}
        let (caller, name, metrics) = (Arc::clone(&caller), name.clone(), metrics.clone());
        let was_good = Arc::clone(&was_good);
        calls.spawn(async move {
            let patience = caller.introspector.config.timeout;
            let answer = tokio::time::timeout(patience, caller.ask(&call)).await;
            let answer =
                answer.unwrap_or_else(|_| Err(anyhow!("no answer within {} ms", patience.as_millis())));
            let (now, unix) = (clock::kernel_now(), clock::unix_now());
            let outcome = caller.introspector.end(&call.digest, answer, now, unix);
            let label = match &outcome {
                Ok(true) => "active",
                Ok(false) => "inactive",
                Err(_) => "failed",
            };
            metrics.introspections.with_label_values(&[&name, label]).inc();
            let before = was_good.swap(outcome.is_ok(), std::sync::atomic::Ordering::Relaxed);
            match outcome {
                Err(error) if before => {
                    let error = format!("{error:#}");
                    warn!(
                        issuer = name,
                        error, "an issuer cannot be asked about its tokens: they are refused"
                    );
                }
                Ok(_) if !before => info!(issuer = name, "an issuer can be asked about its tokens again"),
                Ok(_) | Err(_) => {}
            }
        });
    }
}

impl Caller {
    async fn ask(&self, call: &Call) -> Result<Vec<u8>> {
        let idle = lock(&self.idle).pop();
        if let Some(sender) = idle {
            // It may have been closed meanwhile: then nothing was answered, and asking twice does no harm.
            if let Ok(answer) = self.send(sender, call).await {
                return Ok(answer);
            }
        }
        self.send(self.connect().await?, call).await
    }

    async fn send(&self, mut sender: Sender, call: &Call) -> Result<Vec<u8>> {
        sender.ready().await.context("HTTP")?;
        let response = sender.send_request(self.request(call)?).await.context("HTTP")?;
        let answer = read(response).await?;
        let mut idle = lock(&self.idle);
        if idle.len() < MOST_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
        Ok(answer)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>> {
        let address = &self.introspector.config.address;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", call.token.expose()).append_pair("token_type_hint", "access_token");
        Ok(Request::post(address.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, address.authority().context("no host")?.as_str())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, self.authorization.expose())
            .header(USER_AGENT, concat!("enforcer/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(form.finish())))?)
    }

    async fn connect(&self) -> Result<Sender> {
        let config = &self.introspector.config;
        let tls = self.tls().await?;
        let allow = (config.private_addresses, "introspection.private_addresses");
        let (sender, connection) = fetch::open(&config.address, &tls, allow).await?;
        let mut driving = lock(&self.driving);
        while driving.try_join_next().is_some() {}
        driving.spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>> {
        let now = clock::kernel_now();
        if let Some((tls, until)) = &*lock(&self.tls)
            && *until > now
        {
            return Ok(Arc::clone(tls));
        }
        let tls = fetch::tls(self.introspector.config.authorities.clone()).await?;
        *lock(&self.tls) = Some((Arc::clone(&tls), now.plus(ROOTS)));
        Ok(tls)
    }
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>> {
    let status = response.status();
    ensure!(!status.is_redirection(), "answered {status}, and no redirect is followed");
    ensure!(status == StatusCode::OK, Unfit(status));
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| anyhow!("reading the answer: {error}"))?;
    Ok(body.to_bytes().to_vec())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
