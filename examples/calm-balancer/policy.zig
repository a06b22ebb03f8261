//! A balancer that gives each call to the instance with the fewest calls in flight. `meshwright.zig` connects it with the
//! contract in `wit/plugin.wit`.

const std = @import("std");
const meshwright = @import("meshwright.zig");

comptime {
    meshwright.exportLifecycle(@This());
    meshwright.exportBalancer(@This());
}

const Place = struct { slot: u32, available: bool };

// The host reads this after `configure` has returned.
const there_are_none = [_]meshwright.Issue{.{ .message = .of("This balancer has no settings.") }};

const memory = std.heap.wasm_allocator;
/// The members of each pool. An instance of a plugin is never entered twice at a time.
var pools: std.AutoHashMapUnmanaged(u32, []Place) = .empty;

pub fn metadata() []const u8 {
    return "name = \"calm-balancer\"\nversion = \"0.1.0\"\nsummary = \"Fewest calls in flight first\"\n";
}

pub fn configure(json: []const u8) []const meshwright.Issue {
    return if (std.mem.eql(u8, json, "{}")) &.{} else &there_are_none;
}

pub fn selfTest() ?[]const u8 {
    const places = [_]Place{ .{ .slot = 0, .available = true }, .{ .slot = 1, .available = true } };
    const figures = struct {
        fn inFlight(_: u32, slot: u32) u32 {
            return 5 - slot;
        }
    };
    if (calmest(0, &places, 0, 0, figures.inFlight) != 1) return "the calmest instance is not found";
    if (calmest(0, &places, 0, 0b10, figures.inFlight) != 0) return "an instance is tried twice";
    return null;
}

pub fn onPool(pool: u32, _: []const u8, members: []const meshwright.Member) void {
    if (pools.fetchRemove(pool)) |gone| memory.free(gone.value);
    if (members.len == 0) return;
    const places = memory.alloc(Place, members.len) catch @trap();
    for (places, members) |*place, member| place.* = .{ .slot = member.slot, .available = true };
    pools.put(memory, pool, places) catch @trap();
}

pub fn onLoad(pool: u32, loads: []const meshwright.Load) void {
    const places = pools.get(pool) orelse return;
    for (loads) |load| {
        for (places) |*place| {
            if (place.slot == load.slot) place.available = load.score > 0;
        }
    }
}

pub fn pick(pool: u32, _: u64, random: u64, tried: u64) u32 {
    const places = pools.get(pool) orelse return meshwright.no_slot;
    return calmest(pool, places, random, tried, meshwright.live.inFlight);
}

/// Begins at a random place, so that equals share the calls.
fn calmest(pool: u32, places: []const Place, random: u64, tried: u64, inFlight: fn (u32, u32) u32) u32 {
    var best: u32 = meshwright.no_slot;
    var fewest: u32 = std.math.maxInt(u32);
    const first: usize = @intCast(random % places.len);
    for (0..places.len) |offset| {
        const place = places[(first + offset) % places.len];
        if (!place.available or isTried(tried, place.slot)) continue;
        const calls = inFlight(pool, place.slot);
        if (calls < fewest) {
            best = place.slot;
            fewest = calls;
        }
    }
    return best;
}

fn isTried(tried: u64, slot: u32) bool {
    return slot < 64 and tried >> @intCast(slot) & 1 == 1;
}
