//! `plugin rollback`: has a running proxy put the build before back.

use serde::Deserialize;

use super::running::{Running, Where};
use super::{Verdict, WorkshopError, print};
use crate::mesh::ids::Name;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The plugin, while its newest build is on probation
    #[arg(value_parser = |text: &str| Name::new(text))]
    name: Name,
    #[command(flatten)]
    place: Where,
}

#[derive(Deserialize)]
struct RolledBack {
    version: String,
    generation: u64,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let body = proxy.post(&format!("/api/v1/plugins/{}/rollbacks", args.name), &())?;
    let back: RolledBack = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
    print(&format!("✔ {} {} #{} is in force again\n", args.name, back.version, back.generation));
    Ok(Verdict::Good)
}
