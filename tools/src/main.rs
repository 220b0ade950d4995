//! The `echovisor` program.

use std::process::ExitCode;

use echovisor_tools::{cli::Cli, output};

fn main() -> ExitCode {
    let ended = Cli::from_arguments().and_then(|cli| {
        output::start_tracing(cli.verbose);
        cli.command.run()
    });
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::say(&failure);
            failure.exit().into()
        }
    }
}
