//! Requests out of a stream of bytes.

use super::response::Status;
use crate::limits::{HEAD_MAX, HEADERS_MAX};
use memchr::memchr_iter;

/// What the server wants to know of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub method: &'a str,
    /// The path without a query.
    pub path: &'a str,
    /// HTTP/1.0, whose connections end unless the client asks otherwise.
    pub is_old: bool,
    /// The connection can serve another request after this one.
    pub keep_alive: bool,
}

/// Finds the end of a request's head; looks at each byte once, in however small pieces they come.
#[derive(Default)]
pub(super) struct Head {
    searched: usize,
}

impl Head {
    /// The length of the head that begins at the start of `bytes`, once it is complete; the next call expects another.
    pub(super) fn length(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        // The empty line may have begun in what was searched before.
        let from = self.searched.saturating_sub(2);
        let end = memchr_iter(b'\n', &bytes[from..]).find_map(|offset| match &bytes[from + offset..] {
            [b'\n', b'\n', ..] => Some(from + offset + 2),
            [b'\n', b'\r', b'\n', ..] => Some(from + offset + 3),
            _ => None,
        });
        self.searched = if end.is_some() { 0 } else { bytes.len() };
        if end.unwrap_or(bytes.len()) > HEAD_MAX { Err(Status::HeadTooLarge) } else { Ok(end) }
    }
}

/// Reads a complete head.
pub(super) fn parse(head: &[u8]) -> Result<Request<'_>, Status> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Status::BadRequest),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Status::BadRequest);
    };
    let is_old = version == 0;
    let mut keep_alive = !is_old;
    let mut has_body = false;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("connection") {
            for option in header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    keep_alive = true;
                }
            }
        }
        has_body |= header.name.eq_ignore_ascii_case("transfer-encoding");
        has_body |= header.name.eq_ignore_ascii_case("content-length") && header.value.trim_ascii() != b"0";
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    // No page reads a body; ending the connection spares looking for its end.
    Ok(Request { method, path, is_old, keep_alive: keep_alive && !has_body })
}

#[cfg(test)]
mod tests {
    use super::{Head, Request, parse};
    use crate::http::response::Status;
    use crate::limits::HEAD_MAX;

    #[test]
    fn a_head_ends_at_the_first_empty_line_however_it_comes() {
        for head in [&b"GET / HTTP/1.1\r\nA: b\r\n\r\n"[..], b"GET / HTTP/1.0\n\n"] {
            let mut stream = head.to_vec();
            stream.extend_from_slice(b"GET");
            assert_eq!(Head::default().length(&stream), Ok(Some(head.len())));
            let mut piecewise = Head::default();
            for length in 0..head.len() {
                assert_eq!(piecewise.length(&head[..length]), Ok(None));
            }
            assert_eq!(piecewise.length(head), Ok(Some(head.len())));
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        assert_eq!(Head::default().length(&[b'a'; HEAD_MAX]), Ok(None));
        assert_eq!(Head::default().length(&[b'a'; HEAD_MAX + 1]), Err(Status::HeadTooLarge));
    }

    #[test]
    fn versions_and_headers_decide_whether_the_connection_stays() {
        for (head, keep_alive) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: Foo, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ] {
            assert_eq!(parse(head.as_bytes()).map(|request| request.keep_alive), Ok(keep_alive), "{head:?}");
        }
    }

    #[test]
    fn a_query_is_not_part_of_the_path() {
        let request = Request { method: "GET", path: "/stats", is_old: false, keep_alive: true };
        assert_eq!(parse(b"GET /stats?pretty HTTP/1.1\r\n\r\n"), Ok(request));
        assert_eq!(parse(b"GET\r\n\r\n"), Err(Status::BadRequest));
    }
}
