//! For each reason that keeps a plugin out: at which step it was found, and what its author can do.

use crate::plugin::{Fault, LoadError};

/// The step of loading that found `error`.
pub fn step(error: &LoadError) -> &'static str {
    match error {
        LoadError::Unreadable(_) | LoadError::Open(_) | LoadError::TooLarge => "reading the file",
        LoadError::Empty
        | LoadError::NotWasm
        | LoadError::Truncated
        | LoadError::CoreModule
        | LoadError::NotValid(_) => "the file's shape",
        LoadError::ForbiddenImport(_) | LoadError::UnknownImport(_) | LoadError::AsyncAbi => "its imports",
        LoadError::Version(_) | LoadError::Contract(_) => "the contract",
        LoadError::NotAPlugin | LoadError::NoLifecycle | LoadError::NoKind => "its exports",
        LoadError::Compiler(_) | LoadError::CompileTime(_) | LoadError::Unfinished(..) => "compiling",
        LoadError::NoProcess(..) => "starting a process",
        LoadError::Schema(_) => "`config-schema`",
        LoadError::Fault { step, .. } => step,
        LoadError::Metadata(_)
        | LoadError::Name { .. }
        | LoadError::UnknownGrant(_)
        | LoadError::Budget { .. } => "`metadata`",
        LoadError::SelfTest(_) => "`self-test`",
        LoadError::Configuration(_) => "`configure`",
        LoadError::ConfigurationFile { .. } | LoadError::Unfit(_) => "its configuration",
        LoadError::Memory { .. } => "its memory",
        LoadError::Duplicate(..) => "its name",
        LoadError::OwnMetric(_) | LoadError::TakenMetric(..) => "`describe`",
    }
}

pub fn advice(error: &LoadError) -> &'static str {
    match error {
        LoadError::Unreadable(_) => "Give the path of a `.wasm` file that you may read.",
        LoadError::Open(_) => "Let nobody but its owner and group write it.",
        LoadError::TooLarge => "Build it for size and strip it; an interpreter fits into 18 MiB.",
        LoadError::Empty | LoadError::Truncated => "Build or copy it again, and check once that is done.",
        LoadError::NotWasm => {
            "Give what the build wrote, such as `target/wasm32-wasip2/release/NAME.wasm`, not the source."
        }
        LoadError::CoreModule => {
            "Make a component of it: in Rust with `--target wasm32-wasip2`, elsewhere with `wasm-tools component \
             new` or `jco new`."
        }
        LoadError::NotValid(_) => {
            "The build tool wrote what the standard does not allow; try a newer release of it."
        }
        LoadError::ForbiddenImport(import) if import.starts_with("wasi:http") => {
            "Something in the build asks for HTTP. In JavaScript, `--disable all` leaves it out; elsewhere look for \
             the dependency that does."
        }
        LoadError::ForbiddenImport(import) if import.starts_with("wasi:filesystem") => {
            "Remove what opens files; the language's runtime may import it unasked (in Python `-s`, in JavaScript \
             `--disable all` leave it out)."
        }
        LoadError::ForbiddenImport(_) => {
            "Remove what uses it; `wit/README.md` lists what there is. A tool that prints a component's WIT shows \
             the imports."
        }
        LoadError::UnknownImport(_) | LoadError::Version(_) => {
            "Build it with the `plugin.wit` of this release (`meshwright plugin new` writes it into each project), \
             or run a release that offers that version."
        }
        LoadError::AsyncAbi => {
            "Build it for the synchronous ABI: `componentize-qjs --sync`, and no `async` in the world."
        }
        LoadError::NotAPlugin | LoadError::NoLifecycle | LoadError::NoKind => {
            "Build it for one of the worlds of `plugin.wit` (routing, balancing, planning, alerting, metering); in \
             Rust, `export!` must not be left out."
        }
        LoadError::Contract(_) => {
            "A function or a type differs from `plugin.wit`: generate the bindings anew from the file of this release."
        }
        LoadError::Compiler(_) => "This is a flaw of the host: please report it with the file.",
        LoadError::CompileTime(_) => {
            "Build it smaller: optimised for size, without what is not needed; one huge function costs most."
        }
        LoadError::Unfinished(..) => {
            "The machine was busy, or short of memory: try again, or try where more is to be had."
        }
        LoadError::NoProcess(..) => "This needs a process of its own: see that this user may start one.",
        LoadError::Schema(_) => {
            "`config-schema` in the metadata is JSON Schema as JSON text, for an object, and refers to nothing outside."
        }
        LoadError::Fault { fault, .. } => fault_advice(fault),
        LoadError::Metadata(_) => "`metadata` returns TOML: name = \"my-plugin\" and version = \"0.1.0\".",
        LoadError::UnknownGrant(_) => "Leave it out of `grants`, or run a release that knows it.",
        LoadError::Name { .. } => "Use letters, digits, `-`, `_` and `.`, and start with a letter.",
        LoadError::Budget { .. } => {
            "Promise what it keeps, such as `budgets = { route-us = 50 }`, or nothing."
        }
        LoadError::SelfTest(_) => "The plugin's own test says so: mend the plugin, or the test.",
        LoadError::Configuration(_) | LoadError::Unfit(_) => {
            "Mend each place that is named; without `--config`, the `NAME.toml` beside the file counts."
        }
        LoadError::ConfigurationFile { .. } => {
            "Mend the file: TOML whose top-level keys are the configuration."
        }
        LoadError::Memory { .. } => {
            "Allocate less before the first question, or build without what is not needed."
        }
        LoadError::Duplicate(..) => "Remove one of the two, or give this one another name.",
        LoadError::OwnMetric(_) | LoadError::TakenMetric(..) => {
            "Give the metric a name of its own, such as one that begins with the plugin's."
        }
    }
}

fn fault_advice(fault: &Fault) -> &'static str {
    match fault {
        Fault::Trap(_) => {
            "It ended itself: a panic or an exception that nobody caught. The words are its own."
        }
        Fault::Deadline(_) | Fault::Instructions(_) => {
            "It works for too long or forever: do less here, and look for a loop that does not end."
        }
        Fault::Memory { .. } => "It needs more memory than plugins get: keep less.",
        Fault::Nonsense(_) => {
            "What it returned is not allowed by the contract; see the comments in `plugin.wit`."
        }
        Fault::Configuration => "`configure` must accept again what it accepted before.",
        Fault::Starved => "Try again when the machine is less busy.",
        Fault::Host(_) => "This is a flaw of the host: please report it with the file.",
    }
}
