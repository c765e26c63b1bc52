//! Follows the messages of an HTTP/1.1 connection byte by byte, by the letter of RFC 9112: where heads begin and end, what
//! frames their bodies, and whether anybody could read them in another way.
//!
//! `stream` asks it about every byte before hyper sees it. It decides about syntax and framing alone, never looks at what a
//! request means, and changes nothing.

use http::Uri;
use memchr::memchr;

use crate::{decimal, denial::Denial};

/// Bytes of the line with a chunk's size: 16 digits, and extensions (RFC 9112 section 7.1.1), which nobody uses.
const LONGEST_CHUNK_LINE: usize = 256;
/// What hyper takes, and what fits its type for targets.
const LONGEST_TARGET: usize = 65_534;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// What was found in a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Followed {
    /// So many bytes may be handed on; what is behind them has to be shown again, with more behind it.
    pub(super) good: usize,
    pub(super) fault: Option<Fault>,
}

/// Where a connection stops to be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// In a head.
    Head(Denial),
    /// In the framing of a chunked body, or in its trailers.
    Body,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head(Head),
    Length(u64),
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailers(Lines),
    /// Not HTTP any more: whatever comes is good.
    Other,
}

/// How far the lines of a head, or of trailers, have been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Where the line begins that is read.
    begin: usize,
    /// Up to where its end has been looked for.
    looked: usize,
    fields: usize,
}

/// What the lines of a head have said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    lines: Lines,
    has_request_line: bool,
    is_http10: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// The messages of one connection.
#[derive(Debug)]
pub(super) struct Messages {
    bounds: Bounds,
    part: Part,
    /// Whether anything of the head was shown that is read.
    begun: bool,
}

impl Messages {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, part: Part::Head(Head::default()), begun: false }
    }

    /// Whether a head has begun and not ended.
    pub(super) const fn is_in_head(&self) -> bool {
        self.begun
    }

    /// The connection goes on in another protocol (RFC 9110 section 7.8).
    pub(super) fn switch(&mut self) {
        self.part = Part::Other;
        self.begun = false;
    }

    /// Reads on. `bytes` begins where the last call's `good` ended.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Followed {
        let mut good = 0;
        loop {
            let rest = bytes.get(good..).unwrap_or_default();
            match self.step(rest) {
                Ok(0) => return Followed { good, fault: None },
                Ok(read) => good += read,
                Err(fault) => return Followed { good, fault: Some(fault) },
            }
        }
    }

    /// Reads one part to its end, or as far as it is there; returns how much may be handed on.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match &mut self.part {
            Part::Head(head) => {
                self.begun = true;
                let Some(length) = head.read(bytes, self.bounds).map_err(Fault::Head)? else { return Ok(0) };
                self.begun = false;
                self.part = match (head.is_chunked, head.length) {
                    (true, _) => Part::ChunkLine,
                    (false, Some(length @ 1..)) => Part::Length(length),
                    (false, _) => Part::Head(Head::default()),
                };
                Ok(length)
            }
            Part::Length(left) => {
                let (read, rest) = take(bytes, *left);
                self.part = if rest == 0 { Part::Head(Head::default()) } else { Part::Length(rest) };
                Ok(read)
            }
            Part::ChunkLine => {
                let seen = bytes.get(..LONGEST_CHUNK_LINE).unwrap_or(bytes);
                let Some(end) = memchr(b'\n', seen) else {
                    return if seen.len() == LONGEST_CHUNK_LINE { Err(Fault::Body) } else { Ok(0) };
                };
                let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Fault::Body)?;
                self.part = match chunk_size(line).ok_or(Fault::Body)? {
                    0 => Part::Trailers(Lines::default()),
                    size => Part::Chunk(size),
                };
                Ok(end + 1)
            }
            Part::Chunk(left) => {
                let (read, rest) = take(bytes, *left);
                self.part = if rest == 0 { Part::ChunkEnd } else { Part::Chunk(rest) };
                Ok(read)
            }
            Part::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.part = Part::ChunkLine;
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Fault::Body),
            },
            Part::Other => Ok(bytes.len()),
            Part::Trailers(lines) => loop {
                match lines.next(bytes, self.bounds.bytes).map_err(|_| Fault::Body)? {
                    None => return Ok(0),
                    Some([]) => {
                        let length = lines.begin;
                        self.part = Part::Head(Head::default());
                        return Ok(length);
                    }
                    Some(line) => {
                        let (name, _) = field(line).ok_or(Fault::Body)?;
                        lines.count(self.bounds).map_err(|_| Fault::Body)?;
                        if frames(name) {
                            return Err(Fault::Body);
                        }
                    }
                }
            },
        }
    }
}

impl Lines {
    /// The next line without its end; `None` if it is not there yet. Only CRLF ends a line: whoever takes a bare LF for one
    /// as well (RFC 9112 section 2.2 allows it) sees other fields than whoever does not.
    fn next<'b>(&mut self, bytes: &'b [u8], bound: usize) -> Result<Option<&'b [u8]>, Denial> {
        let found = bytes.get(self.looked..).and_then(|rest| memchr(b'\n', rest));
        let Some(end) = found.map(|end| self.looked + end) else {
            self.looked = bytes.len();
            return if bytes.len() > bound { Err(Denial::HeadersTooLarge) } else { Ok(None) };
        };
        if end >= bound {
            return Err(Denial::HeadersTooLarge);
        }
        let line = bytes.get(self.begin..end).and_then(|line| line.strip_suffix(b"\r"));
        (self.begin, self.looked) = (end + 1, end + 1);
        line.map(Some).ok_or(Denial::RequestMalformed)
    }

    fn count(&mut self, bounds: Bounds) -> Result<(), Denial> {
        self.fields += 1;
        if self.fields > bounds.fields { Err(Denial::HeadersTooLarge) } else { Ok(()) }
    }
}

impl Head {
    /// The length of the whole head, once it is there.
    fn read(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<usize>, Denial> {
        while let Some(line) = self.lines.next(bytes, bounds.bytes)? {
            if !self.has_request_line {
                // One empty line before a request is an old client's habit (RFC 9112 section 2.2).
                if line.is_empty() && self.lines.begin == 2 {
                    continue;
                }
                self.has_request_line = true;
                self.is_http10 = request_line(line).ok_or(Denial::RequestMalformed)?;
            } else if line.is_empty() {
                return Ok(Some(self.lines.begin));
            } else {
                self.lines.count(bounds)?;
                let (name, value) = field(line).ok_or(Denial::RequestMalformed)?;
                self.frame(name, value)?;
            }
        }
        Ok(None)
    }

    /// What a field says of the body. There must be one answer: no length twice, not even the same one, none beside a coding,
    /// and no coding but `chunked` (RFC 9112 sections 6.1 and 6.3).
    fn frame(&mut self, name: &[u8], value: &[u8]) -> Result<(), Denial> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal::read(value).ok_or(Denial::RequestAmbiguous)?;
            if self.is_chunked || self.length.replace(length).is_some() {
                return Err(Denial::RequestAmbiguous);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let known = value.eq_ignore_ascii_case(b"chunked");
            if !known || self.is_http10 || self.is_chunked || self.length.is_some() {
                return Err(Denial::RequestAmbiguous);
            }
            self.is_chunked = true;
        }
        Ok(())
    }
}

/// How much of `left` is there, and what is left then.
fn take(bytes: &[u8], left: u64) -> (usize, u64) {
    let read = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (read, left - read as u64)
}

/// Whether the request is HTTP/1.0; `None` if it is no request line: method, target and version with one space between
/// them (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Option<bool> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || method.is_empty() || !are(TOKEN, method) {
        return None;
    }
    let ordinary = target.first() == Some(&b'/') && are(PLAIN, target);
    // A fragment is none of a target's (RFC 9112 section 3.2), and parsers that meet one cut it off or do not.
    let good = ordinary || (memchr(b'#', target).is_none() && Uri::try_from(target).is_ok());
    if target.len() > LONGEST_TARGET || !good {
        return None;
    }
    match version {
        b"HTTP/1.1" => Some(false),
        b"HTTP/1.0" => Some(true),
        _ => None,
    }
}

/// Name and value of a field line (RFC 9112 section 5): a token, the colon at once, and nothing that ends or folds a line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let good = !name.is_empty() && are(TOKEN, name) && are(VISIBLE, value);
    good.then(|| (name, value.trim_ascii()))
}

/// Fields that would frame a message or choose its server, and have no place in trailers (RFC 9110 section 6.5.1).
fn frames(name: &[u8]) -> bool {
    ["content-length", "transfer-encoding", "host", "trailer", "te", "authorization"]
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// The size of a chunk: hexadecimal digits, and extensions behind a semicolon, which mean nothing here.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let (digits, extension) = match memchr(b';', line) {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    let visible = |byte: &u8| *byte == b'\t' || (b' '..0x7f).contains(byte);
    if digits.is_empty() || digits.len() > 16 || !extension.iter().all(visible) {
        return None;
    }
    digits.iter().try_fold(0, |size: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        size.checked_mul(16)?.checked_add(u64::from(digit))
    })
}

/// Bytes of a token.
const TOKEN: u8 = 1;
/// Bytes of a field's value: `field-vchar` and what may stand between (RFC 9110 section 5.5).
const VISIBLE: u8 = 2;
/// Bytes of a target that have one meaning.
const PLAIN: u8 = 4;

/// What each byte may be.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        let one = byte as u8;
        let plain = one.is_ascii_alphanumeric()
            || matches!(
                one,
                b'/' | b'?'
                    | b'&'
                    | b'='
                    | b'-'
                    | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'+'
                    | b','
                    | b':'
                    | b'@'
                    | b'!'
                    | b'$'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b';'
            );
        let visible = one == b'\t' || (one >= b' ' && one != 0x7f);
        kinds[byte] = is_token(one) as u8 * TOKEN + visible as u8 * VISIBLE + plain as u8 * PLAIN;
        byte += 1;
    }
    kinds
};

/// Whether all of them are of a kind. Every head goes through here, so it looks at all and branches at none.
fn are(kind: u8, bytes: &[u8]) -> bool {
    bytes.iter().fold(kind, |kind, byte| kind & KINDS[usize::from(*byte)]) != 0
}

/// `tchar` of RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 256, fields: 4 };

    fn whole(bytes: &[u8]) -> Followed {
        Messages::new(BOUNDS).follow(bytes)
    }

    /// The same bytes one by one, as a caller shows them that keeps what is not good yet.
    fn dripped(bytes: &[u8]) -> Followed {
        let (mut messages, mut good) = (Messages::new(BOUNDS), 0);
        for end in 1..=bytes.len() {
            let followed = messages.follow(&bytes[good..end]);
            good += followed.good;
            if followed.fault.is_some() {
                return Followed { good, ..followed };
            }
        }
        Followed { good, fault: None }
    }

    #[test]
    fn messages_are_followed_to_their_ends_however_they_arrive() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /b?c HTTP/1.0\r\n\r\n"[..],
            b"\r\nPOST / HTTP/1.1\r\nContent-Length:5 \r\n\r\nhelloHEAD / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n00a;x=\"y\"\r\n0123456789\r\n000\r\nx: y\r\n\r\n",
            b"GET http://a/b HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /{x}?|y HTTP/1.1\r\n\r\n",
        ] {
            let all = Followed { good: bytes.len(), fault: None };
            assert_eq!((whole(bytes), dripped(bytes)), (all, all), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_has_two_readings_is_found_however_it_arrives() {
        use Denial::{HeadersTooLarge, RequestAmbiguous, RequestMalformed};
        let fields = "a: b\r\n".repeat(5);
        let many = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(300));
        for (bytes, denial) in [
            (&b"GET / HTTP/1.1\nhost: a\n\n"[..], RequestMalformed),
            (b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", RequestMalformed),
            (b"GET / HTTP/1.1\r\n\r \r\n", RequestMalformed),
            (b"GET / HTTP/1.1\r\na: b\rc\r\n\r\n", RequestMalformed),
            (b"GET / HTTP/1.1\r\na : b\r\n\r\n", RequestMalformed),
            (b"GET  / HTTP/1.1\r\n\r\n", RequestMalformed),
            (b"GET / HTTP/1.2\r\n\r\n", RequestMalformed),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", RequestMalformed),
            (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", RequestAmbiguous),
            (b"GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", RequestAmbiguous),
            (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", RequestAmbiguous),
            (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", RequestAmbiguous),
            (b"GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", RequestAmbiguous),
            (b"GET / HTTP/1.1\r\ntransfer-encoding: \x0bchunked\r\n\r\n", RequestMalformed),
            (many.as_bytes(), HeadersTooLarge),
            (long.as_bytes(), HeadersTooLarge),
        ] {
            let fault = Some(Fault::Head(denial));
            assert_eq!(
                (whole(bytes).fault, dripped(bytes).fault),
                (fault, fault),
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(whole(bytes).good, 0);
        }
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (bytes, good) in [
            (&b"0x5\r\nhello\r\n"[..], 0),
            (b"5 \r\nhello\r\n", 0),
            (b"-5\r\nhello\r\n", 0),
            (b"5\nhello\r\n", 0),
            (b"5;\nx\r\nhello\r\n", 0),
            (b"\r\nhello", 0),
            (b"10000000000000000\r\n", 0),
            (b"5\r\nhelloX\r\n", 8),
            (b"5\r\nhello\n0\r\n\r\n", 8),
            (b"0\r\nx y: z\r\n\r\n", 3),
            (b"0\r\nContent-Length: 5\r\n\r\n", 3),
            (b"0\r\n\n", 3),
        ] {
            let bytes = [head, bytes].concat();
            let expected = Followed { good: head.len() + good, fault: Some(Fault::Body) };
            assert_eq!((whole(&bytes), dripped(&bytes)), (expected, expected), "{}", bytes.escape_ascii());
        }
    }
}
