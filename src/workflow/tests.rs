//! The shipped workflows' own tests.

use super::{Definition, SHIPPED, test};

#[test]
fn shipped_workflows_do_what_their_tests_say() {
    for (name, text) in SHIPPED {
        let definition = Definition::parse(&format!("topologies/workflows/{name}.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(definition.name, name);
        for verdict in test(&definition) {
            assert!(verdict.failures.is_empty(), "{verdict}");
        }
    }
}
