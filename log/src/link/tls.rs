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
        crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
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
    provider: CryptoProvider,
    own: Arc<dyn SigningKey>,
    peers: BTreeSet<PublicKey>,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    const COMPLETE: &str = "the provider has what TLS 1.3 needs";
    let provider = Arc::new(provider);
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

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{
        CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite,
        crypto::ring::{cipher_suite::TLS13_AES_256_GCM_SHA384, default_provider},
    };

    use super::*;
    use crate::link::{Heartbeat, Message, PrivateKey};

    /// Records that may be encrypted with one key, here.
    const LIMIT: u64 = 16;

    /// Messages in each direction: far more.
    const MANY: u64 = 40 * LIMIT;

    /// What the library brings, with keys that last for `limit` records. As it is, that is 2^24, a few hours of a busy link.
    fn provider(limit: u64) -> CryptoProvider {
        let suite = TLS13_AES_256_GCM_SHA384.tls13().expect("it is one of TLS 1.3");
        let CipherSuiteCommon { suite: name, hash_provider, .. } = suite.common;
        let short: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite {
            common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit: limit },
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }));
        CryptoProvider { cipher_suites: vec![SupportedCipherSuite::Tls13(short)], ..default_provider() }
    }

    /// Sends messages both ways, one record each, and gives the bytes that this took on the socket.
    async fn bytes_of_many(limit: u64) -> u64 {
        let [here, there] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let keys = |own: &PrivateKey, peer: &PrivateKey| {
            Keys::with_provider(provider(limit), own, [peer.public()].into()).unwrap()
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (near_keys, far_keys) = (keys(&here, &there), keys(&there, &here));
        let (near, far) = tokio::join!(accept(near, &near_keys), connect(far, &far_keys));
        let mut links = [near.unwrap(), far.unwrap()];
        for stamp in 0..MANY {
            let said = Heartbeat { stamp, ..Heartbeat::default() };
            links[0].sender.send(&Message::Heartbeat(said)).await.unwrap();
            assert_eq!(links[1].receiver.receive().await.unwrap(), Message::Heartbeat(said));
            links.swap(0, 1);
        }
        // In one direction only, as while a state is sent.
        for stamp in 0..MANY {
            let said = Heartbeat { stamp, ..Heartbeat::default() };
            links[0].sender.send(&Message::Heartbeat(said)).await.unwrap();
            assert_eq!(links[1].receiver.receive().await.unwrap(), Message::Heartbeat(said));
        }
        let traffic = links[0].traffic();
        traffic.sent() + traffic.received()
    }

    #[tokio::test]
    async fn a_link_outlives_its_traffic_keys() {
        let (steady, renewed) = (bytes_of_many(1 << 24).await, bytes_of_many(LIMIT).await);
        // A renewal is a message of its own.
        assert!(renewed > steady + 20 * (2 * MANY / LIMIT - 4), "{renewed} {steady}");
    }
}
