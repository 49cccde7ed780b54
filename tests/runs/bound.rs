//! The files of a run belong together: one that was changed or exchanged is noticed, and
//! a folder that is no longer the one that was opened is not written.

use std::fs;
use std::path::{Path, PathBuf};

use onward::run::observe::Event;
use onward::{Result, Run};
use onward::{RunBuilder, Summary};

fn tiny(seed: u32) -> RunBuilder {
    Run::builder("progressive")
        .set("hidden", vec![8, 8])
        .set("data.size", 200)
        .set("epochs", 2)
        .seed(seed)
}

fn trained(folder: &Path, seed: u32) -> Summary {
    let run = tiny(seed).out(folder).build();
    run.and_then(|mut run| run.fit(&mut ())).unwrap()
}

fn resumed(folder: &Path) -> Result<Run> {
    Run::open(folder)?.resume()
}

fn message(folder: &Path) -> String {
    match resumed(folder) {
        Ok(_) => "it was resumed".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_flipped_bit_of_the_configuration_never_trains_another_model() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("run");
    trained(&folder, 1);
    let path = folder.join("config.toml");
    let text = fs::read(&path).unwrap();
    let wanted = resumed(&folder).unwrap().config().to_toml();
    let (mut refused, mut same) = (0, 0);
    for at in 0..text.len() {
        // Another bit for each byte; all of them take minutes.
        let bit = at % 8;
        let mut flipped = text.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        match resumed(&folder) {
            Ok(run) => {
                let found = run.config().to_toml();
                assert_eq!(found, wanted, "bit {bit} of byte {at}");
                same += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10 * same, "{refused} refused, {same} the same");
}

/// The places of a file where a bit is flipped: a few, or with `ONWARD_FAULTS=all` up to
/// 2000, which takes a quarter of an hour.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let all = std::env::var_os("ONWARD_FAULTS").is_some_and(|value| value == "all");
    let count = if all { 2000 } else { 12 };
    // Beginning and end of a file are among them.
    (0..count.min(size)).map(move |index| index * (size - 1) / (count.min(size) - 1).max(1))
}

#[test]
fn a_flipped_bit_of_any_file_changes_no_result() {
    let base = tempfile::tempdir().unwrap();
    let [whole, half, copy] = ["whole", "half", "copy"].map(|name| base.path().join(name));
    trained(&whole, 1);
    let mut run = tiny(1).out(&half).build().unwrap();
    run.train_until(1, &mut ()).unwrap();
    run.save(&half).unwrap();
    drop(run);
    let wanted = contents(&whole);
    let of = |files: &[(PathBuf, Vec<u8>)], name: &str| -> Vec<u8> {
        let found = files.iter().find(|(path, _)| path.ends_with(name));
        found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    };
    println!("| run | file | flips | refused | as if undisturbed |\n|-|-|-|-|-|");
    for start in [&whole, &half] {
        for (flipped, bytes) in contents(start) {
            let name = flipped.file_name().unwrap().to_str().unwrap().to_string();
            let (mut refused, mut same) = (0, 0);
            for at in places(bytes.len()) {
                let _ = fs::remove_dir_all(&copy);
                fs::create_dir(&copy).unwrap();
                for (path, bytes) in contents(start) {
                    fs::write(copy.join(path.file_name().unwrap()), bytes).unwrap();
                }
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(copy.join(&name), bytes).unwrap();
                let summary = resumed(&copy).and_then(|mut run| match run.is_finished() {
                    true => Ok(None),
                    false => run.fit(&mut ()).map(Some),
                });
                let Ok(_) = summary else {
                    refused += 1;
                    continue;
                };
                same += 1;
                let found = contents(&copy);
                for file in ["model.safetensors", "state.safetensors"] {
                    let is_same = of(&found, file) == of(&wanted, file);
                    assert!(is_same, "{file} after a flip in byte {at} of {name}");
                }
                let error = |files: &[(PathBuf, Vec<u8>)]| {
                    let text = String::from_utf8(of(files, "summary.json")).unwrap();
                    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
                    summary["test"].clone()
                };
                assert_eq!(error(&found), error(&wanted), "byte {at} of {name}");
                assert!(
                    of(&found, "model.other.safetensors").is_empty(),
                    "byte {at}"
                );
            }
            let run = start.file_name().unwrap().to_str().unwrap();
            println!(
                "| {run} | {name} | {} | {refused} | {same} |",
                refused + same
            );
        }
    }
}

#[test]
fn a_changed_setting_is_named_and_can_be_changed_on_purpose() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("run");
    trained(&folder, 1);
    let path = folder.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("lr = 0.01\n", "lr = 0.02\n")).unwrap();
    let found = message(&folder);
    assert!(
        found.contains("`lr` = 0.02") && found.contains("--set lr="),
        "{found}"
    );
    // On purpose, also after the file was edited.
    let builder = Run::open(&folder)?.set("lr", 0.02).set("epochs", 3);
    let summary = builder.resume()?.fit(&mut ())?;
    assert_eq!(summary.changes.len(), 1, "{:?}", summary.changes);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("lr = 0.02\n") && text.contains("epochs = 3\n"),
        "{text}"
    );
    assert!(resumed(&folder)?.is_finished());
    // Comments stay.
    fs::write(&path, format!("# mine\n{text}")).unwrap();
    resumed(&folder)?.fit(&mut ())?;
    assert!(fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    Ok(())
}

#[test]
fn files_of_another_run_are_noticed() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| base.path().join(name));
    trained(&one, 1);
    trained(&other, 2);
    let bytes = |name: &str| fs::read(one.join(name)).unwrap();
    let (model, state, summary) = (
        bytes("model.safetensors"),
        bytes("state.safetensors"),
        bytes("summary.json"),
    );
    // The model of another run is replaced, whether the run is opened or resumed, and
    // kept beside it.
    let path = one.join("model.safetensors");
    let kept = one.join("model.other.safetensors");
    for opens in [true, false] {
        let _ = fs::remove_file(&kept);
        fs::copy(other.join("model.safetensors"), &path).unwrap();
        match opens {
            true => drop(Run::open(&one)?.without_data().build()?),
            false => drop(resumed(&one)?.fit(&mut ())?),
        }
        assert_eq!(fs::read(&path).unwrap(), model);
        let theirs = fs::read(other.join("model.safetensors")).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), theirs);
    }
    fs::remove_file(&path).unwrap();
    assert!(!resumed(&one)?.is_finished());
    resumed(&one)?.fit(&mut ())?;
    assert_eq!(fs::read(&path).unwrap(), model);
    // A summary: it does not count.
    fs::copy(other.join("summary.json"), one.join("summary.json")).unwrap();
    assert!(!resumed(&one)?.is_finished());
    fs::write(one.join("summary.json"), summary).unwrap();
    // A state: refused.
    fs::copy(
        other.join("state.safetensors"),
        one.join("state.safetensors"),
    )
    .unwrap();
    let found = message(&one);
    assert!(found.contains("`seed` = 1"), "{found}");
    fs::write(one.join("state.safetensors"), state).unwrap();
    resumed(&one)?;
    Ok(())
}

#[test]
fn data_that_changed_are_noticed() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let (folder, pictures) = (base.path().join("run"), base.path().join("pictures"));
    for (class, level) in [("dark", 40u8), ("light", 200)] {
        fs::create_dir_all(pictures.join(class)).unwrap();
        for index in 0..20u8 {
            let picture = image::GrayImage::from_fn(8, 8, |x, y| {
                image::Luma([level + index + (x * y) as u8 % 5])
            });
            let path = pictures.join(class).join(format!("{index}.png"));
            picture.save(path).unwrap();
        }
    }
    let data = format!("folder:{}", pictures.display());
    let run = Run::builder("progressive")
        .data(&data)
        .set("hidden", vec![8]);
    run.set("epochs", 1).out(&folder).build()?.fit(&mut ())?;
    resumed(&folder)?;
    for index in 0..20 {
        let picture = image::GrayImage::from_pixel(8, 8, image::Luma([90]));
        let path = pictures.join("dark").join(format!("{index}.png"));
        picture.save(path).unwrap();
    }
    let found = message(&folder);
    assert!(
        found.contains("is not the one that the run began with"),
        "{found}"
    );
    Ok(())
}

#[test]
fn changes_that_would_break_a_run_are_refused_before_anything_is_written() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("run");
    trained(&folder, 1);
    let before = contents(&folder);
    let changed = |key: &str, value: i64| -> String {
        match Run::open(&folder).and_then(|run| run.set(key, value).resume()) {
            Ok(_) => "it was resumed".into(),
            Err(error) => error.to_string(),
        }
    };
    let found = changed("epochs", 1);
    assert!(found.contains("at least the 2 epochs"), "{found}");
    // Known only once a step is taken.
    let builder = Run::open(&folder)?.set("sampler", "plain").set("epochs", 3);
    let found = builder.resume().map(drop).unwrap_err().to_string();
    assert!(
        found.contains("expected positive and negative views"),
        "{found}"
    );
    assert_eq!(contents(&folder), before);
    // Between epochs, another batch gives more steps, or fewer.
    for (batch, epochs) in [(30, 3), (1000, 4)] {
        let builder = Run::open(&folder)?
            .set("batch", batch)
            .set("epochs", epochs);
        builder.resume()?.fit(&mut ())?;
        let run = resumed(&folder)?;
        assert!(run.is_finished() && run.epoch() == epochs as usize);
    }
    // Without its checkpoint, a result is not trained again in its place.
    for file in ["state.safetensors", "model.safetensors"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    let found = message(&folder);
    assert!(
        found.contains("has a result but no state.safetensors"),
        "{found}"
    );
    Ok(())
}

#[test]
fn a_model_of_another_run_is_kept_when_settings_change_too() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| base.path().join(name));
    trained(&one, 1);
    trained(&other, 2);
    let kept = one.join("model.other.safetensors");
    Run::open(&one)?.set("epochs", 3).resume()?.fit(&mut ())?;
    assert!(!kept.exists(), "the run's own older model is replaced");
    let theirs = other.join("model.safetensors");
    fs::copy(&theirs, one.join("model.safetensors")).unwrap();
    Run::open(&one)?.set("epochs", 4).resume()?.fit(&mut ())?;
    assert_eq!(fs::read(kept).unwrap(), fs::read(theirs).unwrap());
    Ok(())
}

#[test]
fn a_damaged_state_is_not_needed_to_predict() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("run");
    trained(&folder, 1);
    fs::write(folder.join("state.safetensors"), b"half a file").unwrap();
    Run::open(&folder)?.without_data().build()?;
    let error = message(&folder);
    assert!(error.contains("state.safetensors"), "{error}");
    Ok(())
}

#[test]
fn a_damaged_model_is_written_again_from_the_state() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("run");
    trained(&folder, 1);
    let path = folder.join("model.safetensors");
    let model = fs::read(&path).unwrap();
    let mut bad = model.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, bad).unwrap();
    Run::open(&folder)?.without_data().build()?;
    assert_eq!(fs::read(&path).unwrap(), model);
    Ok(())
}

/// Trains, and calls `f` with the folder at the end of the first epoch.
fn disturbed(folder: &Path, f: impl Fn(&Path) + Sync) -> String {
    let mut run = tiny(1).set("epochs", 4).out(folder).build().unwrap();
    let mut observer = |event: &Event<'_>| {
        if let Event::Saved { folder } = event {
            if !folder.join("disturbed").exists() {
                fs::write(folder.join("disturbed"), "").unwrap();
                f(folder);
            }
        }
    };
    match run.fit(&mut observer) {
        Ok(_) => "it went on".into(),
        Err(error) => error.to_string(),
    }
}

/// The files in a folder and their contents, the lock left out.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| !path.ends_with(".lock"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_folder_that_is_moved_or_removed_while_it_trains_ends_the_run() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let [folder, aside] = ["run", "aside"].map(|name| base.path().join(name));
    let found = disturbed(&folder, |path| fs::rename(path, &aside).unwrap());
    assert!(found.contains("moved, removed or replaced"), "{found}");
    assert!(!folder.exists());
    // What was moved can be resumed.
    resumed(&aside)?.fit(&mut ())?;
    let found = disturbed(&folder, |path| fs::remove_dir_all(path).unwrap());
    assert!(found.contains("moved, removed or replaced"), "{found}");
    assert!(!folder.exists());
    Ok(())
}

#[test]
fn nothing_that_is_put_in_the_place_of_a_folder_is_written() {
    let base = tempfile::tempdir().unwrap();
    let [folder, aside, other] = ["run", "aside", "other"].map(|name| base.path().join(name));
    trained(&other, 7);
    let copy = |to: &Path| {
        fs::create_dir(to).unwrap();
        for (path, bytes) in contents(&other) {
            fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
        }
    };
    let found = disturbed(&folder, |path| {
        fs::rename(path, &aside).unwrap();
        copy(path);
    });
    assert!(found.contains("moved, removed or replaced"), "{found}");
    let names = |files: Vec<(PathBuf, Vec<u8>)>| -> Vec<_> {
        let files = files.into_iter();
        files
            .map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes))
            .collect()
    };
    assert_eq!(names(contents(&folder)), names(contents(&other)));
    #[cfg(unix)]
    {
        let before = contents(&other);
        let linked = base.path().join("linked");
        let found = disturbed(&linked, |path| {
            fs::rename(path, base.path().join("aside-2")).unwrap();
            std::os::unix::fs::symlink(&other, path).unwrap();
        });
        assert!(found.contains("moved, removed or replaced"), "{found}");
        assert_eq!(contents(&other), before);
    }
}
