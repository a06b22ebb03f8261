//! The contract of `wit/plugin.wit` in Zig, by hand: the canonical ABI lays records out as C does. A plugin is a
//! `policy.zig` whose functions `exportLifecycle` and one of the others connect with the host.

const std = @import("std");

pub const Text = extern struct {
    ptr: [*]const u8 = "",
    len: usize = 0,

    pub fn of(bytes: []const u8) Text {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }

    pub fn slice(self: Text) []const u8 {
        return self.ptr[0..self.len];
    }
};

pub fn List(comptime T: type) type {
    return extern struct {
        ptr: [*]const T = &[_]T{},
        len: usize = 0,

        pub fn of(items: []const T) @This() {
            return .{ .ptr = items.ptr, .len = items.len };
        }

        pub fn slice(self: @This()) []const T {
            return self.ptr[0..self.len];
        }
    };
}

pub fn Option(comptime T: type) type {
    return extern struct {
        some: bool = false,
        value: T = undefined,

        pub fn of(value: T) @This() {
            return .{ .some = true, .value = value };
        }
    };
}

/// Memory of one call: what the host hands in, and what is answered. It is gone when the host has read the answer;
/// whatever is to stay must be copied.
var arena: std.heap.ArenaAllocator = .init(std.heap.wasm_allocator);

pub fn scratch() std.mem.Allocator {
    return arena.allocator();
}

/// Text that lives until the host has read it. There is no way on without memory.
pub fn print(comptime format: []const u8, arguments: anytype) Text {
    return .of(std.fmt.allocPrint(scratch(), format, arguments) catch @trap());
}

fn forget() void {
    _ = arena.reset(.retain_capacity);
}

fn forgetAfter(_: usize) callconv(.c) void {
    forget();
}

fn realloc(old: [*]const u8, old_len: usize, alignment: usize, new_len: usize) callconv(.c) usize {
    if (new_len == 0) return alignment;
    const new = scratch().alignedAlloc(u8, .@"8", new_len) catch @trap();
    if (old_len > 0) @memcpy(new[0..old_len], old[0..old_len]);
    return @intFromPtr(new.ptr);
}

fn exported(comptime interface: []const u8, comptime function: []const u8) []const u8 {
    return "meshwright:plugin/" ++ interface ++ "@0.1.0#" ++ function;
}

pub const Issue = extern struct { path: Text = .{}, message: Text };

fn Fallible(comptime E: type) type {
    return extern struct { failed: bool, reason: E };
}

/// `metadata() []const u8`, `configure(json) []const Issue` and `selfTest() ?[]const u8`, which answers what is wrong.
/// What they answer is read after they have returned: it is a constant of the file, or lies in `scratch`.
pub fn exportLifecycle(comptime policy: type) void {
    const S = struct {
        var name: Text = .{};
        var configured: Fallible(List(Issue)) = undefined;
        var tested: Fallible(Text) = undefined;

        fn metadata() callconv(.c) *const Text {
            name = .of(policy.metadata());
            return &name;
        }

        fn configure(ptr: [*]const u8, len: usize) callconv(.c) *const Fallible(List(Issue)) {
            const issues = policy.configure(ptr[0..len]);
            configured = .{ .failed = issues.len > 0, .reason = .of(issues) };
            return &configured;
        }

        fn selfTest() callconv(.c) *const Fallible(Text) {
            const wrong: ?[]const u8 = policy.selfTest();
            tested = .{ .failed = wrong != null, .reason = .of(wrong orelse "") };
            return &tested;
        }
    };
    @export(&realloc, .{ .name = "cabi_realloc" });
    inline for (.{ "metadata", "configure", "self-test" }, .{ &S.metadata, &S.configure, &S.selfTest }) |name, function| {
        @export(function, .{ .name = exported("lifecycle", name) });
        @export(&forgetAfter, .{ .name = "cabi_post_" ++ exported("lifecycle", name) });
    }
}

pub const Level = enum(i32) { debug, info, warn, @"error" };

/// A line for the host's log.
pub fn log(level: Level, comptime format: []const u8, arguments: anytype) void {
    const message = print(format, arguments);
    imports.emit(@intFromEnum(level), message.ptr, message.len);
}

/// State that the host keeps. An error is told in the log: the host's limits are the only reason for one.
pub const kv = struct {
    pub const Error = error{RefusedByHost};

    pub fn get(key: []const u8) ?[]const u8 {
        var found: Option(Text) = .{};
        imports.get(key.ptr, key.len, &found);
        return if (found.some) found.value.slice() else null;
    }

    pub fn set(key: []const u8, value: []const u8, ttl_s: u32) Error!void {
        var done: Fallible(Text) = undefined;
        imports.set(key.ptr, key.len, value.ptr, value.len, ttl_s, &done);
        if (done.failed) return refused(done.reason);
    }

    pub fn add(key: []const u8, delta: i64, ttl_s: u32) Error!i64 {
        var done: extern struct { failed: bool, value: extern union { sum: i64, reason: Text } } = undefined;
        imports.add(key.ptr, key.len, delta, ttl_s, &done);
        return if (done.failed) refused(done.value.reason) else done.value.sum;
    }

    fn refused(reason: Text) Error {
        log(.warn, "{s}", .{reason.slice()});
        return error.RefusedByHost;
    }
};

const imports = struct {
    extern "meshwright:plugin/log@0.1.0" fn emit(level: i32, ptr: [*]const u8, len: usize) void;
    extern "meshwright:plugin/kv@0.1.0" fn get(key: [*]const u8, key_len: usize, found: *anyopaque) void;
    extern "meshwright:plugin/kv@0.1.0" fn set(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize, ttl_s: u32, done: *anyopaque) void;
    extern "meshwright:plugin/kv@0.1.0" fn add(key: [*]const u8, key_len: usize, delta: i64, ttl_s: u32, done: *anyopaque) void;
    extern "meshwright:plugin/arguments@0.1.0" fn at(pointer: [*]const u8, len: usize, found: *anyopaque) void;
};

pub const Service = extern struct { name: Text, tags: List(Text), tools: List(Text), instances: u32, healthy: u32 };

pub const Call = struct {
    id: u64,
    now_ms: u64,
    random: u64,
    affinity: u64,
    service: []const u8,
    tool: []const u8,
    method: []const u8,
    client: []const u8,
    size: u32,
    deadline_ms: u32,
};

pub const Mirror = extern struct { service: Text, permille: u16, any_tool: bool };
pub const Target = extern struct {
    service: Text,
    tag: Option(Text) = .{},
    tool: Option(Text) = .{},
    timeout_ms: Option(u32) = .{},
    mirror: Option(Mirror) = .{},
};
pub const Refusal = extern struct { reason: Text, retry_after_ms: Option(u32) = .{} };
pub const Reuse = extern struct { ttl_ms: u32, vary: u8 };

pub const Decision = extern struct {
    verdict: enum(u8) { pass, forward, reject } = .pass,
    value: extern union { forward: Target, reject: Refusal } = undefined,
    why: Text = .{},
    reuse: Option(Reuse) = .{},
};

/// `onCatalog([]const Service) void` and `route(Call) Decision`.
pub fn exportRouter(comptime policy: type) void {
    const S = struct {
        var decision: Decision = .{};

        fn onCatalog(ptr: [*]const Service, len: usize) callconv(.c) void {
            policy.onCatalog(ptr[0..len]);
            forget();
        }

        fn route(id: u64, now_ms: u64, random: u64, affinity: u64, service: [*]const u8, service_len: usize, tool: [*]const u8, tool_len: usize, method: [*]const u8, method_len: usize, client: [*]const u8, client_len: usize, size: u32, deadline_ms: u32) callconv(.c) *const Decision {
            decision = policy.route(.{
                .id = id,
                .now_ms = now_ms,
                .random = random,
                .affinity = affinity,
                .service = service[0..service_len],
                .tool = tool[0..tool_len],
                .method = method[0..method_len],
                .client = client[0..client_len],
                .size = size,
                .deadline_ms = deadline_ms,
            });
            return &decision;
        }
    };
    @export(&S.onCatalog, .{ .name = exported("catalog", "on-catalog") });
    @export(&S.route, .{ .name = exported("router", "route") });
    @export(&forgetAfter, .{ .name = "cabi_post_" ++ exported("router", "route") });
}

/// The JSON text at a pointer into the arguments of the call: for routers with the grant `arguments` only.
pub fn argument(pointer: []const u8) ?[]const u8 {
    var found: Option(Text) = .{};
    imports.at(pointer.ptr, pointer.len, &found);
    return if (found.some) found.value.slice() else null;
}

pub const Member = extern struct {
    slot: u32,
    instance: Text,
    node: Text,
    zone: Text,
    weight: u16,
    tags: List(Text),
};
pub const Load = extern struct { slot: u32, in_flight: u32, ewma_us: u32, errors_permille: u16, score: u8 };

/// "Leave it to the next."
pub const no_slot: u32 = 0xffff_ffff;

/// `onPool(pool, service, []const Member) void`, `onLoad(pool, []const Load) void` and
/// `pick(pool, affinity, random, tried) u32`.
pub fn exportBalancer(comptime policy: type) void {
    const S = struct {
        fn onPool(pool: u32, service: [*]const u8, service_len: usize, ptr: [*]const Member, len: usize) callconv(.c) void {
            policy.onPool(pool, service[0..service_len], ptr[0..len]);
            forget();
        }

        fn onLoad(pool: u32, ptr: [*]const Load, len: usize) callconv(.c) void {
            policy.onLoad(pool, ptr[0..len]);
            forget();
        }

        fn pick(pool: u32, affinity: u64, random: u64, tried: u64) callconv(.c) u32 {
            defer forget();
            return policy.pick(pool, affinity, random, tried);
        }
    };
    @export(&S.onPool, .{ .name = exported("balancer", "on-pool") });
    @export(&S.onLoad, .{ .name = exported("balancer", "on-load") });
    @export(&S.pick, .{ .name = exported("balancer", "pick") });
}

/// Live figures of the pool that is being asked about: for balancers only.
pub const live = struct {
    extern "meshwright:plugin/live@0.1.0" fn @"in-flight"(pool: u32, slot: u32) u32;
    extern "meshwright:plugin/live@0.1.0" fn @"ewma-us"(pool: u32, slot: u32) u32;

    pub fn inFlight(pool: u32, slot: u32) u32 {
        return @"in-flight"(pool, slot);
    }

    pub fn ewmaUs(pool: u32, slot: u32) u32 {
        return @"ewma-us"(pool, slot);
    }
};

pub const Choice = extern struct { share: u32, price: f32, first: bool };
pub const TwoChoices = extern struct { choices: List(Choice), failure_us: u32 };
pub const Point = extern struct { point: u64, slot: u32 };
pub const Plan = extern struct {
    strategy: enum(u8) { weighted, two_choices, ring, tiers },
    value: extern union { weighted: List(u32), two_choices: TwoChoices, ring: List(Point), tiers: List(List(u32)) },
    ttl_ms: u32,
    why: Text = .{},
};

/// `compile(pool, service, []const Member, []const Load) ?Plan`; nothing leaves the pool to the next.
pub fn exportPlanner(comptime policy: type) void {
    const S = struct {
        var planned: Option(Plan) = .{};

        fn compile(pool: u32, service: [*]const u8, service_len: usize, members: [*]const Member, members_len: usize, loads: [*]const Load, loads_len: usize) callconv(.c) *const Option(Plan) {
            const plan: ?Plan = policy.compile(pool, service[0..service_len], members[0..members_len], loads[0..loads_len]);
            planned = if (plan) |made| .of(made) else .{};
            return &planned;
        }
    };
    @export(&S.compile, .{ .name = exported("planner", "compile") });
    @export(&forgetAfter, .{ .name = "cabi_post_" ++ exported("planner", "compile") });
}

pub const Aggregate = enum(u8) { last, min, max, mean, p50, p95, p99, rate, count, slope };
pub const Severity = enum(u8) { info, warning, @"error", critical };
pub const Label = extern struct { name: Text, value: Text };
pub const Want = extern struct { series: Text, aggregate: Aggregate, window_s: u32 };
pub const Sample = extern struct { want: u32, labels: List(Label), value: f64 };
pub const Event = extern struct { at_ms: u64, kind: Text, service: Text, instance: Text, detail: Text };
pub const Firing = extern struct {
    rule: Text,
    severity: Severity,
    labels: List(Label),
    title: Text,
    detail: Text,
    value: f64,
    threshold: f64,
    for_s: u32,
    resolve_at: f64,
};

/// `wants() []const Want` and `evaluate(now_ms, []const Sample, []const Event) []const Firing`.
pub fn exportAlerter(comptime policy: type) void {
    const S = struct {
        var wanted: List(Want) = .{};
        var firing: List(Firing) = .{};

        fn wants() callconv(.c) *const List(Want) {
            wanted = .of(policy.wants());
            return &wanted;
        }

        fn evaluate(now_ms: u64, samples: [*]const Sample, samples_len: usize, events: [*]const Event, events_len: usize) callconv(.c) *const List(Firing) {
            firing = .of(policy.evaluate(now_ms, samples[0..samples_len], events[0..events_len]));
            return &firing;
        }
    };
    @export(&S.wants, .{ .name = exported("alerter", "wants") });
    @export(&S.evaluate, .{ .name = exported("alerter", "evaluate") });
    inline for (.{ "wants", "evaluate" }) |name| {
        @export(&forgetAfter, .{ .name = "cabi_post_" ++ exported("alerter", name) });
    }
}
