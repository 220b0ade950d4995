//! The side that answers.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream as StdStream},
    path::{Path, PathBuf},
    time::Duration,
};

use echovisor_log::link::bind_private;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::codec::{Framed, LinesCodec};

use super::{ControlError, LINE_MAX, Refusal, Request, Response};

/// Answers until it is dropped; then the socket is gone.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Offers a control socket at `path`, and has every request answered by `handler`. A socket that a dead node left behind
/// is replaced.
///
/// # Errors
/// If a living node has the path, or if no socket can be made there.
pub fn serve<H, F>(path: &Path, handler: H) -> Result<Server, ControlError>
where
    H: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Value, Refusal>> + Send + 'static,
{
    let failed = |source| ControlError::Io { path: path.into(), source };
    let listener = match bind_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind_private(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    Ok(Server { path: path.into(), task: tokio::spawn(accept(listener, handler)) })
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Io { path: path.into(), source };
    if !path.symlink_metadata().map_err(failed)?.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.into()));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ControlError::Permission(path.into()))
        }
        _ => Err(ControlError::Occupied(path.into())),
    }
}

async fn accept<H, F>(listener: UnixListener, handler: H)
where
    H: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Value, Refusal>> + Send + 'static,
{
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(answer(stream, handler.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection, until it ends or sends a line that is too long to be one.
async fn answer<H, F>(stream: UnixStream, handler: H)
where
    H: Fn(Request) -> F,
    F: Future<Output = Result<Value, Refusal>>,
{
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
    while let Some(Ok(line)) = lines.next().await {
        let response = match serde_json::from_str(&line) {
            Ok(request) => match handler(request).await {
                Ok(value) => Response::Ok(value),
                Err(refusal) => Response::Error(refusal),
            },
            Err(error) => Response::Error(Refusal {
                message: format!("this is no request: {error}"),
                hint: r#"send one line of JSON such as {"command":"status"}"#.to_owned(),
            }),
        };
        let Ok(response) = serde_json::to_string(&response) else {
            return;
        };
        if lines.send(response).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        control::{Role, Status, ask, status},
        failure::Failure,
    };

    async fn node(request: Request) -> Result<Value, Refusal> {
        match request {
            Request::Status => {
                Ok(serde_json::to_value(Status::new(Role::Secondary)).expect("a status is JSON"))
            }
            Request::Snapshot | Request::Stop | Request::Promote | Request::Spoil { .. } => {
                Err(Refusal { message: "not now".to_owned(), hint: "later".to_owned() })
            }
        }
    }

    #[tokio::test]
    async fn a_node_answers_and_refuses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let server = serve(&path, node).expect("a socket");
        assert_eq!(status(&path).await.expect("a status").role, Role::Secondary);
        let failure = Failure::from(ask(&path, &Request::Stop).await.expect_err("refused"));
        assert_eq!(failure.to_string(), "error: not now\nhint: later");
        assert_eq!(path.metadata().expect("a socket").permissions().mode() & 0o777, 0o600);
        drop(server);
        assert!(matches!(status(&path).await, Err(ControlError::Missing(_))));
    }

    #[tokio::test]
    async fn a_line_that_is_no_request_is_answered_and_the_next_one_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let _server = serve(&path, node).expect("a socket");
        let mut stream = UnixStream::connect(&path).await.expect("a connection");
        stream.write_all(b"{\"command\":\"dance\"}\n{\"command\":\"status\"}\n").await.expect("sent");
        stream.shutdown().await.expect("shut down");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.expect("answers");
        let answers: Vec<&str> = answers.lines().collect();
        assert!(answers[0].starts_with(r#"{"error":{"message":"this is no request"#), "{}", answers[0]);
        assert!(answers[1].starts_with(r#"{"ok":{"#), "{}", answers[1]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let _server = serve(&path, node).expect("a socket");
        let mut stream = UnixStream::connect(&path).await.expect("a connection");
        // The server hangs up in the middle; what it has not read makes that an error here.
        let _ = stream.write_all(&vec![b'x'; 4 * LINE_MAX]).await;
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers).await;
        assert!(answers.is_empty());
        assert!(status(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_recognised_and_replaced_but_a_living_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        drop(bind_private(&path).expect("a socket"));
        assert!(matches!(status(&path).await, Err(ControlError::Stale(_))));
        let _server = serve(&path, node).expect("a socket");
        assert!(matches!(serve(&path, node), Err(ControlError::Occupied(_))));
        assert!(status(&path).await.is_ok());

        let file = folder.path().join("file");
        fs::write(&file, "precious").expect("a file");
        assert!(matches!(serve(&file, node), Err(ControlError::NotASocket(_))));
        assert!(matches!(status(&file).await, Err(ControlError::NotASocket(_))));
        assert_eq!(fs::read(&file).expect("still there"), b"precious");
    }

    #[tokio::test]
    async fn a_node_that_hangs_up_or_talks_nonsense_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (answer, ()) = tokio::join!(status(&path), async {
            drop(listener.accept().await);
        });
        assert!(matches!(answer, Err(ControlError::HungUp(_))), "{answer:?}");
        for foreign in ["220 mail.example ESMTP\r\n".to_owned(), "x".repeat(2 * LINE_MAX)] {
            let (answer, ()) = tokio::join!(status(&path), async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                // The other side hangs up when it has read enough.
                let _ = stream.write_all(foreign.as_bytes()).await;
            });
            assert!(matches!(answer, Err(ControlError::Foreign(_))), "{answer:?}");
        }
    }

    /// It was killed, for one.
    #[tokio::test]
    async fn a_node_that_ends_in_the_middle_of_its_answer_is_not_taken_for_a_stranger() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).expect("a socket");
        for part in [r#"{"ok":null"#, r#"{"error":{"message":"the roles st"#, "{"] {
            let (answer, ()) = tokio::join!(ask(&path, &Request::Promote), async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(part.as_bytes()).await.expect("sent");
            });
            let error = answer.expect_err("no whole answer");
            assert!(matches!(error, ControlError::HungUp(_)), "{part}: {error}");
            let said = Failure::from(error).to_string();
            assert!(
                said.contains("ended before it had answered") && said.contains("`echovisor status`"),
                "{said}"
            );
        }
    }
}
