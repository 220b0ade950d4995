//! Responses into a stream of bytes.

use crate::buffers::Output;
use core::fmt::{self, Write};

/// The statuses in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    HeadTooLarge,
}

impl Status {
    /// Code and phrase.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
        }
    }
}

/// What is sent back.
pub(super) struct Response<'a> {
    pub status: Status,
    pub content_type: &'static str,
    pub body: &'a str,
    /// Only the head is sent, as HEAD asks.
    pub head_only: bool,
    /// The request was of HTTP/1.0.
    pub is_old: bool,
    pub keep_alive: bool,
}

impl Response<'_> {
    /// Writes the response; a lack of memory marks the output as lost.
    pub(super) fn write(&self, output: &mut Output) {
        let _ = self.write_head(&mut Text(output));
        if !self.head_only {
            output.put(self.body.as_bytes());
        }
    }

    fn write_head(&self, text: &mut impl Write) -> fmt::Result {
        write!(text, "HTTP/1.1 {}\r\n", self.status.line())?;
        write!(text, "Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, self.body.len())?;
        if self.status == Status::MethodNotAllowed {
            text.write_str("Allow: GET, HEAD\r\n")?;
        }
        match (self.keep_alive, self.is_old) {
            (false, _) => text.write_str("Connection: close\r\n")?,
            // What HTTP/1.1 takes for granted.
            (true, true) => text.write_str("Connection: keep-alive\r\n")?,
            (true, false) => {}
        }
        text.write_str("\r\n")
    }
}

/// Output as text.
struct Text<'a>(&'a mut Output);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.put(text.as_bytes());
        Ok(())
    }
}
