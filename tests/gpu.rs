//! The fast path on a GPU with CUDA: the same numbers as on the CPU, the same bits at
//! every run, and no step that waits for the GPU.
//!
//! `cargo test --features cuda --test gpu`. Without a GPU the tests are skipped with a
//! message.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use onward::candle_core::{DType, Device, Tensor};
use onward::{conformance, Result, Run, RunBuilder, Step};

/// Runs a test if there is a GPU.
fn with_gpu(test: impl FnOnce(&Device) -> Result<()>) -> Result<()> {
    // Trainings of one process share their precision.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match Device::new_cuda_with_stream(0) {
        Ok(device) => test(&device),
        Err(error) => {
            eprintln!("skipped: there is no GPU with CUDA here ({error})");
            Ok(())
        }
    }
}

/// The numbers of all variables of a run, by name.
fn numbers(run: &Run) -> Result<BTreeMap<String, Vec<f64>>> {
    let of = |var: &onward::candle_core::Var| -> Result<Vec<f64>> {
        let numbers = var.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        Ok(numbers.flatten_all()?.to_vec1()?)
    };
    let all = run.vars().all().into_iter();
    all.map(|(name, var)| Ok((name, of(&var)?))).collect()
}

/// The largest difference between two runs, relative to the largest number of its
/// variable; variables that are nearly zero count as 0.001.
fn difference(a: &Run, b: &Run) -> Result<(f64, String)> {
    let mut worst = (0., String::new());
    let others = numbers(b)?;
    for (name, values) in numbers(a)? {
        let largest = values
            .iter()
            .fold(1e-3, |most: f64, value| most.max(value.abs()));
        for (value, other) in values.iter().zip(&others[&name]) {
            let off = (value - other).abs() / largest;
            // NaN is the worst difference.
            if off > worst.0 || off.is_nan() {
                worst = (off, name.clone());
            }
        }
    }
    Ok(worst)
}

/// Trains on small images or on text, whichever the plugins of `builder` accept.
fn trained(builder: &dyn Fn() -> RunBuilder, device: &str, precision: &str) -> Result<Option<Run>> {
    for data in [conformance::images()?, conformance::text()?] {
        let builder = builder().data_set(data).device(device);
        let run = builder.set("precision", precision).build();
        let fitted = run.and_then(|mut run| {
            run.train_until(1, &mut ())?;
            Ok(run)
        });
        match fitted {
            Ok(run) => return Ok(Some(run)),
            Err(error) if error.is_usage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Every combination of built-in plugins that trains, from `combinations.txt`.
#[test]
fn every_combination_has_the_numbers_of_the_cpu() -> Result<()> {
    with_gpu(|_| {
        let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
        for line in include_str!("combinations.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [architecture, layer, goodness, sampler, loss] = words[..] else {
                panic!("combinations.txt: {line}");
            };
            let settings = || {
                let mut builder = Run::builder(architecture).set("epochs", 1).set("batch", 20);
                let parts = [("layer", layer), ("goodness", goodness), ("loss", loss)];
                for (key, value) in parts {
                    if !["-", "default"].contains(&value) {
                        builder = builder.set(key, value);
                    }
                }
                // Adam divides by the size of a gradient, and so makes rounding errors
                // large.
                builder
                    .set("optimiser", "sgd")
                    .set("sampler", sampler)
                    .set("hidden", vec![12, 12])
                    .set("shift", 0)
            };
            // Where a loss is almost flat, its slope is the difference of two numbers
            // near 1.
            for (precision, limit) in [("f64", 1e-6), ("f32", 1e-2)] {
                let cpu = trained(&settings, "cpu", precision)?;
                let gpu = trained(&settings, "cuda", precision)?;
                let (Some(cpu), Some(gpu)) = (cpu, gpu) else {
                    panic!("{line}: does not train");
                };
                let (off, name) = difference(&cpu, &gpu)?;
                eprintln!("{precision} {off:9.1e} {name}: {line}");
                assert!(
                    off < limit,
                    "{line}, {precision}: {name} differs by {off:e}"
                );
                let before = worst.entry(precision).or_default();
                if off > before.0 {
                    *before = (off, line.into());
                }
            }
        }
        eprintln!("worst: {worst:?}");
        Ok(())
    })
}

fn digits(architecture: &str) -> RunBuilder {
    Run::builder(architecture)
        .data("digits")
        .set("epochs", 2)
        .set("seed", 3)
        .set("shift", 1)
        .set("hidden", vec![120, 80])
        .device("cuda")
}

#[test]
fn the_same_seed_gives_the_same_bits_from_one_and_from_sixteen_threads() -> Result<()> {
    with_gpu(|_| {
        for architecture in ["progressive", "recurrent"] {
            let run = |threads: usize| -> Result<BTreeMap<String, Vec<f64>>> {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.expect("threads can be had").install(|| {
                    let mut run = digits(architecture).build()?;
                    run.train_until(2, &mut ())?;
                    numbers(&run)
                })
            };
            let first = run(1)?;
            for threads in [16, 1, 16, 1] {
                assert!(run(threads)? == first, "{architecture}, {threads} threads");
            }
        }
        Ok(())
    })
}

/// Rounded numbers change two steps a little, each way of rounding in its own way.
#[test]
fn rounded_products_are_near_those_in_32_bits() -> Result<()> {
    with_gpu(|_| {
        for architecture in ["progressive", "recurrent"] {
            let run = |precision: &str| -> Result<Run> {
                // More steps make any difference large.
                let builder = digits(architecture).set("epochs", 1).set("batch", 5000);
                let mut run = builder.set("precision", precision).build()?;
                run.train_until(1, &mut ())?;
                Ok(run)
            };
            let (exact, tf32, bf16) = (run("f32")?, run("tf32")?, run("bf16")?);
            assert!(numbers(&tf32)? != numbers(&bf16)?, "{architecture}");
            for (precision, run) in [("tf32", &tf32), ("bf16", &bf16)] {
                let (off, name) = difference(&exact, run)?;
                eprintln!("{off:9.1e} {name}: {architecture}, {precision}");
                assert!(
                    off > 0. && off < 0.3,
                    "{architecture}, {precision}: {off:e}"
                );
            }
        }
        Ok(())
    })
}

/// The GPU is busy for a while before each step: a step that waited for it would return
/// later.
#[test]
fn no_step_waits_for_the_gpu() -> Result<()> {
    with_gpu(|_| {
        for architecture in ["progressive", "recurrent"] {
            // The sampler of one run, the network of another.
            let (mut run, other) = (digits(architecture).build()?, digits(architecture).build()?);
            let batch = run.data().train.batch(&[0, 1, 2, 3, 4], None)?;
            let batch = run.prepare(&batch)?;
            let device = batch.device().clone();
            let large = Tensor::ones((16_384, 16_384), DType::F32, &device)?;
            for index in 0..3 {
                let busy = (0..8).try_fold(large.clone(), |product, _| product.matmul(&large))?;
                let stream = device.as_cuda_device()?.cuda_stream();
                let done = stream.record_event(None).expect("an event can be recorded");
                let step = Step {
                    index,
                    train: true,
                    ..Step::evaluation(1)
                };
                let network = run.architecture_mut();
                let reports = network.learn(&batch, other.sampler(), &step)?;
                // The first step compiles the kernels.
                assert!(index == 0 || !done.is_complete(), "{architecture} waited");
                assert!(reports[0].1.read()?.loss.is_some_and(f64::is_finite));
                assert!(
                    done.is_complete(),
                    "a report is read after the work before it"
                );
                drop(busy);
            }
        }
        Ok(())
    })
}

/// More rows, columns and one-hot slots than one block of a kernel handles.
#[test]
fn large_layers_have_the_numbers_of_the_cpu() -> Result<()> {
    with_gpu(|_| {
        for (architecture, key, value) in [
            ("progressive", "layer.peer", 0.03),
            ("recurrent", "damping", 0.3),
            ("nlp", "lr", 0.01),
        ] {
            let run = |device: &str| -> Result<Run> {
                let builder = Run::builder(architecture).device(device);
                let builder = match architecture {
                    "nlp" => builder,
                    _ => builder.data("digits").set("batch", 700),
                };
                let mut run = builder
                    .set("epochs", 1)
                    .set("hidden", vec![1100, 70])
                    .set(key, value)
                    .build()?;
                run.train_until(1, &mut ())?;
                Ok(run)
            };
            let (off, name) = difference(&run("cpu")?, &run("cuda")?)?;
            eprintln!("{off:9.1e} {name}: {architecture}");
            assert!(off < 1e-2, "{architecture}: {name} differs by {off:e}");
        }
        Ok(())
    })
}

/// Hashed ends, the layout and the bag of recent tokens.
#[test]
fn context_inputs_have_the_numbers_of_the_cpu() -> Result<()> {
    with_gpu(|_| {
        let run = |device: &str| -> Result<Run> {
            let builder = Run::builder("nlp").preset("book").device(device);
            let mut run = builder
                .data("fables")
                .set("data.before", 30)
                .set("sampler.recent", 0.9)
                .set("epochs", 1)
                .set("hidden", vec![40])
                .build()?;
            run.train_until(1, &mut ())?;
            Ok(run)
        };
        let (off, name) = difference(&run("cpu")?, &run("cuda")?)?;
        eprintln!("{off:9.1e} {name}: context inputs");
        assert!(off < 1e-2, "{name} differs by {off:e}");
        Ok(())
    })
}
