//! The command line's end of the control socket: one request, one answer, then the connection is over.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::wire::{Answer, Body, Command, Failure, Request, Response, VERSION};

/// How long an answer may take: a reload reads files and talks to the kernel.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read: a list of a hundred thousand bans has some 20 MB.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers there.
    Unreachable(String),
    /// The file system or the daemon forbids it.
    Permission(String),
    /// The daemon said no.
    Failed(Failure),
    /// What came back makes no sense.
    Garbled(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Permission(text) | Self::Garbled(text) => f.write_str(text),
            Self::Failed(failure) => f.write_str(&failure.message),
        }
    }
}

/// Sends `command` to the daemon at `socket`.
pub fn ask(socket: &Path, command: Command) -> Result<Answer, ClientError> {
    let place = socket.display();
    let stream = UnixStream::connect(socket).map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Permission(format!(
                "no permission for {place}: use sudo, or become a member of the daemon's control.group"
            ))
        } else {
            ClientError::Unreachable(format!(
                "no daemon answers on {place} ({error}): is it running? Another socket is named with --socket or ENFORCER_SOCKET"
            ))
        }
    })?;
    let response = talk(stream, command).map_err(|error| {
        ClientError::Unreachable(format!("the daemon on {place} did not answer: {error}"))
    })?;
    let response: Response = serde_json::from_str(&response).map_err(|error| {
        ClientError::Garbled(format!("the daemon on {place} answered something else: {error}"))
    })?;
    match response.body {
        Body::Answer(answer) => Ok(answer),
        Body::Error(failure) => Err(ClientError::Failed(failure)),
    }
}

fn talk(mut stream: UnixStream, command: Command) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, command })?;
    line.push(b'\n');
    // A daemon that refuses the caller may have closed already; its answer can still be read.
    let sent = stream.write_all(&line);
    let mut answer = String::new();
    BufReader::new(stream).take(MAX_ANSWER).read_line(&mut answer)?;
    if answer.is_empty() {
        sent?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
