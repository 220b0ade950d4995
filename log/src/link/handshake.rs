//! The first words on a link: who are you, and do we fit together?

use std::time::Duration;

use echovisor_event::{NodeId, Term, VmId};

use super::{
    error::LinkError,
    framed::Link,
    kind::{ANSWER, FIRST, OF_PRIMARY, OF_SECONDARY, WireError},
    message::{Fingerprint, Hello, Message, Refuse, RefuseCode, Welcome},
};
use crate::limits::VERSION;

/// What a primary is, for those who want to join it.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Its virtual machine.
    pub vm: VmId,
    /// Itself.
    pub node: NodeId,
    /// Its term.
    pub term: Term,
    /// Its host and machine.
    pub fingerprint: Fingerprint,
}

/// The primary's side, first half: takes the hello, and refuses who does not fit. Answer with [`welcome`].
///
/// # Errors
///
/// Any [`LinkError`]; where the peer can understand it, it has been told why. [`LinkError::Superseded`] means that a takeover
/// has happened, and that this primary must ask the arbiter before it does anything else.
pub async fn accept(link: &mut Link, ours: &Ours, timeout: Duration) -> Result<Hello, LinkError> {
    within(timeout, async {
        link.receiver.expect(FIRST);
        let hello = match link.receiver.receive().await {
            Ok(Message::Hello(hello)) => Ok(hello),
            Ok(other) => Err(LinkError::Unexpected { expected: FIRST, found: other.kind() }),
            Err(error) => Err(error),
        };
        let checked = hello.and_then(|hello| check_hello(&hello, ours).map(|()| hello));
        if let Err(error) = &checked
            && let Some(code) = refusal(error)
        {
            // The reason that matters is the one being returned.
            let _ = refuse(link, code, error.to_string()).await;
        }
        link.receiver.expect(OF_SECONDARY);
        checked
    })
    .await
}

/// The primary's side, second half: the answer to a hello that it accepts. `resumed`: the log goes on where the hello asked
/// for.
#[must_use]
pub fn welcome(ours: &Ours, resumed: bool) -> Welcome {
    let Ours { vm, node, term, fingerprint } = ours;
    Welcome { version: VERSION, vm: *vm, node: *node, term: *term, fingerprint: fingerprint.digest, resumed }
}

/// Tells the peer why it gets no further. Close the link afterwards.
async fn refuse(link: &mut Link, code: RefuseCode, text: String) -> Result<(), LinkError> {
    link.sender.send(&Message::Refuse(Refuse { code, text })).await
}

/// The secondary's side: says hello, and checks who answers.
///
/// # Errors
///
/// Any [`LinkError`]; [`LinkError::Refused`] carries the primary's reason.
pub async fn greet(link: &mut Link, hello: &Hello, timeout: Duration) -> Result<Welcome, LinkError> {
    within(timeout, async {
        link.sender.send(&Message::Hello(hello.clone())).await?;
        link.receiver.expect(ANSWER);
        let welcome = match link.receiver.receive().await? {
            Message::Welcome(welcome) => welcome,
            Message::Refuse(Refuse { code, text }) => return Err(LinkError::Refused { code, text }),
            Message::Bye(text) => return Err(LinkError::Bye(text)),
            other => return Err(LinkError::Unexpected { expected: ANSWER, found: other.kind() }),
        };
        check_welcome(&welcome, hello)?;
        link.receiver.expect(OF_PRIMARY);
        Ok(welcome)
    })
    .await
}

/// Whether who says `hello` fits to this primary.
///
/// # Errors
///
/// [`LinkError::WrongVm`], [`LinkError::Fingerprint`], [`LinkError::Superseded`].
pub fn check_hello(hello: &Hello, ours: &Ours) -> Result<(), LinkError> {
    if let Some(there) = hello.vm.filter(|vm| *vm != ours.vm) {
        return Err(LinkError::WrongVm { here: ours.vm, there });
    }
    if hello.fingerprint.digest != ours.fingerprint.digest {
        return Err(LinkError::Fingerprint { difference: difference(&ours.fingerprint, &hello.fingerprint) });
    }
    if hello.term > ours.term {
        return Err(LinkError::Superseded { primary: ours.term, secondary: hello.term });
    }
    Ok(())
}

/// Whether the primary that answers is one for who said `hello`.
///
/// # Errors
///
/// As [`check_hello`].
pub fn check_welcome(welcome: &Welcome, hello: &Hello) -> Result<(), LinkError> {
    if let Some(here) = hello.vm.filter(|vm| *vm != welcome.vm) {
        return Err(LinkError::WrongVm { here, there: welcome.vm });
    }
    if welcome.fingerprint != hello.fingerprint.digest {
        let difference = format!("{} there, {} here", welcome.fingerprint, hello.fingerprint.digest);
        return Err(LinkError::Fingerprint { difference });
    }
    if welcome.term < hello.term {
        return Err(LinkError::Superseded { primary: welcome.term, secondary: hello.term });
    }
    Ok(())
}

/// The first lines in which two fingerprints differ, for people.
fn difference(ours: &Fingerprint, theirs: &Fingerprint) -> String {
    let mut pairs = ours.text.lines().zip(theirs.text.lines());
    match pairs.find(|(here, there)| here != there) {
        Some((here, there)) => format!("`{here}` here, `{there}` there"),
        None => format!("{} here, {} there", ours.digest, theirs.digest),
    }
}

/// How an error is told to the peer; `None` if it would not understand.
fn refusal(error: &LinkError) -> Option<RefuseCode> {
    match error {
        LinkError::Wire(WireError::Version { .. }) => Some(RefuseCode::Version),
        LinkError::Wire(WireError::Malformed { .. }) | LinkError::Unexpected { .. } => {
            Some(RefuseCode::Protocol)
        }
        LinkError::WrongVm { .. } => Some(RefuseCode::WrongVm),
        LinkError::Fingerprint { .. } => Some(RefuseCode::Fingerprint),
        LinkError::Superseded { .. } => Some(RefuseCode::Superseded),
        _ => None,
    }
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(LinkError::Timeout { after: timeout }))
}
