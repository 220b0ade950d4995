//! Where a link goes, and how it is made.

use std::{
    fmt,
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};

use super::{error::LinkError, framed::Link};

/// The address of a node: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP; the host is a name or an IP address.
    Tcp {
        /// Name or IP address; an IPv6 address without its brackets.
        host: String,
        /// Port; 0 lets the system choose one to listen on.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Whether a link may leave this host although it is not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// Loopback and Unix sockets only.
    #[default]
    LocalOnly,
    /// Anywhere: the user vouches for the network. Whoever can join receives the guest's memory.
    Anywhere,
}

impl FromStr for Address {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Address, LinkError> {
        let wrong = |problem| LinkError::Address { text: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(wrong("the path is missing"))
            } else {
                Ok(Address::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(wrong("the port is missing"))?;
        let port = port.parse().map_err(|_| wrong("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(wrong("a bracket is not closed"))?,
            None if host.contains(':') => return Err(wrong("an IPv6 address belongs in brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        Ok(Address::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether links to it stay on this host.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }

    /// The socket addresses behind a TCP address, refused as a whole if one of them is elsewhere and must not be.
    async fn resolve(
        &self,
        host: &str,
        port: u16,
        plaintext: Plaintext,
    ) -> Result<Vec<SocketAddr>, LinkError> {
        let found = lookup_host((host, port)).await;
        let found: Vec<_> =
            found.map_err(|source| LinkError::Dial { address: self.clone(), source })?.collect();
        if plaintext == Plaintext::LocalOnly && !found.iter().all(|address| address.ip().is_loopback()) {
            return Err(LinkError::Plaintext { address: self.clone() });
        }
        Ok(found)
    }
}

/// Connects to `address`.
///
/// # Errors
///
/// [`LinkError::Plaintext`], [`LinkError::Dial`] (also when `timeout` has passed).
pub async fn dial(address: &Address, plaintext: Plaintext, timeout: Duration) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Dial { address: address.clone(), source };
    let connect = async {
        match address {
            Address::Tcp { host, port } => {
                let found = address.resolve(host, *port, plaintext).await?;
                tcp(TcpStream::connect(&found[..]).await.map_err(failed)?).map_err(failed)
            }
            Address::Unix(path) => Ok(unix(UnixStream::connect(path).await.map_err(failed)?)),
        }
    };
    tokio::time::timeout(timeout, connect)
        .await
        .unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}

/// Waits for peers.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on `address`. The socket file that a dead process left behind is replaced, one that is in use is not.
    ///
    /// # Errors
    ///
    /// [`LinkError::Plaintext`], [`LinkError::Listen`].
    pub async fn bind(address: &Address, plaintext: Plaintext) -> Result<Listener, LinkError> {
        let failed = |source| LinkError::Listen { address: address.clone(), source };
        let socket = match address {
            Address::Tcp { host, port } => {
                let found = address.resolve(host, *port, plaintext).await?;
                Socket::Tcp(TcpListener::bind(&found[..]).await.map_err(failed)?)
            }
            Address::Unix(path) => {
                if UnixStream::connect(path)
                    .await
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    fs::remove_file(path).map_err(failed)?;
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                // Whoever can join receives the guest's memory.
                fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
                Socket::Unix(listener, path.clone())
            }
        };
        Ok(Listener { socket })
    }

    /// The address that peers can dial; the port is the one that the system chose.
    ///
    /// # Errors
    ///
    /// [`LinkError::Accept`] if the system does not tell.
    pub fn address(&self) -> Result<Address, LinkError> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let address = listener.local_addr().map_err(LinkError::Accept)?;
                Ok(Address::Tcp { host: address.ip().to_string(), port: address.port() })
            }
            Socket::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    /// Waits for the next connection. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`LinkError::Accept`].
    pub async fn accept(&self) -> Result<Link, LinkError> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await.map_err(LinkError::Accept)?;
                tcp(stream).map_err(LinkError::Accept)
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await.map_err(LinkError::Accept)?;
                Ok(unix(stream))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            // A socket file that stays behind is replaced by the next bind.
            let _ = fs::remove_file(path);
        }
    }
}

fn tcp(stream: TcpStream) -> io::Result<Link> {
    // Batches are coalesced by the sender; what it flushes is waited for.
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok(Link::new(read, write))
}

fn unix(stream: UnixStream) -> Link {
    let (read, write) = stream.into_split();
    Link::new(read, write)
}
