//! Reads requests from the control socket and writes responses; what they say comes from [`Respond`].
//!
//! Bounded in every direction: connections, bytes per request, time to send one, time to take the answer. The
//! daemon starts it; it never touches the ledger or the kernel.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, warn};

use super::{
    socket::{Socket, permitted},
    wire::{Answer, Body, Command, Failure, FailureKind, MAX_REQUEST, Request, Response, VERSION},
};

/// Connections at once: operators and a few scripts.
const CONNECTIONS: usize = 16;

/// How long a client may take over its next request, and over reading an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rest before the next attempt when accepting fails, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whoever knows the answers.
pub trait Respond: Send + Sync + 'static {
    /// Carries out `command`.
    fn respond(&self, command: Command) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// Serves `socket` until it is dropped or aborted.
pub async fn serve<R: Respond>(socket: Socket, responder: Arc<R>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accepting on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let refusal = match stream.peer_cred() {
            Ok(peer) if permitted(peer.uid(), peer.gid(), socket.group) => None,
            Ok(peer) => {
                warn!(uid = peer.uid(), gid = peer.gid(), pid = peer.pid(), "refused on the control socket");
                Some(Failure::new(
                    FailureKind::Permission,
                    "only root, the daemon's own user and members of control.group may use this socket",
                ))
            }
            Err(error) => Some(Failure::new(FailureKind::Permission, format!("who are you? {error}"))),
        };
        let permit = Arc::clone(&permits).try_acquire_owned();
        let busy = || Failure::new(FailureKind::Busy, "too many control connections; try again later");
        let refusal = refusal.or_else(|| permit.is_err().then(busy));
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            match refusal {
                Some(failure) => send(&mut writer, Body::Error(failure)).await,
                None => converse(reader, &mut writer, responder.as_ref()).await,
            }
            .unwrap_or_else(|error| debug!(%error, "control connection ended"));
            drop(permit);
        });
    }
}

async fn converse<R: Respond>(
    reader: OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    responder: &R,
) -> Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_REQUEST as u64 + 1;
        let count = timeout(PATIENCE, (&mut reader).take(limit).read_until(b'\n', &mut line)).await??;
        if count == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && count as u64 >= limit {
            let text = format!("the request is longer than {MAX_REQUEST} bytes");
            return send(writer, Body::Error(Failure::new(FailureKind::Malformed, text))).await;
        }
        let body = match read(&line) {
            Ok(command) => match responder.respond(command).await {
                Ok(answer) => Body::Answer(answer),
                Err(failure) => Body::Error(failure),
            },
            Err(failure) => Body::Error(failure),
        };
        send(writer, body).await?;
    }
}

/// The version is read first: another version's commands need not be readable.
fn read(line: &[u8]) -> Result<Command, Failure> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |error| Failure::new(FailureKind::Malformed, format!("not a request: {error}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(Failure::new(
            FailureKind::Version,
            format!(
                "the daemon speaks version {VERSION} of the control language, not {version}: use its own command line"
            ),
        ));
    }
    serde_json::from_slice::<Request>(line).map(|request| request.command).map_err(malformed)
}

async fn send(writer: &mut OwnedWriteHalf, body: Body) -> Result<()> {
    let mut line = serde_json::to_vec(&Response { version: VERSION, body })?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line)).await??;
    Ok(())
}
