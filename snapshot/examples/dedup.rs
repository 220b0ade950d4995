//! What the snapshots of a store share: `cargo run --release --example dedup -- RECORDING/snapshots`.

use std::{collections::HashSet, fs, path::Path, process::ExitCode};

use echovisor_event::limits::PAGE_SIZE;
use echovisor_snapshot::store::{Snapshots, StoreError};

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: dedup DIR");
        return ExitCode::from(2);
    };
    match report(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(dir: &Path) -> Result<(), StoreError> {
    let snapshots = Snapshots::open(dir)?;
    let zero = blake3::hash(&[0; PAGE_SIZE]);
    let (mut seen, mut fresh, mut filled, mut memory) = (HashSet::new(), Vec::new(), 0, 0);
    for manifest in snapshots.list() {
        let digests = snapshots.digests(manifest.position)?;
        let pages = digests.pages().iter().filter(|digest| digest.0 != *zero.as_bytes());
        filled += pages.clone().count();
        fresh.push(pages.filter(|digest| seen.insert(**digest)).count());
        memory += manifest.memory;
    }
    let files = fs::read_dir(dir.join("packs")).into_iter().flatten().flatten();
    let stored: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let count = fresh.len().max(1);
    let first = fresh.first().copied().unwrap_or(0);
    let mut later = fresh.split_off(fresh.len().min(1));
    later.sort_unstable();
    let ratio = |whole: u64| whole as f64 / stored.max(1) as f64;
    println!("snapshots                   {count}");
    println!(
        "their memory                {memory} bytes, of which {} are in pages that are not zero",
        filled * PAGE_SIZE
    );
    println!("different pages             {}", seen.len());
    println!(
        "new pages                   {first} in the first, in each later one {} (median)",
        later.get(later.len() / 2).unwrap_or(&0)
    );
    println!("stored                      {stored} bytes, {} for each snapshot", stored / count as u64);
    println!("of the memory               1/{:.0}", ratio(memory));
    println!("of the pages in use         1/{:.1}", ratio((filled * PAGE_SIZE) as u64));
    Ok(())
}
