//! A conversation in HTTP.

use super::pages;
use super::request::{self, Head};
use crate::buffers::{Input, Output};
use crate::limits::OUTPUT_HIGH;
use crate::{Flow, Service};

/// A client and the request that it is sending.
#[derive(Default)]
pub struct Session {
    head: Head,
    closing: bool,
}

impl Session {
    /// See [`crate::Session::advance`].
    pub fn advance(&mut self, input: &mut Input, output: &mut Output, service: &mut Service) -> Flow {
        while !self.closing && output.unsent().len() < OUTPUT_HIGH {
            // Some clients end a body with a line that does not belong to it.
            let blank = input.unread().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            input.consume(blank);
            match self.head.length(input.unread()) {
                Ok(Some(length)) => {
                    service.stats.requests += 1;
                    match request::parse(&input.unread()[..length]) {
                        Ok(request) => {
                            self.closing = !request.keep_alive;
                            pages::serve(&request, service, output);
                        }
                        Err(status) => {
                            self.closing = true;
                            pages::refuse(status, output);
                        }
                    }
                    input.consume(length);
                }
                Ok(None) => return Flow::Continue,
                Err(status) => {
                    self.closing = true;
                    pages::refuse(status, output);
                }
            }
        }
        if self.closing { Flow::Close } else { Flow::Continue }
    }
}
