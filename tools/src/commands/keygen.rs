//! `echovisor keygen`: makes a key pair for a node.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::{
    cli::print_result,
    failure::{Exit, Failure},
    key_file,
};

/// The arguments of `echovisor keygen`.
#[derive(Args, Clone, Debug)]
pub struct KeygenArgs {
    /// Write the private key to this file, and the public one to FILE.pub
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What was made.
#[derive(Serialize)]
struct KeyPair {
    public_key: String,
    private_file: PathBuf,
    public_file: PathBuf,
}

/// Makes the key pair.
///
/// # Errors
/// If one of the files exists, or cannot be written.
pub fn run(args: &KeygenArgs) -> Result<Exit, Failure> {
    let public_key = key_file::generate(&args.out)?.to_string();
    let public_file = key_file::public_path(&args.out);
    let pair = KeyPair { public_key, private_file: args.out.clone(), public_file };
    print_result(args.json, &pair, || {
        let KeyPair { public_key, private_file, public_file } = &pair;
        format!(
            "public key    {public_key}\nkept secret   {}    for this node's --key\nto hand out   {}    for its peers' --peer",
            private_file.display(),
            public_file.display(),
        )
    })?;
    Ok(Exit::Done)
}
