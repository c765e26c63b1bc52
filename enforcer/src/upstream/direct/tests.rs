//! What bytes of servers come to.

use std::{net, time::Duration};

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
            Err(Failed::Died { .. } | Failed::Unsent(_)) => return Err("died".to_owned()),
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
        (&get, b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", 101, b"", 0, false),
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
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            CODING,
        ),
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

/// A connection, and its server's end.
fn connected() -> (Direct, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (server, _) = listener.accept().unwrap();
    (Direct::new(TcpStream::from_std(stream).unwrap(), Rc::new(())), server)
}

#[tokio::test]
async fn an_end_is_seen_before_the_runtime_is_told() {
    let (direct, server) = connected();
    assert!(direct.is_silent());
    drop(server);
    // Nothing has been awaited since.
    assert!(!direct.is_silent());
    let (direct, mut server) = connected();
    io::Write::write_all(&mut server, b"HTTP/1.1 408 Request Timeout\r\n").unwrap();
    assert!(!direct.is_silent());
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_was() {
    let head = b"POST / HTTP/1.1\r\nhost: a\r\n\r\n";
    let (mut direct, server) = connected();
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    assert!(matches!(direct.ask(head, &Method::POST).await, Err(Failed::Unsent(_))));
    for (answer, mute) in [(&b""[..], true), (b"HTTP/1.1 2", false)] {
        let (mut direct, mut server) = connected();
        io::Write::write_all(&mut server, answer).unwrap();
        server.shutdown(net::Shutdown::Write).unwrap();
        let failed = direct.ask(head, &Method::POST).await.unwrap_err();
        assert!(matches!(failed, Failed::Died { mute: seen, .. } if seen == mute), "{failed}");
    }
}
