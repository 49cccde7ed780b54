//! Two packages with a plugin of the same name: no plugin of that kind can be used, and
//! the error message explains why.
//!
//! This test program is one of the two packages and links the other.

use onward::candle_core::Tensor;
use onward::plugin::{self, registry};
use onward::{
    conformance, BuildContext, Error, GoodnessFn, LocalLayer, NegativeSampler, Result, Run,
};

onward::settings! {
    /// Half of the sum of squares, under the name of a built-in goodness.
    struct HalfOfSquares {}
}

impl GoodnessFn for HalfOfSquares {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((activity.flatten_from(1)?.sqr()?.sum(1)? * 0.5)?)
    }
}

onward::register! {
    dyn GoodnessFn, "sum_squares", "a duplicate name (for this test, 2026)",
    |settings: HalfOfSquares, _context| Ok(Box::new(settings))
}

#[test]
fn a_name_in_two_packages_is_refused_and_both_are_named() {
    let error = Run::builder("progressive")
        .data_set(conformance::images().unwrap())
        .build()
        .err()
        .unwrap();
    let message = error.to_string();
    for part in [
        "goodness `sum_squares`",
        "package onward,",
        "package onward-core",
        "rename one of them",
    ] {
        assert!(message.contains(part), "{part} is missing from: {message}");
    }
    // Every lookup of this kind fails, also that of another name.
    assert!(matches!(
        registry::named::<dyn GoodnessFn>("mean_squares"),
        Err(Error::DuplicatePlugin { .. })
    ));
    assert!(matches!(
        registry::infos("goodness"),
        Err(Error::DuplicatePlugin { .. })
    ));
    // Other kinds are not affected.
    assert!(
        registry::all::<dyn LocalLayer>().is_ok() && registry::all::<dyn NegativeSampler>().is_ok()
    );
}

#[test]
fn a_plugin_that_is_added_cannot_take_the_name_of_a_linked_one() {
    let description = plugin::Description {
        name: "dense".into(),
        about: "a duplicate name (for this test, 2026)".into(),
        package: "notebook".into(),
        settings: Vec::new(),
    };
    let build = |_: &onward::export::Table, _: &BuildContext| unreachable!("it is not added");
    let error = plugin::add::<dyn LocalLayer>(description, |_| Ok(()), build).unwrap_err();
    let expected = "layer `dense`: one in package onward, one in package notebook";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn the_trials_and_the_program_report_the_duplicate() {
    let verdict = conformance::of_package("onward");
    let failed = verdict
        .failures()
        .find(|failed| failed.to_string().contains("package onward"));
    assert!(failed.is_some(), "{verdict}");
    let status = |arguments: &[&str]| {
        let arguments = ["onward"].iter().chain(arguments).map(Into::into);
        format!("{:?}", onward::cli::main_with(arguments))
    };
    let failure = format!("{:?}", std::process::ExitCode::FAILURE);
    assert_eq!(status(&["list"]), failure);
    assert_eq!(status(&["train", "progressive", "--quiet"]), failure);
    assert_ne!(status(&["list", "layers"]), failure);
}
