//! Runs onward's conformance trials on the plugins of this crate.

use my_plugin as _;

#[test]
fn all_plugins_conform() {
    onward::conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
}
