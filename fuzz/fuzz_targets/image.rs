//! State images. The first byte says whether an image follows as it is, or the body below its compression.
//!
//! An image whose digest is wrong for its content is given the right one, so that the content is restored.

#![no_main]

use std::convert::Infallible;

use echovisor_event::{Digest, Effect, Event, Position, limits::MEMORY_MIN};
use echovisor_machine::{
    Effects, Here, MachineConfig, Memory, Next, Stop, World, cpu::scripted::ScriptedCpu,
};
use echovisor_snapshot::{IMAGE_VERSION, Image, ImageError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let image = if *mode == 0 { Image::from_bytes(rest) } else { Image::from_bytes(&compressed(rest)) };
    if let Ok(image) = image {
        restore(image);
    }
});

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"ECHOIMG\n".to_vec();
    bytes.extend(IMAGE_VERSION.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(zstd::encode_all(body, 1).expect("compressing into memory"));
    bytes
}

/// Whatever is restored is what was said, and a machine that can be given events.
fn restore(mut image: Image) {
    let config = MachineConfig {
        memory: MEMORY_MIN,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        guest: "test".into(),
        arguments: String::new(),
        program: Digest::default(),
    };
    let memory = Memory::new(MEMORY_MIN).expect("memory for a guest");
    if let Err(ImageError::Digest { found, .. }) = image.fill(&memory) {
        image.digest = found;
    }
    let cpu = |memory: &Memory| Ok(ScriptedCpu::new(memory.clone(), 0));
    let Ok(mut machine) = image.restore(&config, cpu) else { return };
    let saved = machine.save().expect("a restored machine stands at a boundary");
    assert_eq!(saved, image.state);
    let again = Image::capture(machine.memory(), saved);
    assert_eq!(again.digest, image.digest);
    assert_eq!(
        Image::from_bytes(&again.to_bytes().expect("it is no larger than it was"))
            .expect("it was written so"),
        again
    );
    let stop = machine.run(&mut Feeder { frames: 3 }).expect("a frame that is wanted is taken");
    assert!(matches!(stop, Stop::Paused | Stop::PoweredOff(_)), "{stop:?}");
}

/// Delivers a few frames where the guest wants some, and then leaves it.
struct Feeder {
    frames: usize,
}

impl World for Feeder {
    type Error = Infallible;

    fn next(&mut self, here: &Here) -> Result<Next<'_>, Infallible> {
        if self.frames == 0 || here.frames_wanted == 0 {
            return Ok(Next::Pause);
        }
        self.frames -= 1;
        Ok(Next::Event(Event::Frame(&[0xa5; 60])))
    }
}

impl Effects for Feeder {
    fn effect(&mut self, _: Position, _: Effect<'_>) {}
}
