//! The program under `mpirun`: the bits of one process, and what a killed process leaves.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_onward-mpi");

/// The program in some processes. In a container it may run as root, with more
/// processes than cores.
fn mpirun(processes: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-n", &processes.to_string(), PROGRAM])
        .args(arguments)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none");
    command
}

fn arguments<'a>(epochs: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let net = [
        "train",
        "progressive",
        "--quiet",
        "--threads",
        "1",
        "--set",
        "hidden=[30,20,20,20]",
        "--set",
        "data.size=600",
        "--set",
        "sampler.negatives=uniform",
        "--epochs",
        epochs,
        "--out",
        out.to_str().unwrap(),
    ];
    [&net, more].concat()
}

fn succeeds(mut command: Command) {
    let output = command.output().expect("start mpirun");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {message}");
}

fn alone(arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    succeeds(command);
}

fn state(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("state.safetensors")).unwrap()
}

#[test]
fn processes_give_the_bits_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    alone(&arguments("2", &at("one"), &[]));
    for (processes, name) in [(2, "two"), (4, "four")] {
        succeeds(mpirun(processes, &arguments("2", &at(name), &[])));
        assert!(
            state(&at(name)) == state(&at("one")),
            "{processes} processes"
        );
    }
    for (processes, stages, replicas) in [(4, "2", "2"), (3, "1", "3")] {
        let divided = ["--stages", stages, "--replicas", replicas];
        let [threads, ranks] =
            ["threads", "processes"].map(|name| at(&format!("{name}-{replicas}")));
        alone(&arguments("2", &threads, &divided));
        succeeds(mpirun(processes, &arguments("2", &ranks, &divided)));
        assert!(state(&ranks) == state(&threads), "{replicas} replicas");
    }
}

/// Processes that see no examples round products as the first one does.
#[test]
fn processes_have_the_precision_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let bf16 = ["--set", "precision=bf16"];
    let output = Command::new(PROGRAM)
        .args(arguments("1", &one, &bf16))
        .output()
        .unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("bf16 needs a CPU with") {
        return eprintln!("skipped: this processor has no product of bfloat16 numbers");
    }
    succeeds(mpirun(2, &arguments("1", &two, &bf16)));
    assert!(state(&one) == state(&two));
}

/// The processes that a process has started, with their ranks.
fn ranks(of: u32) -> Vec<(u32, String)> {
    let children = Command::new("pgrep").args(["-P", &of.to_string()]).output();
    let children = String::from_utf8(children.unwrap().stdout).unwrap();
    let rank = |id: u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        let rank = variables.find_map(|pair| pair.strip_prefix("OMPI_COMM_WORLD_RANK="));
        Some((id, rank?.to_string()))
    };
    let ids = children.lines().filter_map(|line| line.parse().ok());
    ids.filter_map(rank).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Some processes that train 60 epochs and have saved the first of them.
fn started(processes: usize, run: &Path) -> Child {
    let child = mpirun(processes, &arguments("60", run, &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("a checkpoint", || run.join("state.safetensors").exists());
    child
}

fn ended_within(mut child: Child, limit: Duration) -> String {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < limit, "still running after {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!child.wait().unwrap().success());
    let mut message = String::new();
    child.stderr.unwrap().read_to_string(&mut message).unwrap();
    message
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_process_ends_the_run_which_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    alone(&arguments("60", &at("whole"), &[]));
    for killed in ["0", "1", "2"] {
        let run = at(killed);
        let child = started(3, &run);
        let processes = ranks(child.id());
        let (process, _) = processes.iter().find(|(_, rank)| rank == killed).unwrap();
        let process = process.to_string();
        let kill = Command::new("kill").args(["-KILL", &process]).status();
        assert!(kill.unwrap().success());
        let message = ended_within(child, Duration::from_secs(30));
        assert!(message.contains(&format!("rank {killed}")), "{message}");
        let run_text = run.to_str().unwrap();
        succeeds(mpirun(2, &["resume", run_text, "--quiet"]));
        assert!(state(&run) == state(&at("whole")), "rank {killed}");
    }
}

/// A launcher passes a signal on to all processes.
#[test]
#[cfg(target_os = "linux")]
fn a_stopped_run_is_saved_first_and_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    alone(&arguments("60", &whole, &[]));
    let child = started(3, &part);
    let ids = ranks(child.id()).into_iter().map(|(id, _)| id.to_string());
    let ids: Vec<String> = ids.collect();
    assert_eq!(ids.len(), 3);
    let kill = Command::new("kill").arg("-TERM").args(&ids).status();
    assert!(kill.unwrap().success());
    let message = ended_within(child, Duration::from_secs(30));
    assert_eq!(
        message.matches("error: stopped after step").count(),
        1,
        "{message}"
    );
    succeeds(mpirun(2, &["resume", part.to_str().unwrap(), "--quiet"]));
    assert!(state(&part) == state(&whole));
}

#[test]
fn wrong_use_is_said_once() {
    let mut command = mpirun(2, &["train", "progressive", "--set", "lrr=1"]);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(message.matches("unknown setting").count(), 1, "{message}");
    let mut command = mpirun(2, &["list", "architecture"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert_eq!(text.matches("progressive").count(), 1, "{text}");
}
