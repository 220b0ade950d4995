//! A conversation in RESP.

use super::{Parser, Reply};
use crate::buffers::{Input, Output};
use crate::limits::OUTPUT_HIGH;
use crate::{Flow, Service, commands};

/// What the server remembers of a client.
pub struct Client {
    /// Number of the connection.
    pub id: u64,
    /// The name it gave itself.
    pub name: heapless::Vec<u8, 64>,
    /// It said good-bye.
    pub leaving: bool,
}

/// A client and the request that it is sending.
pub struct Session {
    parser: Parser,
    client: Client,
}

impl Session {
    /// A new connection.
    pub fn new(id: u64) -> Self {
        Self { parser: Parser::default(), client: Client { id, name: heapless::Vec::new(), leaving: false } }
    }

    /// See [`crate::Session::advance`].
    pub fn advance(&mut self, input: &mut Input, output: &mut Output, service: &mut Service) -> Flow {
        while !self.client.leaving && output.unsent().len() < OUTPUT_HIGH {
            match self.parser.next(input.unread_mut()) {
                Ok(Some(length)) => {
                    let arguments = self.parser.arguments(input.unread());
                    commands::execute(arguments, service, &mut self.client, Reply::new(output));
                    input.consume(length);
                }
                Ok(None) => return Flow::Continue,
                Err(error) => {
                    Reply::new(output).error(format_args!("ERR {error}"));
                    return Flow::Close;
                }
            }
        }
        if self.client.leaving { Flow::Close } else { Flow::Continue }
    }
}
