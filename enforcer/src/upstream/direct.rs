//! A plain HTTP/1.1 connection for requests without a body, driven by the task that waits for the answer.
//!
//! That is what most requests to an API are. hyper runs a connection in a task of its own, which takes requests and gives
//! answers and their pieces through channels: right where bodies go both ways at once, and for nothing here. `pool` keeps these
//! connections, `lease` asks, `answer` reads on. Requests with a body and upgrades go through hyper. What frames an answer is
//! read by the letter of RFC 9112 section 6.3.

use std::{
    any::Any,
    error::Error,
    fmt, io,
    mem::MaybeUninit,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header::CONNECTION, response};
use httparse::{Header, ParserConfig, Status};
use hyper::body::{Frame, SizeHint};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::framing::{self, Framing};

/// The largest head of an answer, and trailers.
const LARGEST: usize = 64 << 10;
/// Bytes that are asked for at once.
const PIECE: usize = 8 << 10;
/// Fields of a head, and of trailers.
const FIELDS: usize = 100;
/// Bytes of the line with a chunk's size: 16 digits, and extensions.
const LONGEST_CHUNK_LINE: usize = 16 << 10;

/// See the module.
pub(super) struct Direct {
    stream: TcpStream,
    /// What was read and is not used yet.
    read: BytesMut,
    rest: Rest,
    /// Whether the server will take another request.
    goes_on: bool,
    /// Given back when the connection ends.
    _held: Rc<dyn Any>,
}

/// What is still to be read of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// All that comes.
    UntilClose,
}

impl Rest {
    const fn of(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Nothing,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked { .. } => Self::ChunkSize,
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection had ended before anything of the request was sent.
    Unsent(io::Error),
    /// The connection ended before one began; `mute`: without a byte.
    Died { error: io::Error, mute: bool },
    /// What came is none.
    Unreadable(&'static str),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(error) => write!(f, "the connection had ended before the request began: {error}"),
            Self::Died { error, .. } => write!(f, "the connection ended before an answer began: {error}"),
            Self::Unreadable(why) => write!(f, "no answer: {why}"),
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

impl Direct {
    /// `held` is dropped with it.
    pub(super) fn new(stream: TcpStream, held: Rc<dyn Any>) -> Self {
        Self { stream, read: BytesMut::new(), rest: Rest::Nothing, goes_on: true, _held: held }
    }

    /// Sends a head, and waits for that of the answer.
    pub(super) async fn ask(&mut self, head: &[u8], method: &Method) -> Result<response::Parts, Failed> {
        // Until the answer was read to its end.
        self.goes_on = false;
        let mut rest = head;
        let mut broken = None;
        while !rest.is_empty() && broken.is_none() {
            match self.stream.write(rest).await {
                Ok(0) => broken = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                // What is here to be read cannot be an answer.
                Err(error) if rest.len() == head.len() => return Err(Failed::Unsent(error)),
                // A server may have answered before it ended the connection.
                Err(error) => broken = Some(error),
            }
        }
        let mut mute = true;
        loop {
            if let Some(head) = self.head(method).map_err(Failed::Unreadable)? {
                return Ok(head);
            }
            if self.read.len() >= LARGEST {
                return Err(Failed::Unreadable("the head is too large"));
            }
            self.read.reserve(PIECE);
            let error = match self.stream.read_buf(&mut self.read).await {
                Ok(1..) => {
                    mute = false;
                    continue;
                }
                Ok(_) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            return Err(Failed::Died { error: broken.unwrap_or(error), mute });
        }
    }

    /// The head of the answer, once it is there; those of interim answers are passed over (RFC 9110 section 15.2).
    fn head(&mut self, method: &Method) -> Result<Option<response::Parts>, &'static str> {
        loop {
            if self.read.is_empty() {
                return Ok(None);
            }
            let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
            let mut parsed = httparse::Response::new(&mut []);
            let outcome = ParserConfig::default().parse_response_with_uninit_headers(
                &mut parsed,
                &self.read,
                &mut room,
            );
            let length = match outcome {
                Ok(Status::Complete(length)) => length,
                Ok(Status::Partial) => return Ok(None),
                Err(_) => return Err("this is no head of HTTP/1.1"),
            };
            let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = code.ok_or("this is no status")?;
            let is_http11 = parsed.version == Some(1);
            let begin = self.read.as_ptr().addr();
            let mut places = Vec::with_capacity(parsed.headers.len());
            for field in parsed.headers.iter() {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "this is no field")?;
                let at = field.value.as_ptr().addr().wrapping_sub(begin);
                places.push((name, if field.value.is_empty() { 0..0 } else { at..at + field.value.len() }));
            }
            let text = self.read.split_to(length).freeze();
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            let (mut head, ()) = Response::new(()).into_parts();
            head.status = status;
            // Some more are added on the way to the client.
            head.headers.reserve(places.len() + 4);
            for (name, place) in places {
                let value = text.get(place.clone()).map(|_| text.slice(place));
                let value = value.and_then(|value| HeaderValue::from_maybe_shared(value).ok());
                head.headers.append(name, value.ok_or("this is no field")?);
            }
            let bodiless = *method == Method::HEAD
                || status.is_informational()
                || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let framing = framing::read(&head.headers)?;
            if !is_http11 && matches!(framing, Framing::Chunked { .. }) {
                return Err("a coding in HTTP/1.0");
            }
            self.rest = if bodiless { Rest::Nothing } else { Rest::of(framing) };
            // What follows a change of protocols is not HTTP.
            let changes = status == StatusCode::SWITCHING_PROTOCOLS;
            self.goes_on = goes_on(&head.headers, is_http11)
                && !changes
                && self.rest != Rest::UntilClose
                && framing != Framing::Chunked { doubtful: true };
            return Ok(Some(head));
        }
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = self.poll_piece(context);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.rest = Rest::Nothing;
            self.goes_on = false;
        }
        polled
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            match self.rest {
                Rest::Nothing => return Poll::Ready(None),
                Rest::Length(left) => {
                    let piece = ready!(self.poll_some(context, left))?;
                    let left = left.saturating_sub(piece.len() as u64);
                    self.rest = if left == 0 { Rest::Nothing } else { Rest::Length(left) };
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Rest::Chunk(left) => {
                    let piece = ready!(self.poll_some(context, left))?;
                    let left = left.saturating_sub(piece.len() as u64);
                    self.rest = if left == 0 { Rest::ChunkEnd } else { Rest::Chunk(left) };
                    // So that the end is seen with the last piece, where it is there.
                    if let Err(error) = self.pass() {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Rest::ChunkSize | Rest::ChunkEnd => {
                    self.pass()?;
                    if matches!(self.rest, Rest::ChunkSize | Rest::ChunkEnd) {
                        ready!(self.poll_more(context))?;
                    }
                }
                Rest::Trailers => match self.trailers()? {
                    Some(trailers) if trailers.is_empty() => return Poll::Ready(None),
                    Some(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    None => ready!(self.poll_more(context))?,
                },
                Rest::UntilClose => {
                    if self.read.is_empty() && ready!(self.poll_read(context))? == 0 {
                        self.rest = Rest::Nothing;
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.read.split().freeze()))));
                }
            }
        }
    }

    /// Passes over what stands between two chunks, as far as it is there.
    fn pass(&mut self) -> Result<(), &'static str> {
        loop {
            match (self.rest, &*self.read) {
                (Rest::ChunkEnd, [b'\r', b'\n', ..]) => {
                    self.read.advance(2);
                    self.rest = Rest::ChunkSize;
                }
                (Rest::ChunkEnd, [] | [b'\r']) => return Ok(()),
                (Rest::ChunkEnd, _) => return Err("a chunk does not end where it says"),
                (Rest::ChunkSize, read) => match httparse::parse_chunk_size(read) {
                    Ok(Status::Complete((length, size))) => {
                        self.read.advance(length);
                        self.rest = if size == 0 { Rest::Trailers } else { Rest::Chunk(size) };
                    }
                    Ok(Status::Partial) if read.len() < LONGEST_CHUNK_LINE => return Ok(()),
                    _ => return Err("this is no chunk"),
                },
                // Most have none, and are over with this.
                (Rest::Trailers, [b'\r', b'\n', ..]) => {
                    self.read.advance(2);
                    self.rest = Rest::Nothing;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The trailers, once they are there.
    fn trailers(&mut self) -> Result<Option<HeaderMap>, &'static str> {
        let mut room = [httparse::EMPTY_HEADER; FIELDS];
        match httparse::parse_headers(&self.read, &mut room) {
            Ok(Status::Complete((length, fields))) => {
                let mut trailers = HeaderMap::with_capacity(fields.len());
                for field in fields {
                    let name = HeaderName::from_bytes(field.name.as_bytes());
                    let value = HeaderValue::from_bytes(field.value);
                    trailers.append(
                        name.map_err(|_| "this is no field")?,
                        value.map_err(|_| "this is no field")?,
                    );
                }
                self.read.advance(length);
                self.rest = Rest::Nothing;
                Ok(Some(trailers))
            }
            Ok(Status::Partial) if self.read.len() < LARGEST => Ok(None),
            _ => Err("these are no trailers"),
        }
    }

    /// Some of what is left of a piece, and not of what follows.
    fn poll_some(&mut self, context: &mut Context<'_>, left: u64) -> Poll<Result<Bytes, Failure>> {
        if self.read.is_empty() {
            ready!(self.poll_more(context))?;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.read.len());
        Poll::Ready(Ok(self.read.split_to(most).freeze()))
    }

    /// More, without which the answer is not whole.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match ready!(self.poll_read(context))? {
            0 => Poll::Ready(Err("the connection ended within an answer".into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(PIECE);
        pin!(self.stream.read_buf(&mut self.read)).poll(context)
    }

    /// Whether nothing more comes of the answer.
    pub(super) fn is_over(&self) -> bool {
        self.rest == Rest::Nothing
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Nothing => SizeHint::with_exact(0),
            Rest::Length(left) => SizeHint::with_exact(left),
            Rest::ChunkSize | Rest::Chunk(_) | Rest::ChunkEnd | Rest::Trailers | Rest::UntilClose => {
                SizeHint::default()
            }
        }
    }

    /// Whether it can carry another request, as far as this end knows: bytes that nobody asked for would be taken for its answer.
    pub(super) fn can_go_on(&self) -> bool {
        self.goes_on && self.is_over() && self.read.is_empty()
    }

    /// Whether the server has ended it, or said something unasked.
    pub(super) fn is_closed(&self) -> bool {
        let mut room = [0];
        !matches!(self.stream.try_read(&mut room), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether it is open, and nothing came unasked, as the kernel knows it at this moment: the runtime may not have been told yet.
    pub(super) fn is_silent(&self) -> bool {
        let mut room = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&self.stream).peek(&mut room);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ready when there is something to read; wakes the task then.
    pub(super) fn poll_stirs(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(context).map(drop)
    }
}

/// Whether the server keeps the connection (RFC 9112 section 9.3).
fn goes_on(headers: &HeaderMap, is_http11: bool) -> bool {
    let mut said = headers.get_all(CONNECTION).iter().peekable();
    if said.peek().is_none() {
        return is_http11;
    }
    let options = || {
        let values = headers.get_all(CONNECTION).iter();
        values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    };
    let says = |word: &[u8]| options().any(|option| option.eq_ignore_ascii_case(word));
    !says(b"close") && (is_http11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests;
