use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const NAME: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000002";

fn cache(bytes_max: u64) -> (TempDir, Cache) {
    let data = tempfile::tempdir().unwrap();
    let cache = Cache::open(data.path(), bytes_max).unwrap();
    (data, cache)
}

fn code(bytes: &[u8]) -> Code {
    Code::trusted(bytes.to_vec(), 0)
}

fn found(cache: &Cache, name: &str) -> Option<Vec<u8>> {
    cache.get(name).map(|code| code.bytes().to_vec())
}

#[test]
fn what_was_put_is_found_by_the_next_run_and_under_no_other_name() {
    let (data, cache) = cache(BYTES_MAX);
    cache.put(NAME, &code(b"machine code"));
    let next = Cache::open(data.path(), BYTES_MAX).unwrap();
    assert_eq!(found(&next, NAME).as_deref(), Some(&b"machine code"[..]));
    assert_eq!(found(&next, OTHER), None);
    fs::rename(cache.path(NAME), cache.path(OTHER)).unwrap();
    assert_eq!(found(&next, OTHER), None, "one plugin's code is not another's");
    assert!(!cache.path(OTHER).exists());
}

#[test]
fn a_file_with_one_changed_bit_is_removed_wherever_the_bit_is() {
    let (_data, cache) = cache(BYTES_MAX);
    for at in [0, MAGIC.len(), MAGIC.len() + 31, CODE_AT, CODE_AT + 11] {
        cache.put(NAME, &code(b"machine code"));
        let mut bytes = fs::read(cache.path(NAME)).unwrap();
        bytes[at] ^= 1;
        fs::write(cache.path(NAME), &bytes).unwrap();
        assert_eq!(found(&cache, NAME), None, "byte {at}");
        assert!(!cache.path(NAME).exists(), "byte {at}");
    }
    for length in [0, 5, CODE_AT, CODE_AT + 5] {
        cache.put(NAME, &code(b"machine code"));
        let bytes = fs::read(cache.path(NAME)).unwrap();
        fs::write(cache.path(NAME), &bytes[..length]).unwrap();
        assert_eq!(found(&cache, NAME), None, "{length} bytes");
    }
}

#[test]
fn the_key_is_private_and_one_that_is_not_is_replaced() {
    let (data, cache) = cache(BYTES_MAX);
    let path = data.path().join("cache.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    cache.put(NAME, &code(b"x"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let next = Cache::open(data.path(), BYTES_MAX).unwrap();
    assert_ne!(next.key, cache.key);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(found(&next, NAME), None, "signed with a key that others may have read");
    fs::write(&path, b"short").unwrap();
    assert_ne!(Cache::open(data.path(), BYTES_MAX).unwrap().key, next.key);
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let (_data, cache) = cache(300);
    let names: Vec<String> = (0..4).map(|number| format!("{number:064}")).collect();
    let age = |name: &str, secs| {
        let file = File::options().append(true).open(cache.path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(secs)).unwrap();
    };
    for (name, secs) in names[..3].iter().zip([300, 200, 100]) {
        cache.put(name, &code(&[0; 50]));
        age(name, secs);
    }
    assert!(found(&cache, &names[0]).is_some(), "used just now, so the second is the oldest");
    cache.put(&names[3], &code(&[0; 50]));
    let left: Vec<bool> = names.iter().map(|name| cache.path(name).exists()).collect();
    assert_eq!(left, [true, false, true, true]);
    cache.put(&names[1], &code(&[0; 301]));
    assert!(!cache.path(&names[1]).exists(), "larger than all there is");
}

#[test]
fn without_a_place_to_write_there_is_no_cache() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("cache"), b"a file").unwrap();
    assert!(matches!(Cache::open(data.path(), BYTES_MAX), Err(CacheError::Folder { .. })));
}
