//! Images go there and back, and what is no image is refused.

mod state;

use std::{fs, io::Write, path::PathBuf};

use echovisor_event::{
    Digest,
    limits::{MEMORY_MIN, PAGE_SIZE},
};
use echovisor_machine::{MachineConfig, Memory, cpu::scripted::ScriptedCpu};
use echovisor_snapshot::{IMAGE_VERSION, Image, ImageError, PageDigests, RestoreError};
use proptest::prelude::*;
use state::{DEVICES, kvm, memory, scripted};
use vm_memory::{Bytes, GuestAddress};

/// Bytes before the compressed body.
const PREFIX: usize = 20;

fn config() -> MachineConfig {
    MachineConfig {
        memory: MEMORY_MIN,
        mac: DEVICES.mac,
        mtu: DEVICES.mtu,
        guest: "test".into(),
        arguments: String::new(),
        program: Digest::default(),
    }
}

/// A memory with a few pages that hold something, the last one among them.
fn filled() -> Memory {
    let memory = memory();
    for (page, byte) in [(1, 0x11), (2, 0x22), (700, 0x77), (memory.pages() - 1, 0xff)] {
        let mut content = [byte; PAGE_SIZE];
        content[..8].copy_from_slice(&(page as u64).to_le_bytes());
        memory.write_page(page, &content);
    }
    memory
}

#[test]
fn an_image_restores_what_was_captured() {
    let memory = filled();
    let image = Image::capture(&memory, scripted());
    let read = Image::from_bytes(&image.to_bytes().unwrap()).unwrap();
    assert_eq!(read, image);
    let machine = read.restore(&config(), |memory| Ok(ScriptedCpu::new(memory.clone(), 0))).unwrap();
    assert_eq!(PageDigests::of(machine.memory()), PageDigests::of(&memory));
    assert_eq!(machine.save().unwrap(), scripted());
}

#[test]
fn an_image_of_another_machine_is_refused() {
    let image = Image::capture(&filled(), scripted());
    let restore =
        |config: MachineConfig| image.restore(&config, |memory| Ok(ScriptedCpu::new(memory.clone(), 0)));
    let larger = restore(MachineConfig { memory: 2 * MEMORY_MIN, ..config() });
    assert!(matches!(larger, Err(RestoreError::Image(ImageError::Damaged(_)))));
    assert!(matches!(restore(MachineConfig { mac: None, ..config() }), Err(RestoreError::Machine(_))));
    let other_processor = Image::capture(&filled(), kvm());
    let refused = other_processor.restore(&config(), |memory| Ok(ScriptedCpu::new(memory.clone(), 0)));
    assert!(matches!(refused, Err(RestoreError::Machine(_))));
}

#[test]
fn memory_that_is_not_empty_is_noticed() {
    let image = Image::capture(&filled(), scripted());
    let memory = memory();
    memory.mmap().write_obj(1_u8, GuestAddress(0x50_0000)).unwrap();
    assert!(matches!(image.fill(&memory), Err(ImageError::Digest { .. })));
}

#[test]
fn what_is_cut_off_is_refused() {
    let bytes = Image::capture(&filled(), scripted()).to_bytes().unwrap();
    for length in 0..bytes.len() {
        let error = Image::from_bytes(&bytes[..length]).unwrap_err();
        assert!(matches!(error, ImageError::Magic | ImageError::Damaged(_)), "{length} bytes: {error}");
    }
    let error = Image::from_bytes(&[bytes, vec![0]].concat()).unwrap_err();
    assert!(matches!(error, ImageError::Damaged(_)), "{error}");
}

#[test]
fn other_files_and_versions_are_named() {
    let bytes = Image::capture(&memory(), scripted()).to_bytes().unwrap();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        Image::from_bytes(&bytes).unwrap_err()
    };
    assert!(matches!(with(0, b"x"), ImageError::Magic));
    assert!(matches!(with(8, &2_u32.to_le_bytes()), ImageError::Version { found: 2 }));
    assert!(matches!(with(12, &u64::MAX.to_le_bytes()), ImageError::TooLarge { size: u64::MAX }));
    assert!(matches!(with(12, &(1_u64 << 31).to_le_bytes()), ImageError::TooLarge { .. }));
}

/// Decompressing takes as much memory as the stream's window, which whoever wrote it may choose.
#[test]
fn a_window_beyond_the_formats_own_is_refused() {
    let mut bytes = Image::capture(&memory(), scripted()).to_bytes().unwrap();
    let body = zstd::decode_all(&bytes[PREFIX..]).unwrap();
    bytes.truncate(PREFIX);
    let mut encoder = zstd::stream::Encoder::new(&mut bytes, 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&body).unwrap();
    encoder.finish().unwrap();
    assert!(matches!(Image::from_bytes(&bytes), Err(ImageError::Damaged(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A damaged image is refused, or the damage was in bits that mean nothing: never is another state restored.
    #[test]
    fn damage_is_never_restored(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let image = Image::capture(&filled(), scripted());
        let mut bytes = image.to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        damaged(&image, &bytes)?;
    }

    /// The same below the compression, which would catch much of it.
    #[test]
    fn damage_below_the_compression_is_never_restored(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let image = Image::capture(&filled(), scripted());
        let mut bytes = image.to_bytes().unwrap();
        let mut body = zstd::decode_all(&bytes[PREFIX..]).unwrap();
        bytes.truncate(PREFIX);
        let again = |body: &[u8]| [&bytes[..], &zstd::encode_all(body, 1).unwrap()].concat();
        prop_assert!(Image::from_bytes(&again(&body)).is_ok(), "it is the damage that is refused");
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        damaged(&image, &again(&body))?;
    }
}

fn damaged(image: &Image, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(read) = Image::from_bytes(bytes) else { return Ok(()) };
    if let Ok(machine) = read.restore(&config(), |memory| Ok(ScriptedCpu::new(memory.clone(), 0))) {
        prop_assert_eq!(machine.save().unwrap(), image.state.clone());
        prop_assert_eq!(PageDigests::of(machine.memory()), PageDigests::of(&filled()));
    }
    Ok(())
}

/// If this fails, what older releases wrote cannot be read any more, or they cannot read what this one writes: raise
/// `IMAGE_VERSION`, then `ECHOVISOR_BLESS=1 cargo test -p echovisor-snapshot --test image`.
///
/// Bodies are not compared compressed, since a newer zstd may compress differently.
#[test]
fn the_format_is_that_of_its_version() {
    for (name, state) in [("kvm", kvm()), ("scripted", scripted())] {
        let image = Image::capture(&filled(), state);
        let written = image.to_bytes().unwrap();
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/golden/v{IMAGE_VERSION}/{name}.image"));
        if std::env::var_os("ECHOVISOR_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &written).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Image::from_bytes(&kept).unwrap(), image, "{name}");
        assert_eq!(kept[..PREFIX], written[..PREFIX], "{name}");
        let bodies = [&kept, &written].map(|bytes| zstd::decode_all(&bytes[PREFIX..]).unwrap());
        assert!(bodies[0] == bodies[1], "{name}: the body's bytes have changed");
    }
}
