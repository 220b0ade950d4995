//! As much of the Redis serialisation protocol as a checking client needs.

/// One reply of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `+OK`.
    Simple(&'a [u8]),
    /// `-ERR ...`.
    Error(&'a [u8]),
    /// `:42`.
    Integer(i64),
    /// A string, or none.
    Bulk(Option<&'a [u8]>),
}

/// These bytes are no reply, and no bytes after them can make them one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAReply;

/// Longest line of a reply: an error with its text.
const LINE_MAX: usize = 1024;

/// Longest string that a reply may hold: far more than is ever stored.
const BULK_MAX: usize = 64 << 10;

/// Appends one request.
pub(crate) fn write_request(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes the first reply off `bytes`; `None` if it is not complete yet.
pub(crate) fn read_reply<'a>(bytes: &mut &'a [u8]) -> Result<Option<Reply<'a>>, NotAReply> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(NotAReply) };
    };
    let (line, rest) = bytes.split_at(end + 1);
    let (kind, line) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first).ok_or(NotAReply)?;
    let (reply, rest) = match kind {
        b'+' => (Reply::Simple(line), rest),
        b'-' => (Reply::Error(line), rest),
        b':' => (Reply::Integer(number(line)?), rest),
        b'$' if line == b"-1" => (Reply::Bulk(None), rest),
        b'$' => {
            let length = usize::try_from(number(line)?).ok().filter(|n| *n <= BULK_MAX).ok_or(NotAReply)?;
            let Some((string, rest)) = rest.split_at_checked(length) else {
                return Ok(None);
            };
            match rest {
                [b'\r', b'\n', rest @ ..] => (Reply::Bulk(Some(string)), rest),
                [] | [b'\r'] => return Ok(None),
                _ => return Err(NotAReply),
            }
        }
        _ => return Err(NotAReply),
    };
    *bytes = rest;
    Ok(Some(reply))
}

/// A number as servers write it.
pub(crate) fn number(digits: &[u8]) -> Result<i64, NotAReply> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(NotAReply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_however_they_are_cut() {
        let stream = b"+OK\r\n:-12\r\n$-1\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n-ERR no\r\n";
        let expected = [
            Reply::Simple(b"OK"),
            Reply::Integer(-12),
            Reply::Bulk(None),
            Reply::Bulk(Some(b"a\r\nbc")),
            Reply::Bulk(Some(b"")),
            Reply::Error(b"ERR no"),
        ];
        let mut rest = &stream[..];
        for reply in expected {
            assert_eq!(read_reply(&mut rest), Ok(Some(reply)));
        }
        assert_eq!(read_reply(&mut rest), Ok(None));
        for cut in 0..stream.len() {
            let mut part = &stream[..cut];
            while read_reply(&mut part).expect("a beginning of replies").is_some() {}
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let refused: [&[u8]; 9] = [
            b"OK\r\n",
            b"\r\n",
            b"\n",
            b"+OK\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$1\r\nabc",
            b"$1\r\na\rb",
        ];
        for mut bytes in refused {
            assert_eq!(read_reply(&mut bytes), Err(NotAReply), "{}", bytes.escape_ascii());
        }
        assert_eq!(read_reply(&mut &[b'+'; LINE_MAX][..]), Err(NotAReply));
    }

    #[test]
    fn requests_are_arrays_of_strings() {
        let mut out = Vec::new();
        write_request(&[b"GET", b"key"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }
}
