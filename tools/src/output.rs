//! Data goes to stdout, talk goes to stderr, and a reader that has had enough is no error.

use std::{
    env, fmt,
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// Writes one piece of data to stdout.
///
/// # Errors
/// If stdout can't be written to. A closed pipe is no error: `echovisor inspect DIR | head` is done when `head` is.
pub fn print(data: impl fmt::Display) -> Result<(), Failure> {
    let mut printer = Printer::new();
    printer.line(data)?;
    printer.finish()
}

/// Writes one value as one line of JSON to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_json(data: &impl Serialize) -> Result<(), Failure> {
    print(json(data)?)
}

/// A value as one line of JSON.
///
/// # Errors
/// If it has no such form.
pub fn json(data: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(data).map_err(|error| {
        Failure::new("cannot write the result as JSON", "run the command without --json").because(error)
    })
}

/// Writes many lines of data to stdout.
pub struct Printer {
    stdout: BufWriter<StdoutLock<'static>>,
    is_read: bool,
}

impl Printer {
    /// Takes stdout until it is dropped.
    #[must_use]
    pub fn new() -> Printer {
        Printer { stdout: BufWriter::new(io::stdout().lock()), is_read: true }
    }

    /// Writes a line. What it gives is whether anybody reads on.
    ///
    /// # Errors
    /// If stdout can't be written to.
    pub fn line(&mut self, data: impl fmt::Display) -> Result<bool, Failure> {
        if self.is_read {
            let written = writeln!(self.stdout, "{data}");
            self.look_at(written)?;
        }
        Ok(self.is_read)
    }

    /// Writes what is still kept back.
    ///
    /// # Errors
    /// As [`Printer::line`].
    pub fn finish(mut self) -> Result<(), Failure> {
        let written = if self.is_read { self.stdout.flush() } else { Ok(()) };
        self.look_at(written)
    }

    fn look_at(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_read = false;
                Ok(())
            }
            Err(error) => {
                let hint = "see where the output goes: a full disk, perhaps";
                Err(Failure::new("cannot write to stdout", hint).because(error))
            }
        }
    }
}

impl Default for Printer {
    fn default() -> Printer {
        Printer::new()
    }
}

/// Says something to the person at the terminal. There is nobody to tell if that fails.
pub fn say(talk: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{talk}");
}

/// Sends what the program traces to stderr: `RUST_LOG` decides what, or else how often `-v` was given.
pub fn start_tracing(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    // It fails only where a subscriber is set already, and then that one serves.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .try_init();
}
