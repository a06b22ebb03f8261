//! Meshwright: a mesh proxy for MCP servers whose policies are WebAssembly components. `ARCHITECTURE.md` shows the
//! rooms and what must hold between them.

pub mod app;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod edge;
pub mod endpoint;
pub mod http;
pub mod mcp;
pub mod mesh;
pub mod plugin;
pub mod policy;
pub mod prober;
pub mod problem;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod spelling;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod upstream;
pub mod watch;
pub mod worker;
pub mod workshop;
