//! Plugins that no compiler would make: start functions that loop and trap, tables that grow, strings that are none.

mod support;

use std::fs;

use support::guests::{component, drop_in};
use support::{Callers, Mesh, RawUpstream, SOON, Value, eventually};
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, Encode as _, ExportKind, ExportSection, Function, FunctionSection,
    HeapType, InstructionSink, MemorySection, MemoryType, Module, RefType, StartSection, TableSection,
    TableType, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TypeRef};

const GROWTH_KIB_MAX: u64 = 64 << 10;
const FILE: &str = "guest.wasm";
const METADATA: &[u8] = b"name = \"guest\"\nversion = \"1.0.0\"\n";
const NOT_UTF8: [u8; 2] = [0xff, 0xfe];
/// The core function by which the right module is known.
const ROUTE: &str = "router@0.1.0#route";
const NOBODY: u32 = u32::MAX;

/// Where the guest's answers lie in its memory; a result that is well and a `pass` are all zeros.
const METADATA_TEXT: u32 = 1_024;
const NOT_UTF8_TEXT: u32 = 2_048;
const METADATA_AT: u32 = 4_096;
const WELL_AT: u32 = 4_112;
const DECISION_AT: u32 = 4_352;
/// Of `why` in a decision.
const WHY: u32 = 60;
/// What the host hands over is written here, one thing over the other: it is never read.
const ROOM_AT: u32 = 64 << 10;
const MEMORY_PAGES: u32 = 4;
const FAR: u32 = MEMORY_PAGES << 16;
const TABLE_ELEMENTS_MAX: u64 = 10_000;

/// A string as the host is told of it: where it begins, and its length.
type Text = (u32, u32);

/// A router that lets all calls pass and a balancer that picks nobody, but for what is set otherwise.
struct Guest {
    start: Option<fn(&mut InstructionSink<'_>)>,
    table_elements: u64,
    metadata: Text,
    /// Where it says that its metadata lie.
    metadata_at: u32,
    /// Where it says that there is room.
    room_at: u32,
    /// What it does before it answers about a call.
    before_answer: fn(&mut InstructionSink<'_>),
    decision_at: u32,
    verdict: u8,
    why: Text,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            start: None,
            table_elements: 1,
            metadata: (METADATA_TEXT, METADATA.len() as u32),
            metadata_at: METADATA_AT,
            room_at: ROOM_AT,
            before_answer: |_| {},
            decision_at: DECISION_AT,
            verdict: 0,
            why: (0, 0),
        }
    }
}

fn endless_loop(code: &mut InstructionSink<'_>) {
    code.loop_(wasm_encoder::BlockType::Empty).br(0).end();
}

fn trap(code: &mut InstructionSink<'_>) {
    code.unreachable();
}

/// Until it is refused, and then says so in its own way.
fn grow_table(code: &mut InstructionSink<'_>) {
    code.loop_(wasm_encoder::BlockType::Empty);
    code.ref_null(HeapType::FUNC).i32_const(1_000).table_grow(0).i32_const(-1).i32_ne();
    code.br_if(0).end().unreachable();
}

/// As if refusals were no reason to stop.
fn grow_table_for_ever(code: &mut InstructionSink<'_>) {
    code.loop_(wasm_encoder::BlockType::Empty);
    code.ref_null(HeapType::FUNC).i32_const(1_000).table_grow(0).drop().br(0).end();
}

fn function(body: impl FnOnce(&mut InstructionSink<'_>)) -> Function {
    let mut function = Function::new([]);
    body(&mut function.instructions());
    function.instructions().end();
    function
}

fn pair((at, len): Text) -> Vec<u8> {
    [at.to_le_bytes(), len.to_le_bytes()].concat()
}

impl Guest {
    /// A component that a compiler made, with another core module in the place of its own.
    fn component(&self) -> Vec<u8> {
        const MODULE: u8 = 1;
        let whole = component("misbehaver");
        let (header, mut rest) = whole.split_at(8);
        let mut component = header.to_vec();
        while let Some((&id, behind)) = rest.split_first() {
            let (len, behind) = leb128(behind);
            let (content, behind) = behind.split_at(len);
            rest = behind;
            if id == MODULE && exports_of(content).iter().any(|(name, _)| name.ends_with(ROUTE)) {
                let core = self.core(&exports_of(content));
                component.push(id);
                core.len().encode(&mut component);
                component.extend(core);
            } else {
                component.push(id);
                len.encode(&mut component);
                component.extend(content);
            }
        }
        component
    }

    /// Of all other functions only the type is right.
    fn core(&self, wanted: &[(String, FuncType)]) -> Vec<u8> {
        let (mut types, mut declared, mut exports) =
            (TypeSection::new(), FunctionSection::new(), ExportSection::new());
        let mut code = CodeSection::new();
        for (at, (name, ty)) in (0..).zip(wanted) {
            let convert =
                |types: &[wasmparser::ValType]| -> Vec<ValType> { types.iter().map(val_type).collect() };
            types.ty().function(convert(ty.params()), convert(ty.results()));
            declared.function(at);
            exports.export(name, ExportKind::Func, at);
            code.function(&function(|code| match name.rsplit('#').next().unwrap_or_default() {
                "metadata" if !name.starts_with("cabi_post_") => answer(code, self.metadata_at),
                "configure" | "self-test" if !name.starts_with("cabi_post_") => answer(code, WELL_AT),
                "route" if !name.starts_with("cabi_post_") => {
                    (self.before_answer)(code);
                    answer(code, self.decision_at);
                }
                "cabi_realloc" => answer(code, self.room_at),
                "pick" => answer(code, NOBODY),
                _ if ty.results().is_empty() => {}
                _ => trap(code),
            }));
        }
        exports.export("memory", ExportKind::Memory, 0);
        if let Some(start) = self.start {
            types.ty().function([], []);
            declared.function(types.len() - 1);
            code.function(&function(start));
        }
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: self.table_elements,
            maximum: None,
            shared: false,
        });
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: MEMORY_PAGES.into(),
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut data = DataSection::new();
        let mut lies = |at: u32, bytes: &[u8]| {
            data.active(0, &ConstExpr::i32_const(at as i32), bytes.iter().copied());
        };
        lies(METADATA_TEXT, METADATA);
        lies(NOT_UTF8_TEXT, &NOT_UTF8);
        lies(METADATA_AT, &pair(self.metadata));
        lies(DECISION_AT, &[self.verdict]);
        lies(DECISION_AT + WHY, &pair(self.why));
        let mut module = Module::new();
        module.section(&types).section(&declared).section(&tables).section(&memories).section(&exports);
        if self.start.is_some() {
            module.section(&StartSection { function_index: declared.len() - 1 });
        }
        module.section(&code).section(&data);
        module.finish()
    }
}

fn answer(code: &mut InstructionSink<'_>, at: u32) {
    code.i32_const(at as i32);
}

fn val_type(ty: &wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        other => panic!("no such type in the canonical ABI: {other}"),
    }
}

/// A number of up to 32 bits, and what is behind it.
fn leb128(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("the last byte of a number");
    let (number, rest) = bytes.split_at(end + 1);
    let number = number.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    (number, rest)
}

/// Functions that a core module exports.
fn exports_of(module: &[u8]) -> Vec<(String, FuncType)> {
    let (mut types, mut functions, mut exports) = (Vec::new(), Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload.expect("a valid module") {
            Payload::TypeSection(section) => {
                types.extend(section.into_iter_err_on_gc_types().map(|ty| ty.expect("a function type")));
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let TypeRef::Func(ty) = import.expect("an import").ty {
                        functions.push(ty);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                functions.extend(section.into_iter().map(|ty| ty.expect("a function")));
            }
            Payload::ExportSection(section) => {
                exports.extend(section.into_iter().map(|export| export.expect("an export")));
            }
            _ => {}
        }
    }
    let functions = exports.iter().filter(|export| export.kind == ExternalKind::Func).map(|export| {
        let ty = functions[export.index as usize] as usize;
        (export.name.to_owned(), types[ty].clone())
    });
    functions.collect()
}

/// What the binary does, the binary, and words of what is said about it.
type Case = (&'static str, Guest, &'static [&'static str]);

fn refused() -> Vec<Case> {
    let started = |start: fn(&mut InstructionSink<'_>)| Guest { start: Some(start), ..Guest::default() };
    let named = |metadata| Guest { metadata, ..Guest::default() };
    vec![
        ("a start that loops", started(endless_loop), &["during its start", "it took longer than"]),
        ("a start that traps", started(trap), &["during its start", "unreachable"]),
        ("a start that grows a table", started(grow_table), &["during its start", "unreachable"]),
        (
            "a start that goes on growing one",
            started(grow_table_for_ever),
            &["during its start", "it took longer than"],
        ),
        (
            "a table that is too large at once",
            Guest { table_elements: TABLE_ELEMENTS_MAX + 1, ..Guest::default() },
            &["during its start", "table"],
        ),
        ("metadata that are not UTF-8", named((NOT_UTF8_TEXT, 2)), &["`metadata`", "utf-8"]),
        ("metadata that end outside", named((FAR - 2, 4)), &["`metadata`", "out of bounds"]),
        ("metadata that begin outside", named((u32::MAX, 4)), &["`metadata`", "out of bounds"]),
        ("metadata without end", named((0, u32::MAX)), &["`metadata`", "out of bounds"]),
        (
            "an answer that lies outside",
            Guest { metadata_at: FAR, ..Guest::default() },
            &["`metadata`", "out of bounds"],
        ),
        (
            "an answer that is not aligned",
            Guest { metadata_at: METADATA_AT + 1, ..Guest::default() },
            &["`metadata`", "not aligned"],
        ),
        ("room that lies outside", Guest { room_at: FAR, ..Guest::default() }, &["`configure`", "realloc"]),
    ]
}

fn faulty() -> Vec<Case> {
    let why = |why| Guest { why, ..Guest::default() };
    vec![
        (
            "a table that grows with calls",
            Guest { before_answer: grow_table, ..Guest::default() },
            &["unreachable"],
        ),
        ("a reason that is not UTF-8", why((NOT_UTF8_TEXT, 2)), &["utf-8"]),
        ("a reason that ends outside", why((FAR - 2, 4)), &["out of bounds"]),
        ("a reason without end", why((0, u32::MAX)), &["out of bounds"]),
        ("a decision that lies outside", Guest { decision_at: FAR, ..Guest::default() }, &["out of bounds"]),
        (
            "a decision that is not aligned",
            Guest { decision_at: DECISION_AT + 1, ..Guest::default() },
            &["not aligned"],
        ),
        ("a verdict that does not exist", Guest { verdict: 9, ..Guest::default() }, &["discriminant"]),
    ]
}

async fn listed(mesh: &Mesh, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, 2 * SOON, || async {
        let page = mesh.api.get("/plugins").await.ok();
        let plugins = page["plugins"].as_array().expect("plugins").clone();
        let is_file = |plugin: &Value| plugin["source"].as_str().is_some_and(|source| source.ends_with(FILE));
        plugins.into_iter().find(|plugin| is_file(plugin) && holds(plugin))
    })
    .await
}

fn said(doing: &str, sentence: &Value, words: &[&str]) {
    let sentence = sentence.as_str().unwrap_or_default();
    assert!(words.iter().all(|words| sentence.contains(words)), "{doing}: `{sentence}` and not {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_that_no_compiler_makes_are_refused_or_faulted_and_calls_go_on() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("docs", upstream.port).await;
    // What is asked of a good one is answered, so that what follows fails for its own reason.
    drop_in(&mesh.plugins_dir(), FILE, &Guest::default().component());
    listed(&mesh, "the good one is in force", |plugin| plugin["state"] == "loaded").await;
    let callers = Callers::start(&mesh.api, 2, "docs", "act");
    let good = listed(&mesh, "it is asked", |plugin| plugin["calls"].as_u64() > Some(100)).await;
    assert_eq!(good["faults"], 0, "{good}");
    let before = mesh.resident_kib();
    for (doing, guest, words) in refused() {
        fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take the last one away");
        eventually("it is gone", SOON, || async { mesh.api.plugin("guest").await.is_none().then_some(()) })
            .await;
        drop_in(&mesh.plugins_dir(), FILE, &guest.component());
        let plugin = listed(&mesh, &format!("{doing}: refused"), |plugin| plugin["state"] == "refused").await;
        said(doing, &plugin["reason"], words);
    }
    for (doing, guest, words) in faulty() {
        fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take the last one away");
        eventually("it is gone", SOON, || async { mesh.api.plugin("guest").await.is_none().then_some(()) })
            .await;
        drop_in(&mesh.plugins_dir(), FILE, &guest.component());
        // The first one may be the fault of a machine that was too busy to run it.
        let faulted =
            |plugin: &Value| plugin["last_fault"].as_str().is_some_and(|fault| !fault.contains("too busy"));
        let plugin = listed(&mesh, &format!("{doing}: a fault"), faulted).await;
        said(doing, &plugin["last_fault"], words);
    }
    assert!(callers.stop().await > 1_000);
    eventually("its memory is given back", 2 * SOON, || async {
        (mesh.resident_kib() < before + GROWTH_KIB_MAX).then_some(())
    })
    .await;
    let log = mesh.log();
    assert_eq!(log.lines().find(|line| line.contains("panicked")), None, "the host panicked");
    assert!(!log.contains("the host failed"), "the host is never to blame");
}
