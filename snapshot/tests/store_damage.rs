//! What becomes of a store is named, and the rest stays usable.

mod scratch;
mod state;

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use echovisor_event::Position;
use echovisor_snapshot::store::{Damage, DamageKind, PageStore, Part, Snapshots, StoreError};
use scratch::Guest;
use tempfile::TempDir;

/// Where the writer of [`a_kill_leaves_every_snapshot_whole`] writes, in its environment.
const VICTIM: &str = "ECHOVISOR_STORE_OF_VICTIM";

fn pack(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("packs/{number:08}.pack"))
}

fn manifest(dir: &Path, position: u64) -> PathBuf {
    dir.join(format!("manifests/{position:020}.snapshot"))
}

/// A store with two snapshots that have most in common, and a copy of its files.
struct Bench {
    folder: TempDir,
    guest: Guest,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut guest = Guest::new();
        guest.fill(&[0, 1, 100, 1000], 1);
        let mut store = PageStore::open(folder.path()).unwrap();
        guest.snapshot(&mut store, 1);
        guest.fill(&[1, 2000], 2);
        guest.snapshot(&mut store, 2);
        Bench { folder, guest }
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Every snapshot is either as it was, or its damage is named by a file and says that it concerns this snapshot. Returns how
    /// many are damaged.
    fn look(&self, what: &str) -> usize {
        let snapshots = Snapshots::open(self.dir()).unwrap();
        let told = snapshots.verify().unwrap();
        let listed: BTreeSet<u64> = snapshots.list().iter().map(|manifest| manifest.position.0).collect();
        let mut damaged = 0;
        for position in [1, 2] {
            let concerns = |damage: &Damage| damage.snapshots.contains(&Position(position));
            if !listed.contains(&position) {
                assert!(snapshots.damaged().iter().any(concerns), "{what}: {position} is gone");
            } else {
                match snapshots.load(Position(position), &state::memory()) {
                    Ok(_) => {
                        self.guest.check(&snapshots, position);
                        assert!(!told.iter().any(concerns), "{what}: {told:?}, but it can be loaded");
                        continue;
                    }
                    Err(StoreError::Damage(damage)) => assert!(concerns(&damage), "{what}: {damage}"),
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            damaged += 1;
            let named = told.iter().filter(|damage| concerns(damage));
            assert!(named.clone().count() > 0, "{what}: {position} is damaged, told is {told:?}");
            assert!(named.clone().all(|damage| damage.file.starts_with(self.dir())), "{what}");
        }
        damaged
    }
}

/// Flips every so many a byte of every file, one after the other.
#[test]
fn every_flipped_byte_is_named_or_harmless() {
    let bench = Bench::new();
    let files = [pack(bench.dir(), 0), manifest(bench.dir(), 1), manifest(bench.dir(), 2)];
    let (mut flips, mut harmful) = (0, 0);
    for (file, step) in files.iter().zip([7, 3, 3]) {
        let whole = fs::read(file).unwrap();
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(file, &bytes).unwrap();
            let what = format!("byte {at} of {}", file.display());
            flips += 1;
            harmful += bench.look(&what).min(1);
            // Nobody needs a pack's header, but that it has changed is told.
            if bytes[..16] != whole[..16] {
                assert!(!Snapshots::open(bench.dir()).unwrap().verify().unwrap().is_empty(), "{what}");
            }
        }
        fs::write(file, &whole).unwrap();
    }
    assert!(harmful * 10 > flips * 9, "{harmful} of {flips} do harm");
    assert_eq!(bench.look("nothing"), 0);
}

#[test]
fn what_is_cut_off_or_gone_is_named() {
    let bench = Bench::new();
    for file in [pack(bench.dir(), 0), manifest(bench.dir(), 2)] {
        let whole = fs::read(&file).unwrap();
        for len in (0..whole.len()).step_by(whole.len() / 20 + 1) {
            fs::write(&file, &whole[..len]).unwrap();
            assert!(bench.look(&format!("{len} bytes of {}", file.display())) > 0);
        }
        fs::remove_file(&file).unwrap();
        if file.starts_with(bench.dir().join("packs")) {
            assert_eq!(bench.look("no pack"), 2);
        } else {
            let snapshots = Snapshots::open(bench.dir()).unwrap();
            assert_eq!(snapshots.list().len(), 1, "whoever removes a manifest removes the snapshot");
            bench.guest.check(&snapshots, 1);
        }
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(bench.look("nothing"), 0);
}

/// The first snapshot lacks a page; the second one, which has another in its place, does not care.
#[test]
fn damage_tells_which_snapshots_and_pages_it_concerns() {
    let bench = Bench::new();
    let (file, offset) = damage_page(&bench, 1, 1);
    assert_eq!(bench.look("page 1"), 1);
    let snapshots = Snapshots::open(bench.dir()).unwrap();
    let [damage] = &snapshots.verify().unwrap()[..] else { panic!("one") };
    assert_eq!((&damage.file, damage.offset), (&file, offset));
    assert!(matches!((damage.part, &damage.kind), (Part::Page(_), DamageKind::Changed("content"))));
    assert_eq!((&damage.snapshots, &damage.pages), (&vec![Position(1)], &vec![Range { start: 1, end: 2 }]));
    let Err(StoreError::Damage(damage)) = snapshots.load(Position(1), &state::memory()) else { panic!() };
    assert!(
        damage.to_string().contains("content is not what was written; snapshots at positions 1; pages 1"),
        "{damage}"
    );
    bench.guest.check(&snapshots, 2);
}

/// What is damaged is written anew by the next snapshot that has it, and the earlier ones are whole again.
#[test]
fn damage_mends_itself_where_the_content_is_still_there() {
    let mut bench = Bench::new();
    damage_page(&bench, 2, 100);
    assert_eq!(bench.look("page 100"), 2);
    let mut store = PageStore::open(bench.folder.path()).unwrap();
    assert_eq!(bench.guest.snapshot(&mut store, 3).new_pages, 0, "nobody has noticed");
    assert_eq!(store.verify().unwrap().len(), 1);
    let written = bench.guest.snapshot(&mut store, 3);
    assert_eq!((written.new_pages, written.new_nodes), (1, 2));
    drop(store);
    let snapshots = Snapshots::open(bench.dir()).unwrap();
    (1..=3).for_each(|position| bench.guest.check(&snapshots, position));
    let [damage] = &snapshots.verify().unwrap()[..] else { panic!("the old record is still there") };
    assert!(damage.snapshots.is_empty(), "{damage}");
}

/// Flips a bit in the body of a page's record, and tells where the record is.
fn damage_page(bench: &Bench, position: u64, page: usize) -> (PathBuf, u64) {
    let snapshots = Snapshots::open(bench.dir()).unwrap();
    let digest = snapshots.digests(Position(position)).unwrap().pages()[page];
    drop(snapshots);
    let file = pack(bench.dir(), 0);
    let mut bytes = fs::read(&file).unwrap();
    let address = bytes.windows(32).position(|window| window == digest.0).expect("its record");
    // Behind the address come eight bytes of the check, then the body, which ends with content.
    let len = u32::from_le_bytes(bytes[address - 4..address].try_into().unwrap()) as usize;
    bytes[address + 40 + len - 1] ^= 0x10;
    fs::write(&file, bytes).unwrap();
    (file, address as u64 - 8)
}

/// However much of what was not made durable is lost, and whatever stands in its place: the snapshots that are listed are whole,
/// and the store can be continued.
#[test]
fn a_torn_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut guest = Guest::new();
    guest.fill(&[1, 100], 1);
    let mut store = PageStore::open(&dir).unwrap();
    guest.snapshot(&mut store, 1);
    drop(store);
    let before = fs::metadata(pack(&dir, 0)).unwrap().len() as usize;
    // As the writer's next snapshot would leave it, without its manifest.
    let ahead = folder.path().join("ahead");
    copy(&dir, &ahead);
    let mut store = PageStore::open(&ahead).unwrap();
    guest.fill(&[100, 200, 1000], 2);
    guest.snapshot(&mut store, 2);
    drop(store);
    let whole = fs::read(pack(&ahead, 0)).unwrap();
    assert!(whole.len() > before);
    for (case, len) in (before..=whole.len()).step_by(37).enumerate() {
        let torn = folder.path().join("torn");
        copy(&dir, &torn);
        let mut bytes = whole[..len].to_vec();
        match case % 3 {
            0 => {}
            // A hole, as where one block of the file came to the disk and the one before did not.
            1 => bytes[before..].iter_mut().take((len - before) / 2).for_each(|byte| *byte = 0),
            _ => bytes.extend([0x5a; 100]),
        }
        fs::write(pack(&torn, 0), &bytes).unwrap();
        let mut store = PageStore::open(&torn).unwrap();
        guest.check(store.snapshots(), 1);
        guest.snapshot(&mut store, 2);
        drop(store);
        let snapshots = Snapshots::open(&torn).unwrap();
        (1..=2).for_each(|position| guest.check(&snapshots, position));
        drop(snapshots);
        fs::remove_dir_all(&torn).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Kills a process that writes and removes snapshots, at random moments.
#[test]
fn a_kill_leaves_every_snapshot_whole() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        write_for_ever(Path::new(&dir));
    }
    let rounds = std::env::var("ECHOVISOR_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(4);
    let mut newest = 0;
    for round in 0..rounds {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_kill_leaves_every_snapshot_whole"]).env(VICTIM, folder.path());
        let mut victim = command.spawn().unwrap();
        // Until it has come further than the last one, and then to any moment of its work.
        while newest_listed(folder.path()) <= newest {
            assert!(victim.try_wait().unwrap().is_none(), "it ended by itself in round {round}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.u64(..40_000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let snapshots = Snapshots::open(folder.path()).unwrap();
        assert!(snapshots.damaged().is_empty());
        for manifest in snapshots.list() {
            let memory = state::memory();
            snapshots
                .load(manifest.position, &memory)
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        assert!(snapshots.verify().unwrap().iter().all(|damage| damage.snapshots.is_empty()));
        newest = snapshots.list().last().expect("it has written some").position.0;
    }
}

fn newest_listed(dir: &Path) -> u64 {
    let names = fs::read_dir(dir.join("manifests")).into_iter().flatten().flatten();
    let position = |entry: fs::DirEntry| entry.path().file_stem()?.to_str()?.parse().ok();
    names.filter_map(position).max().unwrap_or(0)
}

fn write_for_ever(dir: &Path) -> ! {
    let mut store = PageStore::open(dir).unwrap();
    let mut guest = Guest::new();
    let mut random = fastrand::Rng::new();
    let first = store.snapshots().list().last().map_or(1, |manifest| manifest.position.0 + 1);
    for position in first.. {
        for _ in 0..random.usize(1..200) {
            guest.fill(&[random.usize(..2048)], random.u8(..));
        }
        guest.snapshot(&mut store, position);
        if random.u8(..4) == 0 {
            store.retain(&scratch::newest(3), 0).unwrap();
        }
    }
    unreachable!("there are positions enough")
}
