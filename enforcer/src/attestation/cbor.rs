//! CBOR (RFC 8949) as attestations have it, and no other: definite lengths, shortest heads, no key twice, nothing behind the end,
//! few levels. Everything that could be read in two ways is refused, since what is signed are bytes and what is judged are values.

use std::fmt;

use minicbor::Decoder;

/// Bytes of one item at most; genuine attestation objects have about 6,000.
pub const LONGEST: usize = 16 << 10;
/// Levels of arrays and maps at most; genuine objects have three.
pub const DEPTH: usize = 4;
/// Members of one array or map at most; genuine objects have five.
const MEMBERS: u64 = 32;

/// A value that borrows from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer.
    Integer(i64),
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// A string of UTF-8.
    Text(&'a str),
    /// Values in order.
    Array(Vec<Self>),
    /// Keys, which are integers or text, and values, in the order in which they are written.
    Map(Vec<(Self, Self)>),
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The byte at which it shows, from 0.
    pub at: usize,
    /// What it is.
    pub what: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl<'a> Value<'a> {
    /// The bytes, where it is a string of such.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, where it is some.
    pub fn text(&self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The values of an array.
    pub fn array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    /// The members of a map.
    pub fn map(&self) -> Option<&[(Self, Self)]> {
        if let Self::Map(members) = self { Some(members) } else { None }
    }

    /// The values of a map that has exactly these keys, in whatever order; in that of `keys`.
    pub fn exactly<const N: usize>(&self, keys: [Value<'_>; N]) -> Option<[&Self; N]> {
        let members = self.map().filter(|members| members.len() == N)?;
        let mut found = [self; N];
        for (place, key) in found.iter_mut().zip(&keys) {
            *place = members.iter().find(|(name, _)| name == key).map(|(_, value)| value)?;
        }
        Some(found)
    }
}

/// Reads one value, which has to be all that there is.
pub fn read(bytes: &[u8]) -> Result<Value<'_>, Problem> {
    let (value, rest) = first(bytes)?;
    if rest.is_empty() {
        return Ok(value);
    }
    Err(Problem { at: bytes.len() - rest.len(), what: "there is more behind the end" })
}

/// Reads one value, and leaves what follows it.
pub fn first(bytes: &[u8]) -> Result<(Value<'_>, &[u8]), Problem> {
    if bytes.len() > LONGEST {
        return Err(Problem { at: LONGEST, what: "it is longer than allowed" });
    }
    let mut decoder = Decoder::new(bytes);
    let value = value(&mut decoder, 0)?;
    Ok((value, bytes.get(decoder.position()..).unwrap_or_default()))
}

fn value<'a>(decoder: &mut Decoder<'a>, depth: usize) -> Result<Value<'a>, Problem> {
    let at = decoder.position();
    let problem = |what| Problem { at, what };
    let broken = |_| problem("it is no CBOR of definite length, or ends too early");
    let kind = decoder.input().get(at).map(|head| head >> 5).ok_or(problem("it ends too early"))?;
    // How long the head is, beside what follows it.
    let (value, number, behind) = match kind {
        0 | 1 => {
            let number = decoder.i64().map_err(broken)?;
            let head = if number < 0 { !number } else { number };
            (Value::Integer(number), head.cast_unsigned(), 0)
        }
        2 => {
            let bytes = decoder.bytes().map_err(broken)?;
            (Value::Bytes(bytes), bytes.len() as u64, bytes.len())
        }
        3 => {
            let text = decoder.str().map_err(broken)?;
            (Value::Text(text), text.len() as u64, text.len())
        }
        4 | 5 => {
            let count = if kind == 4 { decoder.array() } else { decoder.map() };
            let count = count.map_err(broken)?.ok_or(problem("a length is indefinite"))?;
            if depth == DEPTH {
                return Err(problem("it is nested too deeply"));
            }
            if count > MEMBERS {
                return Err(problem("it has too many members"));
            }
            is_shortest(count, decoder.position() - at).then_some(()).ok_or(problem("a head is too long"))?;
            return if kind == 4 {
                (0..count)
                    .map(|_| self::value(decoder, depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Value::Array)
            } else {
                map(decoder, count, depth + 1)
            };
        }
        _ => return Err(problem("there is a tag, a float or a simple value")),
    };
    let head = decoder.position() - at - behind;
    if is_shortest(number, head) { Ok(value) } else { Err(problem("a head is too long")) }
}

fn map<'a>(decoder: &mut Decoder<'a>, count: u64, depth: usize) -> Result<Value<'a>, Problem> {
    let mut members: Vec<(Value<'a>, Value<'a>)> = Vec::new();
    for _ in 0..count {
        let at = decoder.position();
        let key = value(decoder, depth)?;
        if !matches!(key, Value::Integer(_) | Value::Text(_)) {
            return Err(Problem { at, what: "a key is neither an integer nor text" });
        }
        if members.iter().any(|(known, _)| *known == key) {
            return Err(Problem { at, what: "a key is there twice" });
        }
        members.push((key, value(decoder, depth)?));
    }
    Ok(Value::Map(members))
}

/// Whether a head with this number is `length` bytes long where it is as short as can be.
fn is_shortest(number: u64, length: usize) -> bool {
    let least = match number {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        0x1_0000_0000.. => 9,
    };
    length == least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_one_way_is_read() {
        let bytes = b"\xa2\x01\x26\x61a\x82\x41\xff\xa0";
        let list = Value::Array(vec![Value::Bytes(&[0xff]), Value::Map(Vec::new())]);
        let map = Value::Map(vec![(Value::Integer(1), Value::Integer(-7)), (Value::Text("a"), list)]);
        assert_eq!(read(bytes), Ok(map.clone()));
        assert_eq!(first(b"\x00\x01"), Ok((Value::Integer(0), &[1][..])));
        assert!(map.exactly([Value::Text("a"), Value::Integer(1)]).is_some());
        assert!(map.exactly([Value::Text("a")]).is_none(), "one more than expected");
        assert!(map.exactly([Value::Text("a"), Value::Text("b")]).is_none());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let nested = |levels: usize| [vec![0x81; levels], vec![0]].concat();
        assert!(read(&nested(DEPTH)).is_ok());
        let long = [&[0x59, 0x40, 0x00][..], &[0; 0x4000]].concat();
        for (name, bytes, what) in [
            ("nothing", &[][..], "ends too early"),
            ("more behind", &[0, 0], "more behind"),
            ("integer too long", &[0x18, 23], "head"),
            ("integer much too long", &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1], "head"),
            ("negative too long", &[0x38, 0], "head"),
            ("bytes with a long head", &[0x58, 1, 0], "head"),
            ("array with a long head", &[0x98, 0], "head"),
            ("integer of 64 bits", &[0x1b, 0xff, 0, 0, 0, 0, 0, 0, 0], "ends too early"),
            ("bytes of 2 GB", &[0x5a, 0x80, 0, 0, 0, 1], "ends too early"),
            ("array of 2^63", &[0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0], "too many"),
            ("map of 33", &[0xb8, 33], "too many"),
            ("indefinite bytes", &[0x5f, 0x41, 0, 0xff], "definite"),
            ("indefinite text", &[0x7f, 0x61, b'a', 0xff], "definite"),
            ("indefinite array", &[0x9f, 0, 0xff], "indefinite"),
            ("indefinite map", &[0xbf, 0, 0, 0xff], "indefinite"),
            ("a key twice", &[0xa2, 1, 0, 1, 0], "twice"),
            ("bytes as key", &[0xa1, 0x41, 0, 0], "key"),
            ("no UTF-8", &[0x61, 0xff], "definite"),
            ("tag", &[0xc0, 0], "tag"),
            ("null", &[0xf6], "tag"),
            ("break", &[0xff], "tag"),
            ("five levels", &nested(5), "deep"),
            ("thousands of levels", &nested(10_000), "deep"),
            ("too long", &long, "longer"),
        ] {
            let problem = read(bytes).expect_err(name);
            assert!(problem.to_string().contains(what), "{name}: {problem}");
        }
    }
}
