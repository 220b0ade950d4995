//! The door: where secondaries come in, and where strangers are sent away.
//!
//! Whoever can reach the listener can knock. Until somebody has said who he is, he costs one of a few places for a short
//! time, and nothing that he does touches the guest.

use std::{
    collections::BTreeMap,
    future::pending,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use echovisor_log::link::{Hello, Incoming, Link, LinkError, Listener, Ours, WireError, accept};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// How long a connection may take to say who it is, all in all.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Connections that may be saying who they are at the same time.
const PLACES: usize = 16;

/// How long to wait when the system gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How often the log tells of refused connections.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// A connection that has said who it is.
pub(super) struct Joiner {
    pub(super) hello: Hello,
    pub(super) link: Link,
    /// The host that it comes from; `None` is this one.
    pub(super) from: Option<IpAddr>,
}

/// Connections that were refused before they were a secondary's, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// They left without having said who they are.
    pub hung_up: u64,
    /// They did not say in time who they are.
    pub silent: u64,
    /// They were still saying who they are when others needed the place.
    pub crowded_out: u64,
    /// What they said is not what an Echovisor says there.
    pub gibberish: u64,
    /// They have a key that this node was not told.
    pub unknown_key: u64,
    /// They are an Echovisor's, but of another virtual machine, host, release or term.
    pub misfit: u64,
}

impl Refused {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Refused { hung_up, silent, crowded_out, gibberish, unknown_key, misfit } = self;
        hung_up + silent + crowded_out + gibberish + unknown_key + misfit
    }

    fn count(&mut self, why: &LinkError) {
        *match why {
            LinkError::Timeout { .. } => &mut self.silent,
            LinkError::UnknownKey { .. } => &mut self.unknown_key,
            LinkError::Wire(WireError::Version { .. })
            | LinkError::WrongVm { .. }
            | LinkError::Fingerprint { .. }
            | LinkError::Superseded { .. } => &mut self.misfit,
            LinkError::Tls(_) | LinkError::Wire(_) | LinkError::Unexpected { .. } => &mut self.gibberish,
            _ => &mut self.hung_up,
        } += 1;
    }
}

/// The door of a node. Nobody comes in any more when it is dropped.
pub(super) struct Door {
    joiners: flume::Receiver<Joiner>,
    refused: Arc<Mutex<Refused>>,
    listener: Arc<Listener>,
    _listening: JoinSet<()>,
}

impl Door {
    /// Takes connections and lets them say who they are, each on a task of its own, so that one that is slow holds nobody up.
    pub(super) fn open(listener: Arc<Listener>, ours: Ours) -> Door {
        let (sender, joiners) = flume::bounded(1);
        let refused = Arc::default();
        let porter = Porter {
            ours,
            knocking: JoinSet::new(),
            places: Vec::with_capacity(PLACES),
            refused: Arc::clone(&refused),
            said: None,
            unsaid: 0,
        };
        let mut listening = JoinSet::new();
        listening.spawn(porter.work(listener.clone(), sender));
        Door { joiners, refused, listener, _listening: listening }
    }

    /// Nobody listens here any more, whatever else has the listener: whoever dials is told so by the host.
    pub(super) fn close(self) {
        self.listener.close();
    }

    /// Who comes in next; waits for ever where nobody does, or where there is no door. For use in a `select!`.
    pub(super) async fn joiner(door: Option<&Door>) -> Joiner {
        match door.map(|door| door.joiners.recv_async()) {
            Some(joiner) => match joiner.await {
                Ok(joiner) => joiner,
                // Its task has died; there is nobody to come.
                Err(_) => pending().await,
            },
            None => pending().await,
        }
    }

    /// Who was sent away so far.
    pub(super) fn refused(&self) -> Refused {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is saying who it is.
struct Place {
    task: Id,
    from: Option<IpAddr>,
    end: AbortHandle,
}

/// What became of a connection, and where it came from.
type Knock = (Option<IpAddr>, Result<Joiner, LinkError>);

struct Porter {
    ours: Ours,
    knocking: JoinSet<Knock>,
    /// The oldest first.
    places: Vec<Place>,
    refused: Arc<Mutex<Refused>>,
    /// When the log was last told of a refusal, and of how many it was not told since.
    said: Option<Instant>,
    unsaid: u64,
}

impl Porter {
    async fn work(mut self, listener: Arc<Listener>, joiners: flume::Sender<Joiner>) {
        loop {
            tokio::select! {
                Some(done) = self.knocking.join_next_with_id() => {
                    if let Some(joiner) = self.done(done)
                        && joiners.send_async(joiner).await.is_err()
                    {
                        // Nobody to take it means that the node is ending.
                        return;
                    }
                }
                incoming = listener.accept() => match incoming {
                    Ok(incoming) => self.admit(incoming),
                    Err(error) => {
                        // Out of descriptors, or a connection that was gone again: neither is a reason to stop listening.
                        tracing::warn!("{error}");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        }
    }

    /// Gives a connection a place to say who it is, another's if need be.
    fn admit(&mut self, incoming: Incoming) {
        let from = incoming.from();
        if self.places.len() == PLACES {
            let given_up =
                self.places.remove(crowded(self.places.iter().map(|place| neighbours(place.from))));
            given_up.end.abort();
            self.count(|refused| refused.crowded_out += 1);
            self.say(given_up.from, "others needed its place");
        }
        let ours = self.ours.clone();
        let end = self.knocking.spawn(async move {
            let introduction = async {
                let mut link = incoming.open().await?;
                let hello = accept(&mut link, &ours, HANDSHAKE).await?;
                Ok(Joiner { hello, link, from })
            };
            let introduced = tokio::time::timeout(HANDSHAKE, introduction).await;
            (from, introduced.unwrap_or(Err(LinkError::Timeout { after: HANDSHAKE })))
        });
        self.places.push(Place { task: end.id(), from, end });
    }

    /// A connection has said who it is, or has not.
    fn done(&mut self, done: Result<(Id, Knock), JoinError>) -> Option<Joiner> {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.places.retain(|place| place.task != id);
        // One that was told to end has been counted then.
        let (_, (from, introduced)) = done.ok()?;
        match introduced {
            Ok(joiner) => Some(joiner),
            Err(error) => {
                self.count(|refused| refused.count(&error));
                self.say(from, &error);
                None
            }
        }
    }

    fn count(&self, add: impl FnOnce(&mut Refused)) {
        add(&mut self.refused.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells the log, but not more often than anybody can read: who can knock must not be able to fill a disk.
    fn say(&mut self, from: Option<IpAddr>, why: impl std::fmt::Display) {
        if self.said.is_some_and(|said| said.elapsed() < SAY_AGAIN) {
            self.unsaid += 1;
            return;
        }
        let who = from.map_or("this host".to_owned(), |from| from.to_string());
        let others = match std::mem::take(&mut self.unsaid) {
            0 => String::new(),
            unsaid => format!(", and {unsaid} more before it"),
        };
        self.said = Some(Instant::now());
        tracing::warn!("a connection from {who} was refused{others}: {why}");
    }
}

/// Who is to give up a place: the oldest of those who have most of them. So whoever floods the door from one address crowds
/// out nobody but himself.
fn crowded(places: impl Iterator<Item = Option<IpAddr>> + Clone) -> usize {
    let mut held: BTreeMap<Option<IpAddr>, (usize, usize)> = BTreeMap::new();
    for (place, from) in places.enumerate() {
        held.entry(from).or_insert((0, place)).0 += 1;
    }
    let most = held.values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
    most.map_or(0, |(_, oldest)| *oldest)
}

/// Addresses that one machine has for the asking count as one: the /64 of an IPv6 address.
fn neighbours(from: Option<IpAddr>) -> Option<IpAddr> {
    const NETWORK: u128 = !0 << 64;
    from.map(|from| match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use echovisor_event::{NodeId, Term, VmId};
    use echovisor_log::link::{Address, Fingerprint, Keys, Message, PrivateKey, RefuseCode, dial, greet};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpStream, UnixStream},
    };

    use super::*;

    const LATER: Duration = Duration::from_secs(20);

    fn ours() -> Ours {
        Ours { vm: VmId([1; 16]), node: NodeId([2; 16]), term: Term(5), fingerprint: Fingerprint::default() }
    }

    fn hello() -> Hello {
        Hello { vm: Some(ours().vm), ..Hello::new(NodeId([3; 16]), Fingerprint::default()) }
    }

    /// A door at a Unix socket, for whoever comes.
    async fn door(folder: &Path) -> (Door, Address) {
        let address = Address::Unix(folder.join("door"));
        let listener = Listener::bind(&address, None).await.unwrap();
        (Door::open(listener.into(), ours()), address)
    }

    async fn refused_until(door: &Door, enough: impl Fn(&Refused) -> bool) -> Refused {
        let looking = async {
            loop {
                let refused = door.refused();
                if enough(&refused) {
                    return refused;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(LATER, looking).await;
        seen.unwrap_or_else(|_| panic!("{:?}", door.refused()))
    }

    /// They are as many as there are places, and more come all the time; each is longer there than the peer needs.
    #[tokio::test]
    async fn silent_strangers_do_not_keep_a_peer_out() {
        let folder = tempfile::tempdir().unwrap();
        let (door, address) = door(folder.path()).await;
        let mut silent = Vec::new();
        for _ in 0..3 * PLACES {
            silent.push(UnixStream::connect(folder.path().join("door")).await.unwrap());
        }
        let mut link = dial(&address, None, LATER).await.unwrap();
        link.sender.send(&Message::Hello(hello())).await.unwrap();
        let Joiner { hello: said, .. } =
            tokio::time::timeout(LATER, Door::joiner(Some(&door))).await.unwrap();
        assert_eq!(said, hello());
        let refused = refused_until(&door, |refused| refused.total() == 3 * PLACES as u64).await;
        assert!(refused.crowded_out > 2 * PLACES as u64 && refused.silent < PLACES as u64, "{refused:?}");
        drop(silent);
    }

    #[tokio::test]
    async fn everybody_who_is_refused_is_counted_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (door, address) = door(folder.path()).await;
        let connect = || UnixStream::connect(folder.path().join("door"));
        drop(connect().await.unwrap());
        refused_until(&door, |refused| refused.hung_up == 1).await;
        let mut gibberish = connect().await.unwrap();
        gibberish.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        refused_until(&door, |refused| refused.gibberish == 1).await;
        // A batch may be megabytes long, but not here.
        let mut oversized = connect().await.unwrap();
        oversized.write_all(b"\x00\x00\x10\x00\x0a").await.unwrap();
        refused_until(&door, |refused| refused.gibberish == 2).await;
        for hello in [Hello { vm: Some(VmId([9; 16])), ..hello() }, Hello { term: Term(6), ..hello() }] {
            let mut link = dial(&address, None, LATER).await.unwrap();
            let error = greet(&mut link, &hello, LATER).await.unwrap_err();
            let told = matches!(
                error,
                LinkError::Refused { code: RefuseCode::WrongVm | RefuseCode::Superseded, .. }
            );
            assert!(told, "{error}");
        }
        let refused = refused_until(&door, |refused| refused.misfit == 2).await;
        let expected = Refused { hung_up: 1, gibberish: 2, misfit: 2, ..Refused::default() };
        assert_eq!(refused, expected);
        assert_eq!(refused.total(), 5);
        assert!(door.joiners.is_empty());
    }

    #[tokio::test]
    async fn a_stranger_with_a_key_is_told_nothing() {
        let [own, peer, stranger] = [(); 3].map(|()| PrivateKey::generate().unwrap());
        let keys = |own: &PrivateKey, peer: &PrivateKey| Keys::new(own, [peer.public()]).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&address, Some(keys(&own, &peer))).await.unwrap();
        let address = listener.address().unwrap();
        let door = Door::open(listener.into(), ours());
        let Address::Tcp { port, .. } = address else { panic!("{address}") };

        let mut link = dial(&address, Some(&keys(&stranger, &own)), LATER).await.unwrap();
        let error = greet(&mut link, &hello(), LATER).await.unwrap_err();
        assert!(matches!(error, LinkError::KeyRefused) && error.hint().is_some(), "{error}");
        refused_until(&door, |refused| refused.unknown_key == 1).await;

        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        plain.write_all(b"\x0a\x00\x00\x00\x01ECHO\x63\x00????").await.unwrap();
        let mut answer = Vec::new();
        // An alert, or a reset because there is more that nobody read.
        let _ = plain.read_to_end(&mut answer).await;
        assert!(answer.len() < 16, "{answer:?}");
        let refused = refused_until(&door, |refused| refused.total() == 2).await;
        assert_eq!((refused.unknown_key, refused.gibberish), (1, 1), "{refused:?}");

        let mut link = dial(&address, Some(&keys(&peer, &own)), LATER).await.unwrap();
        link.sender.send(&Message::Hello(hello())).await.unwrap();
        tokio::time::timeout(LATER, Door::joiner(Some(&door))).await.unwrap();
    }

    #[test]
    fn who_has_most_places_gives_one_up() {
        let [a, b, c] =
            ["10.0.0.1", "2001:db8::1", "2001:db8::ffff:1"].map(|text| neighbours(text.parse().ok()));
        assert_eq!(b, c);
        let of = |places: &[Option<IpAddr>]| crowded(places.iter().copied());
        assert_eq!(of(&[a, b, b]), 1);
        assert_eq!(of(&[None, a, b, a]), 1);
        assert_eq!(of(&[b, a, a, c]), 0);
        assert_eq!(of(&[a, b, None]), 0);
    }
}
