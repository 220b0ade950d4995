//! Who may be at the other end of a link: a node's key pair, and the public keys that it was told.

use std::{collections::BTreeSet, fmt, io, str::FromStr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_rustls::rustls::{
    ClientConfig, ServerConfig,
    crypto::{
        CryptoProvider,
        ring::{default_provider, sign::any_eddsa_type},
    },
    pki_types::PrivatePkcs8KeyDer,
    sign::SigningKey,
};

use super::tls;

/// Bytes of an Ed25519 key, public or private.
const KEY: usize = 32;

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// What stands before the 32 bytes of an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The first word of a private key's text.
const PRIVATE: &str = "echovisor-ed25519-private";

/// The first word of a public key's text.
const PUBLIC: &str = "echovisor-ed25519";

/// A key that is none, or keys that are of no use together.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A private key stands where a public one belongs.
    #[error("this is a private key; a public one belongs here")]
    Private,
    /// A public key stands where a private one belongs.
    #[error("this is a public key; a private one belongs here")]
    Public,
    /// Something else.
    #[error("this is not a key: {0}")]
    Text(&'static str),
    /// Nobody could be at the other end.
    #[error("there is no key of a peer")]
    NoPeer,
    /// A node would take itself, or whoever has a copy of its key, for its peer.
    #[error("the key of the peer is this node's own: {0}")]
    Own(PublicKey),
    /// The host has no random bytes.
    #[error("the host gives no random bytes: {0}")]
    Random(io::Error),
}

impl KeyError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            KeyError::Private => "a private key stays on its host; give the file beside it that ends in .pub",
            KeyError::Public => "give the file without .pub at its end",
            KeyError::Text(_) => "make a key pair: echovisor keygen --out FILE",
            KeyError::NoPeer => {
                "give the peer's public key: the file that `echovisor keygen` made beside its key"
            }
            KeyError::Own(_) => "make a key pair on each host: echovisor keygen --out FILE",
            KeyError::Random(_) => "see whether the sandbox forbids getrandom",
        }
    }
}

/// The public half of a key pair: who a node is. Its text is 32 bytes in base64, in a file after a word that names the kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// The line for a file.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{PUBLIC} {self}\n")
    }

    /// All keys of a file: one per line, with whatever comment behind it; blank lines and lines that begin with `#` do not
    /// count.
    ///
    /// # Errors
    /// [`KeyError`] if a line is no public key.
    pub fn of_lines(text: &str) -> Result<Vec<PublicKey>, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::parse).collect()
    }

    /// The key in a SubjectPublicKeyInfo, if it is one of our kind.
    pub(super) fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        spki.strip_prefix(&SPKI)?.try_into().ok().map(PublicKey)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<PublicKey, KeyError> {
        match line.split_whitespace().next() {
            Some(PRIVATE) => Err(KeyError::Private),
            _ => key(PUBLIC, line).map(PublicKey),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The private half of a key pair. It has no `Display`: nobody prints one by mistake.
#[derive(Clone)]
pub struct PrivateKey([u8; KEY]);

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<PrivateKey, KeyError> {
        let mut bytes = [0; KEY];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        match got.map_err(|error| KeyError::Random(error.into()))? {
            KEY => Ok(PrivateKey(bytes)),
            _ => Err(KeyError::Random(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The line for a file that only its owner can read.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{PRIVATE} {}\n", STANDARD.encode(self.0))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let signing = self.signing();
        let spki = signing.public_key().expect("an Ed25519 key has a public half");
        PublicKey::from_spki(&spki).expect("it is an Ed25519 key")
    }

    fn signing(&self) -> Arc<dyn SigningKey> {
        let der = PrivatePkcs8KeyDer::from([&PKCS8[..], &self.0].concat());
        any_eddsa_type(&der).expect("any 32 bytes are an Ed25519 key")
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<PrivateKey, KeyError> {
        match line.split_whitespace().next() {
            Some(PUBLIC) => Err(KeyError::Public),
            _ => key(PRIVATE, line).map(PrivateKey),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey of {}", self.public())
    }
}

/// Reads `word BASE64`, and lets a comment follow.
fn key(word: &str, line: &str) -> Result<[u8; KEY], KeyError> {
    let mut words = line.split_whitespace();
    if words.next() != Some(word) {
        return Err(KeyError::Text("its first word is another"));
    }
    let text = words.next().ok_or(KeyError::Text("there is nothing behind its first word"))?;
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::Text("it is not written in base64"))?;
    bytes.try_into().map_err(|_| KeyError::Text("it has not 32 bytes"))
}

/// What a node needs to make its links safe, in whichever direction: its own key pair, and the keys of those who may be at
/// the other end.
#[derive(Clone)]
pub struct Keys {
    public: PublicKey,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Keys {
    /// The keys of the node with this private key, for links to these peers.
    ///
    /// # Errors
    /// [`KeyError::NoPeer`], [`KeyError::Own`].
    pub fn new(own: &PrivateKey, peers: impl IntoIterator<Item = PublicKey>) -> Result<Keys, KeyError> {
        Keys::with_provider(default_provider(), own, peers.into_iter().collect())
    }

    pub(super) fn with_provider(
        provider: CryptoProvider,
        own: &PrivateKey,
        peers: BTreeSet<PublicKey>,
    ) -> Result<Keys, KeyError> {
        let public = own.public();
        if peers.is_empty() {
            return Err(KeyError::NoPeer);
        }
        if peers.contains(&public) {
            return Err(KeyError::Own(public));
        }
        let (client, server) = tls::configs(provider, own.signing(), peers);
        Ok(Keys { public, client, server })
    }

    /// The public half of the node's own key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys of {}", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_and_are_not_mistaken_for_each_other() {
        let private = PrivateKey::generate().unwrap();
        let public = private.public();
        let (private_line, public_line) = (private.to_line(), public.to_line());
        assert_eq!(private_line.parse::<PrivateKey>().unwrap().public(), public);
        assert_eq!(public_line.parse::<PublicKey>().unwrap(), public);
        assert!(matches!(private_line.parse::<PublicKey>(), Err(KeyError::Private)));
        assert!(matches!(public_line.parse::<PrivateKey>(), Err(KeyError::Public)));
        assert_ne!(PrivateKey::generate().unwrap().public(), public);
        let secret = private_line.split_whitespace().last().unwrap();
        assert!(!format!("{private:?}").contains(secret));
    }

    /// The first test vector of RFC 8032, section 7.1.
    #[test]
    fn the_public_half_is_the_standard_s() {
        let text = "echovisor-ed25519-private nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let public = text.parse::<PrivateKey>().unwrap().public();
        assert_eq!(public.to_string(), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn a_file_of_peers_has_comments() {
        let [one, two] = [(); 2].map(|()| PrivateKey::generate().unwrap().public());
        let text = format!("# our hosts\n\n{} host one\n  {}", one.to_line().trim_end(), two.to_line());
        assert_eq!(PublicKey::of_lines(&text).unwrap(), [one, two]);
        assert_eq!(PublicKey::of_lines("").unwrap(), []);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let short = STANDARD.encode([1; 31]);
        for text in [
            "",
            "echovisor-ed25519",
            "ssh-ed25519 AAAA",
            "echovisor-ed25519 ???",
            &format!("{PUBLIC} {short}"),
        ] {
            let error = text.parse::<PublicKey>().unwrap_err();
            assert!(matches!(error, KeyError::Text(_)) && !error.hint().is_empty(), "{text}: {error}");
        }
    }

    #[test]
    fn a_node_needs_a_peer_other_than_itself() {
        let [own, peer] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        assert!(matches!(Keys::new(&own, []), Err(KeyError::NoPeer)));
        assert!(matches!(Keys::new(&own, [peer.public(), own.public()]), Err(KeyError::Own(_))));
        assert_eq!(Keys::new(&own, [peer.public()]).unwrap().public(), own.public());
    }
}
