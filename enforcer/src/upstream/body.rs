//! A request's body on its way to a server: counted, bounded, never collected, and read off where nobody wants it.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

use super::{
    headers,
    held::Room,
    pace::{Pace, Patience},
};
use crate::{clock, denial::Denial};

/// Bytes of an unwanted body that are still read. hyper resets an HTTP/2 stream whose body nobody holds (RFC 9113 section
/// 8.1), and a client that finds the reset beside the answer may lose the answer; what was sent before the answer could
/// arrive is about one window, so a client that goes on beyond this has had it in hand.
const DISCARD_BYTES: u64 = 1 << 20;
/// Time for the same: two slow round trips.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// A body as its client sends it.
#[derive(Debug)]
pub struct ClientBody {
    source: Source,
    /// The client waits for a 100 before it sends anything.
    expects: bool,
    pace: Pace,
}

/// Why nothing more of a body comes.
enum Break {
    Late,
    Failed(hyper::Error),
}

/// A body that was read to its end.
#[derive(Debug)]
pub struct Whole {
    held: Held,
    rest: ClientBody,
}

impl Whole {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.held.bytes
    }

    /// With its bytes as the body that goes on as it came.
    pub fn kept(self) -> (Bytes, ClientBody) {
        (self.held.bytes.clone(), ClientBody { source: Source::Held(Some(self.held)), ..self.rest })
    }

    /// The body that goes on in its place, and has its room: it is not longer.
    pub fn replaced(self, content: Vec<u8>) -> ClientBody {
        let held = Held::new(content.into(), self.held.room);
        ClientBody { source: Source::Held(Some(held)), ..self.rest }
    }
}

/// Bytes that were read, with the room that they take: whoever reads them once more takes none.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    room: Arc<Room>,
}

impl Held {
    fn new(bytes: Bytes, room: Arc<Room>) -> Self {
        Self { bytes: Room::keep(&room, bytes), room }
    }
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    /// Still from the client.
    Client(Incoming),
    /// It was read, and is here until somebody takes it.
    Held(Option<Held>),
}

impl Source {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Client(incoming) => Pin::new(incoming).poll_frame(context),
            Self::Held(held) => {
                let bytes = held.take().map(|held| held.bytes).filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    /// How many bytes are here.
    fn held(held: Option<&Held>) -> usize {
        held.map_or(0, |held| held.bytes.len())
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(incoming) => incoming.is_end_stream(),
            Self::Held(held) => Self::held(held.as_ref()) == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(incoming) => incoming.size_hint(),
            Self::Held(held) => SizeHint::with_exact(Self::held(held.as_ref()) as u64),
        }
    }
}

impl ClientBody {
    /// `expects`: the head has `Expect: 100-continue`; `patience`: for how slow a client.
    pub fn new(incoming: Incoming, expects: bool, patience: Patience) -> Self {
        Self { source: Source::Client(incoming), expects, pace: Pace::new(patience) }
    }

    /// Reads all of it, at most so many bytes, and gives it back to be forwarded as it came; `None`: there are more. Has room taken
    /// for it as long as it is held; what is held already keeps the room that it has.
    pub async fn read_whole(self, most: u64, room: Room) -> Result<Option<(Bytes, Self)>, Denial> {
        Ok(self.read(most, room).await?.map(Whole::kept))
    }

    /// The same before it is decided what goes on.
    pub async fn read(mut self, most: u64, mut room: Room) -> Result<Option<Whole>, Denial> {
        if let Source::Held(held) = &mut self.source {
            let held = held.take_if(|held| held.bytes.len() as u64 <= most);
            return Ok(held.map(|held| Whole { held, rest: self }));
        }
        let mut whole = BytesMut::new();
        loop {
            let frame = match std::future::poll_fn(|context| self.poll(context)).await {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(Break::Failed(error))) if is_malformed(&error) => {
                    return Err(Denial::RequestMalformed);
                }
                Some(Err(Break::Late)) => return Err(Denial::BodyTimeout),
                Some(Err(Break::Failed(_))) => return Err(Denial::RequestTimeout),
            };
            // Whoever reads has sent the 100.
            self.expects = false;
            let Ok(data) = frame.into_data() else { continue };
            if (whole.len() + data.len()) as u64 > most {
                self.discard();
                return Ok(None);
            }
            if !room.take(data.len() as u64) {
                self.discard();
                return Err(Denial::Overloaded);
            }
            whole.extend_from_slice(&data);
        }
        Ok(Some(Whole { held: Held::new(whole.freeze(), Arc::new(room)), rest: self }))
    }

    /// The next piece, in time.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        let Poll::Ready(frame) = self.source.poll_frame(context) else {
            return self.pace.poll_late(context).map(|()| Some(Err(Break::Late)));
        };
        if let Some(Ok(frame)) = &frame {
            self.pace.moved(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Break::Failed)))
    }

    /// Reads on for a bounded while, so that an answer that came early is not lost; see [`DISCARD_BYTES`].
    pub fn discard(mut self) {
        // Reading would ask for what the client holds back.
        if self.source.is_end_stream() || self.expects {
            return;
        }
        // Without a runtime the worker is ending, and the connection with it.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let reading = async {
                let mut left = DISCARD_BYTES;
                while let Some(Ok(frame)) = next(&mut self.source).await {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
            };
            let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
        });
    }

    /// Whether its client may take its time from here on.
    pub(super) const fn may_pause(&mut self, unhurried: bool) {
        self.pace.may_pause(unhurried);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.source.is_end_stream()
    }

    pub(super) fn announced(&self) -> u64 {
        self.source.size_hint().lower()
    }
}

async fn next(source: &mut Source) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| source.poll_frame(context)).await
}

/// What the body did so far, for whoever waits for the answer.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the server took something last; the beginning, if it took nothing.
    last: Cell<Instant>,
    state: Cell<State>,
    unread: RefCell<Option<ClientBody>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    Waiting,
    TooLarge,
    Malformed,
    Late,
    Aborted,
    Done,
}

impl Progress {
    fn new() -> Self {
        Self {
            last: Cell::new(clock::instant_now()),
            state: Cell::new(State::Flowing),
            unread: RefCell::default(),
        }
    }

    fn moved(&self) {
        self.last.set(clock::instant_now());
    }

    /// When the server took something last; the beginning, if it took nothing.
    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }

    /// Whether the server took everything that there is, and the client owes more.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state.get() == State::Waiting
    }

    /// Why the body ended early.
    pub(super) fn failure(&self) -> Option<Denial> {
        match self.state.get() {
            State::TooLarge => Some(Denial::BodyTooLarge),
            State::Malformed => Some(Denial::RequestMalformed),
            State::Late => Some(Denial::BodyTimeout),
            State::Aborted => Some(Denial::RequestTimeout),
            State::Flowing | State::Waiting | State::Done => None,
        }
    }

    /// The body back, if nothing asked for any of it: then it can go to another server.
    pub(super) fn take_unread(&self) -> Option<ClientBody> {
        self.unread.take()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(body) = self.take_unread() {
            body.discard();
        }
    }
}

/// A body with a bound; `None` where there is none, or nothing is left of it.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: Option<ClientBody>,
    left: u64,
    touched: bool,
    progress: Option<Rc<Progress>>,
}

impl RequestBody {
    /// Wraps a body; `max_body` 0 means no bound.
    pub(super) fn new(body: Option<ClientBody>, max_body: u64) -> (Self, Option<Rc<Progress>>) {
        let progress = body.is_some().then(|| Rc::new(Progress::new()));
        let left = if max_body == 0 { u64::MAX } else { max_body };
        (Self { body, left, touched: false, progress: progress.clone() }, progress)
    }

    /// The body, of which nothing was read.
    pub(super) fn into_unread(mut self) -> Option<ClientBody> {
        self.body.take()
    }

    fn now(&self, state: State) {
        if let Some(progress) = &self.progress {
            progress.state.set(state);
        }
    }

    fn moved(&self) {
        if let Some(progress) = &self.progress {
            progress.moved();
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        match &self.progress {
            Some(progress) if !self.touched => {
                *progress.unread.borrow_mut() = Some(body);
            }
            _ => body.discard(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.now(State::Waiting);
        self.touched = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        // Whoever reads has sent the 100.
        body.expects = false;
        let Some(frame) = ready!(body.poll(context)) else {
            self.body = None;
            self.now(State::Done);
            self.moved();
            return Poll::Ready(None);
        };
        let mut frame = match frame {
            Ok(frame) => frame,
            Err(Break::Late) => {
                self.body = None;
                self.now(State::Late);
                return Poll::Ready(Some(Err("the body took too long".into())));
            }
            Err(Break::Failed(error)) => {
                self.body = None;
                self.now(if is_malformed(&error) { State::Malformed } else { State::Aborted });
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        self.now(State::Flowing);
        if let Some(trailers) = frame.trailers_mut() {
            headers::trailers_to_upstream(trailers);
        }
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                self.now(State::TooLarge);
                return Poll::Ready(Some(Err("the body exceeds its bound".into())));
            };
            self.left = left;
            self.moved();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(ClientBody::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.source.size_hint())
    }
}

/// Whether a body broke the chunked coding (RFC 9112 section 7.1), for which hyper has errors of these two kinds; a
/// connection that broke has others.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        source = error.source();
    }
    error.is_parse()
}
