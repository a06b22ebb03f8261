//! A configuration of which five services are wrong, each in a way of its own: the sixth is served as fast as without
//! them, and of each of the five it is said what to do.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::children::*;
use support::*;

/// From the start of the process to its banner and the first answer, when nothing has to be compiled.
const SERVED: Duration = Duration::from_secs(2);
/// Of so many starts the best counts: a busy machine slows some of them.
const STARTS: usize = 3;

/// What stands for `npx` while it fetches a package: it answers nothing, and ends with its input.
fn npx(folder: &Path) -> String {
    let path = folder.join("npx");
    std::fs::write(&path, "#!/bin/sh\necho 'npm warn exec fetching' >&2\nwhile read -r _; do :; done\n")
        .expect("write it");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set its mode");
    path.to_str().expect("a path of text").to_owned()
}

fn configuration(book: &Book, npx: &str) -> String {
    let crash = "echo 'Error: missing TOKEN' >&2; exit 7";
    format!(
        "[services.gone]\ncommand = \"no-such-program\"\n\
         [services.typo]\ncomand = \"true\"\n\
         [services.loops]\ncommand = \"sh\"\nargs = [\"-c\", {crash:?}]\n\
         [services.installs]\ncommand = {npx:?}\nargs = [\"-y\", \"@acme/server\"]\n"
    ) + &book.service("round-a", &[], "depends_on = [\"round-b\"]")
        + &book.service("round-b", &[], "depends_on = [\"round-a\"]")
        + &book.service("fine", &[], "")
}

/// Starts the proxy again; what it printed until its banner was whole and the sixth service had answered, and after how
/// long.
async fn start_again(mesh: &mut Mesh) -> (String, Duration) {
    assert!(mesh.terminate().await.success());
    let before = mesh.log().len();
    let begun = Instant::now();
    mesh.restart_elsewhere().await;
    let printed = || mesh.log().get(before..).unwrap_or_default().to_owned();
    eventually("the banner is printed", SOON, || async { printed().contains("\n  Config ").then_some(()) })
        .await;
    until_called(mesh, "fine").await;
    (printed(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_services_keep_nothing_from_the_sixth_and_each_is_named_with_its_fix() {
    let (book, folder) = (Book::new(), tempfile::tempdir().expect("a folder"));
    let mut mesh = mesh(configuration(&book, &npx(folder.path()))).await;
    until_called(&mesh, "fine").await;
    let (mut printed, mut took) = (String::new(), Vec::new());
    for _ in 0..STARTS {
        let (banner, served) = start_again(&mut mesh).await;
        (printed, _) = (banner, took.push(served));
    }
    eprintln!("served after {took:?}");
    assert!(took.iter().any(|served| *served < SERVED), "served after {took:?}");

    let marks = ["○ gone ", "✖ typo ", " loops ", "◌ installs ", "○ round-a ", "○ round-b "];
    contains(&printed, &marks);
    contains(&printed, &["services.gone.command", "did you mean `command`?", "exited with 7"]);
    contains(&printed, &["services.round-a.depends_on", "services.NAME.startup_timeout"]);

    let installs = until(&mesh, "installs", "installing").await;
    contains(installs["fix"].as_str().expect("a fix"), &["services.installs.startup_timeout"]);
    until(&mesh, "loops", "fatal").await;
    let [ps, doctor] = ["ps", "doctor"].map(|command| text(&cli(&mesh, &[command])));
    for said in [&ps, &doctor] {
        contains(said, &["no program `no-such-program`", "services.gone.command"]);
        contains(said, &["did you mean `command`?", "config check"]);
        contains(said, &["missing TOKEN", "meshwright logs loops", "meshwright restart loops"]);
        contains(said, &["round-a → round-b → round-a", "services.round-a.depends_on"]);
        contains(said, &["installing", "services.installs.startup_timeout"]);
    }
    assert!(!doctor.contains(" fine:"), "nothing is wrong with it: {doctor}");
    until_called(&mesh, "fine").await;
}
