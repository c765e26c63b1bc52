//! Reads requests from the control socket and writes responses; what they say comes from [`Respond`].
//!
//! Bounded in every direction: connections (see `places`), bytes per request, time to send one, time to take the answer. The
//! daemon starts it; it never touches the ledger or the kernel.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Result;
use nix::unistd::Uid;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::broadcast::Receiver,
    time::{error::Elapsed, timeout},
};
use tracing::{debug, warn};

use super::{
    places::{Holder, Place, Places},
    socket::{Socket, permitted},
    watch::{self, Wanted},
    wire::{Answer, Body, Command, Failure, FailureKind, MAX_REQUEST, Request, Response, VERSION, Watching},
};
use crate::kernel::events::Sample;

/// How long a client may take over its next request, and over reading an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for the next request while places are scarce.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);

/// Rest before the next attempt when accepting fails, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whoever knows the answers.
pub trait Respond: Send + Sync + 'static {
    /// Carries out `command`, which is any but `events`.
    fn respond(&self, command: Command) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// The samples for `events`, and what the caller is told first.
    fn watch(&self) -> Result<(Watching, Receiver<Arc<Sample>>), Failure> {
        Err(Failure::new(FailureKind::Refused, "there are no events here"))
    }
}

/// Serves `socket` until it is dropped or aborted.
pub async fn serve<R: Respond>(socket: Socket, responder: Arc<R>) {
    let places = Places::default();
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accepting on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admitted = match stream.peer_cred() {
            Ok(peer) if permitted(peer.uid(), peer.gid(), socket.group) => {
                let text = "too many control connections; try again later";
                places.take(holder(peer.uid())).ok_or_else(|| Failure::new(FailureKind::Busy, text))
            }
            Ok(peer) => {
                warn!(uid = peer.uid(), gid = peer.gid(), pid = peer.pid(), "refused on the control socket");
                Err(Failure::new(
                    FailureKind::Permission,
                    "only root, the daemon's own user and members of control.group may use this socket",
                ))
            }
            Err(error) => Err(Failure::new(FailureKind::Permission, format!("who are you? {error}"))),
        };
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            match admitted {
                Err(failure) => send(&mut writer, Body::Error(failure)).await,
                Ok(place) => converse(reader, &mut writer, responder.as_ref(), &place).await,
            }
            .unwrap_or_else(|error| debug!(%error, "control connection ended"));
        });
    }
}

async fn converse<R: Respond>(
    reader: OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    responder: &R,
    place: &Place,
) -> Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_REQUEST as u64 + 1;
        let mut limited = (&mut reader).take(limit);
        let count = patiently(limited.read_until(b'\n', &mut line), place).await??;
        if count == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && count as u64 >= limit {
            let text = format!("the request is longer than {MAX_REQUEST} bytes");
            return send(writer, Body::Error(Failure::new(FailureKind::Malformed, text))).await;
        }
        let body = match read(&line) {
            Ok(Command::Events { reason, source, frames }) => {
                let wanted = Wanted { reason, source, frames };
                return show(&mut reader, writer, responder, &wanted, place).await;
            }
            Ok(command) => match responder.respond(command).await {
                Ok(answer) => Body::Answer(answer),
                Err(failure) => Body::Error(failure),
            },
            Err(failure) => Body::Error(failure),
        };
        send(writer, body).await?;
    }
}

/// Shows samples until the caller goes. Whoever watches needs a place all the while, so there must be some left.
async fn show<R: Respond>(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    responder: &R,
    wanted: &Wanted,
    place: &Place,
) -> Result<()> {
    let admitted = wanted.check().and_then(|()| match place.is_scarce() {
        true => {
            Err(Failure::new(FailureKind::Busy, "too many control connections to watch; try again later"))
        }
        false => responder.watch(),
    });
    let (watching, mut samples) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => return send(writer, Body::Error(failure)).await,
    };
    send(writer, Body::Answer(Answer::Watching(watching))).await?;
    while let Some(answer) = watch::next(&mut samples, wanted, reader).await {
        send(writer, Body::Answer(answer)).await?;
    }
    Ok(())
}

/// Waits for `request`, less long while places are scarce: whoever comes next needs this one.
async fn patiently<T>(request: impl Future<Output = T>, place: &Place) -> Result<T, Elapsed> {
    let mut request = std::pin::pin!(request);
    let mut waited = Duration::ZERO;
    loop {
        match timeout(SHORT_PATIENCE, request.as_mut()).await {
            Err(elapsed) if waited >= PATIENCE || place.is_scarce() => return Err(elapsed),
            Err(_) => waited += SHORT_PATIENCE,
            done => return done,
        }
    }
}

fn holder(uid: u32) -> Holder {
    Holder { uid, own: Uid::from_raw(uid).is_root() || Uid::from_raw(uid) == Uid::effective() }
}

/// Where this is no request, the version is read alone: another version's commands need not be readable.
fn read(line: &[u8]) -> Result<Command, Failure> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |error| Failure::new(FailureKind::Malformed, format!("not a request: {error}"));
    let request = serde_json::from_slice::<Request>(line);
    let version = match &request {
        Ok(request) => request.version,
        Err(_) => serde_json::from_slice::<Versioned>(line).map_err(malformed)?.version,
    };
    if version != VERSION {
        return Err(Failure::new(
            FailureKind::Version,
            format!(
                "the daemon speaks version {VERSION} of the control language, not {version}: use its own command line"
            ),
        ));
    }
    request.map(|request| request.command).map_err(malformed)
}

async fn send(writer: &mut OwnedWriteHalf, body: Body) -> Result<()> {
    let mut line = serde_json::to_vec(&Response { version: VERSION, body })?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line)).await??;
    Ok(())
}
