// A balancer. The less busy of two instances taken at random wins; put your own policy into `pick`. What is exported are
// the interfaces of the world `balancing` in wit/plugin.wit, in JavaScript's spelling.

import { inFlight } from 'meshwright:plugin/live@0.1.0';

// "Leave it to the next": 0xffffffff, which QuickJS hands on only as a signed number.
const NOBODY = -1;

// The slots of each pool that may be picked.
const pools = new Map();

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

export const balancer = {
  // The whole membership of a pool, before the first pick and after each change. No members: it is gone.
  onPool(pool, service, members) {
    if (members.length === 0) pools.delete(pool);
    else pools.set(pool, members.map(({ slot }) => slot));
  },

  // About once a second: a score of 0 means that the host will not route there now.
  onLoad(pool, loads) {
    pools.set(pool, loads.filter(({ score }) => score > 0).map(({ slot }) => slot));
  },

  pick(pool, affinity, random, tried) {
    // A u64 comes as a number, without its last bits when it is large: what is drawn is taken from the first ones.
    const isTried = (slot) => slot < 64 && Math.floor(tried / 2 ** slot) % 2 === 1;
    const free = (pools.get(pool) ?? []).filter((slot) => !isTried(slot));
    if (free.length === 0) return NOBODY;
    const drawn = (random / 2 ** 64) * free.length;
    const [one, other] = [free[Math.floor(drawn)], free[Math.floor((drawn % 1) * free.length)]];
    return inFlight(pool, other) < inFlight(pool, one) ? other : one;
  },
};
