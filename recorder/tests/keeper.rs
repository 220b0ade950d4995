//! When snapshots are due.

use std::time::Duration;

use echovisor_event::Position;
use echovisor_recorder::{Every, Keeper};
use echovisor_snapshot::store::{Keep, PageStore};

#[test]
fn a_history_that_lacks_its_first_snapshot_gets_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = Position(7);
    let open = || {
        let store = PageStore::open(folder.path()).unwrap();
        Keeper::new(store, Every::Time(Duration::from_secs(3600)), Keep::default(), here)
    };
    let mut keeper = open();
    assert!(!keeper.asks(here), "it has one of here");
    drop(keeper.close());
    let mut keeper = open().without_first();
    assert!(keeper.asks(here));
    assert!(!keeper.asks(here), "one is asked for already");
    assert!(keeper.close().snapshots().list().is_empty());
}
