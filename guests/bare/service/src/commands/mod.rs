//! The commands.

mod keys;
mod server;
mod strings;

use crate::Service;
use crate::buffers::OutOfMemory;
use crate::resp::{Arguments, Client, Reply};
use crate::store::AddError;
use core::fmt;

/// One command.
struct Command {
    name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    arity: i32,
    /// It may need memory, so it is refused when there is little.
    grows: bool,
    run: fn(Call<'_>) -> Result<(), Failure>,
}

/// All commands, the frequent ones first because they are searched in this order.
const COMMANDS: &[Command] = &[
    command("GET", 2, false, strings::get),
    command("SET", -3, true, strings::set),
    command("INCR", 2, true, strings::incr),
    command("PING", -1, false, server::ping),
    command("MGET", -2, false, strings::mget),
    command("MSET", -3, true, strings::mset),
    command("DEL", -2, false, keys::del),
    command("UNLINK", -2, false, keys::del),
    command("EXISTS", -2, false, keys::exists),
    command("SETNX", 3, true, strings::setnx),
    command("GETSET", 3, true, strings::getset),
    command("DECR", 2, true, strings::decr),
    command("INCRBY", 3, true, strings::incrby),
    command("DECRBY", 3, true, strings::decrby),
    command("APPEND", 3, true, strings::append),
    command("STRLEN", 2, false, strings::strlen),
    command("DBSIZE", 1, false, keys::dbsize),
    command("FLUSHALL", -1, false, keys::flush),
    command("FLUSHDB", -1, false, keys::flush),
    command("ECHO", 2, false, server::echo),
    command("INFO", -1, false, server::info),
    command("COMMAND", -1, false, server::command),
    command("CONFIG", -2, false, server::config),
    command("CLIENT", -2, false, server::client),
    command("SELECT", 2, false, server::select),
    command("QUIT", -1, false, server::quit),
];

const fn command(
    name: &'static str,
    arity: i32,
    grows: bool,
    run: fn(Call<'_>) -> Result<(), Failure>,
) -> Command {
    Command { name, arity, grows, run }
}

/// A command at work.
struct Call<'a> {
    arguments: Arguments<'a>,
    service: &'a mut Service,
    client: &'a mut Client,
    reply: Reply<'a>,
}

/// Why a command was not executed. Its text is the error's, with the code in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Too few arguments, or too many, for the command of this name.
    Arity(&'static str),
    /// An option is unknown or does not go with another.
    Syntax,
    /// A number was expected.
    NotAnInteger,
    /// The result is too large for an integer.
    Overflow,
    /// The result is too large for a value.
    TooLong,
    /// The command has no such form.
    Subcommand(&'static str),
    /// There is but one database.
    Database,
    /// There is no memory for it.
    OutOfMemory,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arity(name) => {
                f.write_str("ERR wrong number of arguments for '")?;
                name.bytes().try_for_each(|byte| write!(f, "{}", char::from(byte.to_ascii_lowercase())))?;
                f.write_str("' command")
            }
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::Overflow => f.write_str("ERR increment or decrement would overflow"),
            Self::TooLong => f.write_str("ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            Self::Subcommand(name) => {
                write!(f, "ERR unknown subcommand or wrong number of arguments for '{name}'")
            }
            Self::Database => f.write_str("ERR DB index is out of range"),
            Self::OutOfMemory => f.write_str("OOM command not allowed when used memory > 'maxmemory'."),
        }
    }
}

impl From<OutOfMemory> for Failure {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotAnInteger => Self::NotAnInteger,
            AddError::Overflow => Self::Overflow,
            AddError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// Executes a request and writes its reply. A request without arguments, such as an empty line, has none.
pub fn execute(arguments: Arguments<'_>, service: &mut Service, client: &mut Client, mut reply: Reply<'_>) {
    let Some(name) = arguments.get(0) else { return };
    service.stats.commands += 1;
    let Some(command) = COMMANDS.iter().find(|command| name.eq_ignore_ascii_case(command.name.as_bytes()))
    else {
        return reply.error(Unknown(arguments));
    };
    let wanted = command.arity.unsigned_abs() as usize;
    let given = arguments.len();
    let result = if given < wanted || (command.arity > 0 && given > wanted) {
        Err(Failure::Arity(command.name))
    } else if command.grows && service.store.is_full() {
        Err(Failure::OutOfMemory)
    } else {
        (command.run)(Call { arguments, service, client, reply: reply.reborrow() })
    };
    if let Err(failure) = result {
        reply.error(failure);
    }
}

/// A command that does not exist, told as redis tells it.
struct Unknown<'a>(Arguments<'a>);

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Bytes of the name and of the arguments that are repeated.
        const SHOWN: usize = 128;
        let name = &self.0[0];
        let name = name[..name.len().min(SHOWN)].escape_ascii();
        write!(f, "ERR unknown command '{name}', with args beginning with: ")?;
        let mut left = SHOWN;
        for argument in self.0.from(1) {
            if argument.len() >= left {
                break;
            }
            left -= argument.len();
            write!(f, "'{}' ", argument.escape_ascii())?;
        }
        Ok(())
    }
}

/// Whether an option or a subcommand is the one of this name, in whatever case.
fn is(option: &[u8], name: &str) -> bool {
    option.eq_ignore_ascii_case(name.as_bytes())
}
