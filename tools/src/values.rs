//! The values that stand on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use echovisor_event::limits;

/// Why a value on the command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a size.
    #[error("a size is a number of bytes, or a number with K, M or G behind it, such as 64M")]
    Size,
    /// A size that no guest can have.
    #[error("a guest has a multiple of {}M, at least {}M and at most {}M", limits::MEMORY_STEP >> 20, limits::MEMORY_MIN >> 20, limits::MEMORY_MAX >> 20)]
    Memory,
    /// Not a hardware address.
    #[error("a hardware address is six bytes in hexadecimal with colons between, such as 02:00:00:00:00:02")]
    Mac,
    /// A hardware address that no device may have.
    #[error("a device's hardware address can be neither a group address (odd first byte) nor all zeros")]
    MacGroup,
    /// Not a network.
    #[error("a network is `tap:NAME`, `unix:PATH` or `none`")]
    Net,
    /// Not the name of a network interface.
    #[error("the name of a TAP has 1 to 15 characters, none of them a blank or a slash")]
    TapName,
    /// Not a distance between snapshots.
    #[error("a number of positions, such as 100000, or a time, such as 10s; at least 1, or 1ms")]
    Every,
    /// Not an arbiter.
    #[error("an arbiter is `file:PATH`")]
    Arbiter,
}

/// A guest's memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(pub u64);

impl FromStr for MemorySize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<MemorySize, ValueError> {
        let (number, shift) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number: u64 = number.parse().map_err(|_| ValueError::Size)?;
        let bytes = number.checked_mul(1 << shift).ok_or(ValueError::Memory)?;
        let whole = bytes.is_multiple_of(limits::MEMORY_STEP);
        if whole && (limits::MEMORY_MIN..=limits::MEMORY_MAX).contains(&bytes) {
            Ok(MemorySize(bytes))
        } else {
            Err(ValueError::Memory)
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 >> 20)
    }
}

/// How far snapshots are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub echovisor_recorder::Every);

impl FromStr for Every {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Every, ValueError> {
        use echovisor_recorder::Every::{Positions, Time};
        let every = match text.parse() {
            Ok(positions) => Positions(positions),
            Err(_) => Time(humantime::parse_duration(text).map_err(|_| ValueError::Every)?),
        };
        match every {
            Positions(0) => Err(ValueError::Every),
            Time(time) if time.as_millis() == 0 => Err(ValueError::Every),
            _ => Ok(Every(every)),
        }
    }
}

/// The hardware address of a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Mac, ValueError> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let two_digits = |part: &&str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            let digits = parts.next().filter(two_digits).ok_or(ValueError::Mac)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ValueError::Mac)?;
        }
        if parts.next().is_some() {
            return Err(ValueError::Mac);
        }
        if mac[0] & 1 != 0 || mac == [0; 6] { Err(ValueError::MacGroup) } else { Ok(Mac(mac)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the guest's network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// Nothing: the guest has no network device.
    None,
    /// A TAP device of the host.
    Tap(String),
    /// A stream socket with each frame behind its length ([`crate::switch`]).
    Unix(PathBuf),
}

impl FromStr for Net {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Net, ValueError> {
        match text.split_once(':') {
            None if text == "none" => Ok(Net::None),
            Some(("tap", name)) => {
                let usable = |c: char| !c.is_whitespace() && c != '/';
                if (1..=15).contains(&name.len()) && name.chars().all(usable) {
                    Ok(Net::Tap(name.to_owned()))
                } else {
                    Err(ValueError::TapName)
                }
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Net::Unix(path.into())),
            _ => Err(ValueError::Net),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::None => f.write_str("none"),
            Net::Tap(name) => write!(f, "tap:{name}"),
            Net::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who decides which node may be primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arbiter {
    /// A file that all nodes of the virtual machine can lock.
    File(PathBuf),
}

impl FromStr for Arbiter {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Arbiter, ValueError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Arbiter::File(path.into())),
            _ => Err(ValueError::Arbiter),
        }
    }
}

impl fmt::Display for Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arbiter::File(path) = self;
        write!(f, "file:{}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses, and shows that what is shown parses to the same again.
    fn parse<T>(text: &str) -> Result<T, ValueError>
    where
        T: FromStr<Err = ValueError> + fmt::Display + fmt::Debug + PartialEq,
    {
        let value: T = text.parse()?;
        assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(&value));
        Ok(value)
    }

    #[test]
    fn memory_has_units_and_bounds() {
        assert_eq!(parse("64M"), Ok(MemorySize(64 << 20)));
        assert_eq!(parse("1G"), Ok(MemorySize(1 << 30)));
        assert_eq!(parse("64G"), Ok(MemorySize(64 << 30)));
        assert_eq!(parse("10240K"), Ok(MemorySize(10 << 20)));
        assert_eq!(parse("67108864"), Ok(MemorySize(64 << 20)));
        for refused in ["4M", "65G", "9M", "8388609", "18446744073709551615G"] {
            assert_eq!(parse::<MemorySize>(refused), Err(ValueError::Memory), "{refused}");
        }
        for refused in ["", "M", "64MB", "-1", "6 4M", "64µ"] {
            assert_eq!(parse::<MemorySize>(refused), Err(ValueError::Size), "{refused}");
        }
    }

    #[test]
    fn a_device_has_an_address_of_its_own() {
        assert_eq!(parse("02:00:00:0A:bc:ff"), Ok(Mac([2, 0, 0, 10, 0xbc, 0xff])));
        for refused in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "02:00:00:00:00:0g",
            "02:00:00:00:00:+1",
        ] {
            assert_eq!(parse::<Mac>(refused), Err(ValueError::Mac), "{refused}");
        }
        for refused in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert_eq!(parse::<Mac>(refused), Err(ValueError::MacGroup), "{refused}");
        }
    }

    #[test]
    fn networks_and_arbiters_are_named_by_kind() {
        assert_eq!(parse("none"), Ok(Net::None));
        assert_eq!(parse("tap:ev0"), Ok(Net::Tap("ev0".to_owned())));
        assert_eq!(parse("unix:/run/a:b"), Ok(Net::Unix("/run/a:b".into())));
        assert_eq!(parse::<Net>("tap:a-name-of-16-chr"), Err(ValueError::TapName));
        assert_eq!(parse::<Net>("tap:../x"), Err(ValueError::TapName));
        for refused in ["", "tap", "unix:", "bridge:br0"] {
            assert_eq!(parse::<Net>(refused), Err(ValueError::Net), "{refused}");
        }
        assert_eq!(parse("file:a"), Ok(Arbiter::File("a".into())));
        for refused in ["", "file:", "etcd:http://localhost:2379"] {
            assert_eq!(parse::<Arbiter>(refused), Err(ValueError::Arbiter), "{refused}");
        }
    }
}
