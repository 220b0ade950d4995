//! The link between the nodes.

use std::{fmt, str::FromStr, time::Duration};

/// How fast the link is, and how long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub(super) rate: Rate,
    /// In each direction.
    pub(super) delay: Duration,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = humantime::format_duration(self.delay);
        match &self.rate {
            Rate::Unlimited if self.delay.is_zero() => f.write_str("link as fast as the host"),
            Rate::Unlimited => write!(f, "link with a delay of {delay} each way"),
            Rate::Limited(rate) if self.delay.is_zero() => write!(f, "link of {rate}"),
            Rate::Limited(rate) => write!(f, "link of {rate} with a delay of {delay} each way"),
        }
    }
}

/// How much a link carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rate {
    /// As much as the host can copy.
    Unlimited,
    /// In the words of `tc`.
    Limited(String),
}

/// Not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number with kbit, mbit or gbit behind it, such as 100mbit, or `none`")]
pub(super) struct NotARate;

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Rate, NotARate> {
        if text == "none" {
            return Ok(Rate::Unlimited);
        }
        let units = ["kbit", "mbit", "gbit"];
        let number = units.iter().find_map(|unit| text.strip_suffix(unit)).ok_or(NotARate)?;
        match number.parse::<u32>() {
            Ok(1..) => Ok(Rate::Limited(text.to_owned())),
            _ => Err(NotARate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Unlimited => f.write_str("none"),
            Rate::Limited(rate) => f.write_str(rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_as_tc_writes_them() {
        for rate in ["none", "10mbit", "100mbit", "1gbit", "64kbit"] {
            assert_eq!(rate.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(rate));
        }
        for refused in ["", "0mbit", "mbit", "10", "10 mbit", "-1gbit", "1gbit root", "unlimited"] {
            assert_eq!(refused.parse::<Rate>(), Err(NotARate), "{refused}");
        }
    }
}
