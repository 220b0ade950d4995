//! The link between the nodes.

use std::{fmt, str::FromStr, time::Duration};

/// How fast the link is, and how long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub(super) rate: Rate,
    /// In each direction.
    pub(super) delay: Duration,
}

impl Link {
    /// In few letters.
    pub(super) fn short(&self) -> String {
        let delay = humantime::format_duration(self.delay);
        match (&self.rate, self.delay.is_zero()) {
            (Rate::Unlimited, true) => "unlimited".to_owned(),
            (Rate::Unlimited, false) => delay.to_string(),
            (Rate::Limited(rate), true) => rate.clone(),
            (Rate::Limited(rate), false) => format!("{rate} {delay}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rate {
            Rate::Unlimited => f.write_str("unlimited link")?,
            Rate::Limited(_) => write!(f, "link of {}", self.rate.words())?,
        }
        match self.delay.is_zero() {
            true => Ok(()),
            false => write!(f, ", {} each way", humantime::format_duration(self.delay)),
        }
    }
}

/// How much a link carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rate {
    /// As much as the host can copy.
    Unlimited,
    /// In the words of `tc`: a number, and a unit of four letters.
    Limited(String),
}

impl Rate {
    /// As it is written.
    pub(super) fn words(&self) -> String {
        let Rate::Limited(rate) = self else {
            return "unlimited".to_owned();
        };
        let (number, unit) = rate.split_at(rate.len() - "mbit".len());
        let unit = match unit {
            "gbit" => "Gbit/s",
            "mbit" => "Mbit/s",
            _ => "kbit/s",
        };
        format!("{number} {unit}")
    }
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
        let link = Link { rate: Rate::Limited("10mbit".to_owned()), delay: Duration::from_millis(5) };
        assert_eq!(link.to_string(), "link of 10 Mbit/s, 5ms each way");
        assert_eq!(Link { rate: Rate::Unlimited, delay: Duration::ZERO }.to_string(), "unlimited link");
        for refused in ["", "0mbit", "mbit", "10", "10 mbit", "-1gbit", "1gbit root", "unlimited"] {
            assert_eq!(refused.parse::<Rate>(), Err(NotARate), "{refused}");
        }
    }
}
