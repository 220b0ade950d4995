//! Commands on values.

use super::{Call, Failure, is};
use crate::limits::VALUE_MAX;
use crate::number;

pub(super) fn get(mut call: Call<'_>) -> Result<(), Failure> {
    lookup(&mut call, 1);
    Ok(())
}

pub(super) fn mget(mut call: Call<'_>) -> Result<(), Failure> {
    let count = call.arguments.len();
    call.reply.array(count - 1);
    for index in 1..count {
        lookup(&mut call, index);
    }
    Ok(())
}

/// Replies with the value of the key that an argument names.
fn lookup(call: &mut Call<'_>, argument: usize) {
    let value = call.service.store.get(&call.arguments[argument]);
    let stats = &mut call.service.stats;
    *if value.is_some() { &mut stats.hits } else { &mut stats.misses } += 1;
    call.reply.value(value);
}

pub(super) fn set(mut call: Call<'_>) -> Result<(), Failure> {
    let (key, value) = (&call.arguments[1], &call.arguments[2]);
    // NX and XX say which keys are set: those that do not exist, or those that do.
    let mut only_if = None;
    let mut wants_old = false;
    for option in call.arguments.from(3) {
        match option {
            nx if is(nx, "NX") && only_if != Some(true) => only_if = Some(false),
            xx if is(xx, "XX") && only_if != Some(false) => only_if = Some(true),
            get if is(get, "GET") => wants_old = true,
            _ => return Err(Failure::Syntax),
        }
    }
    let store = &mut call.service.store;
    let allowed = only_if.is_none_or(|exists| store.contains(key) == exists);
    match (wants_old, allowed) {
        (true, true) => call.reply.value(store.replace(key, value)?.as_deref()),
        (true, false) => call.reply.value(store.get(key)),
        (false, true) => {
            store.set(key, value)?;
            call.reply.status("OK");
        }
        (false, false) => call.reply.value(None),
    }
    Ok(())
}

pub(super) fn setnx(mut call: Call<'_>) -> Result<(), Failure> {
    let (key, value) = (&call.arguments[1], &call.arguments[2]);
    let is_new = !call.service.store.contains(key);
    if is_new {
        call.service.store.set(key, value)?;
    }
    call.reply.count(usize::from(is_new));
    Ok(())
}

pub(super) fn getset(mut call: Call<'_>) -> Result<(), Failure> {
    let old = call.service.store.replace(&call.arguments[1], &call.arguments[2])?;
    call.reply.value(old.as_deref());
    Ok(())
}

/// Sets all keys or, if memory runs out on the way, the first few.
pub(super) fn mset(mut call: Call<'_>) -> Result<(), Failure> {
    if call.arguments.len().is_multiple_of(2) {
        return Err(Failure::Arity("MSET"));
    }
    for index in (1..call.arguments.len()).step_by(2) {
        call.service.store.set(&call.arguments[index], &call.arguments[index + 1])?;
    }
    call.reply.status("OK");
    Ok(())
}

pub(super) fn incr(call: Call<'_>) -> Result<(), Failure> {
    add(call, 1)
}

pub(super) fn decr(call: Call<'_>) -> Result<(), Failure> {
    add(call, -1)
}

pub(super) fn incrby(call: Call<'_>) -> Result<(), Failure> {
    let amount = number::parse(&call.arguments[2]).ok_or(Failure::NotAnInteger)?;
    add(call, amount)
}

pub(super) fn decrby(call: Call<'_>) -> Result<(), Failure> {
    let amount = number::parse(&call.arguments[2]).ok_or(Failure::NotAnInteger)?;
    add(call, amount.checked_neg().ok_or(Failure::Overflow)?)
}

fn add(mut call: Call<'_>, amount: i64) -> Result<(), Failure> {
    let sum = call.service.store.add(&call.arguments[1], amount)?;
    call.reply.integer(sum);
    Ok(())
}

pub(super) fn append(mut call: Call<'_>) -> Result<(), Failure> {
    let (key, more) = (&call.arguments[1], &call.arguments[2]);
    let store = &mut call.service.store;
    if store.get(key).map_or(0, <[u8]>::len) + more.len() > VALUE_MAX {
        return Err(Failure::TooLong);
    }
    let length = store.append(key, more)?;
    call.reply.count(length);
    Ok(())
}

pub(super) fn strlen(mut call: Call<'_>) -> Result<(), Failure> {
    let value = call.service.store.get(&call.arguments[1]);
    call.reply.count(value.map_or(0, <[u8]>::len));
    Ok(())
}
