//! TLS 1.3 with keys that both sides know beforehand: raw public keys (RFC 7250), no certificates and nobody who signs them.

use std::{collections::BTreeSet, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
        OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
        client::{
            AlwaysResolvesClientRawPublicKeys, Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature_with_raw_key},
        pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
        server::{
            AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
        sign::{CertifiedKey, SigningKey},
        version::TLS13,
    },
};

use super::{
    error::LinkError,
    framed::Link,
    keys::{Keys, PublicKey},
    traffic::{Counted, Traffic},
};

/// What both sides do: they show this key, and take one of those. Nothing of a session outlives it: no tickets, no
/// resumption, no early data, so that a handshake that somebody has recorded is worth nothing.
pub(super) fn configs(
    own: Arc<dyn SigningKey>,
    peers: BTreeSet<PublicKey>,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    const COMPLETE: &str = "the provider has what TLS 1.3 needs";
    let provider = Arc::new(default_provider());
    let public = own.public_key().expect("an Ed25519 key has a public half");
    let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], own));
    let taken = Arc::new(Pinned { keys: peers, provider: provider.clone() });

    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect(COMPLETE)
        .dangerous()
        .with_custom_certificate_verifier(taken.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(shown.clone())));
    client.resumption = Resumption::disabled();
    client.enable_sni = false;

    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect(COMPLETE)
        .with_client_cert_verifier(taken)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown)));
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
}

/// Encrypts a connection that was accepted, once the other end has shown one of the keys.
pub(super) async fn accept<S>(stream: S, keys: &Keys) -> Result<Link, LinkError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let traffic = Arc::new(Traffic::default());
    let counted = Counted::new(stream, &traffic);
    let accepted = TlsAcceptor::from(keys.server.clone()).accept(counted).await;
    let stream = accepted.map_err(|error| LinkError::io("being dialled", error))?;
    let (read, write) = tokio::io::split(TlsStream::from(stream));
    Ok(Link::over(read, write, traffic))
}

/// Encrypts a connection that was dialled, once the other end has shown one of the keys.
pub(super) async fn connect<S>(stream: S, keys: &Keys) -> Result<Link, LinkError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Nobody has a name here; it is neither sent nor looked at.
    let name = ServerName::try_from("echovisor").expect("a name");
    let traffic = Arc::new(Traffic::default());
    let counted = Counted::new(stream, &traffic);
    let connected = TlsConnector::from(keys.client.clone()).connect(name, counted).await;
    let stream = connected.map_err(|error| LinkError::io("dialling", error))?;
    let (read, write) = tokio::io::split(TlsStream::from(stream));
    Ok(Link::over(read, write, traffic))
}

/// What TLS has against a link.
pub(super) fn complaint(error: &rustls::Error) -> LinkError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            match other.downcast_ref::<Unknown>() {
                Some(Unknown(key)) => LinkError::UnknownKey { key: *key },
                None => LinkError::Tls(error.clone()),
            }
        }
        // What the other side says when its own `Pinned` has refused.
        rustls::Error::AlertReceived(AlertDescription::CertificateUnknown) => LinkError::KeyRefused,
        _ => LinkError::Tls(error.clone()),
    }
}

/// Takes the keys that it was told, and no other.
#[derive(Debug)]
struct Pinned {
    keys: BTreeSet<PublicKey>,
    provider: Arc<CryptoProvider>,
}

/// A key that a node was not told.
#[derive(Debug, thiserror::Error)]
#[error("unknown key {0}")]
struct Unknown(PublicKey);

impl Pinned {
    /// Looks at the key; that its holder is there shows the signature over this very handshake, below.
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = PublicKey::from_spki(shown).ok_or(CertificateError::BadEncoding)?;
        if self.keys.contains(&key) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(Unknown(key)))).into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

/// What the traits for both sides ask for in the same words.
macro_rules! verify_raw_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            // TLS 1.2 is not spoken, so this is never asked.
            Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            shown: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.check_signature(message, shown, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    verify_raw_keys! {}
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    verify_raw_keys! {}
}
