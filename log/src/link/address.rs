//! Where a link goes, and how it is made.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::{
    fs::{Mode, fchmod},
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, listen, shutdown, socket_with,
    },
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host},
};

use super::{error::LinkError, framed::Link, keys::Keys, tls};

/// Connections that may wait in the system's queue of a Unix socket.
const BACKLOG: i32 = 128;

/// Bytes that may wait in the system's queue of a TCP socket before they are sent: a tenth of a second at 10 Mbit/s.
const UNSENT_MAX: u32 = 128 << 10;

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

    /// The address at which a peer can be reached that says to listen at this one; `from` is the host that its link comes from,
    /// `None` this one, over a Unix socket. A peer names no file of this host unless it lives there, and nothing that would have
    /// to be looked up: that gives `None`.
    #[must_use]
    pub fn told_by(self, from: Option<IpAddr>) -> Option<Address> {
        match self {
            Address::Unix(_) => from.is_none().then_some(self),
            Address::Tcp { host, port } => {
                let ip: IpAddr = host.parse().ok()?;
                // What stands for all addresses of a host says nothing elsewhere.
                let ip = if ip.is_unspecified() { from.unwrap_or(Ipv4Addr::LOCALHOST.into()) } else { ip };
                Some(Address::Tcp { host: ip.to_string(), port })
            }
        }
    }

    /// The socket addresses behind a TCP address, refused as a whole if one of them is elsewhere and there are no keys.
    async fn resolve(
        &self,
        host: &str,
        port: u16,
        keys: Option<&Keys>,
    ) -> Result<Vec<SocketAddr>, LinkError> {
        let found = lookup_host((host, port)).await;
        let found: Vec<_> =
            found.map_err(|source| LinkError::Dial { address: self.clone(), source })?.collect();
        if keys.is_none() && !found.iter().all(|address| address.ip().is_loopback()) {
            return Err(LinkError::Plaintext { address: self.clone() });
        }
        Ok(found)
    }
}

/// Connects to `address`; with keys, encrypted and to who has one of the peers' keys. Without them only this host is dialled.
///
/// # Errors
///
/// [`LinkError::Plaintext`], [`LinkError::Dial`] (also when `timeout` has passed); [`LinkError::UnknownKey`] and what else can
/// go wrong with encryption. That the peer does not take this node's key is known only when it is asked for something.
pub async fn dial(address: &Address, keys: Option<&Keys>, timeout: Duration) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Dial { address: address.clone(), source };
    let connect = async {
        match address {
            Address::Tcp { host, port } => {
                let found = address.resolve(host, *port, keys).await?;
                let stream = TcpStream::connect(&found[..]).await.map_err(failed)?;
                tune(&stream).map_err(failed)?;
                match keys {
                    Some(keys) => tls::connect(stream, keys).await,
                    None => Ok(plain(stream.into_split())),
                }
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                match keys {
                    Some(keys) => tls::connect(stream, keys).await,
                    None => Ok(plain(stream.into_split())),
                }
            }
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
    keys: Option<Keys>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on `address`; with keys, for those who have one of the peers' keys. Without them, for this host. The socket file
    /// that a dead process left behind is replaced, one that is in use is not.
    ///
    /// # Errors
    ///
    /// [`LinkError::Plaintext`], [`LinkError::Listen`].
    pub async fn bind(address: &Address, keys: Option<Keys>) -> Result<Listener, LinkError> {
        let failed = |source| LinkError::Listen { address: address.clone(), source };
        let socket = match address {
            Address::Tcp { host, port } => {
                let found = address.resolve(host, *port, keys.as_ref()).await?;
                Socket::Tcp(TcpListener::bind(&found[..]).await.map_err(failed)?)
            }
            Address::Unix(path) => {
                if UnixStream::connect(path)
                    .await
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    fs::remove_file(path).map_err(failed)?;
                }
                // Whoever can join receives the guest's memory.
                let listener = bind_private(path).and_then(UnixListener::from_std).map_err(failed)?;
                Socket::Unix(listener, path.clone())
            }
        };
        Ok(Listener { socket, keys })
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

    /// Listens no more, for good: from now on the system refuses who dials, and those who were not accepted yet.
    pub fn close(&self) {
        let closed = match &self.socket {
            Socket::Tcp(listener) => shutdown(listener, Shutdown::Both),
            Socket::Unix(listener, _) => shutdown(listener, Shutdown::Both),
        };
        // That is refused only to who does not listen.
        debug_assert!(closed.is_ok(), "{closed:?}");
    }

    /// Waits for the next connection. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`LinkError::Accept`].
    pub async fn accept(&self) -> Result<Incoming, LinkError> {
        let keys = self.keys.clone();
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, from) = listener.accept().await.map_err(LinkError::Accept)?;
                tune(&stream).map_err(LinkError::Accept)?;
                Ok(Incoming { stream: Stream::Tcp(stream), from: Some(from.ip().to_canonical()), keys })
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await.map_err(LinkError::Accept)?;
                Ok(Incoming { stream: Stream::Unix(stream), from: None, keys })
            }
        }
    }
}

/// Batches are coalesced by the sender; what it flushes is waited for. What it has not flushed stays with it, where heartbeats can go
/// before it.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX)
}

/// A connection of which nothing is known yet but where it comes from.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
    from: Option<IpAddr>,
    keys: Option<Keys>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Incoming {
    /// Where it comes from; `None` is a process of this host, over a Unix socket.
    #[must_use]
    pub fn from(&self) -> Option<IpAddr> {
        self.from
    }

    /// Makes a link of it; where there are keys, with who has one of them. Takes as long as the other side likes.
    ///
    /// # Errors
    ///
    /// [`LinkError::UnknownKey`], [`LinkError::Tls`], [`LinkError::Io`].
    pub async fn open(self) -> Result<Link, LinkError> {
        match (self.stream, &self.keys) {
            (Stream::Tcp(stream), Some(keys)) => tls::accept(stream, keys).await,
            (Stream::Unix(stream), Some(keys)) => tls::accept(stream, keys).await,
            (Stream::Tcp(stream), None) => Ok(plain(stream.into_split())),
            (Stream::Unix(stream), None) => Ok(plain(stream.into_split())),
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

/// Binds a Unix socket that nobody but its owner can open at any time: its mode is set before it has a name.
///
/// # Errors
/// The system's, such as `AddrInUse` if there is a file of this name.
pub fn bind_private(path: &Path) -> io::Result<net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn plain(
    (read, write): (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static),
) -> Link {
    Link::new(read, write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_dialled_where_it_says_if_that_can_be() {
        let told = |text: &str, from: Option<&str>| {
            let address: Address = text.parse().unwrap();
            let from = from.map(|from| from.parse().unwrap());
            address.told_by(from).map(|address| address.to_string())
        };
        assert_eq!(told("10.0.0.2:7700", Some("10.0.0.9")).as_deref(), Some("10.0.0.2:7700"));
        assert_eq!(told("0.0.0.0:7700", Some("10.0.0.9")).as_deref(), Some("10.0.0.9:7700"));
        assert_eq!(told("[::]:7700", Some("fd00::9")).as_deref(), Some("[fd00::9]:7700"));
        assert_eq!(told("0.0.0.0:7700", None).as_deref(), Some("127.0.0.1:7700"));
        assert_eq!(told("unix:/run/link", None).as_deref(), Some("unix:/run/link"));
        assert_eq!(told("unix:/run/link", Some("10.0.0.9")), None);
        assert_eq!(told("a.name:7700", Some("10.0.0.9")), None);
    }
}
