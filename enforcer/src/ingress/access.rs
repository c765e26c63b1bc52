//! Which requests get a line in the access log, and what is gathered for it while they are answered.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Method, Uri, Version,
    header::{HOST, REFERER, USER_AGENT},
    request,
    uri::Authority,
};

use super::{answer::RequestId, connection::Connection, worker::Worker};
use crate::{
    access_log::{
        AccessLog,
        record::{self, Record},
    },
    capture::moment,
    checks::{facts::ClientAddr, limit::Marks},
    clock,
    config::{self, Refusals},
    denial::Denial,
    policy::{route::Route, suspicion::Score},
    upstream,
};

/// A client that went before there was an answer; what nginx calls it.
const GONE: u16 = 499;

/// A request that may be written down. The line is handed over when this is dropped, with the answer.
pub(super) struct Entry {
    log: AccessLog,
    settings: Arc<config::AccessLog>,
    is_sampled: bool,
    connection: Rc<Connection>,
    source: ClientAddr,
    began: Instant,
    unix_ns: u64,
    id: RequestId,
    is_early: bool,
    /// `traceparent` of the client, if it is valid.
    trace: Option<HeaderValue>,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    status: u16,
    denial: Option<Denial>,
    route: Option<Arc<Route>>,
    subject: Option<Box<str>>,
    device: Option<Box<str>>,
    play: Option<&'static str>,
    marks: Marks,
    suspicion: Option<Score>,
    upstream: Option<Duration>,
    server: Option<Authority>,
    sent: u64,
    is_complete: bool,
}

impl Entry {
    /// Begins the line of a request; `None` where it will not have one. Everything that is kept of the head is shared with it.
    pub(super) fn begin(
        worker: &Worker,
        connection: &Rc<Connection>,
        head: &request::Parts,
        id: &RequestId,
        is_early: bool,
    ) -> Option<Box<Self>> {
        let log = worker.shared.access_log.as_ref()?;
        let settings = Arc::clone(&worker.shared.policy.load().access_log);
        let number = worker.requests.get();
        worker.requests.set(number.wrapping_add(1));
        let is_sampled = record::is_sampled(&settings, number);
        if !is_sampled && settings.refusals == Refusals::Sampled {
            return None;
        }
        let field = |name| head.headers.get(name).cloned();
        Some(Box::new(Self {
            log: log.clone(),
            settings,
            is_sampled,
            connection: Rc::clone(connection),
            source: connection.client.address,
            began: clock::instant_now(),
            unix_ns: clock::unix_ns(clock::kernel_now()),
            id: id.clone(),
            is_early,
            trace: upstream::trace_parent(&head.headers).cloned(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            host: field(HOST),
            agent: field(USER_AGENT),
            referer: field(REFERER),
            status: GONE,
            denial: None,
            route: None,
            subject: None,
            device: None,
            play: None,
            marks: Marks::default(),
            suspicion: None,
            upstream: None,
            server: None,
            sent: 0,
            is_complete: false,
        }))
    }

    /// Whose request it is.
    pub(super) fn comes_from(&mut self, source: ClientAddr) {
        self.source = source;
    }

    /// Who was let through, and from which device, if that has shown what it is.
    pub(super) fn granted(&mut self, subject: Option<&str>, device: Option<&str>) {
        self.subject = subject.map(Into::into);
        self.device = device.map(Into::into);
    }

    /// What speaks against it, if its route looks for that.
    pub(super) fn suspected(&mut self, score: Option<Score>) {
        self.suspicion = score;
    }

    /// What became of asking Google Play for a verdict, if the route asks for one.
    pub(super) fn vouched(&mut self, result: Option<&'static str>) {
        self.play = result;
    }

    /// How long the upstream took to the head of its answer, and which server gave one.
    pub(super) fn forwarded(&mut self, began: Instant, server: Option<Authority>) {
        self.server = server;
        self.upstream = Some(clock::instant_now().saturating_duration_since(began));
    }

    /// What the client gets.
    pub(super) fn answered(
        &mut self,
        status: u16,
        denial: Option<Denial>,
        route: Option<&Arc<Route>>,
        marks: Marks,
    ) {
        self.status = status;
        self.denial = denial;
        self.route = route.map(Arc::clone);
        self.marks = marks;
        // Nobody asks for the body of an answer to HEAD.
        self.is_complete = self.method == Method::HEAD;
    }

    /// A piece of the answer's body was taken.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Nothing more is to be sent.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    fn record(&self) -> Record<'_> {
        let client = &self.connection.client;
        let certificate = client.identity.as_deref().map(|identity| &*identity.thumbprint);
        let by_token =
            self.denial.is_none() && self.route.as_ref().is_some_and(|route| route.tokens.is_some());
        let host = self.host.as_ref().map(HeaderValue::as_bytes);
        let host = host.or_else(|| self.uri.authority().map(|authority| authority.as_str().as_bytes()));
        let limit = |(number, result): (usize, &str)| {
            let limit = self.route.as_ref()?.limits.all().get(number)?;
            Some(format!("{}={result}", limit.name))
        };
        Record {
            time: moment::timestamp(self.unix_ns),
            request_id: self.id.to_string(),
            trace_id: self.trace.as_ref().and_then(|parent| parent.to_str().ok()?.get(3..35)),
            early_data: self.is_early,
            source: self.source.get(),
            method: self.method.as_str(),
            host: host.map(record::text),
            path: record::path(&self.uri, self.settings.query),
            protocol: record::protocol(self.version),
            status: self.status,
            code: self.denial.map(Denial::code),
            route: self.route.as_deref().map(|route| &*route.name),
            limits: self.marks.iter().filter_map(limit).collect(),
            suspicion: self.suspicion.map(|score| score.points),
            suspicion_signals: self.suspicion.map(Score::names).unwrap_or_default(),
            identity: record::identity(by_token, certificate.is_some(), self.device.is_some()),
            subject: self.subject.as_deref().and_then(|text| record::subject(text, self.settings.subject)),
            device: self.device.as_deref().or(certificate),
            play: self.play,
            ja4: client.hello.as_deref().map(|hello| hello.ja4.as_str()),
            fingerprint: client
                .hello
                .as_deref()
                .and_then(|hello| hello.fingerprint)
                .map(|print| print.to_string()),
            tls: self.connection.tls_version,
            duration_ms: record::milliseconds(clock::instant_now().saturating_duration_since(self.began)),
            upstream_ms: self.upstream.map(record::milliseconds),
            upstream: self.server.as_ref().map(Authority::as_str),
            bytes: self.sent,
            complete: self.is_complete,
            user_agent: self.agent.as_ref().map(|agent| record::text(agent.as_bytes())),
            referer: self.referer.as_ref().map(|referer| record::referer(referer.as_bytes())),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_sampled || self.denial.is_some() {
            self.log.write(self.record().line(self.settings.format, self.unix_ns));
        }
    }
}
