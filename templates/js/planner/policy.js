// A planner. Each instance gets calls by its weight, less what fails; put your own policy into `compile`. What is exported
// are the interfaces of the world `planning` in wit/plugin.wit, in JavaScript's spelling.

// A plan outlives a few missed rounds.
const TTL_MS = 5000;

export const lifecycle = {
  metadata: () => 'name = "{{name}}"\nversion = "0.1.0"\n',

  // Called before anything below, with {} when nothing is configured. Throwing a list of issues refuses it.
  configure(json) {
    const issues = Object.keys(JSON.parse(json)).map((key) => ({ path: `/${key}`, message: 'There is no such setting.' }));
    if (issues.length > 0) throw issues;
  },

  // Throwing a text keeps the plugin out.
  selfTest() {},
};

export const planner = {
  // The host's own balancer follows the plan until the next one. `null` leaves the pool to the next.
  compile(pool, service, members, loads) {
    if (members.length === 0) return null;
    const failing = new Map(loads.map(({ slot, errorsPermille }) => [slot, errorsPermille]));
    const weights = members.map(({ slot, weight }) => Math.floor((weight * (1000 - (failing.get(slot) ?? 0))) / 1000));
    return { strategy: { tag: 'weighted', val: weights }, ttlMs: TTL_MS, why: 'by weight and errors' };
  },
};
