//! The command line's end of the control socket: one request and its answer, or several in a [`Conversation`].

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::wire::{Answer, Body, Command, Failure, Request, Response, VERSION};

/// How long an answer may take: a reload reads files and talks to the kernel.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read: a list of a million bans has some 200 MB.
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
    let mut conversation = Conversation::begin(socket)?;
    conversation.tell(command);
    conversation.hear()
}

/// Several requests on one connection, answered in their order.
pub struct Conversation<'a> {
    socket: &'a Path,
    reader: BufReader<UnixStream>,
    /// The first request that could not be sent; those after it were not.
    unsent: Option<io::Error>,
}

impl<'a> Conversation<'a> {
    /// Connects to the daemon at `socket`.
    pub fn begin(socket: &'a Path) -> Result<Self, ClientError> {
        Ok(Self { socket, reader: BufReader::new(connect(socket)?), unsent: None })
    }

    /// Sends `command`. What keeps it from being sent is told where its answer is asked for: a daemon that refuses the caller may have
    /// closed already, and its answer can still be read.
    pub fn tell(&mut self, command: Command) {
        if self.unsent.is_none() {
            self.unsent = send(self.reader.get_mut(), command).err();
        }
    }

    /// Waits for the next answer.
    pub fn hear(&mut self) -> Result<Answer, ClientError> {
        let mut answer = String::new();
        let heard = (&mut self.reader).take(MAX_ANSWER).read_line(&mut answer);
        let heard = match heard {
            Ok(0) => Err(self.unsent.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
            heard => heard,
        };
        heard.map_err(|error| silent(self.socket, &error))?;
        read(self.socket, &answer)
    }
}

/// Sends `command`, which has many answers, and hands each to `show` until that breaks off or the daemon ends.
pub fn watch(
    socket: &Path,
    command: Command,
    mut show: impl FnMut(Answer) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let mut stream = connect(socket)?;
    send(&mut stream, command).map_err(|error| silent(socket, &error))?;
    // The first answer comes at once; from there on nobody knows how long there is nothing to see.
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let count = (&mut reader).take(MAX_ANSWER).read_line(&mut line);
        if count.map_err(|error| silent(socket, &error))? == 0 {
            return Ok(());
        }
        if show(read(socket, &line)?).is_break() {
            return Ok(());
        }
        // A socket that cannot be set to wait longer ends with the next pause.
        let _ = reader.get_ref().set_read_timeout(None);
    }
}

fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let place = socket.display();
    UnixStream::connect(socket).map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Permission(format!(
                "no permission for {place}: use sudo, or become a member of the daemon's control.group"
            ))
        } else {
            ClientError::Unreachable(format!(
                "no daemon answers on {place} ({error}): is it running? Another socket is named with --socket or ENFORCER_SOCKET"
            ))
        }
    })
}

fn silent(socket: &Path, error: &io::Error) -> ClientError {
    ClientError::Unreachable(format!("the daemon on {} did not answer: {error}", socket.display()))
}

fn read(socket: &Path, line: &str) -> Result<Answer, ClientError> {
    let response: Response = serde_json::from_str(line).map_err(|error| {
        ClientError::Garbled(format!("the daemon on {} answered something else: {error}", socket.display()))
    })?;
    match response.body {
        Body::Answer(answer) => Ok(answer),
        Body::Error(failure) => Err(ClientError::Failed(failure)),
    }
}

fn send(stream: &mut UnixStream, command: Command) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, command })?;
    line.push(b'\n');
    stream.write_all(&line)
}
