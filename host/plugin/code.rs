//! Machine code of plugins: where it comes from, and the one place where it is trusted.

use std::hash::{Hash, Hasher};
use std::time::Instant;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::Cache;
use super::compiler::{CompileError, Compiler};
use super::engine::Purpose;
use super::folder::sha256;
use crate::policy::status::{Made, Origin};

/// Machine code that this build's compiler made for this build's engine, as far as anyone can know: it came over the
/// pipe of our own child, or carries the signature of a run before. Bytes of any other kind never become this.
pub struct Code {
    bytes: Vec<u8>,
    start: usize,
}

impl Code {
    /// `bytes` from `start` on. Only for what the compiler just made, and what the cache has verified.
    pub(super) fn trusted(bytes: Vec<u8>, start: usize) -> Self {
        Self { bytes, start }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Turns components into machine code, and finds what was made before.
pub struct CodeMaker {
    purpose: Purpose,
    compiler: Compiler,
    cache: Option<Cache>,
    /// Stands for the engine: its version, its settings, this machine, this build.
    fingerprint: [u8; 32],
}

impl CodeMaker {
    pub fn new(engine: &Engine, purpose: Purpose, compiler: Compiler, cache: Option<Cache>) -> Self {
        Self { purpose, compiler, cache, fingerprint: fingerprint(engine) }
    }

    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Takes from a millisecond to minutes. `threads` is how many the compiler may use.
    ///
    /// # Errors
    /// The compiler does not take the component, or did not end well.
    pub fn make(
        &self,
        engine: &Engine,
        component: &[u8],
        threads: usize,
    ) -> Result<(Component, Made), CompileError> {
        let started = Instant::now();
        let name = self.name(component);
        if let Some(cache) = &self.cache
            && let Some(code) = cache.get(&name)
        {
            match load(engine, &code) {
                Ok(component) => {
                    return Ok((component, Made { origin: Origin::Cached, took: started.elapsed() }));
                }
                Err(error) => {
                    tracing::warn!(file = %name, %error, "cached plugin code does not load, compiling anew");
                    cache.remove(&name);
                }
            }
        }
        let code = self.compiler.compile(engine, self.purpose, component, threads)?;
        let loaded = load(engine, &code).map_err(|error| CompileError::Mismatch(error.to_string()))?;
        if let Some(cache) = &self.cache {
            cache.put(&name, &code);
        }
        Ok((loaded, Made { origin: Origin::Compiled, took: started.elapsed() }))
    }

    fn name(&self, component: &[u8]) -> String {
        let mut name = Sha256::new();
        name.update(self.fingerprint);
        name.update(sha256(component));
        hex::encode(name.finalize())
    }
}

#[expect(unsafe_code, reason = "the engine cannot check machine code, so this is where it is trusted")]
fn load(engine: &Engine, code: &Code) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what `Engine::precompile_component` answered, unchanged. A `Code` is only made of what
    // our own compiler said over its pipe, or of a cached file whose HMAC over all of it was verified with a key that
    // only this user can read; both are in memory by now, where nobody changes them. Wasmtime itself refuses code of
    // another version or other settings.
    unsafe { Component::deserialize(engine, code.bytes()) }
}

fn fingerprint(engine: &Engine) -> [u8; 32] {
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(Sha256::new());
    feed.write(concat!("meshwright ", env!("CARGO_PKG_VERSION")).as_bytes());
    engine.precompile_compatibility_hash().hash(&mut feed);
    feed.0.finalize().into()
}
