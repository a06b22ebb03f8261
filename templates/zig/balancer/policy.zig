//! A balancer. The less busy of two instances taken at random wins; put your own policy into `pick`. `meshwright.zig`
//! connects it with the contract in `wit/plugin.wit`.

const std = @import("std");
const meshwright = @import("meshwright.zig");

comptime {
    meshwright.exportLifecycle(@This());
    meshwright.exportBalancer(@This());
}

// The host reads this after `configure` has returned.
const there_are_none = [_]meshwright.Issue{.{ .message = .of("There are no settings.") }};

const memory = std.heap.wasm_allocator;
/// The slots of each pool that may be picked. An instance of a plugin is never entered twice at a time.
var pools: std.AutoHashMapUnmanaged(u32, std.ArrayListUnmanaged(u32)) = .empty;

pub fn metadata() []const u8 {
    return "name = \"{{name}}\"\nversion = \"0.1.0\"\n";
}

/// Called before anything below, with `{}` when nothing is configured. Any issue refuses it.
pub fn configure(json: []const u8) []const meshwright.Issue {
    return if (std.mem.eql(u8, json, "{}")) &.{} else &there_are_none;
}

/// What is wrong, if anything is: that keeps the plugin out.
pub fn selfTest() ?[]const u8 {
    return null;
}

/// The whole membership of a pool, before the first pick and after each change. No members: it is gone.
pub fn onPool(pool: u32, _: []const u8, members: []const meshwright.Member) void {
    if (members.len == 0) {
        if (pools.fetchRemove(pool)) |gone| {
            var slots = gone.value;
            slots.deinit(memory);
        }
        return;
    }
    const slots = emptied(pool);
    for (members) |member| slots.append(memory, member.slot) catch @trap();
}

/// About once a second: a score of 0 means that the host will not route there now.
pub fn onLoad(pool: u32, loads: []const meshwright.Load) void {
    const slots = emptied(pool);
    for (loads) |load| {
        if (load.score > 0) slots.append(memory, load.slot) catch @trap();
    }
}

pub fn pick(pool: u32, _: u64, random: u64, tried: u64) u32 {
    const slots = pools.get(pool) orelse return meshwright.no_slot;
    const free = meshwright.scratch().alloc(u32, slots.items.len) catch @trap();
    var count: usize = 0;
    for (slots.items) |slot| {
        if (slot < 64 and tried >> @intCast(slot) & 1 == 1) continue;
        free[count] = slot;
        count += 1;
    }
    if (count == 0) return meshwright.no_slot;
    const one = free[@intCast(random % count)];
    const other = free[@intCast((random >> 32) % count)];
    return if (meshwright.live.inFlight(pool, other) < meshwright.live.inFlight(pool, one)) other else one;
}

fn emptied(pool: u32) *std.ArrayListUnmanaged(u32) {
    const entry = pools.getOrPutValue(memory, pool, .empty) catch @trap();
    entry.value_ptr.clearRetainingCapacity();
    return entry.value_ptr;
}
