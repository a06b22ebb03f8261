//! The example instance, `examples/python-instance`, as processes of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Locked, Mesh, SOON, eventually, repository, target_dir};

/// The interpreter of a virtual environment that has what the example requires; made at the first use.
pub fn python() -> PathBuf {
    environment("test-venv", &repository().join("examples/python-instance/requirements.txt"))
}

/// One that has `fastmcp`, which pins other versions of what it shares with the example.
pub fn fastmcp_python() -> PathBuf {
    environment("clients-venv", &repository().join("tests/fixtures/clients/requirements.txt"))
}

/// One with the tool chains that make components.
pub fn languages_python() -> PathBuf {
    environment("languages-venv", &repository().join("tests/fixtures/languages/requirements.txt"))
}

fn environment(name: &str, requirements: &Path) -> PathBuf {
    let venv = target_dir().join(name);
    let _lock = Locked::at(&target_dir().join(format!("{name}.lock")));
    let interpreter = venv.join("bin/python");
    let wanted = fs::read(requirements).expect("read requirements.txt");
    let stamp = venv.join("requirements.installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return interpreter;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
    fs::write(stamp, wanted).expect("write the stamp");
    interpreter
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
}

pub struct PythonInstance {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl PythonInstance {
    /// Starts one and waits until the proxy lists it with its tools.
    pub async fn join(mesh: &Mesh, service: &str, name: &str, flags: &[&str]) -> Self {
        let log = mesh.home.path().join(format!("{name}.log"));
        let output = File::create(&log).expect("create the log");
        let child = Command::new(python())
            .arg(repository().join("examples/python-instance/instance.py"))
            .args(["--proxy", &mesh.http, "--service", service, "--name", name])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("start the instance");
        let instance = Self { name: name.to_owned(), child, log };
        eventually(&format!("`{name}` joins"), 2 * SOON, || async {
            let answer = mesh.api.get(&format!("/services/{service}")).await;
            if answer.status != 200 {
                return None;
            }
            let info = answer.json();
            let here = info["instances"].as_array()?.iter().find(|one| one["instance_name"] == name)?.clone();
            let tools = info["tools"].as_array().is_some_and(|tools| tools.len() == 6);
            (tools && here["state"] == "healthy").then_some(())
        })
        .await;
        instance
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the instance lives");
        self.child.wait().expect("reap the instance");
    }

    /// SIGTERM, then the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the instance lives");
        let start = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ask for the child's state") {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "`{}` still runs:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for PythonInstance {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- log of `{}` ---\n{}", self.name, self.log());
        }
    }
}

/// Lines of a file that may not exist yet.
pub fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
