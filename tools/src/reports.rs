//! Reports of divergences, kept as files for whoever looks for their cause.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::SystemTime,
};

use echovisor_replayer::secondary::Report;

use crate::failure::Failure;

/// Reports that may wait for the disk.
const WAITING: usize = 16;

/// Reports of divergences that were noticed at the same position. A host whose memory is bad makes new ones all the time, and must
/// not fill its disk with them.
const SAME: usize = 100;

/// Most reports that one run of a node keeps.
const KEPT: usize = 10_000;

/// Starts a thread that writes what is sent to it into this folder, a file for each.
///
/// # Errors
/// If the folder cannot be made.
pub(crate) fn keep(folder: &Path) -> Result<flume::Sender<Arc<Report>>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            format!("reports cannot be kept in {}", folder.display()),
            "see whether the folder can be made, or give another by --reports",
        )
        .because(error)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let folder = folder.to_owned();
    let (sender, reports) = flume::bounded::<Arc<Report>>(WAITING);
    let work = move || {
        for report in reports.iter().take(KEPT) {
            if let Err(error) = write(&folder, &report, SystemTime::now()) {
                tracing::error!("the report of a divergence is not kept in {}: {error}", folder.display());
            }
        }
    };
    thread::Builder::new().name("reports".into()).spawn(work).map_err(failed)?;
    Ok(sender)
}

/// Writes a report into a file of its own.
fn write(folder: &Path, report: &Report, now: SystemTime) -> io::Result<()> {
    for number in 1..=SAME {
        let path = folder.join(format!("divergence-{}-{number}.txt", report.noticed));
        match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                writeln!(file, "{}\n{report}", humantime::format_rfc3339_seconds(now))?;
                return file.sync_all();
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("there are {SAME} of position {} already", report.noticed)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use echovisor_event::{Nanos, Position};
    use echovisor_machine::{
        MachineState, Trail,
        boot::Symbols,
        cpu::{CpuState, scripted::ScriptedState},
        devices::{Devices, DevicesConfig},
    };
    use echovisor_snapshot::sync::Differences;

    use super::*;

    fn report() -> Report {
        let expected = MachineState {
            position: Position(9),
            trail: Trail::default(),
            clock: Nanos(0),
            idle: None,
            powered_off: None,
            cpu: CpuState::Scripted(ScriptedState { pc: 0x20_0000, registers: Default::default() }),
            devices: Devices::new(&DevicesConfig { mac: None, mtu: 1500 }).save(),
        };
        let mut found = expected.clone();
        found.devices.console.scratch ^= 1;
        let noticed = (Position(7), "a test".to_owned());
        Report::new(noticed, &expected, Some(&found), Differences::default(), Symbols::default())
    }

    #[test]
    fn each_report_is_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let reports = folder.path().join("of/a/node");
        let sender = keep(&reports).expect("a folder can be made");
        drop(sender);
        assert_eq!(fs::metadata(&reports).expect("a folder").permissions().mode() & 0o777, 0o700);
        (0..2).for_each(|_| write(&reports, &report(), SystemTime::UNIX_EPOCH).expect("a file"));
        for number in 1..=2 {
            let path = reports.join(format!("divergence-7-{number}.txt"));
            let text = fs::read_to_string(&path).expect("a report");
            assert!(text.starts_with("1970-01-01T00:00:00Z\nnoticed at position 7, healed at 9"), "{text}");
            assert!(text.contains("devices.console.scratch is 0x1, not 0x0"), "{text}");
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }
}
