//! A restart under load, with a service manager that keeps the listening sockets: no request is lost, by whichever client.
//!
//! 500 requests a second come for as long as it goes on, or as many as the machine has time for, on kept connections of HTTP/1.1, on new
//! ones, and over HTTP/2. While no daemon is there they wait. At the end each of them was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use enforcer::clock;
use enforcer_tests::{
    clients::HOST,
    daemon::Daemon,
    eventually,
    keepalive::{KeepAlive, offer},
    keeper::Keeper,
    netns::{Netns, SERVER_V4, source_v4},
    scene::Scene,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Clients and requests a second of each: kept connections, new ones, HTTP/2. 500 together.
const KEPT: (u64, u64) = (6, 60);
const NEW: (u64, u64) = (2, 20);
const HTTP2: (u64, u64) = (2, 50);
/// A kept connection of HTTP/1.1 that rested for so long may be closed while the next request is on its way (RFC 9112 section 9.3.1);
/// the client asks again then. None of these rests unless the machine lets it.
const REST: Duration = Duration::from_millis(500);

/// What clients ask, and what came of it.
struct Load<'a> {
    netns: &'a Netns,
    token: &'a str,
    begun: Instant,
    over: &'a AtomicBool,
    answered: &'a AtomicU64,
    asked: &'a AtomicU64,
    /// Requests that no server has seen, which were asked again.
    moved: &'a AtomicU64,
}

impl Load<'_> {
    /// How long until request `number` of so many a second is due, which is counted as asked; `None`: there will be no more.
    fn next(&self, number: u64, per_second: u64) -> Option<Duration> {
        if self.over.load(Relaxed) {
            return None;
        }
        self.asked.fetch_add(1, Relaxed);
        let due = Duration::from_micros(number * 1_000_000 / per_second);
        Some(due.saturating_sub(clock::instant_now().saturating_duration_since(self.begun)))
    }

    fn kept(&self, config: &Arc<ClientConfig>, per_second: u64) -> Result<()> {
        let (mut number, mut open) = (0, None::<(KeepAlive, Instant)>);
        while let Some(wait) = self.next(number, per_second) {
            thread::sleep(wait);
            let reused = open.take();
            let rested = reused.as_ref().map(|(_, last)| last.elapsed());
            let mut connection = match reused {
                Some((connection, _)) => connection,
                None => KeepAlive::connect(self.netns, source_v4(1).into(), config)?,
            };
            match connection.ask(self.token, "/api/v1/x", b"") {
                Ok(status) => ensure!(status == 200, "request {number}: status {status}"),
                Err(_) if rested.is_some_and(|rested| rested > REST) => {
                    self.moved.fetch_add(1, Relaxed);
                    continue;
                }
                Err(error) => return Err(error.context(format!("request {number}, after {rested:?}"))),
            }
            self.answered.fetch_add(1, Relaxed);
            number += 1;
            if !connection.was_last() {
                open = Some((connection, clock::instant_now()));
            }
        }
        Ok(())
    }

    fn new_each(&self, config: &Arc<ClientConfig>, per_second: u64) -> Result<()> {
        let mut number = 0;
        while let Some(wait) = self.next(number, per_second) {
            thread::sleep(wait);
            let mut connection = KeepAlive::connect(self.netns, source_v4(2).into(), config)?;
            let status = connection.ask(self.token, "/api/v1/x", b"").context("a new connection")?;
            ensure!(status == 200, "request {number} on a new connection: status {status}");
            self.answered.fetch_add(1, Relaxed);
            number += 1;
        }
        Ok(())
    }

    async fn http2(&self, config: &Arc<ClientConfig>, per_second: u64) -> Result<()> {
        let (mut number, mut open) = (0, None::<SendRequest<Empty<Bytes>>>);
        while let Some(wait) = self.next(number, per_second) {
            tokio::time::sleep(wait).await;
            let mut sender = match open.take().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender,
                None => connect(config).await?,
            };
            let request = Request::get(format!("https://{HOST}/api/v1/x"))
                .header("authorization", format!("Bearer {}", self.token));
            let sent = match sender.ready().await {
                Ok(()) => sender.send_request(request.body(Empty::new())?).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(response) => {
                    ensure!(response.status() == StatusCode::OK, "request {number}: {}", response.status());
                    response.into_body().collect().await.context("the body of an answer")?;
                }
                // GOAWAY came first: the server says that it has not seen this one.
                Err(error) if error.is_canceled() || is_unseen(&error) => {
                    self.moved.fetch_add(1, Relaxed);
                    continue;
                }
                Err(error) => bail!("request {number} over HTTP/2: {error:?}"),
            }
            self.answered.fetch_add(1, Relaxed);
            number += 1;
            open = Some(sender);
        }
        Ok(())
    }
}

fn is_unseen(error: &hyper::Error) -> bool {
    let reason = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    reason.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
        || reason.is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

async fn connect(config: &Arc<ClientConfig>) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect((SERVER_V4, 443)).await.context("connecting for HTTP/2")?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(HOST.try_into()?, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn start<'a>(scene: &'a Scene, keeper: &mut Keeper, number: u64) -> Result<Daemon<'a>> {
    let words = format!("run -c {}", scene.site.config().display());
    let (mut command, inherited) =
        keeper.command(&scene.lab.server, &enforcer_tests::daemon::binary()?, &words)?;
    let mut daemon = Daemon::launch_as(&scene.lab.server, &scene.site, &mut command)?;
    drop(inherited);
    eventually!(60, format!("daemon {number}\n{}", daemon.log()), {
        ensure!(!daemon.has_ended()?, "{}", daemon.log());
        keeper.heard()?.0 == number
    })?;
    Ok(daemon)
}

#[test]
fn restarts_under_load_lose_no_request() -> Result<()> {
    let scene = Scene::new()?;
    scene.site.write(&scene.plan())?;
    let mut keeper = Keeper::new(&scene.site.dir)?;
    let mut daemon = start(&scene, &mut keeper, 1)?;
    let kept = keeper.heard()?.1;
    assert!(kept > 0, "no socket was given away");
    let config = |protocol: &str| offer(&scene.site.ca(), vec![protocol.as_bytes().to_vec()]);
    let (http1, http2) = (config("http/1.1")?, config("h2")?);
    let token = scene.site.long_token("read", Duration::from_secs(3600))?;
    let (over, counts) = (AtomicBool::new(false), [(); 3].map(|()| AtomicU64::new(0)));
    let [answered, asked, moved] = &counts;
    let netns = &scene.lab.client;
    let load =
        Load { netns, token: &token, begun: clock::instant_now(), over: &over, answered, asked, moved };
    let lasted = thread::scope(|scope| -> Result<Duration> {
        let load = &load;
        let (http1, http2) = (&http1, &http2);
        let mut clients = Vec::new();
        for _ in 0..KEPT.0 {
            clients.push(scope.spawn(move || load.kept(http1, KEPT.1)));
        }
        for _ in 0..NEW.0 {
            clients.push(scope.spawn(move || load.new_each(http1, NEW.1)));
        }
        for _ in 0..HTTP2.0 {
            clients.push(scope.spawn(move || {
                netns.enter(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(load.http2(http2, HTTP2.1))
                })
            }));
        }
        let mut restart = |number: u64| -> Result<()> {
            let before = answered.load(Relaxed);
            eventually!(60, "answers between two restarts", answered.load(Relaxed) > before + 500)?;
            daemon.signal(Signal::SIGTERM)?;
            ensure!(daemon.wait()?.success(), "{}", daemon.log());
            daemon = start(&scene, &mut keeper, number)?;
            ensure!(keeper.heard()?.1 == kept, "sockets were bound anew\n{}", daemon.log());
            Ok(())
        };
        let restarts = (2..=4).try_for_each(&mut restart);
        let before = answered.load(Relaxed);
        let after = eventually!(60, "answers after the last restart", answered.load(Relaxed) > before + 500);
        over.store(true, Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        restarts?;
        after?;
        Ok(load.begun.elapsed())
    })?;
    let [answered, asked, moved] = counts.map(AtomicU64::into_inner);
    assert_eq!(answered + moved, asked, "requests that were asked, and those that were answered");
    let rate = answered as f64 / lasted.as_secs_f64();
    println!(
        "3 restarts in {lasted:.1?}: {answered} requests, {rate:.0} a second, 0 failed, {moved} asked again"
    );
    Ok(())
}
