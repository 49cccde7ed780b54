//! Settings without an effect: a setting that is said to have none changes nothing, and one
//! that changes nothing is said to.

use std::sync::Arc;

use onward::candle_core::Tensor;
use onward::data::numbers::Numbers;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::export::{Table, Value};
use onward::plugin::registry;
use onward::plugin::source::Source;
use onward::run::Run;
use onward::settings::Setting;
use onward::{conformance, Result};

/// Three classes of small images.
fn images() -> Result<DataSet> {
    let shape = [1, 6, 6];
    let part = |first: usize, count: usize| -> Result<Arc<Numbers>> {
        let labels: Vec<u32> = (0..count).map(|index| (index % 3) as u32).collect();
        let values = (0..count * 36).map(|index| {
            let (example, pixel) = (index / 36, index % 36);
            let own = if pixel % 3 == example % 3 { 0.5 } else { 0. };
            own + 0.5 * ((first + index) as f32 * 1.7).sin().abs()
        });
        Ok(Arc::new(Numbers::new(values.collect(), labels, &shape)?))
    };
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    let spec = ExampleSpec::new(&shape, classes, Content::Picture(Framing::Whole));
    Ok(DataSet {
        train: part(0, 24)?,
        validation: part(1000, 12)?,
        test: part(2000, 12)?,
        ..DataSet::empty(spec, None)
    })
}

/// A network with some settings.
struct Case {
    architecture: &'static str,
    settings: String,
    data: DataSet,
}

impl Case {
    fn run(&self, more: Option<(&str, &Value)>) -> Result<Run> {
        let source = |text: &str| Source {
            origin: "the case".into(),
            table: text.parse().expect("settings in TOML"),
        };
        let sizes = "epochs = 4\nbatch = 12\nhidden = [12, 12]";
        let builder = Run::builder(self.architecture).preset("none");
        let builder = builder.data_set(self.data.clone()).source(source(sizes));
        let builder = builder.source(source(&self.settings));
        match more {
            Some((key, value)) => builder.set(key, value.clone()).build(),
            None => builder.build(),
        }
    }

    /// The bits of all variables, and of the scores by all readouts, after a training.
    fn trained(&self, more: Option<(&str, &Value)>) -> Result<Vec<Vec<u32>>> {
        let mut run = self.run(more)?;
        run.fit(&mut ())?;
        let bits = |tensor: &Tensor| -> Result<Vec<u32>> {
            let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
            Ok(numbers.into_iter().map(f32::to_bits).collect())
        };
        let mut found = Vec::new();
        for (_, var) in run.vars().learned() {
            found.push(bits(&var)?);
        }
        let test = self.data.test.batch(&[0, 1, 2, 3], None)?;
        for readout in &run.architecture().net().readouts {
            found.push(bits(&run.scores(test.examples().clone(), readout.name)?)?);
        }
        Ok(found)
    }
}

/// Other values of a setting.
fn others(setting: &Setting, now: Option<&Value>) -> Vec<Value> {
    let words = setting.choices.iter().map(|choice| choice.word.into());
    let words: Vec<Value> = words.filter(|word| Some(word) != now).collect();
    match now {
        _ if !words.is_empty() => words,
        // No layer beyond the last one.
        Some(Value::Integer(number)) if setting.key == "readout_from" => {
            vec![(3 - number).into()]
        }
        // By a power of two, what is normalised has the same bits.
        Some(Value::Float(number)) if setting.key == "strength" => vec![(number * 2.).into()],
        Some(Value::Float(number)) => vec![(number * 0.5 + 0.07).into()],
        Some(Value::Integer(number)) => vec![(number + 2).into()],
        Some(Value::Boolean(flag)) => vec![(!flag).into()],
        None if setting.allowed.starts_with("a number") => vec![1.7.into()],
        _ => Vec::new(),
    }
}

/// The settings of an architecture, or of its plugins, with their paths and values.
fn settings(of: &Table, kind: &'static str, name: &str, prefix: &str) -> Vec<(String, Vec<Value>)> {
    let mut found = Vec::new();
    for setting in (registry::info(kind, name).unwrap().settings)() {
        let (path, now) = (format!("{prefix}{}", setting.key), of.get(setting.key));
        match (setting.kind, now) {
            (Some(kind), Some(Value::Table(inner))) => {
                let name = inner["name"].as_str().unwrap();
                found.extend(settings(inner, kind, name, &format!("{path}.")));
            }
            (Some(_), _) => {}
            _ => found.push((path, others(&setting, now))),
        }
    }
    found
}

/// Settings and values without an effect in so small a case, or by what they mean: the
/// architecture, what is in the settings of the case, the setting.
const UNSAID: [(&str, &str, &str); 15] = [
    // There is one layer to read out.
    ("progressive", "hidden = [12]", "readout_from"),
    ("layer_collaboration", "hidden = [12]", "readout_from"),
    // Activities are no maps.
    ("progressive", "predsim", "goodness.field"),
    ("progressive", "predsim", "goodness.inputs"),
    // Each layer is solved for anyway.
    ("progressive", "cafo", "order"),
    // Every row has a gradient.
    (
        "progressive",
        "softhebb\"\nloss = \"cross_entropy\"",
        "optimiser",
    ),
    ("nlp", "embedding", "head_optimiser"),
    ("progressive", "head_optimiser", "head_optimiser"),
    // The head is the only readout, and nothing learns by a goodness.
    ("progressive", "loss = \"none\"", "goodness.positive"),
    // Other losses are not the same: `cross_entropy` is refused.
    ("progressive", "layer = \"softhebb\"", "loss"),
    // The same classes are drawn by chance.
    ("progressive", "layer = \"softhebb\"", "sampler.negatives"),
    ("nlp", "hidden = [12]", "sampler.negatives"),
    // There are twice as many tokens.
    ("nlp", "", "samples"),
    // There are no line ends.
    ("nlp", "", "sampler.layout"),
    // The same within rounding.
    ("recurrent", "plain", "redraw"),
];

fn check(architecture: &'static str, text: &str) -> Result<()> {
    check_on(architecture, text, images()?)
}

fn check_on(architecture: &'static str, text: &str, data: DataSet) -> Result<()> {
    let case = Case {
        architecture,
        settings: text.into(),
        data,
    };
    let is_unsaid = |path: &str| {
        let of_case =
            |(of, within, _): &&(&str, &str, &str)| *of == architecture && text.contains(within);
        let mut unsaid = UNSAID.iter().filter(of_case);
        unsaid.any(|(_, _, key)| *key == path)
    };
    let is_text = case.data.text.is_some();
    let run = case.run(None)?;
    let (config, before) = (run.config(), case.trained(None)?);
    let mut all = settings(&config.to_table(), "architecture", architecture, "");
    let sampler = config.to_table()["sampler"].clone();
    let sampler = sampler.as_table().unwrap();
    let name = sampler["name"].as_str().unwrap();
    all.extend(settings(sampler, "sampler", name, "sampler."));
    let mut wrong = Vec::new();
    for (path, values) in all {
        for value in &values {
            let set = Some((&*path, value));
            let Ok(run) = case.run(set) else { continue };
            let idle = run.config().idle(is_text)?;
            let is_idle = idle.iter().any(|(idle, _)| *idle == path);
            let changes = match case.trained(set) {
                Ok(after) => after != before,
                Err(error) if error.is_unfit() => true,
                Err(error) => return Err(error),
            };
            if is_idle == changes && !is_unsaid(&path) {
                wrong.push(format!(
                    "{path} = {value}: changes {changes}, idle {is_idle}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{architecture} {text}:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn settings_change_something_or_are_said_not_to() -> Result<()> {
    let uniform = "sampler = { name = \"label_overlay\", negatives = \"uniform\" }";
    let plain = "sampler = \"plain\"";
    for text in [
        "",
        "frozen = true",
        "head = false",
        "head = false\nhidden = [12]",
        "head_rule = \"ridge\"",
        "optimiser = \"adam\"",
        "optimiser = \"adam\"\nhead = false",
        "loss = \"symmetric\"",
        "loss = \"unbounded\"",
        "layer = { name = \"dense\", peer = 0.1, norm = \"batch\" }",
        "goodness = \"mean_squares\"",
        "goodness = \"two_thresholds\"",
        "layer = \"conv\"",
        "layer = \"local\"",
        "layer = \"softhebb\"",
    ] {
        check("progressive", &format!("{uniform}\n{text}"))?;
    }
    for text in [
        "goodness = \"cafo\"",
        "goodness = \"predsim\"",
        "goodness = { name = \"predsim\", beta = 0.0 }",
        "goodness = \"projection\"\nloss = \"cross_entropy\"",
        "goodness = \"prototypes\"\nloss = \"cross_entropy\"",
        "goodness = \"class_groups\"\nloss = \"cross_entropy\"",
        "layer = \"softhebb\"\nloss = \"none\"",
        "layer = \"softhebb\"\nloss = \"none\"\nhead_optimiser = \"adam\"",
        "layer = \"softhebb\"\nloss = \"cross_entropy\"\ngoodness = \"projection\"",
        "layer = \"forward_projection\"\nloss = \"none\"\norder = \"greedy\"",
    ] {
        check("progressive", &format!("{plain}\n{text}"))?;
    }
    check(
        "progressive",
        "sampler = \"modulated\"\ngoodness = \"second_pass\"",
    )?;
    check(
        "progressive",
        "sampler = \"modulated\"\ngoodness = \"second_pass\"\nlayer = \"two_passes\"",
    )?;
    check("progressive", "sampler = \"hybrid_images\"\nfrozen = true")?;
    for text in ["layer = \"softhebb\"", "goodness = \"two_thresholds\""] {
        check("progressive", &format!("{uniform}\nfrozen = true\n{text}"))?;
    }
    check("layer_collaboration", uniform)?;
    for text in [
        "hidden = [12]",
        "goodness = \"two_thresholds\"",
        "loss = \"unbounded\"",
        "loss = \"unbounded\"\ngoodness = \"two_thresholds\"",
    ] {
        check("layer_collaboration", &format!("{uniform}\n{text}"))?;
    }
    check("trifecta", uniform)?;
    check("sigprop", plain)?;
    check("sigprop", uniform)?;
    for text in ["", "label_units = 4"] {
        check("recurrent", &format!("sampler = \"label_concat\"\n{text}"))?;
    }
    check("recurrent", "sampler = \"label_planes\"")?;
    let classifier = "goodness = \"projection\"\nloss = \"cross_entropy\"";
    check("recurrent", &format!("{plain}\n{classifier}"))?;
    check("recurrent", uniform)?;
    check("backprop", plain)?;
    check("backprop", uniform)?;
    check("backprop", &format!("{plain}\noptimiser = \"sgd\""))?;
    Ok(())
}

#[test]
fn settings_of_a_text_change_something_or_are_said_not_to() -> Result<()> {
    let negatives = "sampler = { name = \"next_token\", negatives = \"uniform\" }";
    for text in [
        "",
        "embedding = 3",
        "embedding = 3\nhidden = [12]",
        "frozen = true",
        "frozen = true\nlayer = { name = \"dense\", peer = 0.1, dropout = 0.1 }",
    ] {
        check_on("nlp", &format!("{negatives}\n{text}"), conformance::text()?)?;
    }
    let roll_outs = "sampler = { name = \"next_token\", negatives = \"roll_outs\", pool = 4 }";
    let frozen = format!("{roll_outs}\nfrozen = true");
    check_on("nlp", &frozen, conformance::text()?)
}

/// It does nothing but round differently.
#[test]
fn drawing_again_without_a_wrong_label_is_said_to_do_nothing() -> Result<()> {
    for (sampler, is_idle) in [("plain", true), ("label_concat", false)] {
        let run = Run::builder("recurrent").data_set(images()?);
        let config = run.set("sampler", sampler).config()?;
        let idle = config.idle(false)?;
        assert_eq!(idle.iter().any(|(key, _)| key == "redraw"), is_idle);
    }
    Ok(())
}

#[test]
fn more_epochs_of_a_closed_form_are_said_to_do_nothing() -> Result<()> {
    let builder = |settings: &str| {
        let table = settings.parse().expect("settings in TOML");
        let origin = "the case".into();
        let builder = Run::builder("progressive").data_set(images().unwrap());
        let builder = builder.source(Source { origin, table });
        builder.set("hidden", vec![12, 12]).set("sampler", "plain")
    };
    let solved = "layer = \"forward_projection\"\nloss = \"none\"\norder = \"greedy\"\n";
    for (settings, is_idle) in [
        ("goodness = \"cafo\"", true),
        (&format!("{solved}probe_epochs = 1"), true),
        // The head learns beside the layers.
        (solved, false),
        ("goodness = \"cafo\"\nhead = true", false),
        ("goodness = \"cafo\"\nshift = 1", false),
        ("goodness = \"cafo\"\ndropout = 0.5", false),
        (
            "goodness = \"cafo\"\nlayer = { name = \"dense\", norm = \"batch\" }",
            false,
        ),
        (
            "goodness = \"cafo\"\nlayer = { name = \"dense\", input_norm = \"batch\" }",
            false,
        ),
        ("goodness = \"cafo\"\nlayer = \"softhebb\"", false),
        ("goodness = \"projection\"", false),
    ] {
        let said = |epochs: i64| -> Result<bool> {
            let config = builder(settings).set("epochs", epochs).config()?;
            Ok(config.idle(false)?.iter().any(|(key, _)| key == "epochs"))
        };
        assert_eq!((said(1)?, said(3)?), (false, is_idle), "{settings}");
    }
    Ok(())
}
