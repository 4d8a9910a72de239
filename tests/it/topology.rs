//! Shipped topologies hold what they promise; broken ones are refused with their place and a way out.

use flywheel::stream::topology::{SHIPPED, Topology};

#[test]
fn the_canonical_text_of_a_shipped_topology_is_the_same_topology() {
    for (name, text) in SHIPPED {
        let topology = Topology::parse(name, text).unwrap_or_else(|problems| panic!("{problems}"));
        let again = Topology::parse(name, &topology.canonical).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((again.digest, &again.parts), (topology.digest, &topology.parts), "{}", topology.canonical);
    }
}

#[test]
fn every_test_of_every_shipped_topology_passes() {
    for (name, _) in SHIPPED {
        for report in flywheel::stream::topology::test(name, &flywheel::stream::topology::Direct).unwrap() {
            assert!(report.passed(), "{report}");
        }
    }
}
