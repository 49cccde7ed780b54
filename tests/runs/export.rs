//! Networks as graphs of operations. `Run::graph` compares the scores of a graph with those
//! of the run; the tests of the Python package compare both with ONNX Runtime and PyTorch.

use onward::flow::graph::Operation;
use onward::run::{onnx, Run};
use onward::{conformance, Result};

fn trained(preset: &str, settings: &str) -> Result<Run> {
    trained_by("progressive", preset, settings)
}

fn trained_by(architecture: &str, preset: &str, settings: &str) -> Result<Run> {
    let source = onward::plugin::source::Source {
        origin: "the test".into(),
        table: settings.parse().expect("settings in TOML"),
    };
    let builder = Run::builder(architecture).preset(preset).source(source);
    let builder = builder.set("epochs", 1).set("batch", 4).set("seed", 3);
    let mut run = builder.data_set(conformance::images()?).build()?;
    run.fit(&mut ())?;
    Ok(run)
}

#[test]
fn every_readout_of_a_stack_is_a_graph() -> Result<()> {
    for (preset, settings, readouts) in [
        ("hinton", "hidden = [12, 8]", &["search", "head"][..]),
        ("hinton", "hidden = [12]\nsampler = \"label_concat\"", &["search"]),
        ("hinton", "hidden = [6]\nsampler = \"label_planes\"\nlayer = \"conv\"", &["search"]),
        ("hinton", "hidden = [6]\nhead_rule = \"ridge\"", &["head"]),
        ("nebuly", "hidden = [12, 8]", &["search"]),
        ("mono_forward", "hidden = [12]", &["goodness"]),
        ("predsim", "hidden = [12, 8]\nshift = 0", &["goodness"]),
        ("hinton", "hidden = [6]\nlayer = { name = \"dense\", norm = \"units\" }", &["head"]),
        ("hinton", "hidden = [6]\nlayer = { name = \"conv\", norm = \"units\" }", &["head"]),
        (
            "hinton",
            "hidden = [6, 5]\nlayer = { name = \"dense\", input_norm = \"batch\", slope = 1.0, \
             passes = \"triangle\" }",
            &["head"],
        ),
        (
            "hinton",
            "hidden = [6, 5]\nlayer = { name = \"conv\", input_norm = \"batch\", pool = 1, \
             passes = \"triangle\", passed_pool = \"mean\" }",
            &["head"],
        ),
        ("class_groups", "hidden = [8, 12]\nlayer = { pool = 1 }", &["goodness"]),
        (
            "predsim_convolutional",
            "hidden = [6, 8]\nshift = 0\nflip = false\nlayer = { pool = 1 }\ngoodness = { inputs = 8 }",
            &["goodness"],
        ),
    ] {
        let run = trained(preset, settings)?;
        for readout in readouts {
            let graph = run.graph(readout)?;
            let variables = graph.constants().iter();
            let weights = variables.filter(|(name, _)| name.ends_with("weight")).count();
            assert!(weights > 0, "{preset} {readout}");
            let file = onnx::model(&graph)?;
            let holds = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(holds("examples") && holds("scores"));
            assert!(holds("MatMul") || holds("Conv"));
        }
    }
    Ok(())
}

#[test]
fn every_architecture_on_images_is_a_graph_but_the_recurrent_one() -> Result<()> {
    for (architecture, preset, settings, readouts) in [
        (
            "layer_collaboration",
            "hinton",
            "hidden = [12, 8]",
            &["search", "head"][..],
        ),
        ("trifecta", "dense", "hidden = [12, 8]", &["search", "head"]),
        (
            "progressive",
            "hinton",
            "hidden = [12, 8]\nsampler = \"plain\"\ngoodness = \"cafo\"",
            &["goodness"],
        ),
        (
            "progressive",
            "forward_projection",
            "hidden = [12, 8]",
            &["head"],
        ),
        ("sigprop", "dense", "hidden = [12, 8]", &["goodness"]),
        (
            "sigprop",
            "dense",
            "hidden = [6, 8]\nlayer = \"conv\"\nreadout_from = 2",
            &["goodness"],
        ),
        ("backprop", "adam", "hidden = [12, 8]", &["softmax"]),
        (
            "backprop",
            "deep_supervision",
            "hidden = [12, 8]",
            &["softmax"],
        ),
    ] {
        let run = trained_by(architecture, preset, settings)?;
        for readout in readouts {
            run.graph(readout)?;
        }
    }
    let run = trained_by("recurrent", "hinton", "hidden = [12, 8]")?;
    let problem = run.graph("search").unwrap_err().to_string();
    assert!(
        problem.contains("recurrent") && problem.contains("cannot be exported; its scores"),
        "{problem}"
    );
    Ok(())
}

#[test]
fn a_graph_has_what_its_readout_needs_and_no_more() -> Result<()> {
    let run = trained("hinton", "hidden = [12, 8]")?;
    let has = |readout: &str, part: &str| -> Result<bool> {
        let graph = run.graph(readout)?;
        let found = graph
            .constants()
            .iter()
            .any(|(name, _)| name.starts_with(part));
        Ok(found)
    };
    assert!(has("head", "head")? && !has("search", "head")?);
    let views = |readout: &str| -> Result<usize> {
        let graph = run.graph(readout)?;
        let steps = graph.entries().iter();
        Ok(steps
            .filter(|step| step.operation == Operation::ConcatRows)
            .count())
    };
    assert_eq!((views("search")?, views("head")?), (1, 0));
    Ok(())
}

#[test]
fn what_is_no_graph_is_refused_with_the_part() -> Result<()> {
    let said = |settings: &str, readout: &str| -> Result<String> {
        let run = trained("hinton", settings)?;
        Ok(run.graph(readout).unwrap_err().to_string())
    };
    let local = said(
        "hidden = [4]\nlayer = { name = \"local\", field = 2 }",
        "head",
    )?;
    assert!(
        local.contains("block 1") && local.contains("no method `graph`"),
        "{local}"
    );
    let group = said("hidden = [4]\nlayer = { norm = \"group\" }", "head")?;
    assert!(
        group.contains("`norm` or `input_norm = \"group\"`"),
        "{group}"
    );
    let unknown = said("hidden = [4]", "crystal")?;
    assert!(unknown.contains("search, head"), "{unknown}");
    Ok(())
}
