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
    /// The connection ended before one began.
    Died(io::Error),
    /// What came is none.
    Unreadable(&'static str),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died(error) => write!(f, "the connection ended before an answer began: {error}"),
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
        // A server may have answered before it ended the connection.
        let written = self.stream.write_all(head).await;
        loop {
            if let Some(head) = self.head(method).map_err(Failed::Unreadable)? {
                return Ok(head);
            }
            if self.read.len() >= LARGEST {
                return Err(Failed::Unreadable("the head is too large"));
            }
            self.read.reserve(PIECE);
            match (self.stream.read_buf(&mut self.read).await, written.as_ref().err()) {
                (Ok(1..), _) => {}
                (_, Some(error)) => return Err(Failed::Died(error.kind().into())),
                (Ok(0), None) => return Err(Failed::Died(io::ErrorKind::UnexpectedEof.into())),
                (Err(error), None) => return Err(Failed::Died(error)),
            }
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
            self.goes_on = goes_on(&head.headers, is_http11)
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
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// What a server's bytes come to, in pieces of so many: status, body, trailers, and whether the connection goes on.
    async fn read(
        method: &Method,
        answer: &'static [u8],
        size: usize,
    ) -> Result<(u16, Vec<u8>, usize, bool), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let serve = async move {
            let mut asked = [0; 64];
            assert!(server.read(&mut asked).await.unwrap() > 0);
            for piece in answer.chunks(size) {
                // Whoever has seen enough is gone.
                if server.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = server.shutdown().await;
        };
        let ask = async move {
            let mut direct = Direct::new(stream, Rc::new(()));
            let head = match direct.ask(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", method).await {
                Ok(head) => head,
                Err(Failed::Died(_)) => return Err("died".to_owned()),
                Err(Failed::Unreadable(why)) => return Err(why.to_owned()),
            };
            let (mut body, mut trailers) = (Vec::new(), 0);
            while let Some(frame) = std::future::poll_fn(|context| direct.poll_frame(context)).await {
                let frame = frame.map_err(|error| error.to_string())?;
                match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers += frame.into_trailers().map_or(0, |fields| fields.len()),
                }
            }
            Ok((head.status.as_u16(), body, trailers, direct.can_go_on()))
        };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn answers_end_where_their_framing_says() {
        /// Method, what comes, status, body, trailers, and whether the connection goes on.
        type Case<'c> = (&'c Method, &'static [u8], u16, &'c [u8], usize, bool);
        let (get, head) = (Method::GET, Method::HEAD);
        let cases: [Case<'_>; 15] = [
            (&get, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello", 0, true),
            (&get, b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", 0, true),
            (&get, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", 0, true),
            (&get, b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 200, b"hello!", 0, true),
            (&get, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\nx: y\r\nz: a\r\n\r\n", 200, b"", 2, false),
            (&get, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 1\r\n\r\nx", 404, b"x", 0, true),
            (&head, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200, b"", 0, true),
            (&get, b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", 0, true),
            (&get, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b"", 0, true),
            (&get, b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", 0, false),
            (&get, b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", 0, true),
            (&get, b"HTTP/1.1 200 OK\r\nconnection: a, close\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", 0, false),
            (&get, b"HTTP/1.1 200 OK\r\n\r\nall of it", 200, b"all of it", 0, false),
            (&get, b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", 101, b"", 0, true),
            (&get, b"HTTP/1.1 200 OK\r\na:\r\nb: \xff\r\ncontent-length: 0\r\n\r\n", 200, b"", 0, true),
        ];
        for (method, answer, status, body, trailers, goes_on) in cases {
            for size in [1, 7, answer.len()] {
                let (seen, text, fields, on) = read(method, answer, size).await.unwrap();
                let expected = (status, body, trailers);
                assert_eq!((seen, &*text, fields), expected, "{} by {size}", answer.escape_ascii());
                assert_eq!(on, goes_on, "{} by {size}", answer.escape_ascii());
            }
        }
    }

    /// What nobody asked for would be the answer to the next request.
    #[tokio::test]
    async fn a_connection_on_which_more_came_than_the_answer_carries_nothing_else() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n";
        let (_, body, _, goes_on) = read(&Method::GET, answer, answer.len()).await.unwrap();
        assert_eq!((&*body, goes_on), (&b"ab"[..], false));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_from_a_connection_that_died() {
        const CODING: &str = "a coding that is not `chunked` alone";
        let cases: [(&'static [u8], &str); 19] = [
            (b"", "died"),
            (b"HTTP/1.1 200 OK\r\ncontent-le", "died"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", "died"),
            (b"HTTP/2 200\r\n\r\n", "this is no head of HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "this is no head of HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "two lengths"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3, 4\r\n\r\nabcd", "two lengths"),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", "two lengths"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", CODING),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", CODING),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CODING),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nall", CODING),
            (b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc", "this is no length"),
            (b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nabc", "this is no length"),
            (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "a coding in HTTP/1.0"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "the connection ended within an answer"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "the connection ended within an answer",
            ),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
                "a chunk does not end where it says",
            ),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", "this is no chunk"),
        ];
        for (answer, expected) in cases {
            for size in [1, answer.len().max(1)] {
                let failed = read(&Method::GET, answer, size).await.unwrap_err();
                assert_eq!(failed, expected, "{} by {size}", answer.escape_ascii());
            }
        }
    }
}
