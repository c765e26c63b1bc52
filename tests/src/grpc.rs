//! A gRPC service and its client, by tonic, without generated code: `test.Echo` answers with what it was sent.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::Result;
use http::uri::PathAndQuery;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client,
    codegen::{Service, tokio_stream::Stream},
    server::{self, ServerStreamingService, StreamingService, UnaryService},
    transport::Channel,
};
use tonic_prost::ProstCodec;

/// What is sent both ways.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Note {
    /// Any text.
    #[prost(string, tag = "1")]
    pub text: String,
    /// How often a server's stream repeats it.
    #[prost(uint32, tag = "2")]
    pub times: u32,
}

impl Note {
    /// A note with this text.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), times: 1 }
    }
}

/// The trailer that a failed call brings.
pub const DETAIL: &str = "x-detail";

type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;
type Reply<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// `Unary`: the note comes back, with the field `x-seen` of the request; a note `fail` fails with a trailer.
struct Unary;

impl UnaryService<Note> for Unary {
    type Response = Note;
    type Future = Reply<Note>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(async move {
            if request.get_ref().text == "fail" {
                let mut status = Status::new(Code::FailedPrecondition, "as you wish");
                status.metadata_mut().insert(DETAIL, tonic::metadata::MetadataValue::from_static("why"));
                return Err(status);
            }
            let seen = request.metadata().get("x-seen").cloned();
            let mut response = Response::new(request.into_inner());
            if let Some(seen) = seen {
                response.metadata_mut().insert("x-seen", seen);
            }
            Ok(response)
        })
    }
}

/// `Repeat`: the note comes back `times` times.
struct Repeat;

impl ServerStreamingService<Note> for Repeat {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = Reply<Notes>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        let Note { text, times } = request.into_inner();
        let notes = (0..times).map(move |n| Ok(Note { text: text.clone(), times: n }));
        let notes: Notes = Box::pin(tonic::codegen::tokio_stream::iter(notes));
        Box::pin(async move { Ok(Response::new(notes)) })
    }
}

/// `Chat`: every note comes back as soon as it is there.
struct Chat;

impl StreamingService<Note> for Chat {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = Reply<Notes>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let notes: Notes = Box::pin(request.into_inner());
        Box::pin(async move { Ok(Response::new(notes)) })
    }
}

/// The service as tonic's server calls it.
#[derive(Clone, Debug)]
struct Echo;

impl server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path().rsplit('/').next().unwrap_or_default() {
                "Unary" => grpc.unary(Unary, request).await,
                "Repeat" => grpc.server_streaming(Repeat, request).await,
                "Chat" => grpc.streaming(Chat, request).await,
                "Never" => std::future::pending().await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, in HTTP/2 without TLS.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts on a free loopback port of the running runtime.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                    Echo.call(request.map(Body::new))
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let server = hyper::server::conn::http2::Builder::new(executor);
                tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, task })
    }
}

/// A client of the service.
pub struct Client {
    grpc: client::Grpc<Channel>,
    prefix: String,
    /// Goes with every call.
    pub token: Option<String>,
}

impl Client {
    /// Calls methods below `prefix`, like `/api`.
    pub fn new(channel: Channel, prefix: &str) -> Self {
        Self { grpc: client::Grpc::new(channel), prefix: prefix.to_owned(), token: None }
    }

    fn prepare<T>(&self, method: &str, message: T) -> Result<(Request<T>, PathAndQuery), Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().map_err(|error| invalid(&error))?;
            request.metadata_mut().insert("authorization", value);
        }
        request.metadata_mut().insert("x-seen", tonic::metadata::MetadataValue::from_static("yes"));
        let path = format!("{}/test.Echo/{method}", self.prefix);
        Ok((request, PathAndQuery::try_from(path).map_err(|error| invalid(&error))?))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// One note for one note.
    pub async fn unary(&mut self, method: &str, note: Note) -> Result<Response<Note>, Status> {
        let (request, path) = self.prepare(method, note)?;
        self.ready().await?;
        self.grpc.unary(request, path, ProstCodec::default()).await
    }

    /// Many notes for one.
    pub async fn repeat(&mut self, note: Note) -> Result<Response<Streaming<Note>>, Status> {
        let (request, path) = self.prepare("Repeat", note)?;
        self.ready().await?;
        self.grpc.server_streaming(request, path, ProstCodec::default()).await
    }

    /// Notes both ways at once.
    pub async fn chat(&mut self, notes: mpsc::Receiver<Note>) -> Result<Response<Streaming<Note>>, Status> {
        let (request, path) = self.prepare("Chat", Outgoing(notes))?;
        self.ready().await?;
        self.grpc.streaming(request, path, ProstCodec::default()).await
    }
}

/// A channel's receiving end as a stream.
struct Outgoing(mpsc::Receiver<Note>);

impl Stream for Outgoing {
    type Item = Note;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Note>> {
        self.0.poll_recv(context)
    }
}
