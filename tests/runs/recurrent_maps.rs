//! The architecture `recurrent` on images: maps with local fields and with kernels.

use std::collections::HashMap;

use onward::candle_core::{DType, Device, Tensor};
use onward::export::{Table, Value};
use onward::plugin;
use onward::plugin::registry;
use onward::settings::Pick;
use onward::{Architecture, Batch, BuildContext, NegativeSampler, Result, Step, Vars};

use crate::recurrent::{assert_close, small};

/// A network for 2×2 pixels and two classes, its sampler, its variables and a batch.
pub type Parts = (Box<dyn Architecture>, Box<dyn NegativeSampler>, Vars, Batch);

pub fn of_four_pixels(settings: &str) -> Result<Parts> {
    let vars = Vars::new(1, DType::F64, &Device::Cpu);
    let mut context = BuildContext::new(vars.clone(), 1);
    (context.example, context.classes, context.hypotheses) = (vec![1, 2, 2], 2, true);
    let sampler = plugin::build(&Pick::<dyn NegativeSampler>::new("label_concat"), &context)?;
    (context.input, context.label) = (vec![6], 2);
    let settings: Table = settings.parse().expect("these settings are TOML");
    let net = (registry::named::<dyn Architecture>("recurrent")?.build)(&settings, &context)?;
    let pixels = Tensor::new(
        &[[[[0.2f64, 0.8], [0.4, 0.1]]], [[[0.5, 0.1], [0.9, 0.6]]]],
        &Device::Cpu,
    )?;
    Ok((net, sampler, vars, Batch::new(pixels, vec![0, 1])?))
}

/// The weight of the dense layer that is equivalent to 3×3 fields on 2×2 maps.
fn dense_weight(local: &Tensor, label: bool) -> Result<Tensor> {
    let weights = local.to_vec3::<f64>()?; // (4, C·9, N)
    let (channels, units) = (weights[0].len() / 9, weights[0][0].len());
    let mut rows = Vec::new();
    for channel in 0..channels {
        for pixel in 0..4 {
            let mut row = Vec::new();
            for unit in 0..units {
                for (location, weights) in weights.iter().enumerate() {
                    let (y, x) = (pixel / 2 + 1 - location / 2, pixel % 2 + 1 - location % 2);
                    row.push(weights[channel * 9 + y * 3 + x][unit]);
                }
            }
            rows.push(row);
        }
    }
    if label {
        // The last channel is the label: pixels 0 and 2 are class 0. Each value is
        // smaller than that of a single column by √2.
        let map = rows.split_off(rows.len() - 4);
        for class in 0..2 {
            rows.push(
                map[class]
                    .iter()
                    .zip(&map[class + 2])
                    .map(|(a, b)| (a + b) / 2f64.sqrt())
                    .collect(),
            );
        }
    }
    Ok(Tensor::new(rows, &Device::Cpu)?)
}

#[test]
fn maps_with_full_fields_equal_dense_layers() -> Result<()> {
    let maps = "hidden = [2, 3]\nmaps = true\nlayer = { name = \"local\", field = 3, padding = 1 }";
    let (maps, sampler, of_maps, batch) = of_four_pixels(maps)?;
    let (dense, same, of_dense, _) = of_four_pixels("hidden = [8, 12]")?;
    let mut weights = HashMap::new();
    for (name, var) in of_dense.all() {
        let found = of_maps
            .all()
            .into_iter()
            .find(|(known, _)| *known == name)
            .expect("the same names")
            .1;
        let tensor = match name.as_str() {
            "blocks.0.layer.weight" => dense_weight(&found, false)?,
            "blocks.1.layer.weight" => dense_weight(&found, true)?,
            _ => found.as_tensor().copy()?,
        };
        assert_eq!(tensor.dims(), var.dims(), "{name}");
        weights.insert(name, tensor);
    }
    of_dense.restore(&weights)?;
    let step = Step::evaluation(1);
    for readout in ["search", "head"] {
        let readout = maps.net().readout(readout)?;
        let found = maps.scores(&batch.hidden(), &*sampler, readout, &step)?;
        let expected = dense.scores(&batch.hidden(), &*same, readout, &step)?;
        let expected = expected.flatten_all()?.to_vec1::<f64>()?;
        assert_close(readout.name, &found, &expected, 1e-6)?; // the label is scaled in f32
    }
    Ok(())
}

#[test]
fn maps_learn_with_local_fields_and_with_kernels() -> Result<()> {
    // The gradient of a kernel is a sum over all locations, so `conv` needs a lower rate.
    let layers = [
        (
            "local",
            r#"layer = { name = "local", field = 5, padding = 2, peer = 0.03 }"#,
            0.02,
        ),
        (
            "conv",
            r#"layer = { name = "conv", field = 5, pool = 1 }"#,
            0.001,
        ),
    ];
    for (name, layer, rate) in layers {
        let layer: Table = layer.parse().expect("these settings are TOML");
        let data = Table::from_iter([
            ("name".to_string(), Value::from("digits")),
            ("size".to_string(), 600.into()),
        ]);
        let run = small()
            .set("data", data)
            .set("layer", layer["layer"].clone())
            .set("hidden", vec![2, 2]);
        let run = run
            .set("maps", true)
            .set("steps", 3)
            .set("window", vec![2, 3])
            .set("lr", rate);
        let summary = run.build()?.fit(&mut ())?;
        let error = summary.test.readouts["head"].error;
        assert!(error < 0.5, "{name}: {error}");
    }
    Ok(())
}

#[test]
fn label_units_adds_a_projection_of_the_label() -> Result<()> {
    for (units, blocks) in [(0, 2), (2, 3), (5, 3)] {
        let (net, ..) = of_four_pixels(&format!("hidden = [4, 3]\nlabel_units = {units}"))?;
        assert_eq!(net.net().blocks.len(), blocks, "{units} units");
    }
    Ok(())
}

#[test]
fn maps_of_another_size_are_refused() {
    let cases = [
        (
            r#"layer = "dense""#,
            "[4, 2, 2], since `maps` keep their size",
        ),
        (
            r#"layer = { name = "local", field = 2, padding = 1 }"#,
            "[4, 2, 2], since `maps` keep their size",
        ),
        ("label_units = 5", "label_units = 0"),
    ];
    for (settings, named) in cases {
        let settings = format!("hidden = [4, 4]\nmaps = true\n{settings}");
        let error = of_four_pixels(&settings).err().expect("an error");
        assert!(error.is_usage(), "{error}");
        let error = error.to_string();
        assert!(error.contains(named), "{settings}: {error}");
    }
}
