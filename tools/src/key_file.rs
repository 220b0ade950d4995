//! Key files: a private key, which only its owner can read, and beside it the public one, `FILE.pub`.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use echovisor_log::link::{KeyError, Keys, PrivateKey, PublicKey};

use crate::failure::{Exit, Failure};

/// The mode bits of a file with which others than its owner can do something.
const OTHERS: u32 = 0o077;

/// Longest key file, bytes: hundreds of peers with comments.
const FILE_MAX: u64 = 64 << 10;

/// Where the public key is that belongs to the private key in `file`.
#[must_use]
pub fn public_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Makes a key pair and writes it to `file` and `file.pub`. Files that are there stay as they are.
///
/// # Errors
/// If one of the files exists, or cannot be written.
pub fn generate(file: &Path) -> Result<PublicKey, Failure> {
    let key = PrivateKey::generate().map_err(|error| unusable(file, error))?;
    let public = key.public();
    write(file, 0o600, &key.to_line())?;
    let written = write(&public_path(file), 0o644, &public.to_line());
    if written.is_err() {
        // Half a key pair is none. If it can't be removed either, the next attempt names it.
        let _ = fs::remove_file(file);
    }
    written.map(|()| public)
}

fn write(path: &Path, mode: u32, line: &str) -> Result<(), Failure> {
    let made = File::options().write(true).create_new(true).mode(mode).open(path);
    let written = made.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                "a key that is in use is worth keeping: choose another name, or move the file away"
            }
            _ => "see whether the folder exists and has room",
        };
        Failure::new(format!("cannot write the key {}", path.display()), hint).because(error)
    })
}

/// Reads a node's own key and its peers'.
///
/// # Errors
/// If a file cannot be read or holds no key, if others can read the private key, or if the keys are of no use together.
pub fn read(own: &Path, peers: &[PathBuf]) -> Result<Keys, Failure> {
    let (text, mode) = read_text(own)?;
    if mode & OTHERS != 0 {
        let what =
            format!("others than its owner can use the private key {} (mode {mode:04o})", own.display());
        return Err(Failure::new(what, format!("chmod 600 {}", own.display())).with_exit(Exit::Usage));
    }
    let key: PrivateKey = text.parse().map_err(|error| unusable(own, error))?;
    let mut keys = Vec::new();
    for path in peers {
        let (text, _) = read_text(path)?;
        keys.extend(PublicKey::of_lines(&text).map_err(|error| unusable(path, error))?);
    }
    Keys::new(&key, keys).map_err(|error| unusable(peers.first().map_or(own, PathBuf::as_path), error))
}

/// What is in a file, and its mode, both of the same file whatever happens to its name.
fn read_text(path: &Path) -> Result<(String, u32), Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        file.take(FILE_MAX).read_to_string(&mut text)?;
        Ok(metadata.mode() & 0o7777)
    });
    match read {
        Ok(mode) => Ok((text, mode)),
        Err(error) => {
            let hint =
                "give the file that `echovisor keygen` wrote; each key stays with the user who runs the node";
            Err(Failure::new(format!("cannot read the key {}", path.display()), hint).because(error))
        }
    }
}

fn unusable(path: &Path, error: KeyError) -> Failure {
    let hint = error.hint();
    Failure::new(format!("the key {} cannot be used", path.display()), hint)
        .because(error)
        .with_exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(own: &Path, peers: &[PathBuf]) -> String {
        read(own, peers).expect_err("these keys are of no use").to_string()
    }

    #[test]
    fn two_nodes_read_what_was_made_for_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let publics = [&one, &two].map(|file| generate(file).expect("a key pair"));
        assert_eq!(one.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&one, &[public_path(&two)]).expect("keys").public(), publics[0]);
        assert_eq!(read(&two, &[public_path(&one)]).expect("keys").public(), publics[1]);
        // A key that exists is not replaced, and neither is half of one.
        let before = fs::read(&one).expect("a key");
        assert!(generate(&one).expect_err("it exists").to_string().contains("\nhint: a key that is in use"));
        assert_eq!(fs::read(&one).expect("a key"), before);
        fs::remove_file(&one).expect("a file");
        assert!(generate(&one).is_err() && !one.exists(), "its public half exists");
    }

    #[test]
    fn a_private_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        for file in [&one, &two] {
            generate(file).expect("a key pair");
        }
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&one, fs::Permissions::from_mode(mode)).expect("a mode");
            let said = refusal(&one, &[public_path(&two)]);
            assert!(
                said.contains(&format!("mode {mode:04o}")) && said.contains("hint: chmod 600 "),
                "{said}"
            );
        }
        fs::set_permissions(&one, fs::Permissions::from_mode(0o400)).expect("a mode");
        read(&one, &[public_path(&two)]).expect("keys");
    }

    #[test]
    fn keys_in_the_wrong_place_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two, empty] = ["one", "two", "empty"].map(|name| folder.path().join(name));
        for file in [&one, &two] {
            generate(file).expect("a key pair");
        }
        fs::write(&empty, "# nobody yet\n").expect("a file");
        fs::set_permissions(public_path(&one), fs::Permissions::from_mode(0o600)).expect("a mode");
        let missing = folder.path().join("missing");
        for (own, peer, part) in [
            (&one, &two, "this is a private key"),
            (&public_path(&one), &public_path(&two), "this is a public key"),
            (&one, &public_path(&one), "this node's own"),
            (&one, &empty, "no key of a peer"),
            (&missing, &public_path(&two), "cannot read"),
            (&one, &missing, "cannot read"),
        ] {
            let said = refusal(own, std::slice::from_ref(peer));
            assert!(said.contains(part) && said.contains("\nhint: "), "{said}");
        }
    }
}
