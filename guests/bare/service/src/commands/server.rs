//! Commands on the server and the connection.

use super::{COMMANDS, Call, Failure, is};
use crate::Service;
use crate::limits::VALUE_MAX;
use core::fmt::{self, Write};

pub(super) fn ping(mut call: Call<'_>) -> Result<(), Failure> {
    match call.arguments.len() {
        1 => call.reply.status("PONG"),
        2 => call.reply.bulk(&call.arguments[1]),
        _ => return Err(Failure::Arity("PING")),
    }
    Ok(())
}

pub(super) fn echo(mut call: Call<'_>) -> Result<(), Failure> {
    call.reply.bulk(&call.arguments[1]);
    Ok(())
}

pub(super) fn select(mut call: Call<'_>) -> Result<(), Failure> {
    match crate::number::parse(&call.arguments[1]) {
        Some(0) => call.reply.status("OK"),
        Some(_) => return Err(Failure::Database),
        None => return Err(Failure::NotAnInteger),
    }
    Ok(())
}

pub(super) fn quit(mut call: Call<'_>) -> Result<(), Failure> {
    call.client.leaving = true;
    call.reply.status("OK");
    Ok(())
}

/// What libraries ask when they connect.
pub(super) fn client(mut call: Call<'_>) -> Result<(), Failure> {
    match (&call.arguments[1], call.arguments.len()) {
        (id, 2) if is(id, "ID") => call.reply.integer(call.client.id as i64),
        (getname, 2) if is(getname, "GETNAME") => {
            let name = &call.client.name;
            call.reply.value((!name.is_empty()).then_some(name));
        }
        (setname, 3) if is(setname, "SETNAME") => {
            let name = &call.arguments[2];
            // Redis wants names that can be shown in a list; ours must be short as well.
            if !name.iter().all(u8::is_ascii_graphic) {
                return Err(Failure::Syntax);
            }
            call.client.name = heapless::Vec::from_slice(name).map_err(|_| Failure::TooLong)?;
            call.reply.status("OK");
        }
        // Name and version of the client's library.
        (setinfo, 4) if is(setinfo, "SETINFO") => call.reply.status("OK"),
        _ => return Err(Failure::Subcommand("client")),
    }
    Ok(())
}

/// What redis-cli asks for its help; an empty answer makes it use its own.
pub(super) fn command(mut call: Call<'_>) -> Result<(), Failure> {
    match call.arguments.get(1) {
        None => call.reply.array(0),
        Some(docs) if is(docs, "DOCS") || is(docs, "INFO") => call.reply.array(0),
        Some(count) if is(count, "COUNT") => call.reply.count(COMMANDS.len()),
        Some(list) if is(list, "LIST") => {
            call.reply.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| call.reply.bulk(command.name.as_bytes()));
        }
        Some(_) => return Err(Failure::Subcommand("command")),
    }
    Ok(())
}

/// The configuration, which can be read but not changed.
pub(super) fn config(mut call: Call<'_>) -> Result<(), Failure> {
    if !is(&call.arguments[1], "GET") || call.arguments.len() < 3 {
        return Err(Failure::Subcommand("config"));
    }
    let mut maxmemory = itoa::Buffer::new();
    let mut value_max = itoa::Buffer::new();
    let parameters = [
        ("appendonly", "no"),
        ("databases", "1"),
        ("maxmemory", maxmemory.format(call.service.store.limit())),
        ("maxmemory-policy", "noeviction"),
        ("proto-max-bulk-len", value_max.format(VALUE_MAX)),
        ("save", ""),
    ];
    let patterns = call.arguments.from(2);
    let asked = |name: &str| patterns.clone().any(|pattern| pattern == b"*" || is(pattern, name));
    call.reply.array(2 * parameters.iter().filter(|(name, _)| asked(name)).count());
    for (name, value) in parameters.iter().filter(|(name, _)| asked(name)) {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    Ok(())
}

pub(super) fn info(mut call: Call<'_>) -> Result<(), Failure> {
    let mut text = heapless::String::<1024>::new();
    let sections = call.arguments.from(1);
    let asked = |name: &str| {
        let all = |section| is(section, "all") || is(section, "default") || is(section, "everything");
        sections.clone().next().is_none() || sections.clone().any(|section| all(section) || is(section, name))
    };
    write_info(&mut text, call.service, asked).expect("the text has room for all sections");
    call.reply.bulk(text.as_bytes());
    Ok(())
}

/// Writes the sections that were asked for.
fn write_info(text: &mut impl Write, service: &Service, asked: impl Fn(&str) -> bool) -> fmt::Result {
    let Service { store, stats, .. } = service;
    if asked("server") {
        // Clients take from the version what they may ask for.
        write!(text, "# Server\r\nredis_version:5.0.0\r\nredis_mode:standalone\r\n")?;
        write!(text, "uptime_in_seconds:{}\r\n\r\n", service.uptime())?;
    }
    if asked("clients") {
        write!(text, "# Clients\r\nconnected_clients:{}\r\n\r\n", stats.open)?;
    }
    if asked("memory") {
        write!(text, "# Memory\r\nused_memory:{}\r\nmaxmemory:{}\r\n", store.used(), store.limit())?;
        write!(text, "maxmemory_policy:noeviction\r\n\r\n")?;
    }
    if asked("stats") {
        write!(text, "# Stats\r\ntotal_connections_received:{}\r\n", stats.connections)?;
        write!(text, "total_commands_processed:{}\r\n", stats.commands)?;
        write!(text, "keyspace_hits:{}\r\nkeyspace_misses:{}\r\n\r\n", stats.hits, stats.misses)?;
    }
    if asked("replication") {
        write!(text, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n")?;
    }
    if asked("keyspace") {
        write!(text, "# Keyspace\r\n")?;
        if !store.is_empty() {
            write!(text, "db0:keys={},expires=0,avg_ttl=0\r\n", store.len())?;
        }
    }
    Ok(())
}
