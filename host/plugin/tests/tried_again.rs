//! Components that were refused before they said who they are, and what has them tried again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::{Bench, SETTLED, guest, name, until};
use crate::mesh::ruling::Ruling;
use crate::plugin::compiler::{COMPILE_LIMITS, Compiler};
use crate::plugin::engine::{self, Purpose};
use crate::plugin::{Limits, Plugins, Settings};
use crate::policy::status::PluginState;

/// A program that compiles as one who has nothing else to do would, but for the first time: then it does `at_first`.
fn compiler(folder: &Path, at_first: &str, wall: Duration) -> Compiler {
    let code = engine::engine(Purpose::Serving).unwrap().precompile_component(&guest("nothing")).unwrap();
    fs::write(folder.join("code"), code).unwrap();
    let executable = folder.join("compiler");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = probe ] && exit\ncd {}\ncat > input\necho >> asked\nif [ -e again ]; then exec cat code; fi\n\
         touch again\n{at_first}\n",
        folder.display()
    );
    fs::write(&executable, script).unwrap();
    fs::set_permissions(&executable, PermissionsExt::from_mode(0o755)).unwrap();
    // A program that another thread began to start meanwhile may hold the file open for writing.
    until("it can be run", || Command::new(&executable).arg("probe").status().ok());
    Compiler::Child { executable, limits: Limits { wall, ..COMPILE_LIMITS } }
}

fn asked(folder: &Path) -> usize {
    fs::read(folder.join("asked")).map_or(0, |lines| lines.len())
}

fn enable(plugins: &Plugins, label: &str) {
    plugins.rule(Ruling::Switched { plugin: name(label), enabled: true });
    plugins.reload(SETTLED);
}

#[test]
fn what_was_refused_before_it_said_its_name_is_tried_again_when_its_file_is_enabled() {
    for (at_first, wall, words) in [
        ("echo 'no such instruction'; exit 3", COMPILE_LIMITS.wall, "no such instruction"),
        (
            "kill -9 $$",
            COMPILE_LIMITS.wall,
            "it was killed, as happens when memory is short; it is tried again",
        ),
        (
            "exec sleep 100",
            Duration::from_secs(5),
            "longer than 5 s, as happens on a busy machine; it is tried",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path(), at_first, wall);
        let bench = Bench::of_settings(Settings { workers: 1, compiler, ..Settings::default() }, &[]);
        bench.put("file.wasm", &guest("nothing"));
        bench.plugins.reload(SETTLED);
        let status = bench.only();
        assert_eq!((status.state, status.name.as_str()), (PluginState::Refused, "file"), "{status:?}");
        assert!(status.reason.contains(words), "{at_first}: {}", status.reason);
        bench.plugins.reload(SETTLED);
        assert_eq!((asked(folder.path()), bench.kinds_of_events().len()), (1, 1), "{at_first}: not at once");
        enable(&bench.plugins, "another");
        assert_eq!(asked(folder.path()), 1, "{at_first}: that is another");
        enable(&bench.plugins, "file");
        let status = bench.only();
        assert_eq!((status.state, status.name.as_str()), (PluginState::Loaded, "guest"), "{status:?}");
        assert_eq!(asked(folder.path()), 2, "{at_first}");
    }
}

#[test]
fn what_stays_out_beside_a_build_in_force_is_tried_again_when_that_is_enabled() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = compiler(folder.path(), "echo 'not yet'; exit 3", COMPILE_LIMITS.wall);
    fs::write(folder.path().join("again"), "").unwrap();
    let bench = Bench::of_settings(Settings { workers: 1, compiler, ..Settings::default() }, &[]);
    bench.put("file.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    assert_eq!((bench.only().name.as_str(), asked(folder.path())), ("guest", 1));
    fs::remove_file(folder.path().join("again")).unwrap();
    bench.put("file.wasm", &super::support::altered(guest("nothing"), 1));
    bench.plugins.reload(SETTLED);
    bench.plugins.reload(SETTLED);
    assert!(bench.only().refused.is_some() && asked(folder.path()) == 2, "{:?}", bench.only());
    enable(&bench.plugins, "guest");
    let status = bench.only();
    assert_eq!((status.state, status.generation, asked(folder.path())), (PluginState::Loaded, 2, 3));
    assert_eq!(status.refused, None);
}
