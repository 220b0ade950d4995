//! What scripted guests are told and say.

use echovisor_event::Effect;

/// An effect that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Frame(Vec<u8>),
    Console(Vec<u8>),
    PowerOff(u32),
}

impl From<Effect<'_>> for Said {
    fn from(effect: Effect<'_>) -> Said {
        match effect {
            Effect::Frame(frame) => Said::Frame(frame.to_vec()),
            Effect::Console(bytes) => Said::Console(bytes.to_vec()),
            Effect::PowerOff(code) => Said::PowerOff(code),
        }
    }
}

/// A frame that no other equals. Lengths differ.
pub(crate) fn frame(number: u64) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_le_bytes());
    frame.extend((0..number * 37 % 600).map(|byte| byte as u8));
    frame
}

/// What the echo guest makes of a frame.
pub(crate) fn echoed(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}
