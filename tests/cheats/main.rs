//! Plugins that break the contract.
//!
//! The conformance trials detect each one. A run with such a plugin ends with an error
//! that names the plugin and its package.

mod plugins;

use std::sync::Mutex;

use onward::candle_core::DType;
use onward::candle_nn::Init;
use onward::conformance::{self, Outcome};
use onward::data::DataSet;
use onward::plugin::{self, preset::Preset};
use onward::settings::Pick;
use onward::{
    Architecture, BuildContext, Error, GoodnessFn, LocalLayer, NegativeSampler, Result, Run,
    RunBuilder, Step,
};

use plugins::*;

onward::settings! {
    /// A plugin that breaks the contract.
    struct Cheat {}
}

macro_rules! cheats {
    ($($kind:ty, $name:literal, $build:expr;)*) => {
        $(onward::register! {
            $kind, $name, "breaks the contract (for these tests, 2026)",
            |_settings: Cheat, context| { let build: fn(&BuildContext) -> Result<Box<$kind>> = $build; build(context) }
        })*
    };
}

cheats! {
    dyn LocalLayer, "writes_elsewhere", |context| Ok(Box::new(WritesElsewhere(Dense::new(context)?)));
    dyn LocalLayer, "ignores_the_seed", |context| Ok(Box::new(Dense::with(context, Init::Const(0.1))?));
    dyn LocalLayer, "remembers", |context| Ok(Box::new(Remembers(Dense::new(context)?, 0)));
    dyn LocalLayer, "forgets_its_rows", |context| Ok(Box::new(ForgetsItsRows(Dense::new(context)?)));
    dyn LocalLayer, "learns_nothing", |context| Ok(Box::new(LearnsNothing(Dense::new(context)?)));
    dyn LocalLayer, "panics_late", |context| Ok(Box::new(PanicsLate(Dense::new(context)?)));
    dyn LocalLayer, "half_the_rows", |context| Ok(Box::new(HalfTheRows(Dense::new(context)?)));
    dyn LocalLayer, "no_number", |context| Ok(Box::new(NoNumber(Dense::new(context)?)));
    dyn LocalLayer, "misses_candle", |context| Ok(Box::new(MissesCandle(Dense::new(context)?)));
    dyn LocalLayer, "wrong_below", |context| Ok(Box::new(WrongBelow(Dense::new(context)?)));
    dyn LocalLayer, "panics_at_once", |_| panic!("panic in build");
    dyn GoodnessFn, "looks_at_the_batch", |_| Ok(Box::new(LooksAtTheBatch));
    dyn GoodnessFn, "wrong_gradient", |_| Ok(Box::new(WrongGradient));
    dyn GoodnessFn, "wrong_grade", |_| Ok(Box::new(WrongGrade));
    dyn GoodnessFn, "keeps_its_map", |context| Ok(Box::new(KeepsItsMap::new(context)?));
    dyn GoodnessFn, "infinite", |_| Ok(Box::new(Infinite));
    dyn GoodnessFn, "one_too_many", |_| Ok(Box::new(OneTooMany));
    dyn NegativeSampler, "counts_itself", |_| Ok(Box::new(CountsItself));
    dyn NegativeSampler, "knows_labels", |_| Ok(Box::new(KnowsLabels(Mutex::default())));
    dyn NegativeSampler, "never_the_same", |_| Ok(Box::new(CountsItself));
    dyn NegativeSampler, "looks_around", |_| Ok(Box::new(LooksAround));
    dyn NegativeSampler, "wider_views", |_| Ok(Box::new(WiderViews));
}

onward::register! {
    dyn Architecture, "shows_labels", "breaks the contract (for these tests, 2026)",
    |_settings: Cheat, context| Ok(Box::new(ShowsLabels::new(context)?)),
    .presets(&[Preset {
        name: "digits",
        about: "views without labels",
        settings: r#"
            data = "digits"
            sampler = "hybrid_images"
        "#,
    }])
}

onward::register! {
    dyn LocalLayer, "honest_dropout", "keeps the contract (for these tests, 2026)",
    |_settings: Cheat, context| {
        let mut dense = Pick::new("dense");
        dense.settings.insert("dropout".into(), 0.3.into());
        plugin::build(&dense, context)
    }
}

#[test]
fn the_trials_pass_a_layer_that_drops_units() {
    conformance::of(|_, info| info.name == "honest_dropout").assert_passed();
}

#[test]
fn the_trials_detect_every_cheat() {
    let cheats = [
        (
            "layer",
            "writes_elsewhere",
            "local run",
            // Blocks learn side by side, so which of those above is met first varies.
            "blocks.0.layer.weight changes differently if blocks above block",
        ),
        ("layer", "ignores_the_seed", "seed", "the seed is ignored"),
        ("layer", "remembers", "resumes", "ends with different bits"),
        ("layer", "forgets_its_rows", "rows", "with the other rows"),
        (
            "layer",
            "learns_nothing",
            "locality",
            "changes none of its variables",
        ),
        (
            "layer",
            "panics_late",
            "locality",
            "panicked: index 7 is out of bounds",
        ),
        (
            "layer",
            "half_the_rows",
            "shapes",
            "returned an activity of shape",
        ),
        ("layer", "no_number", "shapes", "not finite"),
        (
            "layer",
            "misses_candle",
            "shapes",
            "layer misses_candle (package onward-core)",
        ),
        (
            "layer",
            "wrong_below",
            "input gradient",
            "the input gradient gives",
        ),
        (
            "goodness",
            "looks_at_the_batch",
            "rows",
            "with the other rows",
        ),
        (
            "goodness",
            "wrong_gradient",
            "gradient",
            "its gradient gives",
        ),
        ("goodness", "wrong_grade", "grade", "its gradient gives"),
        (
            "goodness",
            "keeps_its_map",
            "locality",
            "changes none of its variables",
        ),
        ("goodness", "infinite", "shapes", "not finite"),
        (
            "goodness",
            "one_too_many",
            "shapes",
            "returned a goodness of shape",
        ),
        ("sampler", "counts_itself", "seed", "Step::stream"),
        ("sampler", "never_the_same", "repeats", "different bits"),
        ("sampler", "knows_labels", "labels", "depends on the labels"),
        ("sampler", "looks_around", "rows", "with the other examples"),
        ("sampler", "wider_views", "shapes", "of shape"),
        (
            "architecture",
            "shows_labels",
            "labels",
            "depends on labels, but neither",
        ),
    ];
    for (kind, name, trial, expected) in cheats {
        let verdict = conformance::of_plugin(kind, name);
        let failed = verdict.failures().find(|failed| failed.trial == trial);
        let found = failed.unwrap_or_else(|| panic!("{kind} {name} passes `{trial}`:\n{verdict}"));
        assert!(
            found.to_string().contains(expected),
            "{expected} is missing from: {found}"
        );
        assert_eq!(found.package, "onward-core");
    }
    // A correct plugin passes the same trials.
    conformance::of_plugin("layer", "dense").assert_passed();
    assert!(conformance::of_plugin("layer", "no_such_layer")
        .trials
        .is_empty());
    let skipped = |trial: &conformance::Trial| matches!(trial.outcome, Outcome::Skipped(_));
    assert!(
        conformance::of_plugin("data", "mnist")
            .trials
            .iter()
            .any(skipped),
        "a trial downloads data"
    );
}

#[test]
fn a_run_error_names_the_plugin_and_its_package() {
    let faults = [
        ("layer", "panics_at_once", "panicked: panic in build"),
        ("layer", "panics_late", "panicked: index 7 is out of bounds"),
        (
            "layer",
            "half_the_rows",
            "returned an activity of shape [10, 20], expected (20, …)",
        ),
        ("layer", "no_number", "an activity that is not finite"),
        ("layer", "misses_candle", "shape mismatch"),
        (
            "goodness",
            "infinite",
            "a goodness that is not finite, for a finite activity",
        ),
        (
            "goodness",
            "one_too_many",
            "goodness: expected 40 rows, found shape [41]",
        ),
        (
            "sampler",
            "wider_views",
            "returned an input of shape [32], expected [1, 4, 4]",
        ),
    ];
    for (kind, name, expected) in faults {
        let run = Run::builder("progressive")
            .data_set(conformance::images().unwrap())
            .set("batch", 20);
        let run = run.set("hidden", vec![20, 20]).set("epochs", 1);
        let run = run.set("sampler", "label_overlay").set(kind, name);
        let error = run
            .build()
            .and_then(|mut run| run.fit(&mut ()))
            .unwrap_err();
        let message = error.to_string();
        let plugin = format!("{kind} {name} (package onward-core)");
        assert!(
            message.contains(&plugin) && message.contains(expected),
            "{plugin} or {expected} is missing from: {message}"
        );
        assert!(!error.is_usage(), "reported as a usage error: {message}");
    }
    let unknown = Run::builder("progressive")
        .set("layer", "no_such_layer")
        .build()
        .err()
        .unwrap();
    assert!(matches!(unknown, Error::UnknownPlugin { .. }), "{unknown}");
}

#[test]
fn labels_are_hidden_while_scoring() -> Result<()> {
    let run = Run::builder("shows_labels").data_set(conformance::images()?);
    let mut run = run.set("epochs", 1).set("batch", 20).build()?;
    run.fit(&mut ())?;
    let batch = run.data().test.batch(&[0, 1, 2], None)?;
    assert!(batch.labels()?.iter().any(|label| *label > 0));
    let (architecture, step) = (run.architecture(), Step::evaluation(1));
    let readout = &architecture.net().readouts[0];
    let scores = architecture.scores(&batch, run.sampler(), readout, &step)?;
    assert_eq!(scores.to_vec2::<f32>()?, [[1., 0., 0., 0.]; 3]);
    Ok(())
}

#[test]
fn classifiers_do_not_see_the_label_in_their_input() -> Result<()> {
    let run = |architecture: &str, sampler: &str, goodness: &str| -> Result<RunBuilder> {
        let run = Run::builder(architecture).data_set(conformance::images()?);
        Ok(run.set("goodness", goodness).set("sampler", sampler))
    };
    for (architecture, sampler, goodness) in [
        ("progressive", "label_overlay", "projection"),
        ("progressive", "label_concat", "cafo"),
        ("progressive", "label_planes", "prototypes"),
        ("recurrent", "label_concat", "class_groups"),
    ] {
        let refused = run(architecture, sampler, goodness)?.build();
        let error = refused.map(|_| ()).unwrap_err();
        let message = error.to_string();
        let is_said = message.contains("--set sampler=plain");
        assert!(
            error.is_unfit() && is_said,
            "{sampler} {goodness}: {message}"
        );
    }
    let head_alone = run("progressive", "label_overlay", "projection")?;
    head_alone.set("head", true).set("frozen", true).build()?;
    Ok(())
}

#[test]
fn training_does_not_use_the_test_part() -> Result<()> {
    let trained = |data| -> Result<_> {
        let run = Run::builder("progressive").data_set(data);
        let run = run.set("hidden", vec![12]).set("standardise", true);
        let mut run = run.set("epochs", 2).set("batch", 20).build()?;
        let summary = run.fit(&mut ())?;
        let mut variables = Vec::new();
        for (name, var) in run.vars().all() {
            let numbers = var.flatten_all()?.to_dtype(DType::F64)?;
            variables.push((name, numbers.to_vec1::<f64>()?));
        }
        Ok((variables, summary.validation, summary.test.readout))
    };
    let other = conformance::images()?;
    let other = DataSet {
        test: other.validation.clone(),
        ..other
    };
    let (found, expected) = (trained(other)?, trained(conformance::images()?)?);
    assert!(found.0.len() >= 5 && found.1.is_some(), "{:?}", found.1);
    assert_eq!(found, expected);
    Ok(())
}
