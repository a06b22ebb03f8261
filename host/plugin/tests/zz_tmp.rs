use super::support::*;
#[test] #[ignore]
fn zz() {
    let rt = crate::plugin::engine::Runtime::new().unwrap();
    let ga = std::fs::read("/tmp/pr-guest/target/wasm32-wasip2/release/ga.wasm").unwrap();
    println!("ASYNC {:?}", crate::plugin::load::build(&rt, "ga", &ga).err().map(|e| e.to_string()));
    let good = guest("nothing");
    let mut seen = std::collections::BTreeMap::new();
    fastrand::seed(7);
    let t = std::time::Instant::now();
    for _ in 0..1500 {
        let mut b = good.clone();
        match fastrand::u8(..3) { 0 => { b.truncate(fastrand::usize(..b.len())); } 1 => { let at = fastrand::usize(..b.len()); b[at] ^= 1 << fastrand::u8(..8); } _ => { for _ in 0..20 { let at = fastrand::usize(..2000); b[at] = fastrand::u8(..); } } }
        let r = match crate::plugin::load::build(&rt, "x", &b) { Ok(_) => "ok".to_string(), Err(e) => { let s = e.to_string(); s[..s.floor_char_boundary(60)].to_string() } };
        *seen.entry(r).or_insert(0) += 1;
        if t.elapsed().as_secs() > 200 { break; }
    }
    let mut v: Vec<_> = seen.into_iter().collect(); v.sort_by_key(|x| -x.1);
    for (k, n) in v.into_iter().take(45) { println!("{n:5} {k}"); }
}
