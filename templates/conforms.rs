//! Holds this crate to the trials that onward holds its own plugins to.

use my_plugin as _;

#[test]
fn everything_here_conforms() {
    onward::conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
}
