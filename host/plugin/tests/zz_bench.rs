use super::support::*;
use crate::plugin::{engine::Runtime, instance::*, load, host_state::Shared, embedded, clock};
use std::sync::Arc;
use std::time::Duration;
fn bench(what: &str, mut f: impl FnMut(u64)) { let cpu = || clock::thread_cpu().unwrap().as_nanos() as u64; let n = 20_000; for i in 0..n { f(i) } let mut v: Vec<f64> = (0..41).map(|_| { let t = cpu(); for i in 0..n { f(i) } (cpu() - t) as f64 / n as f64 }).collect(); v.sort_by(f64::total_cmp); println!("{what:<50} min {:7.0} med {:7.0} p90 {:7.0} ns", v[0], v[20], v[36]); }
#[test] #[ignore]
fn zz() {
    let rt = Runtime::new().unwrap();
    for (which, bytes) in embedded::EMBEDDED.iter().take(2).map(|(n, b)| (*n, b.to_vec())).chain([("contrarian", guest("nothing"))]) {
        println!("--- {which}");
        let b = load::build(&rt, which, &bytes).unwrap();
        let mut i = b.compiled.instantiate(Class::Hot, Shared::new("x")).unwrap();
        i.configure("{}").unwrap().unwrap();
        let p = Arc::new(pool(1, 1, 3)); let c = catalog(1, 5); let f = facts();
        let d = Duration::from_millis(5);
        bench("guarded nothing", |_| { i.enter(d, |_, _| Ok(())).unwrap() });
        if b.compiled.indices.kinds().contains(&"balancer") {
            bench("instance.pick", |k| { i.pick(&p, crate::policy::Ask { affinity: k, random: k.wrapping_mul(0x9e3779b97f4a7c15), excluded: 0 }).unwrap(); });
            bench("enter(guest.pick)", |k| { i.enter(d, |g, s| g.pick(s, 1, k, k.wrapping_mul(0x9e3779b97f4a7c15), 0)).unwrap().unwrap(); });
            bench("enter(guest.pick unknown pool)", |k| { i.enter(d, |g, s| g.pick(s, 99, k, k.wrapping_mul(0x9e3779b97f4a7c15), 0)).unwrap().unwrap(); });
        }
        if b.compiled.indices.kinds().contains(&"router") {
            bench("instance.route", |_| { i.route(&f, &c).unwrap(); });
            let mut e = f.clone(); e.service = ""; e.tool = ""; e.client = ""; e.method = "";
            bench("instance.route, empty strings", |_| { let _ = i.route(&e, &c); });
        }
    }
}
