//! Every property, for random bytes. `tests/fuzz` looks longer and chooses better.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use pushlet_properties::PROPERTIES;

fn holds(name: &str) {
    let (_, property) = PROPERTIES.iter().find(|(property, _)| *property == name).unwrap();
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            property(&bytes);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
}

macro_rules! properties {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                holds(stringify!($name));
            }
        )*

        #[test]
        fn all_are_here() {
            let names: Vec<&str> = PROPERTIES.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

properties!(credential manifest encoded replies encode decode receive request);

/// Damaged copies of sound files get further than random bytes.
#[test]
fn damaged_credentials() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");
    let seeds: Vec<Vec<u8>> =
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let input = (prop::sample::select(seeds), changes, any::<(u8, u8)>(), any::<prop::sample::Index>());
    TestRunner::new(config)
        .run(&input, |(mut file, changes, (field, password), end)| {
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            if field & 0x80 != 0 {
                file.truncate(end.index(file.len()));
            }
            pushlet_properties::credential(&[&[field, password][..], &file].concat());
            Ok(())
        })
        .unwrap();
}
