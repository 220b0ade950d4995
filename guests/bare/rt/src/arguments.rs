//! The guest's arguments: `name=value` pairs separated by blanks.

use crate::control;
use core::str::FromStr;

/// The value of an argument; the last one wins if it was given twice.
pub fn get(name: &str) -> Option<&'static str> {
    control::arguments()
        .split_ascii_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(key, value)| (key == name).then_some(value))
        .next_back()
}

/// An argument as a value of type `T`, or `None` if it was not given. Panics if it does not parse.
pub fn parse<T: FromStr>(name: &str) -> Option<T> {
    let value = get(name)?;
    match value.parse() {
        Ok(parsed) => Some(parsed),
        Err(_) => panic!("argument {name}={value} is not valid"),
    }
}
