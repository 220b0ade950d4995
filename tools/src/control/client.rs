//! The side that asks.

use std::{io, path::Path};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

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
    let line = serde_json::to_string(request).map_err(|_| ControlError::Foreign(path.into()))?;
    let (answers, mut requests) = stream.into_split();
    // A node that ends just now may refuse the line and still have sent its answer, so only the answer counts.
    let _ = requests.write_all(format!("{line}\n").as_bytes()).await;
    let mut answer = Vec::new();
    let read = BufReader::new(answers).take(LINE_MAX as u64).read_until(b'\n', &mut answer).await;
    // A node that is killed in the middle of its answer leaves a part of it.
    let is_part = answer.last() != Some(&b'\n') && (read.is_err() || answer.len() < LINE_MAX);
    match serde_json::from_slice(&answer) {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Error(refusal)) => Err(refusal.into()),
        Err(_) if is_part => Err(ControlError::HungUp(path.into())),
        Err(_) => Err(ControlError::Foreign(path.into())),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}
