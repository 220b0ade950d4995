//! The side that asks.

use std::{io, path::Path};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};
use tokio_util::codec::{Framed, LinesCodec};

use super::{ControlError, LINE_MAX, PATIENCE, Request, Response, Status};

/// Asks a node, and gives its answer.
///
/// # Errors
/// If there is no node, or if it does not answer, or refuses.
pub async fn ask(path: &Path, request: &Request) -> Result<Value, ControlError> {
    match timeout(PATIENCE, exchange(path, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlError::Late(path.into())),
    }
}

/// Asks a node how it is.
///
/// # Errors
/// As [`ask`].
pub async fn status(path: &Path) -> Result<Status, ControlError> {
    let value = ask(path, &Request::Status).await?;
    serde_json::from_value(value).map_err(|_| ControlError::Foreign(path.into()))
}

async fn exchange(path: &Path, request: &Request) -> Result<Value, ControlError> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ControlError::Missing(path.into()),
        io::ErrorKind::ConnectionRefused if is_socket(path) => ControlError::Stale(path.into()),
        io::ErrorKind::ConnectionRefused => ControlError::NotASocket(path.into()),
        io::ErrorKind::PermissionDenied => ControlError::Permission(path.into()),
        _ => ControlError::Io { path: path.into(), source: error },
    })?;
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
    let line = serde_json::to_string(request).map_err(|_| ControlError::Foreign(path.into()))?;
    // A node that ends just now may refuse the line and still have sent its answer, so only the answer counts.
    let _ = lines.send(line).await;
    let answer = match lines.next().await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => return Err(ControlError::Foreign(path.into())),
        None => return Err(ControlError::HungUp(path.into())),
    };
    match serde_json::from_str(&answer) {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Error(refusal)) => Err(refusal.into()),
        Err(_) => Err(ControlError::Foreign(path.into())),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}
