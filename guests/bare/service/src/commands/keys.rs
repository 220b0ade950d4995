//! Commands on keys, whatever their values.

use super::{Call, Failure};

pub(super) fn del(mut call: Call<'_>) -> Result<(), Failure> {
    let keys = call.arguments.from(1);
    let removed = keys.filter(|key| call.service.store.remove(key)).count();
    call.reply.count(removed);
    Ok(())
}

pub(super) fn exists(mut call: Call<'_>) -> Result<(), Failure> {
    let keys = call.arguments.from(1);
    let found = keys.filter(|key| call.service.store.contains(key)).count();
    call.reply.count(found);
    Ok(())
}

pub(super) fn dbsize(mut call: Call<'_>) -> Result<(), Failure> {
    call.reply.count(call.service.store.len());
    Ok(())
}

pub(super) fn flush(mut call: Call<'_>) -> Result<(), Failure> {
    // The options say in which thread to do it, and there is only one.
    if call.arguments.from(1).any(|option| !super::is(option, "SYNC") && !super::is(option, "ASYNC")) {
        return Err(Failure::Syntax);
    }
    call.service.store.clear();
    call.reply.status("OK");
    Ok(())
}
